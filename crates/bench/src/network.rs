//! What a call keeps of speech over networks that are not perfect: words, time, and how soon it is back.
//!
//! Both ends of each call run here, over real sockets with a relay between them ([`duologue_netem`]) that loses,
//! delays and reorders what passes, DTLS and ICE included. Recorded speech goes both ways at once; what comes out of
//! the jitter buffers is written down by a recognizer and compared with what was said. All networks are tried beside
//! each other: a call takes next to nothing of the machine.

mod call;
mod loudness;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use duologue_asr::wer::{self, Errors};
use duologue_asr::{Cancel, LoadOptions, Options};
use duologue_audio::{FRAME_SAMPLES, Frame, SAMPLE_RATE};
use duologue_netem::Weather;
use duologue_rtc::JitterStatistics;
use duologue_voicepack::VoicepackStore;
use serde_json::{Value, json};

use super::asr::clips;
use super::report::{Report, median, percentile};
use call::{Heard, talk};
use loudness::Loudness;

const FRAME: Duration = Duration::from_millis(20);
/// Before the first clip, in which the buffers find the delay that the network needs.
const WARM: Duration = Duration::from_secs(4);
/// Between two clips: longer than sound may be late.
const PAUSE: Duration = Duration::from_millis(1_400);
/// Of every network, each way.
const WAY: Duration = Duration::from_millis(20);

#[derive(Args)]
pub struct NetworkBench {
    /// Only this network (several times for several): perfect, loss-1, loss-5, loss-10, bursts, jitter-50, jitter-100,
    /// reorder, outage, address
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,

    /// Folder with a speech.tsv that has the columns `file` and `transcript`
    #[arg(long, default_value = "tests/data/speech", value_name = "DIR")]
    corpus: PathBuf,

    /// Use only every Nth clip
    #[arg(long, default_value_t = 1, value_name = "N")]
    every: usize,

    /// The recognizer that writes down what came through
    #[arg(long, default_value = "whisper-base", value_name = "NAME")]
    model: String,
}

/// A network to try.
struct Case {
    name: &'static str,
    what: &'static str,
    weather: Weather,
    event: Option<Event>,
}

/// What happens in the middle of a call.
#[derive(Clone, Copy, PartialEq)]
enum Event {
    Outage(Duration),
    ChangeAddress,
}

impl Event {
    /// How long it lasts, samples.
    fn length(self) -> usize {
        match self {
            Self::Outage(time) => in_samples(time),
            Self::ChangeAddress => 0,
        }
    }
}

fn all_cases() -> Vec<Case> {
    let ms = Duration::from_millis;
    let base = Weather {
        delay: WAY,
        ..Weather::default()
    };
    let loss = |loss| Weather { loss, ..base };
    let jitter = |jitter| Weather { jitter, ..base };
    let case = |name, what, weather, event| Case {
        name,
        what,
        weather,
        event,
    };
    vec![
        case("perfect", "nothing but 20 ms each way", base, None),
        case("loss-1", "1% lost", loss(0.01), None),
        case("loss-5", "5% lost", loss(0.05), None),
        case("loss-10", "10% lost", loss(0.10), None),
        case(
            "bursts",
            "9% lost, three in a row",
            Weather {
                loss: 0.033,
                burst: 3,
                ..base
            },
            None,
        ),
        case("jitter-50", "up to 50 ms late", jitter(ms(50)), None),
        case("jitter-100", "up to 100 ms late", jitter(ms(100)), None),
        case(
            "reorder",
            "a quarter overtaken",
            Weather {
                reorder: 0.25,
                ..base
            },
            None,
        ),
        case(
            "outage",
            "nothing for 5 s",
            base,
            Some(Event::Outage(Duration::from_secs(5))),
        ),
        case(
            "address",
            "the client's address changes",
            base,
            Some(Event::ChangeAddress),
        ),
    ]
}

/// What is said: clips one after the other, and when.
struct Script {
    samples: Vec<i16>,
    clips: Vec<(std::ops::Range<usize>, String)>,
}

impl Script {
    fn read(bench: &NetworkBench) -> anyhow::Result<Self> {
        let mut samples = vec![0; in_samples(WARM)];
        let mut said = Vec::new();
        for (file, truth) in clips(&bench.corpus, bench.every.max(1))? {
            let recording = duologue_audio::decode_file(&file)?.at_rate(SAMPLE_RATE)?;
            let from = samples.len();
            samples.extend(duologue_audio::pcm::f32_to_i16(&recording.samples));
            said.push((from..samples.len(), truth));
            samples.resize(samples.len() + in_samples(PAUSE), 0);
        }
        samples.resize(samples.len().next_multiple_of(FRAME_SAMPLES), 0);
        Ok(Self {
            samples,
            clips: said,
        })
    }

    /// When something happens, so that it is over in the middle of a clip: then something is to be heard.
    fn event(&self, event: Event) -> usize {
        let longest = self
            .clips
            .iter()
            .skip(1)
            .max_by_key(|(clip, _)| clip.len())
            .or(self.clips.first());
        let middle = longest.map_or(0, |(clip, _)| (clip.start + clip.end) / 2);
        middle.saturating_sub(event.length())
    }

    fn frame(&self, n: usize) -> Option<Frame> {
        let samples = self.samples.get(n * FRAME_SAMPLES..)?.first_chunk()?;
        Some(Frame(*samples))
    }

    /// Whether a reply would be said then; between replies a server says nothing.
    fn is_said(&self, n: usize) -> bool {
        let at = n * FRAME_SAMPLES;
        self.clips
            .iter()
            .any(|(clip, _)| clip.start < at + FRAME_SAMPLES && at < clip.end)
    }
}

fn in_samples(time: Duration) -> usize {
    (time.as_secs_f64() * f64::from(SAMPLE_RATE)) as usize
}

/// What came of one direction.
struct Outcome {
    errors: Errors,
    latencies: Vec<f64>,
    recovered_ms: Option<f64>,
    statistics: JitterStatistics,
}

impl Outcome {
    fn of(
        case: &Case,
        script: &Script,
        heard: &Heard,
        recognizer: &dyn duologue_asr::Recognizer,
    ) -> anyhow::Result<Self> {
        let disturbed = case.event.map(|event| {
            let from = script.event(event);
            from..from + event.length()
        });
        let options = Options {
            language: Some("en".into()),
            ..Options::default()
        };
        let mut errors = Errors::default();
        for (clip, truth) in &script.clips {
            // What is said while nothing can arrive is lost, whatever is done.
            if disturbed
                .as_ref()
                .is_some_and(|out| clip.start <= out.end && out.start < clip.end)
            {
                continue;
            }
            let end = (clip.end + in_samples(PAUSE)).min(heard.samples.len());
            let piece = heard.samples.get(clip.start..end).unwrap_or_default();
            let samples = duologue_audio::resample(
                &duologue_audio::pcm::i16_to_f32(piece),
                SAMPLE_RATE,
                duologue_asr::SAMPLE_RATE,
            )?;
            let text = recognizer
                .transcribe(&samples, &options, &Cancel::default())?
                .text;
            let found = wer::compare(truth, &text);
            errors.substitutions += found.substitutions;
            errors.deletions += found.deletions;
            errors.insertions += found.insertions;
            errors.words += found.words;
        }
        let (said, heard_loudness) = (Loudness::of(&script.samples), Loudness::of(&heard.samples));
        let mut latencies = Vec::new();
        let mut recovered_ms = None;
        for at in (0..heard_loudness.len()).step_by(Loudness::STEPS_A_SECOND / 20) {
            let Some(lag) = said.lag(&heard_loudness, at) else {
                continue;
            };
            let ms = |steps: usize| steps as f64 * 1_000.0 / Loudness::STEPS_A_SECOND as f64;
            let at = at * Loudness::STEP;
            match &disturbed {
                Some(out) if at + in_samples(Duration::from_secs(1)) < out.start => {
                    latencies.push(ms(lag));
                }
                Some(out) if at >= out.end => {
                    recovered_ms.get_or_insert((at - out.end) as f64 / 48.0);
                    latencies.push(ms(lag));
                }
                Some(_) => {}
                None if at >= in_samples(WARM) => latencies.push(ms(lag)),
                None => {}
            }
        }
        Ok(Self {
            errors,
            latencies,
            recovered_ms,
            statistics: heard.statistics,
        })
    }

    fn json(&self) -> Value {
        let s = &self.statistics;
        let ms = |samples: u64| samples as f64 / 48.0;
        json!({
            "word_error_rate": self.errors.rate(), "words": self.errors.words,
            "substitutions": self.errors.substitutions, "deletions": self.errors.deletions,
            "insertions": self.errors.insertions,
            "latency_p50_ms": median(&self.latencies), "latency_p95_ms": percentile(&self.latencies, 0.95),
            "recovered_ms": self.recovered_ms,
            "received": s.received, "lost": s.lost, "late": s.late, "recovered": s.recovered,
            "concealed_ms": ms(s.concealed), "stalled_ms": ms(s.stalled),
            "inserted_ms": ms(s.inserted), "removed_ms": ms(s.removed),
        })
    }
}

impl NetworkBench {
    pub async fn run(self) -> anyhow::Result<Report> {
        let mut cases = all_cases();
        for name in &self.cases {
            if !cases.iter().any(|case| case.name == name) {
                bail!("there is no network {name:?}; --help names them");
            }
        }
        cases.retain(|case| self.cases.is_empty() || self.cases.iter().any(|n| n == case.name));
        let script = Script::read(&self)?;
        let pack = VoicepackStore::open_default()?.find(&self.model)?;
        let seconds = script.samples.len() / SAMPLE_RATE as usize;
        eprintln!("{} networks at once, {seconds} s each", cases.len());
        let talks = cases
            .iter()
            .enumerate()
            .map(|(n, case)| talk(case, &script, n as u64 + 1));
        let heard = futures_util::future::try_join_all(talks).await?;
        let words: usize = script
            .clips
            .iter()
            .map(|(_, truth)| truth.split_whitespace().count())
            .sum();
        let mut report = Report::new(
            "network",
            &[
                "network",
                "way",
                "word error rate",
                "lost / recovered",
                "made up, ms",
                "waited, ms",
                "mouth to ear p50 / p95, ms",
                "back after, ms",
            ],
            Value::Null,
        );
        let figures = tokio::task::spawn_blocking(move || {
            let recognizer = duologue_asr::load(&pack, &LoadOptions::default())?;
            let mut figures = serde_json::Map::new();
            let mut rows = Vec::new();
            let mut starved = 0;
            for (case, (from_client, to_client)) in cases.iter().zip(&heard) {
                let mut both = serde_json::Map::new();
                for (way, heard) in [
                    ("from the client", from_client),
                    ("to the client", to_client),
                ] {
                    let outcome = Outcome::of(case, &script, heard, recognizer.as_ref())?;
                    if case.name == "perfect" {
                        starved += outcome.statistics.lost;
                    }
                    rows.push(row(case, way, &outcome));
                    both.insert(way.replace(' ', "_"), outcome.json());
                }
                figures.insert(case.name.into(), Value::Object(both));
            }
            anyhow::Ok((figures, rows, starved))
        })
        .await??;
        let (figures, rows, starved) = figures;
        for row in rows {
            report.row(row);
        }
        if starved > 0 {
            report.remark(format!(
                "THIS MACHINE WAS TOO BUSY: a network that loses nothing lost {starved} packets. These figures say \
                 nothing about networks; run it again on an idle machine."
            ));
        }
        report.remark(format!(
            "{words} words each way, written down by {}; where the network was away, of the clips before and after. \
             Mouth to ear: 20 ms a frame, 6.5 ms the codec, {} ms the network, the rest the jitter buffer.",
            self.model,
            WAY.as_millis()
        ));
        report.set_figures(Value::Object(figures));
        Ok(report)
    }
}

fn row(case: &Case, way: &str, outcome: &Outcome) -> Vec<String> {
    let s = &outcome.statistics;
    let latencies = &outcome.latencies;
    vec![
        format!("{}: {}", case.name, case.what),
        way.to_owned(),
        format!("{:.1}%", outcome.errors.rate() * 100.0),
        format!("{} / {}", s.lost, s.recovered),
        format!("{:.0}", s.concealed as f64 / 48.0),
        format!("{:.0}", s.stalled as f64 / 48.0),
        format!(
            "{:.0} / {:.0}",
            median(latencies),
            percentile(latencies, 0.95)
        ),
        outcome
            .recovered_ms
            .map_or_else(String::new, |ms| format!("{ms:.0}")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let names: Vec<_> = all_cases().iter().map(|case| case.name).collect();
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }
}
