//! Long audio in windows, cut where it hurts least.

use std::ops::Range;

use crate::SAMPLE_RATE;

/// Loudness is measured over this many samples, 20 ms.
const HOP: usize = SAMPLE_RATE as usize / 50;
/// A cut is in the middle of the quietest stretch of this many hops, 240 ms.
const QUIET_HOPS: usize = 12;

/// Cuts audio at 16 kHz into consecutive windows of at most `max_seconds` that together cover all of it.
///
/// Each cut lies in the quietest 240 ms of the second half of its window, so a window is cut through a word only
/// where somebody speaks that long without a breath. `max_seconds` below 1 counts as 1.
#[must_use]
pub fn split_at_silence(audio_16k: &[f32], max_seconds: f32) -> Vec<Range<usize>> {
    let max = (max_seconds.max(1.0) * SAMPLE_RATE as f32) as usize;
    let mut windows = Vec::new();
    let mut start = 0;
    while audio_16k.len() - start > max {
        let search = start + max / 2..start + max;
        let cut = quietest(&audio_16k[search.clone()]).map_or(search.end, |at| search.start + at);
        windows.push(start..cut);
        start = cut;
    }
    if start < audio_16k.len() {
        windows.push(start..audio_16k.len());
    }
    windows
}

/// Middle of the quietest stretch; the last of equals, so that windows are as long as may be.
fn quietest(audio: &[f32]) -> Option<usize> {
    let energy: Vec<f32> = audio
        .chunks_exact(HOP)
        .map(|hop| {
            hop.iter()
                .map(|s| if s.is_finite() { s * s } else { 0.0 })
                .sum::<f32>()
        })
        .collect();
    energy
        .windows(QUIET_HOPS)
        .enumerate()
        .map(|(i, hops)| (i, hops.iter().sum::<f32>()))
        .fold(None, |best: Option<(usize, f32)>, (i, sum)| match best {
            Some((_, least)) if least < sum => best,
            _ => Some((i, sum)),
        })
        .map(|(i, _)| (i + QUIET_HOPS / 2) * HOP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(seconds: f32) -> Vec<f32> {
        (0..(seconds * 16_000.0) as usize)
            .map(|i| 0.3 * (i as f32 * 0.2).sin())
            .collect()
    }

    #[test]
    fn short_audio_is_one_window_and_none_is_none() {
        assert_eq!(split_at_silence(&tone(3.0), 30.0), vec![0..48_000]);
        assert_eq!(split_at_silence(&[], 30.0), Vec::<Range<usize>>::new());
    }

    #[test]
    fn the_cut_lies_in_the_pause() {
        let mut audio = tone(25.0);
        audio.extend(vec![0.0; 16_000 / 2]);
        audio.extend(tone(20.0));
        let windows = split_at_silence(&audio, 30.0);
        assert_eq!(windows.len(), 2);
        let cut = windows[0].end as f32 / 16_000.0;
        assert!((25.0..25.5).contains(&cut), "cut at {cut} s");
    }

    #[test]
    fn windows_cover_everything_and_none_is_too_long() {
        for seconds in [0.01, 29.99, 30.0, 30.01, 61.0, 200.0] {
            let audio = tone(seconds);
            let windows = split_at_silence(&audio, 30.0);
            let mut at = 0;
            for w in &windows {
                assert_eq!(w.start, at);
                assert!(w.end > w.start && w.len() <= 30 * 16_000);
                at = w.end;
            }
            assert_eq!(at, audio.len());
        }
    }
}
