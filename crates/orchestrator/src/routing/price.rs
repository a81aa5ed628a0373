//! What a session costs a worker, and how many it has room for.

use duologue_registry::{LiveFigures, WorkerState};

use crate::fleet::Mode;

/// Steps of a measured speed between two powers of two. Speeds of equal machines differ by what the last minute
/// brought; within a step they count as equal.
const STEPS: f32 = 8.0;
/// Up to this share of its speed, a worker is at ease.
const EASE: f64 = 0.5;
/// Time to first sound, to the nearest step of this, ms.
const FIRST_AUDIO_STEP: f32 = 25.0;

/// Sessions that a worker has room for: as many as it says, and in conversations no more than its measured speed can
/// serve in real time. One that is slower than real time has room for one, so that a fleet of nothing better speaks.
#[must_use]
pub fn room(live: &LiveFigures, mode: Mode) -> u32 {
    let slots = match live.slots {
        0 => u32::MAX,
        slots => slots,
    };
    let speed = 1.0 / live.real_time_factor;
    if mode == Mode::Text || !speed.is_finite() || speed <= 0.0 {
        return slots;
    }
    // What a second session would lack by rounding alone is no lack.
    slots.min(((speed + 1e-3) as u32).max(1))
}

/// What one more session does to a worker, with those that it has and the utterances that wait there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Load {
    /// What its sessions take of its speed beyond half of it, in millionths. Below, nobody is served better elsewhere,
    /// and measured speeds differ by chance.
    pub strain: u64,
    /// The share of its slots that is taken, in millionths.
    pub share: u64,
}

pub(super) fn load(worker: &WorkerState) -> Load {
    let live = &worker.record.live;
    let sessions = f64::from(worker.taken) + f64::from(live.queue_depth) + 1.0;
    let slots = match live.slots {
        // Unknown: the fewest sessions.
        0 => 1e4,
        slots => f64::from(slots),
    };
    let millionths = |share: f64| (share.max(0.0) * 1e6) as u64;
    Load {
        strain: millionths(sessions * f64::from(price(live.real_time_factor)) - EASE),
        share: millionths(sessions / slots),
    }
}

/// The share of a worker's time that one session takes, rounded up to a step.
fn price(real_time_factor: f32) -> f32 {
    if !real_time_factor.is_finite() || real_time_factor <= 0.0 {
        return 0.0;
    }
    ((real_time_factor.log2() * STEPS).ceil() / STEPS).exp2()
}

/// The median time to first sound, in steps; not measured yet counts as short, so that it comes to be measured.
pub(super) fn first_audio(live: &LiveFigures) -> u32 {
    (live.first_audio_p50_ms.max(0.0) / FIRST_AUDIO_STEP).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(real_time_factor: f32, slots: u32) -> LiveFigures {
        LiveFigures {
            real_time_factor,
            slots,
            ..LiveFigures::default()
        }
    }

    #[test]
    fn room_is_what_the_measured_speed_serves_and_no_more_than_the_slots() {
        assert_eq!(room(&live(0.5, 16), Mode::Session), 2);
        assert_eq!(room(&live(0.334, 16), Mode::Session), 2);
        assert_eq!(room(&live(1.0 / 3.0, 16), Mode::Session), 3);
        assert_eq!(room(&live(0.01, 16), Mode::Session), 16);
        assert_eq!(room(&live(2.0, 16), Mode::Session), 1);
        assert_eq!(room(&live(0.0, 16), Mode::Session), 16);
        assert_eq!(room(&live(f32::NAN, 16), Mode::Session), 16);
        assert_eq!(room(&live(0.5, 16), Mode::Text), 16);
    }

    #[test]
    fn speeds_that_differ_by_little_cost_the_same() {
        assert_eq!(price(0.071), price(0.0715));
        assert_eq!(price(0.5), 0.5);
        assert!(price(0.2) < price(0.25) && price(0.0) == 0.0);
    }
}
