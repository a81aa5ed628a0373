//! G.711: the two ways telephones put 8 kHz speech into 8 bits a sample.
//!
//! ITU-T Recommendation G.711: A-law (13 bit) and u-law (14 bit), both in the
//! upper bits of 16-bit samples here. Rate conversion is the caller's.

/// Offset that makes the u-law segments powers of two.
const ULAW_BIAS: i32 = 0x84;
const ULAW_CLIP: i32 = 32_635;

/// One sample as u-law (`audio/pcmu`).
pub fn encode_ulaw(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(ULAW_CLIP) + ULAW_BIAS;
    // The magnitude is at least 0x84, so bit 7 or a higher one is its highest.
    let exponent = magnitude.ilog2() - 7;
    let mantissa = (magnitude >> (exponent + 3)) & 0x0f;
    !(sign | (exponent as u8) << 4 | mantissa as u8)
}

/// One u-law byte as a sample.
pub fn decode_ulaw(byte: u8) -> i16 {
    let byte = !byte;
    let exponent = (byte >> 4) & 7;
    let mantissa = i32::from(byte & 0x0f);
    let magnitude = (((mantissa << 3) + ULAW_BIAS) << exponent) - ULAW_BIAS;
    (if byte & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }) as i16
}

/// One sample as A-law (`audio/pcma`).
pub fn encode_alaw(sample: i16) -> u8 {
    let sign = if sample < 0 { 0 } else { 0x80 };
    // One's complement, so that -1 and 0 are the two smallest values.
    let magnitude = i32::from(if sample < 0 { !sample } else { sample });
    let code = match magnitude {
        0..256 => magnitude >> 4,
        _ => {
            let exponent = magnitude.ilog2() - 7;
            (exponent as i32) << 4 | (magnitude >> (exponent + 3)) & 0x0f
        }
    };
    (sign | code as u8) ^ 0x55
}

/// One A-law byte as a sample.
pub fn decode_alaw(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let exponent = (byte >> 4) & 7;
    let mantissa = i32::from(byte & 0x0f) << 4;
    let magnitude = match exponent {
        0 => mantissa + 8,
        _ => (mantissa + 0x108) << (exponent - 1),
    };
    (if byte & 0x80 == 0 {
        -magnitude
    } else {
        magnitude
    }) as i16
}

/// Samples as u-law bytes.
pub fn encode_ulaw_block(samples: &[i16]) -> Vec<u8> {
    samples.iter().map(|&s| encode_ulaw(s)).collect()
}

/// u-law bytes as samples.
pub fn decode_ulaw_block(bytes: &[u8]) -> Vec<i16> {
    bytes.iter().map(|&b| decode_ulaw(b)).collect()
}

/// Samples as A-law bytes.
pub fn encode_alaw_block(samples: &[i16]) -> Vec<u8> {
    samples.iter().map(|&s| encode_alaw(s)).collect()
}

/// A-law bytes as samples.
pub fn decode_alaw_block(bytes: &[u8]) -> Vec<i16> {
    bytes.iter().map(|&b| decode_alaw(b)).collect()
}
