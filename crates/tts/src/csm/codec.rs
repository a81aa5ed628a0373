//! Mimi, the codec (Défossez et al., 2024): sound to codes, once for a recording, and codes to sound, frame by frame.
//!
//! The network is candle's. It keeps its history in itself, so there is one that is never used, and each who
//! speaks gets a copy: the weights in it are shared, its history begins empty.
//!
//! Its attention sees the last ten seconds (250 steps). At that edge candle's is off by one step to either side, which
//! the reference is not: only sentences and recordings longer than that are concerned, and none by what one could hear.

use candle_core::{DType, Device, IndexOp, Result, Shape, StreamTensor, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use candle_transformers::models::mimi;

use super::config::CodecConfig;
use crate::neural::{Weights, WeightsError};

/// The codec, unused.
pub(super) struct Codec {
    pristine: mimi::Model,
    device: Device,
}

/// Turns one turn's codes into sound.
pub(super) struct Decoder {
    network: mimi::Model,
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
        Ok(Codec {
            pristine: mimi::Model::new(config.mimi.clone(), tensors)
                .map_err(|e| WeightsError::Misfit(format!("the codec: {e}")))?,
            device: device.clone(),
        })
    }

    /// The codes of a recording at the codec's rate, `[frames, codebooks]` on the host. Blocks.
    pub(super) fn encode(&self, samples: &[f32]) -> Result<Vec<Vec<u32>>> {
        let sound = Tensor::from_slice(samples, (1, 1, samples.len()), &self.device)?;
        let codes = self.pristine.clone().encode(&sound)?;
        codes.i(0)?.t()?.to_vec2()
    }

    /// The sound of codes `[codebooks, frames]`, all at once.
    #[cfg(test)]
    pub(super) fn decode(&self, codes: &Tensor) -> Result<Vec<f32>> {
        let sound = self.pristine.clone().decode(&codes.unsqueeze(0)?)?;
        sound.flatten_all()?.to_vec1()
    }

    /// A decoder for one turn.
    pub(super) fn decoder(&self) -> Decoder {
        Decoder {
            network: self.pristine.clone(),
        }
    }
}

impl Decoder {
    /// The sound of one frame's codes, `[codebooks]`, on the device.
    pub(super) fn step(&mut self, codes: &Tensor) -> Result<Tensor> {
        let codes = codes.reshape((1, codes.elem_count(), 1))?;
        let sound = self
            .network
            .decode_step(&StreamTensor::from_tensor(codes))?;
        match sound.as_option() {
            Some(sound) => sound.flatten_all(),
            None => candle_core::bail!("the codec made no sound of a frame"),
        }
    }
}
