//! What this process knows of the workers: the registry's snapshot, and what it has done itself since.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duologue_registry::{Snapshot, VoiceRecord, WorkerState};
use tokio::sync::watch;

use super::Wanted;
use crate::routing::{Decision, Policy, route};

pub(super) struct View {
    workers: Mutex<Vec<WorkerState>>,
    changed: watch::Sender<()>,
}

impl View {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self {
            workers: Mutex::new(snapshot.workers.clone()),
            changed: watch::Sender::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<WorkerState>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told of whatever may turn a refusal into something better.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Lets those who wait look again.
    pub(super) fn stir(&self) {
        self.changed.send_replace(());
    }

    pub(super) fn replace(&self, snapshot: &Snapshot) {
        self.lock().clone_from(&snapshot.workers);
        self.stir();
    }

    /// Decides, and counts the slot that comes of it as taken where `reserve` says so, so that whoever decides next
    /// knows.
    pub(super) fn decide(
        &self,
        wanted: &Wanted,
        policy: &Policy,
        reserve: impl FnOnce(&crate::routing::Route) -> bool,
    ) -> Decision {
        let mut workers = self.lock();
        let decision = route(wanted, &workers, policy);
        if let Decision::Speak(route) = &decision
            && reserve(route)
        {
            let chosen = |state: &&mut WorkerState| state.record.name == route.worker.name;
            if let Some(state) = workers.iter_mut().find(chosen) {
                state.taken += 1;
            }
        }
        decision
    }

    /// Takes the registry's word for how many slots of a worker are taken.
    pub(super) fn correct(&self, worker: &str, taken: u32) {
        let mut workers = self.lock();
        if let Some(state) = workers.iter_mut().find(|state| state.record.name == worker) {
            state.taken = taken;
        }
    }

    /// A slot is free again.
    pub(super) fn release(&self, worker: &str) {
        {
            let mut workers = self.lock();
            if let Some(state) = workers.iter_mut().find(|state| state.record.name == worker) {
                state.taken = state.taken.saturating_sub(1);
            }
        }
        self.stir();
    }

    /// All workers.
    pub(super) fn workers(&self) -> Vec<WorkerState> {
        self.lock().clone()
    }

    /// Whether any worker may know a voice.
    pub(super) fn knows(&self, voice: &str) -> bool {
        self.any_voice(|record| record.name == voice || voice.is_empty() && record.default)
    }

    /// Whether any worker has a voice in memory.
    pub(super) fn is_resident(&self, voice: &str) -> bool {
        self.any_voice(|record| record.name == voice && record.resident)
    }

    fn any_voice(&self, is_it: impl Fn(&VoiceRecord) -> bool) -> bool {
        let workers = self.lock();
        let mut records = workers.iter().map(|state| &state.record);
        records.any(|record| record.unlisted || record.voices.iter().any(&is_it))
    }
}

/// Keeps the view up to date with the registry.
pub(super) async fn follow(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    told: impl Fn(&Snapshot),
) {
    while snapshots.changed().await.is_ok() {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        told(&snapshot);
    }
}
