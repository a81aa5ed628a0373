//! Which voice workers there are, and how much room each has.
//!
//! A worker announces a [`WorkerRecord`] under a lease and renews it; when the lease ends, it is gone. Who wants a
//! voice watches [`Snapshot`]s, takes a slot on a worker, and holds it under a lease too, so that nothing that dies
//! holds anything for ever. [`MemoryRegistry`] serves one process, [`RedisRegistry`] many hosts; the same tests hold
//! for both. What was known stays known while Redis is away, and its age is told.

mod announce;
mod backoff;
mod memory;
mod record;
mod redis;
mod snapshot;
mod told;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

pub use announce::{Announcement, LEASE, announce};
pub use backoff::Backoff;
pub use memory::MemoryRegistry;
pub use record::{AudioFormat, Capabilities, Hardware, LiveFigures, VoiceRecord, WorkerRecord};
pub use redis::RedisRegistry;
pub use snapshot::{Snapshot, SnapshotFile, WorkerState, voices};

/// Why a registry did not do what it was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RegistryError {
    /// Redis cannot be reached now. What was known stays known.
    #[error(
        "the registry at {address} cannot be reached: {why}; it is tried again by itself. Is Redis running there?"
    )]
    Away {
        /// Where it should be, without its password.
        address: String,
        /// What was found.
        why: String,
    },
    /// A worker of that name lives at another address.
    #[error(
        "a worker {name:?} is registered already, at another address; give each worker a name of its own"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// An address that names no registry.
    #[error(
        "{0:?} is not a registry's address; write it as redis://HOST:PORT, or redis://:PASSWORD@HOST:PORT/DB"
    )]
    Address(String),
    /// Something in the registry is not what it should be.
    #[error("the registry answered what it should not: {0}")]
    Broken(String),
}

/// Room for one session on a worker, by the names of both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotKey {
    /// The worker.
    pub worker: String,
    /// Who holds the slot; unique among all that hold one.
    pub holder: String,
}

/// What came of asking for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Whether the slot was given.
    pub granted: bool,
    /// Slots of that worker that are taken now, by whomever.
    pub taken: u32,
}

/// Where workers are announced and slots are leased. Every call either takes effect as a whole or not at all.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Announces a worker, or renews its lease and replaces its record. Without renewal it is gone after `lease`.
    ///
    /// # Errors
    /// [`RegistryError::NameTaken`] while a worker of that name lives at another address; [`RegistryError::Away`].
    async fn announce(&self, record: &WorkerRecord, lease: Duration) -> Result<(), RegistryError>;

    /// Ends a worker's lease now. One that is not there is no error.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    async fn withdraw(&self, name: &str) -> Result<(), RegistryError>;

    /// The workers that are known, now and after every change.
    fn watch(&self) -> watch::Receiver<std::sync::Arc<Snapshot>>;

    /// Takes a slot if fewer than `room` of the worker are taken; one that the holder has already is renewed. It
    /// comes back by itself after `lease`.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    async fn take_slot(
        &self,
        slot: &SlotKey,
        room: u32,
        lease: Duration,
    ) -> Result<Granted, RegistryError>;

    /// Renews slots. One that has lapsed meanwhile is taken again, beyond the room if need be: its session runs.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    async fn renew_slots(&self, slots: &[SlotKey], lease: Duration) -> Result<(), RegistryError>;

    /// Gives a slot back. One that is not held is no error.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    async fn give_back(&self, slot: &SlotKey) -> Result<(), RegistryError>;

    /// Takes a lock, or renews it where `holder` has it; `false` if another has it. It is open again after `lease`.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    async fn lock(&self, name: &str, holder: &str, lease: Duration) -> Result<bool, RegistryError>;

    /// Opens a lock that `holder` has; no error where it has it not.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    async fn unlock(&self, name: &str, holder: &str) -> Result<(), RegistryError>;
}
