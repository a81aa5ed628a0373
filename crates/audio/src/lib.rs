//! Sound as the rest of Duologue sees it: 20 ms frames of 48 kHz mono.

/// Samples a second inside Duologue.
pub const SAMPLE_RATE: u32 = 48_000;
/// Samples in a [`Frame`]: 20 ms.
pub const FRAME_SAMPLES: usize = 960;

/// 20 ms of 48 kHz mono sound.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame(pub [i16; FRAME_SAMPLES]);
