//! The way from a loudspeaker to a microphone: later, softer, and with the room's answer.
//!
//! The room is a row of reflections at random times that become denser and fall off exponentially (60 dB in its
//! reverberation time), each with a random sign; with a fixed seed, so that a scene always has the same room. That
//! is what a network of image sources comes to when nobody asks where the walls are.

use crate::{Echo, RATE};

/// Reflections after the direct sound.
const REFLECTIONS: usize = 64;

/// Where sound comes back from.
#[derive(Clone, Debug)]
pub struct EchoPath {
    /// (Samples of delay, gain).
    taps: Vec<(usize, f32)>,
    past: Vec<f32>,
    at: usize,
}

impl EchoPath {
    /// An echo path at rest.
    #[must_use]
    pub fn new(echo: &Echo) -> Self {
        let gain = 10_f32.powf(-echo.attenuation_db / 20.0);
        let delay = (echo.delay_ms.max(0.0) / 1_000.0 * f64::from(RATE)) as usize;
        let mut taps = vec![(delay, gain)];
        if echo.reverberation > 0.0 {
            let mut seed = 0x2545_F491_4F6C_DD1D_u64;
            let mut random = || {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                (seed >> 40) as f64 / (1_u64 << 24) as f64
            };
            let length = echo.reverberation;
            for number in 0..REFLECTIONS {
                // Denser with time: reflections are uniform in the square root of time.
                let part = (number as f64 + random()) / REFLECTIONS as f64;
                let time = 0.004 + length * part.sqrt();
                let fall = 10_f64.powf(-3.0 * time / length);
                let sign = if random() < 0.5 { -1.0 } else { 1.0 };
                let strength = 0.35 * fall * sign;
                taps.push((
                    delay + (time * f64::from(RATE)) as usize,
                    gain * strength as f32,
                ));
            }
        }
        let longest = taps.iter().map(|(delay, _)| *delay).max().unwrap_or(0);
        Self {
            taps,
            past: vec![0.0; longest + 1],
            at: 0,
        }
    }

    /// What comes back while these samples are played.
    pub fn process(&mut self, played: &[f32]) -> Vec<f32> {
        let length = self.past.len();
        played
            .iter()
            .map(|sample| {
                self.past[self.at] = *sample;
                let heard = self
                    .taps
                    .iter()
                    .map(|(delay, gain)| self.past[(self.at + length - delay) % length] * gain)
                    .sum();
                self.at = (self.at + 1) % length;
                heard
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_comes_back_later_and_softer_and_dies_away() {
        let echo = |reverberation| {
            EchoPath::new(&Echo {
                delay_ms: 100.0,
                attenuation_db: 20.0,
                reverberation,
            })
        };
        let mut impulse = vec![0.0; RATE as usize];
        impulse[0] = 1.0;
        let dry = echo(0.0).process(&impulse);
        let at = RATE as usize / 10;
        assert!((dry[at] - 0.1).abs() < 1e-6);
        assert_eq!(dry.iter().filter(|sample| **sample != 0.0).count(), 1);
        let wet = echo(0.3).process(&impulse);
        assert!(wet[..at].iter().all(|sample| *sample == 0.0));
        let energy = |samples: &[f32]| samples.iter().map(|s| s * s).sum::<f32>();
        let (early, late) = (energy(&wet[at..at + 2_400]), energy(&wet[at + 4_800..]));
        assert!(early > 20.0 * late, "{early} {late}");
    }
}
