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
            // Asked of the graph, since in some voices a weight has this name.
            speaker: part.speaker.then(|| node(&model, "sid")).transpose()?,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::LazyLock;

    use super::*;

    fn onnx() -> Vec<u8> {
        let store = duologue_voicepack::VoicepackStore::open_default().unwrap();
        let pack = store
            .find("piper-en_US-joe-medium")
            .unwrap_or_else(|e| panic!("{e}\nThis test needs models: run `duologue models pull`."));
        std::fs::read(pack.file("en_US-joe-medium.onnx")).unwrap()
    }

    static ENGINE: LazyLock<Arc<Engine>> =
        LazyLock::new(|| Arc::new(Engine::load(&onnx(), 2).unwrap()));

    const MANNER: Manner = Manner {
        speaker: 0,
        noise: 0.667,
        duration_noise: 0.8,
        length: 1.0,
        seed: 3,
    };

    /// "Hello world, this is a test." in the ids of an English voice.
    fn ids() -> Vec<i32> {
        let letters = [
            20, 59, 24, 120, 27, 100, 3, 35, 120, 62, 122, 24, 17, 8, 3, 41, 74, 31, 3, 74, 38, 3,
            50, 3, 32, 120, 61, 31, 32, 10,
        ];
        let padded = letters.iter().flat_map(|id| [*id, 0]);
        [1, 0].into_iter().chain(padded).chain([2]).collect()
    }

    fn render(steps: &[usize]) -> Vec<f32> {
        let mut rendering = Rendering::new(&ENGINE, &ids(), MANNER).unwrap();
        let mut samples = Vec::new();
        let mut steps = steps.iter().cycle();
        while rendering.left() > 0 {
            samples.extend(
                rendering
                    .advance(*steps.next().unwrap(), &StopFlag::default())
                    .unwrap(),
            );
        }
        assert_eq!(samples.len(), rendering.path.len() * ENGINE.hop());
        samples
    }

    fn assert_same(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        let peak = a.iter().fold(0.0f32, |m, s| m.max(s.abs()));
        assert!(peak > 0.1);
        let difference = a
            .iter()
            .zip(b)
            .map(|(x, y)| (x - y).abs())
            .fold(0.0f32, f32::max);
        assert!(
            difference <= 1e-4 * peak,
            "differs by {difference}, the peak is {peak}"
        );
    }

    #[test]
    fn sound_in_pieces_is_the_sound_as_a_whole() {
        let whole = render(&[usize::MAX / 2]);
        for steps in [&[60, 16, 24, 36, 54, 64][..], &[1], &[7, 90], &[33, 1, 2]] {
            assert_same(&whole, &render(steps));
        }
    }

    #[test]
    fn no_step_at_a_seam_is_greater_than_in_the_whole() {
        let jump = |s: &[f32]| {
            s.windows(2)
                .map(|w| (w[1] - w[0]).abs())
                .fold(0.0f32, f32::max)
        };
        let whole = render(&[usize::MAX / 2]);
        let mut rendering = Rendering::new(&ENGINE, &ids(), MANNER).unwrap();
        let (mut last, mut seams) = (None, Vec::new());
        while rendering.left() > 0 {
            let piece = rendering.advance(5, &StopFlag::default()).unwrap();
            if let (Some(before), Some(after)) = (last, piece.first()) {
                seams.push(f32::abs(after - before));
            }
            last = piece.last().copied().or(last);
        }
        assert!(seams.len() > 10);
        assert!(seams.iter().all(|s| *s <= jump(&whole)));
    }

    #[test]
    fn the_parts_do_what_the_whole_graph_does() {
        let whole = Model::load(graph::whole(&onnx()).unwrap()).unwrap();
        let mut rendering = Rendering::new(&ENGINE, &ids(), MANNER).unwrap();
        let (count, frames) = (ids().len(), rendering.path.len());
        // The same numbers in the same order as the parts get them.
        let mut random = Normal::new(MANNER.seed);
        let durations: Vec<f32> = (0..2 * count).map(|_| random.next()).collect();
        let by_frame: Vec<f32> = (0..frames * rendering.channels)
            .map(|_| random.next())
            .collect();
        let noise = NdTensor::from_data([1, frames, rendering.channels], by_frame)
            .permuted([0, 2, 1])
            .to_tensor();
        let id = |name: &str| whole.node_id(name).unwrap();
        let output = whole.output_ids()[0];
        let scales = [MANNER.noise, MANNER.length, MANNER.duration_noise];
        let output = whole
            .run_n(
                vec![
                    (id("input"), NdTensor::from_data([1, count], ids()).into()),
                    (id("input_lengths"), NdTensor::from([count as i32]).into()),
                    (id("scales"), NdTensor::from(scales).into()),
                    (
                        whole.input_ids()[3],
                        NdTensor::from_data([1, 2, count], durations).into(),
                    ),
                    (whole.input_ids()[4], noise.into()),
                ],
                [output],
                None,
            )
            .unwrap();
        let [output] = output;
        let output: Tensor<f32> = output.try_into().unwrap();
        let parts = rendering
            .advance(usize::MAX / 2, &StopFlag::default())
            .unwrap();
        assert_same(&output.to_vec(), &parts);
    }

    #[test]
    fn the_contexts_are_those_of_the_layers() {
        let contexts: Vec<_> = ENGINE.stages.iter().map(|s| (s.context, s.scale)).collect();
        // Four layers of the flow, each four convolutions of width 5; then the vocoder, 8 x 8 x 4.
        assert_eq!(contexts[..4], [(Some(8), 1); 4]);
        assert_eq!(
            contexts[4..].iter().map(|c| c.1).collect::<Vec<_>>(),
            [8, 8, 4]
        );
        assert!(
            contexts[4..].iter().all(|c| c.0.is_some_and(|c| c <= 16)),
            "{contexts:?}"
        );
        assert_eq!(ENGINE.hop(), 256);
    }

    #[test]
    fn a_stop_is_seen_between_stages() {
        let mut rendering = Rendering::new(&ENGINE, &ids(), MANNER).unwrap();
        let stop = StopFlag::default();
        stop.stop();
        assert!(matches!(
            rendering.advance(100, &stop),
            Err(TtsError::Stopped)
        ));
    }

    #[test]
    fn noise_is_normally_distributed_and_the_same_for_a_seed() {
        let draw = |seed| {
            let mut normal = Normal::new(seed);
            (0..20_000).map(|_| normal.next()).collect::<Vec<f32>>()
        };
        let numbers = draw(1);
        assert_eq!(numbers, draw(1));
        assert_ne!(numbers, draw(2));
        let mean = numbers.iter().sum::<f32>() / 20_000.0;
        let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 20_000.0;
        assert!(
            mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05,
            "{mean} {variance}"
        );
    }
}
