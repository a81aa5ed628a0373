//! The network: a backbone that reads text and sound and gives a frame's first code, and a small decoder that goes
//! through the frame in depth and gives the others. Both take several sessions at once, as a batch.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Result, Tensor};

use super::codec::Codec;
use super::config::Config;
use super::layout;
use crate::neural::lora::{Placement, Target};
use crate::neural::{
    Adapters, KvCache, Linear, Llama, LoraSet, Part, Sampling, Wanted, Weights, WeightsError,
    sampler,
};
use crate::{StopFlag, TtsError};

/// Embeddings of codes: backbone and depth decoder have the same, and a checkpoint has them under either name.
pub(super) const AUDIO_EMBEDDINGS: [&str; 2] = [
    "backbone_model.embed_tokens.embed_audio_tokens.weight",
    "depth_decoder.model.embed_tokens.weight",
];
const TEXT_EMBEDDINGS: &str = "embed_text_tokens.weight";
const HEADS: &str = "depth_decoder.codebooks_head.weight";
pub(super) const CODEC: &str = "codec_model.";
/// Where the codec is, in a release that has it in a file of its own.
pub(super) const CODEC_FILE: &str = "mimi.safetensors";

/// Most steps that are read at once; more are read in parts, so that a stop is seen between them.
pub(super) const READ_AT_ONCE: usize = 256;

/// The network's weights. Nothing in it changes: all that does is in a [`Memory`].
pub(crate) struct Model {
    config: Config,
    /// `[tokens, hidden]`
    text: Tensor,
    /// `[codebooks * vocabulary, hidden]`
    audio: Tensor,
    backbone: Llama,
    first_head: Linear,
    projector: Linear,
    depth: Llama,
    /// For each code of a frame but the first, `[hidden, vocabulary]`.
    heads: Vec<Tensor>,
    codec: Codec,
    dtype: DType,
    device: Device,
}

/// What one session remembers.
pub(crate) struct Memory {
    backbone: KvCache,
    /// What the backbone gave for the last step, `[1, hidden]`.
    last: Option<Tensor>,
}

/// One step of what the backbone reads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// A token of text.
    Token(u32),
    /// A frame's codes.
    Frame(Vec<u32>),
}

/// A session's part of a pass over the backbone.
pub(crate) struct Reading<'a> {
    pub memory: &'a mut Memory,
    /// How many steps of the pass are its own.
    pub steps: usize,
    pub lora: Option<&'a LoraSet>,
}

/// How a session's frame is made.
pub(crate) struct Manner<'a> {
    pub sampling: Sampling,
    pub lora: Option<&'a LoraSet>,
    /// Random numbers from 0 up to but not including 1, one for each code.
    pub draws: Vec<f32>,
}

impl Model {
    /// Reads a checkpoint in either layout.
    ///
    /// # Errors
    /// What is missing, cut short or of another shape, by name.
    pub(crate) fn load(
        config: Config,
        files: &[PathBuf],
        device: &Device,
    ) -> std::result::Result<Self, WeightsError> {
        let weights = Weights::open(files, device)?;
        let weights = if weights.has(layout::MARK_OF_ORIGINAL) {
            weights.rename(|name| layout::from_original(name, &config))
        } else {
            weights
        };
        Self::assemble(config, &weights)
    }

    /// A model of no meaning in the shape of `config`, for timing.
    pub(crate) fn random(
        config: Config,
        seed: u64,
        device: &Device,
    ) -> std::result::Result<Self, WeightsError> {
        Self::assemble(config, &Weights::random(seed, device))
    }

    fn assemble(config: Config, weights: &Weights) -> std::result::Result<Self, WeightsError> {
        let (hidden, inner) = (config.backbone.hidden, config.depth.hidden);
        let audio_name = AUDIO_EMBEDDINGS
            .into_iter()
            .find(|name| weights.has(name))
            .unwrap_or(AUDIO_EMBEDDINGS[0]);
        let text = (
            TEXT_EMBEDDINGS.to_owned(),
            vec![config.text_vocabulary, hidden],
        );
        let audio = (
            audio_name.to_owned(),
            vec![config.codebooks * config.vocabulary, hidden],
        );
        let heads = (
            HEADS.to_owned(),
            vec![config.codebooks - 1, inner, config.vocabulary],
        );
        let mut wanted: Vec<Wanted> = vec![
            text.clone(),
            audio.clone(),
            heads.clone(),
            ("lm_head.weight".to_owned(), vec![config.vocabulary, hidden]),
            (
                "depth_decoder.model.inputs_embeds_projector.weight".to_owned(),
                vec![inner, hidden],
            ),
        ];
        wanted.extend(Llama::wanted("backbone_model", &config.backbone));
        wanted.extend(Llama::wanted("depth_decoder.model", &config.depth));
        weights.check(&wanted)?;
        if !weights.has(&format!("{CODEC}upsample.conv.weight")) {
            return Err(WeightsError::Misfit(format!(
                "the codec is missing: no tensor begins with {CODEC} (the original release has it in a file of its \
                 own: put Mimi's in transformers' layout beside it as {CODEC_FILE})"
            )));
        }

        let stacked = weights.get(&heads.0, &heads.1)?;
        let heads = (0..config.codebooks - 1).map(|n| stacked.get(n));
        Ok(Model {
            text: weights.get(&text.0, &text.1)?,
            audio: weights.get(&audio.0, &audio.1)?,
            backbone: Llama::load("backbone_model", &config.backbone, weights)?,
            first_head: Linear::load(weights, "lm_head", config.vocabulary, hidden)?,
            projector: Linear::load(
                weights,
                "depth_decoder.model.inputs_embeds_projector",
                inner,
                hidden,
            )?,
            depth: Llama::load("depth_decoder.model", &config.depth, weights)?,
            heads: heads.collect::<Result<_>>()?,
            codec: Codec::load(&config.codec, weights, CODEC, weights.device())?,
            dtype: weights.dtype(),
            device: weights.device().clone(),
            config,
        })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Memory that the weights take, bytes, without the codec's fifth of a gigabyte at most.
    pub(crate) fn bytes(&self) -> usize {
        let tensors = [&self.text, &self.audio]
            .into_iter()
            .chain(&self.heads)
            .map(|t| t.elem_count() * t.dtype().size_in_bytes());
        tensors.sum::<usize>()
            + self.backbone.bytes()
            + self.depth.bytes()
            + self.first_head.bytes()
            + self.projector.bytes()
    }

    /// The matrices that an adapter may change.
    pub(crate) fn targets(&self) -> HashMap<String, Target> {
        let stacks = [
            ("backbone_model", &self.config.backbone),
            ("depth_decoder.model", &self.config.depth),
        ];
        let matrices = stacks.into_iter().flat_map(|(prefix, shape)| {
            let all = Llama::wanted(prefix, shape).into_iter();
            all.filter(|(_, shape)| shape.len() == 2)
        });
        matrices
            .map(|(name, shape)| {
                let module = name.trim_end_matches(".weight").to_owned();
                let target = Target {
                    outputs: shape[0],
                    inputs: shape[1],
                };
                (module, target)
            })
            .collect()
    }

    /// Where an adapter's matrices belong.
    pub(crate) fn placement(&self) -> Placement {
        Placement {
            dtype: self.dtype,
            device: self.device.clone(),
        }
    }

    /// An empty memory for `steps` of text and sound.
    pub(crate) fn memory(&self, steps: usize) -> Result<Memory> {
        let steps = steps.min(self.config.backbone.positions);
        let cache = self
            .config
            .backbone
            .cache(1, steps, self.dtype, &self.device)?;
        Ok(Memory {
            backbone: cache,
            last: None,
        })
    }

    /// Embeds steps, `[steps, hidden]`.
    pub(super) fn embed(&self, steps: &[Step]) -> Result<Tensor> {
        let alike = |a: &Step, b: &Step| matches!(a, Step::Token(_)) == matches!(b, Step::Token(_));
        let runs = steps.chunk_by(alike).map(|run| {
            let tokens = run.iter().filter_map(|step| match step {
                Step::Token(token) => Some(*token),
                Step::Frame(_) => None,
            });
            let tokens: Vec<u32> = tokens.collect();
            if tokens.is_empty() {
                self.embed_frames(run)
            } else {
                let tokens = Tensor::from_slice(&tokens, tokens.len(), &self.device)?;
                self.text.index_select(&tokens, 0)
            }
        });
        match &runs.collect::<Result<Vec<_>>>()?[..] {
            [only] => Ok(only.clone()),
            all => Tensor::cat(all, 0),
        }
    }

    /// Embeds frames: what their codes are, added up, `[frames, hidden]`.
    fn embed_frames(&self, frames: &[Step]) -> Result<Tensor> {
        let vocabulary = self.config.vocabulary as u32;
        let mut places = Vec::with_capacity(frames.len() * self.config.codebooks);
        for frame in frames {
            if let Step::Frame(codes) = frame {
                let codes = codes.iter().zip(0..);
                places.extend(codes.map(|(code, book)| code + book * vocabulary));
            }
        }
        let places = Tensor::from_slice(&places, places.len(), &self.device)?;
        let all = self.audio.index_select(&places, 0)?;
        all.reshape((frames.len(), self.config.codebooks, ()))?
            .sum(1)
    }

    /// One pass over the backbone: reads `steps`, which are those of each reading, one after the other.
    pub(super) fn read(&self, steps: &[Step], readings: &mut [Reading<'_>]) -> Result<()> {
        let x = self.embed(steps)?;
        let adapters = Adapters::new(readings.iter().map(|one| (one.steps, one.lora)));
        let mut parts: Vec<Part<'_>> = readings
            .iter_mut()
            .map(|one| Part {
                cache: &mut one.memory.backbone,
                steps: one.steps,
            })
            .collect();
        let given = self.backbone.forward(&x, &mut parts, &adapters)?;
        let mut end = 0;
        for one in readings {
            end += one.steps;
            one.memory.last = Some(given.narrow(0, end - 1, 1)?);
        }
        Ok(())
    }

    /// Reads steps for one session, in passes of its own.
    ///
    /// # Errors
    /// [`TtsError::Stopped`] after the pass in which the stop was asked for.
    pub(crate) fn read_alone(
        &self,
        steps: &[Step],
        memory: &mut Memory,
        lora: Option<&LoraSet>,
        stop: &StopFlag,
    ) -> std::result::Result<(), TtsError> {
        for part in steps.chunks(READ_AT_ONCE) {
            stop.check()?;
            let mut reading = [Reading {
                memory,
                steps: part.len(),
                lora,
            }];
            self.read(part, &mut reading).map_err(engine)?;
        }
        Ok(())
    }

    /// What stands behind a turn's last frame.
    pub(super) fn end_frame(&self) -> Step {
        Step::Frame(vec![self.config.end_code; self.config.codebooks])
    }

    /// A memory for the codes of one frame of each of `sessions`.
    pub(super) fn depth_cache(&self, sessions: usize) -> Result<KvCache> {
        self.config
            .depth
            .cache(sessions, self.config.codebooks, self.dtype, &self.device)
    }

    /// The codes of the next frame of each session, after all that each has read: `[sessions, codebooks]`, on the
    /// device. Nothing here waits for it. `depth` is a [`Model::depth_cache`] for as many, and is used up anew each time.
    ///
    /// `halt` is asked before each code; `None` once it says yes.
    pub(super) fn frames(
        &self,
        memories: &[&Memory],
        manners: &[Manner<'_>],
        depth: &mut KvCache,
        halt: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Tensor>> {
        let sessions = manners.len();
        let last = memories.iter().map(|memory| memory.last.as_ref());
        let Some(last) = last.collect::<Option<Vec<_>>>() else {
            candle_core::bail!("nothing was read before the first frame");
        };
        let last = Tensor::cat(&last, 0)?;
        let ways: Vec<Sampling> = manners.iter().map(|manner| manner.sampling).collect();
        let adapters = Adapters::new(manners.iter().map(|manner| (1, manner.lora)));
        let books = self.config.codebooks;
        // All numbers of the frame at once: a copy for each code would cost more than the code.
        let draws: Vec<f32> = (0..books)
            .flat_map(|book| manners.iter().map(move |manner| manner.draws[book]))
            .collect();
        let draws = Tensor::from_vec(draws, (books, sessions), &self.device)?;
        let valid = self.config.codec.codes;
        depth.truncate(0);
        let mut codes: Vec<Tensor> = Vec::with_capacity(books);
        for book in 0..books {
            if halt() {
                return Ok(None);
            }
            let scores = match codes.last() {
                None => self.first_scores(&last, &adapters)?,
                Some(before) => {
                    let backbone = (book == 1).then_some(&last);
                    self.depth_scores(book, backbone, before, depth, &adapters)?
                }
            };
            codes.push(sampler::pick(&ways, &scores, valid, &draws.get(book)?)?);
        }
        Tensor::stack(&codes, 1).map(Some)
    }

    /// Scores of all codes but the first where those before each are given, `[codebooks - 1, vocabulary]`.
    #[cfg(test)]
    pub(super) fn depth_scores_of(
        &self,
        backbone: &Tensor,
        given: &[u32],
        lora: Option<&LoraSet>,
    ) -> Result<Tensor> {
        let mut depth = self.depth_cache(1)?;
        let adapters = Adapters::new([(1, lora)]);
        let scores = (1..given.len()).map(|book| {
            let code = Tensor::from_slice(&given[book - 1..book], 1, &self.device)?;
            let before = (book == 1).then_some(backbone);
            self.depth_scores(book, before, &code, &mut depth, &adapters)
        });
        Tensor::cat(&scores.collect::<Result<Vec<_>>>()?, 0)
    }

    #[cfg(test)]
    pub(super) fn backbone(&self) -> &Llama {
        &self.backbone
    }

    /// Scores of a frame's first code, `[sessions, vocabulary]`, from what the backbone gave.
    pub(super) fn first_scores(
        &self,
        backbone: &Tensor,
        adapters: &Adapters<'_>,
    ) -> Result<Tensor> {
        self.first_head.forward(backbone, adapters)
    }

    /// Scores `[sessions, vocabulary]` of the codes in `book`, after the code before it, `[sessions]`; with the first
    /// come the backbone's numbers, `[sessions, hidden]`.
    fn depth_scores(
        &self,
        book: usize,
        backbone: Option<&Tensor>,
        code: &Tensor,
        cache: &mut KvCache,
        adapters: &Adapters<'_>,
    ) -> Result<Tensor> {
        let sessions = cache.sessions();
        let place = (code + ((book - 1) * self.config.vocabulary) as f64)?;
        let embedded = self.audio.index_select(&place, 0)?;
        let (x, steps) = match backbone {
            Some(numbers) => (Tensor::stack(&[numbers, &embedded], 1)?.flatten(0, 1)?, 2),
            None => (embedded, 1),
        };
        let adapters = &adapters.each(steps);
        let x = self.projector.forward(&x, adapters)?;
        let given = self
            .depth
            .forward(&x, &mut [Part { cache, steps }], adapters)?;
        let last = given
            .reshape((sessions, steps, ()))?
            .narrow(1, steps - 1, 1)?
            .squeeze(1)?;
        last.contiguous()?.matmul(&self.heads[book - 1])
    }

    /// Whether a frame ends its turn. The last code is not looked at, as in the reference.
    pub(crate) fn is_end(&self, codes: &[u32]) -> bool {
        codes[..codes.len() - 1]
            .iter()
            .all(|code| *code == self.config.end_code)
    }
}

impl Memory {
    /// Steps remembered.
    pub(crate) fn steps(&self) -> usize {
        self.backbone.steps()
    }

    /// Steps there is room for yet.
    pub(crate) fn room(&self) -> usize {
        self.backbone.room()
    }

    #[cfg(test)]
    pub(super) fn backbone(&mut self) -> &mut KvCache {
        &mut self.backbone
    }

    /// How far what was given for the last step is from another's, as a share of its greatest number.
    #[cfg(test)]
    pub(super) fn difference(&self, other: &Memory) -> f32 {
        let most = |t: Tensor| t.abs()?.max_all()?.to_scalar::<f32>();
        let (Some(own), Some(other)) = (&self.last, &other.last) else {
            return f32::INFINITY;
        };
        let far = (own - other).and_then(most);
        far.and_then(|far| Ok(far / most(other.clone())?))
            .unwrap_or(f32::INFINITY)
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.backbone.truncate(0);
        self.last = None;
    }

    /// Remembers what another does, and nothing else.
    pub(crate) fn copy_from(&mut self, other: &Memory) -> Result<()> {
        self.backbone.copy_from(&other.backbone)?;
        self.last.clone_from(&other.last);
        Ok(())
    }

    /// Memory taken, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.backbone.bytes()
    }
}

pub(super) fn engine(error: candle_core::Error) -> TtsError {
    TtsError::Engine(error.to_string())
}
