//! Words and when they were said.
//!
//! While it writes a token, the decoder looks at the sound it stands for. The engine follows that look through
//! time (dynamic time warping over the cross-attention of the heads known to follow time; Whisper reference,
//! `timing.py`); here its path becomes times, and its tokens become words.

use super::engine::Alignment;
use crate::Word;
use crate::vocabulary::Vocabulary;

/// Seconds of sound in a state.
const STATE_SECONDS: f32 = 0.02;
/// Languages written without blanks: every character is a word.
pub(super) const WITHOUT_BLANKS: [&str; 8] = ["zh", "ja", "th", "lo", "my", "yue", "km", "bo"];

/// Tokens that belong to one word.
#[derive(Clone, Debug, PartialEq)]
struct Group {
    tokens: std::ops::Range<usize>,
    text: String,
}

/// The words of `ids` with times in seconds from the first state, none after `seconds`.
pub(super) fn words(
    vocabulary: &Vocabulary,
    ids: &[usize],
    language: &str,
    alignment: &Alignment,
    seconds: f32,
) -> Vec<Word> {
    let start_of = |token: usize| {
        alignment
            .path
            .iter()
            .find(|(t, _)| *t >= token)
            .map_or(seconds, |(_, state)| *state as f32 * STATE_SECONDS)
            .min(seconds)
    };
    group(vocabulary, ids, language)
        .into_iter()
        .map(|group| {
            let probabilities = alignment
                .probabilities
                .get(group.tokens.clone())
                .unwrap_or(&[]);
            let start = start_of(group.tokens.start);
            Word {
                text: group.text.trim().to_owned(),
                start,
                end: start_of(group.tokens.end).max(start),
                probability: probabilities.iter().sum::<f32>() / probabilities.len().max(1) as f32,
            }
        })
        .collect()
}

/// Cuts tokens into words. Punctuation clings to the word before it, an opening mark to the one after.
fn group(vocabulary: &Vocabulary, ids: &[usize], language: &str) -> Vec<Group> {
    let every_character = WITHOUT_BLANKS.contains(&language);
    let mut groups: Vec<Group> = Vec::new();
    for unit in units(vocabulary, ids) {
        let text = unit.text.trim();
        let is_mark = !text.is_empty() && !text.chars().any(char::is_alphanumeric);
        let opens = is_mark && unit.text.starts_with(' ');
        let begins = match groups.last() {
            None => true,
            // Nothing but an opening mark so far: the word itself is to come.
            Some(last) if !last.text.chars().any(char::is_alphanumeric) => false,
            Some(_) => {
                opens || !is_mark && (every_character || unit.text.starts_with(char::is_whitespace))
            }
        };
        match groups.last_mut() {
            Some(last) if !begins => {
                last.tokens.end = unit.tokens.end;
                last.text.push_str(&unit.text);
            }
            _ => groups.push(unit),
        }
    }
    groups.retain(|g| !g.text.trim().is_empty());
    groups
}

/// The smallest runs of tokens that stand for whole characters.
fn units(vocabulary: &Vocabulary, ids: &[usize]) -> Vec<Group> {
    let mut units = Vec::new();
    let mut bytes = Vec::new();
    let mut start = 0;
    for (i, &id) in ids.iter().enumerate() {
        bytes.extend(vocabulary.bytes(id));
        let whole = std::str::from_utf8(&bytes).is_ok();
        if whole || i + 1 == ids.len() {
            units.push(Group {
                tokens: start..i + 1,
                text: String::from_utf8_lossy(&bytes).into_owned(),
            });
            bytes.clear();
            start = i + 1;
        }
    }
    units
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn vocabulary() -> Vocabulary {
        let mut tokens: Vec<String> = Vec::new();
        for token in [
            "Ġthe", "Ġcaf", "Ã", "©", ",", "Ġand", "Ġ\"", "go", "\"", "ä¸", "ĸ", "çķ", "Į", "ing",
            "Ġ-",
        ] {
            tokens.push(token.into());
        }
        tokens.push("<|endoftext|>".into());
        Vocabulary::new(tokens).unwrap()
    }

    fn texts(ids: &[usize], language: &str) -> Vec<String> {
        group(&vocabulary(), ids, language)
            .into_iter()
            .map(|g| g.text)
            .collect()
    }

    #[test]
    fn words_begin_at_blanks_and_keep_their_punctuation() {
        assert_eq!(
            texts(&[0, 1, 2, 3, 4, 5, 7, 13], "en"),
            [" the", " café,", " andgoing"]
        );
        assert_eq!(
            texts(&[0, 6, 7, 13, 8, 4, 5], "en"),
            [" the", " \"going\",", " and"]
        );
    }

    #[test]
    fn characters_are_words_where_there_are_no_blanks() {
        assert_eq!(texts(&[9, 10, 11, 12, 4], "zh"), ["世", "界,"]);
    }

    #[test]
    fn a_word_lasts_until_the_next_begins() {
        let alignment = Alignment {
            path: vec![
                (0, 0),
                (0, 5),
                (1, 10),
                (1, 11),
                (2, 15),
                (3, 16),
                (4, 40),
                (5, 45),
                (6, 100),
            ],
            probabilities: vec![0.9, 0.5, 0.7, 0.6, 1.0, 0.8],
        };
        let words = words(&vocabulary(), &[0, 1, 2, 3, 4, 5], "en", &alignment, 1.5);
        let times: Vec<_> = words
            .iter()
            .map(|w| {
                (
                    w.text.as_str(),
                    (w.start * 100.0).round(),
                    (w.end * 100.0).round(),
                )
            })
            .collect();
        assert_eq!(
            times,
            [
                ("the", 0.0, 20.0),
                ("café,", 20.0, 90.0),
                ("and", 90.0, 150.0)
            ]
        );
        assert!((words[1].probability - 0.7).abs() < 1e-6);
    }
}
