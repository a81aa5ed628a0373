//! Whose turn is it? Small policies, one a file, each named by its evidence; this is where they are combined.

mod duration;
pub(crate) mod end_of_turn;
pub(crate) mod own_speech;
pub(crate) mod silence;
pub(crate) mod words;

use crate::{Evidence, InterruptionConfig};
use std::time::Duration;

/// What is known of speech over a reply.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlap {
    /// How long it has lasted, its pauses apart.
    pub voiced: Duration,
    /// How long it has been over; `None` while it lasts.
    pub silent_for: Option<Duration>,
    /// Its words so far; `None` while the recognizer has said nothing.
    pub words: Option<String>,
    /// Those are all its words.
    pub is_final: bool,
    /// What the reply said in the last seconds.
    pub own: String,
    /// How much of the reply is still to be heard, where that is known.
    pub remaining: Option<Duration>,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ask again after this time, or when there is more evidence.
    Wait(Duration),
    /// An interruption.
    Confirm(Evidence),
    /// None.
    Retract(Evidence),
}

/// Is it an interruption? The strongest evidence speaks first: an echo can contain any word; words say more than
/// length.
pub(crate) fn judge(overlap: &Overlap, config: &InterruptionConfig) -> Verdict {
    own_speech::vote(overlap, config)
        .or_else(|| {
            words::vote(overlap, config).filter(|_| !own_speech::may_become_echo(overlap, config))
        })
        .unwrap_or_else(|| duration::vote(overlap, config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlap(words: &str, is_final: bool) -> Overlap {
        Overlap {
            voiced: Duration::from_millis(800),
            silent_for: is_final.then_some(Duration::from_millis(250)),
            words: Some(words.to_owned()),
            is_final,
            own: "the old harbour opens every morning at seven".to_owned(),
            remaining: None,
        }
    }

    fn verdict(words: &str, is_final: bool) -> Verdict {
        judge(&overlap(words, is_final), &InterruptionConfig::default())
    }

    #[test]
    fn words_that_decide() {
        for (words, expected) in [
            ("", Verdict::Retract(Evidence::NoWords)),
            ("Mhm.", Verdict::Retract(Evidence::Backchannel)),
            (
                "Yeah, right, of course.",
                Verdict::Retract(Evidence::Backchannel),
            ),
            ("Stop!", Verdict::Confirm(Evidence::Command)),
            ("Hold on a second", Verdict::Confirm(Evidence::Command)),
            ("okay but why", Verdict::Confirm(Evidence::Words)),
            ("opens every morning", Verdict::Retract(Evidence::OwnSpeech)),
            (
                "opens every morning but not today does it",
                Verdict::Confirm(Evidence::Words),
            ),
            ("seven", Verdict::Confirm(Evidence::Words)),
        ] {
            assert_eq!(verdict(words, true), expected, "{words}");
        }
    }

    #[test]
    fn words_that_may_become_something_else_are_waited_for() {
        for words in ["", "I", "of", "all", "harbour", "harbour opens", "mhm"] {
            let verdict = verdict(words, false);
            let waits = matches!(
                verdict,
                Verdict::Wait(_) | Verdict::Retract(Evidence::OwnSpeech)
            );
            assert!(waits, "{words}: {verdict:?}");
        }
    }

    #[test]
    fn a_verdict_is_never_put_off_for_ever() {
        let config = InterruptionConfig::default();
        for words in [None, Some(""), Some("mhm"), Some("why")] {
            for silent in [false, true] {
                let mut overlap = Overlap {
                    words: words.map(str::to_owned),
                    ..Overlap::default()
                };
                let mut waited = Duration::ZERO;
                while let Verdict::Wait(time) = judge(&overlap, &config) {
                    assert!(!time.is_zero());
                    waited += time;
                    if silent {
                        *overlap.silent_for.get_or_insert_default() += time;
                    } else {
                        overlap.voiced += time;
                    }
                    assert!(waited <= config.decide_within * 2, "{words:?}");
                }
            }
        }
    }
}
