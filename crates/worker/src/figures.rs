//! How quickly the worker speaks, told by its own utterances.
//!
//! A sliding window: utterances of the last minute, at most [`MOST`]. When all of them have left it the last one
//! stays, since what a worker did an hour ago says more about it than nothing.
//!
//! Pure: times are durations since some origin, given by the caller and never going back.

use std::collections::VecDeque;
use std::time::Duration;

/// How long an utterance counts.
const SPAN: Duration = Duration::from_secs(60);
/// Utterances in the window.
const MOST: usize = 512;

/// What one utterance took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spoken {
    /// From its first text to its first frame.
    pub(crate) first_audio: Duration,
    /// The worker's time that it took: what others took beside it counts as theirs.
    pub(crate) computing: Duration,
    /// Sound that came of it; more than zero.
    pub(crate) sound: Duration,
}

/// The window.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    utterances: VecDeque<(Duration, Spoken)>,
}

/// What the window says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// Utterances of the last minute.
    pub(crate) utterances: usize,
    /// Seconds of the worker's time for a second of sound.
    pub(crate) real_time_factor: f64,
    pub(crate) first_audio_p50: Duration,
    pub(crate) first_audio_p95: Duration,
}

impl Figures {
    /// An utterance has ended.
    pub(crate) fn add(&mut self, now: Duration, spoken: Spoken) {
        self.utterances.push_back((now, spoken));
        self.drop_old(now);
    }

    /// `None` until something was spoken.
    pub(crate) fn summary(&mut self, now: Duration) -> Option<Summary> {
        self.drop_old(now);
        let recent = |at: Duration| now < at + SPAN;
        let (mut computing, mut sound) = (Duration::ZERO, Duration::ZERO);
        let mut first: Vec<Duration> = Vec::with_capacity(self.utterances.len());
        for (_, spoken) in &self.utterances {
            computing += spoken.computing;
            sound += spoken.sound;
            first.push(spoken.first_audio);
        }
        first.sort();
        Some(Summary {
            utterances: self.utterances.iter().filter(|(at, _)| recent(*at)).count(),
            real_time_factor: computing.as_secs_f64() / sound.as_secs_f64(),
            first_audio_p50: quantile(&first, 50)?,
            first_audio_p95: quantile(&first, 95)?,
        })
    }

    fn drop_old(&mut self, now: Duration) {
        let old = |(at, _): &(Duration, Spoken)| now >= *at + SPAN;
        while self.utterances.len() > MOST
            || (self.utterances.len() > 1 && self.utterances.front().is_some_and(old))
        {
            self.utterances.pop_front();
        }
    }
}

/// The least value that at least this many of a hundred do not exceed (the nearest-rank method).
fn quantile(sorted: &[Duration], hundredths: usize) -> Option<Duration> {
    let rank = (sorted.len() * hundredths).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn spoken(first_audio_ms: u64) -> Spoken {
        Spoken {
            first_audio: Duration::from_millis(first_audio_ms),
            computing: s(1),
            sound: s(4),
        }
    }

    #[test]
    fn quantiles_are_of_the_last_minute() {
        let mut figures = Figures::default();
        assert_eq!(figures.summary(s(0)), None);
        figures.add(s(0), spoken(9_000));
        for ms in 1..=100 {
            figures.add(s(30), spoken(ms));
        }
        let summary = figures.summary(s(60)).unwrap();
        assert_eq!(summary.utterances, 100);
        assert_eq!(summary.first_audio_p50, Duration::from_millis(50));
        assert_eq!(summary.first_audio_p95, Duration::from_millis(95));
        assert!((summary.real_time_factor - 0.25).abs() < 1e-9);
    }

    #[test]
    fn the_last_utterance_is_remembered_and_said_to_be_old() {
        let mut figures = Figures::default();
        figures.add(s(0), spoken(10));
        figures.add(s(1), spoken(20));
        let summary = figures.summary(s(3_600)).unwrap();
        assert_eq!(summary.utterances, 0);
        assert_eq!(summary.first_audio_p95, Duration::from_millis(20));
    }

    #[test]
    fn the_window_is_bounded() {
        let mut figures = Figures::default();
        for _ in 0..10_000 {
            figures.add(s(1), spoken(1));
        }
        assert_eq!(figures.utterances.len(), MOST);
    }
}
