//! What a worker tells of itself over its own interface, as the registry keeps it.

use duologue_rpc::{GetCapabilitiesResponse, Model};

use crate::{AudioFormat, Capabilities, Hardware, LiveFigures, VoiceRecord, WorkerRecord};

/// All that the worker itself knows: not its address, its host and its tags.
impl From<GetCapabilitiesResponse> for WorkerRecord {
    fn from(told: GetCapabilitiesResponse) -> Self {
        let format = told.format.map(|format| AudioFormat {
            sample_rate: format.sample_rate,
            channels: format.channels,
            frame_samples: format.frame_samples,
            encoding: format.encoding,
        });
        let hardware = told.hardware.unwrap_or_default();
        let live = told.live.unwrap_or_default();
        WorkerRecord {
            name: told.worker,
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
            voices: told.models.into_iter().map(VoiceRecord::from).collect(),
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
}

impl From<Model> for VoiceRecord {
    fn from(model: Model) -> Self {
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
}

impl From<VoiceRecord> for Model {
    fn from(voice: VoiceRecord) -> Self {
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
}
