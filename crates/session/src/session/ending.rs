//! How a session ends: at once when the client says so; else with a goodbye, if one is configured.

use super::Session;
use crate::{Action, CancelReason, EndReason, Notice, ReplyId, ReplyStatus, State, Trigger};
use std::time::Duration;

/// A goodbye takes no longer.
const GOODBYE: Duration = Duration::from_secs(20);

/// A session on its way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub reason: EndReason,
    /// When it ends, said or not.
    pub due: Duration,
    /// The reply that says goodbye.
    pub goodbye: Option<ReplyId>,
}

impl Session {
    /// Ends the session by itself, with its goodbye.
    pub(super) fn end_gracefully(&mut self, reason: EndReason) {
        if self.ending.is_some() {
            return;
        }
        let goodbye = self
            .config
            .limits
            .goodbye
            .clone()
            .filter(|text| !text.trim().is_empty());
        let Some(goodbye) = goodbye.filter(|_| self.lost_at.is_none()) else {
            return self.end(reason);
        };
        self.cancel_transcription();
        self.turn = None;
        self.wanted = None;
        self.client_holds = false;
        self.ending = Some(Ending {
            reason,
            due: self.now + GOODBYE,
            goodbye: None,
        });
        self.finish_reply(
            ReplyStatus::Cancelled(CancelReason::SessionEnded),
            Trigger::ReplyOver,
        );
        if matches!(self.state, State::Listening | State::Thinking) {
            self.go(Trigger::TurnClosed);
        }
        let id = self.create_spoken(&goodbye);
        if let Some(ending) = self.ending.as_mut() {
            ending.goodbye = Some(id);
        }
    }

    pub(super) fn goodbye_said(&mut self) {
        if let Some(ending) = &self.ending {
            self.end(ending.reason);
        }
    }

    /// Whether the turns are used up; then the session ends. `another` is a turn that came after the last.
    pub(super) fn turns_are_used_up(&mut self, another: bool) -> bool {
        let Some(max) = self.config.limits.max_turns.map(u64::from) else {
            return false;
        };
        let used_up = self.counters.turns > max
            || (self.counters.turns == max && !another && self.reply_is_given());
        if used_up {
            self.end_gracefully(EndReason::MaxTurns);
        }
        used_up
    }

    /// The last turn has had its reply.
    fn reply_is_given(&self) -> bool {
        self.reply.is_none() && self.wanted.is_none() && self.reply_over_at == Some(self.now)
    }

    /// Ends the session now.
    pub(super) fn end(&mut self, reason: EndReason) {
        if self.state == State::Ended {
            return;
        }
        self.ending = None;
        self.cancel_transcription();
        for at in 0..self.awaited.len() {
            let (turn, revision) = (self.awaited[at].turn, self.awaited[at].revision);
            self.act(Action::CancelTranscribe { turn, revision });
        }
        self.awaited.clear();
        self.turn = None;
        self.wanted = None;
        if self.reply.is_some() {
            self.finish_reply(
                ReplyStatus::Cancelled(CancelReason::SessionEnded),
                Trigger::SessionOver,
            );
        } else {
            self.go(Trigger::SessionOver);
        }
        self.tell(Notice::Ended { reason });
        self.act(Action::Close { reason });
    }
}
