//! Changing the rate of a stream without moving anything in it.
//!
//! The ratio of two audio rates is a fraction L/M, so an output sample falls on
//! one of only L positions between two input samples. For each of them the taps
//! of a windowed sinc (Kaiser, 80 dB) are computed once; an output sample is one
//! dot product. That makes the result independent of how the input is cut into
//! blocks, to the last bit, puts every sample exactly where it was in time (word
//! marks stay true), and needs no block to be full before sound comes out.
//!
//! Method: Crochiere & Rabiner, "Multirate Digital Signal Processing" (1983),
//! polyphase interpolation; J. F. Kaiser's window for the design.

use std::f64::consts::PI;
use std::sync::Arc;

/// Half the filter's length, in samples of the lower of the two rates: 2 ms at
/// 16 kHz, 4 ms at 8 kHz.
const HALF_LENGTH: usize = 32;
/// -6 dB point as a fraction of the lower rate. The filter is flat to 0.42 and
/// more than 80 dB down at 0.5, where aliases would begin.
const CUTOFF: f64 = 0.46;
/// Kaiser's beta for 80 dB.
const BETA: f64 = 7.857;
/// Taps of all positions together, to bound memory (64 MiB) and set-up time.
const MAX_TABLE: usize = 1 << 24;

/// Why a [`Resampler`] cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResampleError {
    /// A rate is zero or beyond 1 MHz.
    #[error("{0} Hz is no sample rate of sound: rates go from 1 to 1000000 Hz")]
    Rate(u32),
    /// The two rates have so small a common divisor that the filter would not
    /// fit in memory.
    #[error(
        "from {from} Hz to {to} Hz is not supported: convert the sound to a common rate \
         (8000, 16000, 22050, 24000, 44100 or 48000 Hz) first"
    )]
    Ratio {
        /// Rate of the input, Hz.
        from: u32,
        /// Rate of the output, Hz.
        to: u32,
    },
}

/// Changes the rate of a mono stream, block by block.
///
/// For n samples in, round(n * to / from) come out once [`Resampler::flush`] has
/// been called. Output sample i is the sound at input time i * from / to: the
/// filter's delay is taken off at the start, so output lags input by
/// [`Resampler::delay`] until the flush, and is never shifted.
#[derive(Clone, Debug)]
pub struct Resampler {
    from: u32,
    to: u32,
    /// Output positions between two input samples (L), and how many of them one
    /// output sample goes forward (M).
    phases: usize,
    step: usize,
    taps: usize,
    /// `[phases][taps]`; empty when the rates are equal.
    table: Arc<[f32]>,
    /// Input not yet passed, beginning with the first tap of the next output.
    history: Vec<f32>,
    phase: usize,
    /// Input to discard before the next output, when a step is longer than what
    /// the history holds.
    skip: usize,
    received: u64,
    produced: u64,
}

impl Resampler {
    /// A resampler between two rates in Hz. The filter takes a millisecond or
    /// more to compute for 11.025, 22.05 or 44.1 kHz, microseconds otherwise;
    /// clones share it, so keep one and clone it for each stream.
    pub fn new(from: u32, to: u32) -> Result<Resampler, ResampleError> {
        for rate in [from, to] {
            if rate == 0 || rate > 1_000_000 {
                return Err(ResampleError::Rate(rate));
            }
        }
        let divisor = gcd(from, to);
        let (phases, step) = ((to / divisor) as usize, (from / divisor) as usize);
        // In input samples; a multiple of 4 so that whole registers are filled.
        let half = (HALF_LENGTH * step.max(phases))
            .div_ceil(phases)
            .next_multiple_of(4);
        let taps = 2 * half;
        let table = match from == to {
            true => Arc::from([]),
            false if phases.saturating_mul(taps) > MAX_TABLE => {
                return Err(ResampleError::Ratio { from, to });
            }
            false => filter_table(phases, half, f64::from(to.min(from)) / f64::from(from)),
        };
        let mut resampler = Resampler {
            from,
            to,
            phases,
            step,
            taps,
            table,
            history: Vec::new(),
            phase: 0,
            skip: 0,
            received: 0,
            produced: 0,
        };
        resampler.reset();
        Ok(resampler)
    }

    /// Rate of the input, Hz.
    pub fn from_rate(&self) -> u32 {
        self.from
    }

    /// Rate of the output, Hz.
    pub fn to_rate(&self) -> u32 {
        self.to
    }

    /// Input samples by which the output lags while streaming: 32 of the lower
    /// rate (rounded up to a multiple of 4), 0 when the rates are equal.
    pub fn delay(&self) -> usize {
        if self.table.is_empty() {
            0
        } else {
            self.taps / 2
        }
    }

    /// The output that these samples complete.
    pub fn process(&mut self, input: &[f32]) -> Vec<f32> {
        let estimate = input.len() * self.phases / self.step + 1;
        let mut output = Vec::with_capacity(estimate);
        self.process_into(input, &mut output);
        output
    }

    /// Like [`Resampler::process`], appending to `output`.
    pub fn process_into(&mut self, input: &[f32], output: &mut Vec<f32>) {
        self.received += input.len() as u64;
        if self.table.is_empty() {
            self.produced += input.len() as u64;
            output.extend_from_slice(input);
            return;
        }
        self.run(input, u64::MAX, output);
    }

    /// The rest of the output. The resampler is then as new: the next sample
    /// begins another stream.
    pub fn flush(&mut self) -> Vec<f32> {
        let total = output_len(self.received, self.from, self.to);
        let mut output = Vec::new();
        if !self.table.is_empty() {
            let silence = vec![0.0; self.taps + self.step];
            while self.produced < total {
                self.run(&silence, total, &mut output);
            }
        }
        self.reset();
        output
    }

    /// Forgets the stream so far.
    pub fn reset(&mut self) {
        self.history.clear();
        if !self.table.is_empty() {
            // Time before the stream, under the first half of the filter.
            self.history.resize(self.taps / 2 - 1, 0.0);
        }
        self.phase = 0;
        self.skip = 0;
        self.received = 0;
        self.produced = 0;
    }

    fn run(&mut self, input: &[f32], total: u64, output: &mut Vec<f32>) {
        self.history.extend_from_slice(input);
        let mut start = self.skip.min(self.history.len());
        self.skip -= start;
        while self.skip == 0 && self.produced < total {
            let Some(window) = self.history.get(start..start + self.taps) else {
                break;
            };
            let row = self.phase * self.taps;
            output.push(dot(window, &self.table[row..row + self.taps]));
            self.produced += 1;
            self.phase += self.step;
            let wanted = start + self.phase / self.phases;
            self.phase %= self.phases;
            start = wanted.min(self.history.len());
            self.skip = wanted - start;
        }
        self.history.drain(..start);
    }
}

/// A whole recording at another rate: round(n * to / from) samples.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>, ResampleError> {
    let mut resampler = Resampler::new(from, to)?;
    let mut output = resampler.process(samples);
    output.append(&mut resampler.flush());
    Ok(output)
}

/// Samples that `received` samples become: rounded to nearest, halves up.
fn output_len(received: u64, from: u32, to: u32) -> u64 {
    let scaled = u128::from(received) * u128::from(to) * 2 + u128::from(from);
    (scaled / (u128::from(from) * 2)) as u64
}

/// Taps for every position p/L after an input sample: tap j lies on the input
/// sample j + 1 - half from it. `band` is the lower rate over the input rate.
fn filter_table(phases: usize, half: usize, band: f64) -> Arc<[f32]> {
    let cutoff = 2.0 * CUTOFF * band;
    let mut table = Vec::with_capacity(phases * half * 2);
    let mut row = vec![0.0f64; half * 2];
    for phase in 0..phases {
        let fraction = phase as f64 / phases as f64;
        for (j, tap) in row.iter_mut().enumerate() {
            let t = (j + 1) as f64 - half as f64 - fraction;
            *tap = cutoff * sinc(cutoff * t) * kaiser(t / half as f64);
        }
        // Equal gain at every position, or a constant would come out as a hum.
        let sum: f64 = row.iter().sum();
        table.extend(row.iter().map(|tap| (tap / sum) as f32));
    }
    table.into()
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    }
}

/// Kaiser's window at x in -1.0..=1.0.
fn kaiser(x: f64) -> f64 {
    bessel_i0(BETA * (1.0 - x * x).max(0.0).sqrt()) / bessel_i0(BETA)
}

/// Modified Bessel function of the first kind, order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > sum * 1e-17 {
        term *= quarter / (k * k);
        sum += term;
        k += 1.0;
    }
    sum
}

/// Eight sums side by side: the compiler may not reorder a single one.
#[inline]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
