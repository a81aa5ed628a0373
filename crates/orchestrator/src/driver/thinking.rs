//! A reply on its way from the model to the session: text in pieces, made speakable, clause by clause.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use duologue_llm::speakable::{Clause as Spoken, ClauseRules, Speakable};
use duologue_llm::{
    ChatModel, ChatRequest, Delta, FinishReason, LlmError, Message, Role as ChatRole, Tool,
    ToolCall, ToolChoice,
};
use duologue_metrics::table;
use duologue_session::{
    Clause, Event, Finish, Item, ItemKind, Modality, ReplyId, ReplyOptions, Role, Usage,
};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::turn_trace::Thought;

/// What the model is asked, from the conversation as the core tells it.
#[must_use]
pub fn chat_request(conversation: &str, history: &[Item], options: &ReplyOptions) -> ChatRequest {
    let mut messages = Vec::new();
    if !options.instructions.trim().is_empty() {
        messages.push(Message::system(&options.instructions));
    }
    for item in options.input.as_deref().unwrap_or(history) {
        add_item(&mut messages, item);
    }
    ChatRequest {
        conversation: conversation.into(),
        messages,
        tools: options.tools.iter().map(tool).collect(),
        tool_choice: match &options.tool_choice {
            duologue_session::ToolChoice::Auto => ToolChoice::Auto,
            duologue_session::ToolChoice::None => ToolChoice::None,
            duologue_session::ToolChoice::Required => ToolChoice::Required,
            duologue_session::ToolChoice::Function(name) => ToolChoice::Function(name.clone()),
        },
        max_tokens: options.max_output_tokens,
        temperature: options.temperature,
        ..ChatRequest::default()
    }
}

fn tool(tool: &duologue_session::Tool) -> Tool {
    Tool {
        name: tool.name.clone(),
        description: tool.description.clone(),
        parameters: serde_json::from_str(&tool.parameters)
            .unwrap_or_else(|_| serde_json::json!({"type": "object", "properties": {}})),
    }
}

fn add_item(messages: &mut Vec<Message>, item: &Item) {
    match &item.kind {
        ItemKind::Message { role, .. } => {
            let text = item.text();
            if text.trim().is_empty() {
                return;
            }
            messages.push(match role {
                Role::System => Message::system(text),
                Role::User => Message::user(text),
                Role::Assistant => Message::assistant(text),
            });
        }
        ItemKind::FunctionCall {
            call_id,
            name,
            arguments,
        } => {
            let call = ToolCall {
                id: call_id.clone(),
                name: name.clone(),
                arguments: arguments.clone(),
            };
            // Calls belong to the message they were made in.
            match messages
                .last_mut()
                .filter(|last| last.role == ChatRole::Assistant)
            {
                Some(last) => last.tool_calls.push(call),
                None => messages.push(Message {
                    tool_calls: vec![call],
                    ..Message::assistant("")
                }),
            }
        }
        ItemKind::FunctionCallOutput { call_id, output } => {
            messages.push(Message::tool(call_id, output))
        }
    }
}

/// What makes a reply speakable; `None` where it is only written.
#[must_use]
pub fn speakable(modality: Modality, language: Option<&str>) -> Option<Speakable> {
    match modality {
        Modality::Audio => {
            let language = language.unwrap_or("en");
            Some(Speakable::new(language, ClauseRules::default()))
        }
        Modality::Text => None,
    }
}

/// Streams a reply into the session. Ends early when `cancel` is set or nobody listens.
pub async fn think(
    chat: Arc<dyn ChatModel>,
    request: ChatRequest,
    reply: ReplyId,
    mut clauses: Option<Speakable>,
    cancel: CancellationToken,
    events: mpsc::Sender<Event>,
    thought: Arc<Thought>,
) {
    let outcome = stream(
        chat,
        request,
        reply,
        &mut clauses,
        &cancel,
        &events,
        &thought,
    )
    .await;
    thought.ends(SystemTime::now());
    let last = match outcome {
        Ok(Some((finish, usage))) => Event::ReplyEnded {
            reply,
            finish,
            usage: Some(usage),
        },
        Ok(None) => return,
        Err(error) => Event::ReplyFailed {
            reply,
            message: error.to_string(),
        },
    };
    // A closed channel: the session is over.
    let _ = events.send(last).await;
}

async fn stream(
    chat: Arc<dyn ChatModel>,
    request: ChatRequest,
    reply: ReplyId,
    clauses: &mut Option<Speakable>,
    cancel: &CancellationToken,
    events: &mpsc::Sender<Event>,
    thought: &Thought,
) -> Result<Option<(Finish, Usage)>, LlmError> {
    let asked = Instant::now();
    let mut answered = false;
    let mut deltas = chat.reply(request, cancel.clone()).await?;
    let send = async |clause: Clause| {
        events
            .send(Event::ReplyText { reply, clause })
            .await
            .is_ok()
    };
    loop {
        let delta = tokio::select! {
            delta = deltas.next() => delta,
            () = cancel.cancelled() => return Ok(None),
        };
        if matches!(delta, Some(Ok(_))) && !std::mem::replace(&mut answered, true) {
            table::FIRST_TOKEN.record(asked.elapsed());
            thought.begins(SystemTime::now());
        }
        match delta {
            Some(Ok(Delta::Text(text))) => {
                let ready = match clauses {
                    Some(clauses) => clauses.push(&text).into_iter().map(clause).collect(),
                    None => vec![Clause {
                        display: text,
                        ..Clause::default()
                    }],
                };
                for clause in ready {
                    if !send(clause).await {
                        return Ok(None);
                    }
                }
            }
            Some(Ok(Delta::ToolCall(call))) => {
                let event = Event::ReplyToolCall {
                    reply,
                    call_id: call.id,
                    name: call.name,
                    arguments: call.arguments,
                };
                if events.send(event).await.is_err() {
                    return Ok(None);
                }
            }
            Some(Ok(Delta::Done { reason, usage })) => {
                for rest in clauses.iter_mut().flat_map(Speakable::finish) {
                    if !send(clause(rest)).await {
                        return Ok(None);
                    }
                }
                let finish = match reason {
                    FinishReason::Stop | FinishReason::Other(_) => Finish::Stop,
                    FinishReason::Length => Finish::Length,
                    FinishReason::ToolCalls => Finish::ToolCalls,
                    FinishReason::ContentFilter => Finish::ContentFilter,
                    FinishReason::Cancelled => return Ok(None),
                };
                let usage = Usage {
                    input_tokens: usage.prompt_tokens.into(),
                    cached_tokens: usage.cached_tokens.into(),
                    output_tokens: usage.completion_tokens.into(),
                };
                return Ok(Some((finish, usage)));
            }
            Some(Err(error)) => return Err(error),
            // The contract says that `Done` or an error comes first.
            None => return Ok(Some((Finish::Stop, Usage::default()))),
        }
    }
}

fn clause(spoken: Spoken) -> Clause {
    Clause {
        display: spoken.display,
        spoken: spoken.spoken,
        words: spoken
            .words
            .into_iter()
            .map(|word| (word.spoken, word.display))
            .collect(),
    }
}
