//! Evidence: how long. Speech that lasts is meant, where no transcript says otherwise; a short sound without words
//! is not. And the last word: when no evidence comes, time decides, so that no reply is held for ever.

use super::{Overlap, Verdict};
use crate::{Evidence, InterruptionConfig};
use std::time::Duration;

pub(crate) fn vote(overlap: &Overlap, config: &InterruptionConfig) -> Verdict {
    let known = overlap.words.is_some();
    if let Some(silent_for) = overlap.silent_for {
        let patience = silence_patience(overlap, config);
        if silent_for < patience {
            return Verdict::Wait(patience - silent_for);
        }
        return if overlap.voiced < config.min_duration {
            Verdict::Retract(Evidence::TooShort)
        } else if !known && overlap.voiced >= config.sure_duration {
            Verdict::Confirm(Evidence::Duration)
        } else {
            Verdict::Retract(Evidence::Deadline)
        };
    }
    if !known && overlap.voiced >= config.sure_duration {
        return Verdict::Confirm(Evidence::Duration);
    }
    if overlap.voiced >= config.decide_within {
        let wordless = overlap
            .words
            .as_deref()
            .is_none_or(|words| words.trim().is_empty());
        return Verdict::Retract(if wordless {
            Evidence::NoWords
        } else {
            Evidence::Backchannel
        });
    }
    // Whichever comes first of the times that decide something.
    let next = [
        config.min_duration,
        config.sure_duration,
        config.decide_within,
    ]
    .into_iter()
    .filter(|at| *at > overlap.voiced)
    .min()
    .unwrap_or(config.decide_within);
    Verdict::Wait(next - overlap.voiced)
}

/// How long the transcript of what was said is waited for: less for a short sound, which is probably nothing.
fn silence_patience(overlap: &Overlap, config: &InterruptionConfig) -> Duration {
    if overlap.voiced < config.min_duration {
        config.decide_within / 4
    } else {
        config.decide_within
    }
}
