//! Making speech a little shorter or longer without changing its pitch: a period of it is taken out or said twice.
//!
//! Pitch-synchronous overlap-add as in WSOLA (Verhelst and Roelands, 1993): the lag at which the sound is most
//! like itself is searched at 6 kHz, refined at 48 kHz, and the two periods are faded into each other, so that
//! neither end has a step. Where nothing is said any lag will do.

use duologue_audio::pcm;

/// Shortest and longest period looked for: 2.5 and 15 ms, 400 to 67 Hz.
const LAGS: (usize, usize) = (120, 720);
/// Searched at a rate lower by this.
const COARSE: usize = 8;
/// Root mean square below which nothing is said: -55 dBFS.
const QUIET: f32 = 0.0018;

/// Samples that are enough for the longest period.
pub(crate) const ENOUGH: usize = 2 * LAGS.1;

/// Takes out one period of at most `longest` samples near the start. Gives how many samples that was; 0 where the
/// sound is not enough like itself (`alike`, a correlation from 0 to 1) or too short.
pub(crate) fn shorten(samples: &mut Vec<i16>, longest: usize, alike: f32) -> usize {
    let Some(lag) = period(samples, longest, alike) else {
        return 0;
    };
    for n in 0..lag {
        samples[n] = fade(samples[n], samples[n + lag], n, lag);
    }
    samples.drain(lag..2 * lag);
    lag
}

/// Says one period near the start twice. Gives how many samples that added, as [`shorten`].
pub(crate) fn lengthen(samples: &mut Vec<i16>, alike: f32) -> usize {
    let Some(lag) = period(samples, usize::MAX, alike) else {
        return 0;
    };
    let between: Vec<i16> = (0..lag)
        .map(|n| fade(samples[lag + n], samples[n], n, lag))
        .collect();
    samples.splice(lag..lag, between);
    lag
}

fn fade(from: i16, to: i16, n: usize, of: usize) -> i16 {
    let share = (n as f32 + 0.5) / of as f32;
    (f32::from(from) * (1.0 - share) + f32::from(to) * share).round() as i16
}

fn period(samples: &[i16], longest: usize, alike: f32) -> Option<usize> {
    let longest = LAGS.1.min(samples.len() / 2).min(longest);
    if longest < LAGS.0 {
        return None;
    }
    let sound = pcm::i16_to_f32(&samples[..2 * longest]);
    if pcm::rms(&sound) < QUIET {
        return Some(longest);
    }
    let coarse: Vec<f32> = sound
        .chunks_exact(COARSE)
        .map(|chunk| chunk.iter().sum::<f32>() / COARSE as f32)
        .collect();
    let (about, _) = best(
        &coarse,
        LAGS.0 / COARSE..=longest / COARSE,
        longest / COARSE,
    )?;
    let near = (about * COARSE).saturating_sub(COARSE).max(LAGS.0)
        ..=(about * COARSE + COARSE).min(longest);
    let (lag, likeness) = best(&sound, near, longest)?;
    (likeness >= alike).then_some(lag)
}

/// The lag with the highest normalized correlation, and that.
fn best(
    sound: &[f32],
    lags: std::ops::RangeInclusive<usize>,
    longest: usize,
) -> Option<(usize, f32)> {
    let window = longest.min(sound.len() / 2);
    let head = &sound[..window];
    lags.filter(|lag| lag + window <= sound.len())
        .map(|lag| {
            let tail = &sound[lag..lag + window];
            let (mut cross, mut one, mut other) = (0.0f32, 1e-9f32, 1e-9f32);
            for (a, b) in head.iter().zip(tail) {
                cross += a * b;
                one += a * a;
                other += b * b;
            }
            (lag, cross / (one * other).sqrt())
        })
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f32, samples: usize) -> Vec<i16> {
        (0..samples)
            .map(|n| {
                let t = n as f32 / 48_000.0;
                (8_000.0 * (std::f32::consts::TAU * hz * t).sin()) as i16
            })
            .collect()
    }

    fn steepest(samples: &[i16]) -> i32 {
        samples
            .windows(2)
            .map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs())
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn a_tone_stays_the_same_tone_without_a_click() {
        for hz in [80.0, 123.0, 220.0, 391.0] {
            let original = tone(hz, 4_800);
            let shorten = |samples: &mut Vec<i16>, alike| shorten(samples, usize::MAX, alike);
            for change in [shorten as fn(&mut Vec<i16>, f32) -> usize, lengthen] {
                let mut changed = original.clone();
                let by = change(&mut changed, 0.9);
                assert!(by >= LAGS.0, "{hz} Hz: {by}");
                assert_eq!(changed.len().abs_diff(original.len()), by);
                assert_eq!(changed[0], original[0]);
                assert_eq!(changed.last(), original.last());
                let (was, is) = (steepest(&original), steepest(&changed));
                assert!(
                    is <= was + was / 8 + 2,
                    "{hz} Hz: a step of {is} over {was}"
                );
            }
        }
    }

    #[test]
    fn noise_is_left_alone_and_silence_is_not() {
        let mut state = 1u32;
        let mut noise: Vec<i16> = (0..2_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 18) as i16 - 8_192
            })
            .collect();
        assert_eq!(shorten(&mut noise, LAGS.1, 0.9), 0);
        let mut silence = vec![0; 2_000];
        assert_eq!(shorten(&mut silence, LAGS.1, 0.9), LAGS.1);
        assert_eq!(shorten(&mut vec![0; 100], LAGS.1, 0.9), 0, "too short");
    }
}
