//! Tells a registry what the worker is and how it does, for as long as it lives.
//!
//! What changes by itself is looked at every [`LIVE`], what is on the disk every [`DISK`]. A worker that drains says
//! so at once, stays known while it finishes what it says, and is withdrawn then.

use std::sync::Weak;
use std::time::Duration;

use duologue_registry::{Capabilities, Hardware, LiveFigures, VoiceRecord, WorkerRecord};
use duologue_rpc::{GetCapabilitiesResponse, Model};
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

fn record(worker: GetCapabilitiesResponse, place: &Place) -> WorkerRecord {
    let hardware = worker.hardware.unwrap_or_default();
    let live = worker.live.unwrap_or_default();
    WorkerRecord {
        name: worker.worker,
        address: place.address.clone(),
        version: worker.version,
        capabilities: Capabilities {
            // Frames leave as they are made.
            streaming: true,
            zero_shot: worker.zero_shot,
            lora: worker.lora,
            cpu_ok: worker.cpu_ok,
            emotive: worker.emotive,
            languages: worker.languages,
        },
        hardware: Hardware {
            host: place.host.clone(),
            device: hardware.device,
            model: String::new(),
            cores: hardware.cores,
            memory_bytes: hardware.memory_bytes,
        },
        tags: place.tags.clone(),
        voices: worker.models.into_iter().map(voice).collect(),
        live: LiveFigures {
            real_time_factor: live.real_time_factor as f32,
            queue_depth: live.queue_depth,
            first_audio_p50_ms: live.first_audio_p50_ms as f32,
            first_audio_p95_ms: live.first_audio_p95_ms as f32,
            free_slots: worker.free_sessions,
            slots: worker.max_sessions,
        },
        draining: worker.draining,
        // The audio format, which has no other value in this version of the interface.
        ..WorkerRecord::default()
    }
}

fn voice(model: Model) -> VoiceRecord {
    VoiceRecord {
        name: model.name,
        family: model.family,
        languages: model.languages,
        tags: model.tags,
        speakers: model.speakers,
        resident: model.resident,
        default: model.is_default,
        resident_bytes: model.resident_bytes,
    }
}
