//! Characters that a model writes over several tokens.

/// Joins bytes into text; keeps the beginning of a character until the rest comes.
#[derive(Debug, Default)]
pub(super) struct Utf8Joiner {
    held: Vec<u8>,
}

impl Utf8Joiner {
    /// Adds bytes; gives the text that is whole. Bytes that are no UTF-8 become U+FFFD.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.held) {
                Ok(rest) => {
                    text.push_str(rest);
                    self.held.clear();
                    return text;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.held[..valid]));
                    let Some(bad) = error.error_len() else {
                        self.held.drain(..valid);
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.held.drain(..valid + bad);
                }
            }
        }
    }

    /// What is left; an unfinished character becomes U+FFFD.
    pub(super) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn however_bytes_are_split_the_text_is_the_same(
            bytes in prop::collection::vec(any::<u8>(), 0..40), text in "\\PC{0,12}", cut in 1usize..5,
        ) {
            for whole in [bytes.as_slice(), text.as_bytes()] {
                let mut joiner = Utf8Joiner::default();
                let mut joined: String = whole.chunks(cut).map(|part| joiner.push(part)).collect();
                joined.push_str(&joiner.finish());
                prop_assert_eq!(joined, String::from_utf8_lossy(whole));
            }
        }
    }

    #[test]
    fn a_character_is_given_when_it_is_whole_and_not_later() {
        let mut joiner = Utf8Joiner::default();
        let bytes = "é!".as_bytes();
        assert_eq!(joiner.push(&bytes[..1]), "");
        assert_eq!(joiner.push(&bytes[1..2]), "é");
        assert_eq!(joiner.push(&bytes[2..]), "!");
    }
}
