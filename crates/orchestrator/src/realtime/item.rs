//! The conversation's items, and what a reply cost, as events show them.

use duologue_session::{Content, Item, ItemKind, ItemStatus, Role, Usage};
use serde_json::{Value, json};

use super::Dialect;

/// An item, as clients of that dialect know it.
pub(super) fn item_json(item: &Item, dialect: Dialect) -> Value {
    let status = match item.status {
        ItemStatus::InProgress => "in_progress",
        ItemStatus::Completed => "completed",
        ItemStatus::Incomplete => "incomplete",
    };
    let mut out = json!({"id": item.id, "object": "realtime.item", "status": status});
    match &item.kind {
        ItemKind::Message { role, content } => {
            out["type"] = json!("message");
            out["role"] = json!(match role {
                Role::System => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
            });
            out["content"] = content
                .iter()
                .map(|part| content_json(*role, part, dialect))
                .collect();
        }
        ItemKind::FunctionCall {
            call_id,
            name,
            arguments,
        } => {
            out["type"] = json!("function_call");
            out["call_id"] = json!(call_id);
            out["name"] = json!(name);
            out["arguments"] = json!(arguments);
        }
        ItemKind::FunctionCallOutput { call_id, output } => {
            out["type"] = json!("function_call_output");
            out["call_id"] = json!(call_id);
            out["output"] = json!(output);
        }
    }
    out
}

fn content_json(role: Role, part: &Content, dialect: Dialect) -> Value {
    match (part, role, dialect) {
        (Content::Text(text), Role::Assistant, Dialect::Ga) => {
            json!({"type": "output_text", "text": text})
        }
        (Content::Text(text), Role::Assistant, Dialect::Beta) => {
            json!({"type": "text", "text": text})
        }
        (Content::Text(text), _, _) => json!({"type": "input_text", "text": text}),
        (Content::Audio { transcript }, Role::Assistant, Dialect::Ga) => {
            json!({"type": "output_audio", "transcript": transcript})
        }
        (Content::Audio { transcript }, Role::Assistant, Dialect::Beta) => {
            json!({"type": "audio", "transcript": transcript})
        }
        (Content::Audio { transcript }, _, _) => {
            json!({"type": "input_audio", "transcript": transcript})
        }
    }
}

/// What a reply cost.
pub(super) fn usage_json(usage: &Usage) -> Value {
    json!({
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_token_details": {"text_tokens": usage.input_tokens, "audio_tokens": 0,
                                "cached_tokens": usage.cached_tokens},
        "output_token_details": {"text_tokens": usage.output_tokens, "audio_tokens": 0},
    })
}
