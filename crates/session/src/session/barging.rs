//! Speech over a reply is a hypothesis. The reply is held at its first sound; evidence confirms an interruption
//! (the reply stops, and the history keeps what was heard) or retracts it (the reply goes on with the word that was
//! cut). The policies are in [`crate::turns`]; here they are given their facts and obeyed.
//!
//! Before anything of the reply was heard the same holds, with nothing to resume but the wait: a cough does not
//! throw away what the model has begun.

use super::Session;
use super::reply::Source;
use crate::playout::{duration, samples};
use crate::turns::{Overlap, Verdict, judge};
use crate::{
    Action, Announce, AtOnset, CancelReason, Evidence, Notice, ReplyStatus, State, Trigger,
};
use std::time::Duration;

/// How far back the reply's own words can be heard.
const OWN_SPEECH_SPAN: Duration = Duration::from_secs(5);
/// After so many suspicions for nothing in one reply, it is no longer silenced by the next, only softened.
const PATIENT_AFTER: u32 = 3;

impl Session {
    pub(super) fn suspect_interruption(&mut self, onset: Duration) {
        let Some(reply) = self.reply.as_mut() else {
            return;
        };
        let id = reply.id;
        self.barged_while_audible = self.state == State::Speaking;
        let softly = self.config.interruption.at_onset == AtOnset::Duck
            || reply.retractions >= PATIENT_AFTER;
        let has_sound = !reply.paused && reply.has_voice();
        let ducks = has_sound && softly && self.state == State::Speaking;
        reply.ducked |= ducks;
        reply.paused |= !ducks;
        if let Some(turn) = self.turn.as_mut() {
            turn.next_partial = Some(onset + self.config.interruption.min_duration);
        }
        // First the silence, then the news of it.
        if ducks {
            self.act(Action::Duck { reply: id });
        } else if has_sound {
            self.pause_voice(id);
        }
        self.go(Trigger::UserSpeaksOverReply);
        self.tell(Notice::InterruptionSuspected {
            reply: id,
            at: onset,
        });
        if self.config.interruption.announce == Announce::AtOnset {
            self.announce();
        }
    }

    fn overlap(&self) -> Option<Overlap> {
        let (turn, reply) = (self.turn.as_ref()?, self.reply.as_ref()?);
        let heard = reply.ledger.heard_samples(self.now);
        let (words, is_final) = match &turn.words {
            Some(Ok(words)) => (Some(words.clone()), true),
            _ => (turn.partial.clone(), false),
        };
        let remaining = reply
            .ledger
            .has_ended()
            .then(|| duration(reply.ledger.received().saturating_sub(heard)))
            .filter(|_| reply.has_sounded());
        Some(Overlap {
            voiced: turn.voiced(self.now),
            silent_for: turn
                .silent_since()
                .map(|since| self.now.saturating_sub(since)),
            words,
            is_final,
            own: reply
                .ledger
                .said_between(heard.saturating_sub(samples(OWN_SPEECH_SPAN)), heard),
            remaining,
        })
    }

    fn verdict(&self) -> Verdict {
        self.overlap()
            .map_or(Verdict::Retract(Evidence::Deadline), |overlap| {
                judge(&overlap, &self.config.interruption)
            })
    }

    pub(super) fn weigh_interruption(&mut self) {
        match self.verdict() {
            Verdict::Wait(_) => {}
            Verdict::Confirm(evidence) => self.confirm_interruption(evidence),
            Verdict::Retract(evidence) => self.retract_interruption(evidence),
        }
    }

    /// When to weigh it again.
    pub(super) fn weigh_at(&self) -> Option<Duration> {
        if self.state != State::BargedIn {
            return None;
        }
        match self.verdict() {
            Verdict::Wait(time) => Some(self.now + time),
            _ => Some(self.now),
        }
    }

    pub(super) fn confirm_interruption(&mut self, evidence: Evidence) {
        let Some(reply) = self.reply.as_ref() else {
            return;
        };
        let (id, by_model) = (reply.id, reply.source == Source::Model);
        self.counters.interruptions += 1;
        let (least, most) = self.silence_bounds();
        let spoken_until = self.input_used;
        if let Some(turn) = self.turn.as_mut() {
            turn.cut_reply = by_model;
            if turn.continues {
                self.counters.cut_offs += 1;
            }
            if by_model {
                // Soon after the user's own words it was a pause in them, sounded the reply already or not.
                let pause = turn.from.saturating_sub(spoken_until);
                self.patience.cut_off(pause, least, most);
            }
        }
        self.tell(Notice::InterruptionConfirmed {
            reply: id,
            evidence,
        });
        self.announce();
        self.finish_reply(
            ReplyStatus::Cancelled(CancelReason::TurnDetected),
            Trigger::InterruptionConfirmed,
        );
        self.apply_config();
        let partials = self.config.timing.partials;
        let now = self.now;
        if let Some(turn) = self
            .turn
            .as_mut()
            .filter(|turn| turn.is_going() && !turn.partial_pending)
        {
            turn.next_partial = partials.map(|every| now + every);
        }
    }

    pub(super) fn retract_interruption(&mut self, evidence: Evidence) {
        self.cancel_transcription();
        let Some(turn) = self.turn.take() else { return };
        self.counters.retractions += 1;
        if turn.is_going() {
            self.ignoring = true;
        }
        if turn.announced {
            let at = turn.silent_since().unwrap_or(self.now);
            self.tell(Notice::SpeechStopped {
                item: turn.item.clone(),
                at,
            });
            self.tell(Notice::InputDiscarded { item: turn.item });
        }
        if evidence == Evidence::OwnSpeech {
            self.heard_itself();
        }
        let Some(reply) = self.reply.as_mut() else {
            return;
        };
        reply.retractions += 1;
        let id = reply.id;
        let trigger = if self.is_held() {
            Trigger::RetractedHeld
        } else {
            self.resume_reply();
            if self.barged_while_audible {
                Trigger::RetractedAudible
            } else {
                Trigger::RetractedSilent
            }
        };
        self.go(trigger);
        self.tell(Notice::InterruptionRetracted {
            reply: id,
            evidence,
        });
    }

    /// The speech over the reply is the reply.
    pub(super) fn echo_heard(&mut self) {
        if self.state == State::BargedIn {
            self.retract_interruption(Evidence::Echo);
        }
    }

    /// Lets the writer go on, with the word that was cut.
    pub(super) fn resume_reply(&mut self) {
        let (now, max_rewind) = (self.now, samples(self.config.interruption.max_rewind));
        let Some(reply) = self
            .reply
            .as_mut()
            .filter(|reply| reply.paused || reply.ducked)
        else {
            return;
        };
        let position = reply.ledger.playout.position();
        let mut at_sample = position;
        if reply.paused {
            let heard = reply.ledger.heard_samples(now).min(position);
            let start = reply.ledger.word_start(heard, max_rewind);
            at_sample = start.max(position.saturating_sub(max_rewind));
            if at_sample < position {
                reply.ledger.playout.rewind(now, at_sample);
            } else {
                reply.ledger.playout.go_on(now);
            }
        }
        reply.paused = false;
        reply.ducked = false;
        reply.reminded = false;
        reply.touch(now);
        if reply.has_voice() {
            let id = reply.id;
            self.act(Action::Resume {
                reply: id,
                at_sample,
            });
        }
    }
}
