//! The time from mouth to ear, found by laying the loudness of what was heard over that of what was said.

use duologue_audio::SAMPLE_RATE;

/// Loudness every 5 ms, dB above -60 dBFS.
pub(super) struct Loudness(Vec<f32>);

impl Loudness {
    /// Samples a step.
    pub const STEP: usize = 240;
    /// Steps a second.
    pub const STEPS_A_SECOND: usize = SAMPLE_RATE as usize / Self::STEP;
    /// So much of what was heard is laid over what was said.
    const WINDOW: usize = Self::STEPS_A_SECOND;
    /// Longest time from mouth to ear that is looked for: 1.5 s.
    const LONGEST: usize = Self::STEPS_A_SECOND * 3 / 2;
    /// How alike they must be.
    const ALIKE: f32 = 0.85;
    /// A window with less variation says nothing.
    const LIVELY: f32 = 6.0;

    /// That of sound at [`SAMPLE_RATE`].
    pub fn of(samples: &[i16]) -> Self {
        let sound = duologue_audio::pcm::i16_to_f32(samples);
        let loudness = sound.chunks_exact(Self::STEP).map(|step| {
            (duologue_audio::pcm::dbfs(duologue_audio::pcm::rms(step)) + 60.0).max(0.0)
        });
        Self(loudness.collect())
    }

    /// Steps of it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many steps before, what was heard from `at` on was said.
    pub fn lag(&self, heard: &Self, at: usize) -> Option<usize> {
        let window = heard.0.get(at..at + Self::WINDOW)?;
        let (mean, deviation) = spread(window);
        if deviation < Self::LIVELY {
            return None;
        }
        let (likeness, lag) = (0..=Self::LONGEST.min(at))
            .filter_map(|lag| {
                let said = self.0.get(at - lag..at - lag + Self::WINDOW)?;
                let (said_mean, said_deviation) = spread(said);
                let cross: f32 = window
                    .iter()
                    .zip(said)
                    .map(|(a, b)| (a - mean) * (b - said_mean))
                    .sum();
                let scale = deviation * said_deviation * Self::WINDOW as f32;
                (scale > 0.0).then(|| (cross / scale, lag))
            })
            .max_by(|one, other| one.0.total_cmp(&other.0))?;
        (likeness >= Self::ALIKE).then_some(lag)
    }
}

/// Mean and standard deviation.
fn spread(values: &[f32]) -> (f32, f32) {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32;
    (mean, square.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_from_mouth_to_ear_is_found_in_the_loudness() {
        let mut dice = duologue_netem::Dice::new(3);
        let said: Vec<i16> = (0..200)
            .flat_map(|_| {
                let peak = (dice.share() * 20_000.0) as i16;
                (0..4_800usize).map(move |n| if n % 97 < 48 { peak } else { -peak })
            })
            .collect();
        let late = SAMPLE_RATE as usize * 185 / 1_000;
        let heard: Vec<i16> = std::iter::repeat_n(0, late)
            .chain(said.iter().copied())
            .collect();
        let (said, heard) = (Loudness::of(&said), Loudness::of(&heard));
        assert_eq!(said.lag(&heard, 800), Some(37));
        let silence = Loudness::of(&vec![0; 480_000]);
        assert_eq!(said.lag(&silence, 800), None);
    }
}
