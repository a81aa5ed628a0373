//! From a text and its phonemes to sentences that the voice can say, with each word's place in them.
//!
//! The phonemizer gives spoken words, and those are not the text's: "$3.50" is five of them, and some pairs
//! are spoken as one. If there are as many as words in the text, and none of these holds a digit or sign or
//! is all capitals, they go one to one. Else each word of the text is phonemized on its own, and the spoken
//! words are shared out in order so that they differ as little as possible from those. A word that gets none
//! shares the time of its neighbour. So every word of a text that is spoken has a place, whatever the text.

use std::collections::HashMap;
use std::ops::Range;

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
            let alone = phonemize(word.run)?;
            expected.push(alone.into_iter().flat_map(|c| c.words).collect::<Vec<_>>());
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
            word.chars().for_each(|c| builder.push(c));
            builder.said = true;
            places.push((builder.done.len(), start..builder.ids.len()));
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

/// Shares out spoken words, in order, to the words of the text: how many each gets. The sum of the edit
/// distances to what is expected is least, among shares not too far from the expected ones.
fn share_out(spoken: &[&str], expected: &[Vec<String>]) -> Vec<usize> {
    if expected.is_empty() {
        return Vec::new();
    }
    let total: usize = expected.iter().map(Vec::len).sum();
    if total == spoken.len() {
        return expected.iter().map(Vec::len).collect();
    }
    let joined: Vec<Vec<char>> = expected.iter().map(|e| sounds(&e.concat())).collect();
    let spoken: Vec<Vec<char>> = spoken.iter().map(|w| sounds(w)).collect();
    let slack = 8 + total.abs_diff(spoken.len());
    const FAR: u32 = u32::MAX / 2;
    // best[j]: least cost of sharing the first j spoken words among the words so far.
    let mut best = vec![FAR; spoken.len() + 1];
    best[0] = 0;
    let mut choices = Vec::with_capacity(expected.len());
    let mut due = 0;
    for (reference, alone) in joined.iter().zip(expected) {
        let mut next = vec![FAR; spoken.len() + 1];
        let mut choice = vec![0usize; spoken.len() + 1];
        due += alone.len();
        let band = due.saturating_sub(slack)..=(due + slack).min(spoken.len());
        for j in band {
            let mut sound: Vec<char> = Vec::new();
            for k in 0..=(alone.len() + 3).min(j) {
                if k > 0 {
                    sound.splice(0..0, spoken[j - k].iter().copied());
                }
                let before = best[j - k];
                if before < FAR {
                    let cost = before + edit_distance(reference, &sound);
                    if cost < next[j] {
                        next[j] = cost;
                        choice[j] = k;
                    }
                }
            }
        }
        best = next;
        choices.push(choice);
    }
    // Where no way leads to the end, the last word takes what is left.
    let reached = (0..=spoken.len())
        .rev()
        .find(|j| best[*j] < FAR)
        .unwrap_or(0);
    let mut shares = vec![0; expected.len()];
    let mut j = reached;
    for (share, choice) in shares.iter_mut().zip(&choices).rev() {
        *share = choice[j];
        j -= choice[j];
    }
    if let Some(last) = shares.last_mut() {
        *last += spoken.len() - reached;
    }
    shares
}

/// IPA without stress and length, which depend on the neighbours.
fn sounds(ipa: &str) -> Vec<char> {
    ipa.chars()
        .filter(|c| !matches!(c, 'ˈ' | 'ˌ' | 'ː'))
        .collect()
}

/// Levenshtein's.
fn edit_distance(a: &[char], b: &[char]) -> u32 {
    let mut row: Vec<u32> = (0..=b.len() as u32).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i as u32;
        row[0] = i as u32 + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + u32::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
