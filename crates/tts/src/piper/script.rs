//! From a text and its phonemes to sentences that the voice can say, with each word's place in them.
//!
//! The phonemizer gives spoken words, and those are not the text's: "$3.50" is five of them, and some pairs
//! are spoken as one. If there are as many as words in the text, and none of these holds a digit or sign or
//! is all capitals, they go one to one. Else such words are phonemized on their own, and the spoken words are
//! shared out ([`share_out`]) by these, or by the spelling of the others. A word that gets none shares the time of
//! the one before it. So every word of a text that is spoken has a place, whatever the text.

use std::collections::HashMap;
use std::ops::Range;

use super::sharing::share_out;
use crate::words;

/// Spoken words up to a punctuation mark.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Clause {
    /// Each in IPA.
    pub words: Vec<String>,
    /// The mark.
    pub end: Option<char>,
}

/// What is said in one breath: a run of the model.
#[derive(Debug, PartialEq)]
pub(super) struct Sentence {
    /// Ids of the phonemes.
    pub ids: Vec<i32>,
    pub words: Vec<Place>,
    /// Ends with a full stop, a question or an exclamation mark.
    pub ends: bool,
}

/// Where a word of the text lies.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// Bytes in the text.
    pub text: Range<usize>,
    /// Numbers of its first phoneme's id and of the one after its last, as fractions when several words
    /// share a phoneme.
    pub ids: Range<f64>,
}

/// Most phonemes said in one breath: about 20 s. Longer sentences are parted at a clause's end, or else
/// between two words.
const LONGEST: usize = 280;

/// Reads a text. `phonemize` is asked for single words of it, where that is needed.
pub(super) fn sentences<E>(
    text: &str,
    clauses: &[Clause],
    map: &HashMap<String, Vec<i32>>,
    mut phonemize: impl FnMut(&str) -> Result<Vec<Clause>, E>,
) -> Result<Vec<Sentence>, E> {
    let spoken: Vec<&str> = clauses
        .iter()
        .flat_map(|c| &c.words)
        .map(String::as_str)
        .collect();
    if spoken.is_empty() {
        return Ok(Vec::new());
    }
    let written: Vec<words::Word<'_>> = words::runs(text).collect();
    let plain = |w: &words::Word<'_>| {
        w.word
            .chars()
            .all(|c| c.is_alphabetic() || c == '\'' || c == '’')
            && !(w.word.chars().count() > 1 && w.word.chars().all(char::is_uppercase))
    };
    let shares = if spoken.len() == written.len() && written.iter().all(plain) {
        vec![1; written.len()]
    } else {
        let mut expected = Vec::with_capacity(written.len());
        for word in &written {
            // Spelling is near enough to sound to find a plain word by.
            expected.push(if plain(word) {
                vec![word.word.to_lowercase()]
            } else {
                let alone = phonemize(word.run)?;
                alone.into_iter().flat_map(|c| c.words).collect()
            });
        }
        share_out(&spoken, &expected)
    };
    let (sentences, places) = assemble(clauses, map);
    Ok(place_words(sentences, &places, &written, &shares))
}

/// Where a spoken word lies: number of the sentence, and its ids there.
type SpokenPlace = (usize, Range<usize>);

fn assemble(
    clauses: &[Clause],
    map: &HashMap<String, Vec<i32>>,
) -> (Vec<Sentence>, Vec<SpokenPlace>) {
    let mut builder = Builder {
        map,
        done: Vec::new(),
        ids: Vec::new(),
        phonemes: 0,
        said: false,
    };
    let mut places = Vec::new();
    for clause in clauses {
        let length: usize = clause.words.iter().map(|w| w.chars().count() + 1).sum();
        if builder.phonemes > 0 && builder.phonemes + length > LONGEST && length <= LONGEST {
            builder.finish(false);
        }
        for (i, word) in clause.words.iter().enumerate() {
            if builder.phonemes + word.chars().count() > LONGEST {
                builder.finish(false);
            } else if i > 0 {
                builder.push(' ');
            }
            let start = builder.start();
            let sentence = builder.done.len();
            let mut parted_at = None;
            for c in word.chars() {
                // No language has words this long, but texts do.
                if builder.phonemes >= LONGEST {
                    parted_at.get_or_insert(builder.ids.len());
                    builder.finish(false);
                }
                builder.push(c);
                builder.said = true;
            }
            places.push((sentence, start..parted_at.unwrap_or(builder.ids.len())));
        }
        match clause.end {
            Some(mark @ (',' | ':' | ';')) => {
                builder.push(mark);
                builder.push(' ');
            }
            Some(mark @ ('.' | '?' | '!')) => {
                builder.push(mark);
                builder.finish(true);
            }
            // The end of a line or a paragraph.
            Some('\n') => builder.finish(true),
            Some('…') => {
                builder.push('.');
                builder.finish(true);
            }
            Some(_) => {
                builder.push(',');
                builder.push(' ');
            }
            None => {}
        }
    }
    builder.finish(false);
    (builder.done, places)
}

/// Collects phonemes of a sentence as Piper does it: a start, each phoneme followed by a pad, an end.
struct Builder<'a> {
    map: &'a HashMap<String, Vec<i32>>,
    done: Vec<Sentence>,
    ids: Vec<i32>,
    phonemes: usize,
    /// A word is among them.
    said: bool,
}

impl Builder<'_> {
    fn append(&mut self, phoneme: &str) -> bool {
        let ids = self.map.get(phoneme);
        self.ids.extend(ids.into_iter().flatten());
        ids.is_some()
    }

    fn start(&mut self) -> usize {
        if self.ids.is_empty() {
            self.append("^");
            self.append("_");
        }
        self.ids.len()
    }

    /// Adds a phoneme; one that the voice does not know is left out.
    fn push(&mut self, phoneme: char) {
        self.start();
        let mut letters = [0; 4];
        // Voices learn accents as phonemes of their own.
        let parts: &[&str] = match phoneme {
            'ç' => &["c", "\u{327}"],
            'ã' => &["a", "\u{303}"],
            'ẽ' => &["e", "\u{303}"],
            'ĩ' => &["i", "\u{303}"],
            'õ' => &["o", "\u{303}"],
            'ũ' => &["u", "\u{303}"],
            other => &[&*other.encode_utf8(&mut letters)],
        };
        for part in parts {
            if self.append(part) {
                self.append("_");
                self.phonemes += 1;
            }
        }
    }

    fn finish(&mut self, ends: bool) {
        if self.said {
            self.append("$");
            let ids = std::mem::take(&mut self.ids);
            self.done.push(Sentence {
                ids,
                words: Vec::new(),
                ends,
            });
        } else if let (true, Some(last)) = (ends, self.done.last_mut()) {
            last.ends = true;
        }
        self.ids.clear();
        self.phonemes = 0;
        self.said = false;
    }
}

fn place_words(
    mut sentences: Vec<Sentence>,
    places: &[SpokenPlace],
    written: &[words::Word<'_>],
    shares: &[usize],
) -> Vec<Sentence> {
    // Words without a share join the word before them, or the first that has one.
    let mut groups: Vec<(Vec<usize>, Range<usize>)> = Vec::new();
    let mut taken = 0;
    for (word, share) in shares.iter().enumerate() {
        let range = taken..taken + share;
        taken += share;
        match groups.last_mut() {
            Some((members, of_group)) if *share == 0 || of_group.start == of_group.end => {
                members.push(word);
                of_group.end = range.end;
            }
            _ => groups.push((vec![word], range)),
        }
    }
    for (members, range) in groups {
        let Some((sentence, first)) = places.get(range.start) else {
            continue;
        };
        // Of a word that a mark inside it parts, only the beginning is marked.
        let within = places[range]
            .iter()
            .take_while(|(s, _)| s == sentence)
            .last();
        let end = within.map_or(first.end, |(_, last)| last.end);
        let (from, to) = (first.start as f64, end as f64);
        let size = |word: usize| written[word].word.len() as f64;
        let total: f64 = members.iter().map(|w| size(*w)).sum();
        let mut before = 0.0;
        for word in members {
            let start = from + (to - from) * before / total;
            before += size(word);
            let end = from + (to - from) * before / total;
            sentences[*sentence].words.push(Place {
                text: written[word].range.clone(),
                ids: start..end,
            });
        }
    }
    sentences
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use super::*;

    /// Every letter is a phoneme, whose id is its code point.
    fn map() -> HashMap<String, Vec<i32>> {
        let letters = ('a'..='z')
            .chain(" .,?!:;".chars())
            .map(|c| (c.to_string(), vec![c as i32]));
        let marks = [("_", 0), ("^", 1), ("$", 2)].map(|(c, id)| (c.to_owned(), vec![id]));
        letters.chain(marks).collect()
    }

    /// Clauses of words, from text such as "hello there. you".
    fn clauses(text: &str) -> Vec<Clause> {
        let mut found = Vec::new();
        for part in text.split_inclusive(['.', ',', '?', '!', ';']) {
            let end = part.chars().last().filter(|c| !c.is_alphanumeric());
            let words = part
                .trim_end_matches(|c: char| !c.is_alphanumeric())
                .split_whitespace();
            found.push(Clause {
                words: words.map(str::to_owned).collect(),
                end,
            });
        }
        found
    }

    fn read(text: &str, spoken: &str, alone: &[(&str, &str)]) -> Vec<Sentence> {
        let phonemize = |word: &str| -> Result<Vec<Clause>, Infallible> {
            let known = alone.iter().find(|(w, _)| *w == word);
            Ok(clauses(known.map_or(word, |(_, s)| s)))
        };
        sentences(text, &clauses(spoken), &map(), phonemize).unwrap()
    }

    /// Each word with what is said for it.
    fn said(text: &str, sentences: &[Sentence]) -> Vec<(String, String)> {
        let words = sentences
            .iter()
            .flat_map(|s| s.words.iter().map(move |w| (s, w)));
        let of = |s: &Sentence, w: &Place| {
            let ids = &s.ids[w.ids.start.round() as usize..w.ids.end.round() as usize];
            ids.iter()
                .filter(|i| **i > 2)
                .map(|i| char::from_u32(*i as u32).unwrap())
                .collect()
        };
        words
            .map(|(s, w)| (text[w.text.clone()].to_owned(), of(s, w)))
            .collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    }

    #[test]
    fn phonemes_are_framed_and_padded_as_piper_does() {
        let sentences = read("Hi, you.", "ai, ju.", &[]);
        let ids: Vec<i32> = "ai, ju.".chars().flat_map(|c| [c as i32, 0]).collect();
        assert_eq!(sentences[0].ids, [vec![1, 0], ids, vec![2]].concat());
        assert_eq!(
            said("Hi, you.", &sentences),
            pairs(&[("Hi", "ai"), ("you", "ju")])
        );
    }

    #[test]
    fn each_sentence_is_said_on_its_own() {
        let sentences = read("One. Two? Three", "wan. tu? sri", &[]);
        assert_eq!(
            sentences.iter().map(|s| s.ends).collect::<Vec<_>>(),
            [true, true, false]
        );
        assert_eq!(
            sentences.iter().map(|s| s.words.len()).collect::<Vec<_>>(),
            [1, 1, 1]
        );
    }

    #[test]
    fn a_number_takes_all_the_words_that_say_it() {
        let text = "Pay $3.50 now.";
        let sentences = read(
            text,
            "pei sri dolars fifti sents nau.",
            &[("$3.50", "sri dolars fifti sents")],
        );
        let number = ("3.50", "sri dolars fifti sents");
        assert_eq!(
            said(text, &sentences),
            pairs(&[("Pay", "pei"), number, ("now", "nau")])
        );
    }

    #[test]
    fn words_spoken_as_one_share_its_time() {
        let text = "Out of the box.";
        let sentences = read(
            text,
            "aut ofthe boks.",
            &[
                ("Out", "aut"),
                ("of", "of"),
                ("the", "the"),
                ("box.", "boks"),
            ],
        );
        let said = said(text, &sentences);
        assert_eq!(said[1], ("of".to_owned(), "of".to_owned()));
        assert_eq!(said[2], ("the".to_owned(), "the".to_owned()));
        assert_eq!(said[3], ("box".to_owned(), "boks".to_owned()));
    }

    #[test]
    fn words_that_sound_otherwise_in_context_stay_in_their_place() {
        // Five are spoken where six were expected, and none just as expected.
        let text = "a 2nd one or two at 5";
        let alone = [
            ("2nd", "second"),
            ("5", "faif"),
            ("one", "wan"),
            ("or", "or"),
            ("two", "tu"),
            ("at", "at"),
        ];
        let sentences = read(text, "a sekond wanor tuu ed faiv", &alone);
        let said = said(text, &sentences);
        let names: Vec<_> = said.iter().map(|w| w.0.as_str()).collect();
        assert_eq!(names, ["a", "2nd", "one", "or", "two", "at", "5"]);
        assert_eq!(said[1].1, "sekond");
        assert_eq!(said[4].1, "tuu");
        assert_eq!(said[6].1, "faiv");
    }

    #[test]
    fn a_word_with_a_full_stop_inside_is_marked_up_to_it() {
        let text = "See baz?x=1 now.";
        let sentences = read(text, "si baz? eks wan nau.", &[("baz?x=1", "baz? eks wan")]);
        assert_eq!(sentences.len(), 2);
        assert_eq!(
            said(text, &sentences),
            pairs(&[("See", "si"), ("baz?x=1", "baz"), ("now", "nau")])
        );
    }

    #[test]
    fn nothing_spoken_is_no_sentence() {
        for (text, spoken) in [("", ""), ("...", "."), ("?!", "?!"), ("word", "")] {
            assert!(read(text, spoken, &[]).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_sentence_without_end_is_parted_between_words() {
        let text = "longword ".repeat(200);
        let sentences = read(&text, &text, &[]);
        assert!(sentences.len() > 1);
        assert!(sentences.iter().all(|s| s.ids.len() < 2 * LONGEST + 10));
        assert_eq!(
            said(&text, &sentences),
            vec![("longword".to_owned(), "longword".to_owned()); 200]
        );
    }

    #[test]
    fn a_word_without_end_is_parted_too_and_marked_where_it_begins() {
        let text = format!("see {} now", "a".repeat(1_000));
        let sentences = read(&text, &text, &[]);
        assert!(sentences.iter().all(|s| s.ids.len() < 2 * LONGEST + 10));
        let letters = sentences
            .iter()
            .flat_map(|s| &s.ids)
            .filter(|i| **i == 'a' as i32);
        assert_eq!(letters.count(), 1_000);
        let words: Vec<_> = said(&text, &sentences).into_iter().map(|w| w.0).collect();
        assert_eq!(words.len(), 3);
        assert!(
            sentences
                .iter()
                .flat_map(|s| &s.words)
                .all(|w| w.ids.start < w.ids.end)
        );
    }

    #[test]
    fn whatever_is_spoken_each_word_has_a_place_in_order() {
        let texts = ["a 1 b 2 c", "X Y Z", "1 2 3 4 5 6 7 8 9", "one"];
        let spokens = [
            "a",
            "a b c d e f g h i j k l m n o p q r s t",
            "zzz zzz",
            "one two. three, four",
        ];
        for text in texts {
            for spoken in spokens {
                let sentences = read(text, spoken, &[("1", "wan wan wan wan"), ("2", "")]);
                let words: Vec<_> = sentences.iter().flat_map(|s| &s.words).collect();
                assert_eq!(
                    words.len(),
                    text.split(' ').count(),
                    "{text:?} as {spoken:?}"
                );
                assert!(words.windows(2).all(|w| w[0].text.end <= w[1].text.start));
                for sentence in &sentences {
                    let places = sentence.words.windows(2);
                    assert!(places.into_iter().all(|w| w[0].ids.end <= w[1].ids.start));
                    assert!(sentence.words.iter().all(|w| w.ids.start < w.ids.end));
                }
            }
        }
    }
}
