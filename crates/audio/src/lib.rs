//! Sound as the rest of Duologue sees it: 20 ms frames of 48 kHz mono.
//!
//! Everything that enters (files, Opus, G.711, browsers at any rate) becomes
//! mono samples here, and everything that leaves is made from them here, so
//! that no other crate knows about containers, codecs or rates.
//!
//! Floating-point samples are nominally in -1.0..=1.0; integer samples are
//! signed 16 bit. Nothing in this crate keeps time or does I/O, except for the
//! functions that open a file by its path.

pub mod decode;
pub mod frame;
pub mod g711;
pub mod loudness;
pub mod mel;
pub mod ogg;
pub mod opus;
pub mod pcm;
pub mod resample;
pub mod wav;

pub use decode::{DecodeError, Recording, decode_bytes, decode_bytes_within, decode_file};
pub use frame::{Frame, Framer};
pub use resample::{ResampleError, Resampler, resample};

/// Samples a second inside Duologue.
pub const SAMPLE_RATE: u32 = 48_000;
/// Samples in a [`Frame`]: 20 ms.
pub const FRAME_SAMPLES: usize = 960;
/// Milliseconds in a [`Frame`].
pub const FRAME_MS: u32 = 20;
