//! The bounded pool that inference runs on.
//!
//! A [`Lane`] is the right to keep one thread busy, held by the computation itself: it comes back when the
//! computation truly ends, not when somebody stops waiting for it. Threads are those of the runtime's blocking
//! pool; never more of them compute than there are lanes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::schedule::Schedule;

pub(crate) struct Engine {
    schedule: Mutex<Schedule<Instant, oneshot::Sender<Lane>>>,
}

/// The right to compute; dropping it lets the next one in.
pub(crate) struct Lane {
    engine: Arc<Engine>,
}

impl Engine {
    pub(crate) fn new(lanes: usize) -> Arc<Self> {
        Arc::new(Engine {
            schedule: Mutex::new(Schedule::new(lanes.max(1))),
        })
    }

    /// Waits for a lane; `dry_at` is when the listener runs out of sound. Dropping the future gives up the
    /// place in the queue.
    pub(crate) async fn lane(self: &Arc<Self>, dry_at: Instant) -> Lane {
        loop {
            let (ticket, turn) = oneshot::channel();
            self.lock().ask(dry_at, ticket);
            self.admit();
            // The schedule drops no ticket it has not granted, so an error cannot happen; asking again is
            // right even if it did.
            if let Ok(lane) = turn.await {
                return lane;
            }
        }
    }

    /// Utterances that wait for a lane.
    pub(crate) fn queue_depth(&self) -> usize {
        self.lock().waiting()
    }

    fn admit(self: &Arc<Self>) {
        loop {
            let Some(ticket) = self.lock().grant() else {
                return;
            };
            // Nobody waits any more: the lane comes back, and its drop admits the next.
            drop(ticket.send(Lane {
                engine: Arc::clone(self),
            }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Schedule<Instant, oneshot::Sender<Lane>>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.engine.lock().give_back();
        self.engine.admit();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_dropped_lane_and_an_abandoned_place_let_the_next_in() {
        let engine = Engine::new(1);
        let now = Instant::now();
        let held = engine.lane(now).await;
        let abandoned = tokio::spawn({
            let engine = Arc::clone(&engine);
            async move { engine.lane(now).await }
        });
        while engine.queue_depth() < 1 {
            tokio::task::yield_now().await;
        }
        let next = tokio::spawn({
            let engine = Arc::clone(&engine);
            async move { engine.lane(now).await }
        });
        while engine.queue_depth() < 2 {
            tokio::task::yield_now().await;
        }
        abandoned.abort();
        assert!(abandoned.await.is_err());
        drop(held);
        let lane = next.await.unwrap();
        drop(lane);
        engine.lane(now).await;
    }
}
