//! From a voicepack to a voice.

use std::num::NonZeroUsize;
use std::sync::Arc;

use duologue_voicepack::Voicepack;

use crate::tone::{Tone, ToneOptions};
use crate::{DeviceChoice, Synthesizer, TtsError, piper};

/// How to load a voice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadOptions {
    /// Threads that work on one piece of sound together, and that all sessions of the voice share. `None`:
    /// as many as the machine has cores, four at most, since a piece is too small for more. With fewer, the
    /// first sound comes later, and recognition running beside it is slowed down less.
    pub threads: Option<NonZeroUsize>,
    /// Seed of the noise in voices that are made from noise: with the same one, the same text gives the same
    /// sound, in whatever pieces.
    pub seed: u64,
    /// How the tone voice behaves.
    pub tone: ToneOptions,
    /// What voices that can use more than the CPU compute with.
    pub device: DeviceChoice,
}

impl LoadOptions {
    #[cfg(any(feature = "espeak", feature = "csm"))]
    pub(crate) fn threads(&self) -> usize {
        let cores = || {
            std::thread::available_parallelism()
                .map_or(1, NonZeroUsize::get)
                .min(4)
        };
        self.threads.map_or_else(cores, NonZeroUsize::get)
    }
}

/// Families of voices that [`load()`] knows.
pub const FAMILIES: &[&str] = &[
    "piper",
    "tone",
    #[cfg(feature = "csm")]
    crate::csm::FAMILY,
    #[cfg(feature = "csm")]
    crate::csm::ADAPTER_FAMILY,
];

/// Loads a voice and warms it up; blocks for as long as that takes, a second or more for a voice of some size.
///
/// The family `tone` needs no files: [`Tone::new`] makes that voice without a voicepack.
///
/// # Errors
/// [`TtsError::Load`] when the family is not known or the files are not as they should be, with the reason.
pub fn load(pack: &Voicepack, options: &LoadOptions) -> Result<Arc<dyn Synthesizer>, TtsError> {
    match pack.metadata.family.as_str() {
        "piper" => piper::load(pack, options),
        #[cfg(feature = "csm")]
        crate::csm::FAMILY => crate::csm::load(pack, options),
        #[cfg(feature = "csm")]
        crate::csm::ADAPTER_FAMILY => crate::csm::load_adapter(pack, options),
        "tone" => Ok(Arc::new(Tone::new(options.tone)?)),
        other => Err(TtsError::Load(format!(
            "voice {} is of the family {other:?}, which this program does not know; it knows {}",
            pack.name,
            FAMILIES.join(", ")
        ))),
    }
}
