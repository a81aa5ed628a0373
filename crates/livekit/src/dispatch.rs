//! Which jobs a worker takes: one for each slot it could reserve, none while it drains.

use std::collections::HashMap;
use std::time::Duration;

use livekit_protocol::{AvailabilityResponse, UpdateWorkerStatus, WorkerStatus};

/// An offer that was accepted and then not assigned for so long went elsewhere.
const ASSIGNED_WITHIN: Duration = Duration::from_secs(15);

/// A LiveKit server sends no job to a worker whose load is more (its `agents.target_load`, 0.7 by default), so a
/// worker with a free slot tells of less.
const MOST_WITH_ROOM: f32 = 0.65;

#[derive(Debug)]
pub(crate) struct Dispatch<S> {
    /// Slots of jobs that were accepted and not yet assigned, and since when.
    reserved: HashMap<String, (Duration, S)>,
    /// Rooms by their jobs.
    running: HashMap<String, String>,
    draining: bool,
}

impl<S> Dispatch<S> {
    pub fn new() -> Self {
        Self {
            reserved: HashMap::new(),
            running: HashMap::new(),
            draining: false,
        }
    }

    /// Takes no more jobs.
    pub fn drain(&mut self) {
        self.draining = true;
        self.reserved.clear();
    }

    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// All jobs have ended.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    pub fn jobs(&self) -> usize {
        self.running.len()
    }

    /// The server offers a job; `slot`: what could be reserved for it. A room that we are in needs no second agent:
    /// a server that was started again dispatches it anew while we come back into it.
    pub fn offered(
        &mut self,
        at: Duration,
        job: &str,
        room: &str,
        slot: Option<S>,
    ) -> AvailabilityResponse {
        let there = self.running.values().any(|running| running == room);
        let available = !self.draining && !there && slot.is_some();
        if let (true, Some(slot)) = (available, slot) {
            self.reserved.insert(job.to_owned(), (at, slot));
        }
        AvailabilityResponse {
            job_id: job.to_owned(),
            available,
            terminate: there,
            participant_identity: format!("agent-{job}"),
            participant_name: "Duologue".into(),
            participant_attributes: [("lk.agent.state".to_owned(), "initializing".to_owned())]
                .into(),
            ..AvailabilityResponse::default()
        }
    }

    /// The job is ours: gives its slot. `None`: we never accepted it, or it came too late.
    pub fn assigned(&mut self, job: &str, room: &str) -> Option<S> {
        let (_, slot) = self.reserved.remove(job)?;
        self.running.insert(job.to_owned(), room.to_owned());
        Some(slot)
    }

    pub fn ended(&mut self, job: &str) {
        self.running.remove(job);
    }

    /// Gives up the slots of offers that went elsewhere.
    pub fn expire(&mut self, at: Duration) {
        self.reserved
            .retain(|_, (since, _)| at.saturating_sub(*since) < ASSIGNED_WITHIN);
    }

    /// The connection is lost, and all offers with it.
    pub fn disconnected(&mut self) {
        self.reserved.clear();
    }

    /// What the server is told of us. `load`: share of our slots that is taken.
    pub fn status(&self, load: f32) -> UpdateWorkerStatus {
        let full = self.draining || load >= 1.0;
        let status = if full {
            WorkerStatus::WsFull
        } else {
            WorkerStatus::WsAvailable
        };
        UpdateWorkerStatus {
            status: Some(status.into()),
            load: if full {
                1.0
            } else {
                load.clamp(0.0, 1.0) * MOST_WITH_ROOM
            },
            job_count: u32::try_from(self.running.len()).unwrap_or(u32::MAX),
            draining: self.draining,
            ..UpdateWorkerStatus::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_job_is_taken_with_a_slot_and_refused_without() {
        let mut dispatch = Dispatch::new();
        assert!(dispatch.offered(NOW, "one", "hall one", Some(1)).available);
        assert!(!dispatch.offered(NOW, "two", "hall two", None).available);
        assert_eq!(dispatch.assigned("one", "hall one"), Some(1));
        assert_eq!(
            dispatch.assigned("two", "hall two"),
            None,
            "it was never accepted"
        );
        assert_eq!(dispatch.jobs(), 1);
        dispatch.ended("one");
        assert!(dispatch.is_idle());
    }

    #[test]
    fn a_slot_is_free_again_when_the_job_goes_elsewhere() {
        let slot = Rc::new(());
        let mut dispatch = Dispatch::new();
        dispatch.offered(NOW, "one", "hall one", Some(Rc::clone(&slot)));
        dispatch.expire(NOW + Duration::from_secs(14));
        assert_eq!(Rc::strong_count(&slot), 2);
        dispatch.expire(NOW + Duration::from_secs(15));
        assert_eq!(Rc::strong_count(&slot), 1);
        dispatch.offered(NOW, "two", "hall two", Some(Rc::clone(&slot)));
        dispatch.disconnected();
        assert_eq!(Rc::strong_count(&slot), 1);
    }

    #[test]
    fn who_drains_is_full_and_keeps_what_runs() {
        let mut dispatch = Dispatch::new();
        dispatch.offered(NOW, "one", "hall one", Some(()));
        dispatch.assigned("one", "hall one");
        assert_eq!(dispatch.status(0.25).status(), WorkerStatus::WsAvailable);
        dispatch.drain();
        let status = dispatch.status(0.25);
        assert_eq!(
            (status.status(), status.draining, status.job_count),
            (WorkerStatus::WsFull, true, 1)
        );
        assert!(!dispatch.offered(NOW, "two", "hall two", Some(())).available);
        assert!(!dispatch.is_idle());
    }

    #[test]
    fn a_room_that_we_are_in_gets_no_second_agent() {
        let mut dispatch = Dispatch::new();
        dispatch.offered(NOW, "one", "hall", Some(()));
        dispatch.assigned("one", "hall");
        let answer = dispatch.offered(NOW, "two", "hall", Some(()));
        assert!(!answer.available && answer.terminate);
        dispatch.ended("one");
        assert!(dispatch.offered(NOW, "three", "hall", Some(())).available);
    }

    #[test]
    fn no_free_slot_is_full() {
        let dispatch = Dispatch::<()>::new();
        assert_eq!(dispatch.status(1.0).status(), WorkerStatus::WsFull);
        let nearly = dispatch.status(0.99);
        assert_eq!(nearly.status(), WorkerStatus::WsAvailable);
        assert!(
            nearly.load < 0.7,
            "the server would send nothing: {}",
            nearly.load
        );
        assert!(nearly.load > dispatch.status(0.5).load);
        assert_eq!(dispatch.status(1.0).load, 1.0);
    }
}
