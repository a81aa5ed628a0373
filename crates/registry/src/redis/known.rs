//! What is known of the workers, from what Redis tells of changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Announced;
use crate::{Snapshot, WorkerRecord, WorkerState};

/// The version now; names and taken slots of all that live; names and records of those that changed.
pub(super) type Reading = (u64, Vec<String>, Vec<u32>, Vec<String>, Vec<String>);

/// The workers, as they were last told of.
#[derive(Default)]
pub(super) struct Known {
    version: u64,
    workers: HashMap<String, Worker>,
    reconnected: Option<Instant>,
}

struct Worker {
    record: Arc<WorkerRecord>,
    lease: Duration,
    taken: u32,
    /// Redis has named it since it was connected to.
    named: bool,
}

impl Known {
    /// Changes since which are still to be told.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Redis is back, perhaps empty: everything is to be told, and what is known is kept until those it is of have
    /// had time to announce themselves.
    pub(super) fn reconnected(&mut self, now: Instant) {
        self.version = 0;
        self.reconnected = Some(now);
        for worker in self.workers.values_mut() {
            worker.named = false;
        }
    }

    pub(super) fn learn(&mut self, reading: Reading, now: Instant) -> Snapshot {
        let (version, names, taken, changed, records) = reading;
        self.version = version;
        for (name, json) in changed.into_iter().zip(records) {
            match serde_json::from_str(&json) {
                Ok(Announced { lease_ms, record }) => {
                    let worker = Worker {
                        record: Arc::new(record),
                        lease: Duration::from_millis(lease_ms),
                        taken: 0,
                        named: true,
                    };
                    self.workers.insert(name, worker);
                }
                Err(error) => {
                    tracing::warn!(worker = name, %error, "a worker's record cannot be read");
                    self.workers.remove(&name);
                }
            }
        }
        let taken: HashMap<&String, u32> = names.iter().zip(taken).collect();
        let reconnected = self.reconnected;
        self.workers.retain(|name, worker| match taken.get(name) {
            Some(taken) => {
                worker.taken = *taken;
                worker.named = true;
                true
            }
            None => !worker.named && reconnected.is_some_and(|since| now < since + worker.lease),
        });
        let mut workers: Vec<WorkerState> = self
            .workers
            .values()
            .map(|worker| WorkerState {
                record: Arc::clone(&worker.record),
                taken: worker.taken,
            })
            .collect();
        workers.sort_unstable_by(|a, b| a.record.name.cmp(&b.record.name));
        Snapshot {
            workers,
            seen: now,
            current: true,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn announced(name: &str) -> String {
        let record = WorkerRecord {
            name: name.into(),
            ..WorkerRecord::default()
        };
        serde_json::to_string(&Announced {
            lease_ms: 6_000,
            record,
        })
        .unwrap()
    }

    fn names(snapshot: &Snapshot) -> Vec<&str> {
        let names = snapshot.workers.iter().map(|worker| &*worker.record.name);
        names.collect()
    }

    fn both(version: u64) -> Reading {
        let names: Vec<String> = vec!["b".into(), "a".into()];
        let records = vec![announced("b"), announced("a")];
        (version, names.clone(), vec![1, 0], names, records)
    }

    #[tokio::test]
    async fn only_what_changed_is_told_and_what_is_not_named_any_more_is_gone() {
        let now = Instant::now();
        let mut known = Known::default();
        let snapshot = known.learn(both(2), now);
        assert_eq!(names(&snapshot), ["a", "b"]);
        assert_eq!(snapshot.worker("b").unwrap().taken, 1);
        assert_eq!(known.version(), 2);
        let snapshot = known.learn((2, vec!["b".into()], vec![3], vec![], vec![]), now);
        assert_eq!(names(&snapshot), ["b"]);
        assert_eq!(snapshot.worker("b").unwrap().taken, 3);
    }

    #[tokio::test]
    async fn a_redis_that_comes_back_empty_takes_nobody_away_before_a_lease_has_passed() {
        let now = Instant::now();
        let mut known = Known::default();
        known.learn(both(2), now);
        let back = now + Duration::from_secs(60);
        known.reconnected(back);
        assert_eq!(known.version(), 0);
        let empty: Reading = (0, vec![], vec![], vec![], vec![]);
        let snapshot = known.learn(empty.clone(), back + Duration::from_secs(5));
        assert_eq!(names(&snapshot), ["a", "b"]);
        let only_a: Reading = (
            1,
            vec!["a".into()],
            vec![0],
            vec!["a".into()],
            vec![announced("a")],
        );
        let snapshot = known.learn(only_a, back + Duration::from_secs(5));
        assert_eq!(names(&snapshot), ["a", "b"]);
        let none: Reading = (1, vec![], vec![], vec![], vec![]);
        let snapshot = known.learn(none.clone(), back + Duration::from_secs(5));
        assert_eq!(names(&snapshot), ["b"], "a was withdrawn");
        let snapshot = known.learn(none, back + Duration::from_secs(7));
        assert!(names(&snapshot).is_empty());
    }
}
