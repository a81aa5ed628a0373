//! A voice turns text into sound piece by piece, and whoever listens pulls the pieces.
//!
//! Pulling is what makes a voice interruptible: a worker that pauses simply stops pulling, one that stops
//! drops the [`Speech`], and one that keeps a bounded lead pulls only when the listener has caught up. So an
//! adapter has no threads, queues or clocks of its own; it computes the next piece when asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A loaded voice. Immutable and shared by every session that speaks with it.
pub trait Synthesizer: Send + Sync + 'static {
    /// What this voice is.
    fn voice(&self) -> &Voice;

    /// Opens an utterance: the state that one reply needs.
    ///
    /// # Errors
    /// [`TtsError::UnknownSpeaker`] or [`TtsError::BadSetting`] when the settings do not fit the voice.
    fn begin(&self, settings: &Settings) -> Result<Box<dyn Speech>, TtsError>;
}

/// One utterance in the making.
pub trait Speech: Send {
    /// Adds a piece of text, to be spoken as a whole after what was added before.
    ///
    /// # Errors
    /// [`TtsError::TextTooLong`]; what was added before is unharmed.
    fn say(&mut self, text: &str) -> Result<(), TtsError>;

    /// Computes the next piece of sound; blocks for as long as that takes. `None` when all text added so far
    /// has been spoken: more may be added.
    ///
    /// # Errors
    /// [`TtsError::Stopped`] soon after `stop` is set, [`TtsError::Engine`] when the model fails.
    fn next(&mut self, stop: &StopFlag) -> Result<Option<Sound>, TtsError>;
}

/// What a voice is and can do.
#[derive(Clone, Debug, PartialEq)]
pub struct Voice {
    /// The voicepack's name.
    pub name: String,
    /// `tone`, `piper`, ...
    pub family: String,
    /// BCP 47 tags.
    pub languages: Vec<String>,
    /// Tags of the voicepack, such as `cpu_ok`.
    pub tags: Vec<String>,
    /// Names of the speakers; empty for a voice with one.
    pub speakers: Vec<String>,
    /// Rate of [`Sound::samples`], Hz.
    pub sample_rate: u32,
    /// Memory its weights hold, bytes.
    pub resident_bytes: u64,
}

/// How to speak.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Name or number of a speaker; `None` is the first.
    pub speaker: Option<String>,
    /// Rate of speech, 0.5 to 2.0; `None` is 1.0.
    pub speed: Option<f32>,
    /// BCP 47; `None` is the voice's own.
    pub language: Option<String>,
}

/// A piece of sound and the words that start in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sound {
    /// Mono, -1 to 1, at the voice's rate.
    pub samples: Vec<f32>,
    /// Words, in order.
    pub words: Vec<WordMark>,
}

/// Where a word lies in the utterance.
#[derive(Clone, Debug, PartialEq)]
pub struct WordMark {
    /// The word as it stands in the text.
    pub word: String,
    /// First sample, from the utterance's start, at the voice's rate.
    pub start: u64,
    /// One past the last sample.
    pub end: u64,
    /// Number of the `say` that brought it, from 0.
    pub chunk: u32,
    /// Byte range of the word in that text.
    pub text: std::ops::Range<usize>,
}

/// Tells a running computation to give up. Cheap to clone; all clones are one flag.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Asks for the stop.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a voice could not speak.
#[derive(Debug, thiserror::Error)]
pub enum TtsError {
    /// The text is longer than the voice takes at once.
    #[error("the text has {chars} characters; this voice takes at most {limit} at once")]
    TextTooLong {
        /// Characters given.
        chars: usize,
        /// Characters allowed.
        limit: usize,
    },
    /// No speaker of that name.
    #[error("voice {voice} has no speaker {speaker:?}; it has {known}")]
    UnknownSpeaker {
        /// The voice.
        voice: String,
        /// What was asked for.
        speaker: String,
        /// What there is.
        known: String,
    },
    /// A setting out of its range.
    #[error("{0}")]
    BadSetting(String),
    /// [`StopFlag`] was set.
    #[error("stopped")]
    Stopped,
    /// The model failed.
    #[error("the voice's engine failed: {0}")]
    Engine(String),
    /// The voicepack cannot be loaded.
    #[error("{0}")]
    Load(String),
}
