//! Rotary position embeddings (Su et al., 2021), with the scaling that Llama 3 stretches its context by.

use candle_core::{DType, Device, Tensor};

use super::WeightsError;

/// How positions turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RopeConfig {
    /// Base of the wavelengths.
    pub theta: f64,
    /// Stretching of long wavelengths; `None`: none.
    pub scaling: Option<Llama3Scaling>,
}

/// Llama 3's stretching: wavelengths that fit `original / high` times or more into the original context stay, those
/// that do not fit `low` times into it are stretched by `factor`, and between the two it changes smoothly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Llama3Scaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    /// Positions that the model was first trained with.
    pub original: f64,
}

impl RopeConfig {
    /// Radians a position of each pair of a head of `size` numbers.
    pub(crate) fn frequencies(&self, size: usize) -> Vec<f64> {
        let plain = (0..size / 2).map(|pair| self.theta.powf(-2.0 * pair as f64 / size as f64));
        plain
            .map(|frequency| match &self.scaling {
                None => frequency,
                Some(scaling) => scaling.apply(frequency),
            })
            .collect()
    }
}

impl Llama3Scaling {
    fn apply(&self, frequency: f64) -> f64 {
        let turns = self.original * frequency / std::f64::consts::TAU;
        let share = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
        let kept = share.clamp(0.0, 1.0);
        frequency * (kept + (1.0 - kept) / self.factor)
    }
}

/// Cosines and sines for every position, each `[positions, head / 2]`.
pub(crate) struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    pub(crate) fn new(
        config: &RopeConfig,
        head: usize,
        positions: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        // In the precision of the reference: single, from the frequencies on.
        let frequencies: Vec<f32> = config.frequencies(head).iter().map(|f| *f as f32).collect();
        let angles: Vec<f32> = (0..positions)
            .flat_map(|position| frequencies.iter().map(move |f| position as f32 * f))
            .collect();
        let angles = Tensor::from_vec(angles, (positions, head / 2), &Device::Cpu)?;
        let place = |t: Tensor| t.to_dtype(dtype)?.to_device(device);
        Ok(Rope {
            cos: place(angles.cos()?)?,
            sin: place(angles.sin()?)?,
        })
    }

    /// What turns rows at these positions.
    pub(crate) fn at(&self, positions: &[u32]) -> candle_core::Result<Turning> {
        let (cos, sin) = (&self.cos, &self.sin);
        if let [first, others @ ..] = positions
            && others.iter().all(|position| position == first)
        {
            let here = |t: &Tensor| t.narrow(0, *first as usize, 1);
            return Ok(Turning {
                cos: here(cos)?,
                sin: here(sin)?,
            });
        }
        let positions = Tensor::from_slice(positions, positions.len(), cos.device())?;
        let here = |t: &Tensor| t.index_select(&positions, 0)?.unsqueeze(1);
        Ok(Turning {
            cos: here(cos)?,
            sin: here(sin)?,
        })
    }
}

/// Cosines and sines of some rows: `[rows, 1, head / 2]`, or `[1, head / 2]` where they are all at one position.
pub(crate) struct Turning {
    cos: Tensor,
    sin: Tensor,
}

impl Turning {
    /// Turns `[rows, heads, 1, head]`.
    pub(crate) fn apply(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        candle_nn::rotary_emb::rope(&rows.contiguous()?, &self.cos, &self.sin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_wavelengths_stay_and_long_ones_are_stretched() {
        let scaling = Llama3Scaling {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original: 8_192.0,
        };
        let of = |wavelength: f64| {
            let frequency = std::f64::consts::TAU / wavelength;
            frequency / scaling.apply(frequency)
        };
        assert_eq!(of(2_000.0), 1.0);
        assert!((of(10_000.0) - 32.0).abs() < 1e-9);
        assert!((1.0..32.0).contains(&of(4_000.0)));
        // The same, written for a context of another length.
        let written_otherwise = Llama3Scaling {
            factor: 32.0,
            low_freq_factor: 0.001953125,
            high_freq_factor: 0.0078125,
            original: 16.0,
        };
        for frequency in [1.0, 0.01, 0.002, 0.0015, 0.0004] {
            let (a, b) = (scaling.apply(frequency), written_otherwise.apply(frequency));
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
    }
}
