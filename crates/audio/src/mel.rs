//! The picture of speech that Whisper and its relatives look at.
//!
//! Short-time power spectra on the mel scale, in log10, cut off 80 dB below the
//! loudest and scaled: exactly the front end of the Whisper reference
//! (Radford et al., "Robust Speech Recognition via Large-Scale Weak
//! Supervision", 2022; `whisper/audio.py`), with librosa's Slaney mel filters.
//! Window 400 (25 ms, periodic Hann), hop 160 (10 ms), at 16 kHz.

use std::f64::consts::PI;
use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

/// Rate of the samples that go in, Hz.
pub const MEL_RATE: u32 = 16_000;
/// Samples from one frame to the next.
pub const HOP: usize = 160;
/// Samples in a window.
pub const WINDOW: usize = 400;

/// A log-mel spectrogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Mel {
    /// Mel bands: 80, or 128 for large-v3.
    pub bins: usize,
    /// Frames of 10 ms.
    pub frames: usize,
    /// Row-major `[bins][frames]`.
    pub data: Vec<f32>,
}

/// One band's triangle over the spectrum.
#[derive(Debug)]
struct Band {
    first: usize,
    weights: Vec<f32>,
}

/// Computes log-mel spectrograms. Make one and share it.
pub struct LogMel {
    bands: Vec<Band>,
    window: Vec<f32>,
    fft: Arc<dyn RealToComplex<f32>>,
}

impl LogMel {
    /// A spectrogram of `bins` bands: 80, or 128 for Whisper large-v3.
    pub fn new(bins: usize) -> LogMel {
        let window = (0..WINDOW)
            .map(|i| (0.5 - 0.5 * (2.0 * PI * i as f64 / WINDOW as f64).cos()) as f32)
            .collect();
        LogMel {
            bands: slaney_bands(bins),
            window,
            fft: RealFftPlanner::new().plan_fft_forward(WINDOW),
        }
    }

    /// Mel bands of its output.
    pub fn bins(&self) -> usize {
        self.bands.len()
    }

    /// The spectrogram of 16 kHz samples: `samples.len() / 160` frames. The
    /// edges are mirrored by half a window, as the reference does. Pad (or
    /// trim) the samples first where a model wants a fixed length.
    pub fn compute(&self, samples_16k: &[f32]) -> Mel {
        let frames = samples_16k.len() / HOP;
        let bins = self.bands.len();
        let mut data = vec![0.0f32; bins * frames];
        let mut input = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let mut power = vec![0.0f32; spectrum.len()];
        let mut loudest = f32::NEG_INFINITY;
        for frame in 0..frames {
            let start = (frame * HOP) as isize - (WINDOW / 2) as isize;
            for (i, value) in input.iter_mut().enumerate() {
                *value = mirrored(samples_16k, start + i as isize) * self.window[i];
            }
            // All three buffers were made by this plan, the only cause of an error.
            let done = self
                .fft
                .process_with_scratch(&mut input, &mut spectrum, &mut scratch);
            debug_assert!(done.is_ok());
            for (power, value) in power.iter_mut().zip(&spectrum) {
                *power = value.norm_sqr();
            }
            for (bin, band) in self.bands.iter().enumerate() {
                let energy: f32 = band
                    .weights
                    .iter()
                    .zip(&power[band.first..])
                    .map(|(weight, power)| weight * power)
                    .sum();
                let log = energy.max(1e-10).log10();
                loudest = loudest.max(log);
                data[bin * frames + frame] = log;
            }
        }
        for value in &mut data {
            *value = (value.max(loudest - 8.0) + 4.0) / 4.0;
        }
        Mel { bins, frames, data }
    }
}

/// The sample at an index that may lie outside, mirrored at the ends (the end
/// sample itself not repeated), as often as need be.
fn mirrored(samples: &[f32], index: isize) -> f32 {
    let last = samples.len() as isize - 1;
    if (0..=last).contains(&index) {
        return samples[index as usize];
    }
    if last == 0 {
        return samples[0];
    }
    let folded = index.rem_euclid(2 * last);
    samples[folded.min(2 * last - folded) as usize]
}

/// Slaney's mel scale: linear below 1 kHz, logarithmic above.
fn mel_to_hz(mel: f64) -> f64 {
    const LOG_STEP: f64 = 0.068_751_777_420_949_12; // ln(6.4) / 27
    if mel < 15.0 {
        mel * 200.0 / 3.0
    } else {
        1000.0 * (LOG_STEP * (mel - 15.0)).exp()
    }
}

/// Triangles of equal area between 0 Hz and 8 kHz.
fn slaney_bands(bins: usize) -> Vec<Band> {
    const TOP_MEL: f64 = 45.245_640_471_924_965; // 8 kHz
    let edge = |i: usize| mel_to_hz(TOP_MEL * i as f64 / (bins + 1) as f64);
    let hz = |k: usize| k as f64 * f64::from(MEL_RATE) / WINDOW as f64;
    (0..bins)
        .map(|bin| {
            let (low, mid, high) = (edge(bin), edge(bin + 1), edge(bin + 2));
            let weight = |k: usize| {
                let rise = (hz(k) - low) / (mid - low);
                let fall = (high - hz(k)) / (high - mid);
                rise.min(fall).max(0.0) * 2.0 / (high - low)
            };
            let inside = |&k: &usize| weight(k) > 0.0;
            let first = (0..=WINDOW / 2).find(inside).unwrap_or(0);
            let weights = (first..=WINDOW / 2)
                .take_while(inside)
                .map(|k| weight(k) as f32)
                .collect();
            Band { first, weights }
        })
        .collect()
}
