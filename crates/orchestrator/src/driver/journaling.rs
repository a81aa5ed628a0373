//! A session that is kept, so that another process can go on with it, and one that goes on.

use std::time::Duration;

use duologue_session::{Content, Event, Item, ItemKind, Place, ReplyPatch, Role};
use serde_json::{Value, json};

use super::Driver;
use crate::journal::Record;
use crate::realtime::{Dialect, TurnDetection};
use crate::transport::{Backlog, Outbound};

/// What was said before, in another session of the same conversation.
#[derive(Debug)]
pub(super) struct Past {
    items: Vec<Item>,
    /// The user waits for an answer.
    unanswered: bool,
}

impl<O: Outbound> Driver<O> {
    /// Takes up what was kept: the settings now, the items when the client can be told.
    pub(super) fn remember(&mut self, record: Record) {
        let taken = self.preset(&record.settings).or_else(|_| {
            // A voice that is not here is what most likely differs between two servers.
            let mut settings = record.settings.clone();
            if let Some(output) = settings
                .pointer_mut("/audio/output")
                .and_then(Value::as_object_mut)
            {
                output.remove("voice");
            }
            self.preset(&settings)
        });
        if let Err(error) = taken {
            tracing::warn!(
                error = error.message,
                "a conversation goes on with the server's settings, not its own"
            );
        }
        tracing::info!(items = record.items.len(), "a conversation goes on here");
        self.past = Some(Past {
            items: record.items,
            unanswered: record.unanswered,
        });
    }

    /// Tells the core, and so the client, what was said before.
    pub(super) fn recall(&mut self) -> Result<(), Backlog> {
        let Some(past) = &mut self.past else {
            return Ok(());
        };
        for item in std::mem::take(&mut past.items) {
            self.tell(Event::CreateItem {
                item,
                place: Place::End,
            })?;
        }
        // A client whose sound comes beside the events has no way for it yet.
        match self.outbound.lead() {
            None => self.answer_what_is_owed(),
            Some(_) => Ok(()),
        }
    }

    /// Answers the user's last words, where that was still to be done.
    pub(super) fn answer_what_is_owed(&mut self) -> Result<(), Backlog> {
        let Some(past) = self.past.take_if(|past| past.items.is_empty()) else {
            return Ok(());
        };
        let asked =
            self.core.items().last().is_some_and(|item| {
                item.role() == Some(Role::User) && !item.text().trim().is_empty()
            });
        let by_hand = self.settings.turn_detection == TurnDetection::None;
        if !past.unanswered || !asked || by_hand {
            return Ok(());
        }
        self.timer.start(self.now());
        self.tell(Event::CreateReply(ReplyPatch::default()))
    }

    /// Something changed that is worth keeping.
    pub(super) fn journal_change(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.change();
        }
    }

    /// When the session is next to be written down.
    pub(super) fn journal_due(&self) -> Option<Duration> {
        self.journal.as_ref()?.due()
    }

    pub(super) fn journal_if_due(&mut self) {
        if self.journal_due().is_some_and(|due| due <= self.wall()) {
            self.journal_now();
        }
    }

    /// Writes down what the session is now.
    pub(super) fn journal_now(&mut self) {
        let now = self.wall();
        if self.journal.is_none() {
            return;
        }
        let mut settings = self.settings.to_json("", Dialect::Ga);
        if let Some(temperature) = self.settings.temperature {
            settings["temperature"] = json!(temperature);
        }
        // Not settings, or not of the conversation.
        if let Some(settings) = settings.as_object_mut() {
            settings.retain(|name, value| {
                !matches!(name.as_str(), "id" | "object" | "model") && !value.is_null()
            });
            if let Some(duologue) = settings.get_mut("duologue").and_then(Value::as_object_mut) {
                duologue.retain(|name, _| !name.starts_with("resume"));
            }
        }
        let items = self.core.items_so_far();
        let items = items.into_iter().filter(has_words).collect();
        let record = Record::new(items, settings, self.thinking_now);
        if let Some(journal) = &mut self.journal {
            journal.record(now, record);
        }
    }
}

/// What a model could read. The words of what is being transcribed are not known yet, and its sound is not kept.
fn has_words(item: &Item) -> bool {
    match &item.kind {
        ItemKind::Message { content, .. } => content.iter().any(|part| match part {
            Content::Text(text) => !text.is_empty(),
            Content::Audio { transcript } => {
                transcript.as_ref().is_some_and(|text| !text.is_empty())
            }
        }),
        ItemKind::FunctionCall { .. } | ItemKind::FunctionCallOutput { .. } => true,
    }
}
