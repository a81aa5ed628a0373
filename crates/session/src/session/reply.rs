//! A reply in the making.

use crate::ledger::Ledger;
use crate::{Finish, Item, ItemId, Modality, ReplyId, ReplyOptions, TurnId, Usage};
use std::time::Duration;

/// Who makes its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Model,
    /// The text was given.
    Given,
}

#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub id: ReplyId,
    pub options: ReplyOptions,
    pub source: Source,
    pub ledger: Ledger,
    /// The message of the user's that it answers.
    pub answers: Option<ItemId>,
    /// The last turn that began before it.
    pub newest_turn: TurnId,
    /// Nobody asked for it: it does not keep a session alive.
    pub unasked: bool,
    pub prompted: bool,
    /// No more text comes.
    pub text_ended: bool,
    pub finish: Option<Finish>,
    pub usage: Option<Usage>,
    pub items: Vec<Item>,
    /// Which of the items is the message.
    pub message: Option<usize>,
    /// Bytes of the text that the client was told.
    pub told: usize,
    pub audio_done_told: bool,
    /// The writer was told to hold.
    pub paused: bool,
    /// The writer was told to go on softly.
    pub ducked: bool,
    /// Suspected interruptions that were none.
    pub retractions: u32,
    /// The voice has something to say, or to end.
    pub voice_owes: bool,
    /// The writer was reminded that there is audio.
    pub reminded: bool,

    // When the last sign of life came, from each of those who work on it.
    pub model_seen: Duration,
    pub voice_seen: Duration,
    pub writer_seen: Duration,
    pub last_frame: Duration,
    pub resumed_at: Duration,
}

impl Reply {
    pub fn new(
        id: ReplyId,
        options: ReplyOptions,
        source: Source,
        now: Duration,
        output_delay: Duration,
        newest_turn: TurnId,
    ) -> Self {
        Self {
            id,
            options,
            source,
            ledger: Ledger::new(output_delay),
            answers: None,
            newest_turn,
            unasked: false,
            prompted: false,
            text_ended: false,
            finish: None,
            usage: None,
            items: Vec::new(),
            message: None,
            told: 0,
            audio_done_told: false,
            paused: false,
            ducked: false,
            retractions: 0,
            voice_owes: false,
            reminded: false,
            model_seen: now,
            voice_seen: now,
            writer_seen: now,
            last_frame: now,
            resumed_at: now,
        }
    }

    pub fn is_spoken(&self) -> bool {
        self.options.modality == Modality::Audio
    }

    /// The voice has been given something to say: there is something to pause, resume and stop.
    pub fn has_voice(&self) -> bool {
        self.is_spoken() && self.ledger.clauses() > 0
    }

    /// The writer has nothing to send.
    pub fn is_starved(&self) -> bool {
        self.ledger.playout.position() >= self.ledger.received()
    }

    /// A frame of it was sent.
    pub fn has_sounded(&self) -> bool {
        self.ledger.playout.furthest() > 0
    }

    /// All of it was sent.
    pub fn is_sent(&self) -> bool {
        self.text_ended
            && (self.ledger.clauses() == 0 || (self.ledger.has_ended() && self.is_starved()))
    }

    /// Waits begin anew.
    pub fn touch(&mut self, now: Duration) {
        self.model_seen = now;
        self.voice_seen = now;
        self.writer_seen = now;
        self.last_frame = now;
        self.resumed_at = now;
    }
}
