//! The six states and every way from one to another, as data. [`State::after`] is the only way to change, so what
//! is not in [`TRANSITIONS`] cannot happen; `docs/session-states.md` is printed from the table.

use serde::{Deserialize, Serialize};

/// What the session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    /// Nobody speaks. The session waits for the user, or for the client (a pause, a function's output).
    WaitingForInput,
    /// The user speaks, or has just stopped.
    Listening,
    /// A reply is being made; nothing of it is audible.
    Thinking,
    /// The reply is audible: a frame was sent within [`crate::Timing::speaking_gap`].
    Speaking,
    /// The user speaks over a reply; it is held until it is known what that speech is.
    BargedIn,
    /// Over.
    Ended,
}

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
}
