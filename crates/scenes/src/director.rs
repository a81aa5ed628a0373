//! Says when each step of a script is due.

use crate::moment::{Anchor, Moment};
use crate::scene::{Scene, words};
use crate::trace::{ReplyTrace, Trace};
use crate::{BLOCK_SECONDS, RATE};

/// A step that is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cue {
    /// Its place in the script.
    pub step: usize,
    /// When, seconds; not before what was played last.
    pub at: f64,
}

/// Knows which steps are still to come.
#[derive(Debug)]
pub struct Director {
    waiting: Vec<(usize, Moment)>,
}

impl Director {
    /// One that has not begun.
    #[must_use]
    pub fn new(scene: &Scene) -> Self {
        Self {
            waiting: scene
                .script
                .iter()
                .enumerate()
                .map(|(at, step)| (at, step.at.clone()))
                .collect(),
        }
    }

    /// Steps that become due before the end of the block that begins at `now`.
    pub fn due(&mut self, trace: &Trace, now: f64) -> Vec<Cue> {
        let mut cues = Vec::new();
        self.waiting.retain(|(step, moment)| {
            let Some(at) = trace.when(moment) else {
                return true;
            };
            let is_due = at < now + BLOCK_SECONDS;
            if is_due {
                cues.push(Cue {
                    step: *step,
                    at: at.max(now),
                });
            }
            !is_due
        });
        cues
    }

    /// Whether every step has been due.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Places in the script of the steps that have not been due.
    pub fn waiting(&self) -> impl Iterator<Item = usize> {
        self.waiting.iter().map(|(step, _)| *step)
    }
}

impl Trace {
    /// When a moment was; `None`: not so far.
    #[must_use]
    pub fn when(&self, moment: &Moment) -> Option<f64> {
        let at = match &moment.anchor {
            Anchor::Start => 0.0,
            Anchor::Happening(what, number) => self.nth(*what, *number)?,
            Anchor::Onset(name) => self.step(name)?.onset(),
            Anchor::End(name) => self.step(name)?.end(),
            Anchor::Word(word, number) => {
                let reply = self.heard_reply(*number)?;
                let middle = reply
                    .words
                    .iter()
                    .find(|told| words(&told.text).any(|told| told == *word))?
                    .until;
                reply.heard_at(middle)?
            }
            Anchor::LastWord(number) => {
                let reply = self.heard_reply(*number)?;
                if !reply.all_told {
                    return None;
                }
                reply.heard_at(reply.words.last()?.after)?
            }
        };
        Some((at + moment.plus).max(0.0))
    }

    /// The nth reply that was heard, from 1.
    #[must_use]
    pub fn heard_reply(&self, number: usize) -> Option<&ReplyTrace> {
        self.replies
            .iter()
            .filter(|reply| reply.audible_at.is_some())
            .nth(number.saturating_sub(1))
    }
}

impl ReplyTrace {
    /// When a position of its audio was first played.
    #[must_use]
    pub fn heard_at(&self, position: u64) -> Option<f64> {
        self.stretches
            .iter()
            .find(|(_, from, to)| *from <= position && position <= *to)
            .map(|(at, from, _)| at + position.saturating_sub(*from) as f64 / f64::from(RATE))
    }
}
