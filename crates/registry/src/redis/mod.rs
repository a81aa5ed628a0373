//! The registry of many hosts, in Redis.
//!
//! Every change is one script, so that it takes effect as a whole, by the clock of Redis alone. Changes are polled
//! for: each poll names the workers that live and brings those records that changed since the last one. One task
//! holds the connection, and makes it anew when it breaks.

mod known;

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, Script, ScriptInvocation,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Backoff, Granted, Registry, RegistryError, SlotKey, Snapshot, WorkerRecord};
use known::{Known, Reading};

/// How often changes are looked for.
const POLL: Duration = Duration::from_millis(200);
/// Longest wait for a connection, or for an answer: whoever asks has somebody who listens.
const DEADLINE: Duration = Duration::from_millis(1_000);
/// Waits between attempts to connect: the first is below this ...
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// ... and none is longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// Slots that are renewed by one call.
const BATCH: usize = 500;

const WORKERS: &str = "{duologue}:workers";
const ADDRESSES: &str = "{duologue}:addresses";
const LEASES: &str = "{duologue}:leases";
const VERSIONS: &str = "{duologue}:versions";
const VERSION: &str = "{duologue}:version";
const SLOTS: &str = "{duologue}:slots:";
const LOCK: &str = "{duologue}:lock:";

macro_rules! script {
    ($name:ident, $file:literal) => {
        static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!($file)));
    };
}
script!(ANNOUNCE, "announce.lua");
script!(WITHDRAW, "withdraw.lua");
script!(READ, "read.lua");
script!(TAKE_SLOT, "take_slot.lua");
script!(RENEW_SLOTS, "renew_slots.lua");
script!(LOCK_TAKE, "lock.lua");
script!(LOCK_OPEN, "unlock.lua");

/// A record as Redis holds it, with what a reader must know when it is not renewed any more.
#[derive(Serialize, Deserialize)]
struct Announced {
    lease_ms: u64,
    record: WorkerRecord,
}

/// Workers, slots and locks in Redis (6 or later). Clones are handles on the same connection.
#[derive(Clone)]
pub struct RedisRegistry {
    link: Arc<Link>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Ends the task when the last handle goes.
    _stop: Arc<DropGuard>,
}

/// The connection, while there is one.
struct Link {
    client: Client,
    /// Without its password.
    address: String,
    connection: Mutex<Result<MultiplexedConnection, String>>,
    /// A call found the connection broken.
    broken: Notify,
}

impl RedisRegistry {
    /// A registry at `url`, such as `redis://10.0.0.2:6379` or `redis://:PASSWORD@HOST:PORT/DB`. Connects in a task of
    /// its own, so must be called within a Tokio runtime; [`RedisRegistry::connected`] waits for it.
    ///
    /// # Errors
    /// [`RegistryError::Address`].
    pub fn open(url: &str) -> Result<Self, RegistryError> {
        let bad = || RegistryError::Address(without_password(url));
        let info = url.into_connection_info().map_err(|_| bad())?;
        let address = info.addr().to_string();
        let client = Client::open(info).map_err(|_| bad())?;
        let link = Arc::new(Link {
            client,
            address,
            connection: Mutex::new(Err("not connected yet".into())),
            broken: Notify::new(),
        });
        let (told, snapshots) = watch::channel(Arc::new(Snapshot::empty(false)));
        let stop = CancellationToken::new();
        let keeper = Keeper {
            link: Arc::clone(&link),
            told,
            known: Known::default(),
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            away_since: None,
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(keeper.keep()));
        Ok(Self {
            link,
            snapshots,
            _stop: Arc::new(stop.drop_guard()),
        })
    }

    /// Waits until the workers are known.
    ///
    /// # Errors
    /// [`RegistryError::Away`] when that takes longer than `patience`.
    pub async fn connected(&self, patience: Duration) -> Result<(), RegistryError> {
        let mut snapshots = self.snapshots.clone();
        let known = snapshots.wait_for(|snapshot| snapshot.current);
        match tokio::time::timeout(patience, known).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.link.away(self.link.connection().err())),
        }
    }

    async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RegistryError> {
        let mut connection = self
            .link
            .connection()
            .map_err(|why| self.link.away(Some(why)))?;
        script
            .invoke_async(&mut connection)
            .await
            .map_err(|error| self.link.failed(&error))
    }
}

impl Link {
    fn connection(&self) -> Result<MultiplexedConnection, String> {
        let connection = self.connection.lock();
        connection.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, connection: Result<MultiplexedConnection, String>) {
        *self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = connection;
    }

    fn away(&self, why: Option<String>) -> RegistryError {
        RegistryError::Away {
            address: self.address.clone(),
            why: why.unwrap_or_else(|| "it does not answer".into()),
        }
    }

    /// What a failed call means; one that found the connection broken has it made anew.
    fn failed(&self, error: &redis::RedisError) -> RegistryError {
        if is_about_contents(error) {
            return RegistryError::Broken(error.to_string());
        }
        self.set(Err(error.to_string()));
        self.broken.notify_one();
        self.away(Some(error.to_string()))
    }

    async fn connect(&self) -> Result<MultiplexedConnection, redis::RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }
}

/// A server that answers, but not what it should.
fn is_about_contents(error: &redis::RedisError) -> bool {
    use redis::{ErrorKind, ServerErrorKind};
    match error.kind() {
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse => true,
        ErrorKind::Server(kind) => matches!(kind, ServerErrorKind::ResponseError),
        _ => false,
    }
}

/// Keeps the connection, and tells of what Redis tells.
struct Keeper {
    link: Arc<Link>,
    told: watch::Sender<Arc<Snapshot>>,
    known: Known,
    backoff: Backoff,
    away_since: Option<Instant>,
}

impl Keeper {
    /// Connects, polls, and begins again when that fails.
    async fn keep(mut self) {
        loop {
            let error = match self.link.connect().await {
                Ok(connection) => self.poll(connection).await,
                Err(error) => error,
            };
            self.away(&error);
            tokio::time::sleep(self.backoff.next(rand::random())).await;
        }
    }

    /// Polls until that fails.
    async fn poll(&mut self, mut connection: MultiplexedConnection) -> redis::RedisError {
        self.known.reconnected(Instant::now());
        let mut first = true;
        loop {
            let mut read = READ.prepare_invoke();
            for key in [WORKERS, ADDRESSES, LEASES, VERSIONS, VERSION] {
                read.key(key);
            }
            read.arg(self.known.version()).arg(SLOTS);
            let reading: Reading = match read.invoke_async(&mut connection).await {
                Ok(reading) => reading,
                Err(error) => return error,
            };
            if std::mem::take(&mut first) {
                self.link.set(Ok(connection.clone()));
                self.back();
            }
            let snapshot = self.known.learn(reading, Instant::now());
            self.told.send_if_modified(|old| {
                let differs = old.differs(&snapshot);
                *old = Arc::new(snapshot);
                differs
            });
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.link.broken.notified() => {}
            }
        }
    }

    fn back(&mut self) {
        self.backoff.reset();
        if let Some(since) = self.away_since.take() {
            let seconds = since.elapsed().as_secs_f32();
            tracing::info!(address = self.link.address, seconds, "the registry is back");
        }
    }

    fn away(&mut self, error: &redis::RedisError) {
        self.link.set(Err(error.to_string()));
        if self.away_since.is_none() {
            self.away_since = Some(Instant::now());
            tracing::warn!(
                address = self.link.address, %error,
                "the registry cannot be reached; what is known of the workers stays, and it is tried again"
            );
        }
        self.told.send_if_modified(|snapshot| {
            let was = snapshot.current;
            if was {
                *snapshot = Arc::new(Snapshot {
                    current: false,
                    ..Snapshot::clone(snapshot)
                });
            }
            was
        });
    }
}

fn slots_of(worker: &str) -> String {
    format!("{SLOTS}{worker}")
}

fn millis(lease: Duration) -> u64 {
    lease.as_millis().max(1) as u64
}

/// An address as it may be shown.
fn without_password(url: &str) -> String {
    match url
        .split_once("://")
        .map(|(scheme, rest)| (scheme, rest.rsplit_once('@')))
    {
        Some((scheme, Some((_, host)))) => format!("{scheme}://...@{host}"),
        _ => url.to_owned(),
    }
}

#[async_trait]
impl Registry for RedisRegistry {
    async fn announce(&self, record: &WorkerRecord, lease: Duration) -> Result<(), RegistryError> {
        let announced = Announced {
            lease_ms: millis(lease),
            record: record.clone(),
        };
        let json = serde_json::to_string(&announced)
            .map_err(|error| RegistryError::Broken(error.to_string()))?;
        let mut script = ANNOUNCE.prepare_invoke();
        for key in [WORKERS, ADDRESSES, LEASES, VERSIONS, VERSION] {
            script.key(key);
        }
        script
            .arg(&record.name)
            .arg(&record.address)
            .arg(json)
            .arg(millis(lease));
        if self.run(&script).await? {
            return Ok(());
        }
        Err(RegistryError::NameTaken {
            name: record.name.clone(),
        })
    }

    async fn withdraw(&self, name: &str) -> Result<(), RegistryError> {
        let mut script = WITHDRAW.prepare_invoke();
        for key in [WORKERS, ADDRESSES, LEASES, VERSIONS] {
            script.key(key);
        }
        self.run(script.arg(name)).await
    }

    fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    async fn take_slot(
        &self,
        slot: &SlotKey,
        room: u32,
        lease: Duration,
    ) -> Result<Granted, RegistryError> {
        let mut script = TAKE_SLOT.prepare_invoke();
        script.key(slots_of(&slot.worker));
        script.arg(&slot.holder).arg(room).arg(millis(lease));
        let (granted, taken) = self.run(&script).await?;
        Ok(Granted { granted, taken })
    }

    async fn renew_slots(&self, slots: &[SlotKey], lease: Duration) -> Result<(), RegistryError> {
        for batch in slots.chunks(BATCH) {
            let mut script = RENEW_SLOTS.prepare_invoke();
            script.arg(millis(lease));
            for slot in batch {
                script.key(slots_of(&slot.worker)).arg(&slot.holder);
            }
            self.run::<()>(&script).await?;
        }
        Ok(())
    }

    async fn give_back(&self, slot: &SlotKey) -> Result<(), RegistryError> {
        static GIVE_BACK: LazyLock<Script> =
            LazyLock::new(|| Script::new("return redis.call('ZREM', KEYS[1], ARGV[1])"));
        let mut script = GIVE_BACK.prepare_invoke();
        script.key(slots_of(&slot.worker));
        self.run(script.arg(&slot.holder)).await
    }

    async fn lock(&self, name: &str, holder: &str, lease: Duration) -> Result<bool, RegistryError> {
        let mut script = LOCK_TAKE.prepare_invoke();
        script.key(format!("{LOCK}{name}"));
        self.run(script.arg(holder).arg(millis(lease))).await
    }

    async fn unlock(&self, name: &str, holder: &str) -> Result<(), RegistryError> {
        let mut script = LOCK_OPEN.prepare_invoke();
        script.key(format!("{LOCK}{name}"));
        self.run(script.arg(holder)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_without_telling_its_password() {
        let refused = RedisRegistry::open("http://:secret@host:1").err();
        let told = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(
            told.contains("host:1") && !told.contains("secret"),
            "{told}"
        );
    }
}
