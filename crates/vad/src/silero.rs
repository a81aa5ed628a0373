//! Silero VAD v5: the default detector.
//!
//! A recurrent network over 32 ms windows, each seen with the last 4 ms of the
//! one before. Silero Team, "Silero VAD" (2021-2024), ONNX export
//! `silero_vad.onnx`: inputs `input` [batch, 576], `state` [2, batch, 128] and
//! `sr`, outputs `output` [batch, 1] and `stateN`.

use std::path::Path;
use std::sync::Arc;

use rten::{Model, NodeId, RunOptions, ThreadPool};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;

use crate::detector::Windower;
use crate::{SAMPLE_RATE, VadError, VoiceDetector, Window};

/// Samples a window: 32 ms.
const WINDOW: usize = 512;
/// Samples of the window before that each window begins with.
const CONTEXT: usize = 64;
/// Music (and noise, a little) drives the network's state to where it does not
/// hear speech for a second or more: after a minute of music some sentences are
/// missed whole. A state that is simply cleared hears again, but takes music for
/// speech while it is new. So two states listen side by side. One is a second old
/// or less; when it has heard a second, and the sound has clearly not been speech
/// for five windows (160 ms, more than a dip inside a word), it takes the other's
/// place and a new one begins.
const CLEARLY_QUIET: f32 = 0.1;
const QUIET_WINDOWS: u32 = 5;
const HEARD_ENOUGH: u32 = 31;
/// Two LSTM layers (state and cell) of 128 for each of the two states.
const LANES: usize = 2;
const UNITS: usize = 128;
const NAME: &str = "Silero VAD";

/// The network, shared by all sessions. It runs on as many threads at once as there are threads that ask it.
#[derive(Clone)]
pub struct SileroModel {
    shared: Arc<Shared>,
}

struct Shared {
    model: Model,
    input: NodeId,
    state: NodeId,
    rate: NodeId,
    output: NodeId,
    next_state: NodeId,
}

thread_local! {
    /// Of one thread, since a window is too little work to be shared out; one for each thread that listens, so that
    /// none of them waits for another's window.
    static POOL: Arc<ThreadPool> = Arc::new(ThreadPool::with_num_threads(1));
}

impl SileroModel {
    /// Loads `silero_vad.onnx`. A window takes well under a millisecond.
    pub fn load(path: &Path) -> Result<SileroModel, VadError> {
        let model = Model::load_file(path).map_err(|error| VadError::load(path, error))?;
        let node = |name: &str| {
            model
                .node_id(name)
                .map_err(|error| VadError::wrong(path, NAME, error))
        };
        let shared = Shared {
            input: node("input")?,
            state: node("state")?,
            rate: node("sr")?,
            output: node("output")?,
            next_state: node("stateN")?,
            model,
        };
        Ok(SileroModel {
            shared: Arc::new(shared),
        })
    }

    /// A detector for one stream.
    pub fn detector(&self) -> SileroDetector {
        SileroDetector {
            shared: Arc::clone(&self.shared),
            memory: Memory::new(),
            windower: Windower::new(WINDOW),
        }
    }
}

/// Hears speech in one stream with Silero VAD, 32 ms at a time.
pub struct SileroDetector {
    shared: Arc<Shared>,
    memory: Memory,
    windower: Windower,
}

/// What the network knows of the stream so far.
struct Memory {
    /// `[2][lane][unit]`; lane 0 is believed, lane 1 is its successor.
    state: NdTensor<f32, 3>,
    /// For each lane the same: the last samples of the window before, and the
    /// window.
    input: NdTensor<f32, 2>,
    /// Windows that the successor has heard.
    heard: u32,
    /// Windows in a row that clearly held no speech.
    quiet: u32,
}

impl Memory {
    fn new() -> Memory {
        Memory {
            state: NdTensor::zeros([2, LANES, UNITS]),
            input: NdTensor::zeros([LANES, CONTEXT + WINDOW]),
            heard: 0,
            quiet: 0,
        }
    }

    /// Moves the context on and puts the window behind it.
    fn hear(&mut self, window: &[f32]) {
        for lane in 0..LANES {
            let mut row = self.input.slice_mut(lane);
            for i in 0..CONTEXT {
                row[[i]] = row[[WINDOW + i]];
            }
            for (i, &sample) in window.iter().enumerate() {
                row[[CONTEXT + i]] = sample;
            }
        }
    }

    /// Lets the successor take over when it may.
    fn succeed(&mut self, probability: f32) {
        self.heard += 1;
        self.quiet = match probability < CLEARLY_QUIET {
            true => self.quiet + 1,
            false => 0,
        };
        if self.quiet >= QUIET_WINDOWS && self.heard >= HEARD_ENOUGH {
            for layer in 0..2 {
                for unit in 0..UNITS {
                    self.state[[layer, 0, unit]] = self.state[[layer, 1, unit]];
                    self.state[[layer, 1, unit]] = 0.0;
                }
            }
            self.heard = 0;
        }
    }
}

impl VoiceDetector for SileroDetector {
    fn window(&self) -> usize {
        self.windower.length()
    }

    fn process(&mut self, samples: &[f32], windows: &mut Vec<Window>) -> Result<(), VadError> {
        let SileroDetector {
            shared,
            memory,
            windower,
        } = self;
        windower.process(samples, windows, |window| {
            let scored = shared.score(memory, window);
            if scored.is_err() {
                *memory = Memory::new();
            }
            scored
        })
    }

    fn reset(&mut self) {
        self.memory = Memory::new();
        self.windower.reset();
    }
}

impl Shared {
    fn score(&self, memory: &mut Memory, window: &[f32]) -> Result<f32, VadError> {
        let failed = |error: &dyn ToString| VadError::run(NAME, error.to_string());
        memory.hear(window);
        let options = RunOptions::default().with_thread_pool(Some(POOL.with(Arc::clone)));
        let rate = NdTensor::from(SAMPLE_RATE as i32);
        let inputs = vec![
            (self.input, memory.input.view().into()),
            (self.state, memory.state.view().into()),
            (self.rate, rate.view().into()),
        ];
        let [probability, state] = self
            .model
            .run_n(inputs, [self.output, self.next_state], Some(options))
            .map_err(|error| failed(&error))?;
        let probability: NdTensor<f32, 2> = probability
            .try_into()
            .map_err(|_| failed(&"its output is not a matrix"))?;
        memory.state = state
            .try_into()
            .map_err(|_| failed(&"its state is not of three axes"))?;
        match probability.iter().next() {
            Some(&p) if p.is_finite() => {
                memory.succeed(p);
                Ok(p)
            }
            other => Err(failed(&format!("it gave {other:?} as a probability"))),
        }
    }
}
