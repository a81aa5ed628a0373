//! How loud speech is, and bringing a voice to a given loudness.
//!
//! Loudness is EBU R128's (ITU-R BS.1770): weighted as ears do, gated so that
//! pauses do not count. A voice is measured once, on a few sentences; from then
//! on a fixed gain and a soft limiter do the work sample by sample, so that sound
//! can be sent as it is made, in blocks of any size, without delay or pumping.

use ebur128::{EbuR128, Mode};

/// Loudness at which synthetic voices leave, LUFS.
pub const SPEECH_LUFS: f32 = -16.0;

/// Why loudness cannot be measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("loudness cannot be measured at {0} Hz: rates go from 16 to 2822400 Hz")]
pub struct LoudnessError(u32);

/// Measures integrated loudness.
pub struct LoudnessMeter(EbuR128);

impl LoudnessMeter {
    /// A meter for mono sound at a rate in Hz.
    pub fn new(sample_rate: u32) -> Result<LoudnessMeter, LoudnessError> {
        EbuR128::new(1, sample_rate, Mode::I)
            .map(LoudnessMeter)
            .map_err(|_| LoudnessError(sample_rate))
    }

    /// Adds samples.
    pub fn add(&mut self, samples: &[f32]) {
        // The meter fails only on planar input of unequal lengths.
        let added = self.0.add_frames_f32(samples);
        debug_assert!(added.is_ok());
    }

    /// Integrated loudness so far in LUFS; `None` until 400 ms above the gate
    /// of -70 LUFS have been heard.
    pub fn integrated(&self) -> Option<f32> {
        match self.0.loudness_global() {
            Ok(lufs) if lufs.is_finite() => Some(lufs as f32),
            _ => None,
        }
    }
}

/// Integrated loudness of a whole recording in LUFS; see
/// [`LoudnessMeter::integrated`].
pub fn measure(samples: &[f32], sample_rate: u32) -> Result<Option<f32>, LoudnessError> {
    let mut meter = LoudnessMeter::new(sample_rate)?;
    meter.add(samples);
    Ok(meter.integrated())
}

/// Multiplies sound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// The factor on amplitudes.
    pub factor: f32,
}

impl Gain {
    /// Changes nothing.
    pub const UNITY: Gain = Gain { factor: 1.0 };

    /// A gain in decibels.
    pub fn from_db(db: f32) -> Gain {
        Gain {
            factor: 10f32.powf(db / 20.0),
        }
    }

    /// The gain that brings a measured loudness to a target, both in LUFS.
    pub fn between(measured: f32, target: f32) -> Gain {
        Gain::from_db(target - measured)
    }

    /// In decibels.
    pub fn db(self) -> f32 {
        20.0 * self.factor.log10()
    }

    /// Applies it.
    pub fn apply(self, samples: &mut [f32]) {
        for sample in samples {
            *sample *= self.factor;
        }
    }
}

/// Bends peaks so that none reaches the ceiling; leaves all below the knee as
/// it is. Without state or delay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftLimiter {
    knee: f32,
    ceiling: f32,
}

impl SoftLimiter {
    /// A limiter from the knee to the ceiling, both in dBFS, the knee lower.
    pub fn new(knee_dbfs: f32, ceiling_dbfs: f32) -> SoftLimiter {
        let knee = Gain::from_db(knee_dbfs).factor;
        SoftLimiter {
            knee,
            ceiling: Gain::from_db(ceiling_dbfs).factor.max(knee),
        }
    }

    /// One sample: the same sign, never beyond the ceiling; NaN is silence.
    #[inline]
    pub fn limit(&self, sample: f32) -> f32 {
        let magnitude = sample.abs();
        if magnitude <= self.knee {
            return sample;
        }
        let room = self.ceiling - self.knee;
        if sample.is_nan() || room <= 0.0 {
            return if sample.is_nan() {
                0.0
            } else {
                self.ceiling.copysign(sample)
            };
        }
        // tanh has slope 1 at the knee, so there is no corner.
        (self.knee + room * ((magnitude - self.knee) / room).tanh()).copysign(sample)
    }

    /// Applies it.
    pub fn apply(&self, samples: &mut [f32]) {
        for sample in samples {
            *sample = self.limit(*sample);
        }
    }
}

impl Default for SoftLimiter {
    /// From -4 to -1 dBFS.
    fn default() -> SoftLimiter {
        SoftLimiter::new(-4.0, -1.0)
    }
}

/// A gain and a limiter: what a measured voice goes through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normaliser {
    /// The voice's gain.
    pub gain: Gain,
    /// What keeps it from clipping.
    pub limiter: SoftLimiter,
}

impl Normaliser {
    /// Brings sound of a measured loudness to a target, both in LUFS.
    pub fn new(measured: f32, target: f32) -> Normaliser {
        Normaliser {
            gain: Gain::between(measured, target),
            limiter: SoftLimiter::default(),
        }
    }

    /// Applies it; blocks of any size give the same result.
    pub fn apply(&self, samples: &mut [f32]) {
        for sample in samples {
            *sample = self.limiter.limit(*sample * self.gain.factor);
        }
    }
}
