//! Messages whose words come later: what a client commits itself, and the pieces of a turn that is too long.
//!
//! Nobody can say of these that they hold no words before they are in the conversation, so they are there at once
//! and their words follow. A reply waits for them, each with its own end.

use super::turn::{Awaited, Turn};
use super::{MAX_AWAITED, Session};
use crate::{Action, ErrorCode, ItemId, Notice, State, TranscribeKind, Trigger, TurnId};
use std::time::Duration;

impl Session {
    /// Commits what the client's buffer holds; its words follow.
    pub(super) fn commit_input(&mut self, from: Duration, to: Duration) {
        self.active();
        if self.state == State::BargedIn {
            self.confirm_interruption(crate::Evidence::Client);
        }
        let to = to.min(self.now);
        let open = self.turn.as_ref().is_some_and(|turn| turn.ended.is_none());
        let start = self
            .turn
            .as_ref()
            .filter(|_| open)
            .map(|turn| turn.from.saturating_sub(self.pre_roll()));
        let from = start
            .map_or(from, |start| from.max(start))
            .max(self.input_used);
        if to.saturating_sub(from) < Duration::from_millis(100) {
            return self.complain(
                ErrorCode::InputEmpty,
                "the input buffer holds less than 100 ms of audio",
            );
        }
        if !open {
            if self.turn.is_some() {
                return self.complain(
                    ErrorCode::InputEmpty,
                    "the turn detector has committed this input already",
                );
            }
            let (id, item) = (self.new_turn(), self.name());
            return self.commit_unheard(id, 0, item, from, to);
        }
        self.cancel_transcription();
        let Some(turn) = self.turn.take() else { return };
        if turn.announced {
            self.tell(Notice::SpeechStopped {
                item: turn.item.clone(),
                at: to,
            });
        }
        self.commit_unheard(turn.id, turn.revision + 1, turn.item.clone(), from, to);
        if turn.is_going() {
            self.continue_in_new_turn(to);
        } else if self.state == State::Listening {
            self.go(Trigger::TurnClosed);
        }
    }

    /// A turn that is too long becomes a message, and goes on as the next.
    pub(super) fn split_turn(&mut self) {
        self.cancel_transcription();
        let (pre_roll, used, now) = (self.pre_roll(), self.input_used, self.now);
        let Some(turn) = self.turn.take() else { return };
        if turn.announced {
            self.tell(Notice::SpeechStopped {
                item: turn.item.clone(),
                at: now,
            });
        }
        let from = turn.from.saturating_sub(pre_roll).max(used);
        self.commit_unheard(turn.id, turn.revision + 1, turn.item.clone(), from, now);
        self.continue_in_new_turn(now);
        if let Some(next) = self.turn.as_mut() {
            next.cut_reply = turn.cut_reply;
            next.follows = Some(turn.item);
        }
    }

    fn continue_in_new_turn(&mut self, from: Duration) {
        let (id, item) = (self.new_turn(), self.name());
        let mut next = Turn::new(id, item, from);
        next.next_partial = self.config.timing.partials.map(|every| from + every);
        self.turn = Some(next);
        self.announce();
    }

    fn commit_unheard(
        &mut self,
        turn: TurnId,
        revision: u32,
        item: ItemId,
        from: Duration,
        to: Duration,
    ) {
        self.counters.turns += 1;
        self.input_used = self.input_used.max(to);
        if self.conversation.get(&item).is_some() {
            let previous = self.conversation.previous(&item);
            self.tell(Notice::InputCommitted {
                item: item.clone(),
                previous,
            });
        } else {
            self.add_message(item.clone(), None);
        }
        self.act(Action::Transcribe {
            turn,
            revision,
            from,
            to,
            kind: TranscribeKind::Final,
        });
        let due = Some(self.now + self.config.timing.transcript);
        self.awaited.push_back(Awaited {
            turn,
            revision,
            item,
            due,
        });
        if self.awaited.len() > MAX_AWAITED {
            self.give_up_awaited(0);
            self.awaited.pop_front();
        }
    }

    pub(super) fn commit_silence(&mut self, from: Duration) {
        let item = self.name();
        self.tell(Notice::InputTimeout {
            item: item.clone(),
            from,
            to: self.now,
        });
        self.input_used = self.now;
        self.add_message(item, Some(String::new()));
    }

    /// Stops waiting for a message's words; they are still taken if they come.
    pub(super) fn give_up_awaited(&mut self, at: usize) {
        let Some(awaited) = self
            .awaited
            .get_mut(at)
            .filter(|awaited| awaited.due.is_some())
        else {
            return;
        };
        awaited.due = None;
        let (turn, revision) = (awaited.turn, awaited.revision);
        let notice = Notice::InputTranscriptFailed {
            item: awaited.item.clone(),
            message: "the transcript did not come in time".to_owned(),
        };
        self.act(Action::CancelTranscribe { turn, revision });
        self.tell(notice);
    }

    pub(super) fn words_arrived(&mut self, awaited: &Awaited, words: Result<String, String>) {
        match words {
            Ok(words) => self.add_words(&awaited.item, words.trim()),
            Err(_) if awaited.due.is_none() => {} // told already
            Err(message) => self.tell(Notice::InputTranscriptFailed {
                item: awaited.item.clone(),
                message,
            }),
        }
    }
}
