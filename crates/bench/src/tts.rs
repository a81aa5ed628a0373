//! How soon a voice is heard, and how fast it speaks.

use std::time::Instant;

use anyhow::Context;
use clap::Args;
use duologue_tts::{FrameStream, LoadOptions, Settings, StopFlag, Synthesizer};
use duologue_voicepack::VoicepackStore;
use serde_json::json;

use super::peer::PeerOptions;
use super::report::{Report, median};

/// Four to five seconds each.
pub const SENTENCES: [&str; 6] = [
    "The train to the coast leaves at half past nine from the second platform.",
    "I have put the groceries on the kitchen table and fed both of the cats.",
    "Yesterday it rained all day, but this morning the sky is clear and blue.",
    "If you turn left at the old church, you will see the library on your right.",
    "She opened the letter slowly, read it twice, and put it back on the shelf.",
    "We should call the doctor again if the fever has not gone down by tomorrow.",
];

#[derive(Args)]
pub struct TtsBench {
    /// The voice, of the Piper family
    #[arg(long, default_value = "piper-en_US-joe-medium", value_name = "NAME")]
    voice: String,

    /// Times that each sentence is spoken
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,

    /// Threads of the voice; 0 is its default
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,

    #[cfg(feature = "csm")]
    #[command(flatten)]
    csm: super::csm::CsmOptions,

    #[command(flatten)]
    peer: PeerOptions,
}

struct Spoken {
    first: f64,
    total: f64,
    seconds: f64,
}

impl TtsBench {
    pub fn run(self) -> anyhow::Result<Report> {
        #[cfg(feature = "csm")]
        if self.csm.is_asked_for() {
            return self.csm.run(self.rounds, self.threads);
        }
        let pack = VoicepackStore::open_default()?.find(&self.voice)?;
        let model = std::fs::read_dir(&pack.dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|end| end == "onnx"))
            .with_context(|| format!("there is no .onnx file in {}", pack.dir.display()))?;
        let options = LoadOptions {
            threads: std::num::NonZeroUsize::new(self.threads),
            ..LoadOptions::default()
        };
        let voice = duologue_tts::load(&pack, &options)?;
        let model = model.to_string_lossy().into_owned();
        let mut peer = self
            .peer
            .start(include_str!("../../../bench/peers/piper_tts.py"), &[&model])?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds.max(1) {
            for sentence in SENTENCES {
                ours.push(speak(voice.as_ref(), sentence)?);
                if let Some(peer) = &mut peer {
                    let answer = peer.ask(&json!({"text": sentence}))?;
                    let figure = |name: &str| {
                        answer[name]
                            .as_f64()
                            .with_context(|| format!("the peer told no {name}"))
                    };
                    theirs.push(Spoken {
                        first: figure("first")?,
                        total: figure("total")?,
                        seconds: figure("seconds")?,
                    });
                }
            }
        }
        Ok(report(&self.voice, &ours, &theirs))
    }
}

fn speak(voice: &dyn Synthesizer, text: &str) -> anyhow::Result<Spoken> {
    let start = Instant::now();
    let mut stream = FrameStream::new(
        voice.begin(&Settings::default())?,
        voice.voice().sample_rate,
    )?;
    stream.say(text)?;
    stream.finish();
    let stop = StopFlag::default();
    let mut first = None;
    let mut frames = 0;
    while stream.next(&stop)?.is_some() {
        first.get_or_insert_with(|| start.elapsed().as_secs_f64());
        frames += 1;
    }
    Ok(Spoken {
        first: first.context("the voice made no sound")?,
        total: start.elapsed().as_secs_f64(),
        seconds: f64::from(frames) / 50.0,
    })
}

fn report(voice: &str, ours: &[Spoken], theirs: &[Spoken]) -> Report {
    let first = |all: &[Spoken]| median(&all.iter().map(|one| one.first).collect::<Vec<_>>());
    let factor = |all: &[Spoken]| {
        median(
            &all.iter()
                .map(|one| one.total / one.seconds)
                .collect::<Vec<_>>(),
        )
    };
    let length = |all: &[Spoken]| median(&all.iter().map(|one| one.seconds).collect::<Vec<_>>());
    let mut rows = vec![(format!("duologue, {voice}"), ours)];
    if !theirs.is_empty() {
        rows.push(("piper-tts".to_owned(), theirs));
    }
    let figures = rows
        .iter()
        .map(|(name, all)| {
            let figures = json!({"first_audio_s": first(all), "real_time_factor": factor(all), "sentence_s": length(all), "runs": all.len()});
            (name.clone(), figures)
        })
        .collect::<serde_json::Map<_, _>>();
    let mut report = Report::new(
        "tts",
        &[
            "engine",
            "first audio, ms",
            "real-time factor",
            "sentence, s",
        ],
        figures.into(),
    );
    for (name, all) in &rows {
        report.row(vec![
            name.clone(),
            format!("{:.0}", first(all) * 1_000.0),
            format!("{:.3}", factor(all)),
            format!("{:.1}", length(all)),
        ]);
    }
    if !theirs.is_empty() {
        report.remark(format!(
            "First audio in 1/{:.1} of the peer's time; real-time factor {:.2} of the peer's. Medians of {} runs each, alternating.",
            first(theirs) / first(ours),
            factor(ours) / factor(theirs),
            ours.len()
        ));
    }
    report
}
