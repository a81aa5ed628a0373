//! What is kept of a conversation so that another orchestrator can go on with it: its items, with of each reply what
//! was heard, and its settings. No sound.
//!
//! It is text, so it is kept only where the configuration says so, for a set time, and under a name that nobody can
//! guess: a client names its conversation by a token of 128 random bits that it alone was told, and the journal holds
//! the token's hash. (A session's id would not do: it stands in logs, in events and in the names of recordings.) A
//! conversation in a LiveKit room is named by the room and whom we talk with; no client can name that.
//!
//! Who takes a conversation over raises its epoch, and what an orchestrator of an older epoch has still to write is
//! refused: a process that was cut off and comes back does no harm.

mod memory;
mod redis;
mod writer;

use std::time::Duration;

use async_trait::async_trait;
use duologue_session::{Item, Role};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use memory::MemoryJournal;
pub use redis::RedisJournal;
pub(crate) use writer::JournalWriter;

/// Longest wait for a journal when a client comes back.
pub(crate) const TAKE_DEADLINE: Duration = Duration::from_millis(1_500);
/// What a conversation may take, bytes of JSON; its oldest items are left out.
const RECORD_LIMIT: usize = 256 * 1024;
/// Version of [`Record`]; another is not read.
const FORMAT: u32 = 1;

/// Why a journal did not do what it was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JournalError {
    /// It cannot be reached now. Sessions go on, and are written down when it is back.
    #[error(
        "the journal at {address} cannot be reached: {why}; it is tried again by itself. Is Redis running there?"
    )]
    Away {
        /// Where it should be, without its password.
        address: String,
        /// What was found.
        why: String,
    },
    /// An address that names no journal.
    #[error(
        "{0:?} is not a journal's address; write it as redis://HOST:PORT, redis://:PASSWORD@HOST:PORT/DB, or `memory`"
    )]
    Address(String),
    /// Something in the journal is not what it should be.
    #[error("the journal answered what it should not: {0}")]
    Broken(String),
}

/// The name of a conversation in a journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConversationKey(String);

impl ConversationKey {
    /// The conversation of whoever has this token.
    #[must_use]
    pub fn of_token(token: &ResumeToken) -> Self {
        Self(format!("token:{}", hash(&[&token.0])))
    }

    /// The conversation with somebody in a room. `sid` is the room's own id, which differs when it is opened anew.
    #[must_use]
    pub fn of_room(server: &str, room: &str, sid: &str, identity: &str) -> Self {
        Self(format!("room:{}", hash(&[server, room, sid, identity])))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

pub(crate) fn hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Names a conversation, and lets whoever has it go on with it: 32 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct ResumeToken(String);

impl ResumeToken {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// Reads what a client gives; `None`: it cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        digits.then(|| Self(text.to_owned()))
    }

    /// As the client is told.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResumeToken(…)")
    }
}

/// What is kept of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    /// The conversation, oldest first; of a reply that was under way, what was heard.
    pub items: Vec<Item>,
    /// The client's settings, as in a `session.update`.
    pub settings: Value,
    /// The user's turn was over, and nothing of an answer had been heard.
    pub unanswered: bool,
}

impl Record {
    /// A record of a conversation.
    #[must_use]
    pub fn new(items: Vec<Item>, settings: Value, unanswered: bool) -> Self {
        Self {
            format: FORMAT,
            items,
            settings,
            unanswered,
        }
    }

    /// As JSON within the bound; the oldest items are left out where it would take more, those of the operator last.
    ///
    /// # Errors
    /// [`JournalError::Broken`] where settings alone are too large.
    pub fn to_json(&self) -> Result<String, JournalError> {
        let broken = |error: serde_json::Error| JournalError::Broken(error.to_string());
        let json = serde_json::to_string(self).map_err(broken)?;
        if json.len() <= RECORD_LIMIT {
            return Ok(json);
        }
        let shorter = Self {
            items: self.newest(RECORD_LIMIT / 4 * 3),
            format: self.format,
            settings: self.settings.clone(),
            unanswered: self.unanswered,
        };
        let json = serde_json::to_string(&shorter).map_err(broken)?;
        match json.len() <= RECORD_LIMIT {
            true => Ok(json),
            false => Err(JournalError::Broken(format!(
                "a session's settings take more than {RECORD_LIMIT} bytes"
            ))),
        }
    }

    /// The newest items that fit into so many bytes of JSON, the operator's before all others, in their order.
    fn newest(&self, bytes: usize) -> Vec<Item> {
        let mut left = bytes;
        let mut kept = vec![false; self.items.len()];
        for operator in [true, false] {
            for (item, kept) in self.items.iter().zip(&mut kept).rev() {
                if (item.role() == Some(Role::System)) != operator {
                    continue;
                }
                let size = serde_json::to_string(item).map_or(usize::MAX, |json| json.len() + 1);
                match left.checked_sub(size) {
                    Some(rest) => left = rest,
                    None => break,
                }
                *kept = true;
            }
        }
        let items = self.items.iter().zip(kept);
        items
            .filter(|(_, kept)| *kept)
            .map(|(item, _)| item.clone())
            .collect()
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// [`JournalError::Broken`].
    pub fn from_json(json: &str) -> Result<Self, JournalError> {
        let record: Self =
            serde_json::from_str(json).map_err(|error| JournalError::Broken(error.to_string()))?;
        match record.format {
            FORMAT => Ok(record),
            other => Err(JournalError::Broken(format!(
                "a conversation is written in format {other}; this version reads {FORMAT}"
            ))),
        }
    }
}

/// A conversation that was taken over.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// Under which it is written from now on.
    pub epoch: u64,
    /// What was kept, as JSON.
    pub record: String,
}

/// What became of something that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is there.
    Kept,
    /// Another has taken the conversation over.
    Superseded,
}

/// Where conversations are kept, each for a set time after it was last written.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Writes a conversation, in place of what was there, unless it has been taken over under a later epoch. A new
    /// conversation has the epoch 1.
    ///
    /// # Errors
    /// [`JournalError::Away`].
    async fn write(
        &self,
        key: &ConversationKey,
        epoch: u64,
        record: &str,
    ) -> Result<Written, JournalError>;

    /// Takes a conversation over; `None`: there is none, or no longer.
    ///
    /// # Errors
    /// [`JournalError::Away`].
    async fn take(&self, key: &ConversationKey) -> Result<Option<Taken>, JournalError>;

    /// Says that somebody looks after a room for `lease` from now; with a lease of nothing, that nobody does any
    /// more and somebody should. `group`: who may take it over. A journal that nobody shares needs not know.
    ///
    /// # Errors
    /// [`JournalError::Away`].
    async fn hold_room(
        &self,
        _group: &str,
        _room: &str,
        _lease: Duration,
    ) -> Result<(), JournalError> {
        Ok(())
    }

    /// The conversation in a room is over: nobody is to look after it.
    ///
    /// # Errors
    /// [`JournalError::Away`].
    async fn leave_room(&self, _group: &str, _room: &str) -> Result<(), JournalError> {
        Ok(())
    }

    /// A room of the group whose lease has run out, if there is one. It is then held for `lease` by whoever asked,
    /// and nobody else gets it.
    ///
    /// # Errors
    /// [`JournalError::Away`].
    async fn take_room(
        &self,
        _group: &str,
        _lease: Duration,
    ) -> Result<Option<String>, JournalError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
