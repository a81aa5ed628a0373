//! A TTS worker: voices behind the worker ABI, `duologue.tts.v1`.
//!
//! Text comes in, 20 ms frames go out, a bounded lead ahead of who listens. The path of an utterance is
//! short: its task hands text to the engine and puts the frames it gets into an outbox; the connection takes
//! them out as the pacer allows. There is no other queue, so a pause or a stop holds at once, and where
//! nothing is taken nothing is computed.
//!
//! What decides is apart from what does: when a frame may leave (`pacing`), who computes next
//! (`schedule`) and what may be done to which voice (`model_manager`) are plain values tested without a
//! clock or a thread.
//!
//! [`Worker::start`] makes one; [`Worker::serve`] puts it on a socket and [`Worker::channel`] connects to it
//! within the process. Both are the same service on the same code path.

mod announce;
mod capabilities;
mod config;
mod engine;
mod figures;
mod model_manager;
mod outbox;
mod pacing;
mod refusal;
mod schedule;
mod service;
mod sessions;
mod trace;
mod utterance;
mod validate;
mod voices;
mod worker;

pub use announce::Place;
pub use config::{Timeouts, ToneConfig, WorkerConfig};
pub use model_manager::ModelError;
pub use voices::{VoiceEntry, VoiceSource};
pub use worker::{Worker, WorkerError};
