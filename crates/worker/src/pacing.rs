//! How far frames may run ahead of who listens.
//!
//! The listener is thought of as a player that starts with the first frame, plays 20 ms frames end to end, and
//! waits when it has none. What it has not yet played is the lead, and a frame may be sent while the lead with
//! it stays within the bound. A player that had to wait is behind the wall clock for good, so time lost to a
//! slow engine or to text that was late is never made up for by a burst. A pause stops the player.
//!
//! Pure: times are durations since the utterance began, given by the caller.

use std::time::Duration;

/// Length of a frame.
pub(crate) const FRAME: Duration = Duration::from_millis(20);

/// When the next frame may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    Now,
    At(Duration),
    /// Not before [`Pacer::resume`].
    Paused,
}

/// The bound on the lead of one utterance.
#[derive(Clone, Debug)]
pub(crate) struct Pacer {
    lead: Duration,
    player: Player,
}

#[derive(Clone, Debug)]
enum Player {
    /// It has played all it was sent at this time.
    Playing { dry_at: Duration },
    /// It stands still with this much left to play.
    Paused { left: Duration },
}

impl Pacer {
    /// A player that was sent nothing yet. A lead under one frame counts as one frame.
    pub(crate) fn new(lead: Duration) -> Self {
        Pacer {
            lead: lead.max(FRAME),
            player: Player::Playing {
                dry_at: Duration::ZERO,
            },
        }
    }

    pub(crate) fn permit(&self, now: Duration) -> Permit {
        match self.player {
            Player::Paused { .. } => Permit::Paused,
            Player::Playing { dry_at } => {
                let earliest = (dry_at + FRAME).saturating_sub(self.lead);
                if earliest <= now {
                    Permit::Now
                } else {
                    Permit::At(earliest)
                }
            }
        }
    }

    /// A frame was sent. Only after [`Permit::Now`].
    pub(crate) fn sent(&mut self, now: Duration) {
        if let Player::Playing { dry_at } = &mut self.player {
            *dry_at = (*dry_at).max(now) + FRAME;
        }
    }

    /// When the player runs out of what it was sent, if nothing more comes and it does not pause.
    pub(crate) fn dry_at(&self, now: Duration) -> Duration {
        match self.player {
            Player::Playing { dry_at } => dry_at,
            Player::Paused { left } => now + left,
        }
    }

    pub(crate) fn pause(&mut self, now: Duration) {
        if let Player::Playing { dry_at } = self.player {
            self.player = Player::Paused {
                left: dry_at.saturating_sub(now),
            };
        }
    }

    pub(crate) fn resume(&mut self, now: Duration) {
        if let Player::Paused { left } = self.player {
            self.player = Player::Playing { dry_at: now + left };
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        matches!(self.player, Player::Paused { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn send_all_allowed(pacer: &mut Pacer, now: Duration) -> u64 {
        let mut sent = 0;
        while pacer.permit(now) == Permit::Now {
            pacer.sent(now);
            sent += 1;
        }
        sent
    }

    #[test]
    fn the_first_frames_come_at_once_up_to_the_lead_then_one_every_20_ms() {
        let mut pacer = Pacer::new(ms(1_000));
        assert_eq!(send_all_allowed(&mut pacer, ms(0)), 50);
        assert_eq!(pacer.permit(ms(0)), Permit::At(ms(20)));
        assert_eq!(send_all_allowed(&mut pacer, ms(19)), 0);
        assert_eq!(send_all_allowed(&mut pacer, ms(20)), 1);
        assert_eq!(send_all_allowed(&mut pacer, ms(100)), 4);
    }

    #[test]
    fn a_listener_that_ran_dry_is_not_sent_a_burst_for_the_time_it_waited() {
        let mut pacer = Pacer::new(ms(100));
        assert_eq!(send_all_allowed(&mut pacer, ms(0)), 5);
        assert_eq!(send_all_allowed(&mut pacer, ms(10_000)), 5);
        assert_eq!(pacer.permit(ms(10_000)), Permit::At(ms(10_020)));
    }

    #[test]
    fn nothing_is_allowed_while_paused_and_a_pause_does_not_use_up_the_lead() {
        let mut pacer = Pacer::new(ms(100));
        send_all_allowed(&mut pacer, ms(0));
        pacer.pause(ms(40));
        assert_eq!(pacer.permit(ms(5_000)), Permit::Paused);
        assert_eq!(pacer.dry_at(ms(5_000)), ms(5_060));
        pacer.resume(ms(5_000));
        // 40 ms were played before the pause: as much room there is.
        assert_eq!(send_all_allowed(&mut pacer, ms(5_000)), 2);
    }

    #[test]
    fn pausing_or_resuming_twice_is_as_once() {
        let mut pacer = Pacer::new(ms(100));
        send_all_allowed(&mut pacer, ms(0));
        pacer.pause(ms(20));
        pacer.pause(ms(60));
        pacer.resume(ms(80));
        pacer.resume(ms(90));
        assert_eq!(pacer.dry_at(ms(90)), ms(160));
    }

    #[test]
    fn a_lead_under_one_frame_still_lets_frames_through() {
        let mut pacer = Pacer::new(Duration::ZERO);
        assert_eq!(send_all_allowed(&mut pacer, ms(0)), 1);
        assert_eq!(send_all_allowed(&mut pacer, ms(20)), 1);
    }

    proptest! {
        /// At every moment: sent - (elapsed since the first frame - pauses) <= lead, and a permitted time
        /// that is waited for is indeed permitted.
        #[test]
        fn the_lead_is_never_exceeded(
            lead in 20u64..3_000,
            steps in prop::collection::vec((0u64..400, 0u8..8), 1..200),
        ) {
            let mut pacer = Pacer::new(ms(lead));
            let (mut now, mut sent, mut paused) = (0u64, 0u64, 0u64);
            let mut first = None;
            for (wait, what) in steps {
                now += wait;
                if pacer.is_paused() && first.is_some() {
                    paused += wait;
                }
                match what {
                    0 => pacer.pause(ms(now)),
                    1 => pacer.resume(ms(now)),
                    _ => match pacer.permit(ms(now)) {
                        Permit::Now => {
                            pacer.sent(ms(now));
                            first.get_or_insert(now);
                            sent += 20;
                        }
                        Permit::At(at) => prop_assert_eq!(pacer.permit(at), Permit::Now),
                        Permit::Paused => {}
                    },
                }
                let elapsed = first.map_or(0, |first| now - first - paused);
                prop_assert!(sent <= lead.max(20) + elapsed, "{} sent after {}", sent, elapsed);
            }
        }
    }
}
