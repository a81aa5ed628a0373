//! What the client is told. Names are neutral; a protocol adapter writes them as its protocol does. The order is
//! that of OpenAI Realtime: `docs/session-notices.md` shows which server event each becomes.

use crate::{Config, Item, ItemId, ReplyId, State, Usage};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Something a client may want to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// The state changed.
    StateChanged {
        /// Before.
        from: State,
        /// After.
        to: State,
    },
    /// The configuration as it will be from the next turn on.
    Configured(Box<Config>),

    // ---- input ----
    /// The user began to speak; told when it is sure that this is a turn ([`crate::InterruptionConfig::announce`]).
    SpeechStarted {
        /// The message it will become.
        item: ItemId,
        /// First sample of speech, pre-roll included.
        #[serde(with = "crate::wire::ms")]
        at: Duration,
    },
    /// The user's turn is over.
    SpeechStopped {
        /// The message it will become.
        item: ItemId,
        /// End of the speech.
        #[serde(with = "crate::wire::ms")]
        at: Duration,
    },
    /// What was taken for a turn had no words in it; no message came of it.
    InputDiscarded {
        /// The message that will not come.
        item: ItemId,
    },
    /// Nobody spoke for the time that turn detection allows; an empty turn follows.
    InputTimeout {
        /// The message of the empty turn.
        item: ItemId,
        /// Start of the silence.
        #[serde(with = "crate::wire::ms")]
        from: Duration,
        /// End of the silence.
        #[serde(with = "crate::wire::ms")]
        to: Duration,
    },
    /// The input buffer became a user message.
    InputCommitted {
        /// The message. Told again with the same item when the user went on before the reply was heard.
        item: ItemId,
        /// The item before it.
        previous: Option<ItemId>,
    },
    /// The input buffer was cleared.
    InputCleared,
    /// More words of the user's turn: what is new since the last delta.
    InputTranscriptDelta {
        /// The message.
        item: ItemId,
        /// New words.
        text: String,
    },
    /// The user's words.
    InputTranscriptCompleted {
        /// The message.
        item: ItemId,
        /// All of them.
        text: String,
    },
    /// The user's words could not be made out.
    InputTranscriptFailed {
        /// The message.
        item: ItemId,
        /// Why.
        message: String,
    },

    // ---- conversation ----
    /// An item joined the conversation.
    ItemAdded {
        /// The item.
        item: Item,
        /// The item before it.
        previous: Option<ItemId>,
    },
    /// An item of the conversation is whole.
    ItemDone {
        /// The item.
        item: Item,
        /// The item before it.
        previous: Option<ItemId>,
    },
    /// An item was taken out.
    ItemDeleted {
        /// The item.
        item: ItemId,
    },
    /// An assistant's message now ends where it was cut off.
    ItemTruncated {
        /// The item.
        item: ItemId,
        /// How much of its audio was heard.
        #[serde(with = "crate::wire::ms")]
        audio_end: Duration,
        /// The words that were heard.
        text: String,
    },
    /// An item that was asked for.
    ItemRetrieved {
        /// The item.
        item: Item,
    },

    // ---- replies ----
    /// A reply is being made.
    ReplyCreated {
        /// The reply.
        reply: ReplyId,
        /// Settings it is made with.
        options: Box<crate::ReplyOptions>,
    },
    /// The reply has a new item. [`Notice::ItemAdded`] with the same item follows unless the reply stands outside
    /// the conversation.
    ReplyItemAdded {
        /// The reply.
        reply: ReplyId,
        /// From 0.
        index: u32,
        /// The item, in progress.
        item: Item,
    },
    /// Words of the reply, as they are spoken.
    ReplyTranscriptDelta {
        /// The reply.
        reply: ReplyId,
        /// Its message.
        item: ItemId,
        /// What is new.
        text: String,
    },
    /// Words of a reply that is only written.
    ReplyTextDelta {
        /// The reply.
        reply: ReplyId,
        /// Its message.
        item: ItemId,
        /// What is new.
        text: String,
    },
    /// No more audio comes for this item.
    ReplyAudioDone {
        /// The reply.
        reply: ReplyId,
        /// Its message.
        item: ItemId,
    },
    /// The words of this item: those that were heard, or written.
    ReplyTranscriptDone {
        /// The reply.
        reply: ReplyId,
        /// Its message.
        item: ItemId,
        /// All of them.
        text: String,
        /// Whether they were only written.
        written: bool,
    },
    /// A function call is whole.
    ReplyFunctionCall {
        /// The reply.
        reply: ReplyId,
        /// The item of the call.
        item: ItemId,
        /// Pairs it with its output.
        call_id: String,
        /// The function.
        name: String,
        /// Its arguments, JSON.
        arguments: String,
    },
    /// An item of the reply is whole, or as whole as it will be.
    ReplyItemDone {
        /// The reply.
        reply: ReplyId,
        /// From 0.
        index: u32,
        /// The item.
        item: Item,
    },
    /// The reply is over; nothing of it follows.
    ReplyDone(Box<ReplyOutcome>),

    /// The reply begins to sound.
    PlaybackStarted {
        /// The reply.
        reply: ReplyId,
    },
    /// All of the reply's audio was heard. Follows [`Notice::ReplyDone`].
    PlaybackStopped {
        /// The reply.
        reply: ReplyId,
    },
    /// The rest of the reply's audio was dropped. Comes before [`Notice::ReplyDone`].
    PlaybackCleared {
        /// The reply.
        reply: ReplyId,
    },

    // ---- turn-taking ----
    /// Speech over the reply: it pauses (or is ducked) until it is known what the speech was.
    InterruptionSuspected {
        /// The reply.
        reply: ReplyId,
        /// First sample of speech.
        #[serde(with = "crate::wire::ms")]
        at: Duration,
    },
    /// The speech was an interruption: the reply stops.
    InterruptionConfirmed {
        /// The reply.
        reply: ReplyId,
        /// What decided it.
        evidence: crate::Evidence,
    },
    /// The speech was none: the reply goes on.
    InterruptionRetracted {
        /// The reply.
        reply: ReplyId,
        /// What decided it.
        evidence: crate::Evidence,
    },
    /// The session heard its own voice for the user's, and found out. Told each time.
    HeardItself {
        /// How often so far.
        times: u64,
    },
    /// A client's pause took hold.
    Paused,
    /// A client's pause is over.
    Resumed,

    // ---- the end, and what is wrong ----
    /// The session ends soon unless somebody speaks.
    IdleWarning {
        /// When it ends.
        #[serde(with = "crate::wire::ms")]
        ends_at: Duration,
    },
    /// The session is over.
    Ended {
        /// Why.
        reason: EndReason,
    },
    /// Something asked for cannot be done, or something broke. The session goes on.
    Error {
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: String,
    },
}

/// How a reply came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyOutcome {
    /// The reply.
    pub reply: ReplyId,
    /// How it ended.
    pub status: ReplyStatus,
    /// Its items, as they stand in the conversation.
    pub items: Vec<Item>,
    /// The words that were heard (or written).
    pub heard: String,
    /// The words that were meant to follow.
    pub unheard: String,
    /// How much of the audio was heard.
    #[serde(with = "crate::wire::ms")]
    pub audio_end: Duration,
    /// Who says so.
    pub heard_by: HeardBy,
    /// Tokens, where known.
    pub usage: Option<Usage>,
}

/// How a reply ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyStatus {
    /// Said to its end.
    Completed,
    /// Cut off.
    Cancelled(CancelReason),
    /// The model could not finish.
    Incomplete(IncompleteReason),
    /// Something broke.
    Failed {
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: String,
    },
}

/// Why a reply was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// The user took the turn.
    TurnDetected,
    /// The client asked.
    ClientCancelled,
    /// The session ended.
    SessionEnded,
}

/// Why a model could not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncompleteReason {
    /// The token limit.
    MaxOutputTokens,
    /// The provider's filter.
    ContentFilter,
}

/// How it is known what was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeardBy {
    /// The client said so.
    Client,
    /// From what was sent, less [`crate::Timing::output_delay`].
    Estimate,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The input buffer holds less than 100 ms.
    InputEmpty,
    /// There is a reply under way.
    ReplyActive,
    /// There is no reply to cancel.
    NoReplyActive,
    /// No such item.
    ItemNotFound,
    /// There is an item of that name.
    ItemExists,
    /// The item cannot be truncated there, or at all.
    BadTruncation,
    /// The input could not be transcribed.
    TranscriptionFailed,
    /// The model failed, or said nothing for too long.
    ModelFailed,
    /// The voice failed, or said nothing for too long.
    VoiceFailed,
    /// The user is speaking.
    UserSpeaking,
    /// The client took no audio for too long.
    OutputStalled,
    /// The configuration does not make sense.
    BadConfig,
    /// The session is over.
    SessionEnded,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The client closed it.
    ClientClosed,
    /// The client left and did not come back in time.
    TransportLost,
    /// Nobody spoke for [`crate::Limits::idle_timeout`].
    IdleTimeout,
    /// [`crate::Limits::max_duration`].
    MaxDuration,
    /// [`crate::Limits::max_turns`].
    MaxTurns,
    /// Who holds the session stops; the client may go on with it elsewhere.
    Shutdown,
    /// The driver left actions lying: more than [`crate::MAX_QUEUED`].
    Overrun,
}
