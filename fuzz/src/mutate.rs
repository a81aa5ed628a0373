//! Inputs like those of a corpus, but wrong: the driver of the tests.
//!
//! No coverage is measured, so it finds less in a night than libFuzzer; but it needs no special compiler, and with
//! the same seed it makes the same inputs on every machine.

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// Longest input that is made, bytes.
const LONGEST: usize = 64 * 1024;
/// Numbers at which parsers go wrong.
const EDGES: &[u64] = &[
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    u64::MAX,
];
/// Pieces of text at which parsers go wrong.
const TEXTS: &[&str] = &[
    "\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "1e999",
    "-1",
    "NaN",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "\r\n",
    "\n",
    "\0",
    "%00",
    "\u{1f600}",
    "e\u{301}",
    "\u{202e}",
    "$",
    "[[",
    "&a",
    "*a",
    "<<: *a",
    "a=",
    "m=audio ",
    "--b\r\n",
    "/../",
    "18446744073709551616",
    "0x",
    "%s",
];

/// Makes inputs out of a corpus.
pub struct Mutator<'a> {
    corpus: &'a [Vec<u8>],
    random: StdRng,
}

impl<'a> Mutator<'a> {
    /// One that makes the same inputs of the same corpus for the same seed.
    #[must_use]
    pub fn new(corpus: &'a [Vec<u8>], seed: u64) -> Self {
        Self {
            corpus,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// The next input: an entry of the corpus with one to eight things wrong.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut data = self.entry().to_vec();
        for _ in 0..self.random.random_range(1..=8) {
            self.spoil(&mut data);
        }
        data.truncate(LONGEST);
        data
    }

    fn entry(&mut self) -> &'a [u8] {
        match self.corpus {
            [] => &[],
            some => &some[self.random.random_range(0..some.len())],
        }
    }

    fn spoil(&mut self, data: &mut Vec<u8>) {
        let at = self.random.random_range(0..=data.len());
        let length = self.random.random_range(0..=(data.len() - at).min(64));
        match self.random.random_range(0..9) {
            0 if at < data.len() => data[at] ^= 1 << self.random.random_range(0..8),
            1 if at < data.len() => data[at] = self.random.random(),
            2 => {
                data.drain(at..at + length);
            }
            3 => {
                // Again what is there, once or often.
                let piece = data[at..at + length].to_vec();
                let times = [1, 2, 100][self.random.random_range(0..3)];
                data.splice(at..at, piece.repeat(times));
            }
            4 => {
                let edge = EDGES[self.random.random_range(0..EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][self.random.random_range(0..4)];
                let mut edge = edge[..width].to_vec();
                if self.random.random() {
                    edge.reverse();
                }
                let end = (at + width).min(data.len());
                data.splice(at..end, edge);
            }
            5 => {
                let text = TEXTS[self.random.random_range(0..TEXTS.len())];
                data.splice(at..at + length.min(4), text.bytes());
            }
            6 => {
                // The beginning of one and the end of another.
                let other = self.entry();
                let from = self.random.random_range(0..=other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            7 => data.truncate(at),
            _ => {
                let mut noise = vec![0; length.max(1)];
                self.random.fill_bytes(&mut noise);
                data.splice(at..at, noise);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_another_others() {
        let corpus = [b"hello".to_vec(), b"{\"a\": 1}".to_vec()];
        let inputs = |seed| {
            let mut mutator = Mutator::new(&corpus, seed);
            (0..100).map(|_| mutator.next_input()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        assert!(inputs(3).iter().all(|input| input.len() <= LONGEST));
    }

    #[test]
    fn nothing_at_all_can_be_spoilt_too() {
        let mut mutator = Mutator::new(&[], 1);
        assert!((0..100).any(|_| !mutator.next_input().is_empty()));
    }
}
