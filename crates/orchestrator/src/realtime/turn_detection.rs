//! Who decides when a user's turn is over, as clients see it.

use serde_json::{Value, json};

use super::EventError;
use super::json::Fields;

/// When a turn ends.
#[derive(Clone, Debug, PartialEq)]
pub enum TurnDetection {
    /// After a silence.
    ServerVad {
        /// Speech probability that counts as speech, 0 to 1.
        threshold: f32,
        /// Sound kept from before the onset, ms.
        prefix_padding_ms: u32,
        /// Silence that ends a turn, ms.
        silence_duration_ms: u32,
        /// Silence of the user after which the assistant speaks up, ms.
        idle_timeout_ms: Option<u32>,
        /// Whether a turn's end starts a reply.
        create_response: bool,
        /// Whether speech stops a reply.
        interrupt_response: bool,
    },
    /// When what was said sounds finished.
    SemanticVad {
        /// `low`, `medium`, `high` or `auto`: how soon.
        eagerness: String,
        /// Whether a turn's end starts a reply.
        create_response: bool,
        /// Whether speech stops a reply.
        interrupt_response: bool,
    },
    /// When the client commits.
    None,
}

impl Default for TurnDetection {
    fn default() -> Self {
        Self::SemanticVad {
            eagerness: "auto".into(),
            create_response: true,
            interrupt_response: true,
        }
    }
}

impl TurnDetection {
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::ServerVad {
                threshold,
                prefix_padding_ms,
                silence_duration_ms,
                idle_timeout_ms,
                create_response,
                interrupt_response,
            } => json!({
                "type": "server_vad",
                "threshold": threshold,
                "prefix_padding_ms": prefix_padding_ms,
                "silence_duration_ms": silence_duration_ms,
                "idle_timeout_ms": idle_timeout_ms,
                "create_response": create_response,
                "interrupt_response": interrupt_response,
            }),
            Self::SemanticVad {
                eagerness,
                create_response,
                interrupt_response,
            } => json!({
                "type": "semantic_vad",
                "eagerness": eagerness,
                "create_response": create_response,
                "interrupt_response": interrupt_response,
            }),
            Self::None => Value::Null,
        }
    }

    pub(super) fn parse(value: &Value, path: &str) -> Result<Self, EventError> {
        if value.is_null() {
            return Ok(Self::None);
        }
        let fields = Fields::of(value, path)?;
        let create_response = fields.flag("create_response")?.unwrap_or(true);
        let interrupt_response = fields.flag("interrupt_response")?.unwrap_or(true);
        match fields.text("type")?.unwrap_or("server_vad") {
            "server_vad" => Ok(Self::ServerVad {
                threshold: fields.number("threshold", 0.0..=1.0)?.unwrap_or(0.5) as f32,
                prefix_padding_ms: fields
                    .number("prefix_padding_ms", 0.0..=5_000.0)?
                    .unwrap_or(300.0) as u32,
                silence_duration_ms: fields
                    .number("silence_duration_ms", 0.0..=60_000.0)?
                    .unwrap_or(500.0) as u32,
                idle_timeout_ms: fields
                    .number("idle_timeout_ms", 1_000.0..=600_000.0)?
                    .map(|ms| ms as u32),
                create_response,
                interrupt_response,
            }),
            "semantic_vad" => {
                let eagerness = fields.text("eagerness")?.unwrap_or("auto");
                if !["low", "medium", "high", "auto"].contains(&eagerness) {
                    return Err(EventError::value(
                        fields.path("eagerness"),
                        format!("{eagerness:?} is not an eagerness: use low, medium, high or auto"),
                    ));
                }
                Ok(Self::SemanticVad {
                    eagerness: eagerness.into(),
                    create_response,
                    interrupt_response,
                })
            }
            "none" => Ok(Self::None),
            other => Err(EventError::value(
                fields.path("type"),
                format!("{other:?} is not a turn detection: use server_vad, semantic_vad, or null"),
            )),
        }
    }
}
