//! Does what the core says.

use std::time::SystemTime;

use duologue_rpc::ControlAction;
use duologue_session::{Action, Event, Notice, ReplyId, State};
use serde_json::json;

use super::Driver;
use crate::mouth::time_of;
use crate::transport::{Backlog, Outbound};

/// Target of log lines that hold what people say. Whoever sets up the log leaves them out unless it is told otherwise.
const CONTENT: &str = "duologue::content";

impl<O: Outbound> Driver<O> {
    pub(super) fn perform(&mut self, action: Action) -> Result<(), Backlog> {
        match action {
            Action::Transcribe {
                turn,
                revision,
                from,
                to,
                kind,
            } => {
                self.log_span.turn_is(turn);
                self.transcribe(turn, revision, (from, to), kind);
            }
            Action::CancelTranscribe { turn, revision } => {
                if let Some(running) = self.transcribing.get_mut(&turn) {
                    running.retain(|(number, cancel)| {
                        let old = *number <= revision;
                        if old {
                            cancel.cancel();
                        }
                        !old
                    });
                    if running.is_empty() {
                        self.transcribing.remove(&turn);
                    }
                }
            }
            Action::JudgeEndOfTurn {
                turn, revision, to, ..
            } => self.judge(turn, revision, to),
            Action::Prompt {
                reply,
                history,
                options,
                speculated,
            } => self.prompt(reply, &history, &options, speculated),
            Action::Speculate {
                reply,
                history,
                options,
            } => self.speculate(reply, &history, &options),
            Action::CancelSpeculation { .. } => self.speculating = None,
            Action::CancelPrompt { reply } => {
                if let Some((_, cancel)) = self.thinking.take_if(|(thinking, _)| *thinking == reply)
                {
                    cancel.cancel();
                }
            }
            Action::Speak {
                reply,
                clause,
                text,
            } => {
                if clause == 0 {
                    self.mouth.begin(reply);
                    self.speech_began = self.wall();
                    self.encoder = None;
                }
                let context = (clause == 0).then(|| self.trace.speaks(reply, SystemTime::now()));
                if !self.speaking.say(reply, text, context) {
                    let message = "the model writes faster than the voice can take".into();
                    self.core
                        .handle(self.now(), Event::VoiceFailed { reply, message });
                }
            }
            Action::EndSpeech { reply } => self.speaking.end(reply),
            Action::Pause { reply } => {
                self.mouth.hold(reply);
                self.reports_of_playout.interrupted();
                self.outbound.flush();
                self.speaking.control(reply, ControlAction::Pause);
                self.own(
                    "duologue.playout.pause",
                    json!({"response_id": self.scribe.response_id(reply)}),
                )?;
            }
            Action::Duck { reply } => self.mouth.duck(reply),
            Action::Resume { reply, at_sample } => {
                self.speaking.control(reply, ControlAction::Resume);
                self.reports_of_playout.interrupted();
                if let Some(at) = self.mouth.resume(reply, at_sample) {
                    let body = json!({
                        "response_id": self.scribe.response_id(reply),
                        "item_id": self.scribe.message_of(reply),
                        "audio_start_ms": time_of(at).as_millis() as u64,
                    });
                    self.own("duologue.playout.resume", body)?;
                    self.core
                        .handle(self.now(), Event::Sent { reply, samples: at });
                }
            }
            Action::Stop { reply } => self.stop(reply)?,
            Action::Emit(notice) => self.emit(notice)?,
            Action::Close { reason } => self.ended = Some(reason),
        }
        Ok(())
    }

    pub(super) fn stop(&mut self, reply: ReplyId) -> Result<(), Backlog> {
        self.speaking.control(reply, ControlAction::Stop);
        self.speaking.stop(reply);
        self.trace.spoken(reply, SystemTime::now());
        let sent = self.mouth.sent().filter(|(speaking, _)| *speaking == reply);
        if sent.is_some() {
            self.outbound.flush();
        }
        self.mouth.stop(reply);
        self.encoder = None;
        if let Some((_, sent)) = sent {
            let body = json!({
                "response_id": self.scribe.response_id(reply),
                "item_id": self.scribe.message_of(reply),
                "audio_end_ms": time_of(sent).as_millis() as u64,
            });
            self.own("duologue.playout.clear", body)?;
        }
        Ok(())
    }

    pub(super) fn emit(&mut self, notice: Notice) -> Result<(), Backlog> {
        let at = self.now();
        self.measuring.notice(&notice, at);
        log_content(&notice);
        match &notice {
            Notice::StateChanged { to, .. } => {
                if *to != State::Ended {
                    self.thinking_now = *to == State::Thinking;
                }
                self.seen
                    .state(*to, self.core.counters(), self.speaking.worker());
                let heard = matches!(to, State::Speaking | State::BargedIn);
                let scale = self.orchestrator.config().speaking_threshold_scale;
                self.hearing
                    .set_threshold_scale(if heard { scale } else { 1.0 });
            }
            Notice::HeardItself { times } => {
                let advice = self.scribe.echo_advice();
                tracing::warn!(times, "the session hears its own voice: {advice}");
                self.hearing.look_for_echo();
            }
            // The last of the sound, which the client's rate still held back, goes before the news of its end.
            Notice::ReplyAudioDone { reply, .. } => {
                if let Some((_, mut encoder)) =
                    self.encoder.take_if(|(encoding, _)| encoding == reply)
                {
                    let rest = encoder.finish();
                    if !rest.is_empty() {
                        for event in self.scribe.audio_delta(*reply, &rest) {
                            self.outbound.event(&event)?;
                        }
                    }
                }
            }
            _ => {}
        }
        self.journal_change();
        if let Notice::ReplyDone(outcome) = &notice {
            let now = SystemTime::now();
            self.trace.done(outcome.reply, &outcome.status, now);
        }
        let replied = matches!(notice, Notice::ReplyDone(_));
        for event in self.scribe.write(notice, at, self.cause.as_deref()) {
            self.outbound.event(&event)?;
        }
        if replied {
            self.prepare(None);
        }
        Ok(())
    }

    pub(super) fn own(&mut self, name: &str, body: serde_json::Value) -> Result<(), Backlog> {
        match self.scribe.own(name, body) {
            Some(event) => self.outbound.event(&event),
            None => Ok(()),
        }
    }
}

/// What was said, for a log that is asked to have it.
fn log_content(notice: &Notice) {
    match notice {
        Notice::InputTranscriptCompleted { text, .. } => {
            tracing::info!(target: CONTENT, text, "the user said");
        }
        Notice::ReplyDone(outcome) => {
            tracing::info!(target: CONTENT, text = outcome.heard, "the assistant said");
        }
        _ => {}
    }
}
