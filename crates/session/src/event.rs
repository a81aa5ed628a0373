//! What a driver tells the session. Every time in here is audio time since the session's start; every sample
//! count is a position in a reply's audio at 48 kHz (cumulative, so that saying it twice does no harm).

use crate::{ConfigPatch, Item, ItemId, ReplyId, ReplyPatch, TurnId};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::time::Duration;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    // ---- the ear ----
    /// The voice detector found speech after a stop. `onset` is where it began, without pre-roll.
    SpeechStarted {
        /// First sample of speech.
        #[serde(with = "crate::wire::ms")]
        onset: Duration,
    },
    /// The first silence after speech, about 100 ms of it: too early to call the turn over, the right moment to
    /// start transcribing.
    Silence {
        /// End of the last speech.
        #[serde(with = "crate::wire::ms")]
        since: Duration,
    },
    /// Speech again after [`Event::Silence`], before [`Event::SpeechStopped`].
    SpeechResumed {
        /// First sample of speech.
        #[serde(with = "crate::wire::ms")]
        onset: Duration,
    },
    /// The voice detector's debounced stop. Means the same as [`Event::Silence`] when that was not told.
    SpeechStopped {
        /// End of the last speech.
        #[serde(with = "crate::wire::ms")]
        end: Duration,
    },
    /// By its sound, all that is heard at the moment is the reply, come back to the microphone.
    EchoHeard,
    /// Answer to [`crate::Action::JudgeEndOfTurn`].
    EndOfTurn {
        /// As asked.
        turn: TurnId,
        /// As asked.
        revision: u32,
        /// That the speaker is done, 0 to 1.
        probability: f32,
    },
    /// Answer to [`crate::Action::Transcribe`] of kind partial. Empty text: no words so far.
    Partial {
        /// As asked.
        turn: TurnId,
        /// As asked.
        revision: u32,
        /// All words of the turn so far.
        text: String,
    },
    /// Answer to [`crate::Action::Transcribe`] of kind final. Empty text: no words, or the recognizer's guards
    /// rejected them.
    Transcript {
        /// As asked.
        turn: TurnId,
        /// As asked.
        revision: u32,
        /// All words of the turn.
        text: String,
    },
    /// [`crate::Action::Transcribe`] failed.
    TranscriptFailed {
        /// As asked.
        turn: TurnId,
        /// As asked.
        revision: u32,
        /// Why, for people.
        message: String,
    },

    // ---- the model ----
    /// The model wrote a clause.
    ReplyText {
        /// As prompted.
        reply: ReplyId,
        /// The clause.
        clause: Clause,
    },
    /// The model calls a function.
    ReplyToolCall {
        /// As prompted.
        reply: ReplyId,
        /// Pairs it with its output.
        call_id: String,
        /// The function.
        name: String,
        /// Its arguments, JSON, whole.
        arguments: String,
    },
    /// The model is done.
    ReplyEnded {
        /// As prompted.
        reply: ReplyId,
        /// Why it ended.
        finish: Finish,
        /// Tokens, where known.
        usage: Option<Usage>,
    },
    /// The model failed.
    ReplyFailed {
        /// As prompted.
        reply: ReplyId,
        /// Why, for people.
        message: String,
    },

    // ---- the voice ----
    /// Audio of a reply came from the voice; the sound itself stays with the driver.
    Audio {
        /// The generation it was made for.
        reply: ReplyId,
        /// Samples received so far, all of the reply.
        samples: u64,
        /// Words that lie in what came.
        words: Vec<WordMark>,
    },
    /// What the voice made after this position and was not sent is dropped; its words will be made again from there.
    AudioCut {
        /// The generation it was made for.
        reply: ReplyId,
        /// Samples that are left, all of the reply; no fewer than were sent.
        samples: u64,
    },
    /// The voice has spoken all it was given.
    AudioEnded {
        /// The generation it was made for.
        reply: ReplyId,
    },
    /// The voice failed.
    VoiceFailed {
        /// The generation it was made for.
        reply: ReplyId,
        /// Why, for people.
        message: String,
    },

    // ---- the mouth ----
    /// The paced writer handed everything before this position to the transport.
    Sent {
        /// The generation of the frames.
        reply: ReplyId,
        /// Position in the reply's audio. Goes back after a [`crate::Action::Resume`] at an earlier position.
        samples: u64,
    },
    /// The client says that everything before this position was heard. A client that never says so is
    /// estimated ([`crate::HeardBy::Estimate`]).
    Played {
        /// The generation of the frames.
        reply: ReplyId,
        /// Position in the reply's audio.
        samples: u64,
    },

    /// How long after it was sent a sample is now held to be heard; takes the place of
    /// [`crate::Timing::output_delay`]. An estimate, which a client that reports its playout needs none of.
    OutputDelay {
        /// From the writer to the listener's ear.
        #[serde(with = "crate::wire::ms")]
        delay: Duration,
    },

    /// Whether the client's player stands still as soon as it is told to hold, and keeps what it has. Of one that
    /// does not it is assumed that it plays whatever was sent.
    PlayerHolds(bool),

    // ---- the client ----
    /// Pause, go on, stop.
    Control(Control),
    /// Commit what the input buffer holds as a user message. Never starts a reply by itself.
    CommitInput {
        /// Start of the buffer. An open turn starts no earlier.
        #[serde(with = "crate::wire::ms")]
        from: Duration,
        /// End of the buffer.
        #[serde(with = "crate::wire::ms")]
        to: Duration,
    },
    /// Forget what the input buffer holds.
    ClearInput,
    /// Add an item to the conversation.
    CreateItem {
        /// The item.
        item: Item,
        /// Where.
        place: Place,
    },
    /// Take an item out.
    DeleteItem(ItemId),
    /// Show an item.
    RetrieveItem(ItemId),
    /// The client stopped playing an assistant's item there; the rest was not heard.
    TruncateItem {
        /// The item.
        item: ItemId,
        /// Position in its audio.
        #[serde(with = "crate::wire::ms")]
        audio_end: Duration,
    },
    /// Answer now.
    CreateReply(ReplyPatch),
    /// Stop answering; `None` is whatever reply is under way.
    CancelReply(Option<ReplyId>),
    /// Change the configuration from the next turn on.
    Configure(Box<ConfigPatch>),
    /// Speak this text, without asking a model.
    Say(String),

    // ---- the connection and the clock ----
    /// The client is gone; it may come back.
    TransportLost,
    /// The client is back.
    TransportBack,
    /// End the session.
    Close,
    /// End the session: who holds it stops.
    Shutdown,
    /// Time passed; due when [`crate::Session::deadline`] says so.
    Tick,
}

/// A client's hand on the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Hold the reply, and any that follows, until [`Control::Resume`].
    Pause,
    /// Go on where it was held.
    Resume,
    /// Stop the reply and drop the rest of it.
    Stop,
}

/// Where a new item goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// At the end.
    End,
    /// At the beginning.
    Start,
    /// After this one.
    After(ItemId),
}

/// A piece of a reply that is spoken as a whole, as read and as said: "$5" is said "five dollars".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clause {
    /// For reading, with its white space, so that clauses joined give the text.
    pub display: String,
    /// For speaking; may be empty (a code block).
    pub spoken: String,
    /// Byte ranges of `spoken` and the byte ranges of `display` they say, in order. Empty: word by word when both
    /// have as many words, else the clause is one span.
    pub words: Vec<(Range<usize>, Range<usize>)>,
}

impl Clause {
    /// A clause that is said as it is read.
    #[must_use]
    pub fn plain(text: impl Into<String>) -> Self {
        let display = text.into();
        Self {
            spoken: display.clone(),
            display,
            words: Vec::new(),
        }
    }
}

/// Where a spoken word lies in a reply's audio.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordMark {
    /// Number of the [`crate::Action::Speak`] that brought the text, from 0.
    pub clause: u32,
    /// Byte range of the word in that text.
    pub spoken: Range<usize>,
    /// First sample.
    pub start_sample: u64,
    /// One past the last sample.
    pub end_sample: u64,
}

/// Why a model stopped writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It was done.
    Stop,
    /// The token limit.
    Length,
    /// It waits for the functions it called.
    ToolCalls,
    /// The provider's filter.
    ContentFilter,
}

/// Tokens a reply took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Read.
    pub input_tokens: u64,
    /// Of those, read from a cache.
    pub cached_tokens: u64,
    /// Written.
    pub output_tokens: u64,
}
