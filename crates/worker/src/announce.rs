//! Tells a registry what the worker is and how it does, for as long as it lives.
//!
//! What changes by itself is looked at every [`LIVE`], what is on the disk every [`DISK`]. A worker that drains says
//! so at once, stays known while it finishes what it says, and is withdrawn then.

use std::sync::Weak;
use std::time::Duration;

use duologue_registry::WorkerRecord;
use duologue_rpc::GetCapabilitiesResponse;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::WorkerError;
use crate::service::Inner;
use crate::voices::VoiceEntry;

/// Time between two looks at the live figures.
const LIVE: Duration = Duration::from_millis(500);
/// Time between two looks at the disk.
const DISK: Duration = Duration::from_secs(10);

/// What a worker does not know of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Where others reach it, such as `http://10.0.0.5:50051`.
    pub address: String,
    /// Name of the machine.
    pub host: String,
    /// What routing policies may ask for: a zone, `gpu`, `edge`, ...
    pub tags: Vec<String>,
}

/// The record as it is now.
pub(crate) async fn first(worker: &Inner, place: &Place) -> Result<WorkerRecord, WorkerError> {
    let entries = worker.models.entries().await;
    let entries = entries.map_err(WorkerError::Voices)?;
    Ok(record(worker.describe(entries), place))
}

/// Keeps a record up to date until the worker or the record's last reader is gone.
pub(crate) async fn keep(worker: Weak<Inner>, place: Place, records: watch::Sender<WorkerRecord>) {
    let mut entries: Option<(Instant, Vec<VoiceEntry>)> = None;
    let mut draining = false;
    loop {
        let Some(alive) = worker.upgrade() else {
            return;
        };
        let shutdown = alive.shutdown.clone();
        if entries.as_ref().is_none_or(|(at, _)| at.elapsed() >= DISK) {
            match alive.models.entries().await {
                Ok(read) => entries = Some((Instant::now(), read)),
                // What was there is told until it can be read again.
                Err(error) => tracing::warn!(%error, "the voices are not told anew"),
            }
        }
        if let Some((_, entries)) = &entries {
            let new = record(alive.describe(entries.clone()), &place);
            draining = new.draining;
            records.send_if_modified(|old| {
                let changed = *old != new;
                *old = new;
                changed
            });
        }
        drop(alive);
        tokio::select! {
            () = tokio::time::sleep(LIVE) => {}
            () = shutdown.cancelled(), if !draining => {}
            () = records.closed() => return,
        }
    }
}

/// What the worker tells of itself, and what others have to tell it.
fn record(worker: GetCapabilitiesResponse, place: &Place) -> WorkerRecord {
    let mut record = WorkerRecord::from(worker);
    record.address.clone_from(&place.address);
    record.hardware.host.clone_from(&place.host);
    record.tags.clone_from(&place.tags);
    record
}
