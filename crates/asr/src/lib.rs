//! Speech becomes text: one [`Recognizer`], shared by every session.
//!
//! A recognizer is asked about a whole stretch of speech at a time, again and again as the stretch grows: a
//! partial transcript is the same question about the audio so far. So there is no stream to keep in step, and
//! whoever asks decides when (at the first silence, every second while speaking) and may throw the answer away.
//!
//! Calls block for as long as the model takes. Run them on a bounded pool of threads, never on the reactor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[doc(hidden)]
pub mod fuzzing;
// Without an engine there is nothing to judge.
#[cfg_attr(not(feature = "whisper"), allow(dead_code))]
mod junk;
mod remote;
mod split;
#[cfg_attr(not(feature = "whisper"), allow(dead_code))]
mod vocabulary;
pub mod wer;
#[cfg(feature = "whisper")]
mod whisper;

pub use junk::{Junk, Reason};
pub use remote::{Remote, RemoteConfig};
pub use split::split_at_silence;
#[cfg(feature = "whisper")]
pub use whisper::{load, load_dir};

/// Rate of the audio that a [`Recognizer`] takes, Hz.
pub const SAMPLE_RATE: u32 = 16_000;

/// A loaded speech model. Immutable and shared by all sessions.
pub trait Recognizer: Send + Sync {
    /// What this model is.
    fn info(&self) -> &RecognizerInfo;

    /// Turns speech into text. Blocks.
    ///
    /// `audio_16k` is mono at [`SAMPLE_RATE`], -1 to 1, of any length; samples that are not finite count as
    /// silence. Audio with nothing in it gives an empty transcript, not an error.
    ///
    /// # Errors
    /// [`AsrError::UnknownLanguage`] for a language the model does not know, [`AsrError::Cancelled`] once
    /// `cancel` is set, [`AsrError::Engine`] when the model fails.
    fn transcribe(
        &self,
        audio_16k: &[f32],
        options: &Options,
        cancel: &Cancel,
    ) -> Result<Transcript, AsrError>;
}

/// What a model is and can do.
#[derive(Clone, Debug, PartialEq)]
pub struct RecognizerInfo {
    /// The voicepack's name.
    pub name: String,
    /// `whisper`.
    pub family: String,
    /// Whether it knows more than English.
    pub multilingual: bool,
    /// Languages it knows, as ISO 639 codes such as `en`.
    pub languages: Vec<String>,
    /// What it computes in, such as `int8`.
    pub compute: String,
    /// How many transcriptions it runs at once; more wait their turn.
    pub replicas: usize,
    /// Memory its weights hold, bytes.
    pub resident_bytes: u64,
}

/// How to transcribe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// ISO 639 code such as `en`; `None` lets a multilingual model find out.
    pub language: Option<String>,
    /// The speaker has not finished: take the quickest way, and never a second try.
    pub partial: bool,
    /// Text that came before, or names to expect. It steers spelling; it is not repeated in the result.
    pub prompt: Option<String>,
    /// Fill in [`Segment::words`]. Costs a second run of the decoder.
    pub word_times: bool,
    /// Hypotheses kept while decoding, 1 (the default, for 0 too) to 10. More is slower and seldom better.
    pub beam: usize,
}

/// How to load a model.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// Threads of one transcription; 0 takes the machine's cores, at most 4.
    pub threads: usize,
    /// Transcriptions at once, 1 or more. Each has its own threads and its own copy of the weights.
    pub replicas: usize,
    /// What to compute in.
    pub compute: Compute,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            threads: 0,
            replicas: 1,
            compute: Compute::Auto,
        }
    }
}

/// What a model computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compute {
    /// `Int8` on a CPU, `Float16` on a GPU.
    #[default]
    Auto,
    /// 8-bit weights.
    Int8,
    /// 16-bit floats; GPUs only.
    Float16,
    /// 32-bit floats.
    Float32,
}

/// What was said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    /// The text, trimmed. Empty when there was none or it was [`rejected`](Self::rejected).
    pub text: String,
    /// ISO 639 code of the language given or detected.
    pub language: String,
    /// How sure the detection was, 0 to 1; 1 when the language was given.
    pub language_probability: f32,
    /// Stretches of text with their times, in order.
    pub segments: Vec<Segment>,
    /// Mean natural logarithm of the tokens' probabilities; nearer 0 is surer. 0 when nothing was decoded.
    pub avg_logprob: f32,
    /// The model's own estimate that nobody spoke, 0 to 1.
    pub no_speech_prob: f32,
    /// Why a text was thrown away, and which.
    pub rejected: Option<Junk>,
    /// Where the time went.
    pub timings: Timings,
}

/// A stretch of a transcript.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Segment {
    /// Seconds from the start of the audio.
    pub start: f32,
    /// Seconds from the start of the audio.
    pub end: f32,
    /// The text, trimmed.
    pub text: String,
    /// Its words; empty unless [`Options::word_times`].
    pub words: Vec<Word>,
}

/// A word and when it was said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Word {
    /// The word with the punctuation that clings to it.
    pub text: String,
    /// Seconds from the start of the audio.
    pub start: f32,
    /// Seconds from the start of the audio.
    pub end: f32,
    /// How sure the model was, 0 to 1.
    pub probability: f32,
}

/// Where the time of a transcription went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Sound to log-mel.
    pub mel: Duration,
    /// The encoder.
    pub encode: Duration,
    /// The decoder, language detection included.
    pub decode: Duration,
    /// Aligning words.
    pub align: Duration,
    /// Whether the first answer was doubted and a second try made.
    pub second_try: bool,
}

impl Timings {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.mel + self.encode + self.decode + self.align
    }

    /// The sums of both.
    #[must_use]
    pub fn and(&self, other: Self) -> Self {
        Self {
            mel: self.mel + other.mel,
            encode: self.encode + other.encode,
            decode: self.decode + other.decode,
            align: self.align + other.align,
            second_try: self.second_try || other.second_try,
        }
    }
}

/// Tells a running transcription to give up. Cheap to clone; all clones are one flag.
///
/// It is looked at between the model's steps (mel, encode, decode, align, next window): the engine cannot be
/// interrupted inside one, which for a turn of speech is a fraction of a second.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks for the end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked for.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    /// [`AsrError::Cancelled`] once cancelled.
    pub fn check(&self) -> Result<(), AsrError> {
        if self.is_cancelled() {
            Err(AsrError::Cancelled)
        } else {
            Ok(())
        }
    }
}

/// Why there is no transcript.
#[derive(Debug, thiserror::Error)]
pub enum AsrError {
    /// The model's folder is not one.
    #[error("the speech model {name} cannot be loaded from {dir}: {reason}")]
    Load {
        /// The voicepack's name.
        name: String,
        /// Its folder.
        dir: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The model does not know the language.
    #[error("the speech model {model} does not know the language {language:?}; it knows {known}")]
    UnknownLanguage {
        /// The model.
        model: String,
        /// What was asked for.
        language: String,
        /// What there is.
        known: String,
    },
    /// [`Cancel`] was set.
    #[error("cancelled")]
    Cancelled,
    /// The model failed.
    #[error("the speech model failed: {0}")]
    Engine(String),
}
