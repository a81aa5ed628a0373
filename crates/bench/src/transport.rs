//! What a transport adds: the time from one side's hand to the other's, how soon a stop is heard, and what a call
//! costs. Both ends run here, over the loopback; no model takes part. Then whole sessions ([`super::sessions`]).
//!
//! A call's sound is timed from the moment a frame is complete at the sender to the moment the frame with its
//! beginning leaves the receiver's jitter buffer, less the look-ahead of Opus: the packet's length and the codec
//! are the sound's own delay, the rest is the transport's. A WebSocket's is the time of one event with 20 ms of
//! sound in it, written, sent, read and decoded.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use duologue_audio::{FRAME_SAMPLES, Frame};
use duologue_rtc::{Peer, PeerCommand, PeerHandler, Port, PortConfig};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::process::Process;
use super::report::{Report, median, percentile};
use super::sessions::sessions;

/// Look-ahead of the Opus encoder: 312 samples at 48 kHz (RFC 6716, section 2).
const LOOKAHEAD_MS: f64 = 6.5;
/// Louder than this a frame is the mark that is timed.
const MARK: f32 = -30.0;
/// Time between two marks: longer than what a jitter buffer may hold.
const EVERY: u64 = 25;
const FRAME: Duration = Duration::from_millis(20);

#[derive(Args)]
pub struct TransportBench {
    /// Marks that are timed
    #[arg(long, default_value_t = 60, value_name = "N")]
    marks: usize,

    /// Calls at once, for what a call costs
    #[arg(long, default_value_t = 30, value_name = "N")]
    calls: usize,

    /// Seconds for which they run
    #[arg(long, default_value_t = 10, value_name = "S")]
    seconds: u64,

    /// Whole sessions at once, with the models elsewhere; 0: none
    #[arg(long, default_value_t = 12, value_name = "N")]
    sessions: usize,

    /// Seconds for which they run
    #[arg(long, default_value_t = 40, value_name = "S")]
    session_seconds: u64,

    /// Folder of their questions, with a speech.tsv that has the columns `file` and `transcript`
    #[arg(long, default_value = "tests/data/speech", value_name = "DIR")]
    corpus: PathBuf,
}

/// How sessions may hear: what the figures are called by, and the options.
const EARS: [(&str, &str, &[&str]); 3] = [
    (
        "default",
        "the default ears (Silero, Smart Turn, echoes found)",
        &[],
    ),
    (
        "no-echo",
        "Silero and Smart Turn, --echo-cancellation off",
        &["--echo-cancellation", "off"],
    ),
    (
        "light",
        "--vad light:2 --no-end-of-turn --echo-cancellation off",
        &[
            "--vad",
            "light:2",
            "--no-end-of-turn",
            "--echo-cancellation",
            "off",
        ],
    ),
];

impl TransportBench {
    pub async fn run(self) -> anyhow::Result<Report> {
        let call = call_latency(self.marks.max(2)).await?;
        let stop = stop_latency(self.marks.div_ceil(4).max(5)).await?;
        let socket = socket_latency(self.marks.max(2)).await?;
        let cost = cost(self.calls.max(1), Duration::from_secs(self.seconds.max(2))).await?;
        let mut report = Report::new(
            "transport",
            &["over the loopback", "p50, ms", "p95, ms"],
            Value::Null,
        );
        let mut figures = serde_json::Map::new();
        for (what, name, times) in [
            ("WebRTC: a frame, beyond the codec's delay", "webrtc", &call),
            (
                "WebSocket: an event with 20 ms of sound",
                "websocket",
                &socket,
            ),
            (
                "WebRTC: from stop to silence behind the jitter buffer",
                "webrtc_stop",
                &stop,
            ),
        ] {
            let (p50, p95) = (median(times), percentile(times, 0.95));
            report.row(vec![what.into(), format!("{p50:.1}"), format!("{p95:.1}")]);
            figures.insert(
                name.into(),
                json!({"p50_ms": p50, "p95_ms": p95, "count": times.len()}),
            );
        }
        report.remark(format!(
            "{} calls with a voice both ways, both ends of them here: {:.1}% of a core and {:.2} MB an end.",
            self.calls, cost.cpu_percent, cost.megabytes
        ));
        figures.insert(
            "call".into(),
            json!({"calls": self.calls, "cpu_percent_an_end": cost.cpu_percent, "megabytes_an_end": cost.megabytes}),
        );
        for (name, what, options) in EARS.iter().filter(|_| self.sessions > 0) {
            let time = Duration::from_secs(self.session_seconds.max(10));
            let held = sessions(self.sessions, time, &self.corpus, options).await?;
            let per_core = 100.0 / held.cpu_percent.max(0.01);
            let (p50, p95) = if held.barge_in.is_empty() {
                (f64::NAN, f64::NAN)
            } else {
                (median(&held.barge_in), percentile(&held.barge_in, 0.95))
            };
            report.row(vec![
                format!(
                    "session ({name}): from speech over a reply to its last sound at the client"
                ),
                format!("{p50:.1}"),
                format!("{p95:.1}"),
            ]);
            report.remark(format!(
                "{} whole sessions over WebRTC with {what}: {:.2}% of a core a session, which makes {per_core:.0} a core, \
                 and {:.2} MB; {:.2}% are hearing, the rest is everything else. {} questions were answered, {} were not; {} replies were spoken over.",
                self.sessions,
                held.cpu_percent,
                held.megabytes,
                held.hearing_percent,
                held.answered,
                held.unanswered,
                held.barge_in.len()
            ));
            figures.insert(
                format!("sessions_{name}"),
                json!({"sessions": self.sessions, "cpu_percent": held.cpu_percent,
                       "hearing_percent": held.hearing_percent, "sessions_a_core": per_core,
                       "megabytes": held.megabytes, "barge_in_p50_ms": p50, "barge_in_p95_ms": p95,
                       "answered": held.answered, "unanswered": held.unanswered, "spoken_over": held.barge_in.len()}),
            );
        }
        if self.sessions > 0 {
            report.remark(
                "Counted is all that the server's process does: HTTP, ICE, DTLS, Opus both ways, jitter buffers, noise \
                 gate, voice detector, end of turn, the session, events, and asking the models. Not counted, in other \
                 processes: recognizer and language model (OpenAI-compatible, scripted), the voice (a worker with the \
                 test tone), the clients.",
            );
        }
        report.set_figures(Value::Object(figures));
        Ok(report)
    }
}

/// Tells when frames came, and how loud they were.
struct Ear(mpsc::UnboundedSender<Heard>);

enum Heard {
    Connected,
    Frame(Instant, f32),
}

impl PeerHandler for Ear {
    fn connected(&mut self) {
        let _ = self.0.send(Heard::Connected);
    }
    fn disconnected(&mut self) {}
    fn sound(&mut self, frame: Frame) {
        let _ = self.0.send(Heard::Frame(Instant::now(), frame.rms_dbfs()));
    }
    fn message(&mut self, _text: &str) -> bool {
        true
    }
    fn output_delay(&mut self, _delay: Duration) {}
}

struct End {
    commands: mpsc::Sender<PeerCommand>,
    heard: mpsc::UnboundedReceiver<Heard>,
}

impl End {
    fn start(peer: Peer) -> Self {
        let (commands, orders) = mpsc::channel(256);
        // Unbounded for a bench of known length only.
        let (tell, heard) = mpsc::unbounded_channel();
        tokio::spawn(peer.run(Ear(tell), orders));
        Self { commands, heard }
    }

    async fn connected(&mut self) -> anyhow::Result<()> {
        let waiting = async {
            while let Some(heard) = self.heard.recv().await {
                if matches!(heard, Heard::Connected) {
                    return Ok(());
                }
            }
            bail!("a call ended before it connected")
        };
        tokio::time::timeout(Duration::from_secs(20), waiting)
            .await
            .context("a call did not connect within 20 s")?
    }

    async fn command(&self, command: PeerCommand) -> anyhow::Result<()> {
        self.commands.send(command).await.context("a call ended")
    }
}

async fn port() -> anyhow::Result<Port> {
    Ok(Port::bind(&PortConfig {
        udp_port: 0,
        tcp_port: None,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        public_addresses: Vec::new(),
    })
    .await?)
}

async fn connect(from: &Port, to: &Port) -> anyhow::Result<(End, End)> {
    let offering = from.call("oai-events")?;
    let answering = to.accept(offering.offer())?;
    let answer = answering.answer().to_owned();
    let mut ends = (
        End::start(offering.answered(&answer)?),
        End::start(answering),
    );
    ends.0.connected().await?;
    ends.1.connected().await?;
    Ok(ends)
}

/// A tone, or a faint one that keeps the stream going as a quiet room does.
fn frame(loud: bool) -> Frame {
    let peak = if loud { 12_000.0 } else { 30.0 };
    let mut frame = Frame::SILENCE;
    for (n, sample) in frame.0.iter_mut().enumerate() {
        let turn = n as f32 * 8.0 / FRAME_SAMPLES as f32;
        *sample = (peak * (std::f32::consts::TAU * turn).sin()) as i16;
    }
    frame
}

async fn call_latency(marks: usize) -> anyhow::Result<Vec<f64>> {
    let (one, other) = (port().await?, port().await?);
    let (speaker, mut listener) = connect(&one, &other).await?;
    let mut clock = tokio::time::interval(FRAME);
    let mut said = Vec::new();
    let mut heard = Vec::new();
    // The first seconds find the delay that the network needs.
    let warm = 400;
    for tick in 0..warm + marks as u64 * EVERY {
        clock.tick().await;
        let mark = tick >= warm && tick % EVERY == 0;
        if mark {
            said.push(Instant::now());
        }
        speaker
            .command(PeerCommand::Say(Box::new(frame(mark))))
            .await?;
        while let Ok(news) = listener.heard.try_recv() {
            heard.push(news);
        }
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    while let Ok(news) = listener.heard.try_recv() {
        heard.push(news);
    }
    let mut loud = heard.iter().filter_map(|news| match news {
        Heard::Frame(at, level) if *level > MARK => Some(*at),
        _ => None,
    });
    let mut times = Vec::new();
    for said in said {
        let Some(at) = loud.find(|at| *at > said) else {
            break;
        };
        let ms = at.duration_since(said).as_secs_f64() * 1_000.0;
        // A mark that was lost would be timed with the next.
        if ms < 400.0 {
            times.push((ms - LOOKAHEAD_MS).max(0.0));
        }
    }
    if times.len() * 10 < marks * 9 {
        bail!("of {marks} marks only {} were heard", times.len());
    }
    Ok(times)
}

/// A reply is stopped as the driver does it, with frames in hand; the last loud frame behind the jitter buffer.
async fn stop_latency(times: usize) -> anyhow::Result<Vec<f64>> {
    let (one, other) = (port().await?, port().await?);
    let (speaker, mut listener) = connect(&one, &other).await?;
    let mut clock = tokio::time::interval(FRAME);
    let mut all = Vec::new();
    for _ in 0..times {
        for _ in 0..60 {
            clock.tick().await;
            speaker
                .command(PeerCommand::Say(Box::new(frame(true))))
                .await?;
        }
        speaker.command(PeerCommand::Flush).await?;
        let stopped = Instant::now();
        let until = stopped + Duration::from_millis(600);
        let mut last = stopped;
        while let Ok(Some(news)) =
            tokio::time::timeout_at(until.into(), listener.heard.recv()).await
        {
            if let Heard::Frame(at, level) = news
                && level > MARK
                && at > last
            {
                last = at;
            }
        }
        // What was given last is heard for as long as it lasts.
        all.push((last.duration_since(stopped) + FRAME).as_secs_f64() * 1_000.0);
        clock.reset();
    }
    Ok(all)
}

async fn socket_latency(events: usize) -> anyhow::Result<Vec<f64>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let accepting = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut socket = tokio_tungstenite::accept_async(stream).await?;
        let mut arrived = Vec::new();
        while let Some(Ok(Message::Text(text))) = socket.next().await {
            let event: Value = serde_json::from_str(&text)?;
            let sound = STANDARD.decode(event["audio"].as_str().unwrap_or_default())?;
            std::hint::black_box(sound);
            arrived.push(Instant::now());
        }
        anyhow::Ok(arrived)
    });
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut socket, _) =
        tokio_tungstenite::client_async(format!("ws://{address}/v1/realtime"), stream).await?;
    let mut clock = tokio::time::interval(FRAME);
    let mut sent = Vec::new();
    let sound = frame(true).to_le_bytes();
    for _ in 0..events {
        clock.tick().await;
        sent.push(Instant::now());
        let event = json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(&sound)});
        socket.send(Message::Text(event.to_string().into())).await?;
    }
    socket.close(None).await?;
    let arrived = accepting.await??;
    Ok(sent
        .iter()
        .zip(arrived)
        .map(|(sent, arrived)| arrived.duration_since(*sent).as_secs_f64() * 1_000.0)
        .collect())
}

struct Cost {
    cpu_percent: f64,
    megabytes: f64,
}

/// Of one end of a call in which both sides speak without pause.
async fn cost(calls: usize, time: Duration) -> anyhow::Result<Cost> {
    let server = port().await?;
    let before = Process::own().resident_bytes()?;
    let mut ends = Vec::new();
    for _ in 0..calls {
        // Calls are told apart by the clients' addresses.
        let (caller, called) = connect(&port().await?, &server).await?;
        ends.push(caller);
        ends.push(called);
    }
    let mut clock = tokio::time::interval(FRAME);
    let started = Instant::now();
    let cpu = Process::own().cpu_seconds()?;
    while started.elapsed() < time {
        clock.tick().await;
        for end in &mut ends {
            end.command(PeerCommand::Say(Box::new(frame(true)))).await?;
            while end.heard.try_recv().is_ok() {}
        }
    }
    let cpu = Process::own().cpu_seconds()? - cpu;
    let grown = Process::own().resident_bytes()?.saturating_sub(before);
    Ok(Cost {
        cpu_percent: cpu / started.elapsed().as_secs_f64() * 100.0 / ends.len() as f64,
        megabytes: grown as f64 / 1e6 / ends.len() as f64,
    })
}
