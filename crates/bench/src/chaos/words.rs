//! Which words were heard, from the sound alone: the test voice says each as a tone of 60 ms a character.
//!
//! The texts are made of words whose neighbours differ in length, so that one that is missing or came twice is found
//! by lining up the lengths that were meant with those that were heard.

use duologue_client::RATE;

/// Samples of a character.
const CHARACTER: f64 = RATE as f64 * 0.060;
/// Samples over which the level is looked at: two waves of the tone.
const WINDOW: usize = RATE as usize / 500;
/// Below this, it is silent.
const SILENT: u16 = 900;
/// A tone may be so much longer or shorter than meant, in characters.
const TOLERANCE: f64 = 0.35;

/// One word of each length.
const WORDS: [&str; 8] = [
    "it",
    "sun",
    "rain",
    "river",
    "garden",
    "evening",
    "mountain",
    "wonderful",
];

/// Words of a sentence. Short ones: a long one is cut up to be spoken, and between its parts the test voice makes no
/// pause.
const SENTENCE: usize = 4;

/// A text of so many words, another one for each number.
pub fn text(number: usize, words: usize) -> String {
    let mut state = number as u64 * 2 + 1;
    let mut last = WORDS.len();
    let mut chosen = Vec::new();
    while chosen.len() < words {
        // A linear congruence (Knuth): texts need to differ, not to surprise.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let next = (state >> 33) as usize % WORDS.len();
        if next != last {
            chosen.push(WORDS[next]);
            last = next;
        }
    }
    let sentence = |words: &[&str]| {
        let mut sentence = words.join(" ");
        sentence[..1].make_ascii_uppercase();
        format!("{sentence}.")
    };
    let sentences: Vec<String> = chosen.chunks(SENTENCE).map(sentence).collect();
    sentences.join(" ")
}

/// How long the tones in a sound are, in characters.
pub fn tones(sound: &[i16]) -> Vec<f64> {
    let mut tones = Vec::new();
    let mut length = 0;
    for window in sound.chunks(WINDOW) {
        let loud = window.iter().any(|sample| sample.unsigned_abs() > SILENT);
        if loud {
            length += window.len();
        } else if length > 0 {
            tones.push(length as f64 / CHARACTER);
            length = 0;
        }
    }
    if length > 0 {
        tones.push(length as f64 / CHARACTER);
    }
    tones
}

/// What became of a text's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// Not heard.
    pub lost: usize,
    /// Heard again, whole or in part.
    pub repeated: usize,
}

/// Lines up what was meant with what was heard, at the least cost.
pub fn fate(text: &str, tones: &[f64]) -> Fate {
    let meant: Vec<f64> = text
        .split_whitespace()
        .map(|word| word.chars().filter(|c| c.is_alphanumeric()).count() as f64)
        .collect();
    // best[j]: the words so far against the first j tones. A lost word costs more than a tone too many.
    let cost = |fate: &Fate| fate.lost * 3 + fate.repeated * 2;
    let mut best: Vec<Fate> = (0..=tones.len())
        .map(|repeated| Fate { lost: 0, repeated })
        .collect();
    for word in &meant {
        let before = best.clone();
        for at in 0..=tones.len() {
            let mut options = vec![Fate {
                lost: before[at].lost + 1,
                ..before[at]
            }];
            if at > 0 {
                options.push(Fate {
                    repeated: best[at - 1].repeated + 1,
                    ..best[at - 1]
                });
                let heard = tones[at - 1];
                if (heard - word).abs() <= TOLERANCE {
                    options.push(before[at - 1]);
                } else if heard > *word && heard < 2.0 * word {
                    // A part of it, and at once all of it.
                    options.push(Fate {
                        repeated: before[at - 1].repeated + 1,
                        ..before[at - 1]
                    });
                }
            }
            best[at] = options.into_iter().min_by_key(cost).unwrap_or_default();
        }
    }
    best.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tones of words of these lengths, as the test voice says them.
    fn sound(lengths: &[f64]) -> Vec<i16> {
        let mut sound = Vec::new();
        for length in lengths {
            let samples = (length * CHARACTER) as usize;
            sound.extend((0..samples).map(|n| {
                let wave = (std::f64::consts::TAU * 1_000.0 * n as f64 / f64::from(RATE)).sin();
                (wave * 8_000.0) as i16
            }));
            sound.extend(std::iter::repeat_n(0, CHARACTER as usize));
        }
        sound
    }

    fn heard(text: &str, lengths: &[f64]) -> (usize, usize) {
        let fate = fate(text, &tones(&sound(lengths)));
        (fate.lost, fate.repeated)
    }

    #[test]
    fn words_that_are_missing_or_come_twice_are_found_in_the_sound() {
        let text = "rain it mountain sun.";
        assert_eq!(heard(text, &[4.0, 2.0, 8.0, 3.0]), (0, 0));
        assert_eq!(heard(text, &[4.0, 8.0, 3.0]), (1, 0));
        assert_eq!(heard(text, &[4.0, 2.0, 8.0]), (1, 0));
        assert_eq!(heard(text, &[4.0, 2.0, 2.0, 8.0, 3.0]), (0, 1));
        // A part of the third word, apart or run together with the whole of it.
        assert_eq!(heard(text, &[4.0, 2.0, 3.3, 8.0, 3.0]), (0, 1));
        assert_eq!(heard(text, &[4.0, 2.0, 12.5, 3.0]), (0, 1));
        assert_eq!(heard(text, &[]), (4, 0));
    }

    #[test]
    fn neighbours_differ_in_length_and_texts_from_each_other() {
        for number in 0..200 {
            let text = text(number, 14);
            let words = text.split(' ').map(|word| word.trim_end_matches('.'));
            let lengths: Vec<usize> = words.map(str::len).collect();
            assert_eq!(lengths.len(), 14);
            assert!(lengths.windows(2).all(|pair| pair[0] != pair[1]));
        }
        assert_ne!(text(1, 14), text(2, 14));
    }
}
