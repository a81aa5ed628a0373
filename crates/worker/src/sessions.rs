//! The sessions of a worker: a bounded number of slots, and a name for each in use.
//!
//! A slot is a value that a [`Session`] owns, and a session lives for as long as somebody holds it: the table
//! until it is ended, its utterance until the engine has let go of it. So a free slot is a free engine.
//!
//! Ids of sessions that ended are remembered for a while (the last 1,024), to tell "has ended" from "never was".

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duologue_metrics::{Held, table};
use duologue_tts::{Conversation, Settings};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::model_manager::VoiceLease;
use crate::outbox::Outbox;
use crate::refusal::Refusal;

const REMEMBERED: usize = 1_024;

/// The right to one session; dropping it gives it back.
#[expect(dead_code, reason = "held for its drop")]
pub(crate) struct Slot(OwnedSemaphorePermit, Held);

/// What a session says.
#[derive(Default)]
struct Speech {
    /// The utterance it says or said last.
    utterance: Option<Arc<Outbox>>,
    /// Set when it has ended: it begins no more, also for somebody who found it before.
    ended: Option<Ended>,
}

/// An open session.
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) voice: VoiceLease,
    pub(crate) settings: Settings,
    /// What its voice keeps from one utterance to the next.
    pub(crate) conversation: Conversation,
    pub(crate) lead: Duration,
    opened: Instant,
    speech: Mutex<Speech>,
    // Given back in this order: who waits for `gone` finds the slot free.
    _slot: Slot,
    gone: CancellationToken,
    _tell_gone: DropGuard,
}

impl Session {
    pub(crate) fn new(
        id: String,
        voice: VoiceLease,
        settings: Settings,
        lead: Duration,
        slot: Slot,
    ) -> Self {
        let gone = CancellationToken::new();
        Session {
            id,
            voice,
            settings,
            conversation: Conversation::default(),
            lead,
            opened: Instant::now(),
            speech: Mutex::default(),
            _slot: slot,
            _tell_gone: gone.clone().drop_guard(),
            gone,
        }
    }

    /// Makes `outbox` the session's utterance, unless it is still saying another or has ended.
    pub(crate) fn begin(&self, outbox: &Arc<Outbox>) -> Result<(), Refusal> {
        let mut speech = self.speech();
        if let Some(why) = speech.ended {
            return Err(Refusal::SessionEnded(self.id.clone(), why));
        }
        if !speech.is_silent() {
            return Err(Refusal::Speaking(self.id.clone()));
        }
        speech.utterance = Some(Arc::clone(outbox));
        Ok(())
    }

    /// What the session says or said last.
    pub(crate) fn current(&self) -> Option<Arc<Outbox>> {
        self.speech().utterance.clone()
    }

    /// Ends it, and what it is saying.
    fn end(&self) {
        let mut speech = self.speech();
        speech.ended = Some(Ended::Asked);
        if let Some(utterance) = &speech.utterance {
            utterance.end(None);
        }
    }

    /// Ends it if it has said nothing for `limit`.
    fn end_if_idle(&self, now: Instant, limit: Duration) -> bool {
        let mut speech = self.speech();
        let idle_since = match &speech.utterance {
            None => Some(self.opened),
            Some(utterance) => utterance.over_at(),
        };
        let idle = idle_since.is_some_and(|since| now >= since + limit);
        if idle {
            speech.ended = Some(Ended::Idle(limit));
        }
        idle
    }

    fn speech(&self) -> MutexGuard<'_, Speech> {
        self.speech.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Speech {
    fn is_silent(&self) -> bool {
        self.utterance.as_ref().is_none_or(|u| u.is_over())
    }
}

/// All sessions of a worker.
pub(crate) struct Sessions {
    slots: Arc<Semaphore>,
    max: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    live: HashMap<String, Arc<Session>>,
    ended: HashMap<String, Ended>,
    /// The ended in order, oldest first.
    order: VecDeque<String>,
}

/// Why a session is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// EndSession.
    Asked,
    /// It said nothing for this long.
    Idle(Duration),
}

impl Sessions {
    pub(crate) fn new(max: usize) -> Self {
        Sessions {
            slots: Arc::new(Semaphore::new(max)),
            max,
            table: Mutex::default(),
        }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn free(&self) -> usize {
        self.slots.available_permits()
    }

    /// A free slot.
    pub(crate) fn slot(&self) -> Result<Slot, Refusal> {
        let permit = Arc::clone(&self.slots).try_acquire_owned();
        permit
            .map(|permit| Slot(permit, table::WORKER_SESSIONS.hold()))
            .map_err(|_| Refusal::Full(self.max))
    }

    /// Refuses an id that a live session has.
    pub(crate) fn check_unused(&self, id: &str) -> Result<(), Refusal> {
        if self.lock().live.contains_key(id) {
            return Err(Refusal::SessionExists(id.to_owned()));
        }
        Ok(())
    }

    /// Puts a session in.
    pub(crate) fn insert(&self, session: Session) -> Result<(), Refusal> {
        let mut table = self.lock();
        if table.live.contains_key(&session.id) {
            return Err(Refusal::SessionExists(session.id.clone()));
        }
        if table.ended.remove(&session.id).is_some() {
            table.order.retain(|id| *id != session.id);
        }
        table.live.insert(session.id.clone(), Arc::new(session));
        Ok(())
    }

    pub(crate) fn find(&self, id: &str) -> Result<Arc<Session>, Refusal> {
        let table = self.lock();
        match table.live.get(id) {
            Some(session) => Ok(Arc::clone(session)),
            None => Err(table.missing(id)),
        }
    }

    /// Ends a session: stops what it says, and gives what tells when its slot is free. `None` if it had ended
    /// before.
    pub(crate) fn end(&self, id: &str) -> Result<Option<CancellationToken>, Refusal> {
        let mut table = self.lock();
        let Some(session) = table.live.remove(id) else {
            return match table.missing(id) {
                Refusal::SessionEnded(..) => Ok(None),
                refusal => Err(refusal),
            };
        };
        table.remember(id, Ended::Asked);
        drop(table);
        session.end();
        Ok(Some(session.gone.clone()))
    }

    /// Ends the sessions that have said nothing for `limit`.
    pub(crate) fn reap(&self, now: Instant, limit: Duration) -> Vec<String> {
        let mut table = self.lock();
        let sessions = table.live.values();
        let idle = sessions.filter(|session| session.end_if_idle(now, limit));
        let dead: Vec<String> = idle.map(|session| session.id.clone()).collect();
        for id in &dead {
            table.live.remove(id);
            table.remember(id, Ended::Idle(limit));
        }
        dead
    }

    /// Everything that is being said.
    pub(crate) fn speaking(&self) -> Vec<Arc<Outbox>> {
        let table = self.lock();
        let current = table.live.values().filter_map(|session| session.current());
        current.filter(|utterance| !utterance.is_over()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn missing(&self, id: &str) -> Refusal {
        match self.ended.get(id) {
            Some(why) => Refusal::SessionEnded(id.to_owned(), *why),
            None => Refusal::UnknownSession(id.to_owned()),
        }
    }

    fn remember(&mut self, id: &str, why: Ended) {
        if self.ended.insert(id.to_owned(), why).is_none() {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }
}
