//! Where voices come from: the voicepacks on disk, and the built-in test voice.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use duologue_tts::tone::{Tone, ToneOptions};
use duologue_tts::{DeviceChoice, FAMILIES, LoadOptions, Synthesizer, TtsError};
use duologue_voicepack::{Kind, Voicepack, VoicepackError, VoicepackStore};

use crate::config::WorkerConfig;

/// Name of the built-in test voice.
const TONE: &str = "tone";

/// Finds voices and loads them. The worker's own is the disk; a test brings another.
///
/// Both calls may block: the worker makes them off the reactor.
pub trait VoiceSource: Send + Sync + 'static {
    /// Voices that can be loaded, by name.
    ///
    /// # Errors
    /// When they cannot be looked up.
    fn list(&self) -> Result<Vec<VoiceEntry>, TtsError>;

    /// Loads a voice afresh from its files.
    ///
    /// # Errors
    /// [`TtsError::Load`] when there is no such voice or its files do not load.
    fn load(&self, name: &str) -> Result<Arc<dyn Synthesizer>, TtsError>;
}

/// What is known of a voice before it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoiceEntry {
    /// Voicepack name.
    pub name: String,
    /// `tone`, `piper`, ...
    pub family: String,
    /// BCP 47 tags.
    pub languages: Vec<String>,
    /// Tags of the voicepack, such as `cpu_ok`.
    pub tags: Vec<String>,
    /// Memory that it is thought to take, bytes; 0 if that is not known.
    pub estimated_bytes: u64,
}

/// The voicepacks of a store, and the built-in `tone`.
pub(crate) struct DiskVoices {
    store: VoicepackStore,
    options: LoadOptions,
}

impl DiskVoices {
    pub(crate) fn new(store: VoicepackStore, config: &WorkerConfig) -> Self {
        let tone = ToneOptions {
            first_audio: Duration::from_millis(config.tone.first_audio_ms.into()),
            real_time_factor: config.tone.real_time_factor,
        };
        let options = LoadOptions {
            threads: NonZeroUsize::new(config.voice_threads),
            tone,
            // A process sees the one GPU that is its own.
            device: if config.device.starts_with("cuda") {
                DeviceChoice::Cuda(0)
            } else {
                DeviceChoice::Cpu
            },
            ..LoadOptions::default()
        };
        DiskVoices { store, options }
    }
}

impl VoiceSource for DiskVoices {
    fn list(&self) -> Result<Vec<VoiceEntry>, TtsError> {
        let mut voices = vec![VoiceEntry {
            name: TONE.to_owned(),
            family: TONE.to_owned(),
            languages: Vec::new(),
            tags: Tone::new(self.options.tone)?.voice().tags.clone(),
            estimated_bytes: 0,
        }];
        for (name, pack) in self.store.list().map_err(load_error)? {
            match pack {
                Ok(pack) if is_ours(&pack) && name != TONE => {
                    voices.push(VoiceEntry {
                        estimated_bytes: estimate(&pack, &self.options),
                        name,
                        family: pack.metadata.family,
                        languages: pack.metadata.languages,
                        tags: pack.metadata.tags,
                    });
                }
                Ok(_) => {}
                // It may be another kind of model; loading it by name tells the error.
                Err(error) => tracing::debug!(voicepack = name, %error, "left out of the list"),
            }
        }
        voices.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(voices)
    }

    fn load(&self, name: &str) -> Result<Arc<dyn Synthesizer>, TtsError> {
        if name == TONE {
            return Ok(Arc::new(Tone::new(self.options.tone)?));
        }
        let pack = self.store.find(name).map_err(load_error)?;
        if pack.metadata.kind != Kind::Tts {
            return Err(TtsError::Load(format!(
                "voicepack {name} is no voice: its kind is {}",
                pack.metadata.kind
            )));
        }
        duologue_tts::load(&pack, &self.options)
    }
}

/// What a voice takes, from what its files do: nearly all of them is weights.
fn estimate(pack: &Voicepack, options: &LoadOptions) -> u64 {
    let size = pack.size();
    match pack.metadata.family.as_str() {
        // Weights are held as they are and once more in the order in which they are multiplied: 138 MB were measured
        // for 63 MB of files.
        "piper" => size.saturating_mul(11) / 5,
        // Checkpoints are in sixteen bits, and a CPU computes with thirty-two.
        "csm" if options.device == DeviceChoice::Cpu => size.saturating_mul(2),
        _ => size,
    }
}

/// Whether this build can speak with it.
fn is_ours(pack: &Voicepack) -> bool {
    pack.metadata.kind == Kind::Tts && FAMILIES.contains(&pack.metadata.family.as_str())
}

fn load_error(error: VoicepackError) -> TtsError {
    TtsError::Load(error.to_string())
}
