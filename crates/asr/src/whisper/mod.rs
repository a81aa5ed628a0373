//! Whisper, without the thirty seconds.
//!
//! Whisper was trained on windows of 30 s, mostly silence padded on. The customary way is to encode all of it for
//! a turn of 3 s. Encoding only the speech is ten times cheaper but makes the decoder miss the end and say
//! everything again: it never saw states that are not followed by silence. So only the speech and a short margin
//! are encoded, and states of silence, computed once when the model is loaded, are joined on
//! ([`tail`]) before decoding.

mod engine;
mod span;
mod tail;
mod words;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use duologue_audio::mel::LogMel;
use duologue_voicepack::Voicepack;

use self::engine::{Decoded, Engine, States};
use self::tail::Tail;
use crate::junk::{self, Evidence};
use crate::vocabulary::Vocabulary;
use crate::{
    AsrError, Cancel, Junk, LoadOptions, Options, Reason, Recognizer, RecognizerInfo, SAMPLE_RATE,
    Segment, Timings, Transcript, split_at_silence,
};

/// Longest piece that is transcribed at once: the window of 30 s less the margin.
const MAX_SECONDS: f32 = 28.0;
/// Tokens of a prompt that are used, the last ones.
const MAX_PROMPT: usize = 100;
/// The least room for text, in tokens, and how much more for every second.
const TOKENS: usize = 24;
const TOKENS_PER_SECOND: f32 = 20.0;
/// A first answer less likely than this is doubted.
const DOUBTFUL: f32 = -0.8;

/// Loads a Whisper model from a voicepack with CTranslate2's files: `model.bin`, `config.json`,
/// `vocabulary.json` or `vocabulary.txt`. Takes seconds: the model is warmed up.
///
/// # Errors
/// [`AsrError::Load`].
pub fn load(voicepack: &Voicepack, options: &LoadOptions) -> Result<Arc<dyn Recognizer>, AsrError> {
    load_dir(&voicepack.name, &voicepack.dir, options)
}

/// [`load`] for a folder that is no voicepack.
///
/// # Errors
/// [`AsrError::Load`].
pub fn load_dir(
    name: &str,
    dir: &Path,
    options: &LoadOptions,
) -> Result<Arc<dyn Recognizer>, AsrError> {
    let failed = |reason: String| AsrError::Load {
        name: name.to_owned(),
        dir: dir.display().to_string(),
        reason,
    };
    let model_file = dir.join("model.bin");
    let size = std::fs::metadata(&model_file)
        .map_err(|e| {
            failed(format!(
                "model.bin: {e}. Fetch the model with `duologue models pull {name}`"
            ))
        })?
        .len();
    let vocabulary = Vocabulary::read(dir).map_err(&failed)?;
    let engine = Engine::load(dir, options).map_err(&failed)?;
    let whisper = Whisper::new(name, vocabulary, engine, options, size)?;
    tracing::info!(
        model = name,
        compute = whisper.info.compute,
        replicas = whisper.info.replicas,
        "speech model loaded"
    );
    Ok(Arc::new(whisper))
}

struct Whisper {
    info: RecognizerInfo,
    vocabulary: Vocabulary,
    engine: Engine,
    mel: LogMel,
    tail: Tail,
}

/// A piece of audio on its way through the model.
struct Piece {
    states: States,
    /// Seconds of sound in it, margin not counted.
    seconds: f32,
}

impl Whisper {
    fn new(
        name: &str,
        vocabulary: Vocabulary,
        engine: Engine,
        options: &LoadOptions,
        size: u64,
    ) -> Result<Self, AsrError> {
        let mel = LogMel::new(engine.mel_bins);
        let tail = Tail::compute(&engine, &mel)?;
        // English-only models have the multilingual ones' language tokens but were never taught them.
        let multilingual = vocabulary.is_multilingual();
        let languages = if multilingual {
            vocabulary.languages()
        } else {
            vec!["en".to_owned()]
        };
        let replicas = options.replicas.max(1);
        let info = RecognizerInfo {
            name: name.to_owned(),
            family: "whisper".to_owned(),
            multilingual,
            languages,
            compute: engine.compute.to_owned(),
            replicas,
            // Files hold 16-bit floats.
            resident_bytes: replicas as u64
                * if engine.compute.starts_with("int8") {
                    size / 2
                } else if engine.compute == "float32" {
                    size * 2
                } else {
                    size
                },
        };
        Ok(Self {
            info,
            vocabulary,
            engine,
            mel,
            tail,
        })
    }

    /// Sound to states, `margin` of silence included, with the tail joined on.
    fn encode(&self, audio: &[f32], timings: &mut Timings) -> Result<Piece, AsrError> {
        let started = Instant::now();
        let frames = tail::frames_for(audio.len());
        let mut padded = tail::at_standard_level(&self.mel, audio);
        padded.resize(frames * tail::HOP, 0.0);
        let mel = self.mel.compute(&padded);
        timings.mel += started.elapsed();

        let started = Instant::now();
        let states = self.engine.encode(mel)?;
        let states = self.tail.join(states, self.engine.mel_bins);
        timings.encode += started.elapsed();
        Ok(Piece {
            states,
            seconds: audio.len() as f32 / SAMPLE_RATE as f32,
        })
    }

    fn decode(
        &self,
        piece: &mut Piece,
        language: &str,
        options: &Options,
        beam: usize,
    ) -> Result<Decoded, AsrError> {
        let language = format!("<|{language}|>");
        let before = self.prompt(options);
        let mut prompt: Vec<&str> = before.iter().map(String::as_str).collect();
        prompt.push("<|startoftranscript|>");
        if self.info.multilingual {
            prompt.extend([language.as_str(), "<|transcribe|>"]);
        }
        prompt.push("<|notimestamps|>");
        let room = TOKENS + (piece.seconds * TOKENS_PER_SECOND) as usize;
        self.engine.generate(&mut piece.states, &prompt, beam, room)
    }

    fn prompt(&self, options: &Options) -> Vec<String> {
        let Some(text) = options
            .prompt
            .as_deref()
            .map(str::trim)
            .filter(|t| !t.is_empty())
        else {
            return Vec::new();
        };
        let tokens = self.vocabulary.encode(&format!(" {text}"));
        let skipped = tokens.len().saturating_sub(MAX_PROMPT);
        std::iter::once("<|startofprev|>".to_owned())
            .chain(tokens.into_iter().skip(skipped))
            .collect()
    }

    fn evidence<'a>(decoded: &Decoded, text: &'a str, seconds: f32) -> Evidence<'a> {
        Evidence {
            text,
            avg_logprob: decoded.avg_logprob,
            no_speech_prob: decoded.no_speech_prob,
            seconds,
        }
    }

    /// One piece of at most [`MAX_SECONDS`], starting at `offset` seconds. Fills in everything but the timings' sum.
    fn piece(
        &self,
        audio: &[f32],
        offset: f32,
        options: &Options,
        cancel: &Cancel,
    ) -> Result<Transcript, AsrError> {
        let mut out = Transcript {
            language: options
                .language
                .clone()
                .unwrap_or_else(|| self.only_language().to_owned()),
            language_probability: 1.0,
            ..Transcript::default()
        };
        let Some(audible) = span::audible(audio) else {
            out.rejected = Some(Junk {
                reason: Reason::Silence,
                text: String::new(),
            });
            return Ok(out);
        };
        let offset = offset + audible.start as f32 / SAMPLE_RATE as f32;
        cancel.check()?;
        let mut piece = self.encode(&audio[audible.clone()], &mut out.timings)?;
        cancel.check()?;

        let started = Instant::now();
        if out.language.is_empty() {
            (out.language, out.language_probability) =
                self.engine.detect_language(&mut piece.states)?;
            cancel.check()?;
        }
        let mut decoded = self.decode(&mut piece, &out.language, options, options.beam)?;
        let mut text = self.vocabulary.text(&decoded.ids);
        let mut reason = junk::reason(&Self::evidence(&decoded, &text, piece.seconds));
        let doubted = match reason {
            Some(Reason::Unsure | Reason::Repetition) => true,
            Some(_) => false,
            None => decoded.avg_logprob < DOUBTFUL,
        };
        if doubted && !options.partial {
            cancel.check()?;
            out.timings.second_try = true;
            let again = self.decode(&mut piece, &out.language, options, SECOND_BEAM)?;
            let again_text = self.vocabulary.text(&again.ids);
            let again_reason = junk::reason(&Self::evidence(&again, &again_text, piece.seconds));
            if again_reason.is_none()
                && (reason.is_some() || again.avg_logprob > decoded.avg_logprob)
            {
                (decoded, text, reason) = (again, again_text, again_reason);
            }
        }
        out.timings.decode += started.elapsed();
        out.avg_logprob = decoded.avg_logprob;
        out.no_speech_prob = decoded.no_speech_prob;
        let text = text.trim();
        if let Some(reason) = reason {
            out.rejected = Some(Junk {
                reason,
                text: text.to_owned(),
            });
            return Ok(out);
        }
        if text.is_empty() {
            return Ok(out);
        }
        let mut segment = Segment {
            start: offset,
            end: offset + piece.seconds,
            text: text.to_owned(),
            words: Vec::new(),
        };
        if options.word_times {
            cancel.check()?;
            let started = Instant::now();
            segment.words = self.words(&mut piece, &decoded.ids, &out.language)?;
            for word in &mut segment.words {
                word.start += offset;
                word.end += offset;
            }
            out.timings.align = started.elapsed();
        }
        out.text = text.to_owned();
        out.segments.push(segment);
        Ok(out)
    }

    fn words(
        &self,
        piece: &mut Piece,
        ids: &[usize],
        language: &str,
    ) -> Result<Vec<crate::Word>, AsrError> {
        let text: Vec<usize> = ids
            .iter()
            .copied()
            .filter(|&id| self.vocabulary.is_text(id))
            .collect();
        let token = |name: &str| {
            self.vocabulary
                .id(name)
                .ok_or_else(|| AsrError::Engine(format!("no token {name}")))
        };
        let mut start = vec![token("<|startoftranscript|>")?];
        if self.info.multilingual {
            start.push(token(&format!("<|{language}|>"))?);
            start.push(token("<|transcribe|>")?);
        }
        let frames = (piece.seconds * 100.0) as usize;
        let alignment = self
            .engine
            .align(&mut piece.states, &start, &text, frames)?;
        Ok(words::words(
            &self.vocabulary,
            &text,
            language,
            &alignment,
            piece.seconds,
        ))
    }

    /// `en` of an English model; nothing of one that has to find out.
    fn only_language(&self) -> &str {
        if self.info.multilingual { "" } else { "en" }
    }
}

/// Hypotheses kept when the first answer is doubted.
const SECOND_BEAM: usize = 5;

impl Recognizer for Whisper {
    fn info(&self) -> &RecognizerInfo {
        &self.info
    }

    fn transcribe(
        &self,
        audio_16k: &[f32],
        options: &Options,
        cancel: &Cancel,
    ) -> Result<Transcript, AsrError> {
        let mut options = options.clone();
        if let Some(language) = &options.language
            && !self.info.languages.contains(language)
        {
            return Err(AsrError::UnknownLanguage {
                model: self.info.name.clone(),
                language: language.clone(),
                known: self.info.languages.join(", "),
            });
        }
        let clean: Vec<f32>;
        let audio = if audio_16k.iter().all(|s| s.is_finite()) {
            audio_16k
        } else {
            clean = audio_16k
                .iter()
                .map(|s| if s.is_finite() { *s } else { 0.0 })
                .collect();
            &clean
        };
        let mut whole = Whole::default();
        for window in split_at_silence(audio, MAX_SECONDS) {
            let offset = window.start as f32 / SAMPLE_RATE as f32;
            let piece = self.piece(&audio[window], offset, &options, cancel)?;
            if options.language.is_none() && !piece.text.is_empty() {
                options.language = Some(piece.language.clone());
            }
            whole.add(piece);
        }
        Ok(whole.finish(self.only_language()))
    }
}

/// Transcripts of pieces on their way to being one.
#[derive(Default)]
struct Whole {
    out: Transcript,
    /// Characters of the accepted texts, by which their doubts are weighed.
    weight: f32,
}

impl Whole {
    fn add(&mut self, piece: Transcript) {
        let out = &mut self.out;
        let sum = |a: &mut Duration, b: Duration| *a += b;
        sum(&mut out.timings.mel, piece.timings.mel);
        sum(&mut out.timings.encode, piece.timings.encode);
        sum(&mut out.timings.decode, piece.timings.decode);
        sum(&mut out.timings.align, piece.timings.align);
        out.timings.second_try |= piece.timings.second_try;
        if piece.text.is_empty() {
            if self.weight == 0.0 {
                // The best account of nothing is the last that says more than "silence".
                let silent = matches!(&piece.rejected, Some(j) if j.reason == Reason::Silence);
                if out.rejected.is_none() || !silent {
                    (out.avg_logprob, out.no_speech_prob) =
                        (piece.avg_logprob, piece.no_speech_prob);
                    (out.language, out.language_probability) =
                        (piece.language, piece.language_probability);
                    out.rejected = piece.rejected;
                }
            }
            return;
        }
        let weight = piece.text.chars().count() as f32;
        let mean = |a: f32, b: f32| (a * self.weight + b * weight) / (self.weight + weight);
        if self.weight == 0.0 {
            (out.language, out.language_probability) = (piece.language, piece.language_probability);
            out.rejected = None;
        }
        out.avg_logprob = mean(out.avg_logprob, piece.avg_logprob);
        out.no_speech_prob = mean(out.no_speech_prob, piece.no_speech_prob);
        if !out.text.is_empty() {
            out.text.push(' ');
        }
        out.text.push_str(&piece.text);
        out.segments.extend(piece.segments);
        self.weight += weight;
    }

    fn finish(mut self, language: &str) -> Transcript {
        if self.out.language.is_empty() {
            language.clone_into(&mut self.out.language);
        }
        self.out
    }
}
