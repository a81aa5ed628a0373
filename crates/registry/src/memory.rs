//! The registry of one process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::{Granted, Registry, RegistryError, SlotKey, Snapshot, WorkerRecord, WorkerState};

/// Workers, slots and locks in this process's memory. Clones are handles on the same registry.
#[derive(Clone)]
pub struct MemoryRegistry {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    /// A lease has come or gone, so another may be the next to end.
    leases: Arc<Notify>,
}

#[derive(Default)]
struct State {
    workers: BTreeMap<String, (Arc<WorkerRecord>, Instant)>,
    /// Ends of slots' leases, by worker and holder.
    slots: HashMap<String, HashMap<String, Instant>>,
    locks: HashMap<String, (String, Instant)>,
}

impl MemoryRegistry {
    /// An empty registry. Must be made within a Tokio runtime, in which leases end.
    #[must_use]
    pub fn new() -> Self {
        let (snapshots, _) = watch::channel(Arc::new(Snapshot::empty(true)));
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            snapshots,
            leases: Arc::default(),
        });
        tokio::spawn(end_leases(Arc::downgrade(&shared)));
        Self { shared }
    }
}

impl MemoryRegistry {
    /// As [`Registry::announce`], at once.
    ///
    /// # Errors
    /// [`RegistryError::NameTaken`].
    pub fn put(&self, record: &WorkerRecord, lease: Duration) -> Result<(), RegistryError> {
        let mut state = self.shared.lock();
        let now = Instant::now();
        state.end(now);
        if let Some((known, _)) = state.workers.get(&record.name)
            && known.address != record.address
        {
            return Err(RegistryError::NameTaken {
                name: record.name.clone(),
            });
        }
        let entry = (Arc::new(record.clone()), now + lease);
        state.workers.insert(record.name.clone(), entry);
        self.shared.publish(&mut state);
        self.shared.leases.notify_one();
        Ok(())
    }
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        Self::new()
    }
}

/// Ends leases when their time has come, until the registry is gone.
async fn end_leases(registry: Weak<Shared>) {
    /// Looked at at least so often, to notice that the registry is gone.
    const IDLE: Duration = Duration::from_secs(60);
    loop {
        let Some(shared) = registry.upgrade() else {
            return;
        };
        let next = {
            let mut state = shared.lock();
            shared.publish(&mut state);
            state.next_end()
        };
        let leases = Arc::clone(&shared.leases);
        drop(shared);
        let until = next.unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = leases.notified() => {}
        }
    }
}

impl State {
    fn end(&mut self, now: Instant) {
        self.workers.retain(|_, (_, ends)| *ends > now);
        self.slots.retain(|_, holders| {
            holders.retain(|_, ends| *ends > now);
            !holders.is_empty()
        });
        self.locks.retain(|_, (_, ends)| *ends > now);
    }

    fn next_end(&self) -> Option<Instant> {
        let workers = self.workers.values().map(|(_, ends)| *ends);
        let slots = self
            .slots
            .values()
            .flat_map(|holders| holders.values().copied());
        workers.chain(slots).min()
    }

    fn taken(&self, worker: &str) -> u32 {
        self.slots
            .get(worker)
            .map_or(0, |holders| holders.len() as u32)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what has lapsed and tells those who watch.
    fn publish(&self, state: &mut State) {
        let now = Instant::now();
        state.end(now);
        let snapshot = Snapshot {
            workers: state
                .workers
                .iter()
                .map(|(name, (record, _))| WorkerState {
                    record: Arc::clone(record),
                    taken: state.taken(name),
                })
                .collect(),
            seen: now,
            current: true,
        };
        self.snapshots.send_if_modified(|known| {
            let differs = known.differs(&snapshot);
            *known = Arc::new(snapshot);
            differs
        });
    }
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn announce(&self, record: &WorkerRecord, lease: Duration) -> Result<(), RegistryError> {
        self.put(record, lease)
    }

    async fn withdraw(&self, name: &str) -> Result<(), RegistryError> {
        let mut state = self.shared.lock();
        state.workers.remove(name);
        self.shared.publish(&mut state);
        Ok(())
    }

    fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.shared.snapshots.subscribe()
    }

    async fn take_slot(
        &self,
        slot: &SlotKey,
        room: u32,
        lease: Duration,
    ) -> Result<Granted, RegistryError> {
        let mut state = self.shared.lock();
        let now = Instant::now();
        state.end(now);
        let taken = state.taken(&slot.worker);
        let holders = state.slots.entry(slot.worker.clone()).or_default();
        let granted = taken < room || holders.contains_key(&slot.holder);
        if granted {
            holders.insert(slot.holder.clone(), now + lease);
        }
        let taken = holders.len() as u32;
        self.shared.publish(&mut state);
        self.shared.leases.notify_one();
        Ok(Granted { granted, taken })
    }

    async fn renew_slots(&self, slots: &[SlotKey], lease: Duration) -> Result<(), RegistryError> {
        let mut state = self.shared.lock();
        let ends = Instant::now() + lease;
        for slot in slots {
            let holders = state.slots.entry(slot.worker.clone()).or_default();
            holders.insert(slot.holder.clone(), ends);
        }
        self.shared.publish(&mut state);
        self.shared.leases.notify_one();
        Ok(())
    }

    async fn give_back(&self, slot: &SlotKey) -> Result<(), RegistryError> {
        let mut state = self.shared.lock();
        if let Some(holders) = state.slots.get_mut(&slot.worker) {
            holders.remove(&slot.holder);
        }
        self.shared.publish(&mut state);
        Ok(())
    }

    async fn lock(&self, name: &str, holder: &str, lease: Duration) -> Result<bool, RegistryError> {
        let mut state = self.shared.lock();
        let now = Instant::now();
        state.end(now);
        if state
            .locks
            .get(name)
            .is_some_and(|(other, _)| other != holder)
        {
            return Ok(false);
        }
        let lock = (holder.to_owned(), now + lease);
        state.locks.insert(name.to_owned(), lock);
        Ok(true)
    }

    async fn unlock(&self, name: &str, holder: &str) -> Result<(), RegistryError> {
        let mut state = self.shared.lock();
        if state
            .locks
            .get(name)
            .is_some_and(|(other, _)| other == holder)
        {
            state.locks.remove(name);
        }
        Ok(())
    }
}
