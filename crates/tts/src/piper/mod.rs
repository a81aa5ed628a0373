//! Voices of the [Piper](https://github.com/OHF-Voice/piper1-gpl) project: small, quick on a CPU, in some forty
//! languages.
//!
//! Sound comes from within the sentence: it is encoded once, and then a few frames at a time go through the
//! rest of the model, a few at first and more as the listener has something to listen to. Whatever the pieces,
//! the samples are the same, as each is computed with all the context that it depends on.
//!
//! The phonemes are espeak-ng's, through a port of it that is under the GPL; without the feature `espeak` no
//! Piper voice can be loaded.

#[cfg(feature = "espeak")]
mod config;
#[cfg(feature = "espeak")]
mod engine;
#[cfg(feature = "espeak")]
mod graph;
#[cfg(feature = "espeak")]
mod intact;
#[cfg(feature = "espeak")]
mod phonemes;
#[cfg(feature = "espeak")]
pub(crate) mod probe;
#[cfg(feature = "espeak")]
mod script;
#[cfg(feature = "espeak")]
mod sharing;
#[cfg(feature = "espeak")]
mod voice;

#[cfg(not(feature = "espeak"))]
mod voice {
    use duologue_voicepack::Voicepack;

    use crate::{LoadOptions, Synthesizer, TtsError};

    /// Tells that this build cannot.
    pub(crate) fn load(
        pack: &Voicepack,
        _: &LoadOptions,
    ) -> Result<std::sync::Arc<dyn Synthesizer>, TtsError> {
        Err(TtsError::Load(format!(
            "voice {} needs phonemes, and this program was built without them (the feature espeak, whose code is \
             under the GPL): take another build, or a voice of another family",
            pack.name
        )))
    }
}

pub(crate) use voice::load;
