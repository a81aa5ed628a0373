//! What a session came to, in figures and in moments, so that two of them can be laid side by side.

use crate::{Action, Entry, Event, Evidence, Happening, ItemId, Notice, ReplyId};
use std::collections::HashMap;
use std::time::Duration;

/// Something that a listener would notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Session time.
    pub at: Duration,
    /// What happened, for people.
    pub what: String,
}

/// A session's figures. Times are as they came, unsorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// User turns that became messages.
    pub turns: usize,
    /// Sound that was taken for a turn and had no words.
    pub discarded: usize,
    /// Turns that went on after they had been held for over.
    pub cut_offs: usize,
    /// Replies that sounded.
    pub replies: usize,
    /// Speech over a reply.
    pub suspicions: usize,
    /// Of those, confirmed.
    pub interruptions: usize,
    /// Of those, taken back.
    pub retractions: usize,
    /// Times that the model was asked before the turn was over.
    pub speculations: usize,
    /// Of those, for nothing.
    pub speculations_dropped: usize,
    /// From the end of the user's speech until the turn was held for over.
    pub waits: Vec<Duration>,
    /// From the end of the user's speech until the reply sounded.
    pub answers: Vec<Duration>,
    /// From the speech over a reply until it was known what it was.
    pub verdicts: Vec<Duration>,
    /// How long replies were held for nothing.
    pub silenced: Vec<Duration>,
    /// What a listener would notice, in order.
    pub moments: Vec<Moment>,
}

impl Tally {
    /// The figures of a recording.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        let mut reader = Reader::default();
        for entry in entries {
            match &entry.what {
                Happening::Action(Action::Emit(notice)) => reader.notice(entry.at, notice),
                Happening::Action(Action::Speculate { .. }) => reader.tally.speculations += 1,
                Happening::Action(Action::CancelSpeculation { .. }) => {
                    reader.tally.speculations_dropped += 1;
                }
                Happening::Event(Event::Close) => reader.moment(entry.at, "the client left"),
                _ => {}
            }
        }
        reader.tally
    }
}

#[derive(Default)]
struct Reader {
    tally: Tally,
    /// The turn that was held for over: its message, its end, and since when.
    over: Option<(ItemId, Duration, Duration)>,
    committed: Vec<ItemId>,
    suspected: HashMap<ReplyId, (Duration, Duration)>,
}

impl Reader {
    fn moment(&mut self, at: Duration, what: impl Into<String>) {
        let what = what.into();
        self.tally.moments.push(Moment { at, what });
    }

    fn notice(&mut self, at: Duration, notice: &Notice) {
        match notice {
            Notice::SpeechStarted { item, .. } => {
                if self.over.as_ref().is_some_and(|(over, _, _)| over == item)
                    || self.committed.contains(item)
                {
                    self.tally.cut_offs += 1;
                    self.moment(at, "the user went on after the turn was held for over");
                }
                self.over = None;
            }
            Notice::SpeechStopped { item, at: end } => {
                self.tally.waits.push(at.saturating_sub(*end));
                self.over = Some((item.clone(), *end, at));
            }
            Notice::InputDiscarded { .. } => {
                self.tally.discarded += 1;
                self.moment(at, "sound without words was discarded");
            }
            Notice::InputCommitted { item, .. } if !self.committed.contains(item) => {
                self.tally.turns += 1;
                self.committed.push(item.clone());
            }
            Notice::InputTranscriptCompleted { text, .. } => {
                self.moment(at, format!("the user has said: {text}"));
            }
            Notice::PlaybackStarted { .. } => {
                self.tally.replies += 1;
                if let Some((_, end, _)) = self.over.take() {
                    self.tally.answers.push(at.saturating_sub(end));
                }
                self.moment(at, "a reply sounds");
            }
            Notice::InterruptionSuspected { reply, at: onset } => {
                self.tally.suspicions += 1;
                self.suspected.insert(*reply, (*onset, at));
            }
            Notice::InterruptionConfirmed { reply, evidence } => {
                self.tally.interruptions += 1;
                self.verdict(at, *reply);
                self.moment(at, format!("interrupted, by {}", name(*evidence)));
            }
            Notice::InterruptionRetracted { reply, evidence } => {
                self.tally.retractions += 1;
                if let Some(held) = self.verdict(at, *reply) {
                    self.tally.silenced.push(at.saturating_sub(held));
                }
                self.moment(
                    at,
                    format!("held for nothing, as was seen by {}", name(*evidence)),
                );
            }
            Notice::ReplyDone(outcome) => {
                if let crate::ReplyStatus::Failed { message, .. } = &outcome.status {
                    self.moment(at, format!("a reply failed: {message}"));
                }
            }
            Notice::Ended { reason } => self.moment(at, format!("the session ended: {reason:?}")),
            _ => {}
        }
    }

    /// Since when the reply was held.
    fn verdict(&mut self, at: Duration, reply: ReplyId) -> Option<Duration> {
        let (onset, held) = self.suspected.remove(&reply)?;
        self.tally.verdicts.push(at.saturating_sub(onset));
        Some(held)
    }
}

fn name(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Duration => "its length",
        Evidence::TooShort => "its shortness",
        Evidence::Words => "its words",
        Evidence::Command => "a command",
        Evidence::Backchannel => "mere assent",
        Evidence::Echo => "the reply's sound",
        Evidence::OwnSpeech => "the reply's own words",
        Evidence::NoWords => "the want of words",
        Evidence::Deadline => "the want of evidence",
        Evidence::Client => "the client",
    }
}
