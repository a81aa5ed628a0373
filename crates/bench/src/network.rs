//! What a call keeps of speech over networks that are not perfect: words, time, and how soon it is back.
//!
//! Both ends of each call run here, over real sockets with a relay between them ([`duologue_netem`]) that loses,
//! delays and reorders what passes, DTLS and ICE included. Recorded speech goes both ways at once; what comes out of
//! the jitter buffers is written down by a recognizer and compared with what was said. All networks are tried beside
//! each other: a call takes next to nothing of the machine.
//!
//! The time from mouth to ear is found by laying the loudness of what was heard over that of what was said.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use duologue_asr::wer::{self, Errors};
use duologue_asr::{Cancel, LoadOptions, Options};
use duologue_audio::{FRAME_SAMPLES, Frame, SAMPLE_RATE};
use duologue_netem::{Relay, Weather};
use duologue_rtc::{JitterStatistics, Peer, PeerCommand, PeerHandler, Port, PortConfig};
use duologue_voicepack::VoicepackStore;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::asr::clips;
use super::report::{Report, median, percentile};

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

/// What one side heard, on the clock of what was said.
struct Heard {
    /// Sample 0 was heard when sample 0 was said.
    samples: Vec<i16>,
    statistics: JitterStatistics,
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
async fn talk(case: &Case, script: &Script, seed: u64) -> anyhow::Result<(Heard, Heard)> {
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
        for at in (0..heard_loudness.0.len()).step_by(Loudness::STEPS_A_SECOND / 20) {
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

/// Loudness every 5 ms, dB above -60 dBFS.
struct Loudness(Vec<f32>);

impl Loudness {
    const STEP: usize = 240;
    const STEPS_A_SECOND: usize = SAMPLE_RATE as usize / Self::STEP;
    /// So much of what was heard is laid over what was said.
    const WINDOW: usize = Self::STEPS_A_SECOND;
    /// Longest time from mouth to ear that is looked for: 1.5 s.
    const LONGEST: usize = Self::STEPS_A_SECOND * 3 / 2;
    /// How alike they must be.
    const ALIKE: f32 = 0.85;
    /// A window with less variation says nothing.
    const LIVELY: f32 = 6.0;

    fn of(samples: &[i16]) -> Self {
        let sound = duologue_audio::pcm::i16_to_f32(samples);
        let loudness = sound.chunks_exact(Self::STEP).map(|step| {
            (duologue_audio::pcm::dbfs(duologue_audio::pcm::rms(step)) + 60.0).max(0.0)
        });
        Self(loudness.collect())
    }

    /// How many steps before, what was heard from `at` on was said.
    fn lag(&self, heard: &Self, at: usize) -> Option<usize> {
        let window = heard.0.get(at..at + Self::WINDOW)?;
        let (mean, deviation) = spread(window);
        if deviation < Self::LIVELY {
            return None;
        }
        let (likeness, lag) = (0..=Self::LONGEST.min(at))
            .filter_map(|lag| {
                let said = self.0.get(at - lag..at - lag + Self::WINDOW)?;
                let (said_mean, said_deviation) = spread(said);
                let cross: f32 = window
                    .iter()
                    .zip(said)
                    .map(|(a, b)| (a - mean) * (b - said_mean))
                    .sum();
                let scale = deviation * said_deviation * Self::WINDOW as f32;
                (scale > 0.0).then(|| (cross / scale, lag))
            })
            .max_by(|one, other| one.0.total_cmp(&other.0))?;
        (likeness >= Self::ALIKE).then_some(lag)
    }
}

/// Mean and standard deviation.
fn spread(values: &[f32]) -> (f32, f32) {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32;
    (mean, square.sqrt())
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
    fn the_time_from_mouth_to_ear_is_found_in_the_loudness() {
        let mut dice = duologue_netem::Dice::new(3);
        let said: Vec<i16> = (0..200)
            .flat_map(|_| {
                let peak = (dice.share() * 20_000.0) as i16;
                (0..4_800usize).map(move |n| if n % 97 < 48 { peak } else { -peak })
            })
            .collect();
        let late = in_samples(Duration::from_millis(185));
        let heard: Vec<i16> = std::iter::repeat_n(0, late)
            .chain(said.iter().copied())
            .collect();
        let (said, heard) = (Loudness::of(&said), Loudness::of(&heard));
        assert_eq!(said.lag(&heard, 800), Some(37));
        let silence = Loudness::of(&vec![0; 480_000]);
        assert_eq!(said.lag(&silence, 800), None);
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let names: Vec<_> = all_cases().iter().map(|case| case.name).collect();
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }
}
