//! How to come back into a room: first by resuming, which keeps tracks and media, then by joining anew.

use std::time::Duration;

use livekit_protocol::leave_request::Action;

/// Resumes are tried so often, then the room is joined anew.
const RESUMES: u32 = 3;
/// First pause between two attempts, doubled with each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// What to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// Take the old session up again.
    Resume,
    /// Join as if for the first time.
    Rejoin,
}

/// What was lost and what was tried since.
#[derive(Debug)]
pub(crate) struct Recovery {
    patience: Duration,
    since: Option<Duration>,
    attempts: u32,
    resumable: bool,
}

impl Recovery {
    /// Gives up `patience` after a loss.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            since: None,
            attempts: 0,
            resumable: true,
        }
    }

    /// The connection is lost, or the server sent us away: `None` is a loss it said nothing of. `false`: it meant
    /// it, so there is no coming back.
    pub fn lost(&mut self, at: Duration, told: Option<Action>) -> bool {
        match told {
            Some(Action::Disconnect) => return false,
            Some(Action::Reconnect) => self.resumable = false,
            Some(Action::Resume) | None => {}
        }
        self.since.get_or_insert(at);
        true
    }

    /// What to try next and when; `None`: it has taken too long.
    pub fn next(&self, at: Duration) -> Option<(Attempt, Duration)> {
        let since = self.since?;
        if at.saturating_sub(since) >= self.patience {
            return None;
        }
        let pause = match self.attempts {
            0 => Duration::ZERO,
            tried => (FIRST_PAUSE * 2u32.pow((tried - 1).min(8))).min(LONGEST_PAUSE),
        };
        let attempt = if self.resumable && self.attempts < RESUMES {
            Attempt::Resume
        } else {
            Attempt::Rejoin
        };
        Some((attempt, at + pause))
    }

    /// An attempt failed; `refused`: the server does not know the session any more, so resuming is of no use.
    pub fn failed(&mut self, refused: bool) {
        self.attempts += 1;
        if refused {
            self.resumable = false;
        }
    }

    /// We are back.
    pub fn recovered(&mut self) {
        self.since = None;
        self.attempts = 0;
        self.resumable = true;
    }

    pub fn is_under_way(&self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_loss_is_met_at_once_by_resuming_and_then_by_joining_anew() {
        let mut recovery = Recovery::new(PATIENCE);
        assert_eq!(recovery.next(ms(0)), None, "nothing is lost");
        assert!(recovery.lost(ms(100), None));
        let mut attempts = Vec::new();
        let mut at = ms(100);
        while let Some((attempt, when)) = recovery.next(at) {
            attempts.push((attempt, (when - at).as_millis()));
            recovery.failed(false);
            at = when + ms(100);
        }
        assert_eq!(
            attempts[..6],
            [
                (Attempt::Resume, 0),
                (Attempt::Resume, 250),
                (Attempt::Resume, 500),
                (Attempt::Rejoin, 1_000),
                (Attempt::Rejoin, 2_000),
                (Attempt::Rejoin, 4_000),
            ]
        );
        assert!(attempts.iter().all(|(_, pause)| *pause <= 4_000));
        assert!(at >= ms(60_100) && at < ms(66_000), "{at:?}");
    }

    #[test]
    fn a_server_that_has_forgotten_us_is_not_asked_to_resume_again() {
        let mut recovery = Recovery::new(PATIENCE);
        recovery.lost(ms(0), None);
        recovery.failed(true);
        assert_eq!(recovery.next(ms(0)), Some((Attempt::Rejoin, ms(250))));
        recovery.recovered();
        assert!(!recovery.is_under_way());
        recovery.lost(ms(9_000), Some(Action::Reconnect));
        assert_eq!(recovery.next(ms(9_000)), Some((Attempt::Rejoin, ms(9_000))));
        recovery.recovered();
        recovery.lost(ms(9_500), Some(Action::Resume));
        assert_eq!(recovery.next(ms(9_500)), Some((Attempt::Resume, ms(9_500))));
    }

    #[test]
    fn who_is_sent_away_stays_away() {
        let mut recovery = Recovery::new(PATIENCE);
        assert!(!recovery.lost(ms(0), Some(Action::Disconnect)));
        assert!(!recovery.is_under_way());
    }
}
