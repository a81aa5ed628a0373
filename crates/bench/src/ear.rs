//! What listening costs: each part of the ear alone, and all of it, on recorded speech.
//!
//! A conversation listens all the time, so this is what every session costs while nothing happens. Each round plays
//! the whole corpus to each part in turn, so that a busy moment of the machine does not fall on one part alone; the
//! median of the rounds counts.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use duologue_vad::{
    Aggressiveness, CleanerConfig, EchoCancellation, GateConfig, LightDetector, NoiseGate,
    NoiseReduction, SAMPLE_RATE, SegmenterConfig, SileroModel, SoundCleaner, SpeechListener,
    VoiceDetector,
};
use duologue_voicepack::VoicepackStore;
use serde_json::{Value, json};

use super::asr::clips;
use super::report::{Report, median, percentile};

/// The voice detector's model.
const SILERO: &str = "silero-vad";

/// Samples a call: as a client sends them.
const FRAME: usize = SAMPLE_RATE as usize / 50;

#[derive(Args)]
pub struct EarBench {
    /// Folder of recorded speech, with a speech.tsv that has the columns `file` and `transcript`
    #[arg(long, default_value = "tests/data/speech", value_name = "DIR")]
    corpus: PathBuf,

    /// How often the corpus is played to each part
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
}

/// Something that hears 20 ms.
type Part = Box<dyn FnMut(&[f32]) -> anyhow::Result<()>>;

impl EarBench {
    pub fn run(self) -> anyhow::Result<Report> {
        let mut speech = Vec::new();
        for (file, _) in clips(&self.corpus, 1)? {
            let recording = duologue_audio::decode_file(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            speech.extend(recording.at_rate(SAMPLE_RATE)?.samples);
        }
        let store = VoicepackStore::open_default()?;
        let silero = SileroModel::load(&store.find(SILERO)?.file("silero_vad.onnx"))?;
        let parts: [(&str, &str, &dyn Fn() -> Part); 7] = [
            ("silero", "Silero", &|| detector(silero.detector())),
            ("light", "light detector", &|| detector(light())),
            ("gate", "noise gate", &gate),
            ("echo", "echo cancellation", &|| {
                cleaner(CleanerConfig {
                    echo: EchoCancellation::On,
                    noise: None,
                })
            }),
            ("noise", "noise reduction", &|| {
                cleaner(CleanerConfig {
                    echo: EchoCancellation::Off,
                    noise: Some(NoiseReduction::FarField),
                })
            }),
            ("usual", "**Silero, gate and segmenter**", &|| {
                ear(silero.detector(), CleanerConfig::default())
            }),
            (
                "all",
                "**with echo cancellation and noise reduction**",
                &|| {
                    ear(
                        silero.detector(),
                        CleanerConfig {
                            echo: EchoCancellation::On,
                            noise: Some(NoiseReduction::FarField),
                        },
                    )
                },
            ),
        ];
        let mut times = vec![Vec::new(); parts.len()];
        let mut longest = vec![Vec::new(); parts.len()];
        for round in 0..self.rounds.max(1) {
            for (number, (_, _, start)) in parts.iter().enumerate() {
                let mut part = start();
                let mut frames = Vec::new();
                for frame in speech.chunks_exact(FRAME) {
                    let started = Instant::now();
                    part(frame)?;
                    frames.push(started.elapsed().as_secs_f64() * 1_000.0);
                }
                times[number].push(frames.iter().sum::<f64>() / frames.len().max(1) as f64);
                longest[number].push(percentile(&frames, 0.99));
            }
            eprintln!("{} of {} rounds", round + 1, self.rounds.max(1));
        }
        let mut report = Report::new(
            "ear",
            &[
                "part",
                "ms per 20 ms",
                "p99 of one frame, ms",
                "share of a core",
            ],
            Value::Null,
        );
        let mut figures = serde_json::Map::new();
        for (number, (key, what, _)) in parts.iter().enumerate() {
            let (mean, slow) = (median(&times[number]), median(&longest[number]));
            report.row(vec![
                (*what).to_owned(),
                format!("{mean:.3}"),
                format!("{slow:.3}"),
                format!("{:.2}%", mean / 20.0 * 100.0),
            ]);
            figures.insert(
                (*key).to_owned(),
                json!({"ms_per_frame": mean, "p99_ms": slow}),
            );
        }
        report.remark(format!(
            "{:.0} s of speech, {} times; one thread.",
            speech.len() as f64 / f64::from(SAMPLE_RATE),
            self.rounds.max(1)
        ));
        report.set_figures(Value::Object(figures));
        Ok(report)
    }
}

fn light() -> LightDetector {
    LightDetector::new(Aggressiveness::Balanced)
}

fn detector(mut detector: impl VoiceDetector + 'static) -> Part {
    let mut windows = Vec::new();
    Box::new(move |frame| {
        windows.clear();
        Ok(detector.process(frame, &mut windows)?)
    })
}

fn gate() -> Part {
    let mut gate = NoiseGate::new(GateConfig::default());
    let mut heard = 0;
    Box::new(move |frame| {
        gate.process(frame);
        heard += frame.len() as u64;
        std::hint::black_box(gate.excess(heard - frame.len() as u64..heard));
        Ok(())
    })
}

/// Cleans with the speech itself as the reference, a little late: as much work as there can be.
fn cleaner(config: CleanerConfig) -> Part {
    let mut cleaner = SoundCleaner::new(config);
    let mut played = vec![0.0; FRAME];
    let mut cleaned = Vec::new();
    Box::new(move |frame| {
        cleaned.clear();
        cleaner.clean(frame, &played, &mut cleaned)?;
        played.copy_from_slice(frame);
        Ok(())
    })
}

fn ear(detector: impl VoiceDetector + 'static, config: CleanerConfig) -> Part {
    let mut listener = SpeechListener::new(
        Box::new(detector),
        SegmenterConfig::default(),
        Some(GateConfig::default()),
    );
    let mut cleaner = (config != CleanerConfig::default()).then(|| SoundCleaner::new(config));
    let mut played = vec![0.0; FRAME];
    let mut cleaned = Vec::new();
    let mut events = Vec::new();
    Box::new(move |frame| {
        events.clear();
        let sound = match &mut cleaner {
            None => frame,
            Some(cleaner) => {
                cleaned.clear();
                cleaner.clean(frame, &played, &mut cleaned)?;
                played.copy_from_slice(frame);
                &cleaned
            }
        };
        Ok(listener.hear(sound, &mut events)?)
    })
}
