//! One query against many keys and values.

use super::linear::multiply_add;

/// How a vector is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heads {
    pub count: usize,
    /// Floats of all heads together.
    pub width: usize,
}

/// Lanes that are summed side by side.
const LANES: usize = 16;

/// Appends to `out` what each head finds: the mean of the values, weighted by how well their keys fit the query
/// (softmax of the products over the square root of their length). `rows` holds `[key | value]` one after the
/// other; without rows the answer is zeros.
pub(super) fn attend(heads: Heads, query: &[f32], rows: &[f32], out: &mut Vec<f32>) {
    let Heads { count, width } = heads;
    let size = width / count;
    let scale = 1.0 / (size as f32).sqrt();
    let n = rows.len() / (2 * width);
    let first = out.len();
    out.resize(first + width, 0.0);
    let out = &mut out[first..];
    let mut weights = vec![0.0_f32; n * count];
    for (row, weights) in rows
        .chunks_exact(2 * width)
        .zip(weights.chunks_exact_mut(count))
    {
        let keys = row[..width]
            .chunks_exact(size)
            .zip(query.chunks_exact(size));
        for (weight, (key, query)) in weights.iter_mut().zip(keys) {
            *weight = dot(key, query) * scale;
        }
    }
    for head in 0..count {
        let largest = weights
            .iter()
            .skip(head)
            .step_by(count)
            .copied()
            .fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for weight in weights.iter_mut().skip(head).step_by(count) {
            *weight = (*weight - largest).exp();
            sum += *weight;
        }
        for weight in weights.iter_mut().skip(head).step_by(count) {
            *weight /= sum;
        }
    }
    for (row, weights) in rows
        .chunks_exact(2 * width)
        .zip(weights.chunks_exact(count))
    {
        let values = row[width..]
            .chunks_exact(size)
            .zip(out.chunks_exact_mut(size));
        for (weight, (value, out)) in weights.iter().zip(values) {
            for (out, value) in out.iter_mut().zip(value) {
                *out = multiply_add(*weight, *value, *out);
            }
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (a_rest, b_rest) = (
        a.chunks_exact(LANES).remainder(),
        b.chunks_exact(LANES).remainder(),
    );
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = multiply_add(*a, *b, *sum);
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_whose_key_fits_is_found_by_each_head() {
        let heads = Heads { count: 2, width: 4 };
        // Two rows of key and value; the first head's query fits the second row, the second head's the first.
        let rows = [
            0.0, 9.0, 9.0, 0.0, 1.0, 2.0, 3.0, 4.0, 9.0, 0.0, 0.0, 9.0, 5.0, 6.0, 7.0, 8.0,
        ];
        let mut out = vec![42.0];
        attend(heads, &[9.0, 0.0, 9.0, 0.0], &rows, &mut out);
        assert_eq!(out, [42.0, 5.0, 6.0, 3.0, 4.0]);
    }

    #[test]
    fn equal_keys_give_the_mean_and_none_gives_zeros() {
        let heads = Heads { count: 1, width: 2 };
        let mut out = Vec::new();
        attend(
            heads,
            &[0.3, 0.1],
            &[1.0, 1.0, 2.0, 4.0, 1.0, 1.0, 4.0, 8.0],
            &mut out,
        );
        assert_eq!(out, [3.0, 6.0]);
        attend(heads, &[0.3, 0.1], &[], &mut out);
        assert_eq!(out[2..], [0.0, 0.0]);
    }

    #[test]
    fn products_of_any_length_are_whole() {
        for n in [1, 15, 16, 17, 64, 65] {
            let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(dot(&a, &vec![1.0; n]), (n * (n - 1) / 2) as f32);
        }
    }
}
