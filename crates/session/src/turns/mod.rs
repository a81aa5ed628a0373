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
