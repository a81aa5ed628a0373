//! Keeps a worker announced for as long as it lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Backoff, Registry, RegistryError, WorkerRecord};

/// How long a worker that has died stays registered. Renewed three times as often.
pub const LEASE: Duration = Duration::from_secs(6);
/// A record that changes all the time is told so often at most.
const PAUSE: Duration = Duration::from_millis(100);

/// A worker that is announced, until this is dropped or withdrawn.
pub struct Announcement {
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// Announces what `records` holds, at once when it changes and three times in a `lease`, in a task of its own. A
/// registry that is away is tried again with growing, random pauses.
///
/// ```no_run
/// # async fn example() -> Result<(), duologue_registry::RegistryError> {
/// use std::sync::Arc;
/// use duologue_registry::{LEASE, RedisRegistry, WorkerRecord, announce};
///
/// let registry = Arc::new(RedisRegistry::open("redis://127.0.0.1:6379")?);
/// let record = WorkerRecord { name: "a".into(), address: "http://10.0.0.5:50051".into(), ..WorkerRecord::default() };
/// let (records, watched) = tokio::sync::watch::channel(record);
/// let announcement = announce(registry, watched, LEASE);
/// records.send_modify(|record| record.live.queue_depth = 3);
/// announcement.withdraw().await;
/// # Ok(()) }
/// ```
#[must_use = "a worker is announced for as long as this lives"]
pub fn announce(
    registry: Arc<dyn Registry>,
    records: watch::Receiver<WorkerRecord>,
    lease: Duration,
) -> Announcement {
    let stop = CancellationToken::new();
    let task = tokio::spawn(keep(registry, records, lease, stop.clone()));
    Announcement {
        stop,
        task: Some(task),
    }
}

impl Announcement {
    /// Takes the worker out of the registry, if that can be reached.
    pub async fn withdraw(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::warn!(%error, "a worker was not withdrawn");
        }
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn keep(
    registry: Arc<dyn Registry>,
    mut records: watch::Receiver<WorkerRecord>,
    lease: Duration,
    stop: CancellationToken,
) {
    let renewal = lease / 3;
    let mut backoff = Backoff::new(Duration::from_millis(100), renewal);
    let mut failing = false;
    let mut withdrawn = false;
    let mut ours = false;
    while !withdrawn {
        let record = records.borrow_and_update().clone();
        let wait = match registry.announce(&record, lease).await {
            Ok(()) => {
                ours = true;
                if std::mem::take(&mut failing) {
                    tracing::info!(worker = record.name, "announced again");
                }
                backoff.reset();
                renewal
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(worker = record.name, %error, "not announced");
                }
                match error {
                    // Whoever has it may be what this worker was before it died.
                    RegistryError::NameTaken { .. } => {
                        ours = false;
                        renewal
                    }
                    _ => backoff.next(rand::random()),
                }
            }
        };
        let since = Instant::now();
        tokio::select! {
            () = stop.cancelled() => withdrawn = true,
            () = tokio::time::sleep(wait) => {}
            changed = records.changed(), if !failing => {
                match changed {
                    Ok(()) => tokio::select! {
                        () = stop.cancelled() => withdrawn = true,
                        () = tokio::time::sleep_until(since + PAUSE) => {}
                    },
                    // Whoever wrote the record is gone: the worker is.
                    Err(_) => withdrawn = true,
                }
            }
        }
    }
    if !ours {
        return;
    }
    let name = records.borrow().name.clone();
    if let Err(error) = registry.withdraw(&name).await {
        tracing::info!(worker = name, %error, "not withdrawn: it is gone when its lease ends");
    }
}
