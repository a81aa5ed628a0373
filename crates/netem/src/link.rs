//! What becomes of a datagram on its way.

use std::time::Duration;

/// How late a datagram is that others overtake.
const OVERTAKEN: Duration = Duration::from_millis(50);

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to 1.
    pub fn share(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What a network does to datagrams. The default is perfect.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weather {
    /// Chance that a loss begins with a datagram, 0 to 1.
    pub loss: f64,
    /// Datagrams lost in a row, where one is; 0 is taken as 1.
    pub burst: u64,
    /// Time that every datagram takes.
    pub delay: Duration,
    /// Besides, each is late by a random time up to this, even by more than the next: they overtake each other.
    pub jitter: Duration,
    /// Share that is late by another 50 ms, so that the next ones overtake it.
    pub reorder: f64,
    /// Share that comes twice.
    pub twice: f64,
    /// From when to when all are held back, to come at its end. By the caller's clock.
    pub stall: Option<(Duration, Duration)>,
}

/// When a datagram comes: not at all, once or twice.
pub type Arrivals = [Option<Duration>; 2];

/// One direction of a network.
#[derive(Clone, Debug)]
pub struct Link {
    weather: Weather,
    dice: Dice,
    /// Still to be lost of a burst.
    losing: u64,
}

impl Link {
    /// A link with this weather; the same things happen for the same seed.
    #[must_use]
    pub fn new(weather: Weather, seed: u64) -> Self {
        Self {
            weather,
            dice: Dice::new(seed),
            losing: 0,
        }
    }

    /// The weather changes.
    pub fn set(&mut self, weather: Weather) {
        self.weather = weather;
        self.losing = 0;
    }

    /// A datagram is sent at this time; gives when it arrives.
    pub fn pass(&mut self, sent: Duration) -> Arrivals {
        let weather = self.weather;
        if self.losing > 0 {
            self.losing -= 1;
            return [None; 2];
        }
        if self.dice.share() < weather.loss {
            self.losing = weather.burst.saturating_sub(1);
            return [None; 2];
        }
        let twice = self.dice.share() < weather.twice;
        let mut arrives = || {
            let mut at = sent + weather.delay + weather.jitter.mul_f64(self.dice.share());
            if self.dice.share() < weather.reorder {
                at += OVERTAKEN;
            }
            match weather.stall {
                Some((from, to)) if (from..to).contains(&sent) => at.max(to),
                _ => at,
            }
        };
        [Some(arrives()), twice.then(&mut arrives)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn passed(weather: Weather, count: u64) -> Vec<(Duration, Arrivals)> {
        let mut link = Link::new(weather, 7);
        (0..count)
            .map(|n| (ms(20 * n), link.pass(ms(20 * n))))
            .collect()
    }

    #[test]
    fn a_perfect_network_changes_nothing() {
        for (sent, arrivals) in passed(Weather::default(), 100) {
            assert_eq!(arrivals, [Some(sent), None]);
        }
    }

    #[test]
    fn as_many_are_lost_as_is_said_and_in_bursts() {
        let weather = Weather {
            loss: 0.05,
            burst: 2,
            ..Weather::default()
        };
        let all = passed(weather, 20_000);
        let lost: Vec<bool> = all.iter().map(|(_, at)| at[0].is_none()).collect();
        let share = lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64;
        // 5% of those that are not in a burst already begin one of two.
        assert!((share - 0.095).abs() < 0.01, "{share}");
        let alone = lost.windows(3).filter(|w| !w[0] && w[1] && !w[2]).count();
        assert_eq!(alone, 0);
        assert_eq!(passed(weather, 20_000), all, "the seed says all");
    }

    #[test]
    fn late_ones_are_overtaken_and_some_come_twice() {
        let weather = Weather {
            delay: ms(30),
            jitter: ms(10),
            reorder: 0.25,
            twice: 0.1,
            ..Weather::default()
        };
        let all = passed(weather, 10_000);
        let first = |n: usize| all[n].1[0].unwrap_or_default();
        let overtaken = (1..all.len()).filter(|n| first(*n) < first(n - 1)).count();
        assert!((1_500..2_500).contains(&overtaken), "{overtaken}");
        let twice = all.iter().filter(|(_, at)| at[1].is_some()).count();
        assert!((800..1_200).contains(&twice), "{twice}");
        assert!(
            all.iter()
                .all(|(sent, at)| (ms(30)..=ms(90)).contains(&(at[0].unwrap_or_default() - *sent)))
        );
    }

    #[test]
    fn what_is_sent_in_a_stall_comes_at_its_end() {
        let weather = Weather {
            stall: Some((ms(100), ms(300))),
            ..Weather::default()
        };
        for (sent, arrivals) in passed(weather, 30) {
            let expected = if (ms(100)..ms(300)).contains(&sent) {
                ms(300)
            } else {
                sent
            };
            assert_eq!(arrivals[0], Some(expected));
        }
    }
}
