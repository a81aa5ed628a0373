//! The parts that read what others made, without a voice: for [`crate::fuzzing`].

use std::collections::HashMap;
use std::ops::Range;

use super::config::Config;
use super::phonemes::Phonemizer;
use super::{graph, script};

/// Phonemes of English, as voices have them.
const KNOWN: &str =
    "_^$ !'(),-.:;?abcdefhijklmnopqrstuvwxyzæðŋɐɑɒɔəɚɛɜɡɪɹɾʃʊʌʒʔˈˌːθᵻ\u{303}\u{327}\u{329}";

/// A phonemizer and the numbers of its phonemes.
pub(crate) struct Reader {
    phonemizer: Phonemizer,
    map: HashMap<String, Vec<i32>>,
}

impl Reader {
    pub(crate) fn new(language: &str) -> Result<Self, String> {
        let ids = KNOWN
            .chars()
            .zip(0..)
            .map(|(c, id)| (c.to_string(), vec![id]));
        Ok(Self {
            phonemizer: Phonemizer::new(language)?,
            map: ids.collect(),
        })
    }

    pub(crate) fn words(&self, text: &str) -> Vec<Range<usize>> {
        let Ok(clauses) = self.phonemizer.clauses(text) else {
            return Vec::new();
        };
        let alone = |word: &str| {
            self.phonemizer
                .clauses(word)
                .map(|clauses| clauses.to_vec())
        };
        let sentences = script::sentences(text, &clauses, &self.map, alone).unwrap_or_default();
        let words = sentences.into_iter().flat_map(|sentence| sentence.words);
        words.map(|word| word.text).collect()
    }
}

pub(crate) fn config(json: &str) {
    if let Ok(config) = Config::parse(json) {
        let _ = config.speakers();
    }
}

pub(crate) fn graph(onnx: &[u8]) {
    let _ = graph::cut(onnx);
}
