//! Evidence: which words, and how many. "Mhm" encourages; "stop" interrupts at once; a few other words make an
//! interruption.

use super::{Overlap, Verdict};
use crate::{Evidence, InterruptionConfig};
use std::time::Duration;

/// A reply with less than this to go is as good as over: "yes" is then an answer, not a backchannel.
const LAST_WORDS: Duration = Duration::from_millis(700);
/// A command is given in few words; in a longer sentence "no" is a word among others, and interrupts as such.
const COMMAND_WORDS: usize = 4;

/// Words in lower case, without punctuation around them.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| {
            word.trim_matches(|c: char| !c.is_alphanumeric())
                .to_lowercase()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

pub(crate) fn vote(overlap: &Overlap, config: &InterruptionConfig) -> Option<Verdict> {
    let words = tokens(overlap.words.as_deref()?);
    if words.is_empty() {
        return overlap
            .is_final
            .then_some(Verdict::Retract(Evidence::NoWords));
    }
    if is_command(&words, config) {
        return Some(Verdict::Confirm(Evidence::Command));
    }
    let content = without(&words, &config.backchannels, overlap.is_final);
    if content == 0 {
        if overlap.remaining.is_some_and(|left| left < LAST_WORDS) {
            return overlap
                .is_final
                .then_some(Verdict::Confirm(Evidence::Words));
        }
        return overlap
            .is_final
            .then_some(Verdict::Retract(Evidence::Backchannel));
    }
    if overlap.voiced < config.min_duration {
        return overlap
            .is_final
            .then_some(Verdict::Retract(Evidence::TooShort));
    }
    // Of words still being spoken the last may be half heard, or none: one more is asked for.
    if content >= config.min_words.max(1) + usize::from(!overlap.is_final) {
        return Some(Verdict::Confirm(Evidence::Words));
    }
    overlap
        .is_final
        .then_some(Verdict::Retract(Evidence::Backchannel))
}

/// Whether the user gives a command.
pub(crate) fn is_command(words: &[String], config: &InterruptionConfig) -> bool {
    let begins_with = |phrase: &String| {
        let phrase = tokens(phrase);
        !phrase.is_empty() && words.starts_with(&phrase)
    };
    words.len() <= COMMAND_WORDS && config.commands.iter().any(begins_with)
}

/// How many words are left when the phrases are taken out. While more may come, the beginning of a phrase at the
/// end counts as the phrase.
fn without(words: &[String], phrases: &[String], is_final: bool) -> usize {
    let phrases: Vec<Vec<String>> = phrases
        .iter()
        .map(|phrase| tokens(phrase))
        .filter(|p| !p.is_empty())
        .collect();
    let mut left = 0;
    let mut at = 0;
    while at < words.len() {
        let rest = &words[at..];
        if !is_final && phrases.iter().any(|phrase| may_become(rest, phrase)) {
            break;
        }
        let longest = phrases
            .iter()
            .filter(|phrase| rest.starts_with(phrase))
            .map(Vec::len)
            .max();
        left += usize::from(longest.is_none());
        at += longest.unwrap_or(1);
    }
    left
}

/// Whether these words, the last perhaps not whole, are the beginning of a phrase.
fn may_become(words: &[String], phrase: &[String]) -> bool {
    let Some((last, whole)) = words.split_last() else {
        return true;
    };
    phrase.starts_with(whole)
        && phrase
            .get(whole.len())
            .is_some_and(|next| next.starts_with(last.as_str()))
}
