//! The states of silence, and what makes them fit.
//!
//! In the window that Whisper was trained on, speech is followed by silence up to 30 s, and the states of that
//! silence hardly depend on the speech. So they are computed once, from a stand-in for speech padded to the
//! whole window, and joined on after the states of the real speech at the positions where these end.
//!
//! What they do depend on is the level: the log-mel of silence is cut off 80 dB below the loudest frame, so loud
//! speech is followed by another silence than faint speech. All audio is therefore brought to one level first.

use std::f32::consts::PI;

use duologue_audio::mel::LogMel;

use super::engine::{Engine, States};
use crate::{AsrError, SAMPLE_RATE};

/// Samples from one mel frame to the next.
pub(super) const HOP: usize = 160;
/// Mel frames of the window that the model was trained on, 30 s.
const WINDOW_FRAMES: usize = 3000;
/// Silence encoded after the speech, in mel frames: 2 s.
const MARGIN_FRAMES: usize = 200;
/// The number of frames is a multiple of this.
const STEP: usize = 8;
/// How many states of the tail are joined on, the last ones of the window.
const JOINED: usize = 100;
/// The loudest value of a log-mel spectrogram after [`at_standard_level`].
const STANDARD: f32 = 1.25;

/// Mel frames to encode for so many samples: all of them, and the margin.
pub(super) fn frames_for(samples: usize) -> usize {
    (samples.div_ceil(HOP) + MARGIN_FRAMES)
        .next_multiple_of(STEP)
        .min(WINDOW_FRAMES)
}

/// The audio, so loud that the loudest value of its log-mel is a typical one.
pub(super) fn at_standard_level(mel: &LogMel, audio: &[f32]) -> Vec<f32> {
    let loudest = mel
        .compute(audio)
        .data
        .into_iter()
        .fold(f32::NEG_INFINITY, f32::max);
    // The value is (log10(power) + 4) / 4.
    let gain = 10.0_f32.powf((STANDARD - loudest) * 4.0 / 2.0);
    let gain = if gain.is_finite() { gain } else { 1.0 };
    audio.iter().map(|s| s * gain).collect()
}

/// The states of silence of one model.
pub(super) struct Tail(States);

impl Tail {
    pub(super) fn compute(engine: &Engine, mel: &LogMel) -> Result<Self, AsrError> {
        let mut audio = at_standard_level(mel, &stand_in());
        audio.resize(WINDOW_FRAMES * HOP, 0.0);
        let mut states = engine.encode(mel.compute(&audio))?;
        let kept = states.data.len() - JOINED.min(states.len()) * states.width;
        states.data.drain(..kept);
        Ok(Self(states))
    }

    /// The tail itself, its last state that of the window's end.
    pub(super) fn states(&self) -> &States {
        &self.0
    }

    /// How many of the tail's states follow `len` states of speech: the last ones, as far as the window goes.
    pub(super) fn room_after(&self, len: usize) -> usize {
        (WINDOW_FRAMES / 2).saturating_sub(len).min(self.0.len())
    }

    /// Joins the tail to the states of speech. The engine takes as many vectors as there are mel bins for a mel
    /// spectrogram, so there are never exactly `avoid`.
    pub(super) fn join(&self, mut states: States, avoid: usize) -> States {
        let joined = self.room_after(states.len());
        let first = self.0.len() - joined;
        states
            .data
            .extend_from_slice(&self.0.data[first * self.0.width..]);
        if states.len() == avoid {
            states.data.extend_from_slice(self.0.at(self.0.len() - 1));
        }
        states
    }
}

/// A second of something like a vowel: pulses through three resonances (Klatt's, 1980).
fn stand_in() -> Vec<f32> {
    const PITCH_SAMPLES: usize = 133; // 120 Hz
    const FORMANTS: [(f32, f32); 3] = [(600.0, 80.0), (1200.0, 100.0), (2500.0, 150.0)];
    let rate = SAMPLE_RATE as f32;
    let mut out = vec![0.0; SAMPLE_RATE as usize];
    for (frequency, bandwidth) in FORMANTS {
        let radius = (-PI * bandwidth / rate).exp();
        let (a, b) = (
            2.0 * radius * (2.0 * PI * frequency / rate).cos(),
            radius * radius,
        );
        let (mut y1, mut y2) = (0.0, 0.0);
        for (i, sample) in out.iter_mut().enumerate() {
            let pulse = if i % PITCH_SAMPLES == 0 { 1.0 } else { 0.0 };
            let y = pulse + a * y1 - b * y2;
            (y1, y2) = (y, y1);
            *sample += 0.05 * y;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_cover_the_speech_and_a_margin_and_never_exceed_the_window() {
        assert_eq!(frames_for(3 * 16_000), 504);
        assert_eq!(frames_for(1), 208);
        assert_eq!(frames_for(28 * 16_000), 3000);
        assert_eq!(frames_for(40 * 16_000), 3000);
    }

    #[test]
    fn the_level_of_the_audio_makes_no_difference() {
        let mel = LogMel::new(80);
        let (quiet, loud): (Vec<f32>, Vec<f32>) =
            stand_in().iter().map(|s| (s * 0.01, s * 2.0)).unzip();
        let (a, b) = (
            at_standard_level(&mel, &quiet),
            at_standard_level(&mel, &loud),
        );
        assert!(a.iter().zip(&b).all(|(x, y)| (x - y).abs() < 1e-3));
        let loudest = mel.compute(&a).data.into_iter().fold(f32::MIN, f32::max);
        assert!((loudest - STANDARD).abs() < 0.01, "{loudest}");
        // Silence stays silence.
        assert_eq!(
            at_standard_level(&mel, &[0.0; 800])
                .iter()
                .filter(|s| **s != 0.0)
                .count(),
            0
        );
    }

    #[test]
    fn the_tail_is_joined_up_to_the_window_and_no_further() {
        let states = |n: usize| States {
            data: vec![1.0; n * 2],
            width: 2,
        };
        let tail = Tail(States {
            data: vec![0.0; JOINED * 2],
            width: 2,
        });
        assert_eq!(tail.join(states(250), 80).len(), 350);
        assert_eq!(tail.join(states(1450), 80).len(), 1500);
        assert_eq!(tail.join(states(1500), 80).len(), 1500);
        assert_eq!(tail.join(states(28), 128).len(), 129);
    }
}
