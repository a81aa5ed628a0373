//! Waits between attempts: longer each time, and never the same for two that failed together.

use std::time::Duration;

/// The waits between attempts. Exponential with full jitter, as in "Exponential Backoff And Jitter" (M. Brooker, AWS
/// Architecture Blog, 2015): a wait is drawn from zero to a ceiling that doubles, so that those who lost something at
/// the same moment do not come back at the same moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    /// Waits that begin below `first` and never exceed `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            attempts: 0,
        }
    }

    /// The next wait. `draw` is random, 0 to 1. At least a quarter of `first`, so that nobody spins.
    pub fn next(&mut self, draw: f64) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1u32.checked_shl(self.attempts).unwrap_or(u32::MAX));
        self.attempts = (self.attempts + 1).min(31);
        let ceiling = doubled.min(self.longest);
        ceiling
            .mul_f64(draw.clamp(0.0, 1.0))
            .max(self.first.min(self.longest) / 4)
    }

    /// It worked: the next wait is short again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_to_the_longest_and_no_further(draws in proptest::collection::vec(0.0f64..=1.0, 1..60)) {
            let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
            let mut backoff = Backoff::new(first, longest);
            let mut ceiling = first;
            for draw in draws {
                let wait = backoff.next(draw);
                prop_assert!(wait <= ceiling.min(longest) && wait >= first / 4);
                ceiling = (ceiling * 2).min(longest);
            }
            backoff.reset();
            prop_assert!(backoff.next(1.0) == first);
        }
    }
}
