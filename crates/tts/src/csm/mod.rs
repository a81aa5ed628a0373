//! [CSM](https://github.com/SesameAILabs/csm), the conversational speech model of Sesame: speech that goes on from
//! what was said before, for a GPU.
//!
//! A sentence is a turn: its text is read, then frames of 80 ms are drawn one after the other, each of 32 codes, and
//! each goes through the codec as soon as it is there. Who speaks is told by a recording of them and what is said in
//! it, read once when the voice is loaded and kept as what the network remembers of it; what the session said before is
//! remembered too, within a bound. All who speak at the same time are one batch. An adapter (LoRA) is a voicepack of its own that names its base, and
//! shares the base's weights with all others on it.
//!
//! [`load()`](crate::load()) reads a voicepack. [`random`] makes a voice of no meaning in the shape of the real one,
//! to time it where the checkpoint is not at hand.

mod batch;
mod codec;
mod config;
mod engine;
mod layout;
mod model;
mod prompt;
mod script;
mod settings;
mod speech;
mod turns;
mod voice;

#[cfg(test)]
mod parity;

/// The family of a base.
pub(crate) const FAMILY: &str = "csm";
/// The family of an adapter.
pub(crate) const ADAPTER_FAMILY: &str = "csm-lora";

pub use voice::{RandomVoice, Shape, random};
pub(crate) use voice::{load, load_adapter};
