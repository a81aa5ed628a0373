//! Text: what a model writes and a voice says.

use std::sync::LazyLock;

use duologue_llm::speakable::{ClauseRules, Speakable};
use duologue_tts::fuzzing::Reader;

/// Longest text that is read aloud here, bytes: phonemes take a while.
const LONGEST: usize = 2_000;

/// A text as a model writes it, in pieces or at once; then what a Piper voice makes of it.
pub fn spoken_text(data: &[u8]) {
    let text = String::from_utf8_lossy(&data[..data.len().min(LONGEST)]);
    let whole = clauses([&*text]);
    let cut = clauses(text.split_inclusive(' '));
    assert_eq!(whole, cut, "how a text comes makes a difference");
    let shown: String = whole.iter().map(|clause| &*clause.display).collect();
    assert_eq!(shown, text, "a text is not shown as it was written");
    static READER: LazyLock<Result<Reader, String>> = LazyLock::new(|| Reader::new("en-us"));
    let reader = match &*READER {
        Ok(reader) => reader,
        Err(why) => panic!("no phonemes: {why}"),
    };
    for clause in &whole {
        for word in &clause.words {
            assert!(clause.spoken.get(word.spoken.clone()).is_some());
            assert!(clause.display.get(word.display.clone()).is_some());
        }
        read(reader, &clause.spoken);
    }
    // A worker is asked by others too, who say what they like.
    read(reader, &text);
}

fn read(reader: &Reader, text: &str) {
    for range in reader.words(text) {
        assert!(
            text.get(range.clone()).is_some(),
            "{range:?} is no part of the text"
        );
    }
}

fn clauses<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Vec<duologue_llm::speakable::Clause> {
    let mut speakable = Speakable::new("en", ClauseRules::default());
    let mut clauses = Vec::new();
    for piece in pieces {
        clauses.extend(speakable.push(piece));
    }
    clauses.extend(speakable.finish());
    clauses
}

/// The first byte says who answers; the rest is the answer, as the network cuts it.
pub fn endpoint_stream(data: &[u8]) {
    let Some((who, answer)) = data.split_first() else {
        return;
    };
    match who % 2 {
        0 => {
            let reads: Vec<&[u8]> = answer.chunks(1 + usize::from(who / 2)).collect();
            duologue_llm::fuzzing::streamed(&reads);
            duologue_llm::fuzzing::streamed(&[answer]);
        }
        _ => duologue_asr::fuzzing::answered(&String::from_utf8_lossy(answer)),
    }
}
