//! What a model writes is not what a voice should say: this turns the one into the other while it streams.
//!
//! The text is cut into clauses, the first as early as can be so that the voice begins, later ones at sentence
//! ends so that it sounds well. Each clause is then a closed piece of text in which markdown, links, emoji,
//! numbers and abbreviations are made speakable with both neighbours in sight. Decisions are taken character by
//! character and look only back, so how the text was split into deltas cannot change the result.

mod cut;
mod english;
mod numbers;
mod quantities;
mod visible;

use std::ops::Range;

use self::cut::Cutter;
use self::visible::{Cell, Place, visible};

/// When a clause ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClauseRules {
    /// The first clause may end at a comma once it has this many characters.
    pub first_comma_chars: usize,
    /// The first clause may end within a phrase once it has this many words and `first_chars` characters.
    pub first_words: usize,
    /// See `first_words`.
    pub first_chars: usize,
    /// A later clause longer than this ends at the next comma, and soon after at any space; characters. Four times
    /// this, nothing is longer.
    pub max_chars: usize,
}

impl Default for ClauseRules {
    fn default() -> Self {
        Self {
            first_comma_chars: 10,
            first_words: 5,
            first_chars: 20,
            max_chars: 220,
        }
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
    /// Byte range in [`Clause::spoken`], without punctuation around the words.
    pub spoken: Range<usize>,
    /// Byte range in [`Clause::display`], with the punctuation around the word.
    pub display: Range<usize>,
}

impl Clause {
    /// How many bytes of `display` have been heard when `spoken` has been heard up to byte `heard`: up to the
    /// end of the last word that was heard whole; all of it when no word remains.
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
///
/// ```
/// use duologue_llm::speakable::{ClauseRules, Speakable};
///
/// let mut speakable = Speakable::new("en-US", ClauseRules::default());
/// let mut clauses = speakable.push("It costs **$5**. That is ");
/// clauses.extend(speakable.push("50% less!"));
/// clauses.extend(speakable.finish());
/// let spoken: Vec<&str> = clauses.iter().map(|clause| clause.spoken.as_str()).collect();
/// assert_eq!(spoken, ["It costs five dollars.", "That is fifty percent less!"]);
/// ```
#[derive(Clone, Debug)]
pub struct Speakable {
    cutter: Cutter,
    english: bool,
    place: Place,
}

impl Speakable {
    /// For a reply in `language` (BCP 47; empty counts as English). Markup, links and emoji are handled in every
    /// language; numbers, units and abbreviations are spelt out in English, and left to the phonemizer in others.
    pub fn new(language: &str, rules: ClauseRules) -> Self {
        let primary = language.split(['-', '_']).next().unwrap_or_default();
        let english = primary.is_empty() || primary.eq_ignore_ascii_case("en");
        Self {
            cutter: Cutter::new(rules, english),
            english,
            place: Place {
                in_fence: false,
                mid_line: false,
            },
        }
    }

    /// Adds a delta; gives the clauses that it completes.
    pub fn push(&mut self, delta: &str) -> Vec<Clause> {
        let mut clauses = Vec::new();
        for ch in delta.chars() {
            if let Some(display) = self.cutter.feed(ch) {
                clauses.push(self.speak(display));
            }
        }
        clauses
    }

    /// The reply has ended; gives what is left.
    pub fn finish(&mut self) -> Vec<Clause> {
        let rest = self.cutter.finish();
        rest.map(|display| self.speak(display))
            .into_iter()
            .collect()
    }

    fn speak(&mut self, display: String) -> Clause {
        let (cells, place) = visible(&display, self.place);
        self.place = place;
        let (spoken, words) = say(&cells, self.english);
        if !words.is_empty() {
            self.cutter.first = false;
        }
        Clause {
            display,
            spoken,
            words,
        }
    }
}

/// A word of the visible text.
struct Word {
    text: String,
    display: Range<usize>,
    /// A space stands before it.
    apart: bool,
}

/// Scripts without spaces between words: every character counts as a word.
fn is_dense(ch: char) -> bool {
    matches!(u32::from(ch), 0x0e00..=0x0eff | 0x3040..=0x30ff | 0x3400..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x3ffff)
}

fn split(cells: &[Cell]) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut apart = true;
    let mut open = false;
    for cell in cells {
        if cell.ch.is_whitespace() {
            (apart, open) = (true, false);
            continue;
        }
        let dense = is_dense(cell.ch);
        match words.last_mut().filter(|_| open && !dense) {
            Some(word) => {
                word.text.push(cell.ch);
                word.display.start = word.display.start.min(cell.at.start);
                word.display.end = word.display.end.max(cell.at.end);
            }
            None => {
                words.push(Word {
                    text: cell.ch.to_string(),
                    display: cell.at.clone(),
                    apart,
                });
                open = true;
            }
        }
        apart = false;
        if dense {
            // Punctuation stays with the character; another word does not.
            open = true;
        }
    }
    words
}

/// The spoken text of a clause, and its words.
fn say(cells: &[Cell], english: bool) -> (String, Vec<ClauseWord>) {
    let words = split(cells);
    let mut spoken = String::new();
    let mut map: Vec<ClauseWord> = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let text = if english {
            let neighbour = |at: Option<usize>| {
                at.and_then(|at| words.get(at))
                    .map(|word| word.text.as_str())
            };
            english::say(
                &word.text,
                neighbour(index.checked_sub(1)),
                neighbour(Some(index + 1)),
            )
        } else {
            word.text.clone()
        };
        let (Some(first), Some(last)) = (
            text.find(char::is_alphanumeric),
            text.rfind(char::is_alphanumeric),
        ) else {
            // Only punctuation: part of the word before, as long as there is one.
            if let Some(before) = map.last_mut() {
                before.display.end = before.display.end.max(word.display.end);
                let mark = text
                    .chars()
                    .next()
                    .filter(|c| matches!(c, '.' | ',' | '!' | '?' | ';' | ':'));
                if let Some(mark) = mark.filter(|_| spoken.ends_with(char::is_alphanumeric)) {
                    spoken.push(mark);
                }
            }
            continue;
        };
        if word.apart && !spoken.is_empty() {
            spoken.push(' ');
        }
        let start = spoken.len();
        spoken.push_str(&text);
        let end = start + last + text[last..].chars().next().map_or(0, char::len_utf8);
        map.push(ClauseWord {
            spoken: start + first..end,
            display: word.display.clone(),
        });
    }
    (spoken, map)
}

#[cfg(test)]
mod tests;
