//! Evidence: silence. How much of it a speaker needs to be given, learned from having cut them off.
//!
//! A turn that goes on after it was held for over shows that the wait was too short for this speaker: it grows.
//! Every turn that ended well takes a little back.

use std::time::Duration;

/// What one cut-off adds.
const STEP: Duration = Duration::from_millis(80);

/// No speaker is learned to need more.
const MOST: Duration = Duration::from_millis(1_000);

/// How long this speaker's pauses are waited out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    learned: Duration,
}

impl Patience {
    /// The speaker went on after the turn was held for over.
    pub fn cut_off(&mut self) {
        self.learned = (self.learned + STEP).min(MOST);
    }

    /// A turn was over when it was held for over.
    pub fn ended_well(&mut self) {
        self.learned = self.learned.mul_f32(0.9);
    }

    /// The silence to wait for, between `least` and `most`.
    pub fn silence(&self, least: Duration, most: Duration) -> Duration {
        least + self.learned.min(most.saturating_sub(least))
    }
}
