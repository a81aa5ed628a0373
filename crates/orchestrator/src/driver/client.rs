//! A client's wishes, as the core takes them.

use std::time::Duration;

use duologue_session::{
    ConfigPatch, Content, Eagerness, Item, ItemId, ItemKind, ItemStatus, Modality, Place,
    ReplyPatch, Role, Tool, ToolChoice, TurnDetection,
};
use serde_json::Value;

use crate::realtime::{self, EventError, InputItem, NewItem, ReplyRequest, SessionSettings};

/// The core's configuration for a client's settings.
pub fn config_patch(settings: &SessionSettings) -> ConfigPatch {
    ConfigPatch {
        reply: ReplyPatch {
            instructions: Some(settings.instructions.clone()),
            voice: Some(settings.voice.clone()),
            speed: Some(settings.speed),
            modality: Some(modality(settings.modality)),
            tools: Some(settings.tools.iter().map(tool).collect()),
            tool_choice: Some(tool_choice(&settings.tool_choice)),
            temperature: settings.temperature,
            max_output_tokens: Some(settings.max_output_tokens),
            ..ReplyPatch::default()
        },
        turn_detection: Some(turn_detection(&settings.turn_detection)),
        ..ConfigPatch::default()
    }
}

/// What a `response.create` changes for one reply. `items` is the conversation.
///
/// # Errors
/// When it answers an item that is not there.
pub fn reply_patch(request: ReplyRequest, items: &[Item]) -> Result<ReplyPatch, EventError> {
    let known = |id: String| {
        let found = items.iter().find(|item| item.id.0 == id).cloned();
        found.ok_or_else(|| {
            EventError::invalid(
                "item_not_found",
                "response.input",
                format!("there is no item {id:?} in the conversation"),
            )
        })
    };
    let input = request.input.map(|input| {
        input
            .into_iter()
            .enumerate()
            .map(|(index, part)| match part {
                InputItem::Known(id) => known(id),
                // It has a name only here.
                InputItem::New(new) => Ok(Item {
                    id: ItemId(format!("input_{index}")),
                    ..item(new)
                }),
            })
            .collect::<Result<Vec<Item>, EventError>>()
    });
    Ok(ReplyPatch {
        in_conversation: Some(!request.aside),
        input: input.transpose()?,
        instructions: request.instructions,
        modality: request.modality.map(modality),
        tools: request.tools.map(|tools| tools.iter().map(tool).collect()),
        tool_choice: request.tool_choice.as_ref().map(tool_choice),
        temperature: request.temperature,
        max_output_tokens: request.max_output_tokens.map(Some),
        metadata: request
            .metadata
            .as_ref()
            .and_then(Value::as_object)
            .map(|metadata| {
                metadata
                    .iter()
                    .map(|(name, value)| {
                        let text = value
                            .as_str()
                            .map_or_else(|| value.to_string(), str::to_owned);
                        (name.clone(), text)
                    })
                    .collect()
            }),
        ..ReplyPatch::default()
    })
}

/// An item that the client adds.
pub fn item(new: NewItem) -> Item {
    let (id, kind) = match new {
        NewItem::Message { id, role, text } => {
            let role = match role.as_str() {
                "system" => Role::System,
                "assistant" => Role::Assistant,
                _ => Role::User,
            };
            (
                id,
                ItemKind::Message {
                    role,
                    content: vec![Content::Text(text)],
                },
            )
        }
        NewItem::FunctionCall {
            id,
            call_id,
            name,
            arguments,
        } => (
            id,
            ItemKind::FunctionCall {
                call_id,
                name,
                arguments,
            },
        ),
        NewItem::FunctionOutput {
            id,
            call_id,
            output,
        } => (id, ItemKind::FunctionCallOutput { call_id, output }),
    };
    Item {
        id: ItemId(id.unwrap_or_default()),
        status: ItemStatus::Completed,
        kind,
    }
}

/// Where it goes.
pub fn place(previous: Option<String>) -> Place {
    match previous {
        None => Place::End,
        Some(previous) if previous == "root" => Place::Start,
        Some(previous) => Place::After(ItemId(previous)),
    }
}

fn modality(modality: realtime::Modality) -> Modality {
    match modality {
        realtime::Modality::Audio => Modality::Audio,
        realtime::Modality::Text => Modality::Text,
    }
}

fn tool(tool: &Value) -> Tool {
    let text = |name: &str| tool[name].as_str().unwrap_or_default().to_owned();
    Tool {
        name: text("name"),
        description: text("description"),
        parameters: tool
            .get("parameters")
            .map(Value::to_string)
            .unwrap_or_default(),
    }
}

fn tool_choice(choice: &Value) -> ToolChoice {
    match choice {
        Value::String(choice) if choice == "none" => ToolChoice::None,
        Value::String(choice) if choice == "required" => ToolChoice::Required,
        Value::Object(function) => ToolChoice::Function(
            function
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        ),
        _ => ToolChoice::Auto,
    }
}

fn turn_detection(detection: &realtime::TurnDetection) -> TurnDetection {
    let ms = |ms: u32| Duration::from_millis(ms.into());
    match detection {
        realtime::TurnDetection::ServerVad {
            threshold,
            prefix_padding_ms,
            silence_duration_ms,
            idle_timeout_ms,
            create_response,
            interrupt_response,
        } => TurnDetection::ServerVad {
            silence: ms(*silence_duration_ms),
            threshold: *threshold,
            prefix: ms(*prefix_padding_ms),
            create_response: *create_response,
            interrupt_response: *interrupt_response,
            idle_timeout: idle_timeout_ms.map(ms),
        },
        realtime::TurnDetection::SemanticVad {
            eagerness,
            create_response,
            interrupt_response,
        } => TurnDetection::SemanticVad {
            eagerness: match eagerness.as_str() {
                "low" => Eagerness::Low,
                "medium" => Eagerness::Medium,
                "high" => Eagerness::High,
                _ => Eagerness::Auto,
            },
            create_response: *create_response,
            interrupt_response: *interrupt_response,
        },
        realtime::TurnDetection::None => TurnDetection::Manual,
    }
}
