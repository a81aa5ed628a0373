//! The unit in which sound moves, and the cutting of a stream into it.
//!
//! One duration everywhere means that pacing, generations, pausing and
//! cancelling all work in whole frames, and that an Opus packet is a frame.

use std::collections::VecDeque;
use std::fmt;

use crate::{FRAME_SAMPLES, pcm};

/// 20 ms of 48 kHz mono sound.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame(pub [i16; FRAME_SAMPLES]);

impl Frame {
    /// A frame of silence.
    pub const SILENCE: Frame = Frame([0; FRAME_SAMPLES]);
    /// Bytes of a frame as `s16le`.
    pub const BYTES: usize = FRAME_SAMPLES * 2;

    /// The frame in these `s16le` bytes, or `None` if there are not exactly
    /// [`Frame::BYTES`].
    pub fn from_le_bytes(bytes: &[u8]) -> Option<Frame> {
        if bytes.len() != Frame::BYTES {
            return None;
        }
        let mut samples = [0; FRAME_SAMPLES];
        for (sample, pair) in samples.iter_mut().zip(bytes.chunks_exact(2)) {
            *sample = i16::from_le_bytes([pair[0], pair[1]]);
        }
        Some(Frame(samples))
    }

    /// The frame as `s16le` bytes, [`Frame::BYTES`] of them.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        pcm::i16_to_le_bytes(&self.0)
    }

    /// The frame as floating point in -1.0..1.0.
    pub fn to_f32(&self) -> [f32; FRAME_SAMPLES] {
        self.0.map(pcm::to_f32)
    }

    /// Whether every sample is zero.
    pub fn is_silence(&self) -> bool {
        self.0.iter().all(|&s| s == 0)
    }

    /// Root mean square level in dBFS; negative infinity for silence. A
    /// full-scale sine reads -3.01.
    pub fn rms_dbfs(&self) -> f32 {
        let energy: i64 = self.0.iter().map(|&s| i64::from(s) * i64::from(s)).sum();
        pcm::dbfs((energy as f64 / FRAME_SAMPLES as f64).sqrt() as f32 / 32768.0)
    }

    /// Highest absolute sample in dBFS; negative infinity for silence.
    pub fn peak_dbfs(&self) -> f32 {
        let peak = self.0.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0);
        pcm::dbfs(f32::from(peak) / 32768.0)
    }

    /// Multiplies by a gain that goes in a straight line from `from` at the
    /// first sample to `to` just after the last, so that a ramp goes on without
    /// a step in the next frame. Saturates.
    pub fn ramp(&mut self, from: f32, to: f32) {
        if from == 1.0 && to == 1.0 {
            return;
        }
        let step = (to - from) / FRAME_SAMPLES as f32;
        for (i, sample) in self.0.iter_mut().enumerate() {
            let gain = from + step * i as f32;
            *sample = (f32::from(*sample) * gain).round() as i16;
        }
    }
}

impl Default for Frame {
    fn default() -> Frame {
        Frame::SILENCE
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:.1} dBFS rms)", self.rms_dbfs())
    }
}

/// Cuts a stream of samples into [`Frame`]s.
///
/// It holds what has been pushed and not yet taken: take the frames out after
/// each push. Nothing is lost or invented but the silence that [`Framer::flush`]
/// adds.
#[derive(Clone, Debug, Default)]
pub struct Framer {
    pending: VecDeque<i16>,
}

impl Framer {
    /// A framer with nothing pending.
    pub fn new() -> Framer {
        Framer::default()
    }

    /// Adds samples, 48 kHz mono.
    pub fn push(&mut self, samples: &[i16]) {
        self.pending.extend(samples);
    }

    /// Adds floating-point samples, 48 kHz mono; saturates.
    pub fn push_f32(&mut self, samples: &[f32]) {
        self.pending.extend(samples.iter().map(|&s| pcm::to_i16(s)));
    }

    /// The next whole frame, if there is one.
    pub fn next_frame(&mut self) -> Option<Frame> {
        (self.pending.len() >= FRAME_SAMPLES).then(|| self.take(FRAME_SAMPLES))
    }

    /// The next frame, filled up with silence if it is not whole; `None` when
    /// nothing is pending. Call until `None` at the end of a stream.
    pub fn flush(&mut self) -> Option<Frame> {
        match self.pending.len().min(FRAME_SAMPLES) {
            0 => None,
            count => Some(self.take(count)),
        }
    }

    /// Samples pushed and not yet taken.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Forgets what is pending.
    pub fn clear(&mut self) {
        self.pending.clear();
    }

    fn take(&mut self, count: usize) -> Frame {
        let mut frame = Frame::SILENCE;
        for (sample, taken) in frame.0.iter_mut().zip(self.pending.drain(..count)) {
            *sample = taken;
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_hold_the_stream_and_only_the_last_is_padded(
            blocks in prop::collection::vec(prop::collection::vec(any::<i16>(), 0..2500), 0..8)
        ) {
            let mut framer = Framer::new();
            let mut framed = Vec::new();
            for block in &blocks {
                framer.push(block);
                while let Some(frame) = framer.next_frame() {
                    framed.extend(frame.0);
                }
                prop_assert!(framer.pending() < FRAME_SAMPLES);
            }
            while let Some(frame) = framer.flush() {
                framed.extend(frame.0);
            }
            let mut whole = blocks.concat();
            whole.resize(whole.len().next_multiple_of(FRAME_SAMPLES), 0);
            prop_assert_eq!(framed, whole);
            prop_assert_eq!(framer.pending(), 0);
        }

        #[test]
        fn a_frame_survives_the_way_through_bytes(
            samples in prop::collection::vec(any::<i16>(), FRAME_SAMPLES)
        ) {
            let frame = Frame(samples.try_into().unwrap());
            prop_assert_eq!(Frame::from_le_bytes(&frame.to_le_bytes()), Some(frame));
        }

        #[test]
        fn a_ramp_never_overflows(from in -4.0f32..4.0, to in -4.0f32..4.0, value: i16) {
            let mut frame = Frame([value; FRAME_SAMPLES]);
            frame.ramp(from, to);
            let first = f32::from(value) * from;
            prop_assert!((f32::from(frame.0[0]) - first.clamp(-32768.0, 32767.0)).abs() <= 0.5);
        }
    }

    #[test]
    fn bytes_of_another_length_are_no_frame() {
        assert_eq!(Frame::from_le_bytes(&[0; Frame::BYTES - 1]), None);
        assert_eq!(Frame::from_le_bytes(&[0; Frame::BYTES + 1]), None);
    }

    #[test]
    fn two_ramps_join_without_a_step() {
        let mut first = Frame([10_000; FRAME_SAMPLES]);
        let mut second = first;
        first.ramp(1.0, 0.5);
        second.ramp(0.5, 0.0);
        let joint = (first.0[FRAME_SAMPLES - 1] - second.0[0]).abs();
        assert!(joint <= 6, "a step of {joint}");
        assert_eq!(first.0[0], 10_000);
        assert!(second.0[FRAME_SAMPLES - 1] < 10);
    }

    #[test]
    fn levels_of_a_full_scale_sine_and_of_silence() {
        let mut frame = Frame::SILENCE;
        assert_eq!(frame.rms_dbfs(), f32::NEG_INFINITY);
        assert_eq!(frame.peak_dbfs(), f32::NEG_INFINITY);
        assert!(frame.is_silence());
        for (i, sample) in frame.0.iter_mut().enumerate() {
            *sample = (32767.0 * (std::f32::consts::TAU * i as f32 / 48.0).sin()) as i16;
        }
        assert!((frame.rms_dbfs() + 3.01).abs() < 0.01);
        assert!(frame.peak_dbfs().abs() < 0.01);
        assert!(!frame.is_silence());
    }
}
