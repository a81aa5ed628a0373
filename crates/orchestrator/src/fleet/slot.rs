//! Room for one session on a worker, held under a lease for as long as the session lives.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duologue_registry::{Registry, RegistryError, SlotKey};
use tokio::sync::mpsc;

use super::view::View;
use crate::routing::Route;

/// How long the slots of a process that has died stay taken. Renewed three times as often.
const LEASE: Duration = Duration::from_secs(15);
/// Slots that may wait to be given back. Beyond, their leases lapse.
const RETURNS: usize = 1_024;

/// Room for one session on a worker. Dropped, it is given back.
#[must_use = "a slot that is dropped is given back at once"]
pub struct Slot {
    key: SlotKey,
    slots: Arc<Slots>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.give_back(&self.key);
    }
}

/// The slots that this process holds.
pub(super) struct Slots {
    registry: Arc<dyn Registry>,
    view: Arc<View>,
    /// A name that no other process has.
    process: String,
    taken: AtomicU64,
    held: Mutex<BTreeSet<SlotKey>>,
    returns: mpsc::Sender<SlotKey>,
}

impl Slots {
    pub(super) fn new(
        registry: Arc<dyn Registry>,
        view: Arc<View>,
    ) -> (Arc<Self>, mpsc::Receiver<SlotKey>) {
        let (returns, returned) = mpsc::channel(RETURNS);
        let slots = Self {
            registry,
            view,
            process: format!("{:016x}", rand::random::<u64>()),
            taken: AtomicU64::new(0),
            held: Mutex::default(),
            returns,
        };
        (Arc::new(slots), returned)
    }

    fn held(&self) -> MutexGuard<'_, BTreeSet<SlotKey>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of this process in the registry.
    pub(super) fn process(&self) -> &str {
        &self.process
    }

    /// Takes a slot that the view has counted as taken already; `None`: others were quicker.
    pub(super) async fn take(
        self: &Arc<Self>,
        route: &Route,
    ) -> Result<Option<Slot>, RegistryError> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let key = SlotKey {
            worker: route.worker.name.clone(),
            holder: format!("{}-{number}", self.process),
        };
        // Made first: given back, whatever happens to the call or to whoever waits for it.
        let slot = Slot {
            key: key.clone(),
            slots: Arc::clone(self),
        };
        match self.registry.take_slot(&key, route.room, LEASE).await {
            Ok(granted) if granted.granted => {
                self.view.correct(&key.worker, granted.taken);
                self.held().insert(key);
                Ok(Some(slot))
            }
            Ok(refused) => {
                drop(slot);
                self.view.correct(&key.worker, refused.taken);
                Ok(None)
            }
            // What is known has to do: by that there is room. It is told when the registry is back.
            Err(error @ RegistryError::Away { .. }) => {
                tracing::debug!(worker = key.worker, %error, "a slot is taken by what is known");
                self.held().insert(key);
                Ok(Some(slot))
            }
            Err(error) => Err(error),
        }
    }

    fn give_back(&self, key: &SlotKey) {
        self.held().remove(key);
        self.view.release(&key.worker);
        if self.returns.try_send(key.clone()).is_err() {
            tracing::debug!(worker = key.worker, "a slot comes back when its lease ends");
        }
    }
}

/// Renews the slots that are held and gives back those that are not.
pub(super) async fn keep(slots: std::sync::Weak<Slots>, mut returned: mpsc::Receiver<SlotKey>) {
    let mut renewal = tokio::time::interval(LEASE / 3);
    renewal.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let key = tokio::select! {
            key = returned.recv() => match key {
                Some(key) => Some(key),
                None => return,
            },
            _ = renewal.tick() => None,
        };
        let Some(slots) = slots.upgrade() else {
            return;
        };
        let done = match key {
            Some(key) => slots.registry.give_back(&key).await,
            None => {
                let held: Vec<SlotKey> = slots.held().iter().cloned().collect();
                match held.is_empty() {
                    true => Ok(()),
                    false => slots.registry.renew_slots(&held, LEASE).await,
                }
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, "slots are not told to the registry now");
        }
    }
}
