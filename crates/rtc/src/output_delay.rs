//! How long after it was sent a frame is heard, at a far end that reports nothing but RTCP.
//!
//! It is an estimate and is told as one: half the round trip, what a jitter buffer holds on such a network, and
//! a device's buffer.

use std::time::Duration;

/// What browsers' jitter buffers hold at least.
const BUFFER: Duration = Duration::from_millis(40);
/// From a browser's decoder to the loudspeaker.
const DEVICE: Duration = Duration::from_millis(30);
/// Most that is believed.
const MOST: Duration = Duration::from_millis(1_000);

/// Estimates the output delay from receiver reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputDelay {
    round_trip: Duration,
    jitter: Duration,
}

impl OutputDelay {
    /// Takes what a receiver reported: its interarrival jitter, and the round trip where it is known.
    pub fn report(&mut self, round_trip: Option<Duration>, jitter: Duration) {
        if let Some(round_trip) = round_trip {
            self.round_trip = round_trip;
        }
        self.jitter = jitter;
    }

    /// From the sender to the listener's ear, 70 ms to 1 s.
    #[must_use]
    pub fn estimate(&self) -> Duration {
        // Jitter is a mean deviation; a buffer covers nearly all of it.
        let buffer = BUFFER.max(self.jitter * 4);
        (self.round_trip / 2 + buffer + DEVICE).min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_far_unpunctual_listener_hears_later() {
        let mut delay = OutputDelay::default();
        assert_eq!(delay.estimate(), ms(70));
        delay.report(Some(ms(100)), ms(2));
        assert_eq!(delay.estimate(), ms(120));
        delay.report(None, ms(25));
        assert_eq!(delay.estimate(), ms(180));
        delay.report(Some(ms(60_000)), ms(60_000));
        assert_eq!(delay.estimate(), ms(1_000));
    }
}
