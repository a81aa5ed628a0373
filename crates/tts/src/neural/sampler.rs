//! Draws a token from the scores of all: the best `top_k` at a temperature (Fan et al., 2018).
//!
//! The random number is brought by the caller, so that a draw can be repeated, and the token stays on the device,
//! so that thirty-two draws in a row wait for it once and not thirty-two times.

use candle_core::{D, DType, IndexOp, Result, Tensor};

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sampling {
    /// The best one, always.
    #[cfg(test)]
    Greedy,
    /// One of the best.
    TopK {
        /// How many are in the draw, at least 1.
        k: usize,
        /// Above 1 evens the chances out, below it favours the best.
        temperature: f64,
    },
}

impl Sampling {
    /// A token below `valid`, by scores `[1, tokens]`, as `[1]` of `u32`. `draw` is from 0 (the best) up to but not
    /// including 1.
    pub(crate) fn pick(&self, scores: &Tensor, valid: usize, draw: f32) -> Result<Tensor> {
        let scores = scores
            .i(0)?
            .narrow(D::Minus1, 0, valid.min(scores.dim(D::Minus1)?))?
            .to_dtype(DType::F32)?;
        match *self {
            #[cfg(test)]
            Sampling::Greedy => scores.argmax_keepdim(D::Minus1),
            Sampling::TopK { k, temperature } if scores.device().is_cpu() => {
                let token = on_host(&scores.to_vec1()?, k, temperature, draw);
                Tensor::from_slice(&[token], 1, scores.device())
            }
            Sampling::TopK { k, temperature } => on_device(&scores, k, temperature, draw),
        }
    }
}

/// By sorting no more than the best: on a CPU, a sort of all would cost more than the layer before it.
fn on_host(scores: &[f32], k: usize, temperature: f64, draw: f32) -> u32 {
    let k = k.clamp(1, scores.len());
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    // Of equals the first, and what is not a number last.
    let better = |a: &u32, b: &u32| {
        let key = |n: u32| {
            let score = scores[n as usize];
            if score.is_nan() {
                f32::NEG_INFINITY
            } else {
                score
            }
        };
        key(*b).total_cmp(&key(*a)).then(a.cmp(b))
    };
    if k < order.len() {
        order.select_nth_unstable_by(k - 1, better);
        order.truncate(k);
    }
    order.sort_unstable_by(better);
    let best = scores[order[0] as usize];
    let chance = |n: u32| {
        let chance = ((scores[n as usize] - best) / temperature as f32).exp();
        if chance.is_nan() { 0.0 } else { chance }
    };
    let chances: Vec<f32> = order.iter().map(|n| chance(*n)).collect();
    let sum: f32 = chances.iter().sum();
    let mut until = 0.0;
    let place = chances.iter().position(|c| {
        until += c / sum;
        draw < until
    });
    order[place.unwrap_or(k - 1)]
}

/// The same without the host: sort, take the best, add their chances up, count those that the draw is past.
fn on_device(scores: &Tensor, k: usize, temperature: f64, draw: f32) -> Result<Tensor> {
    let k = k.clamp(1, scores.dim(0)?);
    let order = scores
        .arg_sort_last_dim(false)?
        .narrow(0, 0, k)?
        .contiguous()?;
    let best = (scores.gather(&order, 0)? / temperature)?;
    let chances = candle_nn::ops::softmax_last_dim(&best)?;
    let until = chances.cumsum(0)?;
    // The last one's sum may fall short of 1 by rounding.
    let past = until
        .le(draw as f64)?
        .to_dtype(DType::F32)?
        .sum_keepdim(0)?
        .minimum((k - 1) as f64)?
        .to_dtype(DType::U32)?;
    order.gather(&past, 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::Device;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn pick(sampling: Sampling, scores: &[f32], valid: usize, draw: f32) -> u32 {
        let scores = Tensor::from_slice(scores, (1, scores.len()), &Device::Cpu).unwrap();
        let picked = sampling.pick(&scores, valid, draw).unwrap();
        picked.to_vec1::<u32>().unwrap()[0]
    }

    #[test]
    fn the_device_draws_what_the_host_draws() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..200 {
            let scores: Vec<f32> = (0..97).map(|_| random.random::<f32>() * 8.0).collect();
            let (k, temperature) = (1 + random.random::<u32>() as usize % 60, 0.9);
            let draw = random.random::<f32>();
            let tensor = Tensor::from_slice(&scores, 97, &Device::Cpu).unwrap();
            let device = on_device(&tensor, k, temperature, draw).unwrap();
            let host = on_host(&scores, k, temperature, draw);
            assert_eq!(
                device.to_vec1::<u32>().unwrap(),
                [host],
                "k {k} draw {draw}"
            );
        }
    }

    #[test]
    fn tokens_come_as_often_as_their_chances() {
        let scores = [0.0, 1.0, 2.0, -5.0];
        let sampling = Sampling::TopK {
            k: 3,
            temperature: 0.5,
        };
        let mut counts = [0; 4];
        let draws = 20_000;
        for n in 0..draws {
            counts[pick(sampling, &scores, 4, n as f32 / draws as f32) as usize] += 1;
        }
        let weights = [0.0f64, 2.0, 4.0].map(f64::exp);
        let sum: f64 = weights.iter().sum();
        for (n, weight) in weights.iter().enumerate() {
            let share = f64::from(counts[n]) / f64::from(draws);
            assert!((share - weight / sum).abs() < 1e-3, "{n}: {share}");
        }
        assert_eq!(counts[3], 0, "not among the best three");
    }

    #[test]
    fn what_is_not_valid_is_never_drawn() {
        let scores = [1.0, 2.0, 9.0];
        assert_eq!(pick(Sampling::Greedy, &scores, 2, 0.0), 1);
        let all = Sampling::TopK {
            k: 50,
            temperature: 1.0,
        };
        for n in 0..100 {
            assert!(pick(all, &scores, 2, n as f32 / 100.0) < 2);
        }
        assert_eq!(pick(all, &[f32::NAN, 0.0], 2, 0.0), 1);
    }
}
