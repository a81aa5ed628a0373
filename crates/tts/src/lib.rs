//! A voice turns text into sound piece by piece, and whoever listens pulls the pieces.
//!
//! Pulling is what makes a voice interruptible: a worker that pauses simply stops pulling, one that stops
//! drops the [`Speech`], and one that keeps a bounded lead pulls only when the listener has caught up. So an
//! adapter needs no threads, queues or clocks of its own; it computes the next piece when asked. Only one that
//! computes for several sessions at once has a thread that keeps a piece or two ahead of each.
//!
//! [`Synthesizer`] is a loaded voice and [`Speech`] one utterance of it. [`FrameStream`] puts a `Speech` into
//! the 48 kHz frames that the rest of Duologue passes around. Each adapter has a folder; [`load()`] picks one by
//! the voicepack's family.

#[cfg(feature = "conformance")]
pub mod conformance;
mod conversation;
#[cfg(feature = "csm")]
pub mod csm;
mod device;
mod frame_stream;
#[cfg(feature = "espeak")]
#[doc(hidden)]
pub mod fuzzing;
mod load;
#[cfg(feature = "csm")]
mod neural;
mod piper;
mod speech;
#[cfg(any(feature = "espeak", feature = "csm"))]
mod texts;
pub mod tone;
mod voice;
mod words;

pub use conversation::Conversation;
pub use device::DeviceChoice;
pub use frame_stream::{FrameStream, SpokenFrame};
pub use load::{FAMILIES, LoadOptions, load};
pub use speech::{Sound, Speech, StopFlag, Synthesizer, TtsError, WordMark};
pub use voice::{Settings, Voice};
