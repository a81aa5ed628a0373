//! Calls over real sockets through a network that is not perfect.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use duologue_audio::{FRAME_SAMPLES, Frame};
use duologue_netem::{Relay, Weather};
use duologue_rtc::{JitterStatistics, Peer, PeerCommand, PeerHandler, Port, PortConfig};
use tokio::sync::mpsc;

/// Long enough for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);
const FRAME: Duration = Duration::from_millis(20);

struct Ear(mpsc::UnboundedSender<News>);

enum News {
    Connected,
    Disconnected,
    Loud,
}

impl PeerHandler for Ear {
    fn connected(&mut self) {
        let _ = self.0.send(News::Connected);
    }
    fn disconnected(&mut self) {
        let _ = self.0.send(News::Disconnected);
    }
    fn sound(&mut self, frame: Frame) {
        if frame.rms_dbfs() > -30.0 {
            let _ = self.0.send(News::Loud);
        }
    }
    fn message(&mut self, _text: &str) -> bool {
        true
    }
    fn output_delay(&mut self, _delay: Duration) {}
}

struct Side {
    commands: mpsc::Sender<PeerCommand>,
    news: mpsc::UnboundedReceiver<News>,
    end: tokio::task::JoinHandle<JitterStatistics>,
}

impl Side {
    fn of(peer: Peer) -> Self {
        let (commands, orders) = mpsc::channel(64);
        let (tell, news) = mpsc::unbounded_channel();
        let end = tokio::spawn(async move { peer.run(Ear(tell), orders).await.1 });
        Self {
            commands,
            news,
            end,
        }
    }

    async fn connected(&mut self) {
        let waiting =
            async { while !matches!(self.news.recv().await.unwrap(), News::Connected) {} };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    }

    /// Loud frames since it was last asked; none may have told of a loss.
    fn loud(&mut self) -> usize {
        let mut loud = 0;
        while let Ok(news) = self.news.try_recv() {
            assert!(!matches!(news, News::Disconnected), "it was given up");
            loud += usize::from(matches!(news, News::Loud));
        }
        loud
    }
}

/// Two sides that know no way but through the network.
async fn call(weather: Weather, seed: u64) -> (Side, Side, Relay) {
    let config = PortConfig {
        udp_port: 0,
        tcp_port: None,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        public_addresses: Vec::new(),
    };
    let (one, other) = (
        Port::bind(&config).await.unwrap(),
        Port::bind(&config).await.unwrap(),
    );
    let addresses = other.addresses();
    let server: SocketAddr = addresses[0].trim_end_matches("/udp").parse().unwrap();
    let relay = Relay::start(server, weather, seed).await.unwrap();
    let offering = one.call("oai-events").unwrap();
    let offer: String = offering
        .offer()
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("a=candidate:"))
        .collect();
    let answering = other.accept(&offer).unwrap();
    let answer = answering.answer().replace(
        &format!("127.0.0.1 {}", server.port()),
        &format!("127.0.0.1 {}", relay.address().port()),
    );
    let (mut caller, mut called) = (
        Side::of(offering.answered(&answer).unwrap()),
        Side::of(answering),
    );
    caller.connected().await;
    called.connected().await;
    (caller, called, relay)
}

fn tone() -> Frame {
    let mut frame = Frame::SILENCE;
    for (n, sample) in frame.0.iter_mut().enumerate() {
        *sample = (8_000.0 * (std::f32::consts::TAU * n as f32 * 10.0 / FRAME_SAMPLES as f32).sin())
            as i16;
    }
    frame
}

/// Both sides speak for a time; gives how many frames of it each heard: caller, called.
async fn speak(caller: &mut Side, called: &mut Side, time: Duration) -> (usize, usize) {
    let mut clock = tokio::time::interval(FRAME);
    let started = Instant::now();
    let mut heard = (0, 0);
    while started.elapsed() < time {
        clock.tick().await;
        for side in [&*caller, &*called] {
            let said = side.commands.send(PeerCommand::Say(Box::new(tone())));
            said.await.unwrap();
        }
        heard.0 += caller.loud();
        heard.1 += called.loud();
    }
    heard
}

/// Both sides speak until both were heard for half a second.
async fn until_both_are_heard(caller: &mut Side, called: &mut Side) {
    let started = Instant::now();
    let mut heard = (0, 0);
    while heard.0 < 25 || heard.1 < 25 {
        assert!(started.elapsed() < PATIENCE, "heard only {heard:?} frames");
        let more = speak(caller, called, Duration::from_millis(100)).await;
        heard = (heard.0 + more.0, heard.1 + more.1);
    }
}

#[tokio::test]
async fn a_twentieth_lost_and_all_of_it_late_is_heard_nearly_whole_both_ways() {
    let weather = Weather {
        loss: 0.05,
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(30),
        ..Weather::default()
    };
    let (mut caller, mut called, _relay) = call(weather, 1).await;
    speak(&mut caller, &mut called, Duration::from_secs(2)).await;
    let (by_caller, by_called) = speak(&mut caller, &mut called, Duration::from_secs(4)).await;
    assert!(
        by_caller >= 170 && by_called >= 170,
        "{by_caller}, {by_called}"
    );
    for side in [caller, called] {
        side.commands.send(PeerCommand::Close).await.unwrap();
        let heard = side.end.await.unwrap();
        assert!(heard.lost > 0, "{heard:?}");
        assert!(heard.recovered * 2 > heard.lost, "{heard:?}");
    }
}

#[tokio::test]
async fn after_five_seconds_without_a_network_both_are_heard_again() {
    let (mut caller, mut called, relay) = call(Weather::default(), 2).await;
    until_both_are_heard(&mut caller, &mut called).await;
    let outage = Weather {
        loss: 1.0,
        ..Weather::default()
    };
    relay.set(outage).await;
    speak(&mut caller, &mut called, Duration::from_secs(5)).await;
    relay.set(Weather::default()).await;
    until_both_are_heard(&mut caller, &mut called).await;
}

#[tokio::test]
async fn a_client_that_comes_from_another_address_is_followed_before_ice_gives_up_the_old_one() {
    let (mut caller, mut called, relay) = call(Weather::default(), 3).await;
    until_both_are_heard(&mut caller, &mut called).await;
    for _ in 0..2 {
        relay.change_address().await;
        // What is under way has arrived.
        speak(&mut caller, &mut called, Duration::from_millis(300)).await;
        let changed = Instant::now();
        until_both_are_heard(&mut caller, &mut called).await;
        // ICE alone takes 15 s. The next check of the client's, 3 s at most, shows the way.
        assert!(changed.elapsed() < Duration::from_secs(10));
    }
}
