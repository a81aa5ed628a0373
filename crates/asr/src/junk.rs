//! Whisper always says something: of silence it makes "Thanks for watching!", of noise a loop of one word. What
//! it says about nothing is known by its marks, and thrown away.

/// A text that was thrown away.
#[derive(Clone, Debug, PartialEq)]
pub struct Junk {
    /// Why.
    pub reason: Reason,
    /// The text as the model said it; empty when it was not even asked.
    pub text: String,
}

/// Why a text was thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The sound is too faint or too short to hold a word; the model was not asked.
    Silence,
    /// The model thinks that nobody spoke, and is not sure of its text either.
    NoSpeech,
    /// The tokens' probabilities are too low.
    Unsure,
    /// The same words over and over, or more of them than can be said in the time.
    Repetition,
    /// Nothing but what the model is known to say about silence and music.
    KnownPhrase,
}
