//! A fleet of workers: whether sessions are shared evenly, whether a fleet speaks as soon and as evenly as one worker,
//! whether a slow worker holds others up, and what a decision costs.
//!
//! Workers are processes of their own that announce themselves in a Redis of their own; the bench opens sessions as an
//! orchestrator does. Measured at the client, as by `bench worker`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use duologue_orchestrator::fleet::{Fleet, Mode, Wanted};
use duologue_orchestrator::routing::{Decision, Policy, route};
use duologue_orchestrator::voice::{VoiceChoice, VoiceSession};
use duologue_registry::{
    Capabilities, LiveFigures, RedisRegistry, Registry, VoiceRecord, WorkerRecord, WorkerState,
};
use serde_json::{Value, json};

use super::program::Program;
use super::report::{Report, median, percentile};
use super::tts::SENTENCES;
use super::worker::{Seen, start};

/// Longest wait for what should take moments.
const PATIENCE: Duration = Duration::from_secs(30);
/// Decisions that are timed.
const DECISIONS: usize = 20_000;

/// Sessions on one, two and three workers, beside a slow one, and what a routing decision costs
#[derive(Args)]
pub struct FleetBench {
    /// Most workers
    #[arg(long, default_value_t = 3, value_name = "N")]
    workers: usize,

    /// Sessions for each worker of the test tone, at once and each without pause
    #[arg(long, default_value_t = 4, value_name = "N")]
    sessions: usize,

    /// Seconds that the test tone takes for a second of sound
    #[arg(long, default_value_t = 0.1, value_name = "F")]
    tone_factor: f64,

    /// A real voice to measure with too, one session for each worker; `none`: only the test tone
    #[arg(long, default_value = "piper-en_US-joe-medium", value_name = "NAME")]
    voice: String,

    /// Utterances of each session, of about 8 s
    #[arg(long, default_value_t = 3, value_name = "N")]
    utterances: usize,

    /// How far frames run ahead of the listener, in milliseconds; as the server has it
    #[arg(long, default_value_t = 200, value_name = "MS", value_parser = clap::value_parser!(u32).range(20..=3_600_000))]
    lead_ms: u32,
}

/// What is measured at once.
struct Setup<'a> {
    name: String,
    voice: &'a str,
    /// Options of each worker.
    workers: Vec<Vec<String>>,
    /// Of these, the last is not like the others.
    slow: bool,
    sessions: usize,
}

/// What came of it.
struct Outcome {
    /// Sessions by worker.
    shares: BTreeMap<String, usize>,
    /// What the listeners got, by worker.
    seen: BTreeMap<String, Seen>,
}

impl FleetBench {
    pub async fn run(self) -> anyhow::Result<Report> {
        let redis = Program::redis().await?;
        let mut report = Report::new(
            "fleet",
            &[
                "workers",
                "sessions",
                "by worker",
                "uneven by",
                "first audio p50, ms",
                "p95, ms",
                "jitter p95, ms",
                "frames too late",
            ],
            Value::Null,
        );
        let mut figures = Vec::new();
        for setup in self.setups() {
            eprintln!("{} ...", setup.name);
            let outcome = self.measure(&redis, &setup).await?;
            figures.push(row(&mut report, &setup, &outcome));
        }
        let cost = decisions(1_000);
        report.set_figures(json!({"lead_ms": self.lead_ms, "runs": figures, "decision_us": cost}));
        report.remark(format!(
            "Of the slow worker, what its own listeners got is left out. A decision among 1,000 workers takes {:.0} us \
             (p50), {:.0} us (p99), {:.0} us at most of {DECISIONS}.",
            cost["p50"].as_f64().unwrap_or_default(),
            cost["p99"].as_f64().unwrap_or_default(),
            cost["max"].as_f64().unwrap_or_default(),
        ));
        Ok(report)
    }

    fn setups(&self) -> Vec<Setup<'_>> {
        let tone = |factor: f64, first: u32| {
            let options = format!(
                "--tone-real-time-factor {factor} --tone-first-audio-ms {first} --engine-threads 1"
            );
            options.split(' ').map(str::to_owned).collect::<Vec<_>>()
        };
        let most = self.workers.max(1);
        let mut setups = Vec::new();
        for workers in 1..=most {
            setups.push(Setup {
                name: format!("{workers} x tone at {}", self.tone_factor),
                voice: "tone",
                workers: vec![tone(self.tone_factor, 50); workers],
                slow: false,
                sessions: workers * self.sessions.max(1),
            });
        }
        let mut workers = vec![tone(self.tone_factor, 50); most];
        workers.push(tone(1.5, 1_500));
        setups.push(Setup {
            name: format!("{most} x tone at {} and one at 1.5", self.tone_factor),
            voice: "tone",
            workers,
            slow: true,
            sessions: most * self.sessions.max(1),
        });
        for workers in (1..=most).filter(|_| self.voice != "none") {
            setups.push(Setup {
                name: format!("{workers} x {}", self.voice),
                voice: &self.voice,
                workers: vec![Vec::new(); workers],
                slow: false,
                sessions: workers,
            });
        }
        setups
    }

    async fn measure(&self, redis: &Program, setup: &Setup<'_>) -> anyhow::Result<Outcome> {
        let mut processes = Vec::new();
        for (number, options) in setup.workers.iter().enumerate() {
            let mut all = options.clone();
            all.extend(["--registry".to_owned(), redis.url()]);
            all.extend(["--lease".to_owned(), "3".to_owned()]);
            all.extend(["--name".to_owned(), format!("w{}", number + 1)]);
            processes.push(start(setup.voice, &all).await?.0);
        }
        let registry = RedisRegistry::open(&redis.url())?;
        let mut snapshots = registry.watch();
        let fleet = Fleet::registered(Arc::new(registry), Policy::default());
        let all = setup.workers.len();
        let registered = snapshots.wait_for(|snapshot| snapshot.workers.len() == all);
        tokio::time::timeout(PATIENCE, registered)
            .await
            .context("the workers did not announce themselves")??;
        // The fleet hears of it a moment later.
        while fleet.workers().len() < all {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Each speaks once, so that its speed is known.
        for number in 1..=all {
            let others = (1..=all).filter(|other| *other != number);
            let wanted = Wanted {
                avoid: others.map(|other| format!("w{other}")).collect(),
                ..self.wanted(setup, 1_000 + number)
            };
            let session = self.open(&fleet, wanted, 1_000 + number).await?;
            self.speak(&session, 0, &["Good morning to you."]).await?;
        }
        let measured = snapshots.wait_for(|snapshot| {
            let mut live = snapshot.workers.iter().map(|state| state.record.live);
            let idle = snapshot.workers.iter().all(|state| state.taken == 0);
            idle && live.all(|live| live.real_time_factor > 0.0)
        });
        tokio::time::timeout(PATIENCE, measured)
            .await
            .context("the workers told no speed")??;
        let mut sessions = Vec::new();
        for number in 0..setup.sessions {
            let wanted = self.wanted(setup, number);
            sessions.push(self.open(&fleet, wanted, number).await?);
        }
        let mut outcome = Outcome {
            shares: (1..=all).map(|n| (format!("w{n}"), 0)).collect(),
            seen: BTreeMap::new(),
        };
        let listening = sessions
            .iter()
            .enumerate()
            .map(|(number, session)| async move {
                // Not all of them at the same moment.
                tokio::time::sleep(Duration::from_millis(370 * number as u64 % 4_000)).await;
                let mut seen = Seen::default();
                for utterance in 0..self.utterances.max(1) {
                    let texts =
                        [0, 1].map(|n| SENTENCES[(number + 2 * utterance + n) % SENTENCES.len()]);
                    let came = self.speak(session, utterance + 1, &texts).await?;
                    seen.add(&came, self.lead_ms);
                }
                anyhow::Ok((session.worker().to_owned(), seen))
            });
        for listened in futures_util::future::join_all(listening).await {
            let (worker, seen) = listened?;
            *outcome.shares.entry(worker.clone()).or_default() += 1;
            outcome.seen.entry(worker).or_default().extend(seen);
        }
        drop(sessions);
        for mut process in processes {
            process.kill().await?;
        }
        // The next workers have the same names.
        let gone = snapshots.wait_for(|snapshot| snapshot.workers.is_empty());
        tokio::time::timeout(PATIENCE, gone)
            .await
            .context("workers that died are still registered")??;
        Ok(outcome)
    }

    fn wanted(&self, setup: &Setup<'_>, number: usize) -> Wanted {
        let choice = VoiceChoice::parse(setup.voice, 1.0);
        Wanted::new(&format!("bench-{number}"), choice, Mode::Session)
    }

    async fn open(
        &self,
        fleet: &Fleet,
        wanted: Wanted,
        number: usize,
    ) -> anyhow::Result<VoiceSession> {
        let id = format!("bench-{}-{number}", std::process::id());
        let lead = Duration::from_millis(self.lead_ms.into());
        Ok(fleet.open(wanted, id, lead).await?)
    }

    /// Times at which the frames came, ms from the text.
    async fn speak(
        &self,
        session: &VoiceSession,
        utterance: usize,
        texts: &[&str],
    ) -> anyhow::Result<Vec<f64>> {
        let mut utterance = session.speak(&utterance.to_string());
        let asked = Instant::now();
        for text in texts {
            utterance.text.send((*text).to_owned()).await?;
        }
        drop(utterance.text);
        let mut came = Vec::new();
        let mut whole = false;
        while let Some(frame) = utterance.frames.recv().await {
            came.push(asked.elapsed().as_secs_f64() * 1_000.0);
            whole = frame?.r#final;
        }
        if !whole {
            bail!("an utterance ended before its last frame");
        }
        Ok(came)
    }
}

fn row(report: &mut Report, setup: &Setup<'_>, outcome: &Outcome) -> Value {
    let slow = setup.slow.then(|| format!("w{}", setup.workers.len()));
    let is_alike = |worker: &&String| Some(*worker) != slow.as_ref();
    let alike: Vec<usize> = outcome
        .shares
        .iter()
        .filter(|(worker, _)| is_alike(worker))
        .map(|(_, share)| *share)
        .collect();
    let mean = alike.iter().sum::<usize>() as f64 / alike.len().max(1) as f64;
    let uneven = alike
        .iter()
        .map(|share| (*share as f64 - mean).abs() / mean.max(1e-9))
        .fold(0.0, f64::max);
    let mut seen = Seen::default();
    for (worker, its) in &outcome.seen {
        if is_alike(&worker) {
            seen.extend(its.clone());
        }
    }
    let late = seen.late.iter().filter(|ms| **ms > 0.0).count();
    let shares: Vec<String> = outcome.shares.values().map(usize::to_string).collect();
    report.row(vec![
        setup.name.clone(),
        setup.sessions.to_string(),
        shares.join(" "),
        format!("{:.0}%", uneven * 100.0),
        format!("{:.0}", median(&seen.first)),
        format!("{:.0}", percentile(&seen.first, 0.95)),
        format!("{:.1}", percentile(&seen.jitter, 0.95)),
        format!("{late} of {}", seen.late.len()),
    ]);
    json!({
        "workers": setup.name,
        "sessions": setup.sessions,
        "by_worker": outcome.shares,
        "uneven": uneven,
        "first_audio_ms": {"p50": median(&seen.first), "p95": percentile(&seen.first, 0.95)},
        "jitter_ms": {"p50": median(&seen.jitter), "p95": percentile(&seen.jitter, 0.95)},
        "late_frames": late,
        "frames": seen.late.len(),
    })
}

/// What a decision among this many workers takes, microseconds.
fn decisions(workers: usize) -> Value {
    let voices = ["piper-amy", "piper-joe", "xtts-eve"];
    let workers: Vec<WorkerState> = (0..workers)
        .map(|n| WorkerState {
            record: Arc::new(WorkerRecord {
                name: format!("worker-{n:04}"),
                capabilities: Capabilities {
                    streaming: true,
                    cpu_ok: n % 2 == 0,
                    ..Capabilities::default()
                },
                voices: voices
                    .iter()
                    .enumerate()
                    .map(|(v, name)| VoiceRecord {
                        name: (*name).to_owned(),
                        languages: vec!["en-US".into()],
                        resident: (n + v) % 3 != 0,
                        ..VoiceRecord::default()
                    })
                    .collect(),
                live: LiveFigures {
                    real_time_factor: 0.05 + (n % 7) as f32 / 100.0,
                    first_audio_p50_ms: 60.0 + (n % 50) as f32,
                    slots: 16,
                    ..LiveFigures::default()
                },
                ..WorkerRecord::default()
            }),
            taken: (n % 9) as u32,
        })
        .collect();
    let policy = Policy::default();
    let mut took: Vec<f64> = (0..DECISIONS)
        .map(|n| {
            let choice = VoiceChoice::parse(voices[n % voices.len()], 1.0);
            let wanted = Wanted {
                last_worker: Some(format!("worker-{:04}", n % 1_000)),
                ..Wanted::new(&format!("s{n}"), choice, Mode::Session)
            };
            let started = Instant::now();
            let decision = route(&wanted, &workers, &policy);
            let took = started.elapsed().as_secs_f64() * 1e6;
            debug_assert!(matches!(decision, Decision::Speak(_)));
            took
        })
        .collect();
    took.sort_by(f64::total_cmp);
    json!({"p50": percentile(&took, 0.5), "p99": percentile(&took, 0.99), "max": percentile(&took, 1.0)})
}
