//! The journal of many hosts, in Redis: one hash a conversation, which Redis drops when its time is over.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, Script, ScriptInvocation,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{ConversationKey, Journal, JournalError, Taken, Written};

/// Longest wait for a connection, or for an answer.
const DEADLINE: Duration = Duration::from_millis(1_000);
/// After an attempt to connect that failed, none is made for so long: all sessions would wait for it in turn.
const PAUSE: Duration = Duration::from_millis(500);

/// After Redis was away, nobody takes a room over for so long: all leases have run out meanwhile.
const SETTLE: Duration = Duration::from_secs(2);

static WRITE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("write.lua")));
static HOLD_ROOM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("hold_room.lua")));
static LEAVE_ROOM: LazyLock<Script> =
    LazyLock::new(|| Script::new("return redis.call('ZREM', KEYS[1], ARGV[1])"));
static TAKE_ROOM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take_room.lua")));
static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take.lua")));

/// Conversations in Redis (6 or later).
pub struct RedisJournal {
    client: Client,
    /// Without its password.
    address: String,
    keep: Duration,
    link: Mutex<Link>,
}

enum Link {
    Up(MultiplexedConnection),
    Down {
        why: String,
        /// When to try again.
        again: Instant,
    },
}

impl RedisJournal {
    /// A journal at `url`, such as `redis://10.0.0.2:6379`, that keeps conversations for so long after they were last
    /// written. It connects when it is first asked.
    ///
    /// # Errors
    /// [`JournalError::Address`].
    pub fn open(url: &str, keep: Duration) -> Result<Self, JournalError> {
        let bad = |_| {
            let shown = url.rsplit_once('@').map_or(url, |(_, host)| host);
            JournalError::Address(shown.to_owned())
        };
        let info = url.into_connection_info().map_err(bad)?;
        let address = info.addr().to_string();
        Ok(Self {
            client: Client::open(info).map_err(bad)?,
            address,
            keep,
            link: Mutex::new(Link::Down {
                why: String::new(),
                again: Instant::now(),
            }),
        })
    }

    fn away(&self, why: impl ToString) -> JournalError {
        JournalError::Away {
            address: self.address.clone(),
            why: why.to_string(),
        }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, JournalError> {
        let mut link = self.link.lock().await;
        match &*link {
            Link::Up(connection) => return Ok(connection.clone()),
            Link::Down { why, again } if Instant::now() < *again => return Err(self.away(why)),
            Link::Down { .. } => {}
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        match connecting.await {
            Ok(connection) => {
                *link = Link::Up(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                *link = Link::Down {
                    why: error.to_string(),
                    again: Instant::now() + PAUSE,
                };
                Err(self.away(error))
            }
        }
    }

    async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, JournalError> {
        let mut connection = self.connection().await?;
        match script.invoke_async(&mut connection).await {
            Ok(answer) => Ok(answer),
            Err(error)
                if !error.is_connection_dropped()
                    && !error.is_timeout()
                    && !error.is_io_error() =>
            {
                Err(JournalError::Broken(error.to_string()))
            }
            Err(error) => {
                *self.link.lock().await = Link::Down {
                    why: error.to_string(),
                    again: Instant::now(),
                };
                Err(self.away(error))
            }
        }
    }
}

fn name(key: &ConversationKey) -> String {
    format!("duologue:journal:{}", key.as_str())
}

/// Rooms by when their leases end.
fn rooms(group: &str) -> String {
    format!("duologue:rooms:{group}")
}

#[async_trait]
impl Journal for RedisJournal {
    async fn write(
        &self,
        key: &ConversationKey,
        epoch: u64,
        record: &str,
    ) -> Result<Written, JournalError> {
        let mut write = WRITE.key(name(key));
        let keep = self.keep.as_millis() as u64;
        let kept: bool = self.run(write.arg(epoch).arg(record).arg(keep)).await?;
        Ok(match kept {
            true => Written::Kept,
            false => Written::Superseded,
        })
    }

    async fn take(&self, key: &ConversationKey) -> Result<Option<Taken>, JournalError> {
        let taken: Option<(u64, String)> = self.run(&TAKE.key(name(key))).await?;
        Ok(taken.map(|(epoch, record)| Taken { epoch, record }))
    }

    async fn hold_room(
        &self,
        group: &str,
        room: &str,
        lease: Duration,
    ) -> Result<(), JournalError> {
        let mut hold = HOLD_ROOM.key(rooms(group));
        let keep = self.keep.max(lease).as_millis() as u64;
        let lease = lease.as_millis() as u64;
        self.run(hold.arg(room).arg(lease).arg(keep)).await
    }

    async fn leave_room(&self, group: &str, room: &str) -> Result<(), JournalError> {
        self.run(LEAVE_ROOM.key(rooms(group)).arg(room)).await
    }

    async fn take_room(
        &self,
        group: &str,
        lease: Duration,
    ) -> Result<Option<String>, JournalError> {
        let mut take = TAKE_ROOM.key(rooms(group));
        let lease = lease.as_millis() as u64;
        let take = take.key(format!("{}:watch", rooms(group))).arg(lease);
        self.run(take.arg(SETTLE.as_millis() as u64)).await
    }
}
