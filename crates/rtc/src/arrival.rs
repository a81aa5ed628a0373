//! How unpunctual a network is: the delay that packets need so that nearly all of them are in time.
//!
//! A packet's transit is its arrival by our clock less its timestamp by the sender's. Of itself it says nothing,
//! for the two clocks are not set by each other; the least of the last seconds is taken for a punctual packet,
//! and how much later the others came is kept as a histogram that forgets. The target is a quantile of it. The
//! least is of a window, so a sender's clock that drifts takes the whole with it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::RTP_CLOCK;

/// Width of the histogram's bins.
const BIN_US: i64 = 5_000;
/// Bins, the last for all that is later: half a second.
const BINS: usize = 100;
/// Share of packets that are to be in time.
const QUANTILE: f32 = 0.97;
/// What a packet weighs less with each that follows: half after 7 s.
const FORGET: f32 = 0.998;
/// What is believed before the first packet, and with the weight of how many.
const PRIOR: (usize, f32) = (6, 10.0);
/// Seconds of which the least transit counts.
const WINDOW_S: u64 = 10;
/// A transit that differs by more is of another clock.
const JUMP_US: i64 = 3_000_000;

#[derive(Debug)]
pub(crate) struct Arrival {
    /// (Second, least transit in it), oldest first.
    minima: VecDeque<(u64, i64)>,
    bins: [f32; BINS],
    last_transit: Option<i64>,
    jitter_us: f64,
}

impl Arrival {
    pub fn new() -> Self {
        let mut bins = [0.0; BINS];
        bins[PRIOR.0] = PRIOR.1;
        Self {
            minima: VecDeque::with_capacity(WINDOW_S as usize + 1),
            bins,
            last_transit: None,
            jitter_us: 0.0,
        }
    }

    /// A packet has come. `false`: its clock is another one's, and all was forgotten but how unpunctual they are.
    pub fn note(&mut self, at: Duration, timestamp: u64) -> bool {
        let transit = at.as_micros() as i64 - micros(timestamp);
        let same = self
            .base()
            .is_none_or(|base| (transit - base).abs() <= JUMP_US);
        if !same {
            self.minima.clear();
            self.last_transit = None;
        }
        if let Some(last) = self.last_transit {
            // RFC 3550, section 6.4.1.
            self.jitter_us += ((transit - last).abs() as f64 - self.jitter_us) / 16.0;
        }
        self.last_transit = Some(transit);
        let second = at.as_secs();
        match self.minima.back_mut() {
            Some((of, least)) if *of == second => *least = transit.min(*least),
            _ => self.minima.push_back((second, transit)),
        }
        while self
            .minima
            .front()
            .is_some_and(|(of, _)| of + WINDOW_S < second)
        {
            self.minima.pop_front();
        }
        let late = transit - self.base().unwrap_or(transit);
        self.bins.iter_mut().for_each(|bin| *bin *= FORGET);
        self.bins[((late / BIN_US) as usize).min(BINS - 1)] += 1.0;
        same
    }

    /// Transit of a punctual packet, microseconds; `None` before the first one.
    pub fn base(&self) -> Option<i64> {
        self.minima.iter().map(|(_, least)| *least).min()
    }

    /// How late a packet may be and still be in time.
    pub fn target(&self) -> Duration {
        let wanted = self.bins.iter().sum::<f32>() * QUANTILE;
        let mut sum = 0.0;
        let bin = self.bins.iter().position(|bin| {
            sum += bin;
            sum >= wanted
        });
        Duration::from_micros((bin.unwrap_or(BINS - 1) as u64 + 1) * BIN_US as u64)
    }

    /// Interarrival jitter of RFC 3550.
    pub fn jitter(&self) -> Duration {
        Duration::from_micros(self.jitter_us as u64)
    }
}

/// RTP time in microseconds.
pub(crate) fn micros(timestamp: u64) -> i64 {
    (timestamp as i128 * 1_000_000 / RTP_CLOCK as i128) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: u64 = 960;

    fn feed(arrival: &mut Arrival, from: u64, packets: u64, late_ms: impl Fn(u64) -> u64) {
        for n in from..from + packets {
            arrival.note(
                Duration::from_millis(1_000 + 20 * n + late_ms(n)),
                n * PACKET,
            );
        }
    }

    #[test]
    fn a_punctual_network_needs_next_to_no_delay_after_some_seconds() {
        let mut arrival = Arrival::new();
        assert_eq!(arrival.target(), Duration::from_millis(35));
        feed(&mut arrival, 0, 500, |_| 0);
        assert_eq!(arrival.target(), Duration::from_millis(5));
        assert_eq!(arrival.jitter(), Duration::ZERO);
    }

    #[test]
    fn the_target_covers_the_jitter_and_falls_when_it_is_over() {
        let mut arrival = Arrival::new();
        feed(&mut arrival, 0, 500, |n| (n * 7919) % 60);
        let target = arrival.target();
        assert!((50..=65).contains(&target.as_millis()), "{target:?}");
        feed(&mut arrival, 500, 2_000, |_| 0);
        assert_eq!(arrival.target(), Duration::from_millis(5));
    }

    #[test]
    fn a_clock_that_drifts_is_followed_both_ways() {
        for drift_us in [20i64, -20] {
            let mut arrival = Arrival::new();
            for n in 0..5_000i64 {
                let at = 1_000_000 + n * (20_000 + drift_us);
                arrival.note(Duration::from_micros(at as u64), n as u64 * PACKET);
            }
            let last = 1_000_000 + 4_999 * drift_us;
            let behind = last - arrival.base().unwrap_or_default();
            assert!((0..=11_000).contains(&behind), "{drift_us}: {behind}");
            assert!(arrival.target() <= Duration::from_millis(15));
        }
    }

    #[test]
    fn a_jump_of_the_clock_is_told_and_begins_anew() {
        let mut arrival = Arrival::new();
        feed(&mut arrival, 0, 100, |_| 0);
        assert!(!arrival.note(Duration::from_secs(3), 1 << 40));
        assert!(arrival.note(Duration::from_millis(3_020), (1 << 40) + PACKET));
        assert_eq!(
            arrival.base(),
            Some(3_000_000 - micros(1 << 40)),
            "the new clock's"
        );
    }
}
