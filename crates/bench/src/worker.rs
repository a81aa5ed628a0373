//! What a worker's listeners get: how evenly frames come, how soon the first one does, and whether any comes too late
//! to be played, with one session and with several at once.
//!
//! Measured at the client, behind gRPC and TCP. A worker runs ahead of who listens by a bounded lead and then sends a
//! frame every 20 ms. The jitter of a frame is by how much its distance from the one before differs from that, from
//! when the lead is full; before, frames come as quickly as they are made.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use duologue_rpc::tts_worker_client::TtsWorkerClient;
use duologue_rpc::{
    EndSessionRequest, GetCapabilitiesRequest, LiveFigures, StartSessionRequest, TextChunk,
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tonic::transport::{Channel, Endpoint};

use super::program::program;
use super::report::{Report, median, percentile};
use super::tts::SENTENCES;

const FRAME_MS: f64 = 20.0;

/// How evenly the frames of several sessions on one worker come
#[derive(Args)]
pub struct WorkerBench {
    /// A running worker; without it one is started for the bench
    #[arg(long, value_name = "URL")]
    worker: Option<String>,

    /// The voice
    #[arg(long, default_value = "piper-en_US-joe-medium", value_name = "NAME")]
    voice: String,

    /// Sessions that speak at once, each without pause; measured beside one alone
    #[arg(long, default_value_t = 3, value_name = "N")]
    sessions: usize,

    /// Utterances of each session, of about 8 s
    #[arg(long, default_value_t = 4, value_name = "N")]
    utterances: usize,

    /// How far frames run ahead of the listener, in milliseconds; as the server has it
    #[arg(long, default_value_t = 1_500, value_name = "MS", value_parser = clap::value_parser!(u32).range(20..=3_600_000))]
    lead_ms: u32,

    /// More options for the worker that is started, such as `--voice-threads 1`
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<String>,
}

/// What the clients saw.
#[derive(Clone, Default)]
pub(super) struct Seen {
    /// From the text to the first frame, ms.
    pub(super) first: Vec<f64>,
    /// Of each frame after the lead, ms.
    pub(super) jitter: Vec<f64>,
    /// By how much each frame came after it was due to be played, ms; 0 for one in time.
    pub(super) late: Vec<f64>,
}

impl WorkerBench {
    pub async fn run(self) -> anyhow::Result<Report> {
        let (url, _worker) = match &self.worker {
            Some(url) => (url.clone(), None),
            None => {
                let (child, url) = start(&self.voice, &self.options).await?;
                (url, Some(child))
            }
        };
        let endpoint = Endpoint::from_shared(url.clone())
            .with_context(|| format!("--worker {url:?} is not an address"))?;
        let channel = endpoint
            .connect()
            .await
            .with_context(|| format!("cannot reach a worker at {url}"))?;
        let client = TtsWorkerClient::new(channel);
        let mut report = Report::new(
            "worker",
            &[
                "sessions",
                "jitter p50, ms",
                "p95, ms",
                "p99, ms",
                "first audio p50, ms",
                "p95, ms",
                "frames too late",
                "real-time factor",
            ],
            Value::Null,
        );
        let mut figures = Vec::new();
        let mut counts = vec![1, self.sessions.max(1)];
        counts.dedup();
        for sessions in counts {
            let seen = self.listen(&client, sessions).await?;
            let live = live(&client).await?;
            let late = seen.late.iter().filter(|ms| **ms > 0.0).count();
            let jitter = |part| percentile(&seen.jitter, part);
            report.row(vec![
                sessions.to_string(),
                format!("{:.1}", jitter(0.5)),
                format!("{:.1}", jitter(0.95)),
                format!("{:.1}", jitter(0.99)),
                format!("{:.0}", median(&seen.first)),
                format!("{:.0}", percentile(&seen.first, 0.95)),
                format!("{late} of {}", seen.late.len()),
                format!("{:.3}", live.real_time_factor),
            ]);
            figures.push(json!({
                "sessions": sessions,
                "frames": seen.late.len(),
                "jitter_ms": {"p50": jitter(0.5), "p95": jitter(0.95), "p99": jitter(0.99), "max": jitter(1.0)},
                "first_audio_ms": {"p50": median(&seen.first), "p95": percentile(&seen.first, 0.95)},
                "late_frames": late,
                "latest_ms": percentile(&seen.late, 1.0),
                "real_time_factor": live.real_time_factor,
            }));
        }
        report.set_figures(json!({"voice": self.voice, "lead_ms": self.lead_ms, "runs": figures}));
        report.remark(format!(
            "{}, {} ms ahead of the listener. Jitter: by how much the time between two frames differs from 20 ms. Too late: not there when a \
             player that starts with the first frame needs it. The real-time factor is the worker's own figure.",
            self.voice, self.lead_ms
        ));
        Ok(report)
    }

    /// All sessions at once.
    async fn listen(
        &self,
        client: &TtsWorkerClient<Channel>,
        sessions: usize,
    ) -> anyhow::Result<Seen> {
        let speaking = (0..sessions).map(|number| {
            let (client, voice) = (client.clone(), self.voice.clone());
            let (utterances, lead_ms) = (self.utterances.max(1), self.lead_ms);
            tokio::spawn(session(client, voice, number, utterances, lead_ms))
        });
        let speaking: Vec<_> = speaking.collect();
        let mut all = Seen::default();
        for session in speaking {
            let seen = session.await??;
            all.extend(seen);
        }
        Ok(all)
    }
}

async fn session(
    mut client: TtsWorkerClient<Channel>,
    voice: String,
    number: usize,
    utterances: usize,
    lead_ms: u32,
) -> anyhow::Result<Seen> {
    let id = format!("bench-{}-{number}", std::process::id());
    let request = StartSessionRequest {
        session_id: id.clone(),
        voice,
        settings: None,
        lead_ms,
    };
    client.start_session(request).await.map_err(told)?;
    // Not all of them at the same moment.
    tokio::time::sleep(Duration::from_millis(370 * number as u64)).await;
    let mut seen = Seen::default();
    for utterance in 0..utterances {
        let texts = [0, 1].map(|n| SENTENCES[(number + 2 * utterance + n) % SENTENCES.len()]);
        let chunks = texts.map(|text| TextChunk {
            session_id: id.clone(),
            utterance_id: utterance.to_string(),
            text: text.to_owned(),
        });
        let asked = Instant::now();
        let frames = client.synthesize(stream::iter(chunks)).await;
        let mut frames = frames.map_err(told)?.into_inner();
        let mut came = Vec::new();
        let mut whole = false;
        while let Some(frame) = frames.message().await.map_err(told)? {
            came.push(asked.elapsed().as_secs_f64() * 1_000.0);
            whole = frame.r#final;
        }
        if !whole {
            bail!("an utterance ended before its last frame");
        }
        seen.add(&came, lead_ms);
    }
    let request = EndSessionRequest { session_id: id };
    client.end_session(request).await.map_err(told)?;
    Ok(seen)
}

impl Seen {
    /// Adds what another listener saw.
    pub(super) fn extend(&mut self, other: Seen) {
        self.first.extend(other.first);
        self.jitter.extend(other.jitter);
        self.late.extend(other.late);
    }

    /// Times at which the frames of an utterance came, ms from its text.
    pub(super) fn add(&mut self, came: &[f64], lead_ms: u32) {
        let Some(first) = came.first() else {
            return;
        };
        self.first.push(*first);
        let due = |n: usize| first + FRAME_MS * n as f64;
        let late = came.iter().enumerate();
        self.late.extend(late.map(|(n, at)| (at - due(n)).max(0.0)));
        // How far the frame is ahead of a player, when it comes.
        let ahead = |n: usize, at: f64| due(n + 1) - at;
        let full = f64::from(lead_ms) - FRAME_MS / 2.0;
        let full = came
            .iter()
            .enumerate()
            .position(|(n, at)| ahead(n, *at) >= full);
        // Where the voice was too slow for that, all frames count.
        let paced = came.windows(2).skip(full.map_or(0, |n| n + 1));
        self.jitter
            .extend(paced.map(|two| (two[1] - two[0] - FRAME_MS).abs()));
    }
}

async fn live(client: &TtsWorkerClient<Channel>) -> anyhow::Result<LiveFigures> {
    let mut client = client.clone();
    let answer = client.get_capabilities(GetCapabilitiesRequest {}).await;
    Ok(answer.map_err(told)?.into_inner().live.unwrap_or_default())
}

/// A worker in a process of its own, and its address; it ends when it is dropped.
pub(super) async fn start(voice: &str, options: &[String]) -> anyhow::Result<(Child, String)> {
    let mut child = program()?
        .args(["--log", "warn", "worker", "--listen", "127.0.0.1:0"])
        .args(["--default-voice", voice])
        .args(options)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a worker")?;
    let out = child.stdout.take().context("the worker has no output")?;
    let line = BufReader::new(out).lines().next_line().await?;
    let line = line.context("the worker ended before it was ready; its messages are above")?;
    let (_, url) = line
        .rsplit_once(" at ")
        .with_context(|| format!("the worker said {line:?}"))?;
    let url = url.to_owned();
    Ok((child, url))
}

fn told(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("the worker: {}", status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_judged_by_their_distances_and_by_when_they_are_played() {
        let mut seen = Seen::default();
        // Four at once, then one every 20 ms, then one that is 50 ms later.
        seen.add(&[100.0, 100.0, 100.0, 100.0, 120.0, 140.0, 210.0], 60);
        assert_eq!(seen.first, [100.0]);
        assert_eq!(seen.jitter, [0.0, 0.0, 50.0]);
        assert_eq!(seen.late, [0.0; 7]);
        // Never ahead.
        seen.add(&[10.0, 35.0], 60);
        assert_eq!(seen.late[7..], [0.0, 5.0]);
        assert_eq!(seen.jitter[3..], [5.0]);
    }
}
