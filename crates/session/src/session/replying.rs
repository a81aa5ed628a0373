//! The assistant's side: from the wish for a reply to its last heard word.

use super::reply::{Reply, Source};
use super::turn::Awaited;
use super::{MAX_LEDGERS, Session};
use crate::conversation::bounded;
use crate::playout::duration;
use crate::{
    Action, CancelReason, Clause, Content, ErrorCode, Finish, HeardBy, IncompleteReason, Item,
    ItemId, ItemKind, ItemStatus, Modality, Notice, ReplyId, ReplyOutcome, ReplyPatch, ReplyStatus,
    Role, State, Trigger, Usage, WordMark,
};

impl Session {
    /// Begins a reply. `answers` is the spoken message that it answers: if the user goes on before it sounds, the
    /// words are appended there.
    pub(super) fn create_reply(&mut self, patch: &ReplyPatch, answers: Option<ItemId>) {
        self.apply_config();
        let options = self.config.reply.patched(patch);
        let mut reply = self.new_reply(options, Source::Model);
        reply.answers = answers;
        self.begin(reply);
    }

    /// Begins a reply whose text is given.
    pub(super) fn create_spoken(&mut self, text: &str) -> ReplyId {
        let options = self.config.reply.patched(&ReplyPatch {
            modality: Some(Modality::Audio),
            in_conversation: Some(true),
            ..ReplyPatch::default()
        });
        let reply = self.new_reply(options, Source::Given);
        let id = reply.id;
        self.begin(reply);
        self.reply_text(id, &Clause::plain(text));
        self.reply_ended(id, Finish::Stop, None);
        id
    }

    fn new_reply(&mut self, options: crate::ReplyOptions, source: Source) -> Reply {
        self.last_reply.0 += 1;
        Reply::new(
            self.last_reply,
            options,
            source,
            self.now,
            self.config.timing.output_delay,
            self.last_turn,
        )
    }

    fn begin(&mut self, reply: Reply) {
        self.counters.replies += 1;
        self.may_prompt_silence = false;
        let notice = Notice::ReplyCreated {
            reply: reply.id,
            options: Box::new(reply.options.clone()),
        };
        let held = self.is_held();
        self.reply = Some(Reply {
            paused: held,
            prompted: reply.source == Source::Given,
            ..reply
        });
        self.go(Trigger::ReplyWanted);
        self.tell(notice);
        if held {
            self.go(Trigger::ReplyHeld);
        }
    }

    /// Makes the reply that was asked for while somebody spoke.
    pub(super) fn start_wanted_reply(&mut self) {
        if self.state == State::WaitingForInput
            && self.turn.is_none()
            && self.reply.is_none()
            && self.ending.is_none()
            && let Some(patch) = self.wanted.take()
        {
            let message = self
                .conversation
                .items()
                .last()
                .filter(|item| item.is_spoken_by_user());
            let message = message.map(|item| item.id.clone());
            self.create_reply(&patch, message);
        }
    }

    /// Asks the model, as soon as all messages have their words.
    pub(super) fn prompt_when_ready(&mut self) {
        let Some(reply) = self.reply.as_mut().filter(|reply| !reply.prompted) else {
            return;
        };
        // What is said from now on is not waited for: a speaker who never stops would hold the reply for ever.
        let waits = |awaited: &Awaited| awaited.due.is_some() && awaited.turn <= reply.newest_turn;
        if self.awaited.iter().any(waits) {
            return;
        }
        let now = self.now;
        let budget = self.config.limits.history_tokens;
        reply.prompted = true;
        reply.model_seen = now;
        let history = match &reply.options.input {
            Some(items) => bounded(items, budget),
            None => self.conversation.history(budget),
        };
        let (id, options) = (reply.id, reply.options.clone());
        let speculated = self.keep_speculation(id, &history, &options);
        self.act(Action::Prompt {
            reply: id,
            history,
            options: Box::new(options),
            speculated,
        });
    }

    /// The reply under way, if that is the one meant; else the event is stale.
    fn current(&mut self, id: ReplyId) -> Option<&mut Reply> {
        if self.reply.as_ref().is_none_or(|reply| reply.id != id) {
            self.stale();
            return None;
        }
        self.reply.as_mut()
    }

    // ---- the model ----

    pub(super) fn reply_text(&mut self, id: ReplyId, clause: &Clause) {
        let now = self.now;
        let Some(reply) = self.current(id) else {
            return;
        };
        if reply.text_ended || !reply.prompted {
            return self.stale();
        }
        reply.model_seen = now;
        let item = self.message_item();
        let Some(reply) = self.reply.as_mut() else {
            return;
        };
        let number = reply.ledger.add(clause);
        let paused = reply.paused;
        if reply.is_spoken() {
            if let Some(clause_number) = number {
                if !reply.voice_owes {
                    reply.voice_owes = true;
                    reply.voice_seen = now;
                }
                self.act(Action::Speak {
                    reply: id,
                    clause: clause_number,
                    text: clause.spoken.clone(),
                });
                if clause_number == 0 && paused {
                    // It was held before there was anything to hold.
                    self.pause_voice(id);
                }
            }
        } else if !clause.display.is_empty() {
            reply.told = reply.ledger.text().len();
            self.tell(Notice::ReplyTextDelta {
                reply: id,
                item,
                text: clause.display.clone(),
            });
        }
    }

    /// The name of the reply's message; made if there is none.
    fn message_item(&mut self) -> ItemId {
        if let Some(item) = self
            .reply
            .as_ref()
            .and_then(|reply| Some(reply.items.get(reply.message?)?.id.clone()))
        {
            return item;
        }
        let spoken = self.reply.as_ref().is_some_and(Reply::is_spoken);
        let content = if spoken {
            Content::Audio { transcript: None }
        } else {
            Content::Text(String::new())
        };
        let id = self.name();
        let item = Item {
            id: id.clone(),
            status: ItemStatus::InProgress,
            kind: ItemKind::Message {
                role: Role::Assistant,
                content: vec![content],
            },
        };
        if let Some(reply) = self.reply.as_mut() {
            reply.message = Some(reply.items.len());
        }
        self.add_reply_item(item);
        id
    }

    fn add_reply_item(&mut self, item: Item) {
        let Some(reply) = self.reply.as_mut() else {
            return;
        };
        let index = u32::try_from(reply.items.len()).unwrap_or(u32::MAX);
        let (id, joins) = (reply.id, reply.options.in_conversation);
        reply.items.push(item.clone());
        self.tell(Notice::ReplyItemAdded {
            reply: id,
            index,
            item: item.clone(),
        });
        if joins {
            self.append(item);
        }
    }

    pub(super) fn reply_tool_call(
        &mut self,
        id: ReplyId,
        call_id: String,
        name: String,
        arguments: String,
    ) {
        let now = self.now;
        let Some(reply) = self.current(id) else {
            return;
        };
        if reply.text_ended || !reply.prompted {
            return self.stale();
        }
        reply.model_seen = now;
        let index = reply.items.len();
        let joins = reply.options.in_conversation;
        let kind = ItemKind::FunctionCall {
            call_id: call_id.clone(),
            name: name.clone(),
            arguments: arguments.clone(),
        };
        let item = Item {
            id: self.name(),
            status: ItemStatus::Completed,
            kind,
        };
        self.add_reply_item(item.clone());
        self.tell(Notice::ReplyFunctionCall {
            reply: id,
            item: item.id.clone(),
            call_id,
            name,
            arguments,
        });
        if joins {
            self.item_done(&item.id);
        }
        self.tell(Notice::ReplyItemDone {
            reply: id,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            item,
        });
    }

    pub(super) fn reply_ended(&mut self, id: ReplyId, finish: Finish, usage: Option<Usage>) {
        let now = self.now;
        let Some(reply) = self.current(id) else {
            return;
        };
        if reply.text_ended || !reply.prompted {
            return self.stale();
        }
        reply.text_ended = true;
        reply.finish = Some(finish);
        reply.usage = usage;
        if reply.has_voice() {
            reply.voice_owes = true;
            reply.voice_seen = now;
            self.act(Action::EndSpeech { reply: id });
        }
    }

    pub(super) fn reply_failed(&mut self, id: ReplyId, code: ErrorCode, message: String) {
        if self.current(id).is_some() {
            self.fail_reply(code, message);
        }
    }

    pub(super) fn fail_reply(&mut self, code: ErrorCode, message: impl Into<String>) {
        self.counters.failed_replies += 1;
        self.finish_reply(
            ReplyStatus::Failed {
                code,
                message: message.into(),
            },
            Trigger::ReplyOver,
        );
    }

    // ---- the voice and the mouth ----

    pub(super) fn audio(&mut self, id: ReplyId, samples: u64, words: &[WordMark]) {
        let now = self.now;
        let Some(reply) = self.current(id) else {
            return;
        };
        if reply.ledger.has_ended() || reply.ledger.clauses() == 0 || !reply.is_spoken() {
            return self.stale();
        }
        if reply.is_starved() {
            reply.writer_seen = now;
        }
        reply.voice_seen = now;
        reply.voice_owes = reply.text_ended;
        reply.ledger.audio(samples, words);
    }

    pub(super) fn audio_cut(&mut self, id: ReplyId, samples: u64) {
        let Some(reply) = self.current(id) else {
            return;
        };
        if reply.ledger.has_ended() || !reply.has_voice() {
            return self.stale();
        }
        reply.ledger.cut_audio(samples);
    }

    pub(super) fn audio_ended(&mut self, id: ReplyId) {
        let Some(reply) = self.current(id) else {
            return;
        };
        if !reply.has_voice() || reply.ledger.has_ended() {
            return self.stale();
        }
        if !reply.text_ended {
            let message = "the voice ended before its text".to_owned();
            return self.fail_reply(ErrorCode::VoiceFailed, message);
        }
        reply.ledger.audio_ended();
        reply.voice_owes = false;
        self.tell_progress();
    }

    pub(super) fn sent(&mut self, id: ReplyId, samples: u64) {
        let now = self.now;
        let Some(reply) = self.current(id) else {
            return;
        };
        let first = !reply.has_sounded();
        let samples = samples.min(reply.ledger.received());
        if !reply.ledger.playout.sent(now, samples) {
            return;
        }
        reply.writer_seen = now;
        reply.last_frame = now;
        reply.reminded = false;
        if reply.is_starved() {
            reply.voice_seen = reply.voice_seen.max(now);
            reply.model_seen = reply.model_seen.max(now);
        }
        let paused = reply.paused;
        if first {
            self.message_item();
            self.tell(Notice::PlaybackStarted { reply: id });
        }
        if self.state == State::Thinking && !paused {
            self.go(Trigger::FrameSent);
        }
        self.tell_progress();
    }

    /// Tells the client the words that were sent, and when the audio is all.
    fn tell_progress(&mut self) {
        let Some(reply) = self.reply.as_mut() else {
            return;
        };
        let id = reply.id;
        if !reply.is_spoken() {
            return;
        }
        let until = reply.ledger.text_until(reply.ledger.playout.furthest());
        let delta = reply
            .ledger
            .text()
            .get(reply.told..until)
            .unwrap_or("")
            .to_owned();
        let audio_done = reply.is_sent() && reply.ledger.clauses() > 0 && !reply.audio_done_told;
        reply.audio_done_told |= audio_done;
        reply.told = reply.told.max(until);
        if delta.is_empty() && !audio_done {
            return;
        }
        let item = self.message_item();
        if !delta.is_empty() {
            self.tell(Notice::ReplyTranscriptDelta {
                reply: id,
                item: item.clone(),
                text: delta,
            });
        }
        if audio_done {
            self.tell(Notice::ReplyAudioDone { reply: id, item });
        }
    }

    pub(super) fn played(&mut self, id: ReplyId, samples: u64) {
        let now = self.now;
        if self.reply.as_ref().is_some_and(|reply| reply.id == id) {
            if let Some(reply) = self.reply.as_mut() {
                reply.ledger.playout.played(now, samples);
            }
        } else if let Some((_, item, ledger)) =
            self.ledgers.iter_mut().find(|(reply, _, _)| *reply == id)
        {
            // A late report still corrects what is known of a reply that was cut off.
            let before = ledger.heard(now).to_owned();
            ledger.playout.played(now, samples);
            let heard = ledger.heard(now).to_owned();
            let (item, audio_end) = (item.clone(), duration(ledger.heard_samples(now)));
            if heard != before {
                self.set_words(&item, &heard);
                self.tell(Notice::ItemTruncated {
                    item,
                    audio_end,
                    text: heard,
                });
            }
        } else {
            self.stale();
        }
    }

    // ---- the end of a reply ----

    /// Ends a reply that was said to its end.
    pub(super) fn finish_if_said(&mut self) {
        let Some(reply) = self.reply.as_ref().filter(|reply| reply.text_ended) else {
            return;
        };
        let silent = !reply.is_spoken() || reply.ledger.clauses() == 0;
        if silent || (reply.is_sent() && reply.ledger.all_heard(self.now)) {
            self.finish_said();
        }
    }

    /// All of it counts as heard.
    pub(super) fn finish_said(&mut self) {
        let Some(reply) = self.reply.as_mut() else {
            return;
        };
        reply.ledger.playout.settle();
        let status = match reply.finish {
            Some(Finish::Length) => ReplyStatus::Incomplete(IncompleteReason::MaxOutputTokens),
            Some(Finish::ContentFilter) => ReplyStatus::Incomplete(IncompleteReason::ContentFilter),
            _ => ReplyStatus::Completed,
        };
        self.finish_reply(status, Trigger::ReplyOver);
    }

    /// Ends the reply, stops who still works on it, and writes down what was heard of it.
    pub(super) fn finish_reply(&mut self, status: ReplyStatus, trigger: Trigger) {
        let Some(mut reply) = self.reply.take() else {
            return;
        };
        let (id, now) = (reply.id, self.now);
        let said = matches!(status, ReplyStatus::Completed | ReplyStatus::Incomplete(_));
        if !reply.text_ended && reply.prompted {
            self.act(Action::CancelPrompt { reply: id });
        }
        if !said && reply.has_voice() {
            self.act(Action::Stop { reply: id });
            if reply.has_sounded() {
                self.tell(Notice::PlaybackCleared { reply: id });
            }
        }
        let whole = said || !reply.is_spoken();
        let (heard, unheard) = if whole {
            (reply.ledger.text().trim_end().to_owned(), String::new())
        } else {
            (
                reply.ledger.heard(now).to_owned(),
                reply.ledger.unheard(now).to_owned(),
            )
        };
        self.close_message(&mut reply, &heard, said);
        let audio_end = duration(reply.ledger.heard_samples(now));
        let heard_by = if reply.is_spoken() {
            reply.ledger.playout.heard_by()
        } else {
            HeardBy::Client
        };
        let interrupted = status == ReplyStatus::Cancelled(CancelReason::TurnDetected);
        self.tell(Notice::ReplyDone(Box::new(ReplyOutcome {
            reply: id,
            status,
            items: reply.items.clone(),
            heard,
            unheard,
            audio_end,
            heard_by,
            usage: reply.usage,
        })));
        if said && reply.has_sounded() {
            self.tell(Notice::PlaybackStopped { reply: id });
        }
        self.reply_over_at = Some(now);
        if !reply.unasked {
            self.active();
        }
        self.may_prompt_silence = said;
        if let Some(message) = reply.message.and_then(|at| reply.items.get(at)) {
            self.ledgers
                .push_back((id, message.id.clone(), reply.ledger));
            if self.ledgers.len() > MAX_LEDGERS {
                self.ledgers.pop_front();
            }
        }
        self.go(trigger);
        let calls = reply
            .items
            .iter()
            .any(|item| matches!(item.kind, ItemKind::FunctionCall { .. }));
        self.after_reply(id, interrupted || calls);
    }

    fn close_message(&mut self, reply: &mut Reply, heard: &str, said: bool) {
        let id = reply.id;
        let rest = reply
            .ledger
            .text()
            .get(reply.told..)
            .unwrap_or("")
            .to_owned();
        let (spoken, joins) = (reply.is_spoken(), reply.options.in_conversation);
        let audio_done_told = reply.audio_done_told;
        let Some((index, message)) = reply
            .message
            .and_then(|at| Some((at, reply.items.get_mut(at)?)))
        else {
            return;
        };
        let item = message.id.clone();
        if said && spoken && !rest.is_empty() {
            self.tell(Notice::ReplyTranscriptDelta {
                reply: id,
                item: item.clone(),
                text: rest,
            });
        }
        if spoken && !audio_done_told {
            self.tell(Notice::ReplyAudioDone {
                reply: id,
                item: item.clone(),
            });
        }
        let done = Notice::ReplyTranscriptDone {
            reply: id,
            item: item.clone(),
            text: heard.to_owned(),
            written: !spoken,
        };
        self.tell(done);
        message.status = if said {
            ItemStatus::Completed
        } else {
            ItemStatus::Incomplete
        };
        let content = if spoken {
            Content::Audio {
                transcript: Some(heard.to_owned()),
            }
        } else {
            Content::Text(heard.to_owned())
        };
        message.kind = ItemKind::Message {
            role: Role::Assistant,
            content: vec![content],
        };
        let message = message.clone();
        if joins && let Some(stored) = self.conversation.get_mut(&item) {
            *stored = message.clone();
            self.item_done(&item);
        }
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.tell(Notice::ReplyItemDone {
            reply: id,
            index,
            item: message,
        });
    }

    /// The state that follows, and what was put off until now.
    /// `unfinished`: there is more to come, from the user or a function.
    fn after_reply(&mut self, id: ReplyId, unfinished: bool) {
        if self.state == State::Ended {
            return;
        }
        if let Some(ending) = &self.ending {
            if ending.goodbye == Some(id) {
                self.goodbye_said();
            }
            return;
        }
        if let Some(turn) = self.turn.as_ref() {
            // The user has been speaking beside the reply, or over it.
            let over = turn.ended.is_some();
            if self.state == State::WaitingForInput {
                self.go(Trigger::UserSpeaks);
                if over {
                    self.go(Trigger::TurnEnded);
                }
            }
            self.announce();
        } else if !unfinished {
            self.turns_are_used_up(false);
        }
    }
}
