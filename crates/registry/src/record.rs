//! What a worker tells of itself.

use serde::{Deserialize, Serialize};

/// A worker, as it announces itself. Fields that a reader does not know are left out, those that a writer does not
/// know take their defaults, so that versions can run side by side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerRecord {
    /// Name, unique in the fleet.
    pub name: String,
    /// Where it answers, such as `http://10.0.0.5:50051`.
    pub address: String,
    /// Version of its software.
    pub version: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What its frames hold.
    pub format: AudioFormat,
    /// What it runs on.
    pub hardware: Hardware,
    /// What the operator calls it by: a zone, `gpu`, `edge`, ...
    pub tags: Vec<String>,
    /// Voices on its disk, resident or not.
    pub voices: Vec<VoiceRecord>,
    /// What it can do and which voices it has is not known: it is asked for anything.
    pub unlisted: bool,
    /// How it does at the moment.
    pub live: LiveFigures,
    /// It takes no new sessions, and will be gone when those it has are over.
    pub draining: bool,
}

/// What a worker can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Sound comes while the rest of the sentence is still being made.
    pub streaming: bool,
    /// Speaks with a voice given as a recording.
    pub zero_shot: bool,
    /// Loads adapters onto a base voice.
    pub lora: bool,
    /// Is quick enough for conversations on a CPU.
    pub cpu_ok: bool,
    /// Takes directions on how to say something.
    pub emotive: bool,
    /// BCP 47 tags of all languages of its voices.
    pub languages: Vec<String>,
}

/// What a worker's frames hold; of this version of the worker interface always the default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AudioFormat {
    /// Samples a second.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u32,
    /// Samples of a frame and channel.
    pub frame_samples: u32,
    /// Encoding of a sample.
    pub encoding: String,
}

impl Default for AudioFormat {
    fn default() -> Self {
        Self {
            sample_rate: 48_000,
            channels: 1,
            frame_samples: 960,
            encoding: "s16le".into(),
        }
    }
}

/// What a worker runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hardware {
    /// Name of the host.
    pub host: String,
    /// `cpu`, `cuda:0`, ...
    pub device: String,
    /// What the device is called by its maker; empty: unknown.
    pub model: String,
    /// CPU cores it may use.
    pub cores: u32,
    /// Memory for voices, of the device; 0: unknown.
    pub memory_bytes: u64,
}

/// A voice on a worker's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoiceRecord {
    /// Voicepack name.
    pub name: String,
    /// `tone`, `piper`, ...
    pub family: String,
    /// BCP 47 tags; empty: any.
    pub languages: Vec<String>,
    /// Tags of the voicepack.
    pub tags: Vec<String>,
    /// Speakers; empty for a voice with one, and for one that is not resident.
    pub speakers: Vec<String>,
    /// Loaded and warmed up.
    pub resident: bool,
    /// What the worker speaks with where nothing is named.
    pub default: bool,
    /// Memory it holds; 0 where it is not resident.
    pub resident_bytes: u64,
}

/// How a worker does at the moment, measured over the last minute or so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveFigures {
    /// Seconds of the whole worker's time that a second of speech takes: 0.5 is room for two listeners. 0: not
    /// measured yet.
    pub real_time_factor: f32,
    /// Utterances that wait to be computed.
    pub queue_depth: u32,
    /// Median time to first sound, ms; 0: not measured yet.
    pub first_audio_p50_ms: f32,
    /// 95th percentile of it, ms.
    pub first_audio_p95_ms: f32,
    /// Sessions that it may still take, by its own count.
    pub free_slots: u32,
    /// Sessions that it takes at most.
    pub slots: u32,
}

impl WorkerRecord {
    /// The voice of that name, if it is on the worker's disk.
    #[must_use]
    pub fn voice(&self, name: &str) -> Option<&VoiceRecord> {
        self.voices.iter().find(|voice| voice.name == name)
    }
}

impl Capabilities {
    /// Whether it has a capability, by the name of its field; `false` for a name that is none.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match name {
            "streaming" => self.streaming,
            "zero_shot" => self.zero_shot,
            "lora" => self.lora,
            "cpu_ok" => self.cpu_ok,
            "emotive" => self.emotive,
            _ => false,
        }
    }
}
