//! Who computes next when there are more utterances than engine threads.
//!
//! Each utterance asks for one small piece of work at a time and says when its listener runs out of sound.
//! The earliest of these goes first, so the one with the least audio ahead is served before those that can
//! wait, and after each piece it is somebody else's turn. Utterances that have nothing yet count from the
//! moment they asked: first come, first served. No utterance starves: one that is passed over keeps its
//! deadline while the others' move on with every piece they get.
//!
//! Pure: it hands out tickets and runs nothing.

use std::collections::BTreeMap;

/// Decides in which order tickets `T` with deadlines `D` get one of a fixed number of lanes.
#[derive(Debug)]
pub(crate) struct Schedule<D, T> {
    free: usize,
    arrivals: u64,
    /// At most one ticket an utterance, so bounded by the number of sessions.
    waiting: BTreeMap<(D, u64), T>,
}

impl<D: Ord, T> Schedule<D, T> {
    pub(crate) fn new(lanes: usize) -> Self {
        Schedule {
            free: lanes,
            arrivals: 0,
            waiting: BTreeMap::new(),
        }
    }

    pub(crate) fn ask(&mut self, deadline: D, ticket: T) {
        self.waiting.insert((deadline, self.arrivals), ticket);
        self.arrivals += 1;
    }

    /// The ticket that may start now, and takes a lane.
    pub(crate) fn grant(&mut self) -> Option<T> {
        if self.free == 0 {
            return None;
        }
        let (_, ticket) = self.waiting.pop_first()?;
        self.free -= 1;
        Some(ticket)
    }

    /// A lane is free again.
    pub(crate) fn give_back(&mut self) {
        self.free += 1;
    }

    /// Tickets that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_has_the_least_audio_ahead_goes_first_and_ties_go_by_arrival() {
        let mut schedule = Schedule::new(3);
        schedule.ask(900, "much");
        schedule.ask(100, "little");
        schedule.ask(100, "little, later");
        assert_eq!(schedule.grant(), Some("little"));
        assert_eq!(schedule.grant(), Some("little, later"));
        assert_eq!(schedule.grant(), Some("much"));
        assert_eq!(schedule.grant(), None);
    }

    #[test]
    fn no_more_run_than_there_are_lanes() {
        let mut schedule = Schedule::new(1);
        schedule.ask(0, 'a');
        schedule.ask(1, 'b');
        assert_eq!(schedule.grant(), Some('a'));
        assert_eq!(schedule.grant(), None);
        schedule.give_back();
        assert_eq!(schedule.grant(), Some('b'));
    }

    proptest! {
        /// With an engine slower than all listeners together, sound is shared evenly: no utterance is ever
        /// more than one piece ahead of another that waits.
        #[test]
        fn an_overloaded_engine_is_shared_evenly(
            utterances in 2usize..10,
            lanes in 1usize..4,
            pieces in 20usize..200,
        ) {
            const PIECE: usize = 100;
            let mut schedule = Schedule::new(lanes);
            let mut produced = vec![0; utterances];
            for id in 0..utterances {
                schedule.ask(0, id);
            }
            let mut running = std::collections::VecDeque::new();
            for _ in 0..pieces {
                while let Some(id) = schedule.grant() {
                    running.push_back(id);
                }
                if let Some(id) = running.pop_front() {
                    produced[id] += PIECE;
                    schedule.give_back();
                    schedule.ask(produced[id], id);
                }
            }
            let most = produced.iter().max().copied().unwrap_or(0);
            let least = produced.iter().min().copied().unwrap_or(0);
            prop_assert!(most - least <= 2 * PIECE, "{:?}", produced);
        }
    }
}
