//! Models run on threads of their own, never on the reactor.
//!
//! A pool has a fixed number of threads and a bounded queue; a job that finds the queue full is refused at
//! once, so that overload is seen by the caller and not hidden in a wait. Among queued jobs the most urgent
//! goes first, and among equals the oldest.

use std::collections::{BinaryHeap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use duologue_metrics::table;
use tokio::sync::oneshot;

/// How urgent a job is; a later variant goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Nobody waits in silence for it: files, partial transcripts.
    Background,
    /// A person has stopped speaking and waits.
    Conversation,
}

/// Why a job has no result.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PoolError {
    /// The queue is full.
    #[error(
        "the {pool} pool is busy: {queued} jobs wait, which is its limit; try again in a moment"
    )]
    Full {
        /// The pool's name.
        pool: &'static str,
        /// Jobs that wait.
        queued: usize,
    },
    /// The job panicked, or the pool was shut down before it ran.
    #[error("a job of the {pool} pool was lost")]
    Lost {
        /// The pool's name.
        pool: &'static str,
    },
}

/// Waits that are remembered until they are asked for; of more, the oldest go.
const MOST_WAITS: usize = 1_024;

/// A fixed number of threads behind a bounded queue. Clones share them; the last one dropped ends them.
#[derive(Clone)]
pub struct InferencePool {
    inner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    capacity: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: BinaryHeap<Job>,
    next: u64,
    running: usize,
    last_wait: Duration,
    /// Of the jobs that have begun since it was last asked.
    waits: VecDeque<Duration>,
    closed: bool,
}

struct Job {
    priority: Priority,
    number: u64,
    queued_at: Instant,
    run: Box<dyn FnOnce() + Send>,
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Job {}
impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Job {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.priority, other.number).cmp(&(other.priority, self.number))
    }
}

/// What a pool is doing.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolLoad {
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that run.
    pub running: usize,
    /// How long the last started job had waited.
    pub last_wait: Duration,
}

impl InferencePool {
    /// Starts `threads` threads (at least one) that share a queue of at most `capacity` waiting jobs.
    #[must_use]
    pub fn new(name: &'static str, threads: usize, capacity: usize) -> Self {
        let shared = Arc::new(Shared {
            name,
            capacity: capacity.max(1),
            queue: Mutex::default(),
            wake: Condvar::new(),
        });
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&shared);
            let spawned = std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || work(&shared));
            if let Err(error) = spawned {
                tracing::error!(pool = name, %error, "cannot start an inference thread");
            }
        }
        Self {
            inner: Arc::new(Owner { shared }),
        }
    }

    /// Queues a job. Dropping the handle before the job starts takes the job back.
    ///
    /// # Errors
    /// [`PoolError::Full`].
    pub fn submit<T: Send + 'static>(
        &self,
        priority: Priority,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JobHandle<T>, PoolError> {
        let shared = &self.inner.shared;
        let (give, take) = oneshot::channel();
        let mut queue = lock(&shared.queue);
        if queue.jobs.len() >= shared.capacity {
            return Err(PoolError::Full {
                pool: shared.name,
                queued: queue.jobs.len(),
            });
        }
        // What the job logs belongs to whoever asked for it.
        let span = tracing::Span::current();
        let number = queue.next;
        queue.next += 1;
        queue.jobs.push(Job {
            priority,
            number,
            queued_at: Instant::now(),
            run: Box::new(move || {
                if !give.is_closed() {
                    // The receiver may have gone meanwhile; then nobody wants the result.
                    let _ = give.send(span.in_scope(job));
                }
            }),
        });
        let queued = queue.jobs.len();
        drop(queue);
        table::POOL_QUEUE.set_for(shared.name, queued as f64);
        shared.wake.notify_one();
        Ok(JobHandle {
            take,
            pool: shared.name,
        })
    }

    /// What it is doing now.
    #[must_use]
    pub fn load(&self) -> PoolLoad {
        let queue = lock(&self.inner.shared.queue);
        PoolLoad {
            queued: queue.jobs.len(),
            running: queue.running,
            last_wait: queue.last_wait,
        }
    }
}

impl InferencePool {
    /// How long the jobs waited that have begun since this was last asked; and the one that has waited longest, if
    /// any still does.
    #[must_use]
    pub fn take_waits(&self) -> Vec<Duration> {
        let mut queue = lock(&self.inner.shared.queue);
        let oldest = queue.jobs.iter().map(|job| job.queued_at.elapsed()).max();
        queue.waits.drain(..).chain(oldest).collect()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.wake.notify_all();
    }
}

/// The result to come of a job.
pub struct JobHandle<T> {
    take: oneshot::Receiver<T>,
    pool: &'static str,
}

impl<T> Future for JobHandle<T> {
    type Output = Result<T, PoolError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let pool = self.pool;
        Pin::new(&mut self.take)
            .poll(context)
            .map_err(|_| PoolError::Lost { pool })
    }
}

fn work(shared: &Shared) {
    loop {
        let (job, waited, queued) = {
            let mut queue = lock(&shared.queue);
            loop {
                if queue.closed {
                    return;
                }
                if let Some(job) = queue.jobs.pop() {
                    queue.running += 1;
                    let waited = job.queued_at.elapsed();
                    queue.last_wait = waited;
                    if queue.waits.len() >= MOST_WAITS {
                        queue.waits.pop_front();
                    }
                    queue.waits.push_back(waited);
                    break (job, queue.last_wait, queue.jobs.len());
                }
                queue = shared
                    .wake
                    .wait(queue)
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        };
        // Measured outside the lock, for which every session's ear waits.
        table::POOL_WAIT.record_for(shared.name, waited);
        table::POOL_QUEUE.set_for(shared.name, queued as f64);
        // A model that panics loses its own job, not the thread.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job.run)).is_err() {
            tracing::error!(pool = shared.name, "a job panicked");
        }
        lock(&shared.queue).running -= 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A pool of one thread that is held until the returned sender is dropped.
    fn held(capacity: usize) -> (InferencePool, mpsc::Sender<()>, JobHandle<()>) {
        let pool = InferencePool::new("test", 1, capacity);
        let (release, gate) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let first = pool
            .submit(Priority::Background, move || {
                started.send(()).unwrap();
                let _ = gate.recv();
            })
            .unwrap();
        has_started.recv().unwrap();
        (pool, release, first)
    }

    #[tokio::test]
    async fn an_urgent_job_overtakes_and_equals_keep_their_order() {
        let (pool, release, _first) = held(8);
        let order = Arc::new(Mutex::new(Vec::new()));
        let submit = |priority, name: &'static str| {
            let order = Arc::clone(&order);
            pool.submit(priority, move || order.lock().unwrap().push(name))
                .unwrap()
        };
        let slow = submit(Priority::Background, "first file");
        let slower = submit(Priority::Background, "second file");
        let urgent = submit(Priority::Conversation, "turn");
        drop(release);
        urgent.await.unwrap();
        slow.await.unwrap();
        slower.await.unwrap();
        assert_eq!(
            *order.lock().unwrap(),
            ["turn", "first file", "second file"]
        );
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let (pool, release, _first) = held(1);
        let waiting = pool.submit(Priority::Conversation, || 1).unwrap();
        let refused = pool.submit(Priority::Conversation, || 2).err();
        assert_eq!(
            refused,
            Some(PoolError::Full {
                pool: "test",
                queued: 1
            })
        );
        drop(release);
        assert_eq!(waiting.await, Ok(1));
    }

    #[tokio::test]
    async fn a_dropped_handle_takes_its_waiting_job_back() {
        let (pool, release, _first) = held(4);
        let (ran, has_run) = mpsc::channel();
        drop(
            pool.submit(Priority::Conversation, move || ran.send(()).unwrap())
                .unwrap(),
        );
        let last = pool.submit(Priority::Conversation, || ()).unwrap();
        drop(release);
        last.await.unwrap();
        assert!(has_run.try_recv().is_err());
    }

    #[tokio::test]
    async fn waits_are_told_once_and_that_of_a_job_that_still_waits_each_time() {
        let (pool, release, _first) = held(4);
        let waiting = pool.submit(Priority::Conversation, || ()).unwrap();
        assert_eq!(
            pool.take_waits().len(),
            2,
            "the first has begun, the other waits"
        );
        assert_eq!(pool.take_waits().len(), 1);
        drop(release);
        waiting.await.unwrap();
        assert_eq!(pool.take_waits().len(), 1);
        assert!(pool.take_waits().is_empty());
    }

    #[tokio::test]
    async fn a_panicking_job_is_lost_alone() {
        let pool = InferencePool::new("test", 1, 4);
        let bad = pool
            .submit(Priority::Conversation, || panic!("model"))
            .unwrap();
        let good = pool.submit(Priority::Conversation, || 7).unwrap();
        assert_eq!(bad.await, Err::<(), _>(PoolError::Lost { pool: "test" }));
        assert_eq!(good.await, Ok(7));
    }
}
