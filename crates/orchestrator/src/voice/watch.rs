//! Notices that a worker makes no progress, long before its listener does.
//!
//! A worker runs ahead of its listener by a known lead, and then sends a frame every 20 ms. So frames have a time
//! by which they should have come, and how soon their lack matters is known too: when what the listener has in
//! hand runs low. A worker that owes sound is given up when it brings none for a while and little is left in hand,
//! or when it brings so much less than it takes to listen that little is left. What it owes, and whether there is
//! anybody else to go to, the caller knows.
//!
//! Pure: times are since any fixed moment, given by the caller.

use std::collections::VecDeque;
use std::time::Duration;

/// How long a worker may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// From text to its first sound.
    pub first: Duration,
    /// Between two frames.
    pub quiet: Duration,
    /// What the listener must have in hand for a silent worker not to matter yet: about what it takes another to
    /// begin.
    pub reserve: Duration,
    /// Over this long, a worker is judged by its pace.
    pub window: Duration,
}

impl Patience {
    /// For somebody who listens.
    pub const LISTENER: Self = Self {
        first: Duration::from_millis(800),
        quiet: Duration::from_millis(400),
        reserve: Duration::from_millis(500),
        window: Duration::from_secs(1),
    };
    /// For a file, which nobody waits for in real time.
    pub const FILE: Self = Self {
        first: Duration::from_secs(3),
        quiet: Duration::from_secs(2),
        ..Self::LISTENER
    };
}

/// Share of real time below which a worker crawls.
const CRAWL: f32 = 0.6;
/// Frames that are remembered; more in a window is no crawl.
const REMEMBERED: usize = 256;
/// How long a frame lasts.
const FRAME: Duration = Duration::from_millis(20);

/// What is wrong with a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    /// It has not begun.
    Mute,
    /// It has ceased to bring frames.
    Silent,
    /// It brings far fewer than are heard.
    Crawling,
}

impl Stall {
    /// For logs and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mute => "mute",
            Self::Silent => "silent",
            Self::Crawling => "slow",
        }
    }
}

/// Watches one worker say one utterance.
#[derive(Debug)]
pub(crate) struct Watch {
    patience: Patience,
    /// Since when it is waited for: it owes sound, and is not held.
    waiting_since: Option<Duration>,
    owes: bool,
    held: bool,
    /// When the latest frames came, while it was waited for without a break.
    arrivals: VecDeque<Duration>,
    begun: bool,
}

impl Watch {
    /// A worker that owes nothing yet.
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            waiting_since: None,
            owes: false,
            held: false,
            arrivals: VecDeque::new(),
            begun: false,
        }
    }

    /// Whether it has something to say now.
    pub fn owes(&mut self, now: Duration, owes: bool) {
        self.owes = owes;
        self.look(now);
    }

    /// Whether it has been told to wait.
    pub fn hold(&mut self, now: Duration, held: bool) {
        self.held = held;
        self.look(now);
    }

    /// A frame came.
    pub fn frame(&mut self, now: Duration) {
        self.begun = true;
        if let Some(since) = &mut self.waiting_since {
            *since = now;
        }
        self.arrivals.push_back(now);
        if self.arrivals.len() > REMEMBERED {
            self.arrivals.pop_front();
        }
    }

    /// When to [`judge`](Self::judge), if nothing comes before. `in_hand` is the sound that the listener has yet to
    /// hear.
    pub fn deadline(&self, now: Duration, in_hand: Duration) -> Option<Duration> {
        let since = self.waiting_since?;
        if !self.begun {
            return Some(since + self.patience.first);
        }
        let low = now + in_hand.saturating_sub(self.patience.reserve);
        Some(low.max(since + self.patience.quiet))
    }

    /// What is wrong, if anything is.
    pub fn judge(&self, now: Duration, in_hand: Duration) -> Option<Stall> {
        if self.deadline(now, in_hand)? <= now {
            return Some(if self.begun {
                Stall::Silent
            } else {
                Stall::Mute
            });
        }
        let begun = *self.arrivals.front()?;
        let window = self.patience.window;
        if in_hand * 2 > self.patience.reserve || now < begun + window {
            return None;
        }
        let recent = self.arrivals.iter().rev();
        let came = recent.take_while(|at| **at + window > now).count();
        let crawls = (FRAME * came as u32).as_secs_f32() < window.as_secs_f32() * CRAWL;
        crawls.then_some(Stall::Crawling)
    }

    /// It is waited for from now on, or no longer.
    fn look(&mut self, now: Duration) {
        if !self.owes || self.held {
            self.waiting_since = None;
            // What came before says nothing of its pace after.
            self.arrivals.clear();
        } else if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A worker that was given text at 0.
    fn asked() -> Watch {
        let mut watch = Watch::new(Patience::LISTENER);
        watch.owes(ms(0), true);
        watch
    }

    #[test]
    fn a_worker_that_does_not_begin_is_noticed() {
        let watch = asked();
        assert_eq!(watch.deadline(ms(0), ms(0)), Some(ms(800)));
        assert_eq!(watch.judge(ms(799), ms(0)), None);
        assert_eq!(watch.judge(ms(800), ms(0)), Some(Stall::Mute));
    }

    #[test]
    fn a_worker_that_owes_nothing_may_be_silent_for_ever() {
        let mut watch = asked();
        watch.frame(ms(50));
        watch.owes(ms(60), false);
        assert_eq!(watch.deadline(ms(9_000), ms(0)), None);
        assert_eq!(watch.judge(ms(9_000), ms(0)), None);
        watch.owes(ms(9_000), true);
        assert_eq!(watch.deadline(ms(9_000), ms(0)), Some(ms(9_400)));
    }

    #[test]
    fn a_silent_worker_matters_when_little_is_left_to_hear() {
        let mut watch = asked();
        watch.frame(ms(50));
        // 1.3 s in hand: it has time to come back until 500 ms are left.
        assert_eq!(watch.deadline(ms(50), ms(1_300)), Some(ms(850)));
        assert_eq!(watch.judge(ms(700), ms(650)), None);
        assert_eq!(watch.judge(ms(850), ms(500)), Some(Stall::Silent));
        // Nothing in hand: a moment more.
        assert_eq!(watch.judge(ms(449), ms(0)), None);
        assert_eq!(watch.judge(ms(450), ms(0)), Some(Stall::Silent));
    }

    #[test]
    fn a_worker_that_is_held_is_not_waited_for() {
        let mut watch = asked();
        watch.frame(ms(50));
        watch.hold(ms(100), true);
        assert_eq!(watch.judge(ms(60_000), ms(0)), None);
        watch.hold(ms(60_000), false);
        assert_eq!(watch.deadline(ms(60_000), ms(0)), Some(ms(60_400)));
    }

    #[test]
    fn a_worker_that_crawls_is_noticed_before_its_listener_runs_dry() {
        let mut watch = asked();
        // A second in hand, then a frame every 100 ms.
        let mut in_hand = ms(1_000);
        for step in 0..50 {
            watch.frame(ms(step));
        }
        let noticed = (1..100).find_map(|step| {
            let now = ms(50 + 100 * step);
            watch.frame(now);
            in_hand = in_hand.saturating_sub(ms(80));
            watch.judge(now, in_hand).map(|stall| (stall, in_hand))
        });
        let (stall, left) = noticed.expect("it was not noticed");
        assert_eq!(stall, Stall::Crawling);
        assert!(left > ms(0), "the listener ran dry first");
    }

    #[test]
    fn a_worker_at_the_listeners_pace_is_left_alone_with_little_in_hand() {
        let mut watch = asked();
        for step in 0..500 {
            let now = ms(20 * step);
            watch.frame(now);
            assert_eq!(watch.judge(now, ms(40)), None);
        }
    }

    #[test]
    fn a_slow_voice_is_not_given_up_for_being_slow() {
        // A third slower than real time: another worker would be no faster.
        let mut watch = asked();
        for step in 0..200 {
            let now = ms(27 * step);
            watch.frame(now);
            assert_eq!(watch.judge(now, ms(0)), None, "frame {step}");
        }
    }
}
