//! What comes out of the client's loudspeaker, and when: the reference of echo cancellation.
//!
//! A frame is written down for the time at which the mouth means it to be heard. The client plays it later, by the
//! way there and by what it buffers, and its echo comes back later still. The canceller finds that delay by itself,
//! as long as it is less than [`FOUND`]. A client that buffers more is known by its playout reports
//! (`duologue.playout`): then the reference is moved, so that [`AIM`] is left to be found.
//!
//! The session's clock is that of the user's sound, and forgives it being late by a good deal for ever. Here that
//! would turn an echo into one that comes before its reference, so what is asked for is shifted by how late the
//! sound really came.

use std::collections::VecDeque;
use std::time::Duration;

use duologue_audio::{Frame, Resampler, SAMPLE_RATE};

use crate::realtime::HEARING_RATE;

/// Delays that the canceller is trusted to find.
const FOUND: Duration = Duration::from_millis(350);
/// What is left of a longer one: the report says nothing of the loudspeaker's and the microphone's own delays, and
/// comes a little late itself. An echo before its reference would not be found at all.
const AIM: Duration = Duration::from_millis(150);
/// How long arrivals are watched for the least late of them.
const WATCH: Duration = Duration::from_secs(1);
/// Changes of that which are left alone.
const STEADY: Duration = Duration::from_millis(20);
/// Sound kept behind what is to be heard; the ear may be late by that.
const KEPT: usize = 4 * HEARING_RATE as usize;
/// Frames that belong this close to each other follow each other without a seam.
const SEAM: u64 = 30 * HEARING_RATE as u64 / 1_000;
/// Reports from which the delay is taken: the least of them, for the others were held up on their way.
const REPORTS: usize = 8;

/// Played sound at [`HEARING_RATE`], by session time.
pub struct Loudspeaker {
    resampler: Option<Resampler>,
    samples: VecDeque<f32>,
    /// Place of the first of them.
    first: u64,
    reported: VecDeque<Duration>,
    shift: Duration,
    /// How late sound comes, by the session's clock.
    late: Duration,
    /// The least late since a time.
    least: Option<(Duration, Duration)>,
}

impl Loudspeaker {
    /// A silent one.
    pub fn new() -> Self {
        Self {
            resampler: Resampler::new(SAMPLE_RATE, HEARING_RATE).ok(),
            samples: VecDeque::new(),
            first: 0,
            reported: VecDeque::new(),
            shift: Duration::ZERO,
            late: Duration::ZERO,
            least: None,
        }
    }

    /// Sound up to a time of the session has arrived.
    pub fn hear(&mut self, now: Duration, until: Duration) {
        let late = now.saturating_sub(until);
        let (since, least) = self.least.get_or_insert((now, late));
        *least = late.min(*least);
        if now.saturating_sub(*since) >= WATCH {
            if least.abs_diff(self.late) > STEADY {
                self.late = *least;
            }
            self.least = None;
        }
    }

    /// Frames that are meant to be heard from a time on. What was written for later is not going to be heard.
    pub fn write(&mut self, at: Duration, frames: &[Frame]) {
        let Some(resampler) = &mut self.resampler else {
            return;
        };
        let at = place(at);
        let end = self.first + self.samples.len() as u64;
        if at.abs_diff(end) > SEAM {
            resampler.reset();
            if at < self.first || at > end + KEPT as u64 {
                self.samples.clear();
                self.first = at;
            } else {
                self.samples.resize((at - self.first) as usize, 0.0);
            }
        }
        for frame in frames {
            self.samples.extend(resampler.process(&frame.to_f32()));
        }
        // The lead is counted in: a reply may be written a little ahead.
        let surplus = self.samples.len().saturating_sub(KEPT);
        self.samples.drain(..surplus);
        self.first += surplus as u64;
    }

    /// What is playing, by the client's report, `late` after it was meant to.
    pub fn report(&mut self, late: Duration) {
        self.reported.push_back(late);
        if self.reported.len() > REPORTS {
            self.reported.pop_front();
        }
        let Some(least) = self.reported.iter().min() else {
            return;
        };
        let left = least.saturating_sub(self.shift);
        if left > FOUND || *least < self.shift {
            self.shift = least.saturating_sub(AIM);
            tracing::debug!(late = ?least, shift = ?self.shift, "the client plays late: the echo reference is moved");
        }
    }

    /// What was played while the sound from a time on was heard.
    pub fn read(&self, from: Duration, samples: usize) -> Vec<f32> {
        let from =
            (place(from + self.late) as i64) - (place(self.shift) as i64) - self.first as i64;
        (from..from + samples as i64)
            .map(|at| {
                let at = usize::try_from(at).ok();
                at.and_then(|at| self.samples.get(at))
                    .copied()
                    .unwrap_or(0.0)
            })
            .collect()
    }
}

/// The number of the sample at a time.
fn place(time: Duration) -> u64 {
    time.as_micros() as u64 * u64::from(HEARING_RATE) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use duologue_audio::FRAME_SAMPLES;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A frame of one value.
    fn frame(value: i16) -> Frame {
        Frame([value; FRAME_SAMPLES])
    }

    fn level(speaker: &Loudspeaker, at: u64) -> f32 {
        let samples = speaker.read(ms(at), 16);
        samples.iter().sum::<f32>() / 16.0
    }

    #[test]
    fn frames_are_found_where_they_are_meant_to_be_heard() {
        let mut speaker = Loudspeaker::new();
        speaker.write(ms(1_000), &[frame(8_192), frame(8_192)]);
        // Off by a few milliseconds, they follow each other all the same.
        speaker.write(ms(1_043), &[frame(16_384), frame(16_384)]);
        assert_eq!(level(&speaker, 990), 0.0);
        assert!((level(&speaker, 1_020) - 0.25).abs() < 0.01);
        assert!((level(&speaker, 1_060) - 0.5).abs() < 0.01);
        assert_eq!(level(&speaker, 1_100), 0.0);
    }

    #[test]
    fn a_reply_that_goes_on_elsewhere_replaces_what_was_not_heard() {
        let mut speaker = Loudspeaker::new();
        speaker.write(ms(0), &[frame(8_192); 10]);
        // Held at 100 ms, and begun again at 150.
        speaker.write(ms(150), &[frame(16_384); 2]);
        assert!((level(&speaker, 140) - 0.25).abs() < 0.01);
        assert!((level(&speaker, 165) - 0.5).abs() < 0.01);
        assert_eq!(level(&speaker, 195), 0.0);
    }

    #[test]
    fn old_sound_is_forgotten_and_a_long_pause_costs_no_memory() {
        let mut speaker = Loudspeaker::new();
        for i in 0..500 {
            speaker.write(ms(20 * i), &[frame(8_192)]);
        }
        assert!(speaker.samples.len() <= KEPT);
        assert!((level(&speaker, 9_900) - 0.25).abs() < 0.01);
        speaker.write(ms(3_600_000), &[frame(8_192)]);
        assert!(speaker.samples.len() <= KEPT);
        assert!((level(&speaker, 3_600_005) - 0.25).abs() < 0.01);
        assert_eq!(level(&speaker, 9_900), 0.0);
    }

    #[test]
    fn sound_that_the_clock_takes_for_earlier_than_it_came_is_given_what_played_when_it_came() {
        let mut speaker = Loudspeaker::new();
        speaker.write(ms(5_000), &[frame(8_192); 10]);
        // Between 130 and 190 ms late, for a second and more.
        for i in 0..60 {
            let now = 1_000 + 20 * i;
            speaker.hear(ms(now), ms(now - 130 - i % 3 * 30));
        }
        assert_eq!(level(&speaker, 4_860), 0.0);
        assert!((level(&speaker, 4_880) - 0.25).abs() < 0.01);
    }

    #[test]
    fn a_client_that_buffers_much_is_met_half_way_and_one_that_does_not_is_left_alone() {
        let mut speaker = Loudspeaker::new();
        speaker.write(ms(1_000), &[frame(8_192); 10]);
        for late in [180, 240, 300] {
            speaker.report(ms(late));
        }
        assert!((level(&speaker, 1_010) - 0.25).abs() < 0.01);
        for late in [900, 820, 800, 840, 850, 900, 870, 810] {
            speaker.report(ms(late));
        }
        // The echo of what is meant for 1000 comes at 1800 at the earliest: it is read 150 ms before.
        assert_eq!(level(&speaker, 1_640), 0.0);
        assert!((level(&speaker, 1_660) - 0.25).abs() < 0.01);
        // Back at once: an echo must not come before its reference.
        speaker.report(ms(100));
        assert!((level(&speaker, 1_010) - 0.25).abs() < 0.01);
    }
}
