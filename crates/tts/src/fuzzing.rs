//! Private parsers of what strangers send, for the fuzz targets. No part of the interface.

use std::ops::Range;

use crate::piper::probe;

/// Reads texts as a Piper voice does.
pub struct Reader(probe::Reader);

impl Reader {
    /// For a language by espeak-ng's name.
    ///
    /// # Errors
    /// What is missing.
    pub fn new(language: &str) -> Result<Self, String> {
        probe::Reader::new(language).map(Self)
    }

    /// Where in the text the words are that would be said.
    #[must_use]
    pub fn words(&self, text: &str) -> Vec<Range<usize>> {
        self.0.words(text)
    }
}

/// The `.onnx.json` of a voice.
pub fn piper_config(json: &str) {
    probe::config(json);
}

/// The `.onnx` of a voice.
pub fn piper_graph(onnx: &[u8]) {
    probe::graph(onnx);
}
