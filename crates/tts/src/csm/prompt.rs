//! What the model is given to read: a turn is `[speaker]text` between two special tokens, and the sound after it.

use std::path::Path;

use tokenizers::Tokenizer;

/// Special tokens around a turn's text.
const BEGIN: &str = "<|begin_of_text|>";
const END: &str = "<|end_of_text|>";

/// From text to the tokens of a turn.
pub(crate) enum Tokens {
    /// As the model was trained.
    Trained {
        tokenizer: Box<Tokenizer>,
        begin: u32,
        end: u32,
    },
    /// A token for each byte: for models of no meaning, which come without a tokenizer.
    Bytes,
}

impl Tokens {
    /// Reads `tokenizer.json`, for a model that knows `vocabulary` tokens.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub(crate) fn load(file: &Path, vocabulary: usize) -> Result<Self, String> {
        let bytes = std::fs::read(file).map_err(|e| e.to_string())?;
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())?;
        // What a text says of special tokens is text.
        tokenizer.set_encode_special_tokens(true);
        let special = |token: &str| {
            tokenizer
                .token_to_id(token)
                .filter(|id| (*id as usize) < vocabulary)
                .ok_or_else(|| format!("it has no token {token}, or the model does not know it"))
        };
        let (begin, end) = (special(BEGIN)?, special(END)?);
        let size = tokenizer.get_vocab_size(true);
        if size > vocabulary {
            return Err(format!(
                "it has {size} tokens, and the model knows {vocabulary}"
            ));
        }
        Ok(Tokens::Trained {
            tokenizer: Box::new(tokenizer),
            begin,
            end,
        })
    }

    /// The tokens of a turn's text.
    ///
    /// # Errors
    /// The tokenizer's words for it.
    pub(crate) fn turn(&self, speaker: u32, text: &str) -> Result<Vec<u32>, String> {
        let text = format!("[{speaker}]{text}");
        match self {
            Tokens::Trained {
                tokenizer,
                begin,
                end,
            } => {
                let encoded = tokenizer.encode(text, false).map_err(|e| e.to_string())?;
                Ok([&[*begin], encoded.get_ids(), &[*end]].concat())
            }
            Tokens::Bytes => Ok(text.bytes().map(u32::from).collect()),
        }
    }
}
