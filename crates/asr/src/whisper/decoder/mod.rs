//! Whisper's decoder, for a CPU and one listener at a time.
//!
//! A turn of speech is a dozen tokens, written one after the other, and most of the time that a general engine
//! spends on a short turn goes there: its kernels are made for batches, and for every transcription it projects
//! all 1500 states anew, most of them the same silence. Here each token is one pass over 8-bit weights
//! ([`linear`]), and the projections of the silence are kept ([`Decoder::project`]).
//!
//! The network is the text decoder of Radford et al., "Robust Speech Recognition via Large-Scale Weak
//! Supervision", 2022: layers of self-attention, attention to the encoder's states and a feed-forward network,
//! each behind a layer norm, with learnt positions.

mod attention;
mod linear;
mod weights;

use std::path::Path;

use self::attention::{Heads, attend};
use self::linear::Linear;
use self::weights::Weights;
use super::engine::States;

/// The weights.
pub(super) struct Decoder {
    /// Also what hidden states are compared with to find the next token.
    embeddings: Linear,
    positions: Vec<f32>,
    layers: Vec<Layer>,
    norm: Norm,
    heads: Heads,
    threads: usize,
}

struct Layer {
    self_norm: Norm,
    /// Query, key and value, one after the other.
    self_in: Linear,
    self_out: Linear,
    cross_norm: Norm,
    cross_query: Linear,
    /// Key and value.
    cross_memory: Linear,
    cross_out: Linear,
    ffn_norm: Norm,
    ffn_in: Linear,
    ffn_out: Linear,
}

struct Norm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

/// Keys and values of states, for each layer: rows of `[key | value]`.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Vec<Vec<f32>>);

impl Memory {
    /// Adds the last `rows` rows of another.
    pub(super) fn extend(&mut self, other: &Memory, rows: usize, width: usize) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            let first = theirs.len().saturating_sub(rows * 2 * width);
            mine.extend_from_slice(&theirs[first..]);
        }
    }
}

/// A text in the making.
pub(super) struct Writing<'a> {
    decoder: &'a Decoder,
    memory: &'a Memory,
    /// Keys and values of the tokens so far, for each layer.
    past: Vec<Vec<f32>>,
    tokens: usize,
}

impl Decoder {
    /// Reads the decoder's part of a model.
    pub(super) fn read(model_file: &Path, threads: usize) -> Result<Self, String> {
        let mut weights = Weights::read(model_file, "decoder/")?;
        let heads = weights.vector("num_heads")?.first().copied().unwrap_or(0.0) as usize;
        let embeddings = weights.matrix("embeddings/weight")?;
        let width = embeddings.shape[1];
        if heads == 0 || width % heads != 0 {
            return Err(format!(
                "model.bin: {heads} heads do not share out {width} values"
            ));
        }
        let mut layers = Vec::new();
        while weights.has(&format!("layer_{}/ffn/linear_0/weight", layers.len())) {
            let number = layers.len();
            let name = |part: &str| format!("layer_{number}/{part}");
            layers.push(Layer {
                self_norm: norm(&mut weights, &name("self_attention/layer_norm"))?,
                self_in: linear(&mut weights, &name("self_attention/linear_0"))?,
                self_out: linear(&mut weights, &name("self_attention/linear_1"))?,
                cross_norm: norm(&mut weights, &name("attention/layer_norm"))?,
                cross_query: linear(&mut weights, &name("attention/linear_0"))?,
                cross_memory: linear(&mut weights, &name("attention/linear_1"))?,
                cross_out: linear(&mut weights, &name("attention/linear_2"))?,
                ffn_norm: norm(&mut weights, &name("ffn/layer_norm"))?,
                ffn_in: linear(&mut weights, &name("ffn/linear_0"))?,
                ffn_out: linear(&mut weights, &name("ffn/linear_1"))?,
            });
        }
        let positions = weights.matrix("position_encodings/encodings")?;
        if layers.is_empty() || positions.shape[1] != width {
            return Err("model.bin: the decoder's parts do not fit together".into());
        }
        let norm = norm(&mut weights, "layer_norm")?;
        let out = Linear::new(&embeddings, Vec::new());
        Ok(Self {
            embeddings: out,
            positions: positions.data,
            layers,
            norm,
            heads: Heads {
                count: heads,
                width,
            },
            threads,
        })
    }

    /// Floats in a hidden state.
    pub(super) fn width(&self) -> usize {
        self.heads.width
    }

    /// Tokens that a text can have, prompt included.
    pub(super) fn room(&self) -> usize {
        self.positions.len() / self.width()
    }

    /// Bytes of its weights.
    pub(super) fn bytes(&self) -> usize {
        let layers: usize = self
            .layers
            .iter()
            .flat_map(|l| {
                [
                    &l.self_in,
                    &l.self_out,
                    &l.cross_query,
                    &l.cross_memory,
                    &l.cross_out,
                    &l.ffn_in,
                    &l.ffn_out,
                ]
            })
            .map(Linear::bytes)
            .sum();
        layers + self.embeddings.bytes() + 4 * self.positions.len()
    }

    /// What the layers have to know of the encoder's states. Worth keeping for states that come again.
    pub(super) fn project(&self, states: &States) -> Memory {
        Memory(
            self.layers
                .iter()
                .map(|layer| {
                    let mut rows = Vec::new();
                    layer
                        .cross_memory
                        .apply(&states.data, &mut rows, self.threads);
                    rows
                })
                .collect(),
        )
    }

    /// Begins a text about what is remembered.
    pub(super) fn begin<'a>(&'a self, memory: &'a Memory) -> Writing<'a> {
        Writing {
            decoder: self,
            memory,
            past: vec![Vec::new(); self.layers.len()],
            tokens: 0,
        }
    }
}

impl Writing<'_> {
    /// Adds tokens and gives, for the token at place `of` among them, the logits of the one that follows it.
    ///
    /// The tokens so far and these must fit in [`Decoder::room`]; those beyond it are ignored.
    pub(super) fn add(&mut self, tokens: &[usize], of: &[usize]) -> Vec<Vec<f32>> {
        let (decoder, width) = (self.decoder, self.decoder.width());
        let tokens = &tokens[..tokens.len().min(decoder.room() - self.tokens)];
        let mut hidden: Vec<f32> = Vec::with_capacity(tokens.len() * width);
        for (place, &token) in (self.tokens..).zip(tokens) {
            let position = &decoder.positions[place * width..(place + 1) * width];
            hidden.extend(
                decoder
                    .embeddings
                    .row(token)
                    .zip(position)
                    .map(|(e, p)| e + p),
            );
        }
        let (mut normed, mut a, mut b) = (Vec::new(), Vec::new(), Vec::new());
        let threads = decoder.threads;
        for ((layer, memory), past) in decoder
            .layers
            .iter()
            .zip(&self.memory.0)
            .zip(&mut self.past)
        {
            layer.self_norm.apply(&hidden, &mut normed);
            layer.self_in.apply(&normed, &mut a, threads);
            b.clear();
            for qkv in a.chunks_exact(3 * width) {
                let (query, key_value) = qkv.split_at(width);
                past.extend_from_slice(key_value);
                attend(decoder.heads, query, past, &mut b);
            }
            layer.self_out.apply(&b, &mut a, threads);
            add(&mut hidden, &a);

            layer.cross_norm.apply(&hidden, &mut normed);
            layer.cross_query.apply(&normed, &mut a, threads);
            b.clear();
            for query in a.chunks_exact(width) {
                attend(decoder.heads, query, memory, &mut b);
            }
            layer.cross_out.apply(&b, &mut a, threads);
            add(&mut hidden, &a);

            layer.ffn_norm.apply(&hidden, &mut normed);
            layer.ffn_in.apply(&normed, &mut a, threads);
            a.iter_mut().for_each(|x| *x = gelu(*x));
            layer.ffn_out.apply(&a, &mut b, threads);
            add(&mut hidden, &b);
        }
        self.tokens += tokens.len();
        of.iter()
            .filter(|&&place| place < tokens.len())
            .map(|&place| {
                let mut logits = Vec::new();
                decoder
                    .norm
                    .apply(&hidden[place * width..(place + 1) * width], &mut normed);
                decoder.embeddings.apply(&normed, &mut logits, threads);
                logits
            })
            .collect()
    }

    /// Whether another token fits.
    pub(super) fn has_room(&self) -> bool {
        self.tokens < self.decoder.room()
    }
}

fn linear(weights: &mut Weights, name: &str) -> Result<Linear, String> {
    let bias = weights.vector(&format!("{name}/bias")).unwrap_or_default();
    Ok(Linear::new(
        &weights.matrix(&format!("{name}/weight"))?,
        bias,
    ))
}

fn norm(weights: &mut Weights, name: &str) -> Result<Norm, String> {
    Ok(Norm {
        gamma: weights.vector(&format!("{name}/gamma"))?,
        beta: weights.vector(&format!("{name}/beta"))?,
    })
}

impl Norm {
    /// Each vector to mean 0 and variance 1, then scaled and shifted.
    fn apply(&self, x: &[f32], y: &mut Vec<f32>) {
        const EPSILON: f32 = 1e-5;
        y.clear();
        let width = self.gamma.len();
        for vector in x.chunks_exact(width) {
            let mean = vector.iter().sum::<f32>() / width as f32;
            let variance =
                vector.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / width as f32;
            let scale = 1.0 / (variance + EPSILON).sqrt();
            y.extend(
                vector
                    .iter()
                    .zip(&self.gamma)
                    .zip(&self.beta)
                    .map(|((v, g), b)| (v - mean) * scale * g + b),
            );
        }
    }
}

fn add(hidden: &mut [f32], more: &[f32]) {
    hidden.iter_mut().zip(more).for_each(|(h, m)| *h += m);
}

/// `x` times the normal distribution's share below `x`, with the error function approximated to 1.5e-7
/// (Abramowitz and Stegun, 7.1.26).
fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series = t
        * (0.254_829_6
            + t * (-0.284_496_72 + t * (1.421_413_8 + t * (-1.453_152 + t * 1.061_405_4))));
    let erf = (1.0 - series * (-z * z).exp()).copysign(x);
    0.5 * x * (1.0 + erf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_has_its_known_values() {
        for (x, y) in [
            (0.0, 0.0),
            (1.0, 0.841_344_7),
            (-1.0, -0.158_655_3),
            (3.0, 2.995_950_3),
            (-8.0, 0.0),
        ] {
            assert!((gelu(x) - y).abs() < 1e-5, "{x}: {}", gelu(x));
        }
    }

    #[test]
    fn a_norm_centres_and_scales() {
        let norm = Norm {
            gamma: vec![1.0, 1.0, 2.0, 1.0],
            beta: vec![0.0, 0.0, 0.0, 5.0],
        };
        let mut y = Vec::new();
        norm.apply(&[1.0, 3.0, 1.0, 3.0, 2.0, 2.0, 2.0, 2.0], &mut y);
        for (y, expected) in y.iter().zip([-1.0, 1.0, -2.0, 6.0, 0.0, 0.0, 0.0, 5.0]) {
            assert!((y - expected).abs() < 1e-3);
        }
    }
}
