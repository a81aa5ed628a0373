//! What LiveKit's own components show of an agent, out of a session's events.
//!
//! The attribute `lk.agent.state` tells what the agent does. Text streams of the topic `lk.transcription` tell
//! what is said: a segment is a message, `lk.transcription_final` says whether it may change, and a later stream
//! of the same segment takes the place of the earlier. The agent's words grow in one stream; the user's come whole
//! each time, in the user's name.

use duologue_livekit::{RoomCommand, TextStream};
use serde_json::Value;

/// Topic of the session's events, both ways: the label of the data channel of a direct call.
pub(super) const EVENTS: &str = "oai-events";
/// Topic of what a user types in LiveKit's chat.
pub(super) const CHAT: &str = "lk.chat";
const TRANSCRIPTION: &str = "lk.transcription";
const FINAL: &str = "lk.transcription_final";
const SEGMENT: &str = "lk.segment_id";
const STATE: &str = "lk.agent.state";

#[derive(Debug, Default)]
pub(super) struct Conventions {
    state: &'static str,
    streams: u64,
    /// What was written of the reply's message: stream, item, text.
    saying: Option<(String, String, String)>,
    /// What was told of the user's words: item, text.
    heard: Option<(String, String)>,
}

impl Conventions {
    /// What an event means to a room.
    pub fn tell(&mut self, event: &Value) -> Vec<RoomCommand> {
        let mut out = Vec::new();
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let kind = text("type");
        let state = match kind {
            "session.created" => Some("listening"),
            "input_audio_buffer.speech_started" if self.state != "speaking" => Some("listening"),
            "input_audio_buffer.committed" | "response.created" if self.state != "speaking" => {
                Some("thinking")
            }
            "output_audio_buffer.started" => Some("speaking"),
            "output_audio_buffer.stopped" | "output_audio_buffer.cleared" => Some("listening"),
            "response.done" if self.state != "speaking" => Some("listening"),
            _ => None,
        };
        if let Some(state) = state.filter(|state| *state != self.state) {
            self.state = state;
            out.push(RoomCommand::Attributes(vec![(STATE.into(), state.into())]));
        }
        let item = text("item_id");
        match kind {
            "response.output_audio_transcript.delta" | "response.output_text.delta" => {
                self.say(item, text("delta"), &mut out);
            }
            "response.output_audio_transcript.done" => {
                self.said(item, text("transcript"), &mut out)
            }
            "response.output_text.done" => self.said(item, text("text"), &mut out),
            "conversation.item.input_audio_transcription.delta" => {
                let so_far = match self.heard.take() {
                    Some((of, so_far)) if of == item => so_far,
                    _ => String::new(),
                };
                let so_far = so_far + text("delta");
                self.whole(item, &so_far, true, false, &mut out);
                self.heard = Some((item.to_owned(), so_far));
            }
            "conversation.item.input_audio_transcription.completed" => {
                self.heard = None;
                self.whole(item, text("transcript"), true, true, &mut out);
            }
            _ => {}
        }
        out
    }

    fn stream(&mut self, item: &str, of_user: bool, is_final: bool) -> TextStream {
        self.streams += 1;
        TextStream {
            id: format!("{item}-{}", self.streams),
            topic: TRANSCRIPTION.into(),
            attributes: vec![
                (SEGMENT.into(), item.into()),
                (FINAL.into(), is_final.to_string()),
            ],
            of_user,
        }
    }

    /// A text in a stream of its own.
    fn whole(
        &mut self,
        item: &str,
        text: &str,
        of_user: bool,
        is_final: bool,
        out: &mut Vec<RoomCommand>,
    ) {
        let stream = self.stream(item, of_user, is_final);
        let id = stream.id.clone();
        out.push(RoomCommand::OpenText(stream));
        out.push(RoomCommand::WriteText {
            id: id.clone(),
            text: text.to_owned(),
        });
        out.push(RoomCommand::CloseText {
            id,
            attributes: Vec::new(),
        });
    }

    fn say(&mut self, item: &str, delta: &str, out: &mut Vec<RoomCommand>) {
        if self.saying.as_ref().is_none_or(|(_, of, _)| of != item) {
            let stream = self.stream(item, false, false);
            self.saying = Some((stream.id.clone(), item.to_owned(), String::new()));
            out.push(RoomCommand::OpenText(stream));
        }
        if let Some((id, _, written)) = &mut self.saying {
            written.push_str(delta);
            out.push(RoomCommand::WriteText {
                id: id.clone(),
                text: delta.to_owned(),
            });
        }
    }

    /// The message is as it stands now; where it was cut, that is not what was written.
    fn said(&mut self, item: &str, text: &str, out: &mut Vec<RoomCommand>) {
        let written = match self.saying.take() {
            Some((id, of, written)) if of == item => {
                out.push(RoomCommand::CloseText {
                    id,
                    attributes: vec![(FINAL.into(), "true".into())],
                });
                written
            }
            other => {
                self.saying = other;
                String::new()
            }
        };
        if written != text {
            self.whole(item, text, false, true, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(commands: Vec<RoomCommand>) -> Vec<String> {
        commands
            .into_iter()
            .map(|command| match command {
                RoomCommand::Attributes(set) => set
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
                RoomCommand::OpenText(stream) => {
                    let said = if stream.of_user { "user" } else { "agent" };
                    let values: Vec<_> = stream
                        .attributes
                        .iter()
                        .map(|(_, value)| value.as_str())
                        .collect();
                    format!("open {} {said} {}", stream.id, values.join(" "))
                }
                RoomCommand::WriteText { id, text } => format!("write {id} {text}"),
                RoomCommand::CloseText { id, attributes } => {
                    format!("close {id} {}", attributes.len())
                }
                other => format!("{other:?}"),
            })
            .collect()
    }

    fn states(events: &[&str]) -> Vec<String> {
        let mut conventions = Conventions::default();
        events
            .iter()
            .flat_map(|kind| shown(conventions.tell(&json!({"type": kind}))))
            .filter_map(|line| line.strip_prefix("lk.agent.state=").map(str::to_owned))
            .collect()
    }

    #[test]
    fn the_state_follows_a_turn() {
        let turn = [
            "session.created",
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "response.created",
            "output_audio_buffer.started",
            "response.done",
            "output_audio_buffer.stopped",
        ];
        assert_eq!(
            states(&turn),
            ["listening", "thinking", "speaking", "listening"]
        );
    }

    #[test]
    fn an_agent_that_is_spoken_over_speaks_until_it_is_silent() {
        let interrupted = [
            "output_audio_buffer.started",
            "input_audio_buffer.speech_started",
            "output_audio_buffer.cleared",
            "response.done",
            "input_audio_buffer.committed",
            "response.created",
            "response.done",
        ];
        assert_eq!(
            states(&interrupted),
            ["speaking", "listening", "thinking", "listening"]
        );
    }

    #[test]
    fn a_reply_is_one_stream_that_grows() {
        let mut conventions = Conventions::default();
        let mut tell = |event: Value| shown(conventions.tell(&event));
        let delta = |text: &str| json!({"type": "response.output_audio_transcript.delta", "item_id": "a", "delta": text});
        assert_eq!(
            tell(delta("Good ")),
            ["open a-1 agent a false", "write a-1 Good "]
        );
        assert_eq!(tell(delta("day.")), ["write a-1 day."]);
        let done = json!({"type": "response.output_audio_transcript.done", "item_id": "a", "transcript": "Good day."});
        assert_eq!(tell(done), ["close a-1 1"]);
    }

    #[test]
    fn a_reply_that_was_cut_is_told_again_as_it_was_heard() {
        let mut conventions = Conventions::default();
        let mut tell = |event: Value| shown(conventions.tell(&event));
        tell(
            json!({"type": "response.output_audio_transcript.delta", "item_id": "a", "delta": "Good day to you."}),
        );
        let done = json!({"type": "response.output_audio_transcript.done", "item_id": "a", "transcript": "Good day"});
        assert_eq!(
            tell(done),
            [
                "close a-1 1",
                "open a-2 agent a true",
                "write a-2 Good day",
                "close a-2 0"
            ]
        );
    }

    #[test]
    fn what_the_user_says_is_told_whole_in_the_users_name() {
        let mut conventions = Conventions::default();
        let mut tell = |event: Value| shown(conventions.tell(&event));
        let delta = |text: &str| json!({"type": "conversation.item.input_audio_transcription.delta", "item_id": "u", "delta": text});
        assert_eq!(
            tell(delta("Good")),
            ["open u-1 user u false", "write u-1 Good", "close u-1 0"]
        );
        assert_eq!(
            tell(delta(" day")),
            ["open u-2 user u false", "write u-2 Good day", "close u-2 0"]
        );
        let done = json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": "u",
                          "transcript": "Good day!"});
        assert_eq!(
            tell(done),
            ["open u-3 user u true", "write u-3 Good day!", "close u-3 0"]
        );
    }
}
