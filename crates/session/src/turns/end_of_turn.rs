//! Evidence: does the sentence sound, and read, complete?
//!
//! The model of turns gives a probability from the sound; the words may show that more is to come ("umm", "and",
//! "the"), or that nothing is missing ("yes", "no thanks"). The less complete, the longer the wait, up to a bound: a
//! question half asked is waited for, but not for ever.

use super::words::tokens;
use crate::Eagerness;
use std::ops::Range;
use std::time::Duration;

/// Words after which nobody stops, however it sounds.
const NEVER_LAST: &[&str] = &[
    "um", "umm", "uh", "uhm", "er", "erm", "hmm", "and", "or", "but", "because", "the", "a", "an",
    "my", "your", "if", "than",
];
/// Words after which few stop ("I go to"), and some do ("where are you from", "I like that"): the sound decides.
const SELDOM_LAST: &[&str] = &[
    "so", "to", "of", "with", "for", "then", "that", "which", "like", "from", "in", "on", "at",
    "by", "about", "into", "is", "are", "was", "were", "do", "does", "can", "could", "would",
    "will", "i", "we", "they",
];
/// What is a whole answer by itself.
const ANSWERS: &[&str] = &[
    "yes",
    "yeah",
    "yep",
    "yup",
    "no",
    "nope",
    "nah",
    "okay",
    "ok",
    "sure",
    "thanks",
    "thank you",
    "please",
    "right",
    "correct",
    "exactly",
    "absolutely",
    "definitely",
    "of course",
    "never mind",
    "stop",
    "hello",
    "hi",
    "bye",
    "goodbye",
];
/// A short answer is made of at most so many words.
const SHORT: usize = 4;
/// A turn that reads incomplete is at most this probably complete.
const READS_INCOMPLETE: f32 = 0.2;

/// The words of a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Words<'a> {
    /// As far as they are known.
    pub text: Option<&'a str>,
    /// They are all its words.
    pub is_final: bool,
}

/// The longest silence inside a turn.
pub(crate) fn longest(eagerness: Eagerness) -> Duration {
    match eagerness {
        Eagerness::Low => Duration::from_secs(8),
        Eagerness::Medium | Eagerness::Auto => Duration::from_secs(4),
        Eagerness::High => Duration::from_secs(2),
    }
}

/// The silence after which the turn is over, of the least and the longest. `finished` is what is left of the longest
/// where the words are a finished sentence. `probability` is `None` while the model has not answered, and where
/// there is none.
pub(crate) fn wait(
    probability: Option<f32>,
    words: Words<'_>,
    complete: f32,
    silence: Range<Duration>,
    finished: f32,
) -> Duration {
    let least = silence.start;
    let text = words.text.unwrap_or_default();
    let sounds_complete = probability.is_some_and(|p| p >= complete);
    let probability = if trails_off(text, sounds_complete) {
        probability
            .unwrap_or(READS_INCOMPLETE)
            .min(READS_INCOMPLETE)
    } else if words.is_final && is_answer(text) {
        complete
    } else {
        // Without a judgement a finished sentence is complete; else nobody knows, which is half way.
        match probability {
            Some(p) => p,
            None if words.is_final && text.trim_end().ends_with(['.', '?', '!']) => complete,
            None => complete / 2.0,
        }
    };
    if probability >= complete {
        return least;
    }
    // Recognizers put full stops generously, so it is no proof.
    let share = if words.is_final && reads_finished(text) {
        finished
    } else {
        1.0
    };
    let longest = silence.end.mul_f32(share).max(least);
    let doubt = 1.0 - (probability.max(0.0) / complete.max(f32::EPSILON)).clamp(0.0, 1.0);
    least + (longest - least).mul_f64(f64::from(doubt))
}

/// Whether the words show that more is to come.
fn trails_off(text: &str, sounds_complete: bool) -> bool {
    let text = text.trim_end();
    if text.ends_with("...") || text.ends_with('…') {
        return true;
    }
    let words = tokens(text);
    let Some(last) = words.last().map(String::as_str) else {
        return false;
    };
    NEVER_LAST.contains(&last)
        || (!sounds_complete
            && !text.ends_with('?')
            && SELDOM_LAST.contains(&last)
            && !is_answer(text))
}

/// Whether the words are a sentence with nothing missing.
fn reads_finished(text: &str) -> bool {
    let words = tokens(text);
    let last = words.last().map(String::as_str).unwrap_or_default();
    words.len() >= 3
        && text.trim_end().ends_with(['.', '?', '!'])
        && !NEVER_LAST.contains(&last)
        && (text.trim_end().ends_with('?') || !SELDOM_LAST.contains(&last))
}

/// Whether the words are a whole answer, and nothing else.
fn is_answer(text: &str) -> bool {
    let words = tokens(text);
    if words.is_empty() || words.len() > SHORT {
        return false;
    }
    let mut rest = words.as_slice();
    while !rest.is_empty() {
        let fits = |answer: &&str| {
            let parts: Vec<&str> = answer.split(' ').collect();
            rest.len() >= parts.len() && rest.iter().zip(&parts).all(|(word, part)| word == part)
        };
        match ANSWERS.iter().find(|answer| fits(answer)) {
            Some(answer) => rest = &rest[answer.split(' ').count()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(4);
    /// More than nothing, less than for ever: it is waited for.
    const LONG: Duration = Duration::from_millis(1_500);

    fn waits(probability: impl Into<Option<f32>>, text: &str) -> Duration {
        let words = Words {
            text: Some(text),
            is_final: true,
        };
        wait(probability.into(), words, 0.5, LEAST..LONGEST, 0.5)
    }

    #[test]
    fn a_short_answer_is_over_at_once_however_it_sounds() {
        for text in [
            "Yes.",
            "No thanks.",
            "no, thank you",
            "Yes, please.",
            "Okay, sure.",
            "Never mind.",
            "Of course.",
            "Stop!",
        ] {
            for probability in [Some(0.0), Some(0.3), None] {
                assert_eq!(waits(probability, text), LEAST, "{text} {probability:?}");
            }
        }
    }

    #[test]
    fn what_only_begins_like_an_answer_is_judged_by_its_sound() {
        for text in ["No I", "Yes but", "okay so what I", "yes the", "sure and"] {
            assert!(waits(0.1, text) > LONG, "{text}");
        }
        let so_far = Words {
            text: Some("no"),
            is_final: false,
        };
        assert!(wait(Some(0.1), so_far, 0.5, LEAST..LONGEST, 0.5) > LONG);
    }

    #[test]
    fn hesitation_is_waited_for_even_where_it_sounds_complete() {
        for text in [
            "I would like umm",
            "Um.",
            "the thing is, uh",
            "What is the",
            "tell me about my",
            "and",
            "I went there because.",
            "Well...",
            "Well…",
        ] {
            assert!(waits(0.99, text) > LONG, "{text}");
            assert!(waits(None, text) > LONG, "{text}");
        }
    }

    #[test]
    fn a_half_asked_question_is_waited_for() {
        for text in [
            "can you tell me",
            "How do I get to",
            "do you know if",
            "what I want is",
        ] {
            assert!(waits(0.1, text) > LONG, "{text}");
        }
    }

    #[test]
    fn a_sentence_that_ends_in_a_small_word_is_over_when_it_sounds_so() {
        for text in [
            "Where are you from?",
            "What is that for?",
            "What do you think of that.",
            "I don't know what it is",
            "Let us do it then.",
        ] {
            assert_eq!(waits(0.9, text), LEAST, "{text}");
        }
        assert_eq!(waits(None, "Where are you from?"), LEAST);
    }

    #[test]
    fn a_sentence_that_reads_finished_is_not_waited_for_as_long_as_one_that_does_not() {
        let finished = waits(0.1, "The harbour is old.");
        let open = waits(0.1, "The harbour is old");
        assert!(finished > LEAST && finished < open.mul_f32(0.6));
        for text in ["The harbour.", "and then we...", "what is the."] {
            assert_eq!(waits(0.1, text), open, "{text}");
        }
    }

    #[test]
    fn without_a_model_of_turns_a_finished_sentence_is_over() {
        assert_eq!(waits(None, "The harbour is old."), LEAST);
        let unfinished = waits(None, "the harbour is old");
        assert!(unfinished > LEAST && unfinished < LONGEST);
    }

    #[test]
    fn no_wait_is_longer_than_the_longest_or_shorter_than_the_least() {
        for p in [None, Some(0.0), Some(0.49), Some(1.0)] {
            for text in ["", "um", "yes", "so I thought", "Is it?"] {
                let wait = waits(p, text);
                assert!((LEAST..=LONGEST).contains(&wait), "{p:?} {text}: {wait:?}");
            }
        }
    }
}
