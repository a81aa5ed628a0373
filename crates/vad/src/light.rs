//! A detector that costs next to nothing.
//!
//! Earshot: a small neural network over spectral features, compiled in, about
//! 40 times cheaper than Silero. For many sessions on few cores, and where no
//! model file is to be had. It takes music and some loud noise for speech, which
//! Silero does not; [`Aggressiveness::Strict`] copes with noise, nothing with music.

use duologue_audio::pcm;

use crate::detector::Windower;
use crate::{VadError, VoiceDetector, Window};

/// Samples a window: 16 ms.
const WINDOW: usize = 256;

/// How sure the light detector must be before it speaks of speech.
///
/// The customary scale of 0 (lets much through) to 3 (lets only clear speech
/// through).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aggressiveness {
    /// 0: hears quiet speech, and some noise.
    Lenient,
    /// 1: the network's own balance.
    #[default]
    Balanced,
    /// 2: for noisy places.
    Strict,
    /// 3: only speech that stands out.
    VeryStrict,
}

impl Aggressiveness {
    /// From the customary number; `None` above 3.
    pub fn from_level(level: u8) -> Option<Aggressiveness> {
        use Aggressiveness::*;
        [Lenient, Balanced, Strict, VeryStrict]
            .get(usize::from(level))
            .copied()
    }

    /// The network's score that counts as even odds.
    fn pivot(self) -> f32 {
        match self {
            Aggressiveness::Lenient => 0.3,
            Aggressiveness::Balanced => 0.5,
            Aggressiveness::Strict => 0.7,
            Aggressiveness::VeryStrict => 0.85,
        }
    }

    /// Bends a score so that the pivot becomes 0.5 and the ends stay.
    fn bend(self, score: f32) -> f32 {
        let pivot = self.pivot();
        if score <= pivot {
            0.5 * score / pivot
        } else {
            0.5 + 0.5 * (score - pivot) / (1.0 - pivot)
        }
    }
}

/// Hears speech with Earshot, 16 ms at a time.
pub struct LightDetector {
    detector: Box<earshot::Detector>,
    aggressiveness: Aggressiveness,
    windower: Windower,
}

impl LightDetector {
    /// A detector at the start of a stream.
    pub fn new(aggressiveness: Aggressiveness) -> LightDetector {
        LightDetector {
            detector: earshot::Detector::default_boxed(),
            aggressiveness,
            windower: Windower::new(WINDOW),
        }
    }
}

impl VoiceDetector for LightDetector {
    fn window(&self) -> usize {
        self.windower.length()
    }

    fn process(&mut self, samples: &[f32], windows: &mut Vec<Window>) -> Result<(), VadError> {
        let LightDetector {
            detector,
            aggressiveness,
            windower,
        } = self;
        let mut block = [0i16; WINDOW];
        windower.process(samples, windows, |window| {
            for (to, &from) in block.iter_mut().zip(window) {
                *to = pcm::to_i16(from);
            }
            Ok(aggressiveness.bend(detector.predict_i16(&block).clamp(0.0, 1.0)))
        })
    }

    fn reset(&mut self) {
        self.detector.reset();
        self.windower.reset();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_stricter_the_lower_every_score() {
        let levels = [0, 1, 2, 3].map(|level| Aggressiveness::from_level(level).unwrap());
        for score in [0.01, 0.2, 0.5, 0.8, 0.99] {
            let bent = levels.map(|level| level.bend(score));
            assert!(bent.is_sorted_by(|a, b| a > b), "{bent:?}");
            assert!(bent.iter().all(|p| (0.0..=1.0).contains(p)));
        }
        assert_eq!(Aggressiveness::Balanced.bend(0.37), 0.37);
        assert_eq!(Aggressiveness::from_level(4), None);
    }
}
