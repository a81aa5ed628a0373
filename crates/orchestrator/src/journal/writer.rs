//! Writes one session down, never more often than is of use and never in its way.
//!
//! The session hands over what it is now; only the newest waits, so that a journal which is slow or away costs a
//! session nothing but one record of memory. Who writes goes on after the session has ended, until the last record is
//! there or has been tried for long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{ConversationKey, Journal, Record, Written};

/// At most one record in so long.
const INTERVAL: Duration = Duration::from_millis(250);
/// It is written again after so long, changed or not: it must not be too old, and Redis may have lost it.
const REFRESH: Duration = Duration::from_secs(20);
/// Pauses after a write that failed: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(3));
/// For how long the last record of a session that is over is tried.
const LAST: Duration = Duration::from_secs(120);

/// Writes one session down.
#[derive(Debug)]
pub(crate) struct JournalWriter {
    newest: watch::Sender<Option<Arc<Record>>>,
    /// Something has changed since the last record.
    stale: bool,
    /// When the next record may be made.
    next: Duration,
}

impl JournalWriter {
    /// Begins to write a conversation under an epoch, as one of the server's writers.
    pub fn begin(
        writers: &TaskTracker,
        journal: Arc<dyn Journal>,
        key: ConversationKey,
        epoch: u64,
    ) -> Self {
        let (newest, records) = watch::channel(None);
        writers.spawn(write(journal, key, epoch, records));
        Self {
            newest,
            stale: true,
            next: Duration::ZERO,
        }
    }

    /// Something has changed.
    pub fn change(&mut self) {
        self.stale = true;
    }

    /// When a record is wanted; `None`: nothing has changed. Times are since the session's start.
    pub fn due(&self) -> Option<Duration> {
        self.stale.then_some(self.next)
    }

    /// Takes the record of now.
    pub fn record(&mut self, now: Duration, record: Record) {
        self.stale = false;
        self.next = now + INTERVAL;
        self.newest.send_if_modified(|newest| {
            let differs = newest.as_deref() != Some(&record);
            if differs {
                *newest = Some(Arc::new(record));
            }
            differs
        });
    }
}

async fn write(
    journal: Arc<dyn Journal>,
    key: ConversationKey,
    epoch: u64,
    mut records: watch::Receiver<Option<Arc<Record>>>,
) {
    let mut pause = PAUSES.0;
    let mut failed_since: Option<Instant> = None;
    let mut over_since: Option<Instant> = None;
    loop {
        if failed_since.is_none() {
            let changed = tokio::time::timeout(REFRESH, records.changed());
            if let Ok(Err(_over)) = changed.await {
                return;
            }
        }
        let Some(record) = records.borrow_and_update().clone() else {
            continue;
        };
        let written = match record.to_json() {
            Ok(json) => journal.write(&key, epoch, &json).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(Written::Kept) => {
                if let Some(since) = failed_since.take() {
                    tracing::info!(
                        seconds = since.elapsed().as_secs_f32(),
                        "the journal is back"
                    );
                }
                pause = PAUSES.0;
            }
            Ok(Written::Superseded) => {
                tracing::info!(
                    "the conversation was taken over elsewhere; it is written down no more here"
                );
                return;
            }
            Err(error) => {
                if failed_since.is_none() {
                    tracing::warn!(%error, "a session is not written down; it goes on");
                    failed_since = Some(Instant::now());
                }
                let over = records.has_changed().is_err();
                if over && over_since.get_or_insert_with(Instant::now).elapsed() > LAST {
                    tracing::warn!(%error, "the last of a session was not written down");
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}
