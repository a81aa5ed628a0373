//! Those who wait for room: few, in order, and not for long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::view::View;
use super::{Mode, Wanted};

/// Who waits, by order of arrival, and for what.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    arrivals: u64,
    places: BTreeMap<u64, Want>,
}

/// Who wants the same waits in one line; who wants something else passes by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Want {
    voice: String,
    mode: Mode,
}

/// A place in the queue; dropped, it is left.
pub(super) struct Place {
    queue: Arc<Queue>,
    view: Arc<View>,
    ticket: u64,
    want: Want,
}

impl Want {
    fn of(wanted: &Wanted) -> Self {
        Self {
            voice: wanted.voice.voice.clone(),
            mode: wanted.mode,
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody waits for the same.
    pub(super) fn is_clear(&self, wanted: &Wanted) -> bool {
        let want = Want::of(wanted);
        !self.lock().places.values().any(|other| *other == want)
    }

    /// The last place, unless `length` wait already.
    pub(super) fn enter(
        self: &Arc<Self>,
        wanted: &Wanted,
        length: usize,
        view: &Arc<View>,
    ) -> Option<Place> {
        let mut waiting = self.lock();
        if waiting.places.len() >= length {
            return None;
        }
        waiting.arrivals += 1;
        let (ticket, want) = (waiting.arrivals, Want::of(wanted));
        waiting.places.insert(ticket, want.clone());
        Some(Place {
            queue: Arc::clone(self),
            view: Arc::clone(view),
            ticket,
            want,
        })
    }
}

impl Place {
    /// Whether nobody who wants the same came before.
    pub(super) fn is_first(&self) -> bool {
        let waiting = self.queue.lock();
        let mut before = waiting.places.range(..self.ticket);
        !before.any(|(_, other)| *other == self.want)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.lock().places.remove(&self.ticket);
        // The next in line may try.
        self.view.stir();
    }
}
