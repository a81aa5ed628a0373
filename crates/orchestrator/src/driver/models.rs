//! Asks the models, and brings their answers back as events.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use duologue_asr::Cancel;
use duologue_metrics::{table, timeline};
use duologue_session::{
    Event, Item, Modality, ReplyId, ReplyOptions, Role, Speculation, State, TranscribeKind, TurnId,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::speculating::{KEPT_BACK, Speculating};
use super::turn_timer::Step;
use super::turn_trace::Thought;
use super::{Driver, clock, measuring, thinking};
use crate::inference::Priority;
use crate::transport::Outbound;
use crate::voice::VoiceChoice;

impl<O: Outbound> Driver<O> {
    pub(super) fn note_hearing(&mut self, event: &Event) {
        let Event::Silence { since } = event else {
            return;
        };
        self.trace.silent(self.system_time(*since));
        if self.mouth.sent().is_none_or(|_| self.mouth.finished()) {
            self.timer.start(*since);
        }
    }

    /// The system's time at a past time of the session.
    fn system_time(&self, at: Duration) -> SystemTime {
        let now = SystemTime::now();
        now.checked_sub(self.now().saturating_sub(at))
            .unwrap_or(now)
    }

    pub(super) fn transcribe(
        &mut self,
        turn: TurnId,
        revision: u32,
        span: (Duration, Duration),
        kind: TranscribeKind,
    ) {
        let engines = self.orchestrator.engines();
        let partial = kind == TranscribeKind::Partial;
        let sound = self.hearing.sound(span.0, span.1);
        let options = duologue_asr::Options {
            language: self.settings.language.clone(),
            prompt: self.settings.transcription_prompt.clone(),
            partial,
            ..duologue_asr::Options::default()
        };
        let cancel = Cancel::default();
        self.transcribing
            .entry(turn)
            .or_default()
            .push((revision, cancel.clone()));
        if !partial {
            self.trace.asks_transcript(SystemTime::now());
        }
        let recognizer = Arc::clone(&engines.recognizer);
        let priority = if partial {
            Priority::Background
        } else {
            Priority::Conversation
        };
        let flag = cancel.clone();
        let length = clock::length(sound.len() as u64);
        let job = engines.mind.submit(priority, move || {
            let _slice = timeline::slice("transcribe");
            recognizer.transcribe(&sound, &options, &flag)
        });
        let asked = Instant::now();
        self.report(async move {
            let message = match job {
                Ok(job) => match job.await {
                    Ok(Ok(transcript)) => {
                        measuring::transcribed(&transcript, partial, length, asked.elapsed());
                        let text = transcript.text;
                        return Some(if partial {
                            Event::Partial {
                                turn,
                                revision,
                                text,
                            }
                        } else {
                            Event::Transcript {
                                turn,
                                revision,
                                text,
                            }
                        });
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            let wanted = !cancel.is_cancelled();
            if wanted {
                table::TRANSCRIPTS_WITHOUT_WORDS.count_for("failed");
            }
            wanted.then_some(Event::TranscriptFailed {
                turn,
                revision,
                message,
            })
        });
    }

    pub(super) fn judge(&mut self, turn: TurnId, revision: u32, to: Duration) {
        let engines = self.orchestrator.engines();
        let Some(model) = engines.end_of_turn.clone() else {
            // Without a model the fixed silence decides.
            return;
        };
        let from = to.saturating_sub(clock::length(duologue_vad::EndOfTurn::WINDOW as u64));
        let sound = self.hearing.sound(from, self.now());
        let job = engines.mind.submit(Priority::Conversation, move || {
            let _slice = timeline::slice("judge end of turn");
            model.probability(&sound)
        });
        self.report(async move {
            match job.ok()?.await {
                Ok(Ok(probability)) => Some(Event::EndOfTurn {
                    turn,
                    revision,
                    probability,
                }),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the end of a turn was not judged");
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "the end of a turn was not judged");
                    None
                }
            }
        });
    }

    /// Brings an event about later.
    pub(super) fn report(&self, event: impl Future<Output = Option<Event>> + Send + 'static) {
        let feedback = self.feedback.clone();
        let told = async move {
            if let Some(event) = event.await {
                // A closed channel: the session is over.
                let _ = feedback.send(event).await;
            }
        };
        tokio::spawn(told.in_current_span());
    }

    pub(super) fn note_report(&mut self, event: &Event) {
        let now = self.now();
        match event {
            Event::Transcript { turn, text, .. } => {
                self.transcribing.remove(turn);
                self.timer.reach(Step::Transcript, now);
                self.trace.transcribed(SystemTime::now());
                if !text.is_empty() && self.core.next_config().speculation == Speculation::Off {
                    // While the end of the turn is still judged, the model can read the question.
                    self.prepare(Some(text.clone()));
                }
            }
            Event::Partial { .. } | Event::TranscriptFailed { .. } => {}
            Event::EndOfTurn { probability, .. } => self.trace.judged(*probability),
            Event::ReplyText { reply, .. } if self.timed_reply == Some(*reply) => {
                self.timer.reach(Step::FirstClause, now);
            }
            _ => {}
        }
    }

    // ---- thinking ----

    pub(super) fn prompt(
        &mut self,
        reply: ReplyId,
        history: &[Item],
        options: &ReplyOptions,
        speculated: bool,
    ) {
        self.timer.reach(Step::EndOfTurn, self.now());
        self.timed_reply = Some(reply);
        self.preparing.cancel();
        if options.modality == Modality::Audio {
            let voice = options.voice.as_deref().unwrap_or(&self.settings.voice);
            self.speaking
                .choose(VoiceChoice::parse(voice, options.speed.unwrap_or(1.0)));
        }
        let begun = self.speculating.take().filter(|_| speculated);
        let cancel = match begun {
            Some(begun) => begun.release(self.feedback.clone()),
            None => self.think(reply, history, options, self.feedback.clone()),
        };
        if let Some(thought) = self.thought.clone() {
            let now = SystemTime::now();
            let trace = self.trace.decided(reply, speculated, thought, now);
            self.log_span.reply_is(reply, trace);
        }
        self.thinking = Some((reply, cancel));
    }

    /// As [`prompt`](Self::prompt), but what comes of it is kept back.
    pub(super) fn speculate(&mut self, reply: ReplyId, history: &[Item], options: &ReplyOptions) {
        self.preparing.cancel();
        let (sender, kept) = mpsc::channel(KEPT_BACK);
        let cancel = self.think(reply, history, options, sender);
        self.speculating = Some(Speculating::new(kept, cancel));
    }

    fn think(
        &mut self,
        reply: ReplyId,
        history: &[Item],
        options: &ReplyOptions,
        events: mpsc::Sender<Event>,
    ) -> CancellationToken {
        let cancel = CancellationToken::new();
        let thought = Thought::new(SystemTime::now());
        self.thought = Some(Arc::clone(&thought));
        // What the model keeps of the conversation stays, whatever it is asked beside.
        let aside = aside(&self.seed);
        let conversation = match options.in_conversation {
            true => &self.seed,
            false => &aside,
        };
        let thought = thinking::think(
            Arc::clone(&self.orchestrator.engines().chat),
            thinking::chat_request(conversation, history, options),
            reply,
            thinking::speakable(options.modality, self.settings.language.as_deref()),
            cancel.clone(),
            events,
            thought,
        );
        tokio::spawn(thought.in_current_span());
        cancel
    }

    /// Lets the model read what is known of its next prompt.
    pub(super) fn prepare(&mut self, heard: Option<String>) {
        self.preparing.cancel();
        if self
            .thinking
            .as_ref()
            .is_some_and(|(_, cancel)| !cancel.is_cancelled())
            && matches!(self.core.state(), State::Thinking | State::Speaking)
        {
            return;
        }
        self.preparing = CancellationToken::new();
        let mut history = self.core.items().to_vec();
        if let Some(text) = heard {
            history.push(Item::message("", Role::User, text));
        }
        let request = thinking::chat_request(&self.seed, &history, &self.core.config().reply);
        let chat = Arc::clone(&self.orchestrator.engines().chat);
        let cancel = self.preparing.clone();
        let prepared = async move { chat.prepare(&request, cancel).await };
        tokio::spawn(prepared.in_current_span());
    }
}

/// The name of what is asked beside a conversation.
pub(super) fn aside(conversation: &str) -> String {
    format!("{conversation}-aside")
}
