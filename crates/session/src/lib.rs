//! The conversation core: who speaks when, what was heard, what happens next.
//!
//! Two people in a conversation never wait for each other's machinery. So everything slow (hearing,
//! transcribing, thinking, speaking) is outside, and what remains is a plain value that is told what happened and
//! when, and says what to do:
//!
//! ```
//! use duologue_session::{Action, Config, Event, Session};
//! use std::time::Duration;
//!
//! let mut session = Session::new("seed", Config::default());
//! let at = Duration::from_millis(1_260);
//! session.handle(at, Event::SpeechStarted { onset: Duration::from_millis(1_200) });
//! while let Some(action) = session.poll() {
//!     match action {
//!         Action::Emit(notice) => println!("tell the client: {notice:?}"),
//!         other => println!("do: {other:?}"),
//!     }
//! }
//! // If nothing else comes: handle(at, Event::Tick) then.
//! let wake_me = session.deadline();
//! # assert!(wake_me.is_some());
//! ```
//!
//! There is no I/O, no clock and no randomness in here. `at` is audio time since the session's start; the same
//! events at the same times give the same actions, so a conversation of ten minutes is tested in milliseconds.

mod action;
mod config;
mod conversation;
mod event;
mod id;
mod item;
mod ledger;
mod notice;
mod playout;
mod recording;
mod rehearsal;
mod session;
mod state;
mod turns;
mod wire;

pub use action::{Action, TranscribeKind};
pub use config::{
    Announce, AtOnset, Config, ConfigPatch, Eagerness, InterruptionConfig, Limits, Modality,
    ReplyOptions, ReplyPatch, Speculation, Timing, Tool, ToolChoice, TurnDetection,
};
pub use event::{Clause, Control, Event, Finish, Place, Usage, WordMark};
pub use id::{ItemId, ReplyId, TurnId};
pub use item::{Content, Item, ItemKind, ItemStatus, Role};
pub use notice::{
    CancelReason, EndReason, ErrorCode, HeardBy, IncompleteReason, Notice, ReplyOutcome,
    ReplyStatus,
};
pub use recording::{
    Beginning, Difference, Entry, Happening, RECORDING_FORMAT, Replayed, replay, rerecord,
};
pub use rehearsal::{Ear, Moment, Overridden, Rehearsed, Tally, rehearse};
pub use session::{Counters, Evidence, MAX_QUEUED, Session};
pub use state::{State, TRANSITIONS, Trigger, diagram};

/// Samples a second in all positions of a reply's audio.
pub const SAMPLE_RATE: u32 = duologue_audio::SAMPLE_RATE;
