//! The six states and every way from one to another, as data. [`State::after`] is the only way to change, so what
//! is not in [`TRANSITIONS`] cannot happen; `docs/session-states.md` is printed from the table.

use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// What the session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody speaks. The session waits for the user, or for the client (a pause, a function's output).
    WaitingForInput,
    /// The user speaks, or has just stopped.
    Listening,
    /// A reply is being made; nothing of it is audible.
    Thinking,
    /// The reply is audible: a frame was sent within [`crate::Timing::speaking_gap`], or the last one was and is
    /// on its way to the ear.
    Speaking,
    /// The user speaks over a reply; it is held until it is known what that speech is.
    BargedIn,
    /// Over.
    Ended,
}

/// What changes a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// The user begins to speak, and no reply is under way.
    UserSpeaks,
    /// The user begins to speak over a reply.
    UserSpeaksOverReply,
    /// The user goes on after the turn was held for over.
    TurnGoesOn,
    /// The turn is over; its words are awaited.
    TurnEnded,
    /// The turn became a message that nobody asked to answer, or had no words.
    TurnClosed,
    /// A reply is to be made.
    ReplyWanted,
    /// A frame of the reply was sent.
    FrameSent,
    /// No frame for too long.
    FramesMissing,
    /// The speech over the reply was an interruption.
    InterruptionConfirmed,
    /// It was none; the reply had been audible.
    RetractedAudible,
    /// It was none; the reply had not begun to sound.
    RetractedSilent,
    /// It was none, and the client holds the reply.
    RetractedHeld,
    /// The client (or its absence) holds the reply.
    ReplyHeld,
    /// The hold is over.
    ReplyReleased,
    /// The reply is over: said, cancelled or failed.
    ReplyOver,
    /// The session is over.
    SessionOver,
}

/// Every way from a state to another. What is not here does not happen.
pub const TRANSITIONS: &[(State, Trigger, State)] = {
    use State::{BargedIn, Ended, Listening, Speaking, Thinking, WaitingForInput};
    use Trigger::{
        FrameSent, FramesMissing, InterruptionConfirmed, ReplyHeld, ReplyOver, ReplyReleased,
        ReplyWanted, RetractedAudible, RetractedHeld, RetractedSilent, SessionOver, TurnClosed,
        TurnEnded, TurnGoesOn, UserSpeaks, UserSpeaksOverReply,
    };
    &[
        (WaitingForInput, UserSpeaks, Listening),
        (WaitingForInput, UserSpeaksOverReply, BargedIn),
        (WaitingForInput, ReplyWanted, Thinking),
        (WaitingForInput, ReplyReleased, Thinking),
        (WaitingForInput, ReplyOver, WaitingForInput),
        (WaitingForInput, SessionOver, Ended),
        (Listening, TurnEnded, Thinking),
        (Listening, TurnClosed, WaitingForInput),
        (Listening, SessionOver, Ended),
        (Thinking, TurnGoesOn, Listening),
        (Thinking, TurnClosed, WaitingForInput),
        (Thinking, ReplyWanted, Thinking),
        (Thinking, UserSpeaksOverReply, BargedIn),
        (Thinking, FrameSent, Speaking),
        (Thinking, ReplyHeld, WaitingForInput),
        (Thinking, ReplyOver, WaitingForInput),
        (Thinking, SessionOver, Ended),
        (Speaking, UserSpeaksOverReply, BargedIn),
        (Speaking, FramesMissing, Thinking),
        (Speaking, ReplyHeld, WaitingForInput),
        (Speaking, ReplyOver, WaitingForInput),
        (Speaking, SessionOver, Ended),
        (BargedIn, InterruptionConfirmed, Listening),
        (BargedIn, RetractedAudible, Speaking),
        (BargedIn, RetractedSilent, Thinking),
        (BargedIn, RetractedHeld, WaitingForInput),
        (BargedIn, ReplyOver, Listening),
        (BargedIn, SessionOver, Ended),
    ]
};

impl State {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::WaitingForInput,
        Self::Listening,
        Self::Thinking,
        Self::Speaking,
        Self::BargedIn,
        Self::Ended,
    ];

    /// The state that a trigger leads to; `None` where the table has no such way.
    #[must_use]
    pub fn after(self, trigger: Trigger) -> Option<Self> {
        TRANSITIONS
            .iter()
            .find(|(from, by, _)| (*from, *by) == (self, trigger))
            .map(|(_, _, to)| *to)
    }
}

/// The table as a Mermaid state diagram.
#[must_use]
pub fn diagram() -> String {
    let mut out = String::from("stateDiagram-v2\n    [*] --> WaitingForInput\n");
    for (from, trigger, to) in TRANSITIONS {
        let _ = writeln!(out, "    {from:?} --> {to:?}: {trigger:?}"); // writing to a String cannot fail
    }
    out.push_str("    Ended --> [*]\n");
    out
}
