//! Voice to voice: from the last sample of a spoken question to the first sound of the answer, at a client.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use duologue_client::{BLOCK, BLOCK_TIME, Playout, RATE, connect, read_sound};
use serde_json::{Value, json};

use super::asr::clips;
use super::report::{Report, median, percentile};
use super::server::Server;

/// Quieter than this a block is silence: -50 dBFS.
const AUDIBLE: u16 = 104;
/// Longest wait for the answer to a question.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct TurnBench {
    /// A running server; without it one is started for the bench
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// Folder of the questions, with a speech.tsv that has the columns `file` and `transcript`
    #[arg(long, default_value = "tests/data/speech", value_name = "DIR")]
    corpus: PathBuf,

    /// Questions asked
    #[arg(long, default_value_t = 20, value_name = "N")]
    turns: usize,

    /// More options for the server that is started, such as `--asr whisper-tiny.en`
    #[arg(last = true, value_name = "OPTION")]
    serve: Vec<String>,
}

/// One question and its answer.
struct Turn {
    /// Milliseconds, as the client hears it.
    voice_to_voice: f64,
    /// Milliseconds at which the server reached each step.
    steps: BTreeMap<String, f64>,
}

impl TurnBench {
    pub async fn run(self, key: Option<&str>) -> anyhow::Result<Report> {
        let questions = clips(&self.corpus, 1)?;
        let mut server = None;
        let (url, key) = match &self.url {
            Some(url) => (url.clone(), key),
            None => {
                let started = Server::start(&self.serve).await?;
                let url = started.url.clone();
                server = Some(started);
                (url, None)
            }
        };
        let mut turns = Vec::new();
        let mut unanswered = 0;
        for number in 0..self.turns.max(1) {
            let (file, _) = &questions[number % questions.len()];
            match ask(&url, key, &read_sound(file)?).await? {
                Some(turn) => turns.push(turn),
                None => unanswered += 1,
            }
            eprintln!("{} of {} turns", number + 1, self.turns.max(1));
        }
        let memory = server.as_ref().and_then(Server::peak_memory);
        if let Some(server) = server {
            server.stop().await?;
        }
        Ok(report(&turns, unanswered, memory))
    }
}

/// Asks one question over a connection of its own. `None`: it was not answered.
async fn ask(url: &str, key: Option<&str>, question: &[i16]) -> anyhow::Result<Option<Turn>> {
    let (mut speaker, mut listener) = connect(url, key).await?;
    let session = json!({
        "type": "realtime",
        "instructions": "Answer in one short sentence.",
        "audio": {"input": {"format": {"type": "audio/pcm", "rate": RATE}}, "output": {"format": {"type": "audio/pcm", "rate": RATE}}},
        "duologue": {"events": true},
    });
    speaker
        .send(&json!({"type": "session.update", "session": session}))
        .await?;
    let last = question
        .iter()
        .rposition(|sample| sample.unsigned_abs() > AUDIBLE)
        .context("the question is silent")?;
    let mut blocks = question.chunks(BLOCK).enumerate();
    let mut clock = tokio::time::interval(BLOCK_TIME);
    let mut playout = Playout::default();
    let mut said = None;
    let mut heard = None;
    let mut steps = BTreeMap::new();
    let started = Instant::now();
    loop {
        tokio::select! {
            _ = clock.tick() => {
                let mut block = [0; BLOCK];
                if let Some((number, samples)) = blocks.next() {
                    block[..samples.len()].copy_from_slice(samples);
                    // A real microphone hands a block over when its last sample has been spoken.
                    if number == last / BLOCK {
                        said = Some(Instant::now());
                    }
                }
                speaker.send_sound(&block).await?;
                // What is heard before the question is over answers a pause in it, and is cut off by the rest.
                let audible = playout.block().iter().any(|sample| sample.unsigned_abs() > AUDIBLE);
                if said.is_some() && audible {
                    heard.get_or_insert_with(Instant::now);
                }
                if started.elapsed() > PATIENCE {
                    speaker.close().await;
                    return Ok(None);
                }
            }
            event = listener.next() => {
                let event = event?.context("the server closed the connection")?;
                playout.event(&event)?;
                match event["type"].as_str().unwrap_or_default() {
                    "duologue.turn.metrics" => steps = read_steps(&event),
                    "response.done" if heard.is_some() => break,
                    "error" => bail!("the server says: {}", event["error"]["message"]),
                    _ => {}
                }
            }
        }
    }
    speaker.close().await;
    let (Some(said), Some(heard)) = (said, heard) else {
        return Ok(None);
    };
    let voice_to_voice = heard.saturating_duration_since(said).as_secs_f64() * 1_000.0;
    Ok(Some(Turn {
        voice_to_voice,
        steps,
    }))
}

fn read_steps(event: &Value) -> BTreeMap<String, f64> {
    let steps = event["steps"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    steps
        .iter()
        .filter_map(|step| Some((step["name"].as_str()?.to_owned(), step["ms"].as_f64()?)))
        .collect()
}

fn report(turns: &[Turn], unanswered: usize, memory: Option<u64>) -> Report {
    let mut figures = serde_json::Map::new();
    let mut rows = Vec::new();
    for (name, what) in [
        ("end_of_turn", "the turn was held for over"),
        ("transcript", "its transcript was there"),
        ("first_clause", "the model had written a clause"),
        ("first_audio", "the voice had made sound"),
        ("sent", "it was sent"),
    ] {
        let times: Vec<f64> = turns
            .iter()
            .filter_map(|turn| turn.steps.get(name).copied())
            .collect();
        rows.push((what.to_owned(), name, times));
    }
    let whole: Vec<f64> = turns.iter().map(|turn| turn.voice_to_voice).collect();
    rows.push((
        "**voice to voice, at the client**".to_owned(),
        "voice_to_voice",
        whole,
    ));
    let mut report = Report::new(
        "turn",
        &["from the end of speech until", "p50, ms", "p95, ms"],
        Value::Null,
    );
    for (what, name, times) in rows {
        figures.insert(name.to_owned(), json!({"p50_ms": median(&times), "p95_ms": percentile(&times, 0.95), "turns": times.len()}));
        report.row(vec![
            what,
            format!("{:.0}", median(&times)),
            format!("{:.0}", percentile(&times, 0.95)),
        ]);
    }
    if let Some(bytes) = memory {
        report.remark(format!(
            "Peak memory of the server: {:.2} GB.",
            bytes as f64 / 1e9
        ));
        figures.insert("peak_memory_bytes".to_owned(), json!(bytes));
    }
    report.remark(format!(
        "{} turns answered, {unanswered} not, over a WebSocket in real time.",
        turns.len()
    ));
    figures.insert("unanswered".to_owned(), json!(unanswered));
    report.set_figures(Value::Object(figures));
    report
}
