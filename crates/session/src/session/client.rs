//! What the client asks for: items, replies, pauses, settings.

use super::{Session, Turn};
use crate::conversation::AddError;
use crate::playout::{duration, samples};
use crate::{
    Action, CancelReason, ConfigPatch, Control, ErrorCode, Evidence, Item, ItemId, ItemStatus,
    Notice, Place, ReplyId, ReplyPatch, ReplyStatus, Role, State, Trigger,
};
use std::time::Duration;

/// How far beyond its end an item may be truncated, for clients that round.
const ROUNDING: Duration = Duration::from_millis(100);

impl Session {
    pub(super) fn control(&mut self, control: Control) {
        self.active();
        match control {
            Control::Pause if !self.client_holds => {
                self.client_holds = true;
                self.hold_reply();
                self.tell(Notice::Paused);
            }
            Control::Resume if self.client_holds => {
                self.client_holds = false;
                self.release_reply();
                self.tell(Notice::Resumed);
            }
            Control::Pause | Control::Resume => {}
            Control::Stop => {
                self.wanted = None;
                if let Some(turn) = self.turn.as_mut().filter(|turn| turn.ended.is_some()) {
                    turn.unanswered = true;
                }
                if self.client_holds {
                    self.client_holds = false;
                    self.tell(Notice::Resumed);
                }
                self.finish_reply(
                    ReplyStatus::Cancelled(CancelReason::ClientCancelled),
                    Trigger::ReplyOver,
                );
            }
        }
    }

    pub(super) fn hold_reply(&mut self) {
        let Some(reply) = self.reply.as_mut() else {
            return;
        };
        let id = reply.id;
        if !reply.paused {
            reply.paused = true;
            if reply.has_voice() {
                self.pause_voice(id);
            }
        }
        if matches!(self.state, State::Thinking | State::Speaking) {
            self.go(Trigger::ReplyHeld);
        }
    }

    /// The voice and the client's player are told to hold.
    pub(super) fn pause_voice(&mut self, id: ReplyId) {
        if let Some(reply) = self.reply.as_mut().filter(|_| self.player_holds) {
            reply.ledger.playout.hold(self.now);
        }
        self.act(Action::Pause { reply: id });
    }

    pub(super) fn release_reply(&mut self) {
        if self.reply.is_some() && self.state == State::WaitingForInput && !self.is_held() {
            self.resume_reply();
            self.go(Trigger::ReplyReleased);
        }
    }

    pub(super) fn clear_input(&mut self) {
        self.active();
        if self.state == State::BargedIn {
            self.retract_interruption(Evidence::Client);
        } else {
            self.cancel_transcription();
            if let Some(turn) = self.turn.take() {
                self.ignoring = turn.is_going();
                self.forget(&turn);
            }
        }
        self.stray_silence = None;
        self.input_used = self.now;
        self.tell(Notice::InputCleared);
    }

    pub(super) fn forget(&mut self, turn: &Turn) {
        if turn.announced {
            if turn.ended.is_none() {
                self.tell(Notice::SpeechStopped {
                    item: turn.item.clone(),
                    at: self.now,
                });
            }
            self.tell(Notice::InputDiscarded {
                item: turn.item.clone(),
            });
        }
        if self.reply.is_none() && matches!(self.state, State::Listening | State::Thinking) {
            self.go(Trigger::TurnClosed);
        }
    }

    // ---- items ----

    pub(super) fn create_item(&mut self, mut item: Item, place: &Place) {
        self.active();
        if item.id.0.is_empty() {
            item.id = self.name();
        }
        item.status = ItemStatus::Completed;
        let id = item.id.clone();
        match self.conversation.add(item.clone(), place) {
            Ok(()) => {
                let previous = self.conversation.previous(&id);
                self.tell(Notice::ItemAdded { item, previous });
                self.item_done(&id);
                self.drop_surplus();
            }
            Err(AddError::Exists) => {
                self.complain(
                    ErrorCode::ItemExists,
                    format!("there is an item {id} already"),
                );
            }
            Err(AddError::NoPrevious) => {
                let Place::After(previous) = place else {
                    return;
                };
                self.complain(
                    ErrorCode::ItemNotFound,
                    format!("there is no item {previous} to put {id} after"),
                );
            }
        }
    }

    pub(super) fn delete_item(&mut self, item: ItemId) {
        self.active();
        if self.conversation.remove(&item) {
            self.tell(Notice::ItemDeleted { item });
        } else {
            self.complain(
                ErrorCode::ItemNotFound,
                format!("there is no item {item} to delete"),
            );
        }
    }

    pub(super) fn retrieve_item(&mut self, id: &ItemId) {
        // The message of the reply under way says what was heard so far.
        if let Some((message, heard)) = self.reply.as_ref().and_then(|reply| {
            let message = reply.items.get(reply.message?)?.id.clone();
            Some((message, reply.ledger.heard(self.now).to_owned()))
        }) && message == *id
        {
            self.set_words(id, &heard);
        }
        match self.conversation.get(id).cloned() {
            Some(item) => self.tell(Notice::ItemRetrieved { item }),
            None => self.complain(ErrorCode::ItemNotFound, format!("there is no item {id}")),
        }
    }

    pub(super) fn truncate_item(&mut self, id: ItemId, audio_end: Duration) {
        self.active();
        match self.conversation.get(&id).map(Item::role) {
            None => {
                return self.complain(
                    ErrorCode::ItemNotFound,
                    format!("there is no item {id} to truncate"),
                );
            }
            Some(Some(Role::Assistant)) => {}
            Some(_) => {
                return self.complain(
                    ErrorCode::BadTruncation,
                    format!("item {id} is no message of the assistant's"),
                );
            }
        }
        let under_way = self.reply.as_ref().filter(|reply| {
            reply.is_spoken()
                && reply
                    .message
                    .and_then(|at| reply.items.get(at))
                    .is_some_and(|item| item.id == id)
        });
        let is_under_way = under_way.is_some();
        let ledger = under_way.map(|reply| &reply.ledger).or_else(|| {
            self.ledgers
                .iter()
                .find(|(_, item, _)| *item == id)
                .map(|(_, _, ledger)| ledger)
        });
        let Some(total) = ledger.map(crate::ledger::Ledger::received) else {
            return self.complain(
                ErrorCode::BadTruncation,
                format!("item {id} has no audio, or is too old to be truncated"),
            );
        };
        if audio_end > duration(total) + ROUNDING {
            return self.complain(
                ErrorCode::BadTruncation,
                format!(
                    "item {id} has {} ms of audio, not {}",
                    duration(total).as_millis(),
                    audio_end.as_millis()
                ),
            );
        }
        let position = samples(audio_end).min(total);
        if let Some(reply) = self.reply.as_mut().filter(|_| is_under_way) {
            // The client stopped playing it: that is the end of the reply.
            reply.ledger.cut(position);
            self.finish_reply(
                ReplyStatus::Cancelled(CancelReason::ClientCancelled),
                Trigger::ReplyOver,
            );
        }
        let now = self.now;
        let Some((_, _, ledger)) = self.ledgers.iter_mut().find(|(_, item, _)| *item == id) else {
            return;
        };
        ledger.cut(position);
        let text = ledger.heard(now).to_owned();
        self.set_words(&id, &text);
        if let Some(item) = self.conversation.get_mut(&id) {
            item.status = ItemStatus::Incomplete;
        }
        self.tell(Notice::ItemTruncated {
            item: id,
            audio_end: duration(position),
            text,
        });
    }

    // ---- replies ----

    pub(super) fn create_reply_on_request(&mut self, patch: ReplyPatch) {
        self.active();
        if self.reply.is_some() {
            return self.complain(
                ErrorCode::ReplyActive,
                "there is a reply under way; cancel it, or wait until it is done",
            );
        }
        if self.ending.is_some() {
            return;
        }
        // A typed turn is over when its answer is asked for; a spoken one was counted when it ended.
        let typed = self
            .conversation
            .items()
            .last()
            .is_some_and(|item| item.role() == Some(Role::User) && !item.is_spoken_by_user());
        if typed {
            self.counters.turns += 1;
            if self.turns_are_used_up(true) {
                return;
            }
        }
        // While the user speaks, or the words are awaited, the reply waits for them; but not for noise.
        self.wanted = Some(patch);
        let heard_enough = self.config.interruption.decide_within;
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_going()) {
            let at = turn.from + heard_enough;
            turn.next_partial = Some(turn.next_partial.map_or(at, |next| next.min(at)));
        }
    }

    pub(super) fn cancel_reply(&mut self, id: Option<ReplyId>) {
        self.active();
        if self
            .reply
            .as_ref()
            .is_none_or(|reply| id.is_some_and(|id| id != reply.id))
        {
            return self.complain(ErrorCode::NoReplyActive, "there is no such reply under way");
        }
        self.finish_reply(
            ReplyStatus::Cancelled(CancelReason::ClientCancelled),
            Trigger::ReplyOver,
        );
    }

    pub(super) fn say(&mut self, text: String) {
        self.active();
        if self.reply.is_some() {
            self.complain(
                ErrorCode::ReplyActive,
                "there is a reply under way; cancel it, or wait until it is done",
            );
        } else if self.turn.is_some() {
            self.complain(ErrorCode::UserSpeaking, "the user is speaking");
        } else if self.ending.is_none() && !text.trim().is_empty() {
            self.apply_config();
            self.create_spoken(&text);
        }
    }

    // ---- settings ----

    pub(super) fn configure(&mut self, patch: &ConfigPatch) {
        self.active();
        let next = self.next_config.patched(patch);
        if let Err(message) = next.check() {
            return self.complain(ErrorCode::BadConfig, message);
        }
        self.next_config = next.clone();
        if self.turn.is_none() && self.reply.is_none() {
            self.apply_config();
        }
        self.tell(Notice::Configured(Box::new(next)));
    }

    // ---- the connection ----

    pub(super) fn transport_lost(&mut self) {
        if self.lost_at.is_some() {
            return;
        }
        self.lost_at = Some(self.now);
        self.ignoring = false;
        if self.turn.as_ref().is_some_and(Turn::is_going) {
            self.silence(self.now, false);
        }
        self.hold_reply();
    }

    pub(super) fn output_delay(&mut self, delay: Duration) {
        self.config.timing.output_delay = delay;
        if let Some(reply) = &mut self.reply {
            reply.ledger.set_output_delay(delay);
        }
    }

    pub(super) fn transport_back(&mut self) {
        if self.lost_at.take().is_some() {
            self.active();
            self.release_reply();
        }
    }
}
