//! Two ports and the calls between them, over real sockets on the loopback.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use duologue_audio::{FRAME_SAMPLES, Frame};
use duologue_rtc::{OfferError, PeerCommand, PeerEnd, PeerHandler, Port, PortConfig};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Long enough for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
enum News {
    Connected,
    Disconnected,
    Sound(f32),
    Message(String),
    Delay(Duration),
}

struct Teller(mpsc::UnboundedSender<News>);

impl PeerHandler for Teller {
    fn connected(&mut self) {
        let _ = self.0.send(News::Connected);
    }
    fn disconnected(&mut self) {
        let _ = self.0.send(News::Disconnected);
    }
    fn sound(&mut self, frame: Frame) {
        let _ = self.0.send(News::Sound(frame.rms_dbfs()));
    }
    fn message(&mut self, text: &str) -> bool {
        self.0.send(News::Message(text.to_owned())).is_ok()
    }
    fn output_delay(&mut self, delay: Duration) {
        let _ = self.0.send(News::Delay(delay));
    }
}

struct Side {
    commands: mpsc::Sender<PeerCommand>,
    news: mpsc::UnboundedReceiver<News>,
    end: tokio::task::JoinHandle<PeerEnd>,
}

impl Side {
    fn of(peer: duologue_rtc::Peer) -> Self {
        let (commands, orders) = mpsc::channel(64);
        let (tell, news) = mpsc::unbounded_channel();
        let end = tokio::spawn(async move { peer.run(Teller(tell), orders).await.0 });
        Self {
            commands,
            news,
            end,
        }
    }

    async fn until(&mut self, what: impl Fn(&News) -> bool) -> News {
        let waiting = async {
            loop {
                let news = self.news.recv().await.expect("the peer is there");
                if what(&news) {
                    return news;
                }
            }
        };
        timeout(PATIENCE, waiting).await.expect("in time")
    }

    async fn command(&self, command: PeerCommand) {
        self.commands.send(command).await.unwrap();
    }
}

async fn port() -> Port {
    let config = PortConfig {
        udp_port: 0,
        tcp_port: None,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        public_addresses: Vec::new(),
    };
    Port::bind(&config).await.unwrap()
}

fn call(from: &Port, to: &Port) -> (Side, Side) {
    let offering = from.call("oai-events").unwrap();
    let answering = to.accept(offering.offer()).unwrap();
    let answer = answering.answer().to_owned();
    (
        Side::of(offering.answered(&answer).unwrap()),
        Side::of(answering),
    )
}

fn tone() -> Frame {
    let mut frame = Frame::SILENCE;
    for (n, sample) in frame.0.iter_mut().enumerate() {
        *sample = (8_000.0 * (std::f32::consts::TAU * n as f32 * 10.0 / FRAME_SAMPLES as f32).sin())
            as i16;
    }
    frame
}

#[tokio::test]
async fn two_sides_connect_and_hear_and_read_each_other() {
    let (one, other) = (port().await, port().await);
    let (mut caller, mut called) = call(&one, &other);
    for side in [&mut caller, &mut called] {
        side.until(|news| matches!(news, News::Connected)).await;
    }
    caller.command(PeerCommand::Message("hello".into())).await;
    called.command(PeerCommand::Message("and you".into())).await;
    called
        .until(|news| matches!(news, News::Message(text) if text == "hello"))
        .await;
    caller
        .until(|news| matches!(news, News::Message(text) if text == "and you"))
        .await;
    // Said at once; the peer paces them.
    for _ in 0..20 {
        caller.command(PeerCommand::Say(Box::new(tone()))).await;
    }
    called
        .until(|news| matches!(news, News::Sound(level) if *level > -20.0))
        .await;
    // After the last frame it is silent, though nobody said so.
    called
        .until(|news| matches!(news, News::Sound(level) if *level < -60.0))
        .await;
    // Receiver reports come back to the side that speaks.
    caller
        .until(|news| matches!(news, News::Delay(delay) if *delay >= Duration::from_millis(70)))
        .await;
    caller.command(PeerCommand::Close).await;
    assert_eq!(
        timeout(PATIENCE, caller.end).await.unwrap().unwrap(),
        PeerEnd::Closed
    );
    assert_eq!(
        timeout(PATIENCE, called.end).await.unwrap().unwrap(),
        PeerEnd::Gone
    );
}

#[tokio::test]
async fn frames_that_wait_are_dropped_when_the_reply_is_stopped() {
    let (one, other) = (port().await, port().await);
    let (mut caller, mut called) = call(&one, &other);
    caller.until(|news| matches!(news, News::Connected)).await;
    called.until(|news| matches!(news, News::Connected)).await;
    for _ in 0..25 {
        caller.command(PeerCommand::Say(Box::new(tone()))).await;
    }
    caller.command(PeerCommand::Flush).await;
    called
        .until(|news| matches!(news, News::Sound(level) if *level > -20.0))
        .await;
    let mut loud = 1;
    loop {
        match called.until(|news| matches!(news, News::Sound(_))).await {
            News::Sound(level) if level > -30.0 => loud += 1,
            News::Sound(level) if level < -60.0 => break,
            _ => {}
        }
    }
    assert!(loud <= 6, "{loud} frames of 25 were heard");
}

#[tokio::test]
async fn many_calls_share_a_port_and_none_hears_anothers() {
    let server = port().await;
    let mut calls = Vec::new();
    for _ in 0..8 {
        // As browsers have, each its own address.
        calls.push(call(&port().await, &server));
    }
    for (caller, called) in &mut calls {
        caller.until(|news| matches!(news, News::Connected)).await;
        called.until(|news| matches!(news, News::Connected)).await;
    }
    for (number, (caller, _)) in calls.iter().enumerate() {
        caller
            .command(PeerCommand::Message(format!("call {number}")))
            .await;
    }
    for (number, (_, called)) in calls.iter_mut().enumerate() {
        let wanted = format!("call {number}");
        let News::Message(text) = called.until(|news| matches!(news, News::Message(_))).await
        else {
            unreachable!("waited for a message");
        };
        assert_eq!(text, wanted);
    }
}

#[tokio::test]
async fn a_client_that_vanishes_is_noticed_and_is_not_gone_for_good() {
    let (one, other) = (port().await, port().await);
    let (mut caller, mut called) = call(&one, &other);
    called.until(|news| matches!(news, News::Connected)).await;
    caller.until(|news| matches!(news, News::Connected)).await;
    // Nothing says good-bye.
    caller.end.abort();
    called
        .until(|news| matches!(news, News::Disconnected))
        .await;
    assert!(!called.end.is_finished());
    called.command(PeerCommand::Close).await;
    assert_eq!(
        timeout(PATIENCE, called.end).await.unwrap().unwrap(),
        PeerEnd::Closed
    );
}

#[tokio::test]
async fn an_offer_without_a_voice_is_refused() {
    let port = port().await;
    assert!(matches!(port.accept("hello"), Err(OfferError::Sdp(_))));
    let video = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
    assert!(port.accept(video).is_err());
}

#[tokio::test]
async fn a_port_that_is_taken_says_which() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let number = taken.local_addr().unwrap().port();
    let config = PortConfig {
        udp_port: number,
        tcp_port: None,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        public_addresses: Vec::new(),
    };
    let Err(error) = Port::bind(&config).await else {
        panic!("the port was taken twice");
    };
    assert!(
        error.to_string().contains(&format!("UDP port {number}")),
        "{error}"
    );
}
