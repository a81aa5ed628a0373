//! What a change of rate must keep and what it must remove.
#![allow(clippy::unwrap_used)]

use std::f64::consts::TAU;

use duologue_audio::{ResampleError, Resampler, resample};
use proptest::prelude::*;

const RATES: [u32; 7] = [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000];

fn tone(hz: f64, rate: u32, samples: usize) -> Vec<f32> {
    (0..samples)
        .map(|i| (0.5 * (TAU * hz * i as f64 / f64::from(rate)).sin()) as f32)
        .collect()
}

/// Away from the ends, where the filter sees the sound begin and stop.
fn middle(samples: &[f32]) -> &[f32] {
    &samples[samples.len() / 4..samples.len() * 3 / 4]
}

fn level_db(samples: &[f32]) -> f64 {
    let energy: f64 = samples.iter().map(|&s| f64::from(s).powi(2)).sum();
    10.0 * (energy / samples.len() as f64 / 0.125).log10()
}

fn streamed(from: u32, to: u32, input: &[f32], blocks: &[usize]) -> Vec<f32> {
    let mut resampler = Resampler::new(from, to).unwrap();
    let mut output = Vec::new();
    let mut rest = input;
    for &block in blocks.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at(block.clamp(1, rest.len()));
        output.extend(resampler.process(now));
        rest = later;
    }
    output.extend(resampler.flush());
    output
}

proptest! {
    #[test]
    fn blocks_of_any_size_give_the_whole_result_bit_for_bit(
        from in prop::sample::select(&RATES[..]),
        to in prop::sample::select(&RATES[..]),
        input in prop::collection::vec(-1.0f32..1.0, 0..4000),
        blocks in prop::collection::vec(1usize..1000, 1..6),
    ) {
        prop_assert_eq!(
            streamed(from, to, &input, &blocks),
            resample(&input, from, to).unwrap()
        );
    }

    #[test]
    fn the_length_is_the_duration_at_the_new_rate(
        from in prop::sample::select(&RATES[..]),
        to in prop::sample::select(&RATES[..]),
        length in 0usize..5000,
    ) {
        let output = resample(&vec![0.1; length], from, to).unwrap();
        let exact = (length as f64 * f64::from(to) / f64::from(from)).round() as usize;
        prop_assert_eq!(output.len(), exact);
    }

    #[test]
    fn a_flushed_resampler_is_as_new(
        from in prop::sample::select(&RATES[..]),
        to in prop::sample::select(&RATES[..]),
        first in 0usize..2000,
    ) {
        let mut resampler = Resampler::new(from, to).unwrap();
        resampler.process(&vec![0.7; first]);
        resampler.flush();
        let input = tone(300.0, from, 1500);
        let mut output = resampler.process(&input);
        output.extend(resampler.flush());
        prop_assert_eq!(output, resample(&input, from, to).unwrap());
    }

    #[test]
    fn output_lags_by_no_more_than_the_stated_delay(
        from in prop::sample::select(&RATES[..]),
        to in prop::sample::select(&RATES[..]),
        length in 0usize..5000,
    ) {
        let mut resampler = Resampler::new(from, to).unwrap();
        let output = resampler.process(&vec![0.1; length]).len();
        let due = length.saturating_sub(resampler.delay()) as u64 * u64::from(to) / u64::from(from);
        prop_assert!(output as u64 >= due, "{} of {} samples", output, due);
        prop_assert!(resampler.delay() * 1000 <= 5 * from as usize, "more than 5 ms");
    }
}

#[test]
fn a_1_khz_tone_keeps_its_level_and_its_place_in_time() {
    for from in RATES {
        for to in RATES {
            let output = resample(&tone(1000.0, from, from as usize / 2), from, to).unwrap();
            let expected = tone(1000.0, to, output.len());
            let level = level_db(middle(&output));
            assert!(level.abs() < 0.05, "{from} to {to}: {level:.3} dB");
            let error: Vec<f32> = middle(&output)
                .iter()
                .zip(middle(&expected))
                .map(|(a, b)| a - b)
                .collect();
            // -60 dB of error at 1 kHz is a shift of a sixth of a microsecond.
            assert!(
                level_db(&error) < -60.0,
                "{from} to {to}: {:.1} dB",
                level_db(&error)
            );
        }
    }
}

#[test]
fn speech_frequencies_pass_evenly() {
    for (from, to) in [
        (48_000, 16_000),
        (16_000, 48_000),
        (22_050, 48_000),
        (44_100, 16_000),
    ] {
        let lower = f64::from(from.min(to));
        for fraction in [0.01, 0.1, 0.2, 0.3, 0.4] {
            let output =
                resample(&tone(lower * fraction, from, from as usize / 2), from, to).unwrap();
            let level = level_db(middle(&output));
            assert!(
                level.abs() < 0.1,
                "{from} to {to}, {fraction}: {level:.3} dB"
            );
        }
    }
}

#[test]
fn what_the_lower_rate_cannot_hold_is_rejected_by_60_db() {
    for (from, to) in [
        (48_000, 16_000),
        (48_000, 8_000),
        (44_100, 16_000),
        (48_000, 24_000),
        (24_000, 16_000),
        (22_050, 8_000),
    ] {
        for hz in [0.501, 0.52, 0.6, 0.8, 0.95].map(|part| part * f64::from(to)) {
            if hz < f64::from(from) / 2.0 {
                let output = resample(&tone(hz, from, from as usize / 2), from, to).unwrap();
                let level = level_db(middle(&output));
                assert!(
                    level < -60.0,
                    "{from} to {to}: {hz} Hz comes back at {level:.1} dB"
                );
            }
        }
    }
}

#[test]
fn going_up_adds_no_images() {
    for (from, to) in [(16_000, 48_000), (22_050, 48_000), (8_000, 16_000)] {
        let hz = 0.4 * f64::from(from);
        let output = resample(&tone(hz, from, from as usize / 2), from, to).unwrap();
        // Take the tone itself away by its two components; what is left is not it.
        let output = middle(&output);
        let basis = |i: usize| (TAU * hz * i as f64 / f64::from(to)).sin_cos();
        let (mut s, mut c) = (0.0, 0.0);
        let used = output.len() / 480 * 480;
        for (i, &sample) in output[..used].iter().enumerate() {
            let (sin, cos) = basis(i);
            s += f64::from(sample) * sin * 2.0 / used as f64;
            c += f64::from(sample) * cos * 2.0 / used as f64;
        }
        let rest: Vec<f32> = output[..used]
            .iter()
            .enumerate()
            .map(|(i, &sample)| {
                let (sin, cos) = basis(i);
                (f64::from(sample) - s * sin - c * cos) as f32
            })
            .collect();
        assert!(
            level_db(&rest) < -60.0,
            "{from} to {to}: {:.1} dB",
            level_db(&rest)
        );
    }
}

#[test]
fn an_impulse_comes_out_where_it_went_in() {
    for (from, to) in [
        (22_050, 48_000),
        (48_000, 16_000),
        (44_100, 48_000),
        (16_000, 48_000),
    ] {
        let at = from as usize / 3;
        let mut input = vec![0.0; from as usize];
        input[at] = 1.0;
        let output = resample(&input, from, to).unwrap();
        let peak = (0..output.len())
            .max_by(|&a, &b| output[a].total_cmp(&output[b]))
            .unwrap();
        let expected = at as f64 * f64::from(to) / f64::from(from);
        assert!(
            (peak as f64 - expected).abs() <= 0.5,
            "{from} to {to}: {peak}, not {expected:.1}"
        );
    }
}

#[test]
fn equal_rates_change_nothing() {
    let input = tone(440.0, 48_000, 1000);
    assert_eq!(resample(&input, 48_000, 48_000).unwrap(), input);
    assert_eq!(Resampler::new(48_000, 48_000).unwrap().delay(), 0);
}

#[test]
fn rates_that_cannot_be_are_refused() {
    assert_eq!(
        Resampler::new(0, 48_000).unwrap_err(),
        ResampleError::Rate(0)
    );
    assert_eq!(
        Resampler::new(48_000, 2_000_000).unwrap_err(),
        ResampleError::Rate(2_000_000)
    );
    assert!(matches!(
        Resampler::new(999_983, 999_979),
        Err(ResampleError::Ratio { .. })
    ));
    assert!(Resampler::new(44_101, 48_000).is_ok());
}
