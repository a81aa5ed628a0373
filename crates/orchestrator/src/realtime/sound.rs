//! Sound as events carry it: the user's bytes to 16 kHz samples, reply frames to the client's encoding.

use duologue_audio::{Frame, ResampleError, Resampler, g711, pcm};

use super::AudioEncoding;

/// Rate at which Duologue listens, Hz.
pub const HEARING_RATE: u32 = 16_000;

/// Reads the user's sound.
pub struct InputDecoder {
    encoding: AudioEncoding,
    resampler: Resampler,
    /// First byte of a sample whose second is in the next event.
    carry: Option<u8>,
}

impl InputDecoder {
    /// A decoder at the start of a stream.
    ///
    /// # Errors
    /// When the rate cannot be converted; no [`AudioEncoding`] has such a rate.
    pub fn new(encoding: AudioEncoding) -> Result<Self, ResampleError> {
        Ok(Self {
            encoding,
            resampler: Resampler::new(encoding.sample_rate(), HEARING_RATE)?,
            carry: None,
        })
    }

    /// How it reads.
    #[must_use]
    pub fn encoding(&self) -> AudioEncoding {
        self.encoding
    }

    /// Mono samples at [`HEARING_RATE`], -1 to 1.
    pub fn decode(&mut self, mut bytes: Vec<u8>) -> Vec<f32> {
        let samples = match self.encoding {
            AudioEncoding::Pcm16 => {
                if let Some(first) = self.carry.take() {
                    bytes.insert(0, first);
                }
                if bytes.len() % 2 == 1 {
                    self.carry = bytes.pop();
                }
                pcm::le_bytes_to_i16(&bytes)
            }
            AudioEncoding::G711Ulaw => g711::decode_ulaw_block(&bytes),
            AudioEncoding::G711Alaw => g711::decode_alaw_block(&bytes),
        };
        self.resampler.process(&pcm::i16_to_f32(&samples))
    }
}

/// Writes a reply's frames.
pub struct OutputEncoder {
    encoding: AudioEncoding,
    resampler: Resampler,
}

impl OutputEncoder {
    /// An encoder at the start of a reply.
    ///
    /// # Errors
    /// When the rate cannot be converted; no [`AudioEncoding`] has such a rate.
    pub fn new(encoding: AudioEncoding) -> Result<Self, ResampleError> {
        Ok(Self {
            encoding,
            resampler: Resampler::new(duologue_audio::SAMPLE_RATE, encoding.sample_rate())?,
        })
    }

    /// The bytes of these frames, less the resampler's delay.
    pub fn encode(&mut self, frames: &[Frame]) -> Vec<u8> {
        let mut samples = Vec::new();
        for frame in frames {
            self.resampler.process_into(&frame.to_f32(), &mut samples);
        }
        self.write(&samples)
    }

    /// What the resampler still holds; the reply is complete with it.
    pub fn finish(&mut self) -> Vec<u8> {
        let rest = self.resampler.flush();
        self.write(&rest)
    }

    fn write(&self, samples: &[f32]) -> Vec<u8> {
        let samples = pcm::f32_to_i16(samples);
        match self.encoding {
            AudioEncoding::Pcm16 => pcm::i16_to_le_bytes(&samples),
            AudioEncoding::G711Ulaw => g711::encode_ulaw_block(&samples),
            AudioEncoding::G711Alaw => g711::encode_alaw_block(&samples),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use duologue_audio::FRAME_SAMPLES;

    fn tone(rate: u32, seconds: f32) -> Vec<f32> {
        (0..(rate as f32 * seconds) as usize)
            .map(|n| 0.5 * (std::f32::consts::TAU * 440.0 * n as f32 / rate as f32).sin())
            .collect()
    }

    #[test]
    fn a_sample_cut_in_two_by_events_is_whole_again() {
        let bytes = pcm::i16_to_le_bytes(&pcm::f32_to_i16(&tone(24_000, 0.2)));
        let whole = InputDecoder::new(AudioEncoding::Pcm16)
            .unwrap()
            .decode(bytes.clone());
        let mut decoder = InputDecoder::new(AudioEncoding::Pcm16).unwrap();
        let mut pieces = Vec::new();
        for piece in bytes.chunks(333) {
            pieces.extend(decoder.decode(piece.to_vec()));
        }
        assert_eq!(pieces, whole);
    }

    #[test]
    fn every_encoding_carries_a_reply_at_its_own_rate_and_level() {
        let samples = pcm::f32_to_i16(&tone(48_000, 1.0));
        let frames: Vec<Frame> = samples
            .as_chunks::<FRAME_SAMPLES>()
            .0
            .iter()
            .map(|samples| Frame(*samples))
            .collect();
        for encoding in [
            AudioEncoding::Pcm16,
            AudioEncoding::G711Ulaw,
            AudioEncoding::G711Alaw,
        ] {
            let mut encoder = OutputEncoder::new(encoding).unwrap();
            let mut bytes = Vec::new();
            for piece in frames.chunks(7) {
                bytes.extend(encoder.encode(piece));
            }
            bytes.extend(encoder.finish());
            let expected = encoding.sample_rate() as usize * encoding.sample_bytes();
            assert!(
                bytes.len().abs_diff(expected) <= 4,
                "{encoding:?}: {}",
                bytes.len()
            );
            let heard = InputDecoder::new(encoding).unwrap().decode(bytes);
            let level = pcm::rms(&heard[4_000..12_000]);
            assert!((level - 0.3535).abs() < 0.02, "{encoding:?}: {level}");
        }
    }
}
