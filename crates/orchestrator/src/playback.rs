//! Whether a listener hears a reply without gaps.
//!
//! [`Listener`] imagines one who plays what arrives at once and keeps nothing back, as the sound is handed to the
//! network: it has a gap where the next sound comes after the last has been played. What the network does afterwards is
//! not seen; a client that reports its playout is believed instead, by [`Reports`].

use std::collections::VecDeque;
use std::time::Duration;

use duologue_session::ReplyId;

use crate::mouth::time_of;

/// Silence that is not called a gap: a frame.
const UNHEARD: Duration = Duration::from_millis(20);
/// Reports are compared over so long: one that was held up on its way is no gap.
const WINDOW: Duration = Duration::from_millis(400);
/// From this much of it on.
const SPAN: Duration = Duration::from_millis(250);
/// A gap that reports must show: less is how unevenly they come.
const REPORTED_GAP: Duration = Duration::from_millis(60);

/// Sound of a reply, on its way to the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sound {
    /// How long it lasts.
    pub length: Duration,
    /// Nothing went before it that it should follow without a gap: the reply begins, or goes on after it was held.
    pub begins: bool,
}

/// One who plays what arrives at once.
#[derive(Debug, Default)]
pub struct Listener {
    /// When all that has arrived will have been played.
    until: Duration,
}

impl Listener {
    /// Sound arrives. Gives the gap that was heard before it.
    pub fn hears(&mut self, at: Duration, sound: Sound) -> Option<Duration> {
        let dry = at.saturating_sub(self.until);
        let gap = (!sound.begins && dry >= UNHEARD).then_some(dry);
        // Short lateness moves nothing: it adds up until it is a gap.
        if sound.begins || gap.is_some() {
            self.until = at;
        }
        self.until += sound.length;
        gap
    }
}

/// What a client reports of its playout.
#[derive(Debug, Default)]
pub struct Reports {
    reply: Option<ReplyId>,
    /// The last position that was reported.
    position: u64,
    /// The least of (time of a report - position), microseconds: how the reply is played without gaps since then.
    floor: Option<i64>,
    /// The same of the latest reports, and when they came.
    latest: VecDeque<(Duration, i64)>,
}

impl Reports {
    /// The reply is held or goes on elsewhere: what comes before and after is not compared.
    pub fn interrupted(&mut self) {
        *self = Self::default();
    }

    /// The client has played a reply's samples before `position`. Gives the gap that it must have had since before.
    pub fn played(&mut self, at: Duration, reply: ReplyId, position: u64) -> Option<Duration> {
        if self.reply != Some(reply) || position < self.position {
            self.interrupted();
            self.reply = Some(reply);
        }
        // Nothing was played since: a gap, or the end. If it goes on, it was a gap.
        if position == self.position {
            return None;
        }
        self.position = position;
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let behind = micros(at) - micros(time_of(position));
        let floor = self.floor.map_or(behind, |floor| floor.min(behind));
        self.floor = Some(floor);
        self.latest.push_back((at, behind));
        while self
            .latest
            .front()
            .is_some_and(|(then, _)| at.saturating_sub(*then) > WINDOW)
        {
            self.latest.pop_front();
        }
        let (first, _) = self.latest.front()?;
        if at.saturating_sub(*first) < SPAN {
            return None;
        }
        let least = self.latest.iter().map(|(_, behind)| *behind).min()?;
        let gap = Duration::from_micros(u64::try_from(least - floor).unwrap_or(0));
        if gap < REPORTED_GAP {
            return None;
        }
        self.floor = Some(least);
        Some(gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: ReplyId = ReplyId(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn frame(begins: bool) -> Sound {
        Sound {
            length: ms(20),
            begins,
        }
    }

    /// Frames at these times, the first of a reply; the gaps.
    fn gaps(times: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        let mut listener = Listener::default();
        let times = times.into_iter().enumerate();
        times
            .filter_map(|(n, at)| listener.hears(ms(at), frame(n == 0)))
            .collect()
    }

    #[test]
    fn sound_that_comes_ahead_or_evenly_has_no_gap() {
        assert!(gaps([1_000; 50]).is_empty());
        assert!(gaps((0..50).map(|n| 1_000 + 20 * n)).is_empty());
        // Late by up to 15 ms, and back.
        assert!(gaps((0..50).map(|n| 1_000 + 20 * n + n % 4 * 5)).is_empty());
    }

    #[test]
    fn sound_after_the_last_was_played_leaves_one_gap() {
        let times = (0..10).map(|n| 1_000 + 20 * n);
        let late = (10..50).map(|n| 1_300 + 20 * n);
        assert_eq!(gaps(times.chain(late)), [ms(300)]);
    }

    #[test]
    fn a_voice_slower_than_its_listener_leaves_gap_after_gap() {
        let found = gaps((0..100).map(|n| 1_000 + 24 * n));
        assert_eq!(found.len(), 19, "{found:?}");
        assert!(found.iter().sum::<Duration>() >= ms(380));
    }

    #[test]
    fn a_pause_between_replies_and_one_that_was_wanted_are_no_gaps() {
        let mut listener = Listener::default();
        for at in [1_000, 5_000, 9_000] {
            assert_eq!(listener.hears(ms(at), frame(true)), None);
            assert_eq!(listener.hears(ms(at + 20), frame(false)), None);
        }
        assert!(listener.hears(ms(9_200), frame(false)).is_some());
    }

    /// Reports every 100 ms of a reply that is heard from 1,000 ms on; `stops` has when it stands still, and for how
    /// long; `held_up` the reports that come later, all at once.
    fn reported(stops: &[(u64, u64)], held_up: std::ops::Range<u64>) -> Vec<Duration> {
        let mut reports = Reports::default();
        let mut found = Vec::new();
        for at in (1_100..6_000_u64).step_by(100) {
            let stood: u64 = stops
                .iter()
                .map(|(from, length)| at.saturating_sub(*from).min(*length))
                .sum();
            let played = (at - 1_000 - stood) * 48;
            let arrives = match held_up.contains(&at) {
                true => held_up.end,
                false => at,
            };
            // Reports do not come to the millisecond.
            let arrives = arrives + 40 + at / 100 % 3 * 15;
            found.extend(reports.played(ms(arrives), REPLY, played));
        }
        found
    }

    #[test]
    fn a_client_that_runs_dry_is_found_by_its_reports() {
        assert!(reported(&[], 0..0).is_empty());
        let found = reported(&[(2_000, 200), (4_000, 700)], 0..0);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].abs_diff(ms(200)) <= ms(45), "{found:?}");
        assert!(found[1].abs_diff(ms(700)) <= ms(45), "{found:?}");
    }

    #[test]
    fn reports_that_were_held_up_on_their_way_are_no_gap() {
        assert!(reported(&[], 2_000..2_800).is_empty());
    }

    #[test]
    fn the_end_of_a_reply_and_a_hold_are_no_gaps() {
        let mut reports = Reports::default();
        for at in 1..20_u64 {
            assert_eq!(reports.played(ms(at * 100), REPLY, at * 4_800), None);
        }
        // The end: the same position again and again, then another reply.
        for at in 20..60 {
            assert_eq!(reports.played(ms(at * 100), REPLY, 19 * 4_800), None);
        }
        for at in 60..80_u64 {
            let position = (at - 59) * 4_800;
            assert_eq!(reports.played(ms(at * 100), ReplyId(2), position), None);
        }
        // Held for two seconds.
        reports.interrupted();
        for at in 100..120_u64 {
            let position = (at - 79) * 4_800;
            assert_eq!(reports.played(ms(at * 100), ReplyId(2), position), None);
        }
    }
}
