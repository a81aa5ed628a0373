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
    if words.len() <= COMMAND_WORDS
        && config
            .commands
            .iter()
            .any(|command| begins_with(&words, command))
    {
        return Some(Verdict::Confirm(Evidence::Command));
    }
    let content = without(&words, &config.backchannels);
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
    if content >= config.min_words.max(1) {
        return Some(Verdict::Confirm(Evidence::Words));
    }
    overlap
        .is_final
        .then_some(Verdict::Retract(Evidence::Backchannel))
}

fn begins_with(words: &[String], phrase: &str) -> bool {
    let phrase = tokens(phrase);
    !phrase.is_empty() && words.starts_with(&phrase)
}

/// How many words are left when the phrases are taken out.
fn without(words: &[String], phrases: &[String]) -> usize {
    let phrases: Vec<Vec<String>> = phrases.iter().map(|phrase| tokens(phrase)).collect();
    let mut left = 0;
    let mut at = 0;
    while at < words.len() {
        let longest = phrases
            .iter()
            .filter(|p| !p.is_empty() && words[at..].starts_with(p))
            .map(Vec::len)
            .max();
        left += usize::from(longest.is_none());
        at += longest.unwrap_or(1);
    }
    left
}
