//! Voices: the worker ABI from the orchestrator's side, and an utterance that outlives the worker that says it.

mod client;
mod reach;
mod script;
mod speaking;
mod watch;

pub use client::{Utterance, VoiceChoice, VoiceClient, VoiceError, VoiceSession, why};
pub use reach::{Reach, ReachError};
pub(crate) use speaking::{Listener, Purpose, Speaking, Voiced, utterance_id};
