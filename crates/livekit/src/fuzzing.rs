//! Private parsers of what strangers send, for the fuzz targets. No part of the interface.

use livekit_protocol::signal_response::Message;
use livekit_protocol::{ServerMessage, SignalResponse};
use prost::Message as _;
use str0m::Candidate;

use crate::audience::Audience;
use crate::connection::{candidate_of, tracks_of};
use crate::packets::Inbox;
use crate::socket::{address, unix_time};

/// Data packets of others, one after the other.
pub fn data_packets(packets: &[&[u8]]) {
    let mut inbox = Inbox::default();
    for packet in packets {
        inbox.receive(packet);
    }
}

/// A message of the server's to a participant.
pub fn signal(bytes: &[u8]) {
    let Ok(response) = SignalResponse::decode(bytes) else {
        return;
    };
    let mut audience = Audience::new(None);
    match response.message {
        Some(Message::Join(join)) => {
            audience.joined("us", &join.other_participants);
        }
        Some(Message::Update(update)) => {
            audience.update(&update.participants);
        }
        Some(Message::Trickle(trickle)) => {
            candidate_of(&trickle.candidate_init);
        }
        _ => {}
    }
}

/// A message of the server's to a worker.
pub fn job(bytes: &[u8]) {
    let _ = ServerMessage::decode(bytes);
}

/// An offer or a candidate.
pub fn description(text: &str) {
    for (mid, track) in tracks_of(text) {
        assert!(text.contains(&mid) && track.starts_with("TR_"));
    }
    candidate_of(text);
    let _ = Candidate::from_sdp_string(text);
}

/// What stands in the head of an answer, and an address.
pub fn answer(text: &str) {
    unix_time(text);
    if let Ok(address) = address(text, "/rtc") {
        assert!(address.starts_with("ws"));
    }
}
