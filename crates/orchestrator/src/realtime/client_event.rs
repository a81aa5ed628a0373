//! Client events, read and checked. What is wrong with one is told; the session goes on.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::json::Fields;
use super::settings::{parse_token_limit, parse_tool_choice, parse_tools};
use super::{EventError, Modality};

/// Longest event, bytes, but for sound: JSON takes some forty times as much in memory once it is read.
const EVENT_LIMIT: usize = 1024 * 1024;
/// Longest text of one item, in characters.
const TEXT_LIMIT: usize = 256 * 1024;
/// Longest output delay a client may report.
const LONGEST_DELAY_MS: f64 = 5_000.0;
/// Latest playout position a client may report: a day.
const LONGEST_AUDIO_MS: f64 = 86_400_000.0;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// Change the session; read with [`super::apply_update`].
    SessionUpdate(Value),
    /// More of the user's sound, still encoded.
    Append(Vec<u8>),
    /// The user's turn is over.
    Commit,
    /// Forget the sound not yet committed.
    ClearInput,
    /// Add to the conversation.
    CreateItem {
        /// Where: after this item, at the start for "root", at the end for `None`.
        previous: Option<String>,
        /// What.
        item: NewItem,
    },
    /// Show an item.
    RetrieveItem(String),
    /// Cut an assistant's item to what was heard.
    TruncateItem {
        /// The item.
        item: String,
        /// Heard, from the item's first sample, ms.
        audio_end_ms: u64,
    },
    /// Remove an item.
    DeleteItem(String),
    /// Reply now.
    CreateReply(ReplyRequest),
    /// Stop replying.
    CancelReply(Option<String>),
    /// Stop the sound of the reply.
    ClearOutput,
    /// Hold the reply.
    Pause,
    /// Go on with it.
    Resume,
    /// How long a sample takes from our sending it to the listener's ear, as far as the client knows, ms.
    OutputDelay(u64),
    /// What the client has really played.
    Playout {
        /// The item.
        item: String,
        /// Played, from the item's first sample, ms.
        audio_end_ms: u64,
    },
}

/// An item that a client adds.
#[derive(Clone, Debug, PartialEq)]
pub enum NewItem {
    /// Something said or written.
    Message {
        /// The client's own id for it.
        id: Option<String>,
        /// `user`, `assistant` or `system`.
        role: String,
        /// The text of all its parts.
        text: String,
    },
    /// A call that the assistant made.
    FunctionCall {
        /// The client's own id for it.
        id: Option<String>,
        /// Joins call and output.
        call_id: String,
        /// The function.
        name: String,
        /// JSON.
        arguments: String,
    },
    /// What a call gave.
    FunctionOutput {
        /// The client's own id for it.
        id: Option<String>,
        /// Joins call and output.
        call_id: String,
        /// The result.
        output: String,
    },
}

/// What a client wants of one reply; `None` is as the session has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplyRequest {
    /// System prompt for this reply.
    pub instructions: Option<String>,
    /// Speech or text.
    pub modality: Option<Modality>,
    /// Functions it may call.
    pub tools: Option<Vec<Value>>,
    /// How it chooses among them.
    pub tool_choice: Option<Value>,
    /// Longest reply, in tokens.
    pub max_output_tokens: Option<u32>,
    /// Sampling temperature.
    pub temperature: Option<f32>,
    /// Shown back in the response.
    pub metadata: Option<Value>,
    /// The conversation does not get to know of it.
    pub aside: bool,
    /// What it answers, instead of the conversation.
    pub input: Option<Vec<InputItem>>,
}

/// A part of what a reply answers.
#[derive(Clone, Debug, PartialEq)]
pub enum InputItem {
    /// An item of the conversation, by its id.
    Known(String),
    /// One that is not in it.
    New(NewItem),
}

/// Reads one event. The second value is its `event_id`, also where reading fails.
///
/// # Errors
/// What is wrong with it, naming the field.
pub fn parse(text: &str) -> Result<(ClientEvent, Option<String>), EventError> {
    if text.len() > EVENT_LIMIT {
        return parse_long(text);
    }
    let value: Value = serde_json::from_str(text).map_err(|error| {
        EventError::invalid("invalid_json", None, format!("this is not JSON: {error}"))
    })?;
    let event_id = value.get("event_id").and_then(Value::as_str).map(short_id);
    match parse_value(&value) {
        Ok(event) => Ok((event, event_id)),
        Err(error) => Err(error.of(event_id)),
    }
}

/// The only event that may be long, read without a copy of what is in it.
#[derive(Deserialize)]
struct Append<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    event_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    audio: Cow<'a, str>,
}

fn parse_long(text: &str) -> Result<(ClientEvent, Option<String>), EventError> {
    let append: Option<Append<'_>> = serde_json::from_str(text).ok();
    let Some(append) = append.filter(|append| append.kind == "input_audio_buffer.append") else {
        return Err(EventError::invalid(
            "invalid_value",
            None,
            format!(
                "this event has {} bytes; only input_audio_buffer.append may have more than {EVENT_LIMIT}",
                text.len()
            ),
        ));
    };
    let event_id = append.event_id.as_deref().map(short_id);
    match sound(&append.audio) {
        Ok(event) => Ok((event, event_id)),
        Err(error) => Err(error.of(event_id)),
    }
}

fn short_id(id: &str) -> String {
    id.chars().take(512).collect()
}

fn sound(base64: &str) -> Result<ClientEvent, EventError> {
    let bytes = STANDARD.decode(base64);
    bytes
        .map(ClientEvent::Append)
        .map_err(|error| EventError::value("audio", format!("audio is not base64: {error}")))
}

fn parse_value(value: &Value) -> Result<ClientEvent, EventError> {
    let fields = Fields::of(value, "")?;
    let id = |name: &str| fields.required_text(name).map(str::to_owned);
    Ok(match fields.required_text("type")? {
        "session.update" => ClientEvent::SessionUpdate(
            fields
                .get("session")
                .ok_or_else(|| fields.missing("session"))?
                .clone(),
        ),
        "input_audio_buffer.append" => sound(fields.required_text("audio")?)?,
        "input_audio_buffer.commit" => ClientEvent::Commit,
        "input_audio_buffer.clear" => ClientEvent::ClearInput,
        "conversation.item.create" => {
            let item = fields.get("item").ok_or_else(|| fields.missing("item"))?;
            ClientEvent::CreateItem {
                previous: fields.text("previous_item_id")?.map(str::to_owned),
                item: parse_item(Fields::of(item, "item")?)?,
            }
        }
        "conversation.item.retrieve" => ClientEvent::RetrieveItem(id("item_id")?),
        "conversation.item.delete" => ClientEvent::DeleteItem(id("item_id")?),
        "conversation.item.truncate" => {
            if fields.number("content_index", 0.0..=1e6)?.unwrap_or(0.0) != 0.0 {
                return Err(EventError::value(
                    "content_index",
                    "an item has one part of sound: content_index must be 0",
                ));
            }
            ClientEvent::TruncateItem {
                item: id("item_id")?,
                audio_end_ms: milliseconds(fields)?,
            }
        }
        "response.create" => ClientEvent::CreateReply(match fields.get("response") {
            Some(response) => parse_reply(Fields::of(response, "response")?)?,
            None => ReplyRequest::default(),
        }),
        "response.cancel" => {
            ClientEvent::CancelReply(fields.text("response_id")?.map(str::to_owned))
        }
        "output_audio_buffer.clear" => ClientEvent::ClearOutput,
        "duologue.pause" => ClientEvent::Pause,
        "duologue.resume" => ClientEvent::Resume,
        "duologue.output_delay" => {
            let delay = fields.required_number("delay_ms", 0.0..=LONGEST_DELAY_MS)?;
            ClientEvent::OutputDelay(delay as u64)
        }
        "duologue.playout" => ClientEvent::Playout {
            item: id("item_id")?,
            audio_end_ms: milliseconds(fields)?,
        },
        other => {
            return Err(EventError::invalid(
                "unknown_event",
                "type",
                format!(
                    "{other:?} is not a client event that this server knows; see docs/protocol.md"
                ),
            ));
        }
    })
}

fn milliseconds(fields: Fields<'_>) -> Result<u64, EventError> {
    Ok(fields.required_number("audio_end_ms", 0.0..=LONGEST_AUDIO_MS)? as u64)
}

fn parse_item(fields: Fields<'_>) -> Result<NewItem, EventError> {
    let id = fields.text("id")?.map(str::to_owned);
    if id
        .as_ref()
        .is_some_and(|id| id.is_empty() || id.len() > 256)
    {
        return Err(EventError::value(
            "item.id",
            "an item's id has 1 to 256 bytes",
        ));
    }
    let text = |name: &str| -> Result<String, EventError> {
        let text = fields.required_text(name)?;
        check_length(&fields.path(name), text)?;
        Ok(text.to_owned())
    };
    match fields.text("type")?.unwrap_or("message") {
        "message" => {
            let role = fields.required_text("role")?;
            if !["user", "assistant", "system"].contains(&role) {
                return Err(EventError::value(
                    "item.role",
                    format!("{role:?} is not a role: use user, assistant or system"),
                ));
            }
            Ok(NewItem::Message {
                id,
                role: role.into(),
                text: parse_content(fields)?,
            })
        }
        "function_call" => Ok(NewItem::FunctionCall {
            id,
            call_id: text("call_id")?,
            name: text("name")?,
            arguments: text("arguments")?,
        }),
        "function_call_output" => Ok(NewItem::FunctionOutput {
            id,
            call_id: text("call_id")?,
            output: text("output")?,
        }),
        other => Err(EventError::value(
            "item.type",
            format!(
                "items of type {other:?} are not offered: use message, function_call or function_call_output"
            ),
        )),
    }
}

fn parse_content(fields: Fields<'_>) -> Result<String, EventError> {
    let parts = fields
        .list("content")?
        .ok_or_else(|| fields.missing("content"))?;
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        let path = format!("item.content[{index}]");
        let part = Fields::of(part, &path)?;
        let piece = match part.required_text("type")? {
            "input_text" | "output_text" | "text" => part.required_text("text")?,
            "input_audio" | "output_audio" | "audio" => part.text("transcript")?.ok_or_else(|| {
                EventError::value(
                    part.path("transcript"),
                    "sound in an item needs its transcript here; to have sound transcribed, append it to the input audio buffer",
                )
            })?,
            other => {
                return Err(EventError::value(
                    part.path("type"),
                    format!("content of type {other:?} is not offered: use input_text, output_text or input_audio"),
                ));
            }
        };
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(piece);
        check_length(&path, &text)?;
    }
    if text.trim().is_empty() {
        return Err(EventError::value("item.content", "the message has no text"));
    }
    Ok(text)
}

fn check_length(path: &str, text: &str) -> Result<(), EventError> {
    if text.len() > TEXT_LIMIT {
        return Err(EventError::value(
            path,
            format!(
                "the text has {} bytes; at most {TEXT_LIMIT} are taken",
                text.len()
            ),
        ));
    }
    Ok(())
}

fn parse_reply(fields: Fields<'_>) -> Result<ReplyRequest, EventError> {
    let mut modality = None;
    for name in ["output_modalities", "modalities"] {
        if let Some(list) = fields.list(name)? {
            modality = Some(Modality::parse(list, &fields.path(name))?);
        }
    }
    let aside = match fields.text("conversation")? {
        None | Some("auto") => false,
        Some("none") => true,
        Some(other) => {
            return Err(EventError::value(
                "response.conversation",
                format!("{other:?} is not a conversation: use auto or none"),
            ));
        }
    };
    let input = fields
        .list("input")?
        .map(|items| {
            let path = |index| format!("response.input[{index}]");
            items
                .iter()
                .enumerate()
                .map(|(index, item)| parse_input(Fields::of(item, &path(index))?))
                .collect()
        })
        .transpose()?;
    let mut max_output_tokens = None;
    for name in ["max_output_tokens", "max_response_output_tokens"] {
        if let Some(limit) = parse_token_limit(fields, name)? {
            max_output_tokens = limit;
        }
    }
    Ok(ReplyRequest {
        instructions: fields.text("instructions")?.map(str::to_owned),
        modality,
        tools: fields.list("tools")?.map(parse_tools).transpose()?,
        tool_choice: fields
            .get("tool_choice")
            .map(parse_tool_choice)
            .transpose()?,
        max_output_tokens,
        temperature: fields.number("temperature", 0.0..=2.0)?.map(|t| t as f32),
        metadata: fields.get("metadata").cloned(),
        aside,
        input,
    })
}

fn parse_input(fields: Fields<'_>) -> Result<InputItem, EventError> {
    if fields.text("type")? == Some("item_reference") {
        return Ok(InputItem::Known(fields.required_text("id")?.to_owned()));
    }
    parse_item(fields).map(InputItem::New)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<ClientEvent, EventError> {
        parse(&value.to_string()).map(|(event, _)| event)
    }

    #[test]
    fn a_reply_beside_the_conversation_brings_what_it_answers() {
        let event = read(json!({"type": "response.create", "response": {
            "conversation": "none",
            "input": [
                {"type": "item_reference", "id": "item_1"},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Classify."}]},
            ],
        }}));
        let Ok(ClientEvent::CreateReply(request)) = event else {
            panic!("{event:?}");
        };
        assert!(request.aside);
        let input = request.input.unwrap();
        assert_eq!(input[0], InputItem::Known("item_1".into()));
        assert!(
            matches!(&input[1], InputItem::New(NewItem::Message { text, .. }) if text == "Classify.")
        );
        let refused =
            read(json!({"type": "response.create", "response": {"conversation": "other"}}));
        assert_eq!(
            refused.unwrap_err().param.as_deref(),
            Some("response.conversation")
        );
    }

    #[test]
    fn the_event_id_comes_back_with_an_error() {
        let error = parse(r#"{"type":"response.cancle","event_id":"mine_7"}"#).unwrap_err();
        assert_eq!(error.event_id.as_deref(), Some("mine_7"));
        assert_eq!(error.param.as_deref(), Some("type"));
    }

    #[test]
    fn sound_is_decoded_and_bad_base64_is_told() {
        let append =
            |audio: &str| read(json!({"type": "input_audio_buffer.append", "audio": audio}));
        assert_eq!(append("AQID"), Ok(ClientEvent::Append(vec![1, 2, 3])));
        assert_eq!(append("@@").unwrap_err().param.as_deref(), Some("audio"));
    }

    #[test]
    fn only_sound_may_be_long() {
        let long = "A".repeat(2 * EVENT_LIMIT);
        let event =
            json!({"type": "input_audio_buffer.append", "event_id": "mine_1", "audio": long});
        let (event, id) = parse(&event.to_string()).unwrap();
        assert!(matches!(event, ClientEvent::Append(bytes) if bytes.len() == long.len() / 4 * 3));
        assert_eq!(id.as_deref(), Some("mine_1"));
        let broken = json!({"type": "input_audio_buffer.append", "event_id": "mine_2", "audio": format!("{long}@")});
        let error = parse(&broken.to_string()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("audio"));
        assert_eq!(error.event_id.as_deref(), Some("mine_2"));
        for other in [
            json!({"type": "session.update", "session": {"instructions": long}}).to_string(),
            "[".repeat(2 * EVENT_LIMIT),
        ] {
            let error = parse(&other).unwrap_err();
            assert!(
                error.message.contains("input_audio_buffer.append"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_mistake_is_told_in_few_words_however_long_it_is() {
        let long = "\u{1f600}\u{0}".repeat(50_000);
        for event in [
            json!({"type": long}),
            json!({"type": "conversation.item.create", "item": {"type": long}}),
            json!({"type": "response.create", "response": {"conversation": long}}),
        ] {
            let told = read(event).unwrap_err().to_json().to_string();
            assert!(told.len() < 4_096, "{} bytes", told.len());
        }
    }

    #[test]
    fn a_message_joins_the_text_of_its_parts() {
        let event = read(json!({"type": "conversation.item.create", "item": {
        "type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "Hello"},
            {"type": "input_audio", "transcript": "there"},
        ]}}));
        assert_eq!(
            event,
            Ok(ClientEvent::CreateItem {
                previous: None,
                item: NewItem::Message {
                    id: None,
                    role: "user".into(),
                    text: "Hello\nthere".into()
                }
            })
        );
    }

    #[test]
    fn a_reply_may_override_the_session() {
        let event = read(json!({"type": "response.create", "response": {
            "instructions": "Shout.", "output_modalities": ["text"], "max_output_tokens": "inf"}}));
        assert_eq!(
            event,
            Ok(ClientEvent::CreateReply(ReplyRequest {
                instructions: Some("Shout.".into()),
                modality: Some(Modality::Text),
                ..ReplyRequest::default()
            }))
        );
    }

    #[test]
    fn malformed_events_name_what_is_wrong() {
        let cases = [
            ("[]", ""),
            ("{}", "type"),
            (
                r#"{"type":"conversation.item.truncate","item_id":"a"}"#,
                "audio_end_ms",
            ),
            (
                r#"{"type":"conversation.item.truncate","item_id":"a","audio_end_ms":-1}"#,
                "audio_end_ms",
            ),
            (
                r#"{"type":"conversation.item.create","item":{"type":"message","role":"wizard","content":[]}}"#,
                "item.role",
            ),
            (
                r#"{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"input_image"}]}}"#,
                "item.content[0].type",
            ),
            (
                r#"{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[]}}"#,
                "item.content",
            ),
        ];
        for (text, param) in cases {
            assert_eq!(
                parse(text).unwrap_err().param.as_deref(),
                Some(param),
                "{text}"
            );
        }
        assert_eq!(parse("{").unwrap_err().code, "invalid_json");
    }
}
