//! Evidence: does the sentence sound, and read, complete?
//!
//! The model of turns gives a probability from the sound; the words so far may show that more is to come ("umm",
//! "and", "the"). The less complete, the longer the wait, up to a bound: a question half asked is waited for, but
//! not for ever.

use super::words::tokens;
use crate::Eagerness;
use std::time::Duration;

/// Words after which nobody stops.
const MORE_TO_COME: &[&str] = &[
    "um", "umm", "uh", "uhm", "er", "erm", "hmm", "and", "or", "but", "because", "so", "the", "a",
    "an", "to", "of", "with", "for", "my", "your", "if", "then", "that", "which", "like",
];
/// A turn that reads incomplete is at most this probably complete.
const READS_INCOMPLETE: f32 = 0.2;

/// The longest silence inside a turn.
pub(crate) fn longest(eagerness: Eagerness) -> Duration {
    match eagerness {
        Eagerness::Low => Duration::from_secs(8),
        Eagerness::Medium | Eagerness::Auto => Duration::from_secs(4),
        Eagerness::High => Duration::from_secs(2),
    }
}

/// The silence after which the turn is over. `probability` is `None` while the model has not answered.
pub(crate) fn wait(
    probability: Option<f32>,
    words: Option<&str>,
    complete: f32,
    least: Duration,
    longest: Duration,
) -> Duration {
    let longest = longest.max(least);
    let trails_off = words.is_some_and(|words| {
        words.trim_end().ends_with("...")
            || tokens(words)
                .last()
                .is_some_and(|word| MORE_TO_COME.contains(&word.as_str()))
    });
    let probability = match probability {
        Some(p) if trails_off => p.min(READS_INCOMPLETE),
        Some(p) => p,
        None if trails_off => READS_INCOMPLETE,
        // Nobody knows yet: half way.
        None => complete / 2.0,
    };
    if probability >= complete {
        return least;
    }
    let doubt = 1.0 - (probability.max(0.0) / complete.max(f32::EPSILON)).clamp(0.0, 1.0);
    least + (longest - least).mul_f32(doubt)
}
