//! The end of a reply: what was heard of it is written down, and what was put off until then is done.

use super::reply::Reply;
use super::{MAX_LEDGERS, Session};
use crate::playout::duration;
use crate::{
    Action, CancelReason, Content, Finish, HeardBy, IncompleteReason, ItemKind, ItemStatus, Notice,
    ReplyId, ReplyOutcome, ReplyStatus, Role, State, Trigger,
};

impl Session {
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
