//! What a client is told when its event cannot be carried out.

use serde_json::{Value, json};

/// Most characters that are told of a mistake: what is wrong may be quoted, and that may be long.
const MOST_TOLD: usize = 500;

/// A refused client event; it becomes an `error` event and the session goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EventError {
    /// A code for programs, such as `invalid_value`.
    pub code: &'static str,
    /// What is wrong and what to do, for people.
    pub message: String,
    /// Path of the offending field.
    pub param: Option<String>,
    /// `event_id` of the client's event.
    pub event_id: Option<String>,
    /// Whether the fault is ours.
    pub server_fault: bool,
}

impl EventError {
    /// The client's mistake.
    pub fn invalid(
        code: &'static str,
        param: impl Into<Option<&'static str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: shortened(message.into()),
            param: param.into().map(str::to_owned),
            event_id: None,
            server_fault: false,
        }
    }

    /// A value that is not allowed, at a path built at run time.
    pub fn value(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: "invalid_value",
            message: shortened(message.into()),
            param: Some(param.into()),
            event_id: None,
            server_fault: false,
        }
    }

    /// Something failed on our side.
    pub fn server(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
            event_id: None,
            server_fault: true,
        }
    }

    /// Names the client's event.
    #[must_use]
    pub fn of(mut self, event_id: Option<String>) -> Self {
        self.event_id = event_id;
        self
    }

    /// The body of an `error` event.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "type": if self.server_fault { "server_error" } else { "invalid_request_error" },
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "event_id": self.event_id,
        })
    }
}

/// The beginning and the end of what is too long.
fn shortened(message: String) -> String {
    let characters = message.chars().count();
    if characters <= MOST_TOLD {
        return message;
    }
    let begin: String = message.chars().take(MOST_TOLD * 3 / 5).collect();
    let end: String = message
        .chars()
        .skip(characters - MOST_TOLD * 2 / 5)
        .collect();
    format!("{begin} … {end}")
}
