//! LiveKit without libwebrtc: a participant in a room, and a worker that a server dispatches rooms to.
//!
//! The messages are LiveKit's own (`livekit-protocol`), the tokens too (`livekit-token`); ICE, DTLS, SRTP and SCTP
//! are str0m's; the jitter buffer and the voice track are those of direct calls (`duologue-rtc`). What decides holds
//! no clock and does no I/O: `audience` whom to hear, `recovery` how to come back, `text_stream` and
//! `packets` what data packets mean, `dispatch` which job to take. [`Room`] and [`AgentWorker`] carry it out.

mod audience;
mod connection;
mod credentials;
mod dispatch;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod packets;
mod recovery;
mod room;
mod socket;
mod text_stream;
mod worker;

pub use credentials::{Credentials, CredentialsError};
pub use error::ConnectError;
pub use packets::Received;
pub use room::{Access, Room, RoomCommand, RoomConfig, RoomEnd, RoomEvent, RoomHandler};
pub use text_stream::TextStream;
pub use worker::{AgentWorker, Job, JobEnd, JobRunner, WorkerConfig};
