//! What a conversation is made of: messages, function calls, and their results.

use crate::ItemId;
use serde::{Deserialize, Serialize};

/// One entry of the conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its name, unique in the session. Empty in [`crate::Event::CreateItem`] lets the session choose.
    pub id: ItemId,
    /// Whether it is whole.
    pub status: ItemStatus,
    /// What it says.
    pub kind: ItemKind,
}

/// Whether an item is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    /// Being made.
    InProgress,
    /// Whole.
    Completed,
    /// Cut off: holds what was heard.
    Incomplete,
}

/// What an item says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// Somebody said or wrote something.
    Message {
        /// Who.
        role: Role,
        /// What, in parts.
        content: Vec<Content>,
    },
    /// The model asks the client to run a function.
    FunctionCall {
        /// Pairs the call with its output.
        call_id: String,
        /// The function.
        name: String,
        /// Its arguments, JSON.
        arguments: String,
    },
    /// The client's answer to a function call.
    FunctionCallOutput {
        /// The call it answers.
        call_id: String,
        /// What the function returned.
        output: String,
    },
}

/// Who a message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The operator.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Written.
    Text(String),
    /// Spoken. `None` while the transcript is not known (or could not be made). For the assistant: the words
    /// that were heard.
    Audio {
        /// What was said.
        transcript: Option<String>,
    },
}

impl Item {
    /// A written message, completed.
    #[must_use]
    pub fn message(id: impl Into<ItemId>, role: Role, text: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            status: ItemStatus::Completed,
            kind: ItemKind::Message {
                role,
                content: vec![Content::Text(text.into())],
            },
        }
    }

    /// The words of a message, its parts joined by spaces; empty for the other kinds.
    #[must_use]
    pub fn text(&self) -> String {
        let ItemKind::Message { content, .. } = &self.kind else {
            return String::new();
        };
        let parts: Vec<&str> = content
            .iter()
            .filter_map(|part| match part {
                Content::Text(text) => Some(text.as_str()),
                Content::Audio { transcript } => transcript.as_deref(),
            })
            .filter(|text| !text.is_empty())
            .collect();
        parts.join(" ")
    }

    /// A user's message that came by voice.
    pub(crate) fn is_spoken_by_user(&self) -> bool {
        matches!(&self.kind, ItemKind::Message { role: Role::User, content }
            if content.iter().all(|part| matches!(part, Content::Audio { .. })))
    }

    /// Who a message is from; `None` for the other kinds.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match self.kind {
            ItemKind::Message { role, .. } => Some(role),
            _ => None,
        }
    }
}
