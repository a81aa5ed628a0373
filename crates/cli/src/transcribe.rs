//! `duologue transcribe`: recordings to text, subtitles or JSON.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use duologue_asr::{Cancel, LoadOptions, Options, Recognizer, SAMPLE_RATE, Segment, Word};
use duologue_audio::Recording;
use duologue_voicepack::VoicepackStore;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::engines;

/// Longest piece between two signs of progress, seconds.
const PIECE_SECONDS: f32 = 28.0;

/// Turn recordings into text
///
/// Takes WAV, FLAC, MP3 and Ogg (Vorbis, Opus) files at any rate, of any length.
#[derive(Args)]
pub struct TranscribeCommand {
    /// The recordings; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// What to print: the words, one JSON object for each recording, or subtitles
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// The speech model: a voicepack's name, such as `whisper-tiny.en`
    #[arg(
        long,
        short,
        env = "DUOLOGUE_ASR",
        default_value = "whisper-base",
        value_name = "NAME"
    )]
    model: String,

    /// The language spoken, as an ISO 639 code such as `en`; without it, the model finds out
    #[arg(long, short, value_name = "CODE")]
    language: Option<String>,

    /// Text that came before, or names to expect: steers the spelling
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,

    /// Tell when each word is said (JSON; subtitles always do it to be cut well)
    #[arg(long)]
    word_times: bool,

    /// Processor threads; 0 takes the machine's cores, at most 4
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

/// How to print a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The words
    Text,
    /// Language, segments and times
    Json,
    /// SubRip subtitles
    Srt,
}

/// A recording's transcript.
#[derive(Clone, Debug, Default, PartialEq)]
struct Transcribed {
    file: String,
    seconds: f64,
    language: String,
    language_probability: f32,
    segments: Vec<Segment>,
}

/// A subtitle.
#[derive(Clone, Debug, PartialEq)]
struct Cue {
    start: f32,
    end: f32,
    text: String,
}

impl TranscribeCommand {
    /// Transcribes.
    ///
    /// # Errors
    /// The model is missing, a file cannot be read or decoded, the language is unknown.
    pub async fn run(self) -> anyhow::Result<()> {
        self.write_to(&mut std::io::stdout()).await
    }

    async fn write_to(self, out: &mut impl Write) -> anyhow::Result<()> {
        if self.format == Format::Srt && self.files.len() > 1 {
            bail!(
                "subtitles are for one recording at a time; {} were given",
                self.files.len()
            );
        }
        let store = VoicepackStore::open_default()?;
        let load = LoadOptions {
            threads: self.threads,
            ..LoadOptions::default()
        };
        let recognizer = engines::recognizer(&store, &self.model, load).await?;
        let options = Options {
            language: self.language.clone(),
            prompt: self.prompt.clone(),
            word_times: self.word_times || self.format == Format::Srt,
            ..Options::default()
        };
        for file in &self.files {
            let (path, recognizer, options) =
                (file.clone(), Arc::clone(&recognizer), options.clone());
            let transcribed =
                tokio::task::spawn_blocking(move || transcribe(&path, &*recognizer, &options))
                    .await
                    .context("the transcription broke off")??;
            match self.format {
                Format::Text if self.files.len() > 1 => {
                    writeln!(out, "{}: {}", transcribed.file, text(&transcribed))?
                }
                Format::Text => writeln!(out, "{}", text(&transcribed))?,
                Format::Json => writeln!(out, "{}", to_json(&transcribed, self.word_times))?,
                Format::Srt => write!(out, "{}", to_srt(&transcribed))?,
            }
        }
        out.flush()?;
        Ok(())
    }
}

fn transcribe(
    path: &Path,
    recognizer: &dyn Recognizer,
    options: &Options,
) -> anyhow::Result<Transcribed> {
    let recording = read(path)?.at_rate(SAMPLE_RATE)?;
    let pieces = duologue_asr::split_at_silence(&recording.samples, PIECE_SECONDS);
    let bar = progress(pieces.len(), recording.seconds());
    let mut options = options.clone();
    let mut out = Transcribed {
        file: path.display().to_string(),
        seconds: recording.seconds(),
        ..Transcribed::default()
    };
    for piece in pieces {
        let offset = piece.start as f32 / SAMPLE_RATE as f32;
        let end = piece.end as u64 / u64::from(SAMPLE_RATE);
        let heard =
            recognizer.transcribe(&recording.samples[piece], &options, &Cancel::default())?;
        if let Some(junk) = &heard.rejected {
            tracing::debug!(at = offset, reason = ?junk.reason, "nothing said");
        }
        if out.language.is_empty() || out.segments.is_empty() {
            (out.language, out.language_probability) =
                (heard.language.clone(), heard.language_probability);
        }
        if !heard.text.is_empty() {
            options.language = Some(heard.language);
        }
        out.segments.extend(
            heard
                .segments
                .into_iter()
                .map(|segment| later(segment, offset)),
        );
        bar.set_position(end);
    }
    bar.finish_and_clear();
    Ok(out)
}

fn read(path: &Path) -> anyhow::Result<Recording> {
    if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .context("cannot read the recording from standard input")?;
        return duologue_audio::decode_bytes(bytes).context("standard input");
    }
    duologue_audio::decode_file(path).with_context(|| path.display().to_string())
}

fn progress(pieces: usize, seconds: f64) -> ProgressBar {
    if pieces < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(seconds.ceil() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of {len} s, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn later(mut segment: Segment, offset: f32) -> Segment {
    segment.start += offset;
    segment.end += offset;
    for word in &mut segment.words {
        word.start += offset;
        word.end += offset;
    }
    segment
}

fn text(transcribed: &Transcribed) -> String {
    transcribed
        .segments
        .iter()
        .map(|segment| segment.text.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

fn to_json(transcribed: &Transcribed, word_times: bool) -> Value {
    // Milliseconds are as fine as it gets.
    let time = |seconds: f32| (f64::from(seconds) * 1000.0).round() / 1000.0;
    let word = |word: &Word| json!({"word": word.text, "start": time(word.start), "end": time(word.end), "probability": time(word.probability)});
    let segments: Vec<Value> = transcribed
        .segments
        .iter()
        .map(|segment| {
            let mut out = json!({"start": time(segment.start), "end": time(segment.end), "text": segment.text});
            if word_times {
                out["words"] = segment.words.iter().map(word).collect();
            }
            out
        })
        .collect();
    json!({
        "file": transcribed.file,
        "duration": (transcribed.seconds * 1000.0).round() / 1000.0,
        "language": transcribed.language,
        "language_probability": time(transcribed.language_probability),
        "text": text(transcribed),
        "segments": segments,
    })
}

fn to_srt(transcribed: &Transcribed) -> String {
    cues(&transcribed.segments)
        .iter()
        .zip(1..)
        .map(|(cue, number)| {
            format!(
                "{number}\n{} --> {}\n{}\n\n",
                clock(cue.start),
                clock(cue.end),
                cue.text
            )
        })
        .collect()
}

/// `01:02:03,456`.
fn clock(seconds: f32) -> String {
    let ms = (f64::from(seconds.max(0.0)) * 1000.0).round() as u64;
    format!(
        "{:02}:{:02}:{:02},{:03}",
        ms / 3_600_000,
        ms / 60_000 % 60,
        ms / 1000 % 60,
        ms % 1000
    )
}

/// Words as subtitles: cut at the ends of sentences and at pauses, and before they get too long to be read.
fn cues(segments: &[Segment]) -> Vec<Cue> {
    const MOST_CHARACTERS: usize = 84; // Two lines.
    const MOST_SECONDS: f32 = 7.0;
    const PAUSE_SECONDS: f32 = 0.8;
    let mut cues: Vec<Cue> = Vec::new();
    for segment in segments {
        let mut cut = true;
        if segment.words.is_empty() && !segment.text.is_empty() {
            cues.push(Cue {
                start: segment.start,
                end: segment.end,
                text: segment.text.clone(),
            });
        }
        for word in &segment.words {
            match cues.last_mut() {
                Some(cue)
                    if !cut
                        && cue.text.chars().count() + 1 + word.text.chars().count()
                            <= MOST_CHARACTERS
                        && word.end - cue.start <= MOST_SECONDS
                        && word.start - cue.end < PAUSE_SECONDS =>
                {
                    cue.text.push(' ');
                    cue.text.push_str(&word.text);
                    cue.end = word.end;
                }
                _ => cues.push(Cue {
                    start: word.start,
                    end: word.end,
                    text: word.text.clone(),
                }),
            }
            cut = word.text.ends_with(['.', '?', '!', '。', '？', '！']);
        }
    }
    cues
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn word(text: &str, start: f32, end: f32) -> Word {
        Word {
            text: text.into(),
            start,
            end,
            probability: 0.5,
        }
    }

    fn segment(words: Vec<Word>) -> Segment {
        let text = words
            .iter()
            .map(|w| w.text.as_str())
            .collect::<Vec<_>>()
            .join(" ");
        Segment {
            start: 0.0,
            end: 9.0,
            text,
            words,
        }
    }

    #[test]
    fn subtitles_are_cut_at_sentences_pauses_and_length() {
        let mut words = vec![
            word("Stop.", 0.0, 0.5),
            word("Go", 0.6, 0.8),
            word("on", 0.8, 1.0),
            word("then", 2.5, 2.8),
        ];
        words
            .extend((0..20).map(|i| word("something", 3.0 + i as f32 * 0.2, 3.2 + i as f32 * 0.2)));
        let cues = cues(&[segment(words)]);
        assert_eq!(
            cues[0],
            Cue {
                start: 0.0,
                end: 0.5,
                text: "Stop.".into()
            }
        );
        assert_eq!(
            cues[1],
            Cue {
                start: 0.6,
                end: 1.0,
                text: "Go on".into()
            }
        );
        assert!(cues[2].text.starts_with("then something"));
        assert!(
            cues.len() > 3
                && cues
                    .iter()
                    .all(|cue| cue.text.len() <= 84 && cue.end - cue.start <= 7.0)
        );
    }

    #[test]
    fn subtitles_are_numbered_and_timed() {
        let transcribed = Transcribed {
            segments: vec![segment(vec![word("Hello.", 3661.25, 3662.0)])],
            ..Transcribed::default()
        };
        assert_eq!(
            to_srt(&transcribed),
            "1\n01:01:01,250 --> 01:01:02,000\nHello.\n\n"
        );
    }

    #[test]
    fn json_has_words_only_when_asked() {
        let transcribed = Transcribed {
            file: "a.wav".into(),
            seconds: 1.5,
            language: "en".into(),
            segments: vec![segment(vec![word("Hello.", 0.12, 0.5)])],
            ..Transcribed::default()
        };
        let plain = to_json(&transcribed, false);
        assert_eq!(plain["text"], "Hello.");
        assert_eq!(plain["duration"], 1.5);
        assert!(plain["segments"][0].get("words").is_none());
        assert_eq!(
            to_json(&transcribed, true)["segments"][0]["words"][0]["start"],
            0.12
        );
    }

    fn command(files: &[&str], format: Format) -> TranscribeCommand {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/speech");
        TranscribeCommand {
            files: files.iter().map(|file| dir.join(file)).collect(),
            format,
            model: "whisper-tiny.en".into(),
            language: None,
            prompt: None,
            word_times: false,
            threads: 2,
        }
    }

    async fn output(command: TranscribeCommand) -> anyhow::Result<String> {
        let mut out = Vec::new();
        command.write_to(&mut out).await?;
        Ok(String::from_utf8(out)?)
    }

    #[tokio::test]
    async fn recordings_become_text_and_subtitles() {
        let text = output(command(&["goforward.flac"], Format::Text))
            .await
            .unwrap();
        assert!(text.to_lowercase().contains("go forward"), "{text}");
        let srt = output(command(&["jfk.flac"], Format::Srt)).await.unwrap();
        assert!(srt.starts_with("1\n00:00:00,"), "{srt}");
        assert!(
            srt.contains("\n2\n") && srt.to_lowercase().contains("country"),
            "{srt}"
        );
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let unknown = TranscribeCommand {
            model: "whisper-of-nowhere".into(),
            ..command(&["jfk.flac"], Format::Text)
        };
        let error = format!("{:#}", output(unknown).await.unwrap_err());
        assert!(error.contains("whisper-of-nowhere"), "{error}");
        let error = format!(
            "{:#}",
            output(command(&["no-such-file.wav"], Format::Text))
                .await
                .unwrap_err()
        );
        assert!(error.contains("no-such-file.wav"), "{error}");
    }
}
