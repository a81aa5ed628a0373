//! How CSM does on this machine: with random weights, for the time it takes does not depend on what it says.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use duologue_tts::csm::{Shape, random};
use duologue_tts::{DeviceChoice, FrameStream, LoadOptions, Settings, StopFlag, Synthesizer};
use serde_json::json;

use super::process::Process;
use super::report::{Report, median};

/// What is said: a second and a half.
const TEXT: &str = "The train leaves at nine.";
/// Rank of the adapters, as Unsloth's examples have it.
const RANK: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);
/// Changes of adapter that are timed.
const SWAPS: u32 = 1_000;

/// Measures CSM instead of a Piper voice.
#[derive(Args)]
pub struct CsmOptions {
    /// Another adapter than Piper's, measured by itself: csm
    #[arg(long, value_name = "NAME", value_parser = ["csm"], requires = "random_weights")]
    adapter: Option<String>,

    /// Measure the adapter with random weights: what it says is noise, the time it takes is not
    #[arg(long, requires = "adapter")]
    random_weights: bool,

    /// In the published model's shape, not in a tiny one; CSM takes 8 GB of memory on a CPU
    #[arg(long, requires = "adapter")]
    full_size: bool,

    /// Sessions that speak at the same time, as one batch; one run each
    #[arg(
        long,
        default_value = "1,2,4,8",
        value_delimiter = ',',
        value_name = "N,...",
        requires = "adapter"
    )]
    sessions: Vec<usize>,

    /// What the adapter computes with: cpu, or cuda:0 in a build with CUDA
    #[arg(long, default_value_t, value_name = "DEVICE", requires = "adapter")]
    device: DeviceChoice,
}

struct Spoken {
    first: f64,
    factor: f64,
}

impl CsmOptions {
    pub fn is_asked_for(&self) -> bool {
        self.adapter.is_some()
    }

    pub fn run(&self, rounds: usize, threads: usize) -> anyhow::Result<Report> {
        let process = Process::own();
        let empty = process.resident_bytes()?;
        let options = LoadOptions {
            threads: NonZeroUsize::new(threads),
            device: self.device,
            ..LoadOptions::default()
        };
        let shape = if self.full_size {
            Shape::Full
        } else {
            Shape::Tiny
        };
        let start = Instant::now();
        let base = random(shape, &options)?;
        let made = start.elapsed().as_secs_f64();
        let loaded = process.resident_bytes()?;

        let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
        for folder in &folders {
            base.write_adapter(folder.path(), RANK)?;
        }
        let start = Instant::now();
        let adapters = folders
            .iter()
            .map(|folder| base.voice(Some(folder.path())))
            .collect::<Result<Vec<_>, _>>()?;
        let lora_load = start.elapsed().as_secs_f64() / folders.len() as f64;
        let lora_bytes = adapters[0].voice().resident_bytes;
        let start = Instant::now();
        for n in 0..SWAPS {
            drop(adapters[n as usize % 2].begin(&Settings::default())?);
        }
        let swap = start.elapsed().as_secs_f64() / f64::from(SWAPS);

        let plain = base.voice(None)?;
        speak(&*plain)?;
        let mut report = Report::new(
            "csm",
            &[
                "sessions",
                "adapters",
                "first audio, ms",
                "real-time factor",
                "time, against one by one",
            ],
            json!({}),
        );
        let most = self.sessions.iter().copied().max().unwrap_or(1);
        let mut runs: Vec<Run<'_>> = self.sessions.iter().map(|n| (*n, &[][..])).collect();
        runs.push((1, &adapters[..1]));
        if most > 1 {
            runs.push((most, &adapters[..]));
        }
        let mut figures = Vec::new();
        let mut alone = None;
        for (sessions, adapters) in runs {
            let mut all = Vec::new();
            for _ in 0..rounds.max(1) {
                all.extend(together(&plain, adapters, sessions)?);
            }
            let first = median(&all.iter().map(|s| s.first).collect::<Vec<_>>());
            let factor = median(&all.iter().map(|s| s.factor).collect::<Vec<_>>());
            if sessions == 1 {
                alone.get_or_insert(factor);
            }
            let share = alone.map(|alone| factor / (alone * sessions as f64));
            report.row(vec![
                sessions.to_string(),
                adapters.len().to_string(),
                format!("{:.0}", first * 1_000.0),
                format!("{factor:.3}"),
                share.map_or_else(String::new, |share| format!("{:.0}%", share * 100.0)),
            ]);
            figures.push(json!({
                "sessions": sessions, "adapters": adapters.len(), "first_audio_s": first, "real_time_factor": factor,
                "against_one_by_one": share,
            }));
        }
        let peak = process.peak_bytes()?;
        let session = base.session_bytes()?;
        let mb = |bytes: u64| bytes as f64 / 1e6;
        report.remark(format!(
            "Random weights in the {} shape, on {}; made in {made:.1} s. The times are those of a trained model of this \
             shape, what is heard is noise.",
            if self.full_size { "full" } else { "tiny" },
            self.device
        ));
        report.remark(format!(
            "Memory: weights {:.0} MB (the process grew by {:.0} MB), a session {:.1} MB at most, an adapter of rank {RANK} \
             {:.1} MB; {:.0} MB at the peak.",
            mb(base.weight_bytes()),
            mb(loaded.saturating_sub(empty)),
            mb(session),
            mb(lora_bytes),
            mb(peak),
        ));
        report.remark(format!(
            "An adapter is read in {:.1} ms; a reply with another adapter than the last begins in {:.1} µs.",
            lora_load * 1e3,
            swap * 1e6
        ));
        report.set_figures(json!({
            "device": self.device.to_string(), "full_size": self.full_size, "runs": figures,
            "weight_bytes": base.weight_bytes(), "session_bytes": session, "adapter_bytes": lora_bytes,
            "peak_bytes": peak, "lora_load_s": lora_load, "lora_swap_s": swap,
        }));
        Ok(report)
    }
}

/// How many sessions, and the voices with adapters that they have in turns; none: all have the plain one.
type Run<'a> = (usize, &'a [Arc<dyn Synthesizer>]);

/// Sessions that speak at the same time, each on a thread, as a worker has them.
fn together(
    plain: &Arc<dyn Synthesizer>,
    adapters: &[Arc<dyn Synthesizer>],
    sessions: usize,
) -> anyhow::Result<Vec<Spoken>> {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..sessions)
            .map(|n| match adapters {
                [] => plain,
                _ => &adapters[n % adapters.len()],
            })
            .map(|voice| scope.spawn(|| speak(&**voice)))
            .collect();
        all.into_iter()
            .map(|one| {
                one.join()
                    .map_err(|_| anyhow::anyhow!("a session crashed"))?
            })
            .collect()
    })
}

fn speak(voice: &dyn Synthesizer) -> anyhow::Result<Spoken> {
    let start = Instant::now();
    let speech = voice.begin(&Settings::default())?;
    let mut stream = FrameStream::new(speech, voice.voice().sample_rate)?;
    stream.say(TEXT)?;
    stream.finish();
    let stop = StopFlag::default();
    let (mut first, mut frames) = (None, 0);
    while stream.next(&stop)?.is_some() {
        first.get_or_insert_with(|| start.elapsed().as_secs_f64());
        frames += 1;
    }
    Ok(Spoken {
        first: first.context("the voice made no sound")?,
        factor: start.elapsed().as_secs_f64() / (f64::from(frames) / 50.0),
    })
}
