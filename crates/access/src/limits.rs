//! How much one key, or one address without a key, may take: sessions at once, and requests and bytes a minute.
//!
//! Requests and bytes are buckets that hold a minute's worth and are filled evenly, so that a pause is made up for and
//! a flood is not. How large a request is, is known only when it is over: the bucket of bytes may be overdrawn by the
//! last one, and what is overdrawn is waited for.

use std::time::Duration;

/// What one may take; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at once.
    pub sessions: Option<u32>,
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Bytes a minute that the client sends: bodies of requests, and messages of WebSockets.
    pub bytes_per_minute: Option<u64>,
}

/// One has taken what it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limited {
    /// Sessions at once.
    #[error(
        "you may have {most} sessions at once, and have them; end one, or try again in a moment"
    )]
    Sessions {
        /// So many it may have.
        most: u32,
    },
    /// Requests a minute.
    #[error("you may send {most} requests a minute, and have; try again in {} s", seconds(*.after))]
    Requests {
        /// So many it may send.
        most: u64,
        /// When there is room.
        after: Duration,
    },
    /// Bytes a minute.
    #[error("you may send {most} bytes a minute, and have; try again in {} s", seconds(*.after))]
    Bytes {
        /// So many it may send.
        most: u64,
        /// When there is room.
        after: Duration,
    },
}

/// Whole seconds, at least one.
fn seconds(after: Duration) -> u64 {
    after.as_secs() + u64::from(after.subsec_nanos() > 0 || after.is_zero())
}

impl Limited {
    /// Seconds after which trying again makes sense.
    #[must_use]
    pub fn retry_after(&self) -> u32 {
        match self {
            Self::Sessions { .. } => 5,
            Self::Requests { after, .. } | Self::Bytes { after, .. } => {
                u32::try_from(seconds(*after)).unwrap_or(u32::MAX)
            }
        }
    }

    /// What is limited: `sessions`, `requests` or `bytes`.
    #[must_use]
    pub fn of(&self) -> &'static str {
        match self {
            Self::Sessions { .. } => "sessions",
            Self::Requests { .. } => "requests",
            Self::Bytes { .. } => "bytes",
        }
    }
}

/// What one has taken. Times are counted from any moment, always the same, and do not fall.
#[derive(Clone, Debug)]
pub struct Usage {
    limits: Limits,
    sessions: u32,
    requests: Bucket,
    bytes: Bucket,
}

impl Usage {
    /// Nothing yet.
    #[must_use]
    pub fn new(limits: Limits, now: Duration) -> Self {
        Self {
            limits,
            sessions: 0,
            requests: Bucket::full(limits.requests_per_minute, now),
            bytes: Bucket::full(limits.bytes_per_minute, now),
        }
    }

    /// The limits are others from now on. What was taken stays taken.
    pub fn limit(&mut self, limits: Limits, now: Duration) {
        if self.limits.requests_per_minute != limits.requests_per_minute {
            self.requests = Bucket::full(limits.requests_per_minute, now);
        }
        if self.limits.bytes_per_minute != limits.bytes_per_minute {
            self.bytes = Bucket::full(limits.bytes_per_minute, now);
        }
        self.limits = limits;
    }

    /// A request begins.
    ///
    /// # Errors
    /// [`Limited::Requests`], or [`Limited::Bytes`] where bytes are overdrawn; then it does not count.
    pub fn request(&mut self, now: Duration) -> Result<(), Limited> {
        self.may_send(now)?;
        let Some(most) = self.limits.requests_per_minute else {
            return Ok(());
        };
        match self.requests.wait_for(1.0, most, now) {
            Some(after) => Err(Limited::Requests { most, after }),
            None => {
                self.requests.level -= 1.0;
                Ok(())
            }
        }
    }

    /// Bytes have come. They count in any case.
    ///
    /// # Errors
    /// [`Limited::Bytes`] where more have come than may: these are not to be used.
    pub fn received(&mut self, bytes: u64, now: Duration) -> Result<(), Limited> {
        let allowed = self.may_send(now);
        if self.limits.bytes_per_minute.is_some() {
            self.bytes.level -= bytes as f64;
        }
        allowed
    }

    fn may_send(&mut self, now: Duration) -> Result<(), Limited> {
        let Some(most) = self.limits.bytes_per_minute else {
            return Ok(());
        };
        match self.bytes.wait_for(1.0, most, now) {
            Some(after) => Err(Limited::Bytes { most, after }),
            None => Ok(()),
        }
    }

    /// A session begins.
    ///
    /// # Errors
    /// [`Limited::Sessions`].
    pub fn begin_session(&mut self) -> Result<(), Limited> {
        match self.limits.sessions {
            Some(most) if self.sessions >= most => Err(Limited::Sessions { most }),
            _ => {
                self.sessions += 1;
                Ok(())
            }
        }
    }

    /// A session has ended.
    pub fn end_session(&mut self) {
        self.sessions = self.sessions.saturating_sub(1);
    }

    /// Whether nothing of it needs to be remembered: it is as one that has taken nothing.
    pub fn is_idle(&mut self, now: Duration) -> bool {
        let Limits {
            requests_per_minute,
            bytes_per_minute,
            ..
        } = self.limits;
        let full = |bucket: &mut Bucket, most: Option<u64>| {
            most.is_none_or(|most| bucket.wait_for(most as f64, most, now).is_none())
        };
        self.sessions == 0
            && full(&mut self.requests, requests_per_minute)
            && full(&mut self.bytes, bytes_per_minute)
    }
}

/// What is left of a minute's worth.
#[derive(Clone, Debug)]
struct Bucket {
    /// Below zero: overdrawn.
    level: f64,
    /// When it was so.
    at: Duration,
}

impl Bucket {
    fn full(per_minute: Option<u64>, now: Duration) -> Self {
        Self {
            level: per_minute.unwrap_or(0) as f64,
            at: now,
        }
    }

    /// How long until `amount` is in it; `None`: it is.
    fn wait_for(&mut self, amount: f64, per_minute: u64, now: Duration) -> Option<Duration> {
        let rate = per_minute as f64 / 60.0;
        let since = now.saturating_sub(self.at).as_secs_f64();
        self.level = (self.level + since * rate).min(per_minute as f64);
        self.at = self.at.max(now);
        let missing = amount - self.level;
        // Filling it in many steps must come to the same as in one.
        (missing > 1e-6).then(|| Duration::from_secs_f64(missing / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn limits(sessions: u32, requests: u64, bytes: u64) -> Limits {
        Limits {
            sessions: Some(sessions),
            requests_per_minute: Some(requests),
            bytes_per_minute: Some(bytes),
        }
    }

    #[test]
    fn a_minutes_requests_may_come_at_once_and_then_evenly() {
        let mut usage = Usage::new(limits(1, 6, 1_000), at(0.0));
        for _ in 0..6 {
            assert_eq!(usage.request(at(0.0)), Ok(()));
        }
        let refused = usage.request(at(4.0)).expect_err("six are used up");
        assert_eq!(
            refused,
            Limited::Requests {
                most: 6,
                after: at(6.0)
            }
        );
        assert_eq!(refused.retry_after(), 6);
        assert_eq!(usage.request(at(10.0)), Ok(()));
        assert!(usage.request(at(10.0)).is_err());
        // A pause of an hour makes up for a minute, not for an hour.
        let later = at(3_610.0);
        assert_eq!((0..10).filter(|_| usage.request(later).is_ok()).count(), 6);
    }

    #[test]
    fn one_that_is_too_large_is_taken_and_then_waited_for() {
        let mut usage = Usage::new(limits(1, 1_000, 600), at(0.0));
        assert_eq!(usage.received(1_200, at(0.0)), Ok(()));
        let refused = usage.request(at(0.0)).expect_err("600 bytes are overdrawn");
        assert_eq!(refused.of(), "bytes");
        assert_eq!(refused.retry_after(), 61);
        assert!(usage.request(at(59.0)).is_err());
        assert_eq!(usage.request(at(60.2)), Ok(()));
        // What comes in spite of it counts too.
        assert!(usage.received(10, at(60.2)).is_ok());
        assert!(usage.received(10, at(60.2)).is_err());
        assert!(usage.received(10, at(60.2)).is_err());
        assert_eq!(usage.request(at(60.2)).map_err(|l| l.retry_after()), Err(3));
    }

    #[test]
    fn sessions_count_until_they_end() {
        let mut usage = Usage::new(limits(2, 10, 10), at(0.0));
        assert_eq!(usage.begin_session(), Ok(()));
        assert_eq!(usage.begin_session(), Ok(()));
        assert_eq!(usage.begin_session(), Err(Limited::Sessions { most: 2 }));
        usage.end_session();
        assert_eq!(usage.begin_session(), Ok(()));
    }

    #[test]
    fn other_limits_hold_at_once_and_sessions_that_run_still_count() {
        let mut usage = Usage::new(limits(5, 1, 10), at(0.0));
        for _ in 0..4 {
            assert!(usage.begin_session().is_ok());
        }
        assert!(usage.request(at(0.0)).is_ok() && usage.request(at(0.0)).is_err());
        usage.limit(limits(2, 100, 10), at(0.0));
        assert!(usage.begin_session().is_err());
        usage.end_session();
        usage.end_session();
        assert!(usage.begin_session().is_err());
        usage.end_session();
        assert!(usage.begin_session().is_ok());
        assert!(usage.request(at(0.0)).is_ok());
        // The same limits once more give nothing back.
        let mut used_up = Usage::new(limits(1, 1, 10), at(0.0));
        assert!(used_up.request(at(0.0)).is_ok());
        used_up.limit(limits(1, 1, 10), at(0.0));
        assert!(used_up.request(at(0.0)).is_err());
    }

    #[test]
    fn without_limits_nothing_is_refused() {
        let mut usage = Usage::new(Limits::default(), at(0.0));
        for _ in 0..10_000 {
            assert_eq!(usage.request(at(0.0)), Ok(()));
            assert_eq!(usage.received(u64::MAX, at(0.0)), Ok(()));
            assert_eq!(usage.begin_session(), Ok(()));
        }
    }

    proptest! {
        /// However requests are spread, no minute has more than twice what it may (a full bucket, and what flows in
        /// while it is emptied), and who waits as long as told is let in.
        #[test]
        fn a_limit_holds_and_waiting_helps(most in 1_u64..50, gaps in prop::collection::vec(0.0_f64..5.0, 1..300)) {
            let mut usage = Usage::new(Limits { requests_per_minute: Some(most), ..Limits::default() }, at(0.0));
            let mut now = 0.0;
            let mut taken: Vec<f64> = Vec::new();
            for gap in gaps {
                now += gap;
                match usage.request(at(now)) {
                    Ok(()) => taken.push(now),
                    Err(Limited::Requests { after, .. }) => {
                        let mut later = usage.clone();
                        prop_assert!(later.request(at(now) + after + at(0.001)).is_ok());
                    }
                    Err(other) => prop_assert!(false, "{other}"),
                }
                let minute = taken.iter().filter(|t| **t > now - 60.0).count() as u64;
                prop_assert!(minute <= 2 * most + 1, "{minute} in a minute");
            }
        }
    }
}
