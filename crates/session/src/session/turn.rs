//! A user's turn in the making, and committed messages whose words are still awaited.

use crate::{ItemId, TurnId};
use std::time::Duration;

/// What the ear says of the turn at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    Going { since: Duration },
    Silent { since: Duration },
}

#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub id: TurnId,
    /// Grows each time the turn goes on after a silence; what was asked about an earlier one is stale.
    pub revision: u32,
    /// The message that it is, or will be.
    pub item: ItemId,
    /// The message is there already, and these words belong to it.
    pub continues: bool,
    /// Start of the speech.
    pub from: Duration,
    pub speech: Speech,
    /// Speech before the present stretch of it.
    voiced: Duration,
    /// When it was held for over; its words are awaited since.
    pub ended: Option<Duration>,
    pub probability: Option<f32>,
    pub partial: Option<String>,
    /// A partial was asked for and has not come.
    pub partial_pending: bool,
    pub next_partial: Option<Duration>,
    /// The words of this revision, or why there are none.
    pub words: Option<Result<String, String>>,
    /// A transcription may be running.
    pub asked: bool,
    /// What the client was told of the words.
    pub told: String,
    /// The client was told of the speech.
    pub announced: bool,
    /// It stopped a reply that a model was making.
    pub cut_reply: bool,
    /// The message that this turn is the rest of.
    pub follows: Option<ItemId>,
    /// The client wants no answer to it.
    pub unanswered: bool,
}

impl Turn {
    pub fn new(id: TurnId, item: ItemId, from: Duration) -> Self {
        Self {
            id,
            revision: 0,
            item,
            continues: false,
            from,
            speech: Speech::Going { since: from },
            voiced: Duration::ZERO,
            ended: None,
            probability: None,
            partial: None,
            partial_pending: false,
            next_partial: None,
            words: None,
            asked: false,
            told: String::new(),
            announced: false,
            cut_reply: false,
            follows: None,
            unanswered: false,
        }
    }

    /// Whether this is the turn as it stands.
    pub fn is(&self, turn: TurnId, revision: u32) -> bool {
        self.id == turn && self.revision == revision
    }

    pub fn is_going(&self) -> bool {
        matches!(self.speech, Speech::Going { .. })
    }

    /// How long the user has spoken, pauses apart.
    pub fn voiced(&self, now: Duration) -> Duration {
        match self.speech {
            Speech::Going { since } => self.voiced + now.saturating_sub(since),
            Speech::Silent { .. } => self.voiced,
        }
    }

    pub fn silent_since(&self) -> Option<Duration> {
        match self.speech {
            Speech::Going { .. } => None,
            Speech::Silent { since } => Some(since),
        }
    }

    pub fn fall_silent(&mut self, since: Duration) {
        self.voiced = self.voiced(since);
        self.speech = Speech::Silent { since };
        self.next_partial = None;
    }

    pub fn go_on(&mut self, onset: Duration) {
        self.speech = Speech::Going { since: onset };
        self.revision += 1;
        self.probability = None;
        self.words = None;
        self.asked = false;
        self.partial_pending = false;
    }
}

/// A committed message whose words are not known yet.
#[derive(Clone, Debug)]
pub(super) struct Awaited {
    pub turn: TurnId,
    pub revision: u32,
    pub item: ItemId,
    /// When it is given up; `None`: it was, but late words are still welcome.
    pub due: Option<Duration>,
}
