//! Tokens and the text they stand for.
//!
//! Whisper's tokens are GPT-2's: byte strings, written in the vocabulary with one printable character for each
//! byte (the byte itself where it is printable, else the next character from U+0100 on), so that a token can be
//! half a letter. Text is made of the joined bytes of many tokens, never token by token.
//! (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.)

use std::collections::HashMap;
use std::path::Path;

/// The tokens of a model, by number and by name.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    tokens: Vec<String>,
    ids: HashMap<String, usize>,
    /// Longest text token, in characters.
    longest: usize,
    /// First token that is not text.
    end_of_text: usize,
}

impl Vocabulary {
    /// Reads `vocabulary.json` (a list) or `vocabulary.txt` (a line each) from a model's folder.
    pub(crate) fn read(dir: &Path) -> Result<Self, String> {
        let json = dir.join("vocabulary.json");
        if json.is_file() {
            let bytes = std::fs::read(&json).map_err(|e| format!("vocabulary.json: {e}"))?;
            return Self::parse(&bytes);
        }
        let text = std::fs::read_to_string(dir.join("vocabulary.txt"))
            .map_err(|e| format!("neither vocabulary.json nor vocabulary.txt can be read: {e}"))?;
        // Not `lines()`: a carriage return can be a token's own.
        let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
        Self::new(lines.map(str::to_owned).collect())
    }

    /// Reads the text of a `vocabulary.json`.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        let tokens = serde_json::from_slice(json)
            .map_err(|e| format!("vocabulary.json is no list of tokens: {e}"))?;
        Self::new(tokens)
    }

    pub(crate) fn new(tokens: Vec<String>) -> Result<Self, String> {
        let ids: HashMap<String, usize> = tokens
            .iter()
            .enumerate()
            .map(|(i, t)| (t.clone(), i))
            .collect();
        let end_of_text = *ids
            .get("<|endoftext|>")
            .ok_or("the vocabulary has no <|endoftext|>: this is not a Whisper model")?;
        let longest = tokens[..end_of_text]
            .iter()
            .map(|t| t.chars().count())
            .max()
            .unwrap_or(0);
        Ok(Self {
            tokens,
            ids,
            longest,
            end_of_text,
        })
    }

    pub(crate) fn id(&self, token: &str) -> Option<usize> {
        self.ids.get(token).copied()
    }

    /// Whether the model was taught more than English: such models have one token more.
    pub(crate) fn is_multilingual(&self) -> bool {
        const MULTILINGUAL_TOKENS: usize = 51_865;
        self.tokens.len() >= MULTILINGUAL_TOKENS
    }

    /// Whether the token is part of a text, and not a command, a language or a time.
    pub(crate) fn is_text(&self, id: usize) -> bool {
        id < self.end_of_text
    }

    /// Languages that the model has a token for, as ISO 639 codes.
    pub(crate) fn languages(&self) -> Vec<String> {
        self.tokens[self.end_of_text..]
            .iter()
            .filter_map(|t| t.strip_prefix("<|")?.strip_suffix("|>"))
            .filter(|t| (2..=3).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_lowercase()))
            .map(str::to_owned)
            .collect()
    }

    /// The bytes that a text token stands for; none for any other.
    pub(crate) fn bytes(&self, id: usize) -> Vec<u8> {
        if !self.is_text(id) {
            return Vec::new();
        }
        self.tokens[id].chars().filter_map(byte_of).collect()
    }

    /// The text of tokens; what is no text is left out. Bytes that are no UTF-8 become U+FFFD.
    pub(crate) fn text(&self, ids: &[usize]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Tokens for a text: always the longest that fits, which is not always the split that the model was trained
    /// with, but stands for the same text. Good enough for a prompt.
    pub(crate) fn encode(&self, text: &str) -> Vec<String> {
        let written: Vec<char> = text.bytes().map(char_of).collect();
        let mut out = Vec::new();
        let mut at = 0;
        while at < written.len() {
            let most = self.longest.min(written.len() - at);
            let found = (1..=most).rev().find_map(|n| {
                let candidate: String = written[at..at + n].iter().collect();
                self.id(&candidate)
                    .filter(|&id| self.is_text(id))
                    .map(|_| (n, candidate))
            });
            let Some((n, token)) = found else {
                // Every byte is a token in a real vocabulary; in a broken one the byte is left out.
                at += 1;
                continue;
            };
            out.push(token);
            at += n;
        }
        out
    }
}

/// Whether a byte is written as itself.
fn printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

fn char_of(byte: u8) -> char {
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or('\u{FFFD}')
}

fn byte_of(c: char) -> Option<u8> {
    if let Ok(byte) = u8::try_from(u32::from(c))
        && printable(byte)
    {
        return Some(byte);
    }
    let index = u32::from(c).checked_sub(0x100)? as usize;
    (0..=u8::MAX).filter(|&b| !printable(b)).nth(index)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn vocabulary() -> Vocabulary {
        let mut tokens: Vec<String> = (0..=u8::MAX).map(|b| char_of(b).to_string()).collect();
        tokens.extend(["Ġcaf", "ĠTrans", "the", "Ġthe"].map(str::to_owned));
        tokens.extend(
            [
                "<|endoftext|>",
                "<|startoftranscript|>",
                "<|en|>",
                "<|haw|>",
                "<|translate|>",
                "<|0.00|>",
            ]
            .map(str::to_owned),
        );
        Vocabulary::new(tokens).unwrap()
    }

    #[test]
    fn every_byte_has_its_own_character_and_comes_back() {
        let mut seen = std::collections::HashSet::new();
        for byte in 0..=u8::MAX {
            let c = char_of(byte);
            assert!(seen.insert(c));
            assert_eq!(byte_of(c), Some(byte));
        }
        assert_eq!(char_of(b' '), 'Ġ');
        assert_eq!(char_of(b'\n'), 'Ċ');
        assert_eq!(byte_of('世'), None);
    }

    #[test]
    fn letters_that_span_tokens_are_put_together() {
        let v = vocabulary();
        let e_acute: Vec<usize> = "é".bytes().map(usize::from).collect();
        let mut ids = vec![v.id("Ġcaf").unwrap()];
        ids.extend(&e_acute);
        assert_eq!(v.text(&ids), " café");
        for text in ["naïve 世界 🙂", " the\tend\n", "Ünï"] {
            let ids: Vec<usize> = v.encode(text).iter().map(|t| v.id(t).unwrap()).collect();
            assert_eq!(v.text(&ids), text);
        }
    }

    #[test]
    fn half_a_letter_is_marked_and_harmless() {
        assert_eq!(vocabulary().text(&[0xC3]), "\u{FFFD}");
    }

    #[test]
    fn commands_and_times_are_no_text() {
        let v = vocabulary();
        let ids = [
            v.id("<|startoftranscript|>").unwrap(),
            v.id("Ġthe").unwrap(),
            v.id("<|0.00|>").unwrap(),
            9999,
        ];
        assert_eq!(v.text(&ids), " the");
        assert_eq!(v.languages(), ["en", "haw"]);
    }

    #[test]
    fn the_longest_token_is_taken() {
        assert_eq!(vocabulary().encode(" the the"), ["Ġthe", "Ġthe"]);
    }

    #[test]
    fn a_vocabulary_of_something_else_is_refused() {
        assert!(
            Vocabulary::new(vec!["hello".into()])
                .unwrap_err()
                .contains("<|endoftext|>")
        );
    }
}
