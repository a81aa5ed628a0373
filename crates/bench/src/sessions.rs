//! What whole sessions cost where the models are elsewhere, and how soon an interruption silences a reply at the
//! client.
//!
//! The server is a process of its own. Recognizer, language model and voice are reached over the network, by the
//! interfaces that real ones have, and cost it what asking them costs: an OpenAI-compatible recognizer and language
//! model in this process, a TTS worker with the test tone in a third. Everything else is a real session: calls over
//! WebRTC with DTLS, jitter buffers and Opus both ways, hearing, turn-taking, events. Each client asks with recorded
//! speech, listens, speaks over the reply, and begins again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use axum::Json;
use axum::body::Bytes;
use axum::routing::post;
use duologue_audio::{FRAME_SAMPLES, Frame, SAMPLE_RATE};
use duologue_rtc::{Peer, PeerCommand, PeerHandler, Port, PortConfig};
use duologue_scenes::Reply;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::asr::clips;
use super::server::Server;
use super::turns::endpoint::{Endpoint, instructions};
use super::worker::start;

const FRAME: Duration = Duration::from_millis(20);
/// How long the recognizer elsewhere takes.
const RECOGNIZING: Duration = Duration::from_millis(120);
/// What it always understands: no word of it is in the reply.
const UNDERSTOOD: &str = "Stop please, I want something different.";
const REPLY: &str = "The old ship left the harbour early that morning. The wind was cold and the waves were high. \
    The captain stood at the wheel and looked at the grey sky. At noon the sun came out and the sea was calm.";
/// Louder than this a frame is heard.
const AUDIBLE: f32 = -45.0;
/// The reply is heard for so long before it is spoken over, ...
const LISTEN: Duration = Duration::from_millis(1_500);
/// ... and has to be silent for so long to count as held.
const HELD: Duration = Duration::from_millis(240);
/// A reply that is not there by then does not come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Names of the threads that hear.
const HEARING: &[&str] = &["ear-", "mind-", "rten-"];
/// Between two rounds.
const REST: Duration = Duration::from_secs(1);

/// What it came to.
pub struct Sessions {
    /// Share of a core that a session takes, percent.
    pub cpu_percent: f64,
    /// Of that, the threads that hear: detector, gate, echo, end of turn.
    pub hearing_percent: f64,
    /// Memory that a session takes.
    pub megabytes: f64,
    /// From the first sound over a reply until the last that is heard of it, ms.
    pub barge_in: Vec<f64>,
    /// Questions that were answered, and that were not.
    pub answered: usize,
    pub unanswered: usize,
}

/// A recognizer elsewhere.
pub(super) struct Ears {
    address: std::net::SocketAddr,
    serving: JoinHandle<()>,
}

impl Ears {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let answer = |_sound: Bytes| async {
            tokio::time::sleep(RECOGNIZING).await;
            Json(json!({"text": UNDERSTOOD}))
        };
        let router = axum::Router::new()
            .route("/v1/audio/transcriptions", post(answer))
            .layer(axum::extract::DefaultBodyLimit::max(32 * 1024 * 1024));
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the recognizer elsewhere failed");
            }
        });
        Ok(Self { address, serving })
    }
}

impl Ears {
    /// Where it is, for `--asr-url`.
    pub(super) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A TTS worker with the test tone; ended when dropped.
pub(super) async fn voice(sessions: usize) -> anyhow::Result<(Child, String)> {
    let most = (sessions * 2 + 2).to_string();
    start("tone", &["--max-sessions".to_owned(), most]).await
}

/// Runs sessions beside each other for a time, against a server with these further options.
pub async fn sessions(
    count: usize,
    time: Duration,
    corpus: &Path,
    options: &[&str],
) -> anyhow::Result<Sessions> {
    let replies = vec![Reply {
        text: REPLY.to_owned(),
        think_ms: 150,
    }];
    let mind = Endpoint::start(BTreeMap::from([("bench".to_owned(), replies)])).await?;
    let ears = Ears::start().await?;
    let (_worker, worker) = voice(count).await?;
    let mut all = mind.serve_options();
    let further = [
        "--asr-url",
        &ears.url(),
        "--asr",
        "elsewhere",
        "--worker",
        &worker,
        "--voice",
        "tone",
        "--language",
        "en",
        "--max-sessions",
        &(count + 2).to_string(),
        // They wait for the recognizer elsewhere.
        "--mind-threads",
        &count.clamp(4, 64).to_string(),
        "--instructions",
        &instructions("bench"),
        "--idle-timeout",
        "0",
    ]
    .map(str::to_owned);
    all.extend(further);
    all.extend(options.iter().map(|option| (*option).to_owned()));
    let server = Server::start(&all).await?;
    let questions = questions(corpus)?;
    // Once for all: what the first session alone brings into memory is not a session's.
    let warm = hold(&server, Arc::clone(&questions), 0, Duration::from_secs(8)).await?;
    drop(warm);
    tokio::time::sleep(REST).await;
    let process = server.process().context("the server has ended")?;
    let (empty, memory) = (process.cpu_seconds()?, process.resident_bytes()?);
    let idle = Duration::from_secs(3);
    tokio::time::sleep(idle).await;
    let idle = (process.cpu_seconds()? - empty) / idle.as_secs_f64();
    let (before, started) = (process.cpu_seconds()?, Instant::now());
    let heard = process.cpu_seconds_of(HEARING)?;
    let held = (0..count).map(|n| hold(&server, Arc::clone(&questions), n, time));
    let mut holding = Box::pin(futures_util::future::try_join_all(held));
    // While they all still run: memory, and what was worked for them.
    let early = time.mul_f64(0.9);
    let ended = tokio::select! {
        ended = &mut holding => Some(ended?),
        () = tokio::time::sleep(early) => None,
    };
    let cpu = (process.cpu_seconds()? - before) / started.elapsed().as_secs_f64() - idle;
    let hearing = (process.cpu_seconds_of(HEARING)? - heard) / started.elapsed().as_secs_f64();
    let grown = process.resident_bytes()?.saturating_sub(memory);
    let rounds = match ended {
        Some(ended) => ended,
        None => holding.await?,
    };
    let mut sessions = Sessions {
        cpu_percent: cpu.max(0.0) * 100.0 / count as f64,
        hearing_percent: hearing * 100.0 / count as f64,
        megabytes: grown as f64 / 1e6 / count as f64,
        barge_in: Vec::new(),
        answered: 0,
        unanswered: 0,
    };
    for round in rounds.into_iter().flatten() {
        match round {
            Round::Unanswered => sessions.unanswered += 1,
            Round::Silenced(time) => {
                sessions.answered += 1;
                sessions.barge_in.push(time.as_secs_f64() * 1_000.0);
            }
            Round::SpokeOn => sessions.answered += 1,
        }
    }
    Ok(sessions)
}

/// Recorded questions as frames, with where the first sound is.
type Questions = Arc<Vec<(Vec<Frame>, usize)>>;

fn questions(corpus: &Path) -> anyhow::Result<Questions> {
    let mut all = Vec::new();
    for (file, _) in clips(corpus, 3)? {
        let recording = duologue_audio::decode_file(&file)?.at_rate(SAMPLE_RATE)?;
        let samples = duologue_audio::pcm::f32_to_i16(&recording.samples);
        let frames: Vec<Frame> = samples
            .as_chunks::<FRAME_SAMPLES>()
            .0
            .iter()
            .map(|samples| Frame(*samples))
            .collect();
        let first = frames
            .iter()
            .position(|frame| frame.rms_dbfs() > AUDIBLE)
            .with_context(|| format!("{} is silent", file.display()))?;
        all.push((frames, first));
    }
    Ok(Arc::new(all))
}

/// How a question was answered.
enum Round {
    Unanswered,
    /// Spoken over, the reply was silent so long after.
    Silenced(Duration),
    /// It went on.
    SpokeOn,
}

/// Frames that came, with when and how loud.
struct Ear(mpsc::Sender<(Instant, f32)>, Option<mpsc::Sender<()>>);

impl PeerHandler for Ear {
    fn connected(&mut self) {
        self.1.take();
    }
    fn disconnected(&mut self) {}
    fn sound(&mut self, frame: Frame) {
        // Whoever does not listen misses it.
        let _ = self.0.try_send((Instant::now(), frame.rms_dbfs()));
    }
    fn message(&mut self, _text: &str) -> bool {
        true
    }
    fn output_delay(&mut self, _delay: Duration) {}
}

/// One client's session.
async fn hold(
    server: &Server,
    questions: Questions,
    number: usize,
    time: Duration,
) -> anyhow::Result<Vec<Round>> {
    // Calls from one port to another cannot be told apart by their addresses.
    let port = Port::bind(&PortConfig {
        udp_port: 0,
        tcp_port: None,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        public_addresses: Vec::new(),
    })
    .await?;
    let offering = port.call("oai-events")?;
    let answer = answer(server.address(), offering.offer()).await?;
    let peer: Peer = offering.answered(&answer)?;
    let (commands, orders) = mpsc::channel(64);
    let (tell, mut heard) = mpsc::channel(512);
    let (told, mut connected) = mpsc::channel(1);
    let ended = tokio::spawn(peer.run(Ear(tell, Some(told)), orders));
    tokio::time::timeout(PATIENCE, connected.recv())
        .await
        .context("a call did not connect in time")?;
    let started = Instant::now();
    let mut clock = tokio::time::interval(FRAME);
    let mut rounds = Vec::new();
    // Not all at once: sessions of different people are not in step.
    let mut at = Step::Rest(Instant::now() + Duration::from_millis(137 * (number as u64 % 40)));
    while started.elapsed() < time {
        clock.tick().await;
        let now = Instant::now();
        let mut frame = Frame::SILENCE;
        let question = &questions[(number + rounds.len()) % questions.len()];
        let over = &questions[(number + rounds.len() + 1) % questions.len()];
        at = match at {
            Step::Rest(until) if now < until => Step::Rest(until),
            Step::Rest(_) => Step::Ask(0),
            Step::Ask(n) => match question.0.get(n) {
                Some(said) => {
                    frame = *said;
                    Step::Ask(n + 1)
                }
                None => Step::Await {
                    since: now,
                    loud: 0,
                },
            },
            Step::Await { since, loud } if now > since + PATIENCE => {
                let _ = loud;
                rounds.push(Round::Unanswered);
                Step::Rest(now + REST)
            }
            Step::Await { since, loud } => {
                let loud = loud + heard_loud(&mut heard).len();
                if FRAME * loud as u32 >= LISTEN {
                    Step::Over {
                        n: over.1,
                        since: now,
                        last: now,
                    }
                } else {
                    Step::Await { since, loud }
                }
            }
            Step::Over { n, since, last } => {
                frame = over.0.get(n).copied().unwrap_or(Frame::SILENCE);
                let last = heard_loud(&mut heard).last().copied().unwrap_or(last);
                if now > last + HELD {
                    rounds.push(Round::Silenced(
                        last.saturating_duration_since(since) + FRAME,
                    ));
                    Step::Finish(n + 1)
                } else if now > since + Duration::from_secs(3) {
                    rounds.push(Round::SpokeOn);
                    Step::Finish(n + 1)
                } else {
                    Step::Over {
                        n: n + 1,
                        since,
                        last,
                    }
                }
            }
            // What was begun is said to its end, and is a question too.
            Step::Finish(n) => match questions[(number + rounds.len()) % questions.len()]
                .0
                .get(n)
            {
                Some(said) => {
                    frame = *said;
                    Step::Finish(n + 1)
                }
                None => Step::Await {
                    since: now,
                    loud: 0,
                },
            },
        };
        if !matches!(at, Step::Await { .. } | Step::Over { .. }) {
            heard_loud(&mut heard);
        }
        commands
            .send(PeerCommand::Say(Box::new(frame)))
            .await
            .context("a call ended before its time")?;
    }
    let _ = commands.send(PeerCommand::Close).await;
    ended.await?;
    Ok(rounds)
}

enum Step {
    Rest(Instant),
    Ask(usize),
    Await {
        since: Instant,
        loud: usize,
    },
    Over {
        n: usize,
        since: Instant,
        last: Instant,
    },
    Finish(usize),
}

/// When audible frames came since it was last asked.
fn heard_loud(heard: &mut mpsc::Receiver<(Instant, f32)>) -> Vec<Instant> {
    let mut loud = Vec::new();
    while let Ok((at, level)) = heard.try_recv() {
        if level > AUDIBLE {
            loud.push(at);
        }
    }
    loud
}

/// The server's answer to an offer.
async fn answer(address: &str, offer: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "POST /v1/realtime/calls HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        offer.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(offer.as_bytes()).await?;
    let mut all = String::new();
    stream.read_to_string(&mut all).await?;
    let (head, body) = all
        .split_once("\r\n\r\n")
        .context("the server's answer has no body")?;
    if !head.starts_with("HTTP/1.1 201 ") {
        bail!("the server takes no call: {body}");
    }
    Ok(body.to_owned())
}
