//! The journal of one process: a client that lost its connection goes on with its conversation.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{ConversationKey, Journal, JournalError, Taken, Written};

/// Conversations that are kept at once; the one that was written longest ago goes first.
const MOST: usize = 10_000;

/// Conversations in memory.
pub struct MemoryJournal {
    keep: Duration,
    conversations: Mutex<HashMap<ConversationKey, Kept>>,
}

struct Kept {
    epoch: u64,
    record: String,
    written: Instant,
}

impl MemoryJournal {
    /// A journal that keeps conversations for so long after they were last written.
    #[must_use]
    pub fn new(keep: Duration) -> Self {
        Self {
            keep,
            conversations: Mutex::default(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<ConversationKey, Kept>) -> T) -> T {
        let mut conversations = self
            .conversations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        conversations.retain(|_, kept| kept.written.elapsed() < self.keep);
        act(&mut conversations)
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn write(
        &self,
        key: &ConversationKey,
        epoch: u64,
        record: &str,
    ) -> Result<Written, JournalError> {
        Ok(self.with(|conversations| {
            if conversations
                .get(key)
                .is_some_and(|kept| kept.epoch > epoch)
            {
                return Written::Superseded;
            }
            if conversations.len() >= MOST && !conversations.contains_key(key) {
                let oldest = conversations.iter().min_by_key(|(_, kept)| kept.written);
                if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                    conversations.remove(&oldest);
                }
            }
            let kept = Kept {
                epoch,
                record: record.to_owned(),
                written: Instant::now(),
            };
            conversations.insert(key.clone(), kept);
            Written::Kept
        }))
    }

    async fn take(&self, key: &ConversationKey) -> Result<Option<Taken>, JournalError> {
        Ok(self.with(|conversations| {
            let kept = conversations.get_mut(key)?;
            kept.epoch += 1;
            Some(Taken {
                epoch: kept.epoch,
                record: kept.record.clone(),
            })
        }))
    }
}
