//! How far a reply's sound got: made, sent, heard.
//!
//! A client that reports its playout is believed, as far as sound was sent to it. For one that does not, its
//! player is imagined: sound arrives [`crate::Timing::output_delay`] after it was sent and is played without
//! pause, never faster than it lasts. Where the player is known to stand still when it is told to hold, so does the
//! imagined one.

use crate::{HeardBy, SAMPLE_RATE};
use std::collections::VecDeque;
use std::time::Duration;

/// Arrivals kept apart; beyond, the newest are taken as one.
const MAX_ARRIVALS: usize = 256;

/// How long a client that reports may take to report the end.
const REPORT_GRACE: Duration = Duration::from_secs(1);

/// Position of a time in samples.
pub(crate) fn samples(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() * u128::from(SAMPLE_RATE) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// How long samples last.
pub(crate) fn duration(samples: u64) -> Duration {
    Duration::from_nanos(
        u64::try_from(u128::from(samples) * 1_000_000_000 / u128::from(SAMPLE_RATE))
            .unwrap_or(u64::MAX),
    )
}

#[derive(Clone, Debug)]
pub(crate) struct Playout {
    delay: Duration,
    sent: u64,
    sent_most: u64,
    confirmed: Option<u64>,
    confirmed_at: Duration,
    imagined: Imagined,
    /// The furthest that was imagined before a rewind.
    most: u64,
}

/// A client's player.
#[derive(Clone, Debug, Default)]
struct Imagined {
    /// When it will have which position.
    arrivals: VecDeque<(Duration, u64)>,
    arrived: u64,
    played: u64,
    clock: Duration,
    holds: bool,
}

impl Imagined {
    fn advance(&mut self, to: Duration) {
        while let Some(&(at, position)) = self.arrivals.front() {
            if at > to {
                break;
            }
            self.play_until(at);
            self.arrived = self.arrived.max(position);
            self.arrivals.pop_front();
        }
        self.play_until(to);
    }

    fn play_until(&mut self, to: Duration) {
        if to > self.clock && self.holds {
            self.clock = to;
        } else if to > self.clock {
            let room = self.arrived - self.played;
            // Time is taken only for what is played, so that rounding does not add up.
            let could = samples(to) - samples(self.clock);
            self.played += room.min(could);
            self.clock = to;
        }
    }
}

impl Playout {
    pub fn new(delay: Duration) -> Self {
        Self {
            delay,
            sent: 0,
            sent_most: 0,
            confirmed: None,
            confirmed_at: Duration::ZERO,
            imagined: Imagined::default(),
            most: 0,
        }
    }

    /// What is sent from now on arrives so much later.
    pub fn set_delay(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// The writer handed over everything before `position`. Whether that is news.
    pub fn sent(&mut self, at: Duration, position: u64) -> bool {
        let news = position > self.sent;
        self.sent = position;
        self.sent_most = self.sent_most.max(position);
        if news {
            if self.imagined.arrivals.len() >= MAX_ARRIVALS {
                self.imagined.arrivals.pop_back();
            }
            self.imagined
                .arrivals
                .push_back((at + self.delay, position));
        }
        self.imagined.advance(at);
        news
    }

    /// The client says that it played everything before `position`.
    pub fn played(&mut self, at: Duration, position: u64) {
        let position = position.min(self.sent_most);
        if self.confirmed.is_none_or(|before| position > before) {
            self.confirmed = Some(position);
            self.confirmed_at = at;
        }
    }

    /// When all that was sent will have been heard, if nothing stops it. A client that reports is given
    /// [`REPORT_GRACE`] for its last report.
    pub fn all_heard_at(&self) -> Duration {
        if let Some(position) = self.confirmed {
            let left = duration(self.sent_most.saturating_sub(position));
            return self.confirmed_at + left + self.delay + REPORT_GRACE;
        }
        let mut imagined = self.imagined.clone();
        if let Some(&(last, _)) = imagined.arrivals.back() {
            imagined.advance(last);
        }
        // One sample more, for the rounding.
        imagined.clock + duration(imagined.arrived - imagined.played + 1)
    }

    /// The client's player stands still, with what it has.
    pub fn hold(&mut self, at: Duration) {
        self.imagined.advance(at);
        self.imagined.holds = true;
    }

    /// The client's player goes on with what it has.
    pub fn go_on(&mut self, at: Duration) {
        self.imagined.advance(at);
        self.imagined.holds = false;
    }

    /// The writer goes on at an earlier position.
    pub fn rewind(&mut self, at: Duration, position: u64) {
        self.most = self.heard(at);
        self.sent = position;
        self.imagined = Imagined {
            arrived: position,
            played: position,
            clock: at,
            ..Imagined::default()
        };
    }

    /// How far it was heard at that time.
    pub fn heard(&self, at: Duration) -> u64 {
        if let Some(position) = self.confirmed {
            return position;
        }
        let mut imagined = self.imagined.clone();
        imagined.advance(at);
        imagined.played.max(self.most)
    }

    pub fn heard_by(&self) -> HeardBy {
        if self.confirmed.is_some() {
            HeardBy::Client
        } else {
            HeardBy::Estimate
        }
    }

    /// Where the writer is.
    pub fn position(&self) -> u64 {
        self.sent
    }

    /// The furthest it ever was.
    pub fn furthest(&self) -> u64 {
        self.sent_most
    }

    /// All that was sent counts as heard.
    pub fn settle(&mut self) {
        match &mut self.confirmed {
            Some(position) => *position = self.sent_most,
            None => self.most = self.sent_most,
        }
    }
}
