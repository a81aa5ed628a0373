//! The texts of an utterance that its voice has yet to read.

use std::collections::VecDeque;

use crate::{TtsError, Voice};

/// Texts in the order of their coming, each with its number.
#[derive(Default)]
pub(crate) struct Texts {
    unread: VecDeque<(u32, String)>,
    taken: u32,
}

impl Texts {
    /// Takes a text, if it is not too long for the voice.
    pub(crate) fn say(&mut self, voice: &Voice, text: &str) -> Result<(), TtsError> {
        voice.check_length(text)?;
        self.unread.push_back((self.taken, text.to_owned()));
        self.taken += 1;
        Ok(())
    }

    /// The next text to be read.
    pub(crate) fn read(&mut self) -> Option<(u32, String)> {
        self.unread.pop_front()
    }
}
