//! Runs the parts of a cut voice.
//!
//! The encoder runs once a sentence. Then frames go through the stages in chunks; each [`StageState`] keeps
//! just as many past frames as it needs beside new ones, so what comes out is the same, whatever the chunks.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, ValueOrView};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};

use super::graph::{self, EncoderPart, StagePart};
use crate::{StopFlag, TtsError};

/// A loaded voice's models.
pub(super) struct Engine {
    encoder: Encoder,
    stages: Vec<Stage>,
    pool: Arc<ThreadPool>,
    /// Bytes of the parts.
    pub bytes: u64,
}

struct Encoder {
    model: Model,
    ids: NodeId,
    lengths: NodeId,
    scales: NodeId,
    speaker: Option<NodeId>,
    noise: Option<NodeId>,
    /// Durations, mean, logarithm of the deviation.
    outputs: [NodeId; 3],
}

struct Stage {
    model: Model,
    input: NodeId,
    mask: Option<NodeId>,
    speaker: Option<NodeId>,
    output: NodeId,
    context: Option<usize>,
    scale: usize,
}

/// How a sentence is to be said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Number of the speaker; only voices with several look at it.
    pub speaker: usize,
    /// Spread of the frames around their mean.
    pub noise: f32,
    /// Spread of the durations.
    pub duration_noise: f32,
    /// Factor on the durations.
    pub length: f32,
    /// Seed of the noise.
    pub seed: u64,
}

/// An encoded sentence on its way through the stages.
pub(super) struct Rendering {
    engine: Arc<Engine>,
    manner: Manner,
    random: Normal,
    /// `[phonemes][channels]`, mean and deviation.
    statistics: Vec<Vec<(f32, f32)>>,
    /// The frames' phonemes.
    path: Vec<usize>,
    channels: usize,
    /// Frames that entered the stages.
    entered: usize,
    states: Vec<StageState>,
    /// Frames of each phoneme.
    pub durations: Vec<usize>,
}

impl Engine {
    /// Loads a voice; `threads` work on one run.
    pub(super) fn load(onnx: &[u8], threads: usize) -> Result<Engine, String> {
        let (encoder, stages) = graph::cut(onnx)?;
        let bytes = encoder.onnx.len() + stages.iter().map(|s| s.onnx.len()).sum::<usize>();
        Ok(Engine {
            encoder: Encoder::load(encoder)?,
            stages: stages
                .into_iter()
                .map(Stage::load)
                .collect::<Result<_, _>>()?,
            pool: Arc::new(ThreadPool::with_num_threads(threads)),
            bytes: bytes as u64,
        })
    }

    /// Samples of a frame.
    pub(super) fn hop(&self) -> usize {
        self.stages.iter().map(|s| s.scale).product()
    }

    /// Frames that must follow a frame before its samples can be computed.
    pub(super) fn lag(&self) -> usize {
        let mut scale = 1;
        let mut lag = 0;
        for stage in &self.stages {
            lag += stage.context.unwrap_or_default().div_ceil(scale);
            scale *= stage.scale;
        }
        lag
    }

    fn options(&self) -> RunOptions {
        let mut options = RunOptions::default();
        options.thread_pool = Some(Arc::clone(&self.pool));
        options
    }
}

fn load_model(onnx: Vec<u8>) -> Result<Model, String> {
    let mut options = ModelOptions::with_all_ops();
    options.prepack_weights(true);
    options.load(onnx).map_err(|e| e.to_string())
}

fn node(model: &Model, name: &str) -> Result<NodeId, String> {
    model
        .node_id(name)
        .map_err(|_| format!("the voice's graph has no {name:?}"))
}

fn engine_error(error: impl std::fmt::Display) -> TtsError {
    TtsError::Engine(error.to_string())
}

impl Encoder {
    fn load(part: EncoderPart) -> Result<Encoder, String> {
        let model = load_model(part.onnx)?;
        Ok(Encoder {
            ids: node(&model, "input")?,
            lengths: node(&model, "input_lengths")?,
            scales: node(&model, "scales")?,
            speaker: model.find_node("sid"),
            noise: part.noise.map(|n| node(&model, &n)).transpose()?,
            outputs: [
                node(&model, &part.durations)?,
                node(&model, &part.mean)?,
                node(&model, &part.log_deviation)?,
            ],
            model,
        })
    }
}

impl Stage {
    fn load(part: StagePart) -> Result<Stage, String> {
        let model = load_model(part.onnx)?;
        Ok(Stage {
            input: node(&model, &part.input)?,
            mask: part.mask.map(|m| node(&model, &m)).transpose()?,
            speaker: part.speaker.then(|| node(&model, "sid")).transpose()?,
            output: node(&model, &part.output)?,
            context: part.context,
            scale: part.scale,
            model,
        })
    }

    /// `[1, channels, frames]` to `[1, channels, frames * scale]`.
    fn run(
        &self,
        frames: NdTensor<f32, 3>,
        speaker: usize,
        options: RunOptions,
    ) -> Result<NdTensor<f32, 3>, TtsError> {
        let length = frames.size(2);
        let mut inputs: Vec<(NodeId, ValueOrView)> = vec![(self.input, frames.into())];
        if let Some(mask) = self.mask {
            inputs.push((mask, NdTensor::<f32, 3>::full([1, 1, length], 1.0).into()));
        }
        if let Some(id) = self.speaker {
            inputs.push((id, NdTensor::from([speaker as i32]).into()));
        }
        let [output] = self
            .model
            .run_n(inputs, [self.output], Some(options))
            .map_err(engine_error)?;
        let mut output: Tensor<f32> = output.try_into().map_err(engine_error)?;
        let (count, wanted) = (output.len(), length * self.scale);
        if wanted == 0 || count % wanted != 0 {
            return Err(TtsError::Engine(format!(
                "{count} values came of {length} frames"
            )));
        }
        output.reshape(&[1, count / wanted, wanted]);
        output.try_into().map_err(engine_error)
    }
}

impl Rendering {
    /// Encodes a sentence, given by its phonemes' ids.
    pub(super) fn new(engine: &Arc<Engine>, ids: &[i32], manner: Manner) -> Result<Self, TtsError> {
        let encoder = &engine.encoder;
        let mut random = Normal::new(manner.seed);
        let count = ids.len();
        let scales = [manner.noise, manner.length, manner.duration_noise];
        let mut inputs: Vec<(NodeId, ValueOrView)> = vec![
            (
                encoder.ids,
                NdTensor::from_data([1, count], ids.to_vec()).into(),
            ),
            (encoder.lengths, NdTensor::from([count as i32]).into()),
            (encoder.scales, NdTensor::from(scales).into()),
        ];
        if let Some(speaker) = encoder.speaker {
            inputs.push((speaker, NdTensor::from([manner.speaker as i32]).into()));
        }
        if let Some(noise) = encoder.noise {
            let values = (0..2 * count).map(|_| random.next()).collect::<Vec<_>>();
            inputs.push((noise, NdTensor::from_data([1, 2, count], values).into()));
        }
        let [durations, mean, log_deviation] = encoder
            .model
            .run_n(inputs, encoder.outputs, Some(engine.options()))
            .map_err(engine_error)?;
        let durations: Tensor<f32> = durations.try_into().map_err(engine_error)?;
        let mean: NdTensor<f32, 3> = mean.try_into().map_err(engine_error)?;
        let log_deviation: NdTensor<f32, 3> = log_deviation.try_into().map_err(engine_error)?;

        // A broken voice must not make a phoneme last for ever.
        let durations: Vec<usize> = durations
            .iter()
            .map(|d| d.clamp(0.0, 2_000.0) as usize)
            .collect();
        let channels = mean.size(1);
        if durations.len() != count
            || mean.shape() != log_deviation.shape()
            || mean.size(2) != count
        {
            return Err(TtsError::Engine(
                "the encoder's outputs do not fit each other".to_owned(),
            ));
        }
        let statistics = (0..count).map(|p| {
            (0..channels)
                .map(|c| {
                    (
                        mean[[0, c, p]],
                        log_deviation[[0, c, p]].exp() * manner.noise,
                    )
                })
                .collect()
        });
        let spread = durations.iter().enumerate();
        Ok(Rendering {
            engine: Arc::clone(engine),
            manner,
            random,
            statistics: statistics.collect(),
            path: spread
                .flat_map(|(p, n)| std::iter::repeat_n(p, *n))
                .collect(),
            channels,
            entered: 0,
            states: engine
                .stages
                .iter()
                .map(|_| StageState::default())
                .collect(),
            durations,
        })
    }

    /// Frames that have not yet entered the stages.
    pub(super) fn left(&self) -> usize {
        self.path.len() - self.entered
    }

    /// Sends the next `count` frames through the stages, and gives the samples that this completes: all
    /// that are left once no frame is.
    pub(super) fn advance(&mut self, count: usize, stop: &StopFlag) -> Result<Vec<f32>, TtsError> {
        let until = self.path.len().min(self.entered + count);
        let at_end = until == self.path.len();
        let mut chunk = NdTensor::<f32, 3>::zeros([1, self.channels, until - self.entered]);
        for (n, frame) in (self.entered..until).enumerate() {
            for (c, (mean, deviation)) in self.statistics[self.path[frame]].iter().enumerate() {
                chunk[[0, c, n]] = mean + deviation * self.random.next();
            }
        }
        self.entered = until;
        for (state, stage) in self.states.iter_mut().zip(&self.engine.stages) {
            stop.check()?;
            let Some(window) = state.take(&chunk, at_end, stage) else {
                return Ok(Vec::new());
            };
            let output = stage.run(window.frames, self.manner.speaker, self.engine.options())?;
            chunk = output.slice((.., .., window.wanted)).to_tensor();
        }
        Ok(chunk.to_vec())
    }
}

/// Frames that a stage still needs.
#[derive(Default)]
struct StageState {
    /// One row a channel, from frame `start` on.
    rows: Vec<Vec<f32>>,
    start: usize,
    /// Frames whose output has been given.
    done: usize,
}

struct Window {
    frames: NdTensor<f32, 3>,
    /// Which part of the output is new and no longer changes.
    wanted: std::ops::Range<usize>,
}

impl StageState {
    /// Adds frames; a window to run, if any output can be given.
    fn take(&mut self, chunk: &NdTensor<f32, 3>, at_end: bool, stage: &Stage) -> Option<Window> {
        self.rows.resize(chunk.size(1), Vec::new());
        for (c, row) in self.rows.iter_mut().enumerate() {
            row.extend(chunk.slice((0, c)).iter());
        }
        let end = self.start + self.rows.first()?.len();
        let ready = match stage.context {
            _ if at_end => end,
            Some(context) => end.saturating_sub(context),
            None => 0,
        };
        if ready <= self.done {
            return None;
        }
        let length = end - self.start;
        let frames = NdTensor::from_data([1, self.rows.len(), length], self.rows.concat());
        let wanted = (self.done - self.start) * stage.scale..(ready - self.start) * stage.scale;
        self.done = ready;
        let keep = ready.saturating_sub(stage.context.unwrap_or(ready));
        for row in &mut self.rows {
            row.drain(..keep.saturating_sub(self.start));
        }
        self.start = self.start.max(keep);
        Some(Window { frames, wanted })
    }
}

/// Normally distributed numbers (Box and Muller, 1958), the same for the same seed.
struct Normal {
    random: StdRng,
    spare: Option<f32>,
}

impl Normal {
    fn new(seed: u64) -> Self {
        Normal {
            random: StdRng::seed_from_u64(seed),
            spare: None,
        }
    }

    fn next(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        // 1 - x: the logarithm of 0 is not to be taken.
        let radius = (-2.0 * (1.0 - self.random.random::<f32>()).ln()).sqrt();
        let (sine, cosine) = (std::f32::consts::TAU * self.random.random::<f32>()).sin_cos();
        self.spare = Some(radius * sine);
        radius * cosine
    }
}
