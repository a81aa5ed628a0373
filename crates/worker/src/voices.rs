//! Where voices come from: the voicepacks on disk, and the built-in test voice.

use std::sync::Arc;
use std::time::Duration;

use duologue_tts::tone::{Tone, ToneOptions};
use duologue_tts::{Synthesizer, TtsError};
use duologue_voicepack::{Kind, VoicepackError, VoicepackStore};

use crate::config::ToneConfig;

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
}

/// The voicepacks of a store, and the built-in `tone`.
pub(crate) struct DiskVoices {
    pub(crate) store: VoicepackStore,
    pub(crate) tone: ToneConfig,
}

impl DiskVoices {
    fn tone(&self) -> Result<Tone, TtsError> {
        Tone::new(ToneOptions {
            first_audio: Duration::from_millis(self.tone.first_audio_ms.into()),
            real_time_factor: self.tone.real_time_factor,
        })
    }
}

impl VoiceSource for DiskVoices {
    fn list(&self) -> Result<Vec<VoiceEntry>, TtsError> {
        let mut voices = vec![VoiceEntry {
            name: TONE.to_owned(),
            family: TONE.to_owned(),
            languages: Vec::new(),
            tags: self.tone()?.voice().tags.clone(),
        }];
        for (name, pack) in self.store.list().map_err(load_error)? {
            match pack {
                Ok(pack) if pack.metadata.kind == Kind::Tts && name != TONE => {
                    voices.push(VoiceEntry {
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
            return Ok(Arc::new(self.tone()?));
        }
        let pack = self.store.find(name).map_err(load_error)?;
        if pack.metadata.kind != Kind::Tts {
            return Err(TtsError::Load(format!(
                "voicepack {name} is no voice: its kind is {}",
                pack.metadata.kind
            )));
        }
        match pack.metadata.family.as_str() {
            family => Err(TtsError::Load(format!(
                "voicepack {name} is of family {family:?}, which this build cannot speak with"
            ))),
        }
    }
}

fn load_error(error: VoicepackError) -> TtsError {
    TtsError::Load(error.to_string())
}
