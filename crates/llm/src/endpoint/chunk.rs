//! Chat completion chunks, put together into deltas. Pure: events in, deltas out.
//!
//! Endpoints differ in small ways, and these are all taken: calls without an index, arguments as an object instead
//! of text, usage in the last chunk or in one of its own, no `[DONE]`.

use serde::Deserialize;
use serde_json::Value;

use crate::chat::{Delta, FinishReason, ToolCall, Usage};
use crate::tags::{Piece, TagFilter};

/// All arguments of one reply together may not be longer than this.
const MAX_ARGUMENTS: usize = 1024 * 1024;

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<ChunkUsage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    // `message` where the endpoint does not stream.
    #[serde(default, alias = "message")]
    delta: Option<ChunkDelta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct ChunkDelta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    #[serde(default)]
    index: Option<usize>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Option<FunctionDelta>,
}

#[derive(Deserialize)]
struct FunctionDelta {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<Value>,
}

#[derive(Deserialize)]
struct ChunkUsage {
    #[serde(default)]
    prompt_tokens: u32,
    #[serde(default)]
    completion_tokens: u32,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u32>,
}

/// What is wrong with an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The endpoint says that it failed.
    Failed(String),
    /// Not a chat completion chunk.
    Malformed(String),
}

/// Puts chunks together.
#[derive(Debug)]
pub(super) struct Assembler {
    filter: TagFilter,
    calls: Vec<(Option<usize>, ToolCall)>,
    argument_bytes: usize,
    finish: Option<FinishReason>,
    usage: Usage,
    done: bool,
}

impl Assembler {
    pub(super) fn new() -> Self {
        Self {
            filter: TagFilter::new(false),
            calls: Vec::new(),
            argument_bytes: 0,
            finish: None,
            usage: Usage::default(),
            done: false,
        }
    }

    /// Whether [`Delta::Done`] was given.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Takes one event's data; appends what it brings.
    pub(super) fn event(&mut self, data: &str, deltas: &mut Vec<Delta>) -> Result<(), Wrong> {
        if self.done {
            return Ok(());
        }
        if data.trim() == "[DONE]" {
            self.close(deltas);
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_str(data).map_err(|error| {
            let start: String = data.chars().take(60).collect();
            Wrong::Malformed(format!("{error} in {start:?}"))
        })?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(Wrong::Failed(error_text(&error)));
        }
        if let Some(usage) = chunk.usage {
            self.usage = Usage {
                prompt_tokens: usage.prompt_tokens,
                completion_tokens: usage.completion_tokens,
                cached_tokens: usage
                    .prompt_tokens_details
                    .and_then(|d| d.cached_tokens)
                    .unwrap_or(0),
                dropped_messages: 0,
            };
        }
        // One reply is asked for, so there is one choice.
        let Some(choice) = chunk.choices.into_iter().next() else {
            return Ok(());
        };
        if let Some(delta) = choice.delta {
            if let Some(text) = delta.content {
                let pieces = self.filter.push(&text);
                give_text(pieces, deltas);
            }
            for call in delta.tool_calls.into_iter().flatten() {
                self.call(call)?;
            }
        }
        if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
            self.finish = Some(match reason.as_str() {
                "stop" | "eos" | "end_turn" => FinishReason::Stop,
                "length" => FinishReason::Length,
                "tool_calls" | "function_call" => FinishReason::ToolCalls,
                "content_filter" => FinishReason::ContentFilter,
                _ => FinishReason::Other(reason),
            });
        }
        Ok(())
    }

    /// The stream has ended without `[DONE]`; false when the reply was not at its end.
    pub(super) fn end(&mut self, deltas: &mut Vec<Delta>) -> bool {
        if !self.done && self.finish.is_some() {
            self.close(deltas);
        }
        self.done
    }

    fn call(&mut self, delta: CallDelta) -> Result<(), Wrong> {
        let id = delta.id.filter(|id| !id.is_empty());
        let same = |(index, call): &&mut (Option<usize>, ToolCall)| {
            *index == delta.index && id.as_ref().is_none_or(|id| call.id == *id)
        };
        let known = match delta.index {
            Some(_) => self.calls.iter_mut().rev().find(same),
            // Without an index, a piece with a name is a call of its own.
            None if delta.function.as_ref().is_some_and(|f| f.name.is_some()) => None,
            None => self.calls.last_mut(),
        };
        let call = match known {
            Some((_, call)) => call,
            None => {
                let id = id
                    .clone()
                    .unwrap_or_else(|| format!("call_{}", self.calls.len() + 1));
                let call = ToolCall {
                    id,
                    name: String::new(),
                    arguments: String::new(),
                };
                self.calls.push((delta.index, call));
                // Just pushed.
                let Some((_, call)) = self.calls.last_mut() else {
                    return Ok(());
                };
                call
            }
        };
        if let Some(function) = delta.function {
            // The name comes once, but some endpoints repeat it in every piece.
            if let Some(name) = function.name.filter(|_| call.name.is_empty()) {
                call.name = name;
            }
            let arguments = match function.arguments {
                Some(Value::String(text)) => text,
                None | Some(Value::Null) => String::new(),
                Some(other) => other.to_string(),
            };
            self.argument_bytes += arguments.len();
            if self.argument_bytes > MAX_ARGUMENTS {
                return Err(Wrong::Malformed(format!(
                    "tool arguments of more than {MAX_ARGUMENTS} bytes"
                )));
            }
            call.arguments.push_str(&arguments);
        }
        Ok(())
    }

    fn close(&mut self, deltas: &mut Vec<Delta>) {
        self.done = true;
        let pieces = self.filter.finish();
        give_text(pieces, deltas);
        let mut reason = self.finish.take().unwrap_or(FinishReason::Stop);
        for (_, mut call) in self.calls.drain(..) {
            if call.arguments.is_empty() {
                call.arguments.push_str("{}");
            }
            if reason == FinishReason::Stop {
                reason = FinishReason::ToolCalls;
            }
            deltas.push(Delta::ToolCall(call));
        }
        deltas.push(Delta::Done {
            reason,
            usage: self.usage,
        });
    }
}

fn give_text(pieces: Vec<Piece>, deltas: &mut Vec<Delta>) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => deltas.push(Delta::Text(text)),
            Piece::Call(_) => {}
        }
    }
}

/// What an endpoint said in an error body: the message in any of the customary places, else the text's beginning.
pub(super) fn error_message(body: &str) -> String {
    let text = match serde_json::from_str::<Value>(body) {
        Ok(value) => error_text(value.get("error").unwrap_or(&value)),
        Err(_) if body.trim_start().starts_with('<') => "it sent a web page".to_owned(),
        Err(_) => body.trim().to_owned(),
    };
    let mut short: String = text.chars().take(300).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

fn error_text(error: &Value) -> String {
    match error {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => ["message", "detail", "error", "msg"]
            .into_iter()
            .find_map(|key| other.get(key).and_then(Value::as_str))
            .map_or_else(|| other.to_string(), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(events: &[&str]) -> (Vec<Delta>, bool) {
        let (mut assembler, mut deltas) = (Assembler::new(), Vec::new());
        for event in events {
            assembler.event(event, &mut deltas).unwrap();
        }
        let whole = assembler.end(&mut deltas);
        (deltas, whole)
    }

    #[test]
    fn text_usage_and_reason_are_put_together() {
        let (deltas, whole) = run(&[
            r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"delta":{"content":"Hel"}}]}"#,
            r#"{"choices":[{"delta":{"content":"lo"},"finish_reason":null}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}"#,
            "[DONE]",
        ]);
        assert!(whole);
        let usage = Usage {
            prompt_tokens: 9,
            cached_tokens: 4,
            completion_tokens: 2,
            dropped_messages: 0,
        };
        assert_eq!(
            deltas,
            [
                Delta::Text("Hel".into()),
                Delta::Text("lo".into()),
                Delta::Done {
                    reason: FinishReason::Length,
                    usage
                }
            ]
        );
    }

    #[test]
    fn pieces_of_two_calls_are_put_together() {
        let (deltas, _) = run(&[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"g"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#,
            "[DONE]",
        ]);
        let call = |id: &str, name: &str, arguments: &str| {
            Delta::ToolCall(ToolCall {
                id: id.into(),
                name: name.into(),
                arguments: arguments.into(),
            })
        };
        assert_eq!(deltas[0], call("a", "f", "{\"x\":1}"));
        assert_eq!(deltas[1], call("b", "g", "{}"));
        assert!(matches!(
            deltas[2],
            Delta::Done {
                reason: FinishReason::ToolCalls,
                ..
            }
        ));
    }

    #[test]
    fn whole_calls_without_an_index_are_taken() {
        let (deltas, _) = run(&[
            r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":{"x":1}}},{"function":{"name":"g","arguments":{}}}]}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
        ]);
        assert_eq!(deltas.len(), 3, "{deltas:?}");
        assert!(
            matches!(&deltas[0], Delta::ToolCall(c) if c.name == "f" && c.arguments == "{\"x\":1}")
        );
        assert!(matches!(
            &deltas[2],
            Delta::Done {
                reason: FinishReason::ToolCalls,
                ..
            }
        ));
    }

    #[test]
    fn a_stream_without_a_finish_reason_is_not_whole() {
        assert!(!run(&[r#"{"choices":[{"delta":{"content":"Hel"}}]}"#]).1);
    }

    #[test]
    fn reasoning_is_not_text() {
        let (deltas, _) = run(&[
            r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#,
            r#"{"choices":[{"delta":{"content":"<think>hm</thi"}}]}"#,
            r#"{"choices":[{"delta":{"content":"nk>\n\nHi"}}]}"#,
            "[DONE]",
        ]);
        assert_eq!(deltas[0], Delta::Text("Hi".into()));
    }

    #[test]
    fn errors_are_told_in_the_endpoints_words() {
        let mut deltas = Vec::new();
        let wrong = Assembler::new().event(r#"{"error":{"message":"out of memory"}}"#, &mut deltas);
        assert_eq!(wrong, Err(Wrong::Failed("out of memory".into())));
        assert!(matches!(
            Assembler::new().event("{oops", &mut deltas),
            Err(Wrong::Malformed(_))
        ));
        assert_eq!(
            error_message(r#"{"error":{"message":"no","type":"x"}}"#),
            "no"
        );
        assert_eq!(error_message(r#"{"error":"no"}"#), "no");
        assert_eq!(error_message(r#"{"detail":"no"}"#), "no");
        assert_eq!(error_message("<html>"), "it sent a web page");
        assert_eq!(error_message(" plain "), "plain");
    }
}
