//! Whisper always says something: of silence it makes "Thanks for watching!", of noise a loop of one word. What
//! it says about nothing is known by its marks, and thrown away.
//!
//! The marks are those of the Whisper reference (no-speech and log-probability thresholds, repetition) with two
//! changes: repetition is found in the words themselves instead of by how well they compress, and a list of
//! what the model learnt from subtitles of silent scenes.

use crate::wer;

/// A text that was thrown away.
#[derive(Clone, Debug, PartialEq)]
pub struct Junk {
    /// Why.
    pub reason: Reason,
    /// The text as the model said it; empty when it was not even asked.
    pub text: String,
}

/// Why a text was thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The sound is too faint or too short to hold a word; the model was not asked.
    Silence,
    /// The model thinks that nobody spoke, and is not sure of its text either.
    NoSpeech,
    /// The tokens' probabilities are too low.
    Unsure,
    /// The same words over and over, or more of them than can be said in the time.
    Repetition,
    /// Nothing but what the model is known to say about silence and music.
    KnownPhrase,
}

/// A text with the model's own doubts about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence<'a> {
    pub text: &'a str,
    pub avg_logprob: f32,
    pub no_speech_prob: f32,
    /// Length of the audio, seconds.
    pub seconds: f32,
}

/// Below this the text is a guess.
const UNSURE: f32 = -1.0;
/// Below this, and above [`NO_SPEECH`], nobody spoke.
const UNSURE_OF_SILENCE: f32 = -0.6;
const NO_SPEECH: f32 = 0.6;
/// A doubt that is enough against a phrase that is usually junk.
const DOUBT_LOGPROB: f32 = -0.5;
const DOUBT_NO_SPEECH: f32 = 0.3;
/// Nobody says more words in a second, for longer than a moment.
const MOST_WORDS_PER_SECOND: f32 = 8.0;
/// A phrase said more often in a row is a loop.
const MOST_REPEATS: usize = 5;

/// Never said to a machine that listens.
const ALWAYS_JUNK: [&str; 12] = [
    "thanks for watching",
    "thank you for watching",
    "thank you so much for watching",
    "thanks for watching and ill see you next time",
    "please subscribe",
    "please subscribe to my channel",
    "dont forget to like and subscribe",
    "like and subscribe",
    "subtitles by the amara org community",
    "transcription by castingwords",
    "well be right back",
    "to be continued",
];
/// Said by people too.
const JUNK_IF_DOUBTED: [&str; 12] = [
    "thank you",
    "thank you very much",
    "thanks",
    "you",
    "bye",
    "bye bye",
    "the",
    "oh",
    "so",
    "i",
    "hmm",
    "okay",
];

/// The mark of junk that a text bears, if any.
pub(crate) fn reason(evidence: &Evidence<'_>) -> Option<Reason> {
    let words = wer::words(evidence.text);
    if words.is_empty() {
        // Notes, dots, "[BLANK_AUDIO]": none of them a word.
        return (!evidence.text.trim().is_empty()).then_some(Reason::KnownPhrase);
    }
    if evidence.no_speech_prob > NO_SPEECH && evidence.avg_logprob < UNSURE_OF_SILENCE {
        return Some(Reason::NoSpeech);
    }
    let phrase = words.join(" ");
    let doubted = evidence.avg_logprob < DOUBT_LOGPROB || evidence.no_speech_prob > DOUBT_NO_SPEECH;
    if ALWAYS_JUNK.contains(&phrase.as_str())
        || doubted && JUNK_IF_DOUBTED.contains(&phrase.as_str())
    {
        return Some(Reason::KnownPhrase);
    }
    if repeats(&words, evidence.seconds) {
        return Some(Reason::Repetition);
    }
    (evidence.avg_logprob < UNSURE).then_some(Reason::Unsure)
}

/// Whether words go round in a loop, or come faster than they can be said.
pub(crate) fn repeats(words: &[String], seconds: f32) -> bool {
    let said = words.len() as f32;
    if said > 4.0 + seconds * MOST_WORDS_PER_SECOND {
        return true;
    }
    // A loop of `period` words that makes up at least half of the text.
    (1..=words.len() / 3).any(|period| {
        let mut run = 0;
        let mut longest = 0;
        for i in period..words.len() {
            run = if words[i] == words[i - period] {
                run + 1
            } else {
                0
            };
            longest = longest.max(run);
        }
        let rounds = longest / period + 1;
        (longest + period) * 2 >= words.len() && rounds > if period == 1 { MOST_REPEATS } else { 3 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, avg_logprob: f32, no_speech_prob: f32, seconds: f32) -> Option<Reason> {
        reason(&Evidence {
            text,
            avg_logprob,
            no_speech_prob,
            seconds,
        })
    }

    #[test]
    fn ordinary_speech_bears_no_mark() {
        assert_eq!(
            of("What's the weather like in Lisbon?", -0.3, 0.02, 2.0),
            None
        );
        assert_eq!(of("No, no, no, not that one.", -0.4, 0.05, 2.0), None);
        assert_eq!(of("Thank you.", -0.2, 0.05, 1.0), None);
        assert_eq!(of("", 0.0, 0.9, 1.0), None);
        // A clear no-speech reading is overruled by clear words.
        assert_eq!(of("Go forward ten meters.", -0.2, 0.7, 2.0), None);
    }

    #[test]
    fn what_is_said_about_silence_is_known() {
        assert_eq!(
            of("Thanks for watching!", -0.1, 0.0, 3.0),
            Some(Reason::KnownPhrase)
        );
        assert_eq!(of("Thank you.", -0.2, 0.5, 1.0), Some(Reason::KnownPhrase));
        assert_eq!(of("you", -0.9, 0.1, 1.0), Some(Reason::KnownPhrase));
        for text in ["♪♪", "...", "[BLANK_AUDIO]", "(dramatic music)"] {
            assert_eq!(
                of(text, -0.3, 0.1, 3.0),
                Some(Reason::KnownPhrase),
                "{text}"
            );
        }
    }

    #[test]
    fn doubt_about_everything_is_believed() {
        assert_eq!(
            of("a sort of a thing", -0.8, 0.8, 2.0),
            Some(Reason::NoSpeech)
        );
        assert_eq!(
            of("a sort of a thing", -1.4, 0.1, 2.0),
            Some(Reason::Unsure)
        );
    }

    #[test]
    fn loops_are_found_whatever_their_length() {
        assert_eq!(
            of(&"the ".repeat(12), -0.2, 0.0, 10.0),
            Some(Reason::Repetition)
        );
        assert_eq!(
            of(&"and I said to him ".repeat(5), -0.2, 0.0, 20.0),
            Some(Reason::Repetition)
        );
        assert_eq!(
            of(
                "one two three four five six seven eight nine ten eleven twelve thirteen fourteen",
                -0.2,
                0.0,
                1.0
            ),
            Some(Reason::Repetition)
        );
        assert_eq!(
            of(
                "I know that you know that I know that you know it",
                -0.2,
                0.0,
                4.0
            ),
            None
        );
    }
}
