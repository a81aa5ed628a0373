//! A matrix that a session may add its own low-rank change to.

use candle_core::{Result, Tensor};

use super::{Adapters, Weights, WeightsError};

/// `y = W x`, and where a session brings an adapter for this matrix, `y = W x + s B (A x)`. `W x` is one product for
/// all rows of a batch, whoever brings what.
///
/// The sum is never written back into `W`: two sessions with two adapters use one `W` at the same time, and taking
/// an adapter off leaves nothing behind, which subtracting it again in sixteen bits would.
pub(crate) struct Linear {
    /// `[outputs, inputs]`
    weight: Tensor,
    /// The module's name, by which adapters know it.
    name: String,
}

impl Linear {
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> std::result::Result<Self, WeightsError> {
        Ok(Linear {
            weight: weights.get(&format!("{name}.weight"), &[outputs, inputs])?,
            name: name.to_owned(),
        })
    }

    /// From `[rows, inputs]` to `[rows, outputs]`.
    pub(crate) fn forward(&self, x: &Tensor, adapters: &Adapters<'_>) -> Result<Tensor> {
        let plain = x.matmul(&self.weight.t()?)?;
        adapters.add(&self.name, x, plain)
    }

    /// Memory taken, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.weight.elem_count() * self.weight.dtype().size_in_bytes()
    }
}
