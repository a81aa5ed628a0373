//! Evidence: silence. How much of it a speaker needs to be given, learned from this speaker's pauses.
//!
//! A turn that goes on after it was held for over shows a pause that was not waited out. One can be chance, so the
//! first moves half of the way to what would have been enough; another soon after moves all of it. So within the
//! bounds nobody is cut off a third time. Who does not pause any more is waited for less from turn to turn, and
//! forgotten.

use std::time::Duration;

/// Waited beyond a learned pause, for the next may be longer.
const MARGIN: Duration = Duration::from_millis(100);
/// Turns within which a second cut-off counts as the speaker's way.
const SOON: u32 = 10;
/// Turns without a long pause after which forgetting begins.
const HOLD: u32 = 2;
/// What is left of what was learned after each further turn.
const KEPT: f32 = 0.85;
/// Less than this is not worth waiting for.
const LEAST: Duration = Duration::from_millis(20);

/// How long this speaker's pauses are waited out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// Silence beyond the least.
    learned: Duration,
    /// Turns since the last cut-off, if there was one that counts.
    since_cut_off: Option<u32>,
    /// Turns since the last long pause.
    since_pause: u32,
}

impl Patience {
    /// The speaker went on after a pause at which the turn was held for over. The silence to wait for lies between
    /// `least` and `most`.
    pub fn cut_off(&mut self, pause: Duration, least: Duration, most: Duration) {
        let Some(needed) = needed(pause, least, most) else {
            return;
        };
        let again = self.since_cut_off.is_some_and(|turns| turns <= SOON);
        let share = if again { needed } else { needed / 2 };
        self.learned = self.learned.max(share);
        self.since_cut_off = Some(0);
        self.since_pause = 0;
    }

    /// The speaker went on after a pause that was waited out.
    pub fn paused(&mut self, pause: Duration, least: Duration, most: Duration) {
        // Nothing new, but a reason not to forget.
        if pause > least && needed(pause, least, most).is_some() {
            self.since_pause = 0;
        }
    }

    /// A turn was over when it was held for over.
    pub fn ended_well(&mut self) {
        self.since_cut_off = self.since_cut_off.map(|turns| turns.saturating_add(1));
        self.since_pause = self.since_pause.saturating_add(1);
        if self.since_pause > HOLD {
            self.learned = self.learned.mul_f32(KEPT);
            if self.learned < LEAST {
                *self = Self::default();
            }
        }
    }

    /// The silence to wait for, between `least` and `most`.
    pub fn silence(&self, least: Duration, most: Duration) -> Duration {
        least + self.learned.min(most.saturating_sub(least))
    }
}

/// What would have been enough beyond the least. `None`: so long a silence is no pause between words but an
/// afterthought, and waiting for the next would only make all answers late.
fn needed(pause: Duration, least: Duration, most: Duration) -> Option<Duration> {
    (pause <= most * 2).then(|| (pause + MARGIN).min(most).saturating_sub(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(700));

    /// Talks for so many turns with one such pause in each; how often the speaker is cut off.
    fn talk(patience: &mut Patience, turns: u32, pause: Duration) -> u32 {
        let (least, most) = BOUNDS;
        let mut cut_offs = 0;
        for _ in 0..turns {
            if patience.silence(least, most) < pause {
                patience.cut_off(pause, least, most);
                cut_offs += 1;
            } else {
                patience.paused(pause, least, most);
            }
            patience.ended_well();
        }
        cut_offs
    }

    #[test]
    fn nobody_who_pauses_within_the_bounds_is_cut_off_a_third_time() {
        for pause in (0..=700).step_by(10).map(Duration::from_millis) {
            let mut patience = Patience::default();
            let cut_offs = talk(&mut patience, 100, pause);
            assert!(cut_offs <= 2, "{pause:?}: {cut_offs}");
        }
    }

    #[test]
    fn who_does_not_pause_is_never_made_to_wait() {
        let mut patience = Patience::default();
        assert_eq!(talk(&mut patience, 100, Duration::from_millis(200)), 0);
        assert_eq!(patience.silence(BOUNDS.0, BOUNDS.1), BOUNDS.0);
    }

    #[test]
    fn one_long_pause_of_a_quick_speaker_costs_little_and_is_forgotten() {
        let (least, most) = BOUNDS;
        let mut patience = Patience::default();
        patience.cut_off(Duration::from_millis(600), least, most);
        let waits = std::iter::from_fn(|| {
            patience.ended_well();
            Some(patience.silence(least, most))
        });
        let waits: Vec<Duration> = waits.take(20).collect();
        assert!(waits[0] <= Duration::from_millis(480), "{waits:?}");
        assert!(waits.is_sorted_by(|a, b| a >= b), "{waits:?}");
        assert!(waits[10] < Duration::from_millis(320), "{waits:?}");
        assert_eq!(waits[19], least);
    }

    #[test]
    fn the_wait_stays_within_its_bounds_whatever_happens() {
        let (least, most) = BOUNDS;
        let mut patience = Patience::default();
        for n in 0..10_000_u64 {
            let pause = Duration::from_millis(n * 7_919 % 5_000);
            match n % 3 {
                0 => patience.cut_off(pause, least, most),
                1 => patience.paused(pause, least, most),
                _ => patience.ended_well(),
            }
            let wait = patience.silence(least, most);
            assert!((least..=most).contains(&wait), "{wait:?}");
            // Settings may change in between, even to nonsense.
            assert_eq!(patience.silence(most, least), most);
        }
    }

    #[test]
    fn an_afterthought_is_not_learned() {
        let (least, most) = BOUNDS;
        let mut patience = Patience::default();
        for _ in 0..5 {
            patience.cut_off(Duration::from_secs(3), least, most);
        }
        assert_eq!(patience.silence(least, most), least);
    }
}
