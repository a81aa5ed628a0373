//! The OpenAI Realtime events: what clients say, what they are told, and how a session is configured.
//!
//! Everything here is free of I/O, so that the same code serves a WebSocket and a WebRTC data channel.
//! Both spellings of the protocol are read. Clients that ask for the beta (`OpenAI-Beta: realtime=v1`)
//! are answered in it.

mod client_event;
mod encoding;
mod error;
mod item;
mod json;
pub(crate) mod names;
mod scribe;
mod settings;
mod sound;
mod turn_detection;

pub use client_event::{ClientEvent, InputItem, NewItem, ReplyRequest, parse};
pub use encoding::AudioEncoding;
pub use error::EventError;
pub use scribe::Scribe;
pub use settings::{Modality, Resume, SessionSettings, VoiceNames, apply_update};
pub use sound::{HEARING_RATE, InputDecoder, OutputEncoder};
pub use turn_detection::TurnDetection;

/// Which spelling of the protocol a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The generally available one.
    #[default]
    Ga,
    /// `OpenAI-Beta: realtime=v1`.
    Beta,
}
