//! Draws a token from the scores of all: the best `top_k` at a temperature (Fan et al., 2018).
//!
//! The random number is brought by the caller, so that a draw can be repeated, and the token stays on the device,
//! so that thirty-two draws in a row wait for it once and not thirty-two times.

use candle_core::{D, DType, Result, Tensor};

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

/// A token below `valid` for each row of `scores`, `[rows, tokens]`, drawn as `ways` say, as `[rows]` of `u32`. `draws`
/// are `[rows]`, each from 0 (the best) up to but not including 1.
pub(crate) fn pick(
    ways: &[Sampling],
    scores: &Tensor,
    valid: usize,
    draws: &Tensor,
) -> Result<Tensor> {
    let scores = scores
        .narrow(D::Minus1, 0, valid.min(scores.dim(D::Minus1)?))?
        .to_dtype(DType::F32)?;
    if scores.device().is_cpu() {
        let draws = draws.to_vec1::<f32>()?;
        let rows = scores.to_vec2::<f32>()?.into_iter().zip(ways).zip(draws);
        let tokens: Vec<u32> = rows
            .map(|((scores, way), draw)| way.on_host(&scores, draw))
            .collect();
        return Tensor::from_slice(&tokens, tokens.len(), scores.device());
    }
    match ways {
        [way, others @ ..] if others.iter().all(|other| other == way) => {
            way.on_device(&scores, draws)
        }
        _ => {
            let row = |(n, way): (usize, &Sampling)| {
                way.on_device(&scores.narrow(0, n, 1)?, &draws.narrow(0, n, 1)?)
            };
            let tokens: Vec<Tensor> = ways.iter().enumerate().map(row).collect::<Result<_>>()?;
            Tensor::cat(&tokens, 0)
        }
    }
}

impl Sampling {
    /// Of one row's scores.
    fn on_host(&self, scores: &[f32], draw: f32) -> u32 {
        match *self {
            #[cfg(test)]
            Sampling::Greedy => on_host(scores, 1, 1.0, draw),
            Sampling::TopK { k, temperature } => on_host(scores, k, temperature, draw),
        }
    }

    fn on_device(&self, scores: &Tensor, draws: &Tensor) -> Result<Tensor> {
        match *self {
            #[cfg(test)]
            Sampling::Greedy => scores.argmax(D::Minus1),
            Sampling::TopK { k, temperature } => on_device(scores, k, temperature, draws),
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

/// The same for `[rows, tokens]` without the host: sort, take the best, add their chances up, count those that the draw
/// is past.
fn on_device(scores: &Tensor, k: usize, temperature: f64, draws: &Tensor) -> Result<Tensor> {
    let k = k.clamp(1, scores.dim(1)?);
    let order = scores
        .arg_sort_last_dim(false)?
        .narrow(1, 0, k)?
        .contiguous()?;
    let best = (scores.contiguous()?.gather(&order, 1)? / temperature)?;
    let chances = candle_nn::ops::softmax_last_dim(&best)?;
    let until = chances.cumsum(1)?;
    // The last one's sum may fall short of 1 by rounding.
    let past = until
        .broadcast_le(&draws.unsqueeze(1)?)?
        .to_dtype(DType::F32)?
        .sum_keepdim(1)?
        .minimum((k - 1) as f64)?
        .to_dtype(DType::U32)?;
    order.gather(&past, 1)?.squeeze(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::Device;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn one(sampling: Sampling, scores: &[f32], valid: usize, draw: f32) -> u32 {
        let scores = Tensor::from_slice(scores, (1, scores.len()), &Device::Cpu).unwrap();
        let draw = Tensor::from_slice(&[draw], 1, &Device::Cpu).unwrap();
        let picked = pick(&[sampling], &scores, valid, &draw).unwrap();
        picked.to_vec1::<u32>().unwrap()[0]
    }

    #[test]
    fn the_device_draws_what_the_host_draws() {
        let mut random = StdRng::seed_from_u64(1);
        for rows in (1..=4).cycle().take(80) {
            let scores: Vec<f32> = (0..97 * rows)
                .map(|_| random.random::<f32>() * 8.0)
                .collect();
            let (k, temperature) = (1 + random.random::<u32>() as usize % 60, 0.9);
            let draws: Vec<f32> = (0..rows).map(|_| random.random()).collect();
            let place = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
            let tensor = place(&scores).unwrap().reshape((rows, 97)).unwrap();
            let device = on_device(&tensor, k, temperature, &place(&draws).unwrap()).unwrap();
            let host = scores.chunks(97).zip(&draws);
            let host: Vec<u32> = host
                .map(|(scores, draw)| on_host(scores, k, temperature, *draw))
                .collect();
            assert_eq!(
                device.to_vec1::<u32>().unwrap(),
                host,
                "k {k} draws {draws:?}"
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
            counts[one(sampling, &scores, 4, n as f32 / draws as f32) as usize] += 1;
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
        assert_eq!(one(Sampling::Greedy, &scores, 2, 0.0), 1);
        let all = Sampling::TopK {
            k: 50,
            temperature: 1.0,
        };
        for n in 0..100 {
            assert!(one(all, &scores, 2, n as f32 / 100.0) < 2);
        }
        assert_eq!(one(all, &[f32::NAN, 0.0], 2, 0.0), 1);
    }
}
