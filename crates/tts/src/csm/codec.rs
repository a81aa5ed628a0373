//! Mimi, the codec (Défossez et al., 2024): sound to codes, once for a recording, and codes to sound, frame by frame.
//!
//! Its parts are candle's, put together here. A part keeps its history in itself, so there is one of each that is never
//! used, and each who speaks gets a copy: the weights in it are shared, its history begins empty.
//!
//! Attention sees a window of the last ten seconds (250 steps, two a frame). Where candle takes several steps at once it
//! counts that window otherwise than the reference does: in steps behind a history the earlier ones see too little, at
//! once the later ones see one too much. So beyond the window steps are taken one by one, and what hears recordings, at
//! once, is told of a window that is one step shorter.

use candle_core::{
    DType, Device, IndexOp, Module, Result, Shape, StreamTensor, StreamingModule, Tensor,
};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use candle_transformers::models::mimi::conv::{ConvDownsample1d, ConvTrUpsample1d};
use candle_transformers::models::mimi::quantization::SplitResidualVectorQuantizer;
use candle_transformers::models::mimi::seanet::{SeaNetDecoder, SeaNetEncoder};
use candle_transformers::models::mimi::transformer::ProjectedTransformer;

use super::config::CodecConfig;
use crate::neural::{Weights, WeightsError};

/// Steps of attention in a frame.
const STEPS: usize = 2;

/// The codec, unused.
pub(super) struct Codec {
    encoder: SeaNetEncoder,
    listener: ProjectedTransformer,
    downsample: ConvDownsample1d,
    decoder: Decoder,
    device: Device,
}

/// Turns one turn's codes into sound.
#[derive(Clone)]
pub(super) struct Decoder {
    quantizer: SplitResidualVectorQuantizer,
    upsample: ConvTrUpsample1d,
    transformer: ProjectedTransformer,
    decoder: SeaNetDecoder,
    /// Steps that the transformer sees.
    window: usize,
    /// Steps that it was given.
    steps: usize,
}

/// A model's weights under a prefix, as candle's layers ask for them.
struct Under<'a> {
    weights: &'a Weights,
    prefix: &'a str,
}

impl SimpleBackend for Under<'_> {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let name = format!("{}{name}", self.prefix);
        let tensor = self.weights.get_as(&name, shape.dims(), dtype, device);
        tensor.map_err(|e| candle_core::Error::Msg(e.to_string()))
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = self.weights.shape(&format!("{}{name}", self.prefix));
        let shape = shape.unwrap_or_default();
        self.get(
            shape.into(),
            name,
            candle_nn::Init::Const(0.0),
            dtype,
            device,
        )
    }

    fn contains_tensor(&self, name: &str) -> bool {
        // Folded and unfolded forms of a weight exclude each other; chance makes the folded one.
        self.weights.has(&format!("{}{name}", self.prefix))
    }
}

impl Codec {
    /// Reads the codec's tensors, which stand under `prefix`, onto `device`, in single precision: in sixteen bits
    /// one would hear it.
    pub(super) fn load(
        config: &CodecConfig,
        weights: &Weights,
        prefix: &str,
        device: &Device,
    ) -> std::result::Result<Self, WeightsError> {
        let backend = Box::new(Under { weights, prefix });
        let tensors = VarBuilder::from_backend(backend, DType::F32, device.clone());
        Self::assemble(config, &tensors, device)
            .map_err(|e| WeightsError::Misfit(format!("the codec: {e}")))
    }

    fn assemble(config: &CodecConfig, tensors: &VarBuilder<'_>, device: &Device) -> Result<Self> {
        let mimi = &config.mimi;
        let width = mimi.seanet.dimension;
        let window = mimi.transformer.context;
        let mut transformer = mimi.transformer.clone();
        let decoder = Decoder {
            quantizer: SplitResidualVectorQuantizer::new(
                mimi.quantizer_dim,
                Some(width),
                Some(width),
                mimi.quantizer_n_q,
                mimi.quantizer_bins,
                tensors.pp("quantizer"),
            )?,
            upsample: ConvTrUpsample1d::new(STEPS, width, true, true, tensors.pp("upsample"))?,
            transformer: ProjectedTransformer::new(
                width,
                &[width],
                &transformer,
                tensors.pp("decoder_transformer"),
            )?,
            decoder: SeaNetDecoder::new(&mimi.seanet, tensors.pp("decoder"))?,
            window,
            steps: 0,
        };
        transformer.context = window - 1;
        Ok(Codec {
            encoder: SeaNetEncoder::new(&mimi.seanet, tensors.pp("encoder"))?,
            listener: ProjectedTransformer::new(
                width,
                &[width],
                &transformer,
                tensors.pp("encoder_transformer"),
            )?,
            downsample: ConvDownsample1d::new(STEPS, width, true, true, tensors.pp("downsample"))?,
            decoder,
            device: device.clone(),
        })
    }

    /// The codes of a recording at the codec's rate, `[frames, codebooks]` on the host. Blocks.
    pub(super) fn encode(&self, samples: &[f32]) -> Result<Vec<Vec<u32>>> {
        let sound = Tensor::from_slice(samples, (1, 1, samples.len()), &self.device)?;
        let heard = self
            .listener
            .clone()
            .forward(&self.encoder.forward(&sound)?)?;
        let codes = heard[0].apply(&self.downsample)?;
        let codes = self.decoder.quantizer.encode(&codes)?;
        codes.i(0)?.t()?.to_vec2()
    }

    /// The sound of codes `[codebooks, frames]`, all at once: with a window one step longer than the codec's own.
    #[cfg(test)]
    pub(super) fn decode(&self, codes: &Tensor) -> Result<Vec<f32>> {
        let mut decoder = self.decoder();
        let steps = decoder.quantizer.decode(&codes.unsqueeze(0)?)?;
        let steps = steps.apply(&decoder.upsample)?;
        let steps = decoder.transformer.forward(&steps)?;
        decoder.decoder.forward(&steps[0])?.flatten_all()?.to_vec1()
    }

    /// A decoder for one turn.
    pub(super) fn decoder(&self) -> Decoder {
        self.decoder.clone()
    }
}

impl Decoder {
    /// The sound of one frame's codes, `[codebooks]`, on the device.
    pub(super) fn step(&mut self, codes: &Tensor) -> Result<Tensor> {
        let codes = codes.reshape((1, codes.elem_count(), 1))?;
        let steps = StreamTensor::from_tensor(self.quantizer.decode(&codes)?);
        let steps = self.upsample.step(&steps)?;
        self.steps += STEPS;
        let seen = match steps.as_option() {
            Some(steps) if self.steps > self.window => {
                let each = (0..steps.dim(2)?).map(|n| {
                    let step = StreamTensor::from_tensor(steps.narrow(2, n, 1)?.contiguous()?);
                    self.transformer.step(&step)
                });
                let each = each.collect::<Result<Vec<_>>>()?;
                let each: Vec<&Tensor> = each.iter().filter_map(StreamTensor::as_option).collect();
                StreamTensor::from_tensor(Tensor::cat(&each, 2)?)
            }
            _ => self.transformer.step(&steps)?,
        };
        let sound = self.decoder.step(&seen)?;
        match sound.as_option() {
            Some(sound) => sound.flatten_all(),
            None => candle_core::bail!("the codec made no sound of a frame"),
        }
    }
}
