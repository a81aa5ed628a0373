//! The core's notices, written as the server events that a Realtime client waits for, in its order.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use duologue_session::{
    CancelReason, ErrorCode, Evidence, HeardBy, IncompleteReason, ItemId, ItemKind, Modality,
    Notice, ReplyId, ReplyOptions, ReplyOutcome, ReplyStatus, Usage,
};
use duologue_vad::EchoCancellation;
use serde_json::{Value, json};

use super::item::{item_json, usage_json};
use super::{Dialect, EventError, SessionSettings, names};

/// Writes one session's events.
pub struct Scribe {
    dialect: Dialect,
    /// Makes the ids of this session's things differ from another's.
    seed: String,
    events: u64,
    settings: SessionSettings,
    replies: HashMap<ReplyId, Reply>,
    /// Whether the client asked for the `duologue.*` events.
    ours: bool,
    /// Whether we play the sound, and so know and tell when.
    playback: bool,
}

struct Reply {
    options: Box<ReplyOptions>,
    message: Option<Message>,
}

struct Message {
    item: ItemId,
    index: u32,
    part_open: bool,
}

impl Scribe {
    /// A scribe for a new session.
    #[must_use]
    pub fn new(seed: &str, dialect: Dialect, settings: SessionSettings) -> Self {
        Self {
            dialect,
            seed: seed.into(),
            events: 0,
            ours: settings.duologue_events,
            settings,
            replies: HashMap::new(),
            playback: false,
        }
    }

    /// Whether to tell when a reply begins and ceases to sound: for transports that carry the sound themselves. A
    /// WebSocket's client knows what it plays.
    #[must_use]
    pub fn telling_playback(self, playback: bool) -> Self {
        Self { playback, ..self }
    }

    /// The session's own id.
    #[must_use]
    pub fn session_id(&self) -> String {
        format!("sess_{}", self.seed)
    }

    /// `session.created`.
    pub fn session_created(&mut self) -> Value {
        let session = self.settings.to_json(&self.session_id(), self.dialect);
        self.event("session.created", json!({"session": session}))
    }

    /// `session.updated`, with the settings that hold from now on.
    pub fn session_updated(&mut self, settings: SessionSettings) -> Value {
        self.ours = settings.duologue_events;
        self.settings = settings;
        let session = self.settings.to_json(&self.session_id(), self.dialect);
        self.event("session.updated", json!({"session": session}))
    }

    /// What helps a session that hears itself.
    #[must_use]
    pub fn echo_advice(&self) -> &'static str {
        match self.settings.cleaner.echo {
            EchoCancellation::On => {
                "the loudspeaker is too loud for echo cancellation: turn it down, or use headphones"
            }
            EchoCancellation::Auto => {
                "use headphones, or have the echo cancelled where the sound is recorded; here it is taken out once \
                 it is found (at once with session.duologue.echo_cancellation)"
            }
            EchoCancellation::Off => {
                "use headphones, or turn on echo cancellation: where the sound is recorded, or here with \
                 session.duologue.echo_cancellation (for all sessions: --echo-cancellation auto)"
            }
        }
    }

    /// `error`.
    pub fn error(&mut self, error: &EventError) -> Value {
        let body = error.to_json();
        self.event("error", json!({"error": body}))
    }

    /// `response.output_audio.delta`, preceded by the part it belongs to where that is new. Nothing for a reply
    /// that is over.
    pub fn audio_delta(&mut self, reply: ReplyId, audio: &[u8]) -> Vec<Value> {
        let mut out = Vec::new();
        self.open_part(reply, &mut out);
        if let Some(mut ids) = self.part_ids(reply) {
            ids["delta"] = Value::String(STANDARD.encode(audio));
            out.push(self.event(self.named("response.output_audio.delta"), ids));
        }
        out
    }

    /// `output_audio_buffer.cleared`.
    pub fn output_cleared(&mut self, reply: Option<ReplyId>) -> Value {
        let id = reply.map(|reply| self.response_id(reply));
        self.event("output_audio_buffer.cleared", json!({"response_id": id}))
    }

    /// One of our own events, where the client asked for them.
    pub fn own(&mut self, name: &str, body: Value) -> Option<Value> {
        self.ours.then(|| self.event(name, body))
    }

    /// The name of a reply in events.
    #[must_use]
    pub fn response_id(&self, reply: ReplyId) -> String {
        format!("resp_{}_{reply}", self.seed)
    }

    /// The reply of that name, if it could be one of this session's.
    #[must_use]
    pub fn reply_of(&self, response_id: &str) -> Option<ReplyId> {
        let number = response_id
            .strip_prefix("resp_")?
            .strip_prefix(&self.seed)?
            .strip_prefix('_')?;
        number.parse().ok().map(ReplyId)
    }

    /// The spoken message of a reply.
    #[must_use]
    pub fn message_of(&self, reply: ReplyId) -> Option<&ItemId> {
        Some(&self.replies.get(&reply)?.message.as_ref()?.item)
    }

    /// The reply that an item is the spoken message of.
    #[must_use]
    pub fn reply_of_item(&self, item: &str) -> Option<ReplyId> {
        self.replies
            .iter()
            .find(|(_, reply)| {
                reply
                    .message
                    .as_ref()
                    .is_some_and(|message| message.item.0 == item)
            })
            .map(|(id, _)| *id)
    }

    /// The events that tell a notice. `at` is the session's time; `cause` is the client event that brought it
    /// about, if one did.
    pub fn write(&mut self, notice: Notice, at: Duration, cause: Option<&str>) -> Vec<Value> {
        let mut out = Vec::new();
        match notice {
            Notice::StateChanged { to, .. } => {
                out.extend(self.own("duologue.state", json!({"state": names::state(to), "at_ms": ms(at)})));
            }
            // The settings are shown as the client wrote them, by `session_updated`.
            Notice::Configured(_) | Notice::Paused | Notice::Resumed => {}
            Notice::PlaybackStarted { reply } => out.extend(self.playback("output_audio_buffer.started", reply)),
            Notice::PlaybackStopped { reply } => out.extend(self.playback("output_audio_buffer.stopped", reply)),
            Notice::PlaybackCleared { reply } => out.extend(self.playback("output_audio_buffer.cleared", reply)),
            Notice::SpeechStarted { item, at } => out.push(self.event(
                "input_audio_buffer.speech_started",
                json!({"audio_start_ms": ms(at), "item_id": item}),
            )),
            Notice::SpeechStopped { item, at } => out.push(self.event(
                "input_audio_buffer.speech_stopped",
                json!({"audio_end_ms": ms(at), "item_id": item}),
            )),
            Notice::InputDiscarded { item } => {
                out.extend(self.own("duologue.input.discarded", json!({"item_id": item})));
            }
            Notice::InputTimeout { item, from, to } => out.push(self.event(
                "input_audio_buffer.timeout_triggered",
                json!({"audio_start_ms": ms(from), "audio_end_ms": ms(to), "item_id": item}),
            )),
            Notice::InputCommitted { item, previous } => out.push(self.event(
                "input_audio_buffer.committed",
                json!({"previous_item_id": previous, "item_id": item}),
            )),
            Notice::InputCleared => out.push(self.event("input_audio_buffer.cleared", json!({}))),
            Notice::InputTranscriptDelta { item, text } => out.push(self.event(
                "conversation.item.input_audio_transcription.delta",
                json!({"item_id": item, "content_index": 0, "delta": text}),
            )),
            Notice::InputTranscriptCompleted { item, text } => out.push(self.event(
                "conversation.item.input_audio_transcription.completed",
                json!({"item_id": item, "content_index": 0, "transcript": text,
                       "usage": {"type": "tokens", "total_tokens": 0, "input_tokens": 0, "output_tokens": 0}}),
            )),
            Notice::InputTranscriptFailed { item, message } => out.push(self.event(
                "conversation.item.input_audio_transcription.failed",
                json!({"item_id": item, "content_index": 0,
                       "error": {"type": "server_error", "code": "transcription_failed", "message": message, "param": null}}),
            )),
            Notice::ItemAdded { item, previous } => {
                let name = match self.dialect {
                    Dialect::Ga => "conversation.item.added",
                    Dialect::Beta => "conversation.item.created",
                };
                let item = item_json(&item, self.dialect);
                out.push(self.event(name, json!({"previous_item_id": previous, "item": item})));
            }
            Notice::ItemDone { item, previous } => {
                if self.dialect == Dialect::Ga {
                    let item = item_json(&item, self.dialect);
                    out.push(self.event(
                        "conversation.item.done",
                        json!({"previous_item_id": previous, "item": item}),
                    ));
                }
            }
            Notice::ItemDeleted { item } => {
                out.push(self.event("conversation.item.deleted", json!({"item_id": item})));
            }
            Notice::ItemTruncated { item, audio_end, text } => {
                let mut body = json!({"item_id": item, "content_index": 0, "audio_end_ms": ms(audio_end)});
                if self.ours {
                    body["duologue"] = json!({"heard": text});
                }
                out.push(self.event("conversation.item.truncated", body));
            }
            Notice::ItemRetrieved { item } => {
                let item = item_json(&item, self.dialect);
                out.push(self.event("conversation.item.retrieved", json!({"item": item})));
            }
            Notice::InterruptionSuspected { .. } => {}
            Notice::HeardItself { times } => {
                out.extend(self.own("duologue.heard_itself", json!({"times": times, "message": self.echo_advice()})));
            }
            Notice::InterruptionConfirmed { reply, evidence } => {
                out.extend(self.interruption("committed", reply, evidence));
            }
            Notice::InterruptionRetracted { reply, evidence } => {
                out.extend(self.interruption("retracted", reply, evidence));
            }
            Notice::IdleWarning { ends_at } => {
                let left = ms(ends_at.saturating_sub(at));
                out.extend(self.own("duologue.idle_warning", json!({"ends_in_ms": left})));
            }
            Notice::Ended { reason } => {
                out.extend(self.own("duologue.ended", json!({"reason": names::end_reason(reason)})));
            }
            Notice::Error { code, message } => {
                let error = EventError {
                    code: names::error_code(code),
                    message,
                    param: None,
                    event_id: cause.map(str::to_owned),
                    server_fault: matches!(
                        code,
                        ErrorCode::TranscriptionFailed | ErrorCode::ModelFailed | ErrorCode::VoiceFailed
                    ),
                };
                out.push(self.error(&error));
            }
            reply => self.write_reply(reply, &mut out),
        }
        out
    }

    fn playback(&mut self, name: &str, reply: ReplyId) -> Option<Value> {
        let id = self.response_id(reply);
        self.playback
            .then(|| self.event(name, json!({"response_id": id})))
    }

    fn write_reply(&mut self, notice: Notice, out: &mut Vec<Value>) {
        match notice {
            Notice::ReplyCreated { reply, options } => {
                self.replies.insert(
                    reply,
                    Reply {
                        options,
                        message: None,
                    },
                );
                let response = self.response(reply, "in_progress", Value::Null, Vec::new(), None);
                out.push(self.event("response.created", json!({"response": response})));
            }
            Notice::ReplyItemAdded { reply, index, item } => {
                if matches!(item.kind, ItemKind::Message { .. })
                    && let Some(known) = self.replies.get_mut(&reply)
                {
                    known.message = Some(Message {
                        item: item.id.clone(),
                        index,
                        part_open: false,
                    });
                }
                let body = json!({"response_id": self.response_id(reply), "output_index": index,
                                  "item": item_json(&item, self.dialect)});
                out.push(self.event("response.output_item.added", body));
            }
            Notice::ReplyTranscriptDelta { reply, text, .. } => {
                self.delta(reply, "response.output_audio_transcript.delta", &text, out);
            }
            Notice::ReplyTextDelta { reply, text, .. } => {
                self.delta(reply, "response.output_text.delta", &text, out);
            }
            Notice::ReplyAudioDone { reply, .. } => {
                self.open_part(reply, out);
                if let Some(ids) = self.part_ids(reply) {
                    out.push(self.event(self.named("response.output_audio.done"), ids));
                }
            }
            Notice::ReplyTranscriptDone {
                reply,
                text,
                written,
                ..
            } => {
                self.open_part(reply, out);
                let Some(ids) = self.part_ids(reply) else {
                    return;
                };
                let (name, field) = if written {
                    ("response.output_text.done", "text")
                } else {
                    ("response.output_audio_transcript.done", "transcript")
                };
                let mut done = ids.clone();
                done[field] = Value::String(text.clone());
                out.push(self.event(self.named(name), done));
                let mut part = ids;
                part["part"] = self.part(written, &text);
                out.push(self.event("response.content_part.done", part));
            }
            Notice::ReplyFunctionCall {
                reply,
                item,
                call_id,
                name,
                arguments,
            } => {
                let index = self
                    .replies
                    .get(&reply)
                    .map_or(0, |known| u32::from(known.message.is_some()));
                let ids = json!({"response_id": self.response_id(reply), "item_id": item,
                                 "output_index": index, "call_id": call_id});
                let mut delta = ids.clone();
                delta["delta"] = Value::String(arguments.clone());
                out.push(self.event("response.function_call_arguments.delta", delta));
                let mut done = ids;
                done["name"] = Value::String(name);
                done["arguments"] = Value::String(arguments);
                out.push(self.event("response.function_call_arguments.done", done));
            }
            Notice::ReplyItemDone { reply, index, item } => {
                let body = json!({"response_id": self.response_id(reply), "output_index": index,
                                  "item": item_json(&item, self.dialect)});
                out.push(self.event("response.output_item.done", body));
            }
            Notice::ReplyDone(outcome) => self.reply_done(*outcome, out),
            // All others were written by `write`.
            _ => {}
        }
    }

    fn reply_done(&mut self, outcome: ReplyOutcome, out: &mut Vec<Value>) {
        let (status, details) = match &outcome.status {
            ReplyStatus::Completed => ("completed", Value::Null),
            ReplyStatus::Cancelled(reason) => (
                "cancelled",
                json!({"type": "cancelled", "reason": match reason {
                    CancelReason::TurnDetected => "turn_detected",
                    CancelReason::ClientCancelled | CancelReason::SessionEnded => "client_cancelled",
                }}),
            ),
            ReplyStatus::Incomplete(reason) => (
                "incomplete",
                json!({"type": "incomplete", "reason": match reason {
                    IncompleteReason::MaxOutputTokens => "max_output_tokens",
                    IncompleteReason::ContentFilter => "content_filter",
                }}),
            ),
            ReplyStatus::Failed { code, message } => (
                "failed",
                json!({"type": "failed",
                       "error": {"type": "server_error", "code": names::error_code(*code), "message": message}}),
            ),
        };
        let items = outcome
            .items
            .iter()
            .map(|item| item_json(item, self.dialect))
            .collect();
        let mut response = self.response(outcome.reply, status, details, items, outcome.usage);
        if self.ours {
            response["duologue"] = json!({
                "heard": outcome.heard,
                "unheard": outcome.unheard,
                "audio_end_ms": ms(outcome.audio_end),
                "heard_by": match outcome.heard_by {
                    HeardBy::Client => "client",
                    HeardBy::Estimate => "estimate",
                },
            });
        }
        out.push(self.event("response.done", json!({"response": response})));
        out.push(self.event("rate_limits.updated", json!({"rate_limits": []})));
        // Late playout reports of the last replies still find theirs.
        self.replies
            .retain(|reply, _| reply.0 + 8 > outcome.reply.0);
    }

    fn delta(&mut self, reply: ReplyId, name: &'static str, text: &str, out: &mut Vec<Value>) {
        self.open_part(reply, out);
        if let Some(mut ids) = self.part_ids(reply) {
            ids["delta"] = Value::String(text.into());
            out.push(self.event(self.named(name), ids));
        }
    }

    /// `response.content_part.added`, once a message.
    fn open_part(&mut self, reply: ReplyId, out: &mut Vec<Value>) {
        let Some(known) = self.replies.get_mut(&reply) else {
            return;
        };
        let written = known.options.modality == Modality::Text;
        match &mut known.message {
            Some(message) if !message.part_open => message.part_open = true,
            _ => return,
        }
        if let Some(mut ids) = self.part_ids(reply) {
            ids["part"] = self.part(written, "");
            out.push(self.event("response.content_part.added", ids));
        }
    }

    fn part(&self, written: bool, text: &str) -> Value {
        match (self.dialect, written) {
            (_, true) => json!({"type": "text", "text": text}),
            (_, false) => json!({"type": "audio", "transcript": text}),
        }
    }

    fn part_ids(&self, reply: ReplyId) -> Option<Value> {
        let message = self.replies.get(&reply)?.message.as_ref()?;
        Some(json!({
            "response_id": self.response_id(reply),
            "item_id": message.item,
            "output_index": message.index,
            "content_index": 0,
        }))
    }

    fn interruption(&mut self, outcome: &str, reply: ReplyId, evidence: Evidence) -> Option<Value> {
        let item = self.message_of(reply).cloned();
        self.own(
            "duologue.interruption",
            json!({"outcome": outcome, "evidence": names::evidence(evidence), "item_id": item,
                   "response_id": self.response_id(reply)}),
        )
    }

    fn response(
        &self,
        reply: ReplyId,
        status: &str,
        details: Value,
        items: Vec<Value>,
        usage: Option<Usage>,
    ) -> Value {
        let known = self.replies.get(&reply).map(|known| &known.options);
        let limit = known
            .and_then(|options| options.max_output_tokens)
            .map_or_else(|| json!("inf"), |limit| json!(limit));
        let spoken = known.is_none_or(|options| options.modality == Modality::Audio);
        let modality = if spoken {
            super::Modality::Audio
        } else {
            super::Modality::Text
        };
        let metadata = known
            .filter(|options| !options.metadata.is_empty())
            .map(|options| options.metadata.iter().cloned().collect::<HashMap<_, _>>());
        let usage = usage.as_ref().map(usage_json);
        let voice = known
            .and_then(|options| options.voice.clone())
            .unwrap_or_else(|| self.settings.voice.clone());
        let joins = known.is_none_or(|options| options.in_conversation);
        let mut response = json!({
            "object": "realtime.response",
            "id": self.response_id(reply),
            "status": status,
            "status_details": details,
            "output": items,
            "conversation_id": joins.then(|| format!("conv_{}", self.seed)),
            "max_output_tokens": limit,
            "metadata": metadata,
            "usage": usage,
        });
        match self.dialect {
            Dialect::Ga => {
                response["output_modalities"] = modality.to_json(self.dialect);
                response["audio"] =
                    json!({"output": {"format": self.settings.output.to_json(), "voice": voice}});
            }
            Dialect::Beta => {
                response["modalities"] = modality.to_json(self.dialect);
                response["voice"] = json!(voice);
            }
        }
        response
    }

    /// The beta's name of an event.
    fn named(&self, name: &'static str) -> &'static str {
        match (self.dialect, name) {
            (Dialect::Ga, name) => name,
            (_, "response.output_audio.delta") => "response.audio.delta",
            (_, "response.output_audio.done") => "response.audio.done",
            (_, "response.output_audio_transcript.delta") => "response.audio_transcript.delta",
            (_, "response.output_audio_transcript.done") => "response.audio_transcript.done",
            (_, "response.output_text.delta") => "response.text.delta",
            (_, "response.output_text.done") => "response.text.done",
            (_, name) => name,
        }
    }

    fn event(&mut self, name: &str, mut body: Value) -> Value {
        self.events += 1;
        body["type"] = Value::String(name.into());
        body["event_id"] = Value::String(format!("event_{}_{}", self.seed, self.events));
        body
    }
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}
