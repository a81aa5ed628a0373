//! The session.

use crate::{Action, Config, Event, Item, State};
use std::collections::VecDeque;
use std::time::Duration;

/// Actions that may lie unpolled. A driver polls until `None` after each event and stays far below; one that does
/// not loses its session ([`crate::EndReason::Overrun`]).
pub const MAX_QUEUED: usize = 4_096;

/// What decided whether speech over a reply was an interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// It lasted.
    Duration,
    /// It was over before it could be anything.
    TooShort,
    /// Its words.
    Words,
    /// A word such as "stop".
    Command,
    /// Nothing but words such as "mhm".
    Backchannel,
    /// The reply's own words came back.
    OwnSpeech,
    /// No words in it.
    NoWords,
    /// No evidence came in time.
    Deadline,
    /// The client decided it.
    Client,
}

/// What happened in a session, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events of an old turn revision, an old reply, or an old edge of speech; ignored.
    pub stale_events: u64,
    /// User turns that became messages.
    pub turns: u64,
    /// What was taken for a turn and had no words.
    pub discarded_turns: u64,
    /// Turns that went on after they had been held for over.
    pub cut_offs: u64,
    /// Replies created.
    pub replies: u64,
    /// Replies that failed.
    pub failed_replies: u64,
    /// Interruptions confirmed.
    pub interruptions: u64,
    /// Suspicions retracted.
    pub retractions: u64,
    /// Times that a reply fell silent while it was being spoken.
    pub gaps: u64,
    /// Times that the writer was told to go on because it had stopped.
    pub writer_restarts: u64,
}

/// A conversation.
#[derive(Debug)]
pub struct Session {
    now: Duration,
    state: State,
    config: Config,
    actions: VecDeque<Action>,
    counters: Counters,
}

impl Session {
    /// Begins a session. `seed` is a part of its items' names.
    #[must_use]
    pub fn new(_seed: &str, config: Config) -> Self {
        Self {
            now: Duration::ZERO,
            state: State::WaitingForInput,
            config,
            actions: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Tells what happened, at audio time `at`. Time does not go back: an earlier `at` counts as the latest so far.
    pub fn handle(&mut self, at: Duration, _event: Event) {
        self.now = self.now.max(at);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Event::Tick`] is due if nothing else comes. `None` only when nothing would ever happen by itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        None
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The settings that the current turn runs with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The conversation, oldest first.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &[]
    }

    /// What happened so far, counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
