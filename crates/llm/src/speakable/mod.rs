//! What a model writes is not what a voice should say: this turns the one into the other while it streams.
//!
//! The text is cut into clauses, the first as early as can be so that the voice begins, later ones at sentence
//! ends so that it sounds well. Each clause is then a closed piece of text in which markdown, links, emoji,
//! numbers and abbreviations are made speakable with both neighbours in sight. Decisions are taken character by
//! character and look only back, so how the text was split into deltas cannot change the result.

use std::ops::Range;

/// When a clause ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClauseRules {
    /// The first clause may end at a comma once it has this many characters.
    pub first_comma_chars: usize,
    /// The first clause may end within a phrase once it has this many words and `first_chars` characters.
    pub first_words: usize,
    /// See `first_words`.
    pub first_chars: usize,
    /// A later clause longer than this ends at the next comma or space, characters.
    pub max_chars: usize,
}

impl Default for ClauseRules {
    fn default() -> Self {
        Self { first_comma_chars: 10, first_words: 8, first_chars: 32, max_chars: 220 }
    }
}

/// A piece of the reply, ready for the voice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    /// As the model wrote it. All displays one after the other are the model's text, to the byte.
    pub display: String,
    /// What the voice is to say; empty where there is nothing to say (code, a lone emoji).
    pub spoken: String,
    /// Which spoken words stand for which part of `display`, in order and without overlap.
    pub words: Vec<ClauseWord>,
}

/// A word of the display and what is said for it, which may be several words ("$5": "five dollars").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClauseWord {
    /// Byte range in [`Clause::spoken`].
    pub spoken: Range<usize>,
    /// Byte range in [`Clause::display`].
    pub display: Range<usize>,
}

impl Clause {
    /// How many bytes of `display` have been heard when `spoken` has been heard up to byte `heard`: up to the
    /// end of the last word that was heard whole, all of it when nothing remains to be said.
    pub fn display_heard(&self, heard: usize) -> usize {
        match self.words.iter().rposition(|word| word.spoken.end <= heard) {
            Some(last) if last + 1 == self.words.len() => self.display.len(),
            Some(last) => self.words[last].display.end,
            None if self.words.is_empty() => self.display.len(),
            None => 0,
        }
    }
}

/// Makes a streaming reply speakable. One for each reply.
#[derive(Clone, Debug)]
pub struct Speakable {
    rules: ClauseRules,
    language: String,
    buffer: String,
}

impl Speakable {
    /// For a reply in `language` (BCP 47; only English has its numbers and abbreviations spelt out).
    pub fn new(language: &str, rules: ClauseRules) -> Self {
        Self { rules, language: language.to_owned(), buffer: String::new() }
    }

    /// Adds a delta; gives the clauses that it completes.
    pub fn push(&mut self, delta: &str) -> Vec<Clause> {
        self.buffer.push_str(delta);
        Vec::new()
    }

    /// The reply has ended; gives what is left.
    pub fn finish(&mut self) -> Vec<Clause> {
        let _ = (&self.rules, &self.language);
        let display = std::mem::take(&mut self.buffer);
        if display.is_empty() { Vec::new() } else { vec![Clause { spoken: display.clone(), display, words: Vec::new() }] }
    }
}
