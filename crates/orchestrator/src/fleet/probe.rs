//! Workers that announce themselves nowhere: they are asked what they are, again and again.

use std::time::Duration;

use duologue_registry::{
    AudioFormat, Capabilities, Hardware, LiveFigures, MemoryRegistry, Registry, VoiceRecord,
    WorkerRecord,
};
use duologue_rpc::{GetCapabilitiesResponse, Model};
use tokio::sync::watch;

use crate::voice::{VoiceClient, VoiceError};

/// A worker on a list is on it for ever.
pub(super) const LEASE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// How often a worker is asked.
const EVERY: Duration = Duration::from_secs(5);
/// Times that it may not answer before it is taken for gone.
const MISSES: u32 = 2;

/// A worker of which nothing is known but where it is.
pub(super) fn unlisted(name: &str) -> WorkerRecord {
    WorkerRecord {
        name: name.to_owned(),
        unlisted: true,
        ..WorkerRecord::default()
    }
}

/// Asks a worker once, and writes down what it says.
pub(super) async fn ask(
    registry: &MemoryRegistry,
    name: &str,
    client: &VoiceClient,
) -> Result<(), VoiceError> {
    let record = record(name, client.capabilities().await?);
    registry
        .put(&record, LEASE)
        .map_err(|error| VoiceError::Worker(error.to_string()))
}

/// Goes on asking; at once when `soon` says that there may be news.
pub(super) async fn go_on(
    registry: MemoryRegistry,
    name: String,
    client: VoiceClient,
    mut soon: watch::Receiver<()>,
) {
    let mut misses = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            Ok(()) = soon.changed() => {}
        }
        match ask(&registry, &name, &client).await {
            Ok(()) => {
                if misses >= MISSES {
                    tracing::info!(worker = name, "the worker is back");
                }
                misses = 0;
            }
            Err(error) => {
                misses += 1;
                if misses == MISSES {
                    tracing::warn!(worker = name, %error, "the worker does not answer; it is asked on");
                    let _ = registry.withdraw(&name).await;
                }
            }
        }
    }
}

fn record(name: &str, told: GetCapabilitiesResponse) -> WorkerRecord {
    let format = told.format.map(|format| AudioFormat {
        sample_rate: format.sample_rate,
        channels: format.channels,
        frame_samples: format.frame_samples,
        encoding: format.encoding,
    });
    let hardware = told.hardware.unwrap_or_default();
    let live = told.live.unwrap_or_default();
    WorkerRecord {
        name: name.to_owned(),
        version: told.version,
        capabilities: Capabilities {
            // The worker interface has no other way to speak.
            streaming: true,
            zero_shot: told.zero_shot,
            lora: told.lora,
            cpu_ok: told.cpu_ok,
            emotive: told.emotive,
            languages: told.languages,
        },
        format: format.unwrap_or_default(),
        hardware: Hardware {
            device: hardware.device,
            cores: hardware.cores,
            memory_bytes: hardware.memory_bytes,
            ..Hardware::default()
        },
        voices: told.models.into_iter().map(voice).collect(),
        live: LiveFigures {
            real_time_factor: live.real_time_factor as f32,
            queue_depth: live.queue_depth,
            first_audio_p50_ms: live.first_audio_p50_ms as f32,
            first_audio_p95_ms: live.first_audio_p95_ms as f32,
            free_slots: told.free_sessions,
            slots: told.max_sessions,
        },
        draining: told.draining,
        ..WorkerRecord::default()
    }
}

/// A voice, as the registry knows it.
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

/// A voice, as the worker interface tells of it.
pub(super) fn model(voice: VoiceRecord) -> Model {
    Model {
        name: voice.name,
        family: voice.family,
        languages: voice.languages,
        tags: voice.tags,
        speakers: voice.speakers,
        resident: voice.resident,
        is_default: voice.default,
        resident_bytes: voice.resident_bytes,
        ..Model::default()
    }
}
