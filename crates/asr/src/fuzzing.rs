//! Private parsers of what strangers send, for the fuzz targets. No part of the interface.

/// The answer of a recognizer elsewhere.
pub fn answered(body: &str) {
    let _ = crate::remote::read_answer(body);
}

/// A model's `vocabulary.json`.
pub fn vocabulary(json: &[u8]) {
    let Ok(vocabulary) = crate::vocabulary::Vocabulary::parse(json) else {
        return;
    };
    let _ = (vocabulary.languages(), vocabulary.is_multilingual());
    let tokens = vocabulary.encode("Hello, world.");
    let ids: Vec<usize> = tokens.iter().filter_map(|t| vocabulary.id(t)).collect();
    let _ = vocabulary.text(&ids);
}
