//! What is known of the fleet at one moment.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{VoiceRecord, WorkerRecord};

/// A worker, and what is taken of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerState {
    /// What it told of itself.
    #[serde(with = "shared")]
    pub record: Arc<WorkerRecord>,
    /// Slots that are leased, by whomever.
    #[serde(default)]
    pub taken: u32,
}

/// The workers whose leases run.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// By name.
    pub workers: Vec<WorkerState>,
    /// When this was last known to be true.
    pub seen: Instant,
    /// Whether the registry can be reached; if not, this is what was known before.
    pub current: bool,
}

/// All voices, each once, with what any worker tells of it: resident if it is so anywhere.
#[must_use]
pub fn voices(workers: &[WorkerState]) -> Vec<VoiceRecord> {
    let mut voices: Vec<VoiceRecord> = Vec::new();
    for voice in workers.iter().flat_map(|worker| &worker.record.voices) {
        match voices.iter_mut().find(|known| known.name == voice.name) {
            None => voices.push(voice.clone()),
            Some(known) => {
                known.resident |= voice.resident;
                known.default |= voice.default;
                if known.speakers.is_empty() {
                    known.speakers.clone_from(&voice.speakers);
                }
            }
        }
    }
    voices
}

/// A snapshot in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// Age when it was written, ms.
    #[serde(default)]
    pub age_ms: u64,
    /// The workers.
    pub workers: Vec<WorkerState>,
}

impl Snapshot {
    pub(crate) fn empty(current: bool) -> Self {
        Self {
            workers: Vec::new(),
            seen: Instant::now(),
            current,
        }
    }

    /// How long ago it was last known to be true.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.seen.elapsed()
    }

    /// The worker of that name.
    #[must_use]
    pub fn worker(&self, name: &str) -> Option<&WorkerState> {
        self.workers
            .iter()
            .find(|worker| worker.record.name == name)
    }

    /// As it is written to a file.
    #[must_use]
    pub fn to_file(&self) -> SnapshotFile {
        SnapshotFile {
            age_ms: self.age().as_millis() as u64,
            workers: self.workers.clone(),
        }
    }

    /// What changed between two snapshots that is worth telling.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        self.current != other.current || self.workers != other.workers
    }
}

impl From<SnapshotFile> for Snapshot {
    fn from(file: SnapshotFile) -> Self {
        let mut workers = file.workers;
        workers.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        let now = Instant::now();
        Self {
            workers,
            seen: now
                .checked_sub(Duration::from_millis(file.age_ms))
                .unwrap_or(now),
            current: true,
        }
    }
}

/// A shared record is written as the record itself.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::WorkerRecord;

    pub(super) fn serialize<S: Serializer>(
        record: &Arc<WorkerRecord>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        WorkerRecord::serialize(record, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<WorkerRecord>, D::Error> {
        WorkerRecord::deserialize(deserializer).map(Arc::new)
    }
}
