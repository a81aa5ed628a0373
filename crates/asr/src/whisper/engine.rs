//! CTranslate2, as far as Whisper needs it: features to states, states to tokens.
//!
//! The states that come out of the encoder are taken apart and put together again between the two, so they are
//! plain floats here.

use std::ffi::c_void;
use std::ops::Deref;
use std::path::Path;

use ct2rs::sys::{ComputeType, Config, Device, StorageView, Whisper, WhisperOptions};
use duologue_audio::mel::Mel;

use crate::{AsrError, Compute, LoadOptions};

/// Output of the encoder: one vector for every 20 ms.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct States {
    /// `[len][width]`, row-major.
    pub data: Vec<f32>,
    /// Floats in a vector.
    pub width: usize,
}

impl States {
    /// How many vectors.
    pub(crate) fn len(&self) -> usize {
        self.data.len().checked_div(self.width).unwrap_or(0)
    }

    /// Vector number `i`.
    pub(crate) fn at(&self, i: usize) -> &[f32] {
        &self.data[i * self.width..(i + 1) * self.width]
    }
}

/// What the decoder made of states.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decoded {
    /// Tokens, without the prompt and the end.
    pub ids: Vec<usize>,
    /// Mean log-probability, the end counted.
    pub avg_logprob: f32,
    pub no_speech_prob: f32,
}

/// When the tokens were said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Alignment {
    /// Pairs of token (the end's counted) and state, along the path.
    pub path: Vec<(usize, usize)>,
    /// For each token.
    pub probabilities: Vec<f32>,
}

/// A loaded model.
pub(crate) struct Engine {
    whisper: Whisper,
    pub mel_bins: usize,
    pub compute: &'static str,
    /// Of one transcription.
    pub threads: usize,
    replicas: usize,
}

impl Engine {
    pub(crate) fn load(dir: &Path, options: &LoadOptions) -> Result<Self, String> {
        let gpu = cfg!(feature = "cuda") && ct2rs::sys::get_device_count(Device::CUDA) > 0;
        let (compute_type, compute) = match (options.compute, gpu) {
            (Compute::Auto | Compute::Float16, true) => (ComputeType::FLOAT16, "float16"),
            (Compute::Float16, false) => {
                return Err(
                    "float16 needs a GPU and a build with the `cuda` feature; use int8 or float32"
                        .into(),
                );
            }
            (Compute::Auto | Compute::Int8, false) => (ComputeType::INT8_FLOAT32, "int8"),
            (Compute::Int8, true) => (ComputeType::INT8_FLOAT16, "int8_float16"),
            (Compute::Float32, _) => (ComputeType::FLOAT32, "float32"),
        };
        let (threads, replicas) = (threads(options.threads), options.replicas.max(1));
        let config = Config {
            device: if gpu { Device::CUDA } else { Device::CPU },
            compute_type,
            // Each mention of the device is a replica.
            device_indices: vec![0; replicas],
            num_threads_per_replica: threads,
            ..Config::default()
        };
        let whisper = Whisper::new(dir, config).map_err(|e| e.to_string())?;
        let mel_bins = whisper.n_mels();
        Ok(Self {
            whisper,
            mel_bins,
            compute,
            threads,
            replicas,
        })
    }

    /// Memory that the weights hold, from the size of a file of 16-bit floats.
    pub(crate) fn bytes(&self, file: u64) -> u64 {
        let one = match self.compute {
            "float32" => 2 * file,
            "float16" => file,
            _ => file / 2,
        };
        one * self.replicas as u64
    }

    /// Runs the encoder; half as many states as frames.
    pub(crate) fn encode(&self, mut mel: Mel) -> Result<States, AsrError> {
        let len = mel.frames / 2;
        let features = features(&[1, mel.bins, mel.frames], &mut mel.data)?;
        let states = told("encoder", self.whisper.encode(&features, true))?;
        let data = floats(&states)?;
        if len == 0 || data.is_empty() || data.len() % len != 0 {
            return Err(AsrError::Engine(format!(
                "encoder: {} floats for {} frames",
                data.len(),
                mel.frames
            )));
        }
        Ok(States {
            width: data.len() / len,
            data,
        })
    }

    /// Runs the decoder over the states: the likeliest tokens after `prompt`, at most `max_tokens`.
    pub(crate) fn generate(
        &self,
        states: &mut States,
        prompt: &[&str],
        beam: usize,
        max_tokens: usize,
    ) -> Result<Decoded, AsrError> {
        let options = WhisperOptions {
            beam_size: beam.clamp(1, 10),
            // The engine halves what it is given.
            max_length: (2 * max_tokens).min(MAX_LENGTH),
            return_scores: true,
            return_no_speech_prob: true,
            ..WhisperOptions::default()
        };
        let view = states_view(states)?;
        let result = told(
            "decoder",
            self.whisper.generate(&view, &[prompt.to_vec()], &options),
        )?;
        let result = result
            .into_iter()
            .next()
            .ok_or_else(|| AsrError::Engine("decoder: no result".into()))?;
        let ids = result.sequences_ids.into_iter().next().unwrap_or_default();
        // The score is a mean over the tokens without the end.
        let tokens = ids.len() as f32;
        let score = result.scores.first().copied().unwrap_or(0.0);
        Ok(Decoded {
            avg_logprob: score * tokens / (tokens + 1.0),
            ids,
            no_speech_prob: result.no_speech_prob,
        })
    }

    /// The likeliest language's token and its probability.
    pub(crate) fn detect_language(&self, states: &mut States) -> Result<(String, f32), AsrError> {
        let view = states_view(states)?;
        let found = told("language", self.whisper.detect_language(&view))?;
        found
            .into_iter()
            .next()
            .and_then(|languages| languages.into_iter().next())
            .map(|best| {
                // Its fields are private; its debug output is not.
                parse_detection(&format!("{best:?}"))
            })
            .ok_or_else(|| AsrError::Engine("language: no result".into()))
    }

    /// Aligns tokens with the first `frames` mel frames.
    pub(crate) fn align(
        &self,
        states: &mut States,
        start: &[usize],
        tokens: &[usize],
        frames: usize,
    ) -> Result<Alignment, AsrError> {
        const MEDIAN_WIDTH: i64 = 7; // As in the Whisper reference.
        let view = states_view(states)?;
        let found = told(
            "alignment",
            self.whisper
                .align(&view, start, &[tokens.to_vec()], &[frames], MEDIAN_WIDTH),
        )?;
        let found = found
            .into_iter()
            .next()
            .ok_or_else(|| AsrError::Engine("alignment: no result".into()))?;
        let index = |i: i64| usize::try_from(i).unwrap_or(0);
        Ok(Alignment {
            path: found
                .alignments
                .iter()
                .map(|a| (index(a.token_x), index(a.frame_x)))
                .collect(),
            probabilities: found.text_token_probs,
        })
    }
}

/// Tokens of text that the decoder has room for, prompt included.
const MAX_LENGTH: usize = 448;

fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(4),
        n => n,
    }
}

fn told<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, AsrError> {
    result.map_err(|e| AsrError::Engine(format!("{what}: {e}")))
}

fn features<'a>(shape: &[usize], data: &'a mut [f32]) -> Result<StorageView<'a>, AsrError> {
    told("input", StorageView::new(shape, data, Device::CPU))
}

fn states_view(states: &mut States) -> Result<StorageView<'_>, AsrError> {
    let shape = [1, states.len(), states.width];
    features(&shape, &mut states.data)
}

type RawView = <StorageView<'static> as Deref>::Target;

// The binding gives no way to read a result back. The library's own accessor does:
// `const void* ctranslate2::StorageView::buffer() const`, by its mangled name.
unsafe extern "C" {
    #[cfg_attr(
        not(target_env = "msvc"),
        link_name = "_ZNK11ctranslate211StorageView6bufferEv"
    )]
    #[cfg_attr(
        target_env = "msvc",
        link_name = "?buffer@StorageView@ctranslate2@@QEBAPEBXXZ"
    )]
    fn storage_view_buffer(this: *const RawView) -> *const c_void;
}

/// The content of a view in the CPU's memory.
fn floats(view: &StorageView<'_>) -> Result<Vec<f32>, AsrError> {
    let len = usize::try_from(view.size()).unwrap_or(0);
    // Its debug output ends with "[cpu:0 float32 storage viewed as 1x150x384]"; nothing else tells the type.
    let description = format!("{view:?}");
    if view.device() != Device::CPU {
        return Err(AsrError::Engine(
            "the encoder's output is not in the CPU's memory".into(),
        ));
    }
    let raw: &RawView = view;
    // SAFETY: `raw` is a live C++ StorageView; `buffer` is const, does not throw, and points to `size()` items
    // of the type named in the description, owned by the view for as long as it lives, which is longer than
    // this function. It is null only when empty.
    let buffer = unsafe { storage_view_buffer(raw) };
    if len == 0 || buffer.is_null() {
        return Ok(Vec::new());
    }
    if description.contains(" float32 storage") {
        // SAFETY: as above; 32-bit floats.
        Ok(unsafe { std::slice::from_raw_parts(buffer.cast::<f32>(), len) }.to_vec())
    } else if description.contains(" float16 storage") {
        // SAFETY: as above; 16-bit floats.
        let halves = unsafe { std::slice::from_raw_parts(buffer.cast::<u16>(), len) };
        Ok(halves.iter().map(|&h| half_to_float(h)).collect())
    } else {
        Err(AsrError::Engine(format!(
            "the encoder's output is of an unexpected type: {description}"
        )))
    }
}

/// IEEE 754 binary16 to binary32.
pub(super) fn half_to_float(half: u16) -> f32 {
    // The exponent's bias is 15 there and 127 here; the product sets it right for subnormal numbers, too.
    const BIAS: f32 = f32::from_bits((127 + 127 - 15) << 23);
    const INFINITE: u32 = 0x7C00;
    let (sign, rest) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7FFF));
    let magnitude = if rest >= INFINITE {
        f32::from_bits(0x7F80_0000 | (rest & 0x3FF) << 13)
    } else {
        f32::from_bits(rest << 13) * BIAS
    };
    f32::from_bits(magnitude.to_bits() | sign)
}

/// `DetectionResult { language: "<|en|>", probability: 0.98 }` to its values.
fn parse_detection(debug: &str) -> (String, f32) {
    let language = debug
        .split_once("<|")
        .and_then(|(_, rest)| rest.split_once("|>"))
        .map_or("", |(l, _)| l);
    let probability = debug
        .rsplit_once("probability: ")
        .and_then(|(_, rest)| rest.trim_end_matches([' ', '}']).parse().ok())
        .unwrap_or(0.0);
    (language.to_owned(), probability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_a_view_is_read_back() {
        let mut data: Vec<f32> = (0..24).map(|i| i as f32 * 0.5 - 3.0).collect();
        let expected = data.clone();
        let view = features(&[1, 4, 6], &mut data).expect("a view");
        assert_eq!(floats(&view).expect("its floats"), expected);
    }

    #[test]
    fn halves_become_the_same_floats() {
        for (half, float) in [
            (0x0000, 0.0),
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7BFF, 65504.0),
            (0x0001, 5.960_464_5e-8),
        ] {
            assert_eq!(half_to_float(half), float);
        }
        assert!(half_to_float(0x7E00).is_nan());
    }

    #[test]
    fn a_detection_is_read_from_its_debug_output() {
        let debug = r#"DetectionResult { language: "<|en|>", probability: 0.9825 }"#;
        assert_eq!(parse_detection(debug), ("en".to_owned(), 0.9825));
    }
}
