//! Where in a stretch of audio anything is to be heard, and how many frames of it the encoder has to see.

use std::ops::Range;

use crate::{SAMPLE_RATE, Word};

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
    let power = power(audio);
    let threshold = threshold(&power);
    let first = power.iter().position(|&p| p > threshold)?;
    let last = power.iter().rposition(|&p| p > threshold)?;
    let start = (first * HOP).saturating_sub(KEPT);
    let end = ((last + 1) * HOP + KEPT).min(audio.len());
    Some(start..end)
}

/// Seconds of the audio that stand out from the room.
pub(super) fn heard_seconds(audio: &[f32]) -> f32 {
    let power = power(audio);
    let threshold = threshold(&power).max(above_the_room(&power));
    let heard = power.iter().filter(|&&p| p > threshold).count();
    (heard * HOP) as f32 / SAMPLE_RATE as f32
}

/// Takes the pauses off the words. The decoder looks at a word from the end of the one before, so a word's time
/// begins with the pause before it and the last one's ends with the silence after.
pub(super) fn take_pauses_off(words: &mut [Word], audio: &[f32]) {
    let power = power(audio);
    let threshold = threshold(&power).max(above_the_room(&power));
    let heard: Vec<bool> = power.into_iter().map(|p| p > threshold).collect();
    let hop = |seconds: f32| (seconds * SAMPLE_RATE as f32 / HOP as f32).round() as usize;
    let seconds = |hop: usize| (hop * HOP) as f32 / SAMPLE_RATE as f32;
    for word in words {
        let first = hop(word.start);
        let within = heard.get(first..hop(word.end).min(heard.len()));
        if let Some(run) = within.and_then(longest_run) {
            word.start = word.start.max(seconds(first + run.start));
            word.end = word.end.min(seconds(first + run.end)).max(word.start);
        }
    }
}

/// The longest stretch that is heard, without a pause of 0.24 s or more.
fn longest_run(heard: &[bool]) -> Option<Range<usize>> {
    const PAUSE: usize = 12;
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (i, _) in heard.iter().enumerate().filter(|(_, h)| **h) {
        match runs.last_mut() {
            Some(run) if i - run.end < PAUSE => run.end = i + 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs.into_iter().max_by_key(Range::len)
}

/// Mean square of each 20 ms.
fn power(audio: &[f32]) -> Vec<f32> {
    audio
        .chunks(HOP)
        .map(|hop| hop.iter().map(|s| s * s).sum::<f32>() / hop.len() as f32)
        .collect()
}

/// What is not above it is not speech.
fn threshold(power: &[f32]) -> f32 {
    let loudest = power.iter().copied().fold(0.0, f32::max);
    FAINTEST.max(loudest * BELOW_LOUDEST)
}

/// 6 dB above the quietest tenth, which is the room; but no more than 13 dB below the loudest, which is speech.
fn above_the_room(power: &[f32]) -> f32 {
    let mut sorted = power.to_vec();
    sorted.sort_by(f32::total_cmp);
    let room = sorted.get(sorted.len() / 10).copied().unwrap_or(0.0);
    let loudest = sorted.last().copied().unwrap_or(0.0);
    (room * 4.0).min(loudest * 0.05)
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

    #[test]
    fn words_lose_the_pauses_around_them_and_nothing_else() {
        let mut audio = tone(1.0, 0.1);
        audio.extend(vec![0.0; 16_000]);
        audio.extend(tone(1.0, 0.1));
        audio.extend(vec![0.0; 16_000]);
        let word = |start, end| Word {
            start,
            end,
            ..Word::default()
        };
        let mut words = [
            word(0.0, 0.6),
            word(0.6, 1.0),
            word(1.0, 2.5),
            word(2.5, 4.0),
            word(1.2, 1.8),
            word(0.9, 2.5),
        ];
        take_pauses_off(&mut words, &audio);
        let times: Vec<_> = words
            .iter()
            .map(|w| ((w.start * 10.0).round(), (w.end * 10.0).round()))
            .collect();
        assert_eq!(
            times,
            [
                (0.0, 6.0),
                (6.0, 10.0),
                (20.0, 25.0),
                (25.0, 30.0),
                (12.0, 18.0),
                (20.0, 25.0)
            ]
        );
    }
}
