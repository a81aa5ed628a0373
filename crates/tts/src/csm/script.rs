//! Cuts a text into the sentences that are spoken one by one, and guesses where in the sound its words will lie.
//!
//! The model tells no times of words, so they are estimated: a sentence is thought to take as long as its letters
//! do at the pace that the voice had so far, and each word has the part of it that its letters are. A word is
//! marked when the sound comes to where it is thought to begin. Where a sentence ends sooner than was thought, the
//! words that are left share its last frame, and where there is too little of that, silence is added for them.

use std::collections::VecDeque;
use std::ops::Range;

use crate::words;

/// Longest sentence in characters: what is longer is cut where a cut is heard least.
const LONGEST: usize = 200;
/// What a word takes at least where words have to share what is left, seconds.
const SHORTEST: f64 = 0.02;

/// A piece of text that is spoken as one turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sentence {
    /// Number of the `say` that brought it.
    pub chunk: u32,
    /// What is given to the model.
    pub text: String,
    /// Its length, in letters.
    pub letters: f64,
    /// The words that begin in it; none in a piece of a word that was cut.
    pub words: Vec<Word>,
}

/// A word and how long it is thought to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word {
    pub word: String,
    /// Byte range in the text of the `say`.
    pub range: Range<usize>,
    /// In letters, with what stands around it.
    pub letters: f64,
}

/// The sentences of a text; none where there is no word.
pub(super) fn sentences(chunk: u32, text: &str) -> Vec<Sentence> {
    let all: Vec<words::Word<'_>> = words::runs(text).collect();
    let mut all = all.iter().peekable();
    let pieces = cut(text);
    let last = pieces.len();
    let made = pieces.into_iter().zip(1..).filter_map(|(range, n)| {
        let spoken = text[range.clone()].trim();
        let length = spoken.chars().count() as f64;
        let mut words = Vec::new();
        // A word that is cut belongs to the piece that it begins in.
        while let Some(word) = all.next_if(|w| w.range.start < range.end || n == last) {
            words.push(Word {
                word: word.word.to_owned(),
                range: word.range.clone(),
                letters: letters(word.run).min(1.0 + 4.0 * length),
            });
        }
        let speakable = spoken.chars().any(char::is_alphanumeric);
        (speakable || !words.is_empty()).then(|| Sentence {
            chunk,
            text: plain(spoken),
            letters: if words.is_empty() {
                letters(spoken)
            } else {
                words.iter().map(|w| w.letters).sum()
            },
            words,
        })
    });
    made.collect()
}

/// What a model can make something of: control characters are none of it.
fn plain(text: &str) -> String {
    let gap = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(gap).collect()
}

/// Letters that a run of characters takes the time of. Digits and capitals are spoken as words of their own.
fn letters(run: &str) -> f64 {
    let capitals = run.chars().filter(|c| c.is_uppercase()).count();
    let spelt = capitals > 1 && capitals == run.chars().filter(|c| c.is_alphabetic()).count();
    let one = |c: char| match c {
        c if c.is_numeric() => 4.0,
        c if c.is_uppercase() && spelt => 3.0,
        c if c.is_alphanumeric() => 1.0,
        ',' | ';' | ':' | '.' | '!' | '?' | '—' | '…' => 2.0,
        _ => 0.5,
    };
    1.0 + run.chars().map(one).sum::<f64>()
}

/// Byte ranges of the sentences.
fn cut(text: &str) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut count = 0;
    // Where a long sentence is best cut: after a comma or the like, else after a word.
    let (mut after_comma, mut after_word) = (None, None);
    let mut previous = ' ';
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let end = at + c.len_utf8();
        count += 1;
        let gap_follows = characters
            .peek()
            .is_none_or(|(_, next)| next.is_whitespace());
        let ends = (matches!(c, '.' | '!' | '?' | '…' | '"' | '”' | ')') && gap_follows)
            && (matches!(c, '.' | '!' | '?' | '…') || matches!(previous, '.' | '!' | '?' | '…'));
        let full = count >= LONGEST;
        let until = if c == '\n' || matches!(c, '。' | '！' | '？') || (ends && count > 1) {
            Some(end)
        } else if full {
            after_comma.or(after_word).or(Some(end))
        } else {
            None
        };
        if matches!(c, ',' | ';' | ':') && gap_follows {
            after_comma = Some(end);
        }
        if c.is_whitespace() {
            after_word = Some(end);
        }
        previous = c;
        if let Some(until) = until {
            pieces.push(start..until);
            start = until;
            count = text[until..end].chars().count();
            (after_comma, after_word) = (None, None);
        }
    }
    if start < text.len() {
        pieces.push(start..text.len());
    }
    pieces
}

/// Places the words of one sentence in its sound, as the sound comes. Samples are from the sentence's start.
pub(super) struct Marker {
    /// Words not yet placed, with where each is thought to begin and end.
    words: VecDeque<(Word, Range<f64>)>,
    rate: f64,
    /// Where the last word that was placed ends.
    placed: usize,
    /// How long the sentence is thought to be.
    pub expected: usize,
}

impl Marker {
    /// For a sentence at `pace` letters a second, sound at `rate`, in frames of `frame` samples.
    pub(super) fn new(sentence: &Sentence, pace: f64, rate: u32, frame: usize) -> Self {
        let rate = f64::from(rate);
        let mut at = 0.0;
        let mut planned: VecDeque<_> = sentence
            .words
            .iter()
            .map(|word| {
                let start = at;
                at += word.letters / pace * rate;
                (word.clone(), start..at)
            })
            .collect();
        let expected = sentence.letters / pace * rate;
        let expected = (expected as usize).max(1).next_multiple_of(frame);
        // Sound ends with a frame.
        if let Some((_, last)) = planned.back_mut() {
            last.end = expected as f64;
        }
        Marker {
            words: planned,
            rate,
            placed: 0,
            expected,
        }
    }

    /// Whether all words are placed.
    pub(super) fn is_done(&self) -> bool {
        self.words.is_empty()
    }

    /// Words that begin before `sample`, with where they lie.
    pub(super) fn until(&mut self, sample: usize) -> Vec<(Word, Range<usize>)> {
        let mut found = Vec::new();
        while let Some((word, place)) = self
            .words
            .pop_front_if(|(_, place)| (place.start as usize) < sample)
        {
            let start = (place.start as usize).max(self.placed);
            let end = (place.end as usize).max(start + 1);
            self.placed = end;
            found.push((word, start..end));
        }
        found
    }

    /// The sentence ends at `total`, and its last piece begins at `from`: the words that are left, and how many
    /// samples of silence are to follow so that all words lie within.
    pub(super) fn rest(&mut self, from: usize, total: usize) -> (Vec<(Word, Range<usize>)>, usize) {
        let mut left = self.until(total);
        let begun = left.len();
        let words: Vec<Word> = self.words.drain(..).map(|(word, _)| word).collect();
        if !words.is_empty() {
            // Those that were to go on share with those that have not begun.
            let first = left.first().map_or(self.placed, |(_, place)| place.start);
            let mut all: Vec<Word> = left.drain(..).map(|(word, _)| word).collect();
            all.extend(words);
            let start = if begun > 0 {
                first
            } else {
                self.placed.max(from)
            };
            let least = (SHORTEST * self.rate) as usize * all.len();
            let end = total.max(start + least);
            let letters: f64 = all.iter().map(|w| w.letters).sum();
            let mut at = start as f64;
            for word in all {
                let from = at;
                at += word.letters / letters * (end - start) as f64;
                let place =
                    from.round() as usize..(at.round() as usize).max(from.round() as usize + 1);
                self.placed = place.end;
                left.push((word, place));
            }
        }
        (left, self.placed.saturating_sub(total))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const RATE: u32 = 24_000;
    const FRAME: usize = 1_920;

    fn texts(text: &str) -> Vec<String> {
        sentences(0, text).into_iter().map(|s| s.text).collect()
    }

    #[test]
    fn sentences_end_where_one_would_take_breath() {
        assert_eq!(
            texts("It cost $3.50. Really?! \"Yes.\" And so on... then\nmore"),
            [
                "It cost $3.50.",
                "Really?!",
                "\"Yes.\"",
                "And so on...",
                "then",
                "more"
            ]
        );
        assert_eq!(texts("... ?! 🙂"), Vec::<String>::new());
        assert_eq!(texts("你好。再见！"), ["你好。", "再见！"]);
    }

    #[test]
    fn a_long_sentence_is_cut_and_every_word_stays_once() {
        for text in [
            "word ".repeat(200),
            "bamboo".repeat(100),
            "a, b ".repeat(150),
        ] {
            let made = sentences(3, &text);
            assert!(made.iter().all(|s| s.text.chars().count() <= LONGEST));
            let marked: Vec<_> = made.iter().flat_map(|s| s.words.clone()).collect();
            let expected: Vec<_> = words::runs(&text).map(|w| w.range).collect();
            assert_eq!(
                marked.iter().map(|w| w.range.clone()).collect::<Vec<_>>(),
                expected
            );
            let spoken: usize = made
                .iter()
                .map(|s| s.text.matches(|c| c != ' ').count())
                .sum();
            assert_eq!(spoken, text.matches(|c| c != ' ').count());
        }
    }

    fn marks(text: &str, frames: usize) -> (Vec<(String, Range<usize>)>, usize) {
        let sentence = sentences(0, text).remove(0);
        let mut marker = Marker::new(&sentence, 14.5, RATE, FRAME);
        let mut all = Vec::new();
        for frame in 1..frames {
            all.extend(marker.until(frame * FRAME));
        }
        let (rest, silence) = marker.rest((frames - 1) * FRAME, frames * FRAME);
        all.extend(rest);
        (
            all.into_iter().map(|(w, place)| (w.word, place)).collect(),
            silence,
        )
    }

    #[test]
    fn words_are_in_order_and_within_the_sound_however_long_it_is() {
        let text = "She walked slowly down the hill, past the old mill and over the bridge.";
        for frames in [1, 2, 5, 20, 60, 63, 64, 65, 200] {
            let (marks, silence) = marks(text, frames);
            assert_eq!(marks.len(), 14, "{frames} frames");
            assert!(marks.iter().all(|(_, place)| place.start < place.end));
            assert!(
                marks.windows(2).all(|w| w[0].1.end <= w[1].1.start),
                "{marks:?}"
            );
            assert!(marks[13].1.end <= frames * FRAME + silence);
        }
    }

    #[test]
    fn a_sentence_as_long_as_expected_has_words_all_through_it_and_no_silence() {
        let text = "Water boils at one hundred degrees.";
        let sentence = sentences(0, text).remove(0);
        let frames = Marker::new(&sentence, 14.5, RATE, FRAME).expected / FRAME;
        let (marks, silence) = marks(text, frames);
        assert_eq!(silence, 0);
        assert_eq!((marks[0].1.start, marks[5].1.end), (0, frames * FRAME));
        assert!(marks.windows(2).all(|w| w[0].1.end == w[1].1.start));
    }
}
