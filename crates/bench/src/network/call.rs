//! A call through a relay that makes the weather: who speaks, who hears, and what they heard when.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use duologue_audio::{FRAME_SAMPLES, Frame};
use duologue_netem::{Relay, Weather};
use duologue_rtc::{JitterStatistics, Peer, PeerCommand, PeerHandler, Port, PortConfig};
use tokio::sync::mpsc;

use super::{Case, Event, FRAME, Script, in_samples};

/// What one side heard, on the clock of what was said.
pub(super) struct Heard {
    /// Sample 0 was heard when sample 0 was said.
    pub samples: Vec<i16>,
    pub statistics: JitterStatistics,
}

struct Ear {
    tell: mpsc::UnboundedSender<(Instant, Frame)>,
    connected: mpsc::UnboundedSender<()>,
}

impl PeerHandler for Ear {
    fn connected(&mut self) {
        let _ = self.connected.send(());
    }
    fn disconnected(&mut self) {}
    fn sound(&mut self, frame: Frame) {
        let _ = self.tell.send((Instant::now(), frame));
    }
    fn message(&mut self, _text: &str) -> bool {
        true
    }
    fn output_delay(&mut self, _delay: Duration) {}
}

struct Side {
    commands: mpsc::Sender<PeerCommand>,
    heard: mpsc::UnboundedReceiver<(Instant, Frame)>,
    connected: mpsc::UnboundedReceiver<()>,
    end: tokio::task::JoinHandle<JitterStatistics>,
}

impl Side {
    fn start(peer: Peer) -> Self {
        let (commands, orders) = mpsc::channel(256);
        // Unbounded for a bench of known length only.
        let (tell, heard) = mpsc::unbounded_channel();
        let (told, connected) = mpsc::unbounded_channel();
        let ear = Ear {
            tell,
            connected: told,
        };
        let end = tokio::spawn(async move { peer.run(ear, orders).await.1 });
        Self {
            commands,
            heard,
            connected,
            end,
        }
    }

    async fn say(&self, frame: Frame) -> anyhow::Result<()> {
        let said = self.commands.send(PeerCommand::Say(Box::new(frame)));
        said.await.context("a call ended before its time")
    }

    async fn end(mut self, started: Instant) -> anyhow::Result<Heard> {
        let _ = self.commands.send(PeerCommand::Close).await;
        let statistics = self.end.await?;
        let mut samples: Vec<i16> = Vec::new();
        // Frames follow each other without a gap from the first on.
        while let Ok((at, frame)) = self.heard.try_recv() {
            match at.checked_duration_since(started) {
                Some(since) if samples.is_empty() => samples.resize(in_samples(since), 0),
                None => continue,
                Some(_) => {}
            }
            samples.extend(frame.0);
        }
        Ok(Heard {
            samples,
            statistics,
        })
    }
}

/// A call through a relay: caller and called.
async fn connect(case: &Case, seed: u64) -> anyhow::Result<(Side, Side, Relay)> {
    let config = PortConfig {
        udp_port: 0,
        tcp_port: None,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        public_addresses: Vec::new(),
    };
    let (one, other) = (Port::bind(&config).await?, Port::bind(&config).await?);
    let server: SocketAddr = other
        .addresses()
        .first()
        .and_then(|address| address.split('/').next()?.parse().ok())
        .context("the port has no address")?;
    let relay = Relay::start(server, case.weather, seed).await?;
    let offering = one.call("oai-events")?;
    // Nobody knows the way past the relay.
    let offer: String = offering
        .offer()
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("a=candidate:"))
        .collect();
    let answering = other.accept(&offer)?;
    let (before, after) = (
        format!("127.0.0.1 {}", server.port()),
        format!("127.0.0.1 {}", relay.address().port()),
    );
    let answer = answering.answer().replace(&before, &after);
    let mut caller = Side::start(offering.answered(&answer)?);
    let mut called = Side::start(answering);
    for side in [&mut caller, &mut called] {
        tokio::time::timeout(Duration::from_secs(20), side.connected.recv())
            .await
            .with_context(|| format!("{}: no connection within 20 s", case.name))?;
    }
    Ok((caller, called, relay))
}

/// Speech both ways over one network.
pub(super) async fn talk(
    case: &Case,
    script: &Script,
    seed: u64,
) -> anyhow::Result<(Heard, Heard)> {
    let (caller, called, relay) = connect(case, seed).await?;
    let mut clock = tokio::time::interval(FRAME);
    clock.tick().await;
    let started = Instant::now();
    let event = case.event.map(|event| script.event(event) / FRAME_SAMPLES);
    let mut over = None;
    for n in 0.. {
        let Some(frame) = script.frame(n) else { break };
        if Some(n) == event {
            match case.event {
                Some(Event::Outage(time)) => {
                    let outage = Weather {
                        loss: 1.0,
                        ..case.weather
                    };
                    relay.set(outage).await;
                    over = Some(n + (time.as_millis() / FRAME.as_millis()) as usize);
                }
                Some(Event::ChangeAddress) => relay.change_address().await,
                None => {}
            }
        }
        if over == Some(n) {
            relay.set(case.weather).await;
        }
        // A microphone is always open, a server speaks when it has something to say.
        caller.say(frame).await?;
        if script.is_said(n) {
            called.say(frame).await?;
        }
        clock.tick().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok((called.end(started).await?, caller.end(started).await?))
}
