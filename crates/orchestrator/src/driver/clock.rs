//! The session's time, which is the time of the user's sound.
//!
//! Sound usually comes in real time, and then its clock and the wall's agree. Where they do not, the sound is
//! right: a client that sends a file at once moves the session's clock forward with it, and one that sends
//! nothing for a while (a muted microphone, a late start) has its next sound placed at now. So a silence in
//! the sound is a silence in the session, however it was delivered.

use std::collections::VecDeque;
use std::time::Duration;

use crate::realtime::HEARING_RATE;

/// Sound may come this much behind the clock for ever.
const JITTER: Duration = Duration::from_millis(250);
/// Sound that stays behind by more for so long was not delayed but never made.
const PATIENCE: Duration = Duration::from_secs(1);
/// So does sound after a pause of this length, at once.
const PAUSE: Duration = Duration::from_secs(2);
/// Beginnings that are remembered; older sound has long been forgotten.
const BEGINNINGS: usize = 32;

/// Places input samples (at [`HEARING_RATE`]) in the session's time.
#[derive(Debug)]
pub struct SessionClock {
    /// How far the session is ahead of the wall.
    ahead: Duration,
    received: u64,
    /// (First sample, its time): from there on samples follow each other.
    beginnings: VecDeque<(u64, Duration)>,
    last_arrival: Option<Duration>,
    late: Option<Late>,
}

/// Sound is behind by more than [`JITTER`].
#[derive(Debug)]
struct Late {
    since: Duration,
    /// The least that it was behind since then.
    least: Duration,
}

impl SessionClock {
    /// A clock at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ahead: Duration::ZERO,
            received: 0,
            beginnings: VecDeque::from([(0, Duration::ZERO)]),
            last_arrival: None,
            late: None,
        }
    }

    /// The session's time, `wall` after its start by the wall's clock.
    #[must_use]
    pub fn now(&self, wall: Duration) -> Duration {
        wall + self.ahead
    }

    /// Sound has arrived.
    pub fn receive(&mut self, samples: usize, wall: Duration) {
        let first = self.received;
        self.received += samples as u64;
        let now = self.now(wall);
        let end = self.time_of(self.received);
        let paused = self
            .last_arrival
            .is_none_or(|last| now.saturating_sub(last) > PAUSE);
        self.last_arrival = Some(now);
        let behind = now.saturating_sub(end);
        if end > now {
            self.ahead += end - now;
            self.last_arrival = Some(end);
        }
        if behind <= JITTER {
            self.late = None;
            return;
        }
        let late = self.late.get_or_insert(Late {
            since: now,
            least: behind,
        });
        late.least = late.least.min(behind);
        let by = if paused { behind } else { late.least };
        if paused || now.saturating_sub(late.since) >= PATIENCE {
            let begins = self.time_of(first) + by;
            self.late = None;
            self.beginnings.push_back((first, begins));
            if self.beginnings.len() > BEGINNINGS {
                self.beginnings.pop_front();
            }
        }
    }

    /// Samples received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// When a sample was heard.
    #[must_use]
    pub fn time_of(&self, sample: u64) -> Duration {
        let (first, begins) = self
            .beginnings
            .iter()
            .rev()
            .find(|(first, _)| *first <= sample)
            .or(self.beginnings.front())
            .copied()
            .unwrap_or_default();
        begins + length(sample.saturating_sub(first))
    }

    /// The first sample heard at or after a time; never more than were received.
    #[must_use]
    pub fn sample_at(&self, time: Duration) -> u64 {
        let mut next = self.received;
        for (first, begins) in self.beginnings.iter().rev() {
            if *begins <= time {
                let into =
                    (time - *begins).as_micros() as u64 * u64::from(HEARING_RATE) / 1_000_000;
                return (first + into).min(next);
            }
            next = *first;
        }
        0
    }
}

/// How many samples at [`HEARING_RATE`] a time is from the start.
#[must_use]
pub fn position(time: Duration) -> u64 {
    // Rounded, so that a sample's own time gives its own number.
    (time.as_micros() as u64 * u64::from(HEARING_RATE) + 500_000) / 1_000_000
}

/// How long samples at [`HEARING_RATE`] last.
#[must_use]
pub fn length(samples: u64) -> Duration {
    Duration::from_micros(samples * 1_000_000 / u64::from(HEARING_RATE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: usize = HEARING_RATE as usize;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn sound_in_real_time_keeps_the_walls_time() {
        let mut clock = SessionClock::new();
        for step in 1..=100 {
            clock.receive(SECOND / 50, ms(20 * step));
        }
        assert_eq!(clock.now(ms(2_000)), ms(2_000));
        assert_eq!(clock.time_of(SECOND as u64), ms(1_000));
        assert_eq!(clock.sample_at(ms(1_000)), SECOND as u64);
    }

    #[test]
    fn jitter_does_not_move_what_was_heard() {
        let mut clock = SessionClock::new();
        clock.receive(SECOND / 10, ms(100));
        clock.receive(SECOND / 10, ms(290));
        clock.receive(SECOND / 10, ms(310));
        assert_eq!(clock.time_of(SECOND as u64 / 4), ms(250));
        assert_eq!(clock.now(ms(310)), ms(310));
    }

    #[test]
    fn a_late_start_and_a_muted_microphone_place_sound_at_now() {
        let mut clock = SessionClock::new();
        clock.receive(SECOND / 50, ms(5_000));
        assert_eq!(clock.time_of(0), ms(4_980));
        clock.receive(SECOND / 50, ms(5_020));
        clock.receive(SECOND / 50, ms(9_000));
        assert_eq!(clock.time_of(2 * SECOND as u64 / 50), ms(8_980));
        // In the silence between them there is no sample; the next one stands for it.
        assert_eq!(clock.sample_at(ms(7_000)), 2 * SECOND as u64 / 50);
        assert_eq!(clock.sample_at(ms(4_990)), SECOND as u64 / 100);
    }

    #[test]
    fn a_stall_that_is_made_up_for_leaves_no_trace() {
        let mut clock = SessionClock::new();
        clock.receive(SECOND, ms(1_000));
        // A second and a half in which nothing came, then all of it at once.
        for _ in 0..75 {
            clock.receive(SECOND / 50, ms(2_500));
        }
        assert_eq!(clock.now(ms(2_500)), ms(2_500));
        assert_eq!(clock.time_of(2 * SECOND as u64), ms(2_000));
    }

    #[test]
    fn sound_that_stays_behind_was_never_made() {
        let mut clock = SessionClock::new();
        clock.receive(SECOND, ms(1_000));
        // The microphone was off for 600 ms.
        for step in 0..100 {
            clock.receive(SECOND / 50, ms(1_620 + 20 * step));
        }
        let last = clock.received();
        assert_eq!(clock.time_of(last), ms(1_620 + 20 * 99));
        assert_eq!(clock.now(ms(3_600)), ms(3_600));
    }

    #[test]
    fn a_file_sent_at_once_moves_the_clock_with_it() {
        let mut clock = SessionClock::new();
        clock.receive(10 * SECOND, ms(100));
        assert_eq!(clock.now(ms(100)), ms(10_000));
        assert_eq!(clock.now(ms(200)), ms(10_100));
        assert_eq!(clock.time_of(9 * SECOND as u64), ms(9_000));
    }
}
