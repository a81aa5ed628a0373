//! The network: a backbone that reads text and sound and gives a frame's first code, and a small decoder that goes
//! through the frame in depth and gives the others.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Result, Tensor};

use super::codec::Codec;
use super::config::Config;
use super::layout;
use crate::neural::llama::last_step;
use crate::neural::lora::{Placement, Target};
use crate::neural::{KvCache, Linear, Llama, LoraSet, Sampling, Wanted, Weights, WeightsError};
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

/// Most text tokens that are read at once; more are read in parts, so that a stop is seen between them.
const READ_AT_ONCE: usize = 256;

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
    /// Of the frame under way only.
    depth: KvCache,
    /// What the backbone gave for the last step, `[1, hidden]`.
    last: Option<Tensor>,
}

/// How a frame is made.
pub(crate) struct Manner<'a> {
    pub sampling: Sampling,
    pub lora: Option<&'a LoraSet>,
    /// Random numbers from 0 to 1, one for each code.
    pub draw: &'a mut dyn FnMut() -> f32,
    /// Looked at before each code.
    pub stop: &'a StopFlag,
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
        Ok(Memory {
            backbone: self
                .config
                .backbone
                .cache(steps, self.dtype, &self.device)?,
            depth: self
                .config
                .depth
                .cache(self.config.codebooks, self.dtype, &self.device)?,
            last: None,
        })
    }

    /// Embeds tokens of text, `[tokens, hidden]`.
    pub(super) fn embed_text(&self, tokens: &[u32]) -> Result<Tensor> {
        let tokens = Tensor::from_slice(tokens, tokens.len(), &self.device)?;
        self.text.index_select(&tokens, 0)
    }

    /// Embeds frames: what their codes are, added up, `[frames, hidden]`.
    fn embed_frames(&self, frames: &[Vec<u32>]) -> Result<Tensor> {
        let vocabulary = self.config.vocabulary as u32;
        let places = |frame: &Vec<u32>| {
            let places = frame
                .iter()
                .zip(0..)
                .map(|(code, book)| code + book * vocabulary);
            places.collect::<Vec<u32>>()
        };
        let flat: Vec<u32> = frames.iter().flat_map(places).collect();
        let flat = Tensor::from_slice(&flat, flat.len(), &self.device)?;
        let all = self.audio.index_select(&flat, 0)?;
        all.reshape((frames.len(), self.config.codebooks, ()))?
            .sum(1)
    }

    /// Reads text.
    pub(crate) fn read_text(
        &self,
        tokens: &[u32],
        memory: &mut Memory,
        lora: Option<&LoraSet>,
        stop: &StopFlag,
    ) -> std::result::Result<(), TtsError> {
        for part in tokens.chunks(READ_AT_ONCE) {
            stop.check()?;
            self.embed_text(part)
                .and_then(|x| self.read(&x, memory, lora))
                .map_err(engine)?;
        }
        Ok(())
    }

    /// Reads frames of sound.
    pub(crate) fn read_frames(
        &self,
        frames: &[Vec<u32>],
        memory: &mut Memory,
        lora: Option<&LoraSet>,
        stop: &StopFlag,
    ) -> std::result::Result<(), TtsError> {
        for part in frames.chunks(READ_AT_ONCE) {
            stop.check()?;
            self.embed_frames(part)
                .and_then(|x| self.read(&x, memory, lora))
                .map_err(engine)?;
        }
        Ok(())
    }

    /// What stands behind a turn's last frame.
    pub(super) fn end_frame(&self) -> Vec<u32> {
        vec![self.config.end_code; self.config.codebooks]
    }

    fn read(&self, x: &Tensor, memory: &mut Memory, lora: Option<&LoraSet>) -> Result<()> {
        let given = self.backbone.forward(x, &mut memory.backbone, lora)?;
        memory.last = Some(last_step(&given)?);
        Ok(())
    }

    /// The codes of the next frame after all that was read, `[codebooks]`, on the device: nothing here waits for it.
    /// The frame is not read yet.
    ///
    /// # Errors
    /// [`TtsError::Stopped`] within one code's time after the stop was asked for.
    pub(crate) fn frame(
        &self,
        memory: &mut Memory,
        manner: &mut Manner<'_>,
    ) -> std::result::Result<Tensor, TtsError> {
        let Some(last) = memory.last.clone() else {
            return Err(TtsError::Engine(
                "nothing was read before the first frame".to_owned(),
            ));
        };
        let valid = self.config.codec.codes;
        let mut codes = Vec::with_capacity(self.config.codebooks);
        manner.stop.check()?;
        let scores = self.first_scores(&last, manner.lora).map_err(engine)?;
        let pick = |scores: &Tensor, manner: &mut Manner<'_>| {
            let draw = (manner.draw)();
            manner.sampling.pick(scores, valid, draw).map_err(engine)
        };
        codes.push(pick(&scores, manner)?);
        memory.depth.truncate(0);
        for book in 1..self.config.codebooks {
            manner.stop.check()?;
            let before = (book == 1).then_some(&last);
            let scores = self
                .depth_scores(
                    book,
                    before,
                    &codes[book - 1],
                    &mut memory.depth,
                    manner.lora,
                )
                .map_err(engine)?;
            codes.push(pick(&scores, manner)?);
        }
        Tensor::cat(&codes, 0).map_err(engine)
    }

    /// Scores of all codes but the first where those before each are given, `[codebooks - 1, vocabulary]`.
    #[cfg(test)]
    pub(super) fn depth_scores_of(
        &self,
        backbone: &Tensor,
        given: &[u32],
        lora: Option<&LoraSet>,
    ) -> Result<Tensor> {
        let mut memory = self.memory(1)?;
        let scores = (1..given.len()).map(|book| {
            let code = Tensor::from_slice(&given[book - 1..book], 1, &self.device)?;
            let before = (book == 1).then_some(backbone);
            self.depth_scores(book, before, &code, &mut memory.depth, lora)
        });
        Tensor::cat(&scores.collect::<Result<Vec<_>>>()?, 0)
    }

    #[cfg(test)]
    pub(super) fn backbone(&self) -> &Llama {
        &self.backbone
    }

    /// Scores of a frame's first code, `[1, vocabulary]`, from what the backbone gave.
    pub(super) fn first_scores(&self, backbone: &Tensor, lora: Option<&LoraSet>) -> Result<Tensor> {
        self.first_head.forward(backbone, lora)
    }

    /// Scores `[1, vocabulary]` of the code in `book`, after the code before it, `[1]`; with the first come the
    /// backbone's numbers.
    fn depth_scores(
        &self,
        book: usize,
        backbone: Option<&Tensor>,
        code: &Tensor,
        cache: &mut KvCache,
        lora: Option<&LoraSet>,
    ) -> Result<Tensor> {
        let place = (code + ((book - 1) * self.config.vocabulary) as f64)?;
        let embedded = self.audio.index_select(&place, 0)?;
        let x = match backbone {
            Some(numbers) => Tensor::cat(&[numbers, &embedded], 0)?,
            None => embedded,
        };
        let x = self.projector.forward(&x, lora)?;
        let given = self.depth.forward(&x, cache, lora)?;
        last_step(&given)?.matmul(&self.heads[book - 1])
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
        self.backbone.bytes() + self.depth.bytes()
    }
}

pub(super) fn engine(error: candle_core::Error) -> TtsError {
    TtsError::Engine(error.to_string())
}
