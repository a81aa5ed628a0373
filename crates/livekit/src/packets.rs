//! Data packets: messages and text streams, as they come and as they go.

use std::collections::HashMap;

use livekit_protocol::data_packet::Value;
use livekit_protocol::data_stream::{CompressionType, Header};
use livekit_protocol::{DataPacket, UserPacket};
use prost::Message as _;

use crate::text_stream::{CHUNK, TextStream, chunks, trailer};

/// Text streams that may be open at once.
const MAX_STREAMS: usize = 16;
/// Longest text, bytes.
const MAX_TEXT: usize = 256 * 1024;
/// Senders whose numbers are remembered.
const MAX_SENDERS: usize = 64;

/// A message or text stream that came whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Identity of who sent it, as the server says.
    pub from: String,
    /// What it is for.
    pub topic: String,
    /// Its text.
    pub text: String,
}

/// Puts together what comes.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    streams: HashMap<(String, String), Open>,
    /// Number of the last packet of each sender: after a resume the server sends some again.
    numbers: HashMap<String, u32>,
}

#[derive(Debug)]
struct Open {
    topic: String,
    bytes: Vec<u8>,
}

impl Inbox {
    /// Takes the bytes of a packet.
    pub fn receive(&mut self, bytes: &[u8]) -> Option<Received> {
        let packet = DataPacket::decode(bytes).ok()?;
        let from = packet.participant_identity;
        if packet.sequence > 0 && !packet.participant_sid.is_empty() {
            if self.numbers.len() >= MAX_SENDERS
                && !self.numbers.contains_key(&packet.participant_sid)
            {
                self.numbers.clear();
            }
            let last = self.numbers.entry(packet.participant_sid).or_default();
            if packet.sequence <= *last {
                return None;
            }
            *last = packet.sequence;
        }
        match packet.value? {
            Value::User(user) => Some(Received {
                from,
                topic: user.topic.unwrap_or_default(),
                text: String::from_utf8(user.payload).ok()?,
            }),
            Value::StreamHeader(header) => self.open(from, header),
            Value::StreamChunk(chunk) => {
                let key = (from, chunk.stream_id);
                let stream = self.streams.get_mut(&key)?;
                if stream.bytes.len() + chunk.content.len() > MAX_TEXT {
                    tracing::warn!(
                        from = key.0,
                        topic = stream.topic,
                        "a text stream is too long and is dropped"
                    );
                    self.streams.remove(&key);
                } else {
                    stream.bytes.extend(chunk.content);
                }
                None
            }
            Value::StreamTrailer(trailer) => {
                let key = (from, trailer.stream_id);
                let stream = self.streams.remove(&key)?;
                Some(Received {
                    from: key.0,
                    topic: stream.topic,
                    text: String::from_utf8(stream.bytes).ok()?,
                })
            }
            _ => None,
        }
    }

    fn open(&mut self, from: String, header: Header) -> Option<Received> {
        if header.compression() != CompressionType::None {
            tracing::debug!(from, "a compressed text stream is not read");
            return None;
        }
        if let Some(content) = header.inline_content {
            let text = String::from_utf8(content).ok()?;
            return Some(Received {
                from,
                topic: header.topic,
                text,
            });
        }
        if self.streams.len() >= MAX_STREAMS {
            tracing::warn!(from, "too many text streams are open; one is dropped");
            let some = self.streams.keys().next().cloned()?;
            self.streams.remove(&some);
        }
        let open = Open {
            topic: header.topic,
            bytes: Vec::new(),
        };
        self.streams.insert((from, header.stream_id), open);
        None
    }
}

/// A message to somebody (all where nobody is named): one packet, or a text stream of the same topic where it is
/// too long for one.
pub(crate) fn message(
    topic: &str,
    text: &str,
    to: Option<&str>,
    unix_ms: i64,
    id: u64,
) -> Vec<DataPacket> {
    if text.len() <= CHUNK {
        let user = UserPacket {
            payload: text.as_bytes().to_vec(),
            topic: Some(topic.to_owned()),
            ..UserPacket::default()
        };
        return vec![packet(Value::User(user), to, None)];
    }
    let stream = TextStream {
        id: format!("{topic}-{id}"),
        topic: topic.to_owned(),
        ..TextStream::default()
    };
    let mut values = vec![stream.header(unix_ms, Some(text.len() as u64))];
    values.extend(chunks(&stream.id, 0, text));
    values.push(trailer(&stream.id, &[]));
    values
        .into_iter()
        .map(|value| packet(value, to, None))
        .collect()
}

/// A packet; `of`: who said it, where that is not us.
pub(crate) fn packet(value: Value, to: Option<&str>, of: Option<&str>) -> DataPacket {
    DataPacket {
        participant_identity: of.unwrap_or_default().to_owned(),
        destination_identities: to.map(str::to_owned).into_iter().collect(),
        value: Some(value),
        ..DataPacket::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn arrive(inbox: &mut Inbox, packets: Vec<DataPacket>) -> Vec<Received> {
        packets
            .into_iter()
            .filter_map(|packet| {
                let packet = DataPacket {
                    participant_identity: "ada".into(),
                    ..packet
                };
                inbox.receive(&packet.encode_to_vec())
            })
            .collect()
    }

    #[test]
    fn messages_of_any_length_arrive_whole() {
        let mut inbox = Inbox::default();
        for length in [0, 5, CHUNK, CHUNK + 1, 5 * CHUNK] {
            let text = "x".repeat(length);
            let received = arrive(&mut inbox, message("topic", &text, None, 0, 1));
            assert_eq!(received.len(), 1, "{length}");
            assert_eq!(
                received[0],
                Received {
                    from: "ada".into(),
                    topic: "topic".into(),
                    text
                }
            );
        }
        assert!(inbox.streams.is_empty());
    }

    #[test]
    fn what_is_sent_twice_after_a_resume_arrives_once() {
        let mut inbox = Inbox::default();
        let mut sent = message("topic", "hello", Some("us"), 0, 1);
        sent[0].sequence = 7;
        sent[0].participant_sid = "PA_1".into();
        assert_eq!(arrive(&mut inbox, sent.clone()).len(), 1);
        assert_eq!(arrive(&mut inbox, sent.clone()).len(), 0);
        sent[0].participant_sid = "PA_2".into();
        assert_eq!(
            arrive(&mut inbox, sent).len(),
            1,
            "another sender's numbers are its own"
        );
    }

    #[test]
    fn a_flood_of_streams_and_a_stream_without_end_cost_no_more_than_their_bounds() {
        let mut inbox = Inbox::default();
        for n in 0..100 {
            let stream = TextStream {
                id: n.to_string(),
                ..TextStream::default()
            };
            arrive(&mut inbox, vec![packet(stream.header(0, None), None, None)]);
        }
        assert_eq!(inbox.streams.len(), MAX_STREAMS);
        let text = "x".repeat(MAX_TEXT + CHUNK);
        assert_eq!(arrive(&mut inbox, message("topic", &text, None, 0, 1)), []);
        assert_eq!(inbox.receive(b"\xff\xff\xff"), None);
    }
}
