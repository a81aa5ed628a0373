//! How long a recognizer takes after the last word, and how many words it gets wrong.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use duologue_asr::wer::{self, Errors};
use duologue_asr::{Cancel, LoadOptions, Options, SAMPLE_RATE};
use duologue_voicepack::VoicepackStore;
use serde_json::json;

use super::peer::PeerOptions;
use super::report::{Report, median};

#[derive(Args)]
pub struct AsrBench {
    /// The model, of the Whisper family
    #[arg(long, default_value = "whisper-base", value_name = "NAME")]
    model: String,

    /// Folder with a speech.tsv that has the columns `file` and `transcript`
    #[arg(long, default_value = "tests/data/speech", value_name = "DIR")]
    corpus: PathBuf,

    /// Use only every Nth clip
    #[arg(long, default_value_t = 1, value_name = "N")]
    every: usize,

    /// Threads, for both
    #[arg(long, default_value_t = 2, value_name = "N")]
    threads: usize,

    /// Beam of the peer; 5 is its default, 1 is what Duologue uses
    #[arg(long, default_value_t = 5, value_name = "N")]
    peer_beam: usize,

    #[command(flatten)]
    peer: PeerOptions,
}

#[derive(Default)]
struct Heard {
    times: Vec<f64>,
    errors: Errors,
}

impl Heard {
    fn add(&mut self, seconds: f64, reference: &str, text: &str) {
        let errors = wer::compare(reference, text);
        self.times.push(seconds);
        self.errors.substitutions += errors.substitutions;
        self.errors.deletions += errors.deletions;
        self.errors.insertions += errors.insertions;
        self.errors.words += errors.words;
    }
}

impl AsrBench {
    pub fn run(self) -> anyhow::Result<Report> {
        let clips = clips(&self.corpus, self.every.max(1))?;
        let pack = VoicepackStore::open_default()?.find(&self.model)?;
        let options = LoadOptions {
            threads: self.threads,
            ..LoadOptions::default()
        };
        let recognizer = duologue_asr::load(&pack, &options)?;
        let mut peer = self.peer.start(
            include_str!("../../../bench/peers/faster_whisper.py"),
            &[
                &pack.dir.to_string_lossy(),
                &self.threads.to_string(),
                &self.peer_beam.to_string(),
            ],
        )?;
        let options = Options {
            language: Some("en".into()),
            ..Options::default()
        };
        let (mut ours, mut theirs) = (Heard::default(), Heard::default());
        let mut seconds = 0.0;
        for (file, truth) in &clips {
            let recording = duologue_audio::decode_file(file)?.at_rate(SAMPLE_RATE)?;
            seconds += recording.seconds();
            let start = Instant::now();
            let transcript =
                recognizer.transcribe(&recording.samples, &options, &Cancel::default())?;
            ours.add(start.elapsed().as_secs_f64(), truth, &transcript.text);
            if let Some(peer) = &mut peer {
                let file = file.canonicalize()?;
                let answer = peer.ask(&json!({"file": file}))?;
                let time = answer["total"].as_f64().context("the peer told no time")?;
                theirs.add(time, truth, answer["text"].as_str().unwrap_or_default());
            }
        }
        Ok(self.report(&ours, &theirs, clips.len(), seconds))
    }

    fn report(&self, ours: &Heard, theirs: &Heard, clips: usize, seconds: f64) -> Report {
        let mut rows = vec![(format!("duologue, {}", self.model), ours)];
        if !theirs.times.is_empty() {
            rows.push((format!("faster-whisper, beam {}", self.peer_beam), theirs));
        }
        let figures = rows
            .iter()
            .map(|(name, heard)| {
                let figures = json!({
                    "median_s": median(&heard.times), "total_s": heard.times.iter().sum::<f64>(),
                    "word_error_rate": heard.errors.rate(), "substitutions": heard.errors.substitutions,
                    "deletions": heard.errors.deletions, "insertions": heard.errors.insertions,
                    "words": heard.errors.words, "clips": clips,
                });
                (name.clone(), figures)
            })
            .collect::<serde_json::Map<_, _>>();
        let mut report = Report::new(
            "asr",
            &[
                "engine",
                "time to final, ms (median)",
                "word error rate",
                "S / D / I",
            ],
            figures.into(),
        );
        for (name, heard) in &rows {
            let errors = &heard.errors;
            report.row(vec![
                name.clone(),
                format!("{:.0}", median(&heard.times) * 1_000.0),
                format!("{:.1}%", errors.rate() * 100.0),
                format!(
                    "{} / {} / {}",
                    errors.substitutions, errors.deletions, errors.insertions
                ),
            ]);
        }
        if !theirs.times.is_empty() {
            report.remark(format!(
                "1/{:.1} of the peer's time; word error rate {:+.1} points.",
                median(&theirs.times) / median(&ours.times),
                (ours.errors.rate() - theirs.errors.rate()) * 100.0
            ));
        }
        report.remark(format!(
            "{clips} clips of {:.1} s in the mean, {} words, int8, {} threads each, alternating.",
            seconds / clips.max(1) as f64,
            ours.errors.words,
            self.threads
        ));
        report
    }
}

/// The files of a corpus and what is said in them.
pub fn clips(corpus: &Path, every: usize) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let list = corpus.join("speech.tsv");
    let text = std::fs::read_to_string(&list).with_context(|| {
        format!(
            "cannot read {}; name a folder with --corpus",
            list.display()
        )
    })?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let column = |name: &str| {
        header
            .iter()
            .position(|column| *column == name)
            .with_context(|| format!("{} has no column {name:?}", list.display()))
    };
    let (file, transcript) = (column("file")?, column("transcript")?);
    let clips: Vec<(PathBuf, String)> = lines
        .step_by(every)
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            // Capitals mark emphasis in some transcripts.
            Some((
                corpus.join(cells.get(file)?),
                cells.get(transcript)?.to_lowercase(),
            ))
        })
        .collect();
    if clips.is_empty() {
        bail!("{} lists no clips", list.display());
    }
    Ok(clips)
}
