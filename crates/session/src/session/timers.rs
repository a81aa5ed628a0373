//! Nothing lasts for ever. Every wait is here, with what happens when it is over; which waits run follows from the
//! state, so none can be forgotten when the state changes.

use super::Session;
use crate::{
    Action, EndReason, ErrorCode, Notice, ReplyPatch, State, TranscribeKind, Trigger, TurnDetection,
};
use std::time::Duration;

/// Timers that may fire one after another in one go; more would be a loop.
const MAX_ROUNDS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    EndTurn,
    SplitTurn,
    TurnWords,
    AwaitedWords(usize),
    Partial,
    Weigh,
    Model,
    Voice,
    Writer,
    Gap,
    Said,
    PromptSilence,
    IdleWarning,
    Idle,
    MaxDuration,
    Reconnect,
    Goodbye,
}

impl Session {
    /// When [`crate::Event::Tick`] is due if nothing else comes. `None`: nothing would ever happen by itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.next_timer().map(|(at, _)| at)
    }

    pub(super) fn run_timers(&mut self) {
        for _ in 0..MAX_ROUNDS {
            match self.next_timer().filter(|(at, _)| *at <= self.now) {
                Some((_, timer)) => self.fire(timer),
                None => return,
            }
            self.follow_up();
        }
        self.counters.defects += 1;
    }

    fn next_timer(&self) -> Option<(Duration, Timer)> {
        if self.state == State::Ended {
            return None;
        }
        let mut first: Option<(Duration, Timer)> = None;
        let mut add = |at: Option<Duration>, timer: Timer| {
            if let Some(at) = at
                && first.is_none_or(|(before, _)| at < before)
            {
                first = Some((at, timer));
            }
        };
        self.turn_timers(&mut add);
        self.reply_timers(&mut add);
        self.session_timers(&mut add);
        first
    }

    fn turn_timers(&self, add: &mut impl FnMut(Option<Duration>, Timer)) {
        let timing = &self.config.timing;
        add(self.turn_ends_at(), Timer::EndTurn);
        add(self.weigh_at(), Timer::Weigh);
        if let Some(turn) = &self.turn {
            if turn.is_going() && self.state != State::BargedIn {
                add(Some(turn.from + timing.max_turn), Timer::SplitTurn);
            }
            if turn.is_going() && !turn.partial_pending {
                add(turn.next_partial, Timer::Partial);
            }
            if turn.words.is_none() {
                add(
                    turn.ended.map(|ended| ended + timing.transcript),
                    Timer::TurnWords,
                );
            }
        }
        for (at, awaited) in self.awaited.iter().enumerate() {
            add(awaited.due, Timer::AwaitedWords(at));
        }
    }

    fn reply_timers(&self, add: &mut impl FnMut(Option<Duration>, Timer)) {
        let timing = &self.config.timing;
        // A held reply does not move; the hold has its own end.
        let Some(reply) = self.reply.as_ref().filter(|reply| !reply.paused) else {
            return;
        };
        if self.state == State::Speaking && !reply.is_sent() {
            add(Some(reply.last_frame + timing.speaking_gap), Timer::Gap);
        }
        if !reply.prompted {
            return; // the words that it waits for have their own end
        }
        if reply.is_sent() {
            add(
                Some(reply.ledger.playout.all_heard_at().max(reply.resumed_at)),
                Timer::Said,
            );
            return;
        }
        if !reply.is_starved() && reply.is_spoken() {
            add(Some(reply.writer_seen + timing.writer), Timer::Writer);
            return;
        }
        if reply.voice_owes {
            add(Some(reply.voice_seen + timing.voice), Timer::Voice);
        }
        if !reply.text_ended {
            let first = reply.ledger.text().is_empty() && reply.items.is_empty();
            let wait = if first {
                timing.first_text
            } else {
                timing.next_text
            };
            add(Some(reply.model_seen + wait), Timer::Model);
        }
    }

    fn session_timers(&self, add: &mut impl FnMut(Option<Duration>, Timer)) {
        let limits = &self.config.limits;
        if let Some(ending) = &self.ending {
            return add(Some(ending.due), Timer::Goodbye);
        }
        add(limits.max_duration, Timer::MaxDuration);
        if let Some(lost) = self.lost_at {
            return add(Some(lost + self.config.timing.reconnect), Timer::Reconnect);
        }
        if self.state != State::WaitingForInput || self.turn.is_some() {
            return;
        }
        if let Some(timeout) = limits.idle_timeout {
            let ends_at = self.active_at + timeout;
            if !self.idle_warned && limits.idle_warning < timeout {
                add(ends_at.checked_sub(limits.idle_warning), Timer::IdleWarning);
            }
            add(Some(ends_at), Timer::Idle);
        }
        if let (
            TurnDetection::ServerVad {
                idle_timeout: Some(timeout),
                ..
            },
            true,
            None,
        ) = (
            &self.config.turn_detection,
            self.may_prompt_silence && !self.is_held(),
            &self.reply,
        ) {
            add(
                self.reply_over_at.map(|over| over + *timeout),
                Timer::PromptSilence,
            );
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::EndTurn => self.end_turn(),
            Timer::SplitTurn => self.split_turn(),
            Timer::TurnWords => {
                self.cancel_transcription();
                if let Some(turn) = self.turn.as_mut() {
                    turn.words = Some(Err("the transcript did not come in time".to_owned()));
                }
            }
            Timer::AwaitedWords(at) => self.give_up_awaited(at),
            Timer::Partial => {
                if let Some(turn) = self.turn.as_mut() {
                    turn.next_partial = None;
                }
                self.transcribe(TranscribeKind::Partial);
            }
            Timer::Weigh => {} // every event weighs it
            Timer::Model => self.fail_reply(
                ErrorCode::ModelFailed,
                "the model has written nothing for too long",
            ),
            Timer::Voice => self.fail_reply(
                ErrorCode::VoiceFailed,
                "the voice has said nothing for too long",
            ),
            Timer::Writer => self.writer_stands_still(),
            Timer::Gap => {
                self.counters.gaps += 1;
                self.go(Trigger::FramesMissing);
            }
            Timer::Said => self.finish_said(),
            Timer::PromptSilence => self.prompt_silence(),
            Timer::IdleWarning => {
                self.idle_warned = true;
                let timeout = self.config.limits.idle_timeout.unwrap_or_default();
                self.tell(Notice::IdleWarning {
                    ends_at: self.active_at + timeout,
                });
            }
            Timer::Idle => self.end_gracefully(EndReason::IdleTimeout),
            Timer::MaxDuration => self.end_gracefully(EndReason::MaxDuration),
            Timer::Reconnect => self.end(EndReason::TransportLost),
            Timer::Goodbye => self.goodbye_said(),
        }
    }

    /// There is audio, and nobody sends it: remind the writer once, then give up.
    fn writer_stands_still(&mut self) {
        let now = self.now;
        let Some(reply) = self.reply.as_mut() else {
            return;
        };
        if reply.reminded {
            return self.fail_reply(
                ErrorCode::OutputStalled,
                "the client has taken no audio for too long",
            );
        }
        reply.reminded = true;
        reply.writer_seen = now;
        let action = Action::Resume {
            reply: reply.id,
            at_sample: reply.ledger.playout.position(),
        };
        self.counters.writer_restarts += 1;
        self.act(action);
    }

    /// Nobody has spoken since the reply: the model is asked to go on.
    fn prompt_silence(&mut self) {
        let from = self.reply_over_at.unwrap_or(self.now);
        self.may_prompt_silence = false;
        self.commit_silence(from);
        self.create_reply(&ReplyPatch::default(), None);
        if let Some(reply) = self.reply.as_mut() {
            reply.unasked = true;
        }
    }
}
