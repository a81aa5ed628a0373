//! The seam between models that hear speech and what is made of it.

use crate::VadError;

/// How likely one stretch of sound holds speech.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// First sample.
    pub start: u64,
    /// Samples in it.
    pub length: u32,
    /// 0.0 (certainly none) to 1.0 (certainly speech).
    pub probability: f32,
}

impl Window {
    /// The sample after its last.
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.length)
    }
}

/// Hears speech in one stream of sound.
///
/// Deterministic: the same samples give the same probabilities, however they are
/// cut into blocks.
pub trait VoiceDetector: Send {
    /// Samples in each window.
    fn window(&self) -> usize;

    /// Adds 16 kHz samples and appends the windows that they complete. What is
    /// left over waits for the next call. May take a millisecond a window: not
    /// for a thread that must never wait.
    fn process(&mut self, samples: &[f32], windows: &mut Vec<Window>) -> Result<(), VadError>;

    /// Forgets the stream: the next sample is number 0 of another.
    fn reset(&mut self);
}

/// Cuts a stream into windows of a fixed length.
#[derive(Debug)]
pub(crate) struct Windower {
    length: usize,
    pending: Vec<f32>,
    next: u64,
}

impl Windower {
    pub(crate) fn new(length: usize) -> Windower {
        Windower {
            length,
            pending: Vec::with_capacity(length),
            next: 0,
        }
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Calls `score` for each window that is complete with these samples. After
    /// an error the stream goes on behind the window that failed.
    pub(crate) fn process(
        &mut self,
        mut samples: &[f32],
        windows: &mut Vec<Window>,
        mut score: impl FnMut(&[f32]) -> Result<f32, VadError>,
    ) -> Result<(), VadError> {
        let mut outcome = Ok(());
        loop {
            let wanted = (self.length - self.pending.len()).min(samples.len());
            let (now, later) = samples.split_at(wanted);
            self.pending.extend_from_slice(now);
            samples = later;
            if self.pending.len() < self.length {
                return outcome;
            }
            let scored = score(&self.pending);
            let start = self.next;
            self.next += self.length as u64;
            self.pending.clear();
            match scored {
                Ok(probability) => {
                    windows.push(Window {
                        start,
                        length: self.length as u32,
                        probability,
                    });
                }
                Err(error) => outcome = Err(error),
            }
        }
    }

    pub(crate) fn reset(&mut self) {
        self.pending.clear();
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_do_not_depend_on_the_blocks(
            samples in prop::collection::vec(-1.0f32..1.0, 0..3000),
            blocks in prop::collection::vec(1usize..900, 1..6),
        ) {
            let mean = |window: &[f32]| Ok(window.iter().sum::<f32>());
            let mut whole = Vec::new();
            Windower::new(256).process(&samples, &mut whole, mean).unwrap();
            let mut windower = Windower::new(256);
            let (mut cut, mut rest) = (Vec::new(), &samples[..]);
            for &block in blocks.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(block.min(rest.len()));
                windower.process(now, &mut cut, mean).unwrap();
                rest = later;
            }
            prop_assert_eq!(&cut, &whole);
            prop_assert_eq!(cut.len(), samples.len() / 256);
            for (i, window) in cut.iter().enumerate() {
                prop_assert_eq!(window.start, 256 * i as u64);
            }
        }
    }

    #[test]
    fn positions_stay_true_after_a_failure() {
        let mut windower = Windower::new(10);
        let mut windows = Vec::new();
        let mut calls = 0;
        let result = windower.process(&[0.0; 35], &mut windows, |_| {
            calls += 1;
            if calls == 1 {
                Err(VadError::run("test", "no"))
            } else {
                Ok(0.5)
            }
        });
        assert!(result.is_err());
        assert_eq!(
            windows.iter().map(|w| w.start).collect::<Vec<_>>(),
            [10, 20]
        );
    }
}
