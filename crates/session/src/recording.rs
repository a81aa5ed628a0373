//! A session written down, and played again.
//!
//! The core has no clock and no randomness, so what it was told, in order and with its times, is all there is to
//! know of a session: told the same again it does the same again. A recording holds what it did beside what it
//! was told, so a change of the core shows as the first action that differs.

use crate::{Action, Config, Counters, Event, Session};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The form of recordings that this version writes and reads.
pub const RECORDING_FORMAT: u32 = 1;

/// What a session began with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beginning {
    /// [`RECORDING_FORMAT`] of the version that wrote it.
    pub format: u32,
    /// Part of its items' names.
    pub seed: String,
    /// Its settings before any event.
    pub config: Config,
}

/// One line of a recording, in the order in which things happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Session time.
    #[serde(with = "crate::wire::ms")]
    pub at: Duration,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What a line of a recording tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// The session was told this.
    Event(Event),
    /// The session gave this to do.
    Action(Action),
}

/// A recording that was played again and came out the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Events told.
    pub events: usize,
    /// Actions that came out as recorded.
    pub actions: usize,
    /// What happened, counted.
    pub counters: Counters,
}

/// The first action that is not as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which entry, from 0.
    pub entry: usize,
    /// Session time.
    pub at: Duration,
    /// The event before it.
    pub after: Option<Event>,
    /// As recorded; `None`: nothing more.
    pub recorded: Option<Action>,
    /// As it came now; `None`: nothing more.
    pub now: Option<Action>,
}

/// Plays a recording again and compares each action. `whole`: nothing of the recording is missing at its end, so
/// nothing may come after it.
///
/// # Errors
/// The first difference, boxed because it is large.
pub fn replay(
    beginning: &Beginning,
    entries: &[Entry],
    whole: bool,
) -> Result<Replayed, Box<Difference>> {
    let mut session = Session::new(&beginning.seed, beginning.config.clone());
    let mut last: Option<(Duration, &Event)> = None;
    let (mut events, mut actions) = (0, 0);
    let differs = |entry, last: Option<(Duration, &Event)>, recorded: Option<&Action>, now| {
        Err(Box::new(Difference {
            entry,
            at: last.map_or(Duration::ZERO, |(at, _)| at),
            after: last.map(|(_, event)| event.clone()),
            recorded: recorded.cloned(),
            now,
        }))
    };
    for (number, entry) in entries.iter().enumerate() {
        match &entry.what {
            // A driver may tell of an event while it does one of several actions, so others may be left over here;
            // they come before those of this event.
            Happening::Event(event) => {
                session.handle(entry.at, event.clone());
                last = Some((entry.at, event));
                events += 1;
            }
            Happening::Action(recorded) => {
                let now = session.poll();
                if now.as_ref() != Some(recorded) {
                    return differs(number, last, Some(recorded), now);
                }
                actions += 1;
            }
        }
    }
    match session.poll().filter(|_| whole) {
        Some(now) => differs(entries.len(), last, None, Some(now)),
        None => Ok(Replayed {
            events,
            actions,
            counters: session.counters(),
        }),
    }
}

/// The same events with the actions that this version gives to them: what a recording is when a change of the
/// core is wanted. Each event's actions follow it.
#[must_use]
pub fn rerecord(beginning: &Beginning, entries: &[Entry]) -> Vec<Entry> {
    let mut session = Session::new(&beginning.seed, beginning.config.clone());
    let mut out = Vec::new();
    for entry in entries {
        let Happening::Event(event) = &entry.what else {
            continue;
        };
        session.handle(entry.at, event.clone());
        out.push(entry.clone());
        out.extend(std::iter::from_fn(|| session.poll()).map(|action| Entry {
            at: entry.at,
            what: Happening::Action(action),
        }));
    }
    out
}
