//! The JSON that goes to an endpoint, and what endpoints say no to.

use serde_json::{Map, Value, json};

use crate::chat::{ChatRequest, Message, Role, ToolChoice};

/// Parts of a request that an endpoint or model may not know, in the order of [`Quirks`]'s bits.
const OPTIONAL: [&str; 5] = [
    "stream_options",
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
];

/// What an endpoint was found not to take. Bits, so that one atomic remembers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quirks(pub(super) u8);

impl Quirks {
    fn has(self, field: &str) -> bool {
        OPTIONAL
            .iter()
            .position(|f| *f == field)
            .is_some_and(|bit| self.0 & (1 << bit) != 0)
    }

    /// What `message`, the text of a 400 or 422, says about optional parts of a request; `None` if nothing new.
    pub(super) fn learn(self, message: &str) -> Option<Self> {
        let message = message.to_lowercase();
        let refusal = [
            "unsupported",
            "not support",
            "unrecognized",
            "unknown",
            "extra",
            "not permitted",
            "unexpected",
        ];
        if !refusal.iter().any(|word| message.contains(word)) {
            return None;
        }
        let learned = OPTIONAL
            .iter()
            .enumerate()
            .filter(|(_, field)| message.contains(*field))
            .fold(self.0, |bits, (bit, _)| bits | (1 << bit));
        (learned != self.0).then_some(Self(learned))
    }
}

/// The body of a request. Fields in `quirks` are left out, `max_tokens` goes under its newer name.
pub(super) fn body(model: &str, request: &ChatRequest, quirks: Quirks) -> Value {
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert(
        "messages".into(),
        request.messages.iter().map(message).collect(),
    );
    body.insert("stream".into(), true.into());
    let mut optional = |field: &str, value: Option<Value>| {
        if let (Some(value), false) = (value, quirks.has(field)) {
            body.insert(field.into(), value);
        }
    };
    optional("stream_options", Some(json!({"include_usage": true})));
    optional("max_tokens", request.max_tokens.map(Value::from));
    // Through text, so that 0.7 is not sent as 0.699999988079071.
    let float = |value: f32| {
        value
            .to_string()
            .parse::<f64>()
            .map(Value::from)
            .unwrap_or(Value::Null)
    };
    optional("temperature", request.temperature.map(float));
    optional("top_p", request.top_p.map(float));
    optional("seed", request.seed.map(Value::from));
    if let (Some(max), true) = (request.max_tokens, quirks.has("max_tokens")) {
        body.insert("max_completion_tokens".into(), max.into());
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            json!({"type": "function", "function": {
                "name": tool.name, "description": tool.description, "parameters": tool.parameters}})
        });
        body.insert("tools".into(), tools.collect());
        let choice = match &request.tool_choice {
            ToolChoice::Auto => json!("auto"),
            ToolChoice::None => json!("none"),
            ToolChoice::Required => json!("required"),
            ToolChoice::Function(name) => json!({"type": "function", "function": {"name": name}}),
        };
        body.insert("tool_choice".into(), choice);
    }
    Value::Object(body)
}

fn message(message: &Message) -> Value {
    let mut out = Map::new();
    out.insert("role".into(), message.role.as_str().into());
    let silent = message.role == Role::Assistant
        && message.content.is_empty()
        && !message.tool_calls.is_empty();
    out.insert(
        "content".into(),
        if silent {
            Value::Null
        } else {
            message.content.clone().into()
        },
    );
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            json!({"id": call.id, "type": "function",
                "function": {"name": call.name, "arguments": call.arguments}})
        });
        out.insert("tool_calls".into(), calls.collect());
    }
    if let Some(id) = &message.tool_call_id {
        out.insert("tool_call_id".into(), id.clone().into());
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::chat::{Tool, ToolCall};

    #[test]
    fn a_conversation_with_tools_is_written_as_endpoints_read_it() {
        let call = ToolCall {
            id: "c1".into(),
            name: "f".into(),
            arguments: "{}".into(),
        };
        let request = ChatRequest {
            messages: vec![
                Message::system("s"),
                Message {
                    tool_calls: vec![call],
                    ..Message::assistant("")
                },
                Message::tool("c1", "42"),
            ],
            tools: vec![Tool {
                name: "f".into(),
                description: "d".into(),
                parameters: json!({"type": "object"}),
            }],
            tool_choice: ToolChoice::Function("f".into()),
            temperature: Some(0.7),
            max_tokens: Some(9),
            ..ChatRequest::default()
        };
        let body = body("m", &request, Quirks::default());
        assert_eq!(body["messages"][1]["content"], Value::Null);
        assert_eq!(
            body["messages"][1]["tool_calls"][0]["function"]["name"],
            "f"
        );
        assert_eq!(body["messages"][2]["tool_call_id"], "c1");
        assert_eq!(body["tools"][0]["function"]["parameters"]["type"], "object");
        assert_eq!(body["tool_choice"]["function"]["name"], "f");
        assert_eq!(body["temperature"].to_string(), "0.7");
        assert_eq!(
            (&body["max_tokens"], &body["stream"]),
            (&json!(9), &json!(true))
        );
    }

    #[test]
    fn what_an_endpoint_does_not_take_is_left_out() {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.";
        let quirks = Quirks::default().learn(message).unwrap();
        let request = ChatRequest {
            max_tokens: Some(9),
            ..ChatRequest::default()
        };
        let body = body("m", &request, quirks);
        assert_eq!(
            (body.get("max_tokens"), &body["max_completion_tokens"]),
            (None, &json!(9))
        );
        assert_eq!(quirks.learn(message), None, "nothing new the second time");
        assert_eq!(
            Quirks::default().learn("temperature must be below 2"),
            None,
            "a wrong value is not a quirk"
        );
    }
}
