//! What the session tells a driver to do.

use crate::{EndReason, Item, Notice, ReplyId, ReplyOptions, TurnId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Something to do. Actions come in the order in which they must be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Transcribe a stretch of the input.
    Transcribe {
        /// Comes back with the answer.
        turn: TurnId,
        /// Comes back with the answer.
        revision: u32,
        /// Start, pre-roll included.
        #[serde(with = "crate::wire::ms")]
        from: Duration,
        /// End.
        #[serde(with = "crate::wire::ms")]
        to: Duration,
        /// Words so far, or the turn's text.
        kind: TranscribeKind,
    },
    /// Give up every transcription of this turn up to and with this revision.
    CancelTranscribe {
        /// The turn.
        turn: TurnId,
        /// The revision.
        revision: u32,
    },
    /// Ask the end-of-turn model about the input up to `to`.
    JudgeEndOfTurn {
        /// Comes back with the answer.
        turn: TurnId,
        /// Comes back with the answer.
        revision: u32,
        /// Start of the turn, pre-roll included.
        #[serde(with = "crate::wire::ms")]
        from: Duration,
        /// Where the speech ended.
        #[serde(with = "crate::wire::ms")]
        to: Duration,
    },
    /// Ask the model for a reply.
    Prompt {
        /// Its generation.
        reply: ReplyId,
        /// The conversation, bounded by tokens, without the instructions.
        history: Vec<Item>,
        /// Instructions, tools and settings.
        options: Box<ReplyOptions>,
        /// It is what [`Action::Speculate`] asked for: what came of that since is the reply's beginning.
        #[serde(default)] // recordings that are older do not have it
        speculated: bool,
    },
    /// The user is silent and may have finished: ask the model as [`Action::Prompt`] would, and keep what it answers
    /// until that comes, or [`Action::CancelSpeculation`]. Nothing of it is told, and no function is called. There
    /// is at most one.
    Speculate {
        /// The generation that it will have.
        reply: ReplyId,
        /// The conversation as it will be if the turn is over.
        history: Vec<Item>,
        /// Instructions, tools and settings.
        options: Box<ReplyOptions>,
    },
    /// The turn went on, or the conversation changed: forget what was speculated.
    CancelSpeculation {
        /// Its generation.
        reply: ReplyId,
    },
    /// Stop the model.
    CancelPrompt {
        /// Its generation.
        reply: ReplyId,
    },
    /// Give the voice a piece of text. The reply's first one opens its utterance.
    Speak {
        /// The generation.
        reply: ReplyId,
        /// From 0 in each reply, without gaps; comes back in [`crate::WordMark::clause`].
        clause: u32,
        /// What to say.
        text: String,
    },
    /// The voice gets no more text for this reply.
    EndSpeech {
        /// The generation.
        reply: ReplyId,
    },
    /// Stop writing frames of this reply at once. Comes, as [`Action::Duck`], [`Action::Resume`] and
    /// [`Action::Stop`] do, only after the reply's first [`Action::Speak`]. Keep what was not sent, and the last
    /// [`crate::InterruptionConfig::max_rewind`] of what was.
    Pause {
        /// The generation.
        reply: ReplyId,
    },
    /// Go on writing the reply but softly; [`Action::Resume`] brings it back.
    Duck {
        /// The generation.
        reply: ReplyId,
    },
    /// Write frames of this reply from that position on, with a short fade-in.
    Resume {
        /// The generation.
        reply: ReplyId,
        /// Position in the reply's audio: the start of a word where there is one.
        at_sample: u64,
    },
    /// Drop everything of this generation: frames, utterance, worker's work.
    Stop {
        /// The generation.
        reply: ReplyId,
    },
    /// Tell the client.
    Emit(Notice),
    /// The session is over; nothing follows.
    Close {
        /// Why.
        reason: EndReason,
    },
}

/// What a transcription is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TranscribeKind {
    /// The words so far, while speech goes on. Answered by [`crate::Event::Partial`].
    Partial,
    /// The turn's text. Answered by [`crate::Event::Transcript`].
    Final,
}
