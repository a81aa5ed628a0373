//! Whether what was said sounds finished.
//!
//! Smart Turn v3.2 (Daily, 2025; BSD-2): Whisper tiny's encoder with a classifier
//! over the last 8 seconds of sound, int8. It hears intonation and wording, not
//! silence: ask it as soon as speech pauses. Input `input_features` [1, 80, 800]
//! of normalised sound, zeros in front of what is shorter; output `logits`
//! [1, 1], which in spite of its name is a probability.

use std::path::Path;
use std::sync::Arc;

use duologue_audio::mel::LogMel;
use rten::{Model, NodeId, RunOptions, ThreadPool};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;

use crate::{SAMPLE_RATE, VadError};

const BINS: usize = 80;
const FRAMES: usize = 800;
const NAME: &str = "Smart Turn";

/// Judges whether a turn is over. Clones share one model.
#[derive(Clone)]
pub struct EndOfTurn {
    shared: Arc<Shared>,
}

struct Shared {
    model: Model,
    input: NodeId,
    output: NodeId,
    mel: LogMel,
    pool: Arc<ThreadPool>,
}

impl EndOfTurn {
    /// Samples that it listens to at most: 8 seconds.
    pub const WINDOW: usize = 8 * SAMPLE_RATE as usize;

    /// Loads `smart-turn-v3.2-cpu.onnx`; a question is worked on by `threads`
    /// threads (at least one).
    pub fn load(path: &Path, threads: usize) -> Result<EndOfTurn, VadError> {
        let model = Model::load_file(path).map_err(|error| VadError::load(path, error))?;
        let node = |name: &str| {
            model
                .node_id(name)
                .map_err(|error| VadError::wrong(path, NAME, error))
        };
        let shared = Shared {
            input: node("input_features")?,
            output: node("logits")?,
            mel: LogMel::new(BINS),
            pool: Arc::new(ThreadPool::with_num_threads(threads.max(1))),
            model,
        };
        Ok(EndOfTurn {
            shared: Arc::new(shared),
        })
    }

    /// The probability, 0.0 to 1.0, that the speaker is done. `samples` are the
    /// turn so far, 16 kHz, up to now (with the little silence that raised the
    /// question); only the last [`EndOfTurn::WINDOW`] count. Takes about a tenth
    /// of a second: never call it on a thread that must not wait.
    pub fn probability(&self, samples: &[f32]) -> Result<f32, VadError> {
        let failed = |error: &dyn ToString| VadError::run(NAME, error.to_string());
        let shared = &*self.shared;
        let mel = shared.mel.compute(&prepare(samples));
        let features = NdTensor::from_data([1, BINS, FRAMES], mel.data);
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&shared.pool)));
        let [output] = shared
            .model
            .run_n(
                vec![(shared.input, features.view().into())],
                [shared.output],
                Some(options),
            )
            .map_err(|error| failed(&error))?;
        let output: NdTensor<f32, 2> = output
            .try_into()
            .map_err(|_| failed(&"its output is not a matrix"))?;
        match output.iter().next() {
            Some(p) if p.is_finite() => Ok(p.clamp(0.0, 1.0)),
            other => Err(failed(&format!("it gave {other:?} as a probability"))),
        }
    }
}

/// The last 8 seconds with zeros in front, then zero mean and unit variance over
/// all of it, as the model was trained.
fn prepare(samples: &[f32]) -> Vec<f32> {
    let recent = &samples[samples.len().saturating_sub(EndOfTurn::WINDOW)..];
    let mut window = vec![0.0f32; EndOfTurn::WINDOW];
    window[EndOfTurn::WINDOW - recent.len()..].copy_from_slice(recent);
    let count = window.len() as f64;
    let mean = window.iter().map(|&s| f64::from(s)).sum::<f64>() / count;
    let variance = window
        .iter()
        .map(|&s| (f64::from(s) - mean).powi(2))
        .sum::<f64>()
        / count;
    let scale = 1.0 / (variance + 1e-7).sqrt();
    for sample in &mut window {
        *sample = ((f64::from(*sample) - mean) * scale) as f32;
    }
    window
}
