//! Sample formats: signed 16 bit, floating point, and their bytes.

/// One floating-point sample as 16 bit: rounded to nearest, saturated at the
/// ends, NaN as silence.
#[inline]
pub fn to_i16(sample: f32) -> i16 {
    // `as` saturates and takes NaN to zero.
    (sample * 32768.0).round() as i16
}

/// One 16-bit sample as floating point in -1.0..1.0.
#[inline]
pub fn to_f32(sample: i16) -> f32 {
    f32::from(sample) / 32768.0
}

/// Floating-point samples as 16 bit; see [`to_i16`].
pub fn f32_to_i16(samples: &[f32]) -> Vec<i16> {
    samples.iter().map(|&s| to_i16(s)).collect()
}

/// 16-bit samples as floating point in -1.0..1.0.
pub fn i16_to_f32(samples: &[i16]) -> Vec<f32> {
    samples.iter().map(|&s| to_f32(s)).collect()
}

/// 16-bit samples as little-endian bytes (`pcm16`, `s16le`).
pub fn i16_to_le_bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|s| s.to_le_bytes()).collect()
}

/// Little-endian bytes as 16-bit samples. A lone last byte is left out: keep it
/// and put it before the next block.
pub fn le_bytes_to_i16(bytes: &[u8]) -> Vec<i16> {
    bytes
        .chunks_exact(2)
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect()
}

/// Amplitude (0.0 and up) in decibels relative to full scale; silence is
/// negative infinity.
pub fn dbfs(amplitude: f32) -> f32 {
    20.0 * amplitude.log10()
}

/// Root mean square of the samples; 0.0 when there are none.
pub fn rms(samples: &[f32]) -> f32 {
    if samples.is_empty() {
        return 0.0;
    }
    let energy: f64 = samples.iter().map(|&s| f64::from(s) * f64::from(s)).sum();
    (energy / samples.len() as f64).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sixteen_bit_survives_the_way_through_floating_point(samples: Vec<i16>) {
            prop_assert_eq!(f32_to_i16(&i16_to_f32(&samples)), samples);
        }

        #[test]
        fn sixteen_bit_survives_the_way_through_bytes(samples: Vec<i16>) {
            prop_assert_eq!(le_bytes_to_i16(&i16_to_le_bytes(&samples)), samples);
        }
    }

    #[test]
    fn out_of_range_saturates_and_nan_is_silence() {
        assert_eq!(
            f32_to_i16(&[2.0, 1.0, -1.0, -7.0, f32::NAN]),
            [32767, 32767, -32768, -32768, 0]
        );
    }

    #[test]
    fn a_lone_last_byte_is_left_out() {
        assert_eq!(le_bytes_to_i16(&[1, 0, 2]), [1]);
    }

    #[test]
    fn levels_are_relative_to_full_scale() {
        assert!((dbfs(0.5) + 6.0206).abs() < 1e-3);
        assert_eq!(dbfs(rms(&[])), f32::NEG_INFINITY);
    }
}
