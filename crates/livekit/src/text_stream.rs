//! Text streams of ours (LiveKit's data streams, version 0): a header, chunks, a trailer.

use std::collections::HashMap;

use livekit_protocol::data_packet::Value;
use livekit_protocol::data_stream::header::ContentHeader;
use livekit_protocol::data_stream::{Chunk, Header, OperationType, TextHeader, Trailer};

/// Bytes of text in one packet; data channels take some 16 kB everywhere.
pub(crate) const CHUNK: usize = 14_000;

/// What a text stream is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextStream {
    /// Names the stream; no two of one room share it.
    pub id: String,
    /// What it is for, such as `lk.transcription`.
    pub topic: String,
    /// For whoever shows it.
    pub attributes: Vec<(String, String)>,
    /// It is the user who said this, though we tell it.
    pub of_user: bool,
}

impl TextStream {
    pub(crate) fn header(&self, unix_ms: i64, length: Option<u64>) -> Value {
        Value::StreamHeader(Header {
            stream_id: self.id.clone(),
            timestamp: unix_ms,
            topic: self.topic.clone(),
            mime_type: "text/plain".into(),
            total_length: length,
            attributes: self.attributes.iter().cloned().collect(),
            content_header: Some(ContentHeader::TextHeader(TextHeader {
                operation_type: OperationType::Create.into(),
                generated: true,
                ..TextHeader::default()
            })),
            ..Header::default()
        })
    }
}

/// A text as chunks from a number on, each of whole characters.
pub(crate) fn chunks(id: &str, first: u64, mut text: &str) -> Vec<Value> {
    let mut out = Vec::new();
    while !text.is_empty() {
        let (head, rest) = text.split_at(text.floor_char_boundary(CHUNK));
        out.push(Value::StreamChunk(Chunk {
            stream_id: id.to_owned(),
            chunk_index: first + out.len() as u64,
            content: head.as_bytes().to_vec(),
            ..Chunk::default()
        }));
        text = rest;
    }
    out
}

/// The end of a stream; the attributes are added to the header's.
pub(crate) fn trailer(id: &str, attributes: &[(String, String)]) -> Value {
    let attributes: HashMap<String, String> = attributes.iter().cloned().collect();
    Value::StreamTrailer(Trailer {
        stream_id: id.to_owned(),
        attributes,
        ..Trailer::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = "ä".repeat(CHUNK);
        let out = chunks("s", 3, &text);
        assert_eq!(out.len(), 2);
        let mut whole: Vec<u8> = Vec::new();
        for (n, value) in out.iter().enumerate() {
            let Value::StreamChunk(chunk) = value else {
                panic!("{value:?}");
            };
            assert_eq!(chunk.chunk_index, 3 + n as u64);
            assert!(chunk.content.len() <= CHUNK && std::str::from_utf8(&chunk.content).is_ok());
            whole.extend(&chunk.content);
        }
        assert_eq!(whole, text.as_bytes());
        assert_eq!(chunks("s", 0, ""), []);
    }
}
