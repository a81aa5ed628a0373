//! The assistant's side: from the wish for a reply to the model's last word of it.

use super::Session;
use super::reply::{Reply, Source};
use super::turn::Awaited;
use crate::conversation::bounded;
use crate::{
    Action, Clause, Content, ErrorCode, Finish, Item, ItemId, ItemKind, ItemStatus, Modality,
    Notice, ReplyId, ReplyPatch, ReplyStatus, Role, State, Trigger, Usage,
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
    pub(super) fn current(&mut self, id: ReplyId) -> Option<&mut Reply> {
        if self.reply.as_ref().is_none_or(|reply| reply.id != id) {
            self.stale();
            return None;
        }
        self.reply.as_mut()
    }

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
    pub(super) fn message_item(&mut self) -> ItemId {
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
}
