//! Hearing before understanding: when someone speaks, and when they are done.
//!
//! Four parts that know nothing of each other. A [`VoiceDetector`] gives each
//! short window of sound the probability that it holds speech. A [`NoiseGate`]
//! tells what stands out of the noise of the place. A [`SpeechSegmenter`] makes
//! stretches of speech out of both, in sample time, without models or clocks;
//! [`SpeechListener`] joins the three. [`EndOfTurn`] listens to the last
//! seconds as a whole and tells whether they sound finished; it costs a
//! hundred times a window and is meant to be asked once, at the first silence.
//!
//! All sound in this crate is 16 kHz mono in -1.0..=1.0, and every position is a
//! count of such samples since the start of the stream.

mod cleaner;
mod detector;
mod echo_watch;
mod end_of_turn;
mod error;
mod gate;
mod light;
mod listener;
mod segmenter;
mod silero;

pub use cleaner::{CleanerConfig, EchoCancellation, EchoStatistics, NoiseReduction, SoundCleaner};
pub use detector::{VoiceDetector, Window};
pub use end_of_turn::EndOfTurn;
pub use error::VadError;
pub use gate::{GateConfig, GateStatistics, NoiseGate};
pub use light::{Aggressiveness, LightDetector};
pub use listener::{SpeechListener, ThresholdScale};
pub use segmenter::{SegmentEvent, SegmenterConfig, SpeechSegmenter};
pub use silero::{SileroDetector, SileroModel};

/// Samples a second of all sound in this crate.
pub const SAMPLE_RATE: u32 = 16_000;

/// Samples in a number of milliseconds.
pub const fn samples(ms: u32) -> u64 {
    (SAMPLE_RATE / 1000) as u64 * ms as u64
}
