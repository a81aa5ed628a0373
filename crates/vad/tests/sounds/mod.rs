//! Sound for tests: recordings, and noise that is the same each time. 16 kHz.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "not every test uses all of it"
)]

use std::path::Path;

use duologue_audio::decode_file;

/// A file below `tests/data`.
pub fn recording(file: &str) -> Vec<f32> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data");
    decode_file(&folder.join(file)).unwrap().samples
}

/// Somebody who speaks.
pub fn clip(name: &str) -> Vec<f32> {
    recording(&format!("speech/{name}.flac"))
}

/// White noise of an amplitude.
pub fn noise(length: usize, amplitude: f32) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            amplitude * ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
        })
        .collect()
}
