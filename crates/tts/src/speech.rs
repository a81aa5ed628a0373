//! The contract between a voice and whoever listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Conversation, Settings, Voice};

/// A loaded voice. Immutable and shared by every session that speaks with it.
pub trait Synthesizer: Send + Sync + 'static {
    /// What this voice is.
    fn voice(&self) -> &Voice;

    /// Opens an utterance: the state that one reply needs.
    ///
    /// # Errors
    /// [`TtsError::UnknownSpeaker`] or [`TtsError::BadSetting`] when the settings do not fit the voice.
    fn begin(&self, settings: &Settings) -> Result<Box<dyn Speech>, TtsError>;

    /// As [`Synthesizer::begin`], for the next reply of a session: a voice that goes on from what it said before finds
    /// that in `conversation`, and leaves there what this reply says. One reply of a session at a time.
    ///
    /// # Errors
    /// As [`Synthesizer::begin`].
    fn begin_in(
        &self,
        settings: &Settings,
        conversation: &Conversation,
    ) -> Result<Box<dyn Speech>, TtsError> {
        let _ = conversation;
        self.begin(settings)
    }
}

/// One utterance in the making.
pub trait Speech: Send {
    /// Adds a piece of text, to be spoken as a whole after what was added before. Does next to no work.
    ///
    /// # Errors
    /// [`TtsError::TextTooLong`]; what was added before is unharmed, and the piece does not count as a chunk.
    fn say(&mut self, text: &str) -> Result<(), TtsError>;

    /// Computes the next piece of sound; blocks for as long as that takes. `None` when all text added so far
    /// has been spoken: more may be added.
    ///
    /// # Errors
    /// [`TtsError::Stopped`] soon after `stop` is set, [`TtsError::Engine`] when the model fails.
    fn next(&mut self, stop: &StopFlag) -> Result<Option<Sound>, TtsError>;
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
    /// The word as it stands in the text, without the punctuation around it.
    pub word: String,
    /// First sample, from the utterance's start. At the voice's rate from a [`Speech`], at 48 kHz from a
    /// [`FrameStream`](crate::FrameStream).
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

    /// For use between the steps of a computation.
    ///
    /// # Errors
    /// [`TtsError::Stopped`] when the stop was asked for.
    pub fn check(&self) -> Result<(), TtsError> {
        if self.is_set() {
            Err(TtsError::Stopped)
        } else {
            Ok(())
        }
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
