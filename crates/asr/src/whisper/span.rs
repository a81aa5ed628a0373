//! Where in a stretch of audio anything is to be heard, and how many frames of it the encoder has to see.

use std::ops::Range;

use crate::SAMPLE_RATE;

/// Loudness is measured over this many samples, 20 ms.
const HOP: usize = SAMPLE_RATE as usize / 50;
/// Nothing fainter than this holds a word: -60 dB below full scale, as a mean square.
const FAINTEST: f32 = 1e-6;
/// What is this much fainter than the loudest (35 dB, as a ratio of mean squares) is not speech either.
const BELOW_LOUDEST: f32 = 3.16e-4;
/// Kept before and after, so that no soft consonant is cut: 0.2 s.
const KEPT: usize = SAMPLE_RATE as usize / 5;
/// No word is shorter: 0.1 s.
const SHORTEST: usize = SAMPLE_RATE as usize / 10;

/// The part of the audio that may hold speech, in samples; `None` when none does.
pub(super) fn audible(audio: &[f32]) -> Option<Range<usize>> {
    if audio.len() < SHORTEST {
        return None;
    }
    let power: Vec<f32> = audio
        .chunks(HOP)
        .map(|hop| hop.iter().map(|s| s * s).sum::<f32>() / hop.len() as f32)
        .collect();
    let loudest = power.iter().copied().fold(0.0, f32::max);
    let threshold = FAINTEST.max(loudest * BELOW_LOUDEST);
    let first = power.iter().position(|&p| p > threshold)?;
    let last = power.iter().rposition(|&p| p > threshold)?;
    let start = (first * HOP).saturating_sub(KEPT);
    let end = ((last + 1) * HOP + KEPT).min(audio.len());
    Some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(seconds: f32, level: f32) -> Vec<f32> {
        (0..(seconds * 16_000.0) as usize)
            .map(|i| level * (i as f32 * 0.3).sin())
            .collect()
    }

    #[test]
    fn nothing_is_audible_in_silence_or_in_a_click_of_a_moment() {
        assert_eq!(audible(&[]), None);
        assert_eq!(audible(&vec![0.0; 48_000]), None);
        assert_eq!(audible(&tone(3.0, 0.0005)), None);
        assert_eq!(audible(&tone(0.05, 0.5)), None);
    }

    #[test]
    fn silence_before_and_after_is_left_out() {
        let mut audio = vec![0.0; 32_000];
        audio.extend(tone(1.0, 0.1));
        audio.extend(vec![0.0001; 32_000]);
        assert_eq!(audible(&audio), Some(32_000 - KEPT..48_000 + KEPT));
    }

    #[test]
    fn all_of_a_noisy_room_is_kept() {
        let audio = tone(2.0, 0.02);
        assert_eq!(audible(&audio), Some(0..32_000));
    }
}
