//! Where a clause ends.
//!
//! Fed one character at a time; a decision looks only at what has come. Where a dot may or may not end a sentence
//! the decision waits for the next word, which the voice would wait for anyway.

use super::ClauseRules;
use super::english::{self, Ends};
use super::visible::{is_fence, is_table};

/// A phrase within the first clause may run this many words over before it is cut anywhere.
const OVERRUN_WORDS: usize = 4;
/// Nothing grows beyond this many times [`ClauseRules::max_chars`], whatever it is.
const HARD_LIMIT: usize = 4;

/// Finds the ends of clauses.
#[derive(Clone, Debug)]
pub(super) struct Cutter {
    rules: ClauseRules,
    english: bool,
    buffer: String,
    chars: usize,
    /// A cut that is made if the next word begins a sentence.
    maybe: Option<usize>,
    in_fence: bool,
    mid_line: bool,
    /// Nothing has been spoken yet.
    pub(super) first: bool,
}

impl Cutter {
    pub(super) fn new(rules: ClauseRules, english: bool) -> Self {
        Self {
            rules,
            english,
            buffer: String::new(),
            chars: 0,
            maybe: None,
            in_fence: false,
            mid_line: false,
            first: true,
        }
    }

    /// Adds a character; gives the clause that ends with it or before it.
    pub(super) fn feed(&mut self, ch: char) -> Option<String> {
        self.buffer.push(ch);
        self.chars += 1;
        if ch == '\n' {
            let blank = self.buffer.trim().is_empty();
            return if blank {
                None
            } else {
                Some(self.cut(self.buffer.len()))
            };
        }
        if self.chars >= self.rules.max_chars.max(16) * HARD_LIMIT {
            return Some(self.cut(self.buffer.len()));
        }
        if self.is_unbroken() {
            return None;
        }
        if !ch.is_whitespace() {
            if let Some(at) = self.maybe.take()
                && !ch.is_lowercase()
                && !(ch.is_ascii_digit()
                    && self.buffer[..at].trim_end().to_lowercase().ends_with("no."))
            {
                return Some(self.cut(at));
            }
            return self.wide(ch).then(|| self.cut(self.buffer.len()));
        }
        self.at_space(ch)
    }

    /// What is left at the reply's end.
    pub(super) fn finish(&mut self) -> Option<String> {
        (!self.buffer.is_empty()).then(|| self.cut(self.buffer.len()))
    }

    /// The language's full-width marks need no space after them.
    fn wide(&self, ch: char) -> bool {
        match ch {
            '。' | '！' | '？' => true,
            '，' | '、' | '；' | '：' => {
                self.first && self.chars >= self.rules.first_comma_chars / 2
                    || self.chars >= self.rules.max_chars
            }
            _ => false,
        }
    }

    /// Within code, a table, a link or the start of a line that may become one of them.
    fn is_unbroken(&self) -> bool {
        let line = self.buffer.trim_start_matches(['\n', '\r']);
        if self.in_fence || (!self.mid_line && (is_fence(line) || is_table(line))) {
            return true;
        }
        false
    }

    fn at_space(&mut self, space: char) -> Option<String> {
        let before = &self.buffer[..self.buffer.len() - space.len_utf8()];
        let word_at = before.rfind(char::is_whitespace).map_or(0, |at| {
            at + before[at..].chars().next().map_or(1, char::len_utf8)
        });
        let word = &before[word_at..];
        if word.is_empty() || (within_mark(before) && self.chars < self.rules.max_chars) {
            return None;
        }
        let line_start = before[..word_at].trim().is_empty() && !self.mid_line;
        let all = self.buffer.len();
        match self.sentence_end(word, line_start) {
            Some(true) => return Some(self.cut(all)),
            Some(false) => self.maybe = Some(all),
            None => {}
        }
        let bare = word.trim_end_matches(CLOSERS);
        let number = bare
            .trim_end_matches([',', ';', ':'])
            .ends_with(|c: char| c.is_ascii_digit());
        let comma = bare.ends_with([',', ';', ':', '—', '–']) && !number;
        let long = self.chars >= self.rules.max_chars
            && (comma || self.chars >= self.rules.max_chars * 5 / 4);
        if long || !self.first {
            return long.then(|| self.cut(all));
        }
        if comma && self.chars >= self.rules.first_comma_chars {
            return Some(self.cut(all));
        }
        // Within a phrase: before the word that begins the next one, or after too many words.
        let words = before[..word_at]
            .split_whitespace()
            .filter(|w| w.contains(char::is_alphanumeric))
            .count();
        let chars = before[..word_at].trim_end().chars().count();
        let previous = before[..word_at]
            .split_whitespace()
            .next_back()
            .unwrap_or("");
        if words >= self.rules.first_words && chars >= self.rules.first_chars {
            if self.english && english::starts_phrase(word) && !english::clings(previous) {
                return Some(self.cut(word_at));
            }
            if words >= self.rules.first_words + OVERRUN_WORDS
                && !(self.english && english::clings(word))
            {
                return Some(self.cut(all));
            }
        }
        None
    }

    /// Whether `word`, before a space, ends a sentence; `Some(false)`: if a capital follows.
    fn sentence_end(&self, word: &str, line_start: bool) -> Option<bool> {
        let bare = word.trim_end_matches(CLOSERS);
        let closed = bare.len() < word.len();
        let inner =
            bare.trim_start_matches(['"', '\'', '“', '‘', '«', '(', '[', '{', '*', '_', '~']);
        if bare.ends_with(['!', '?']) {
            return Some(!closed);
        }
        if bare.ends_with("...") || bare.ends_with('…') {
            return Some(false);
        }
        if !bare.ends_with('.') {
            return None;
        }
        // "1. " at the start of a line begins an item.
        if line_start
            && inner
                .trim_end_matches('.')
                .bytes()
                .all(|b| b.is_ascii_digit())
        {
            return None;
        }
        if self.english {
            match english::abbreviation(inner) {
                Some(Ends::Never) => return None,
                Some(Ends::Maybe) => return Some(false),
                None => {}
            }
        }
        // Quotations and emphasis may go on: "Stop." he said.
        Some(!closed || word.ends_with(['*', '_', '`']))
    }

    fn cut(&mut self, at: usize) -> String {
        let rest = self.buffer.split_off(at);
        let clause = std::mem::replace(&mut self.buffer, rest);
        self.chars = self.buffer.chars().count();
        self.maybe = None;
        for line in clause.split_inclusive('\n') {
            let whole = line.ends_with('\n');
            if whole && !self.mid_line && is_fence(line) {
                self.in_fence = !self.in_fence;
            }
            self.mid_line = !whole;
        }
        clause
    }
}

const CLOSERS: [char; 12] = ['"', '\'', '”', '’', '»', ')', ']', '*', '_', '`', '}', '~'];

/// Whether `text` ends within inline code or a link, where a space is not between words.
fn within_mark(text: &str) -> bool {
    if text.matches('`').count() % 2 == 1 {
        return true;
    }
    let Some(open) = text.rfind('[') else {
        return false;
    };
    match text[open..].find("](") {
        Some(target) => !text[open + target..].contains(')'),
        None => !text[open..].contains(']'),
    }
}
