//! Holds what came of a scene against what it asks for, and against what every conversation must keep: its history
//! has the words that were played and no others, it comes to rest, and nothing is complained of.

use crate::moment::Moment;
use crate::scene::Scene;
use crate::trace::{ReplyTrace, Trace};
use crate::{BLOCK, RATE};

/// How much later than a stock client plays the server may think that it does, milliseconds: all of
/// `Timing::output_delay`, which a client on the same machine does not need. It counts only where the client said
/// nothing of its playout.
const ESTIMATE_MS: u64 = 100;

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What was asked for.
    pub what: String,
    /// Whether it came to pass.
    pub passed: bool,
    /// What came of it.
    pub found: String,
    /// When it was decided, seconds, where there is a time.
    pub at: Option<f64>,
}

/// Words of one reply that the history has wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WordErrors {
    /// In the history, and not played.
    pub unheard: usize,
    /// Played, and not in the history.
    pub missing: usize,
}

impl WordErrors {
    /// Both together.
    #[must_use]
    pub fn total(self) -> usize {
        self.unheard + self.missing
    }
}

/// Checks everything.
#[must_use]
pub fn check(scene: &Scene, trace: &Trace) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for expected in &scene.expect {
        let what = format!(
            "{} within {} ms of {}",
            expected.event.name(),
            expected.within_ms,
            expected.since
        );
        let Some(since) = trace.when(&expected.since) else {
            verdicts.push(never(what, &expected.since));
            continue;
        };
        let at = trace.first_from(expected.event, since);
        let ms = at.map(|at| (at - since) * 1_000.0);
        verdicts.push(Verdict {
            what,
            passed: ms.is_some_and(|ms| ms <= expected.within_ms as f64),
            found: ms.map_or("never".to_owned(), |ms| format!("after {ms:.0} ms")),
            at,
        });
    }
    for absent in &scene.absent {
        let until = absent
            .until
            .as_ref()
            .map_or(String::new(), |until| format!(" until {until}"));
        let what = format!("no {} from {}{until}", absent.event.name(), absent.since);
        // What is counted from something that never came cannot have come after it.
        let Some(from) = trace.when(&absent.since) else {
            verdicts.push(never(what, &absent.since));
            continue;
        };
        let to = absent
            .until
            .as_ref()
            .map_or(Some(f64::INFINITY), |until| trace.when(until))
            .unwrap_or(f64::INFINITY);
        let at = trace.first_from(absent.event, from).filter(|at| *at < to);
        verdicts.push(Verdict {
            what,
            passed: at.is_none(),
            found: at.map_or("none".to_owned(), |at| format!("at {at:.2} s")),
            at,
        });
    }
    verdicts.extend(kept(scene, trace));
    verdicts
}

fn never(what: String, moment: &Moment) -> Verdict {
    Verdict {
        what,
        passed: false,
        found: format!("`{moment}` never came"),
        at: None,
    }
}

/// What every conversation must keep.
fn kept(scene: &Scene, trace: &Trace) -> Vec<Verdict> {
    let state = trace.states.last().map_or("", |(_, state)| state.as_str());
    // Noise that goes on may be taken for somebody who goes on.
    let excused = state == "listening" && scene.background.is_some();
    let rest = Verdict {
        what: "the conversation comes to rest".to_owned(),
        passed: trace.came_to_rest || excused,
        found: match trace.came_to_rest {
            true => "it does".to_owned(),
            false => format!("it stays in {state:?}"),
        },
        at: None,
    };
    let played = trace.steps.len();
    let steps = Verdict {
        what: "every step is played".to_owned(),
        passed: played == scene.script.len(),
        found: format!("{played} of {}", scene.script.len()),
        at: None,
    };
    let errors = Verdict {
        what: "no errors".to_owned(),
        passed: trace.errors.is_empty(),
        found: match trace.errors.is_empty() {
            true => "none".to_owned(),
            false => trace.errors.join("; "),
        },
        at: None,
    };
    vec![history(trace), rest, steps, errors]
}

fn history(trace: &Trace) -> Verdict {
    let mut wrong = WordErrors::default();
    let mut found = Vec::new();
    for reply in &trace.replies {
        // A client that says nothing of what it played is estimated, and not closer than this.
        let estimated = !reply.reported && !reply.truncated;
        let leeway = match estimated {
            true => ESTIMATE_MS * u64::from(RATE) / 1_000,
            false => 0,
        };
        let errors = word_errors(reply, leeway);
        wrong.unheard += errors.unheard;
        wrong.missing += errors.missing;
        if errors.total() > 0 {
            let history = reply.history.as_deref().unwrap_or_default();
            found.push(format!(
                "{} unheard and {} missing in {history:?}",
                errors.unheard, errors.missing
            ));
        }
    }
    Verdict {
        what: "the history has the words that were played".to_owned(),
        passed: wrong.total() == 0,
        found: match found.is_empty() {
            true => "it has".to_owned(),
            false => found.join("; "),
        },
        at: None,
    }
}

/// How wrong the history is about a reply; `leeway`: samples by which the server may be wrong about what was played.
///
/// The client knows in which piece of sound each word's middle lies (20 ms as a rule; about 200 ms at the beginning
/// of a reply, which is sent ahead at once), and how far it has played. A word counts as heard when more than half
/// of it was played. So a word is wrong only where what was played contradicts the history by more than that piece
/// and the block that is being played; no word is let pass on principle.
#[must_use]
pub fn word_errors(reply: &ReplyTrace, leeway: u64) -> WordErrors {
    let history = reply.history.as_deref().or(reply.heard.as_deref());
    let history: Vec<&str> = history.unwrap_or_default().split_whitespace().collect();
    let margin = BLOCK as u64 + leeway;
    let told: Vec<&str> = reply.words.iter().map(|word| word.text.as_str()).collect();
    let common = history
        .iter()
        .zip(&told)
        .take_while(|(ours, theirs)| ours == theirs)
        .count();
    let mut errors = WordErrors {
        // What was never told, or was told otherwise, was not heard.
        unheard: history.len() - common,
        missing: 0,
    };
    for (at, word) in reply.words.iter().enumerate() {
        if at < common && reply.played + margin < word.after {
            errors.unheard += 1;
        }
        if at >= common && reply.played > word.until + margin {
            errors.missing += 1;
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Word;

    fn reply(played: u64, history: &str) -> ReplyTrace {
        let words = ["one", "two", "three", "four"];
        ReplyTrace {
            words: words
                .iter()
                .zip(1_u64..)
                .map(|(text, at)| Word {
                    text: (*text).to_owned(),
                    after: at * 10_000,
                    until: at * 10_000 + 480,
                })
                .collect(),
            played,
            history: Some(history.to_owned()),
            ..ReplyTrace::default()
        }
    }

    #[test]
    fn the_history_is_held_against_what_was_played() {
        let found = |played, history| {
            let errors = word_errors(&reply(played, history), 0);
            (errors.unheard, errors.missing)
        };
        assert_eq!(found(25_000, "one two"), (0, 0));
        assert_eq!(found(25_000, "one two three"), (1, 0));
        assert_eq!(found(25_000, "one"), (0, 1));
        assert_eq!(found(25_000, ""), (0, 2));
        assert_eq!(found(25_000, "one too"), (1, 1));
        // The word that was just being played may be in it or not.
        assert_eq!(found(20_200, "one"), (0, 0));
        assert_eq!(found(20_200, "one two"), (0, 0));
    }

    #[test]
    fn a_client_that_says_nothing_is_known_to_a_tenth_of_a_second_and_no_closer() {
        let passes = |played, truncated| {
            let reply = ReplyTrace {
                truncated,
                ..reply(played, "one")
            };
            let trace = Trace {
                replies: vec![reply],
                ..Trace::default()
            };
            history(&trace).passed
        };
        // 60 ms of the second word's end were played, and then 140 ms.
        let end = 20_480 + BLOCK as u64;
        assert!(passes(end + 1_440, false));
        assert!(!passes(end + 3_360, false));
        assert!(!passes(end + 1_440, true));
    }
}
