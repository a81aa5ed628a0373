//! Whisper, without the thirty seconds.
//!
//! Whisper was trained on windows of 30 s, mostly silence padded on. The customary way is to encode all of it for
//! a turn of 3 s. Encoding only the speech is ten times cheaper but makes the decoder miss the end and say
//! everything again: it never saw states that are not followed by silence. So only the speech and a short margin
//! are encoded, and states of silence, computed once when the model is loaded, are joined on
//! ([`tail`]) before decoding.

mod decoder;
mod engine;
mod greedy;
mod span;
mod tail;
mod whole;
mod words;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use duologue_audio::mel::LogMel;
use duologue_voicepack::Voicepack;

use self::decoder::{Decoder, Memory};
use self::engine::{Decoded, Engine, States};
use self::greedy::Rules;
use self::tail::Tail;
use self::whole::Whole;
use crate::junk::{self, Evidence};
use crate::vocabulary::Vocabulary;
use crate::{
    AsrError, Cancel, Junk, LoadOptions, Options, Reason, Recognizer, RecognizerInfo, SAMPLE_RATE,
    Segment, Timings, Transcript, split_at_silence,
};

/// Longest piece that is transcribed at once. The window would hold 28 s and the margin, but the longer a piece,
/// the likelier the model stops at a pause in it, and short pieces cost no more.
const MAX_SECONDS: f32 = 15.0;
/// Shortest piece that is cut in two when its text seems to have ended early, seconds.
const SPLIT_SECONDS: f32 = 5.0;
/// Letters in a second of speech, pauses not counted; with fewer the text ended early. Ordinary is 10 to 15.
const LETTERS_PER_SECOND: f32 = 6.5;
/// The same for languages that write a syllable or a word with one.
const SIGNS_PER_SECOND: f32 = 2.0;
/// Tokens of a prompt that are used, the last ones.
const MAX_PROMPT: usize = 100;
/// The least room for text, in tokens, and how much more for every second.
const TOKENS: usize = 24;
const TOKENS_PER_SECOND: f32 = 20.0;
/// A first answer less likely than this is doubted.
const DOUBTFUL: f32 = -0.8;
/// One less likely than this is not made good by trying again.
const HOPELESS: f32 = -1.4;
/// Nor is one with a no-speech probability above this.
const PROBABLY_NOISE: f32 = 0.5;

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
    let own = if engine.compute == "int8" {
        let decoder = Decoder::read(&model_file, engine.threads).map_err(&failed)?;
        Some((decoder, Rules::read(dir, &vocabulary).map_err(&failed)?))
    } else {
        None
    };
    let mel = LogMel::new(engine.mel_bins);
    let tail = Tail::compute(&engine, &mel)?;
    let writer = own.map(|(decoder, rules)| Writer {
        silence: decoder.project(tail.states()),
        decoder,
        rules,
    });

    // English-only models have the multilingual ones' language tokens but were never taught them.
    let multilingual = vocabulary.is_multilingual();
    let info = RecognizerInfo {
        name: name.to_owned(),
        family: "whisper".to_owned(),
        multilingual,
        languages: if multilingual {
            vocabulary.languages()
        } else {
            vec!["en".to_owned()]
        },
        compute: engine.compute.to_owned(),
        replicas: options.replicas.max(1),
        resident_bytes: engine.bytes(size)
            + writer.as_ref().map_or(0, |w| w.decoder.bytes() as u64),
    };
    tracing::info!(
        model = name,
        compute = info.compute,
        replicas = info.replicas,
        "speech model loaded"
    );
    Ok(Arc::new(Whisper {
        info,
        vocabulary,
        engine,
        mel,
        tail,
        writer,
    }))
}

struct Whisper {
    info: RecognizerInfo,
    vocabulary: Vocabulary,
    engine: Engine,
    mel: LogMel,
    tail: Tail,
    /// The decoder of this crate, on a CPU; elsewhere the engine's is used.
    writer: Option<Writer>,
}

/// A decoder and what it knows beforehand.
struct Writer {
    decoder: Decoder,
    rules: Rules,
    /// The tail, projected.
    silence: Memory,
}

/// A piece of audio on its way through the model.
struct Piece {
    /// Of the speech and the margin.
    states: States,
    /// The same with the tail joined on; made when the engine needs it.
    joined: Option<States>,
    /// Seconds of sound in it, margin not counted.
    seconds: f32,
}

impl Piece {
    fn joined(&mut self, tail: &Tail, avoid: usize) -> &mut States {
        self.joined
            .get_or_insert_with(|| tail.join(self.states.clone(), avoid))
    }
}

impl Whisper {
    /// Sound to states, a margin of silence included.
    fn encode(&self, audio: &[f32], timings: &mut Timings) -> Result<Piece, AsrError> {
        let started = Instant::now();
        let frames = tail::frames_for(audio.len());
        let mut padded = tail::at_standard_level(&self.mel, audio);
        padded.resize(frames * tail::HOP, 0.0);
        let mel = self.mel.compute(&padded);
        timings.mel += started.elapsed();

        let started = Instant::now();
        let states = self.engine.encode(mel)?;
        timings.encode += started.elapsed();
        Ok(Piece {
            states,
            joined: None,
            seconds: audio.len() as f32 / SAMPLE_RATE as f32,
        })
    }

    /// The text, with the language in which it is.
    fn decode(
        &self,
        piece: &mut Piece,
        options: &Options,
        beam: usize,
        cancel: &Cancel,
    ) -> Result<(Decoded, String, f32), AsrError> {
        let before = self.prompt(options);
        let room = TOKENS + (piece.seconds * TOKENS_PER_SECOND) as usize;
        if let Some(writer) = &self.writer
            && beam <= 1
        {
            return self.write(
                writer,
                piece,
                &before,
                options.language.as_deref(),
                room,
                cancel,
            );
        }
        let states = piece.joined(&self.tail, self.engine.mel_bins);
        let (language, share) = match (&options.language, self.info.multilingual) {
            (Some(language), _) => (language.clone(), 1.0),
            (None, false) => ("en".to_owned(), 1.0),
            (None, true) => self.engine.detect_language(states)?,
        };
        cancel.check()?;
        let command = self.command(&language);
        let prompt: Vec<&str> = before.iter().chain(&command).map(String::as_str).collect();
        Ok((
            self.engine.generate(states, &prompt, beam, room)?,
            language,
            share,
        ))
    }

    fn write(
        &self,
        writer: &Writer,
        piece: &Piece,
        before: &[String],
        language: Option<&str>,
        room: usize,
        cancel: &Cancel,
    ) -> Result<(Decoded, String, f32), AsrError> {
        let Writer {
            decoder,
            rules,
            silence,
        } = writer;
        let mut memory = decoder.project(&piece.states);
        memory.extend(
            silence,
            self.tail.room_after(piece.states.len()),
            decoder.width(),
        );
        cancel.check()?;
        let ids = |tokens: &[String]| {
            tokens
                .iter()
                .filter_map(|t| self.vocabulary.id(t))
                .collect::<Vec<_>>()
        };
        let mut writing = decoder.begin(&memory);
        let mut prompt = ids(before);
        let begin = prompt.len();
        prompt.push(
            self.vocabulary
                .id("<|startoftranscript|>")
                .unwrap_or_default(),
        );
        let known = match (language, self.info.multilingual) {
            (Some(language), _) => Some(language),
            (None, false) => Some("en"),
            (None, true) => None,
        };
        let (after_begin, last, language, share) = if let Some(language) = known {
            prompt.extend(ids(&self.command(language)[1..]));
            let mut logits = writing.add(&prompt, &[begin, prompt.len() - 1]);
            let last = logits.pop().unwrap_or_default();
            (
                logits.pop().unwrap_or_default(),
                last,
                language.to_owned(),
                1.0,
            )
        } else {
            let after_begin = writing.add(&prompt, &[begin]).pop().unwrap_or_default();
            let (language, share) = rules
                .language(&after_begin)
                .unwrap_or_else(|| ("en".to_owned(), 0.0));
            let command = ids(&self.command(&language)[1..]);
            let last = writing
                .add(&command, &[command.len() - 1])
                .pop()
                .unwrap_or_default();
            (after_begin, last, language, share)
        };
        let decoded = greedy::write(&mut writing, rules, last, room, cancel)?;
        let no_speech_prob = rules.no_speech_prob(&after_begin);
        Ok((
            Decoded {
                no_speech_prob,
                ..decoded
            },
            language,
            share,
        ))
    }

    /// The tokens that order a transcript.
    fn command(&self, language: &str) -> Vec<String> {
        let mut tokens = vec!["<|startoftranscript|>".to_owned()];
        if self.info.multilingual {
            tokens.extend([format!("<|{language}|>"), "<|transcribe|>".to_owned()]);
        }
        tokens.push("<|notimestamps|>".to_owned());
        tokens
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
            language_probability: 1.0,
            ..Transcript::default()
        };
        options
            .language
            .as_deref()
            .unwrap_or_else(|| self.only_language())
            .clone_into(&mut out.language);
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
        let (mut decoded, language, share) =
            self.decode(&mut piece, options, options.beam, cancel)?;
        (out.language, out.language_probability) = (language.clone(), share);
        let mut text = self.vocabulary.text(&decoded.ids);
        let mut reason = junk::reason(&Self::evidence(&decoded, &text, piece.seconds));
        // Another try for what may be speech; noise is not worth it.
        let doubted = match reason {
            Some(Reason::Unsure) => decoded.avg_logprob > HOPELESS,
            Some(Reason::Repetition) => true,
            Some(_) => false,
            None => decoded.avg_logprob < DOUBTFUL,
        } && decoded.no_speech_prob < PROBABLY_NOISE;
        if doubted && !options.partial {
            cancel.check()?;
            out.timings.second_try = true;
            let options = Options {
                language: Some(language),
                ..options.clone()
            };
            let (again, ..) = self.decode(&mut piece, &options, SECOND_BEAM, cancel)?;
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
            span::take_pauses_off(&mut segment.words, &audio[audible]);
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

    /// [`Self::piece`], in halves where the text seems to have ended before the speech did.
    fn stretch(
        &self,
        audio: &[f32],
        offset: f32,
        options: &Options,
        cancel: &Cancel,
    ) -> Result<Transcript, AsrError> {
        let whole = self.piece(audio, offset, options, cancel)?;
        let seconds = audio.len() as f32 / SAMPLE_RATE as f32;
        if options.partial || whole.text.is_empty() || seconds < SPLIT_SECONDS {
            return Ok(whole);
        }
        let per_second = if words::WITHOUT_BLANKS.contains(&whole.language.as_str()) {
            SIGNS_PER_SECOND
        } else {
            LETTERS_PER_SECOND
        };
        let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).count() as f32;
        if letters(&whole.text) >= per_second * span::heard_seconds(audio) {
            return Ok(whole);
        }
        let options = Options {
            language: Some(whole.language.clone()),
            ..options.clone()
        };
        let mut halves = Whole::default();
        // The cut then lies in the middle third.
        for half in split_at_silence(audio, seconds * 0.67) {
            let offset = offset + half.start as f32 / SAMPLE_RATE as f32;
            halves.add(self.stretch(&audio[half], offset, &options, cancel)?);
        }
        let halves = halves.finish(&whole.language);
        let better = letters(&halves.text) > letters(&whole.text) * 1.2;
        let timings = whole.timings.and(halves.timings);
        let mut best = if better { halves } else { whole };
        best.timings = Timings {
            second_try: true,
            ..timings
        };
        Ok(best)
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
        let states = piece.joined(&self.tail, self.engine.mel_bins);
        let alignment = self.engine.align(states, &start, &text, frames)?;
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
            let piece = self.stretch(&audio[window], offset, &options, cancel)?;
            if options.language.is_none() && !piece.text.is_empty() {
                options.language = Some(piece.language.clone());
            }
            whole.add(piece);
        }
        Ok(whole.finish(self.only_language()))
    }
}
