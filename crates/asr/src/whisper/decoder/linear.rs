//! Matrices of 8-bit weights times vectors of floats.
//!
//! Writing text is one vector at a time through every weight of the decoder, so its speed is that of memory:
//! 8-bit weights are a quarter of the bytes. Each row has its own scale. The vectors stay floats, which costs
//! nothing where memory is the limit and loses less than 8-bit activations.

use super::weights::Array;

/// Lanes that are summed side by side; the compiler makes vector instructions of them.
const LANES: usize = 16;
/// Vectors taken through a row together, so that its weights are widened once for all of them.
const BLOCK: usize = 4;

/// `y = W x + b`.
pub(super) struct Linear {
    weights: Vec<i8>,
    scales: Vec<f32>,
    bias: Vec<f32>,
    inputs: usize,
}

impl Linear {
    /// Rounds weights of shape `[outputs][inputs]`; `bias` may be empty.
    pub(super) fn new(array: &Array, bias: Vec<f32>) -> Self {
        let inputs = array.shape.last().copied().unwrap_or(0).max(1);
        let mut weights = Vec::with_capacity(array.data.len());
        let mut scales = Vec::with_capacity(array.data.len() / inputs);
        for row in array.data.chunks_exact(inputs) {
            let largest = row.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
            let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
            weights.extend(row.iter().map(|w| (w / scale).round() as i8));
            scales.push(scale);
        }
        Self {
            weights,
            scales,
            bias,
            inputs,
        }
    }

    pub(super) fn outputs(&self) -> usize {
        self.scales.len()
    }

    /// Row `i` of the matrix, clamped to the last.
    pub(super) fn row(&self, i: usize) -> impl Iterator<Item = f32> + '_ {
        let i = i.min(self.outputs() - 1);
        let scale = self.scales[i];
        self.weights[i * self.inputs..(i + 1) * self.inputs]
            .iter()
            .map(move |w| f32::from(*w) * scale)
    }

    /// Bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.weights.len() + 4 * (self.scales.len() + self.bias.len())
    }

    /// The vectors in `x`, one after the other, to as many in `y`, on up to `threads` threads.
    pub(super) fn apply(&self, x: &[f32], y: &mut Vec<f32>, threads: usize) {
        /// Below this many multiplications a thread costs more than it brings.
        const WORTH_A_THREAD: usize = 4 << 20;
        let vectors = x.len() / self.inputs;
        y.clear();
        y.resize(vectors * self.outputs(), 0.0);
        let threads = threads
            .min(vectors * self.weights.len() / WORTH_A_THREAD)
            .max(1);
        if vectors == 1 {
            // One vector: the rows are shared out.
            let share = self.outputs().div_ceil(threads);
            in_parallel(y.chunks_mut(share).enumerate(), |(i, y)| {
                self.rows(i * share, x, y)
            });
        } else {
            let share = vectors.div_ceil(threads).next_multiple_of(BLOCK);
            let pieces = x
                .chunks(share * self.inputs)
                .zip(y.chunks_mut(share * self.outputs()));
            in_parallel(pieces, |(x, y)| self.blocks(x, y));
        }
    }

    /// Rows from `first` on times one vector.
    fn rows(&self, first: usize, x: &[f32], y: &mut [f32]) {
        for (row, y) in (first..).zip(y) {
            let [sum] = dot(
                &self.weights[row * self.inputs..(row + 1) * self.inputs],
                [x],
            );
            *y = sum * self.scales[row] + self.bias.get(row).copied().unwrap_or(0.0);
        }
    }

    /// All rows times several vectors.
    fn blocks(&self, x: &[f32], y: &mut [f32]) {
        let (inputs, outputs) = (self.inputs, self.outputs());
        for (x, y) in x.chunks(BLOCK * inputs).zip(y.chunks_mut(BLOCK * outputs)) {
            if x.len() < BLOCK * inputs {
                for (x, y) in x.chunks_exact(inputs).zip(y.chunks_exact_mut(outputs)) {
                    self.rows(0, x, y);
                }
                continue;
            }
            let vectors: [&[f32]; BLOCK] =
                std::array::from_fn(|i| &x[i * inputs..(i + 1) * inputs]);
            for row in 0..outputs {
                let sums = dot(&self.weights[row * inputs..(row + 1) * inputs], vectors);
                let bias = self.bias.get(row).copied().unwrap_or(0.0);
                for (i, sum) in sums.into_iter().enumerate() {
                    y[i * outputs + row] = sum * self.scales[row] + bias;
                }
            }
        }
    }
}

/// `a * b + c`, fused where the processor can: elsewhere `mul_add` is a slow library call.
#[inline]
pub(super) fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

/// A row times several vectors of its length.
#[inline]
fn dot<const N: usize>(row: &[i8], vectors: [&[f32]; N]) -> [f32; N] {
    let mut sums = [[0.0_f32; LANES]; N];
    let whole = row.len() / LANES * LANES;
    let mut at = 0;
    while at < whole {
        let mut w = [0.0_f32; LANES];
        for (w, q) in w.iter_mut().zip(&row[at..at + LANES]) {
            *w = f32::from(*q);
        }
        for (sums, vector) in sums.iter_mut().zip(vectors) {
            for ((sum, w), x) in sums.iter_mut().zip(&w).zip(&vector[at..at + LANES]) {
                *sum = multiply_add(*w, *x, *sum);
            }
        }
        at += LANES;
    }
    std::array::from_fn(|i| {
        let rest: f32 = row[whole..]
            .iter()
            .zip(&vectors[i][whole..])
            .map(|(q, x)| f32::from(*q) * x)
            .sum();
        sums[i].iter().sum::<f32>() + rest
    })
}

/// Does all pieces, each but the first on a thread of its own.
fn in_parallel<T: Send>(pieces: impl Iterator<Item = T>, work: impl Fn(T) + Sync) {
    let mut pieces = pieces;
    let Some(first) = pieces.next() else { return };
    std::thread::scope(|scope| {
        for piece in pieces {
            scope.spawn(|| work(piece));
        }
        work(first);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state as f32 / u32::MAX as f32 - 0.5
            })
            .collect()
    }

    #[test]
    fn the_product_is_right_for_any_number_of_vectors_and_threads() {
        for (inputs, outputs) in [(37, 5), (64, 48), (512, 2048)] {
            let array = Array {
                shape: vec![outputs, inputs],
                data: numbers(inputs * outputs, 1),
            };
            let bias = numbers(outputs, 2);
            let linear = Linear::new(&array, bias.clone());
            for vectors in [1, 2, 4, 7, 33] {
                let x = numbers(vectors * inputs, 3);
                for threads in [1, 2, 3] {
                    let mut y = Vec::new();
                    linear.apply(&x, &mut y, threads);
                    assert_eq!(y.len(), vectors * outputs);
                    for v in 0..vectors {
                        for o in 0..outputs {
                            let row = &array.data[o * inputs..(o + 1) * inputs];
                            let exact: f32 = row
                                .iter()
                                .zip(&x[v * inputs..])
                                .map(|(w, x)| w * x)
                                .sum::<f32>()
                                + bias[o];
                            let error = (y[v * outputs + o] - exact).abs();
                            assert!(
                                error < 0.003 * (inputs as f32).sqrt(),
                                "{error} at {v}, {o}"
                            );
                        }
                    }
                }
            }
        }
    }
}
