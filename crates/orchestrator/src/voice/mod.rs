//! Voices: the worker ABI from the orchestrator's side, and an utterance that outlives the worker that says it.

mod client;
mod script;
mod speaking;
mod watch;

pub use client::{Utterance, VoiceChoice, VoiceClient, VoiceError, VoiceSession};
pub(crate) use speaking::{Listener, Purpose, Speaking, Voiced};
