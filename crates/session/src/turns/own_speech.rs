//! Evidence: the transcript is what the reply was just saying. Then the microphone hears the speaker, and nobody
//! interrupts.

use super::words::{is_command, tokens};
use super::{Overlap, Verdict};
use crate::{Evidence, InterruptionConfig};

pub(crate) fn vote(overlap: &Overlap, config: &InterruptionConfig) -> Option<Verdict> {
    let words = overlap.words.as_deref()?;
    is_echo(words, &overlap.own, config.echo_share).then_some(Verdict::Retract(Evidence::OwnSpeech))
}

/// Whether the few words so far, all of them the reply's own, may yet turn out to be its echo.
pub(crate) fn may_become_echo(overlap: &Overlap, config: &InterruptionConfig) -> bool {
    let Some(words) = overlap.words.as_deref().filter(|_| !overlap.is_final) else {
        return false;
    };
    let heard = tokens(words);
    !heard.is_empty()
        && !is_command(&heard, config)
        && common_in_order(&heard, &tokens(&overlap.own)) == heard.len()
}

/// Whether so large a share of the words heard are, in this order, among the own words. A single word is not
/// enough: "no" may be in both.
pub(crate) fn is_echo(heard: &str, own: &str, share: f32) -> bool {
    let heard = tokens(heard);
    let own = tokens(own);
    if heard.len() < 2 || own.is_empty() {
        return false;
    }
    let common = common_in_order(&heard, &own);
    common >= 2 && common as f32 >= share * heard.len() as f32
}

/// Length of the longest common subsequence. Both are a few seconds of speech: tens of words.
fn common_in_order(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y {
                diagonal + 1
            } else {
                above.max(row[j])
            };
            diagonal = above;
        }
    }
    row[b.len()]
}
