//! WAV: 16-bit mono files, whole, growing, or streamed without a known length.
//! Reading is [`crate::decode_file`].

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

/// Bytes of a header made here.
pub const HEADER_BYTES: usize = 44;

/// The header of 16-bit mono PCM. `data_bytes` is the length of the samples
/// that follow; `None` makes the header of a stream whose length is not known,
/// which players take to go on until the end of the connection.
pub fn header(sample_rate: u32, data_bytes: Option<u32>) -> [u8; HEADER_BYTES] {
    let data = data_bytes.unwrap_or(u32::MAX);
    let riff = data.saturating_add(HEADER_BYTES as u32 - 8);
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(b"RIFF");
    header[4..8].copy_from_slice(&riff.to_le_bytes());
    header[8..16].copy_from_slice(b"WAVEfmt ");
    header[16..20].copy_from_slice(&16u32.to_le_bytes());
    header[20..22].copy_from_slice(&1u16.to_le_bytes()); // PCM
    header[22..24].copy_from_slice(&1u16.to_le_bytes()); // channels
    header[24..28].copy_from_slice(&sample_rate.to_le_bytes());
    header[28..32].copy_from_slice(&(sample_rate * 2).to_le_bytes());
    header[32..34].copy_from_slice(&2u16.to_le_bytes()); // bytes a frame
    header[34..36].copy_from_slice(&16u16.to_le_bytes()); // bits a sample
    header[36..40].copy_from_slice(b"data");
    header[40..].copy_from_slice(&data.to_le_bytes());
    header
}

/// A whole file in memory.
pub fn encode(samples: &[i16], sample_rate: u32) -> Vec<u8> {
    let bytes = u32::try_from(samples.len() * 2).ok();
    let mut file = Vec::with_capacity(HEADER_BYTES + samples.len() * 2);
    file.extend(header(sample_rate, bytes));
    file.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
    file
}

/// A file that is written while the sound comes in. Call [`WavWriter::finish`],
/// which tells whether all of it reached the disk.
pub struct WavWriter(hound::WavWriter<BufWriter<File>>);

impl WavWriter {
    /// Creates (or replaces) a 16-bit mono file.
    pub fn create(path: &Path, sample_rate: u32) -> io::Result<WavWriter> {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        hound::WavWriter::create(path, spec)
            .map(WavWriter)
            .map_err(io_error)
    }

    /// Adds samples.
    pub fn write(&mut self, samples: &[i16]) -> io::Result<()> {
        samples
            .iter()
            .try_for_each(|&sample| self.0.write_sample(sample))
            .map_err(io_error)
    }

    /// Writes the length into the header and closes the file.
    pub fn finish(self) -> io::Result<()> {
        self.0.finalize().map_err(io_error)
    }
}

fn io_error(error: hound::Error) -> io::Error {
    match error {
        hound::Error::IoError(error) => error,
        other => io::Error::other(other),
    }
}
