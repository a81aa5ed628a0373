//! A client of `/v1/realtime`: a microphone that streams in real time, a loudspeaker that plays in real time, and the
//! events in between.
//!
//! [`connect`] gives the two halves of a connection, [`Speaker`] and [`Listener`]. [`Playout`] is the loudspeaker: it is
//! told the events and asked for 20 ms at a time, and has no clock of its own. Who ticks, ticks every [`BLOCK_TIME`].

mod connection;
mod error;
mod playout;

use std::path::Path;
use std::time::Duration;

pub use connection::{Listener, Speaker, connect};
pub use error::ClientError;
pub use playout::Playout;

/// Samples a second in both directions.
pub const RATE: u32 = 24_000;
/// Samples that the microphone sends at a time, and the loudspeaker plays.
pub const BLOCK: usize = RATE as usize / 50;
/// How long a block lasts.
pub const BLOCK_TIME: Duration = Duration::from_millis(20);

/// Reads a sound file as the microphone's samples, at [`RATE`].
///
/// # Errors
/// [`ClientError::Sound`], [`ClientError::Rate`]: what is wrong with the file.
pub fn read_sound(path: &Path) -> Result<Vec<i16>, ClientError> {
    let recording = duologue_audio::decode_file(path).map_err(|source| ClientError::Sound {
        path: path.to_owned(),
        source,
    })?;
    let recording = recording.at_rate(RATE)?;
    Ok(duologue_audio::pcm::f32_to_i16(&recording.samples))
}
