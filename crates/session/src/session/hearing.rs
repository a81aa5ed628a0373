//! The user's side: from the ear's edges to a message with words.
//!
//! At the first silence the transcription begins, so that its cost is hidden by the wait for the end of the turn;
//! if the user goes on it is thrown away, and the next one covers the whole turn. A turn becomes a message only
//! when its words are known: what has no words was none, and nobody is told of a message.
//!
//! A user who goes on before anything of the reply was heard had not finished: the words are appended to the same
//! message, and the reply is made anew.

use super::Session;
use super::turn::{Speech, Turn};
use crate::turns::{end_of_turn, own_speech};
use crate::{
    Action, Content, Item, ItemId, ItemKind, ItemStatus, Notice, ReplyPatch, Role, State,
    TranscribeKind, Trigger, TurnDetection, TurnId,
};
use std::time::Duration;

/// Input after the end of speech that goes to the recognizer, for the last sound's decay.
const TAIL: Duration = Duration::from_millis(150);
/// Speech that begins so soon after a reply can be its echo.
const ECHO_AFTER: Duration = Duration::from_millis(1_500);
/// How soon what was said so far is looked at again, while a reply waits for it.
const ASKED_AGAIN: Duration = Duration::from_millis(800);
/// How much of the own speech an echo can hold.
const ECHO_SPAN: Duration = Duration::from_secs(6);

impl Session {
    pub(super) fn speech(&mut self, onset: Duration) {
        let onset = onset.min(self.now);
        if self.lost_at.is_some() || self.ending.is_some() {
            return;
        }
        match &self.turn {
            None if self.ignoring => self.stale(),
            None => {
                self.open_turn(onset);
                // The silence came first: in audio time it comes after.
                if let Some(since) = self.stray_silence.take().filter(|since| *since > onset) {
                    self.silence(since, false);
                }
            }
            Some(turn) => match turn.speech {
                Speech::Going { .. } => self.stale(),
                Speech::Silent { since } => self.turn_goes_on(onset.max(since)),
            },
        }
    }

    fn open_turn(&mut self, onset: Duration) {
        if self.reply.is_none() {
            self.apply_config();
        }
        if self.config.turn_detection == TurnDetection::Manual {
            return;
        }
        self.active();
        let id = self.new_turn();
        let name = self.name();
        let mut turn = Turn::new(id, name, onset.max(self.input_used));
        turn.next_partial = self.config.timing.partials.map(|every| onset + every);
        if let Some(reply) = self.reply.as_ref().filter(|reply| !reply.has_sounded()) {
            let last_message = self
                .conversation
                .items()
                .iter()
                .rev()
                .find(|item| item.role() == Some(Role::User))
                .map(|item| &item.id);
            if let Some(item) = reply
                .answers
                .clone()
                .filter(|item| Some(item) == last_message)
            {
                turn.item = item;
                turn.continues = true;
            }
        }
        self.turn = Some(turn);
        if self.reply.is_some() {
            if self.interrupts_replies() {
                self.suspect_interruption(onset);
            } else {
                self.announce();
            }
        } else if self.state == State::WaitingForInput {
            self.go(Trigger::UserSpeaks);
            self.announce();
        }
    }

    /// Tells the client of the speech, once.
    pub(super) fn announce(&mut self) {
        let pre_roll = self.pre_roll();
        let used = self.input_used;
        if let Some(turn) = self.turn.as_mut().filter(|turn| !turn.announced) {
            turn.announced = true;
            let notice = Notice::SpeechStarted {
                item: turn.item.clone(),
                at: turn.from.saturating_sub(pre_roll).max(used),
            };
            self.tell(notice);
        }
    }

    pub(super) fn pre_roll(&self) -> Duration {
        match self.config.turn_detection {
            TurnDetection::ServerVad { prefix, .. } => prefix,
            _ => self.config.timing.pre_roll,
        }
    }

    fn turn_goes_on(&mut self, onset: Duration) {
        self.cancel_transcription();
        let (least, most) = self.silence_bounds();
        let Some(turn) = self.turn.as_mut() else {
            return;
        };
        let pause = onset.saturating_sub(turn.silent_since().unwrap_or(onset));
        turn.go_on(onset);
        turn.next_partial = if self.state == State::BargedIn {
            Some(onset + Duration::from_millis(150))
        } else {
            self.config.timing.partials.map(|every| onset + every)
        };
        let was_over = turn.ended.take().is_some();
        if was_over {
            turn.announced = false;
            self.counters.cut_offs += 1;
            self.patience.cut_off(pause, least, most);
            if self.state == State::Thinking && self.reply.is_none() {
                self.go(Trigger::TurnGoesOn);
            }
            self.announce();
        } else {
            self.patience.paused(pause, least, most);
        }
        self.active();
    }

    /// The silence that ends a turn which seems complete: at least, and at most for a speaker who pauses long.
    pub(super) fn silence_bounds(&self) -> (Duration, Duration) {
        let timing = &self.config.timing;
        (timing.min_silence, timing.max_learned_silence)
    }

    pub(super) fn cancel_transcription(&mut self) {
        if let Some(turn) = self
            .turn
            .as_mut()
            .filter(|turn| turn.asked || turn.partial_pending)
        {
            turn.asked = false;
            turn.partial_pending = false;
            let action = Action::CancelTranscribe {
                turn: turn.id,
                revision: turn.revision,
            };
            self.act(action);
        }
    }

    pub(super) fn silence(&mut self, since: Duration, debounced: bool) {
        let since = since.min(self.now);
        let Some(turn) = self.turn.as_mut() else {
            if self.ignoring {
                self.ignoring = false;
            } else {
                self.stray_silence = Some(since);
            }
            return;
        };
        match turn.speech {
            Speech::Going { since: onset } if since >= onset => {
                turn.fall_silent(since);
                self.active();
                self.transcribe(TranscribeKind::Final);
                self.judge_end_of_turn();
            }
            // The debounced stop follows the first silence as a matter of course.
            Speech::Silent { .. } if debounced => {}
            _ => self.stale(),
        }
    }

    pub(super) fn transcribe(&mut self, kind: TranscribeKind) {
        let (pre_roll, now) = (self.pre_roll(), self.now);
        let used = self.input_used;
        let Some(turn) = self.turn.as_mut() else {
            return;
        };
        let to = turn
            .silent_since()
            .map_or(now, |since| now.min(since + TAIL));
        match kind {
            TranscribeKind::Partial => turn.partial_pending = true,
            TranscribeKind::Final => turn.asked = true,
        }
        let from = turn.from.saturating_sub(pre_roll).max(used);
        let action = Action::Transcribe {
            turn: turn.id,
            revision: turn.revision,
            from,
            to,
            kind,
        };
        self.act(action);
    }

    fn judge_end_of_turn(&mut self) {
        if !matches!(
            self.config.turn_detection,
            TurnDetection::SemanticVad { .. }
        ) {
            return;
        }
        let pre_roll = self.pre_roll();
        let used = self.input_used;
        let Some(turn) = self.turn.as_ref() else {
            return;
        };
        let Some(to) = turn.silent_since() else {
            return;
        };
        let from = turn.from.saturating_sub(pre_roll).max(used);
        self.act(Action::JudgeEndOfTurn {
            turn: turn.id,
            revision: turn.revision,
            from,
            to,
        });
    }

    pub(super) fn end_of_turn(&mut self, id: TurnId, revision: u32, probability: f32) {
        match self
            .turn
            .as_mut()
            .filter(|turn| turn.is(id, revision) && turn.silent_since().is_some())
        {
            Some(turn) => turn.probability = Some(probability.clamp(0.0, 1.0)),
            None => self.stale(),
        }
    }

    pub(super) fn partial(&mut self, id: TurnId, revision: u32, text: String) {
        let every = if self.state == State::BargedIn {
            Some(Duration::from_millis(300))
        } else {
            let partials = self.config.timing.partials;
            partials.or_else(|| self.wanted.as_ref().map(|_| ASKED_AGAIN))
        };
        let now = self.now;
        let Some(turn) = self
            .turn
            .as_mut()
            .filter(|turn| turn.is(id, revision) && turn.words.is_none())
        else {
            return self.stale();
        };
        turn.partial_pending = false;
        if turn.is_going() {
            turn.next_partial = every.map(|every| now + every);
        }
        // Deltas can only add: words that the recognizer takes back are corrected by the final text.
        if turn.announced && text.len() > turn.told.len() && text.starts_with(&turn.told) {
            let notice = Notice::InputTranscriptDelta {
                item: turn.item.clone(),
                text: text[turn.told.len()..].to_owned(),
            };
            turn.told.clone_from(&text);
            self.tell(notice);
        }
        if let Some(turn) = self.turn.as_mut() {
            turn.partial = Some(text);
        }
        self.ignore_noise();
    }

    /// A reply that the client asked for does not wait for a noise that goes on and on.
    fn ignore_noise(&mut self) {
        let enough = self.config.interruption.decide_within;
        let is_noise = |turn: &Turn| {
            let wordless = turn
                .partial
                .as_deref()
                .is_some_and(|text| text.trim().is_empty());
            turn.is_going() && wordless && turn.voiced(self.now) >= enough
        };
        if self.state == State::Listening
            && self.wanted.is_some()
            && let Some(turn) = self.turn.take_if(|turn| is_noise(turn))
        {
            self.counters.discarded_turns += 1;
            self.ignoring = true;
            self.forget(&turn);
        }
    }

    pub(super) fn transcript(&mut self, id: TurnId, revision: u32, words: Result<String, String>) {
        if let Some(turn) = self
            .turn
            .as_mut()
            .filter(|turn| turn.is(id, revision) && turn.asked)
        {
            turn.asked = false;
            turn.words = Some(words.map(|text| text.trim().to_owned()));
        } else if let Some(at) = self
            .awaited
            .iter()
            .position(|a| a.turn == id && a.revision == revision)
        {
            if let Some(awaited) = self.awaited.remove(at) {
                self.words_arrived(&awaited, words);
            }
        } else {
            self.stale();
        }
    }

    /// The silence at which the open turn is over.
    pub(super) fn turn_ends_at(&self) -> Option<Duration> {
        let turn = self.turn.as_ref().filter(|turn| turn.ended.is_none())?;
        if self.state == State::BargedIn {
            return None;
        }
        let since = turn.silent_since()?;
        let wait = match self.config.turn_detection {
            TurnDetection::ServerVad { silence, .. } => silence,
            TurnDetection::SemanticVad { eagerness, .. } => {
                let timing = &self.config.timing;
                let words = match &turn.words {
                    Some(Ok(words)) => end_of_turn::Words {
                        text: Some(words.as_str()),
                        is_final: true,
                    },
                    _ => end_of_turn::Words {
                        text: turn.partial.as_deref(),
                        is_final: false,
                    },
                };
                let (least, most) = self.silence_bounds();
                let least = self.patience.silence(least, most);
                if turn
                    .words
                    .as_ref()
                    .is_some_and(|words| words.as_ref().is_ok_and(String::is_empty))
                {
                    return Some(since + least); // nothing was said, so nothing is unfinished
                }
                end_of_turn::wait(
                    turn.probability,
                    words,
                    timing.complete,
                    least..end_of_turn::longest(eagerness),
                    timing.finished,
                )
            }
            TurnDetection::Manual => Duration::ZERO,
        };
        Some(since + wait)
    }

    /// The silence was long enough.
    pub(super) fn end_turn(&mut self) {
        let now = self.now;
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.ended.is_none()) else {
            return;
        };
        turn.ended = Some(now);
        if turn.announced {
            let at = turn.silent_since().unwrap_or(now);
            let notice = Notice::SpeechStopped {
                item: turn.item.clone(),
                at,
            };
            self.tell(notice);
        }
        if self.state == State::Listening {
            self.go(Trigger::TurnEnded);
        }
        self.close_turn();
    }

    /// Closes a turn that is over and whose words are known.
    pub(super) fn close_turn(&mut self) {
        let Some(turn) = self
            .turn
            .take_if(|turn| turn.ended.is_some() && turn.words.is_some())
        else {
            return;
        };
        self.active();
        self.stray_silence = None;
        self.input_used = self.input_used.max(turn.silent_since().unwrap_or(self.now));
        match turn.words.clone() {
            Some(Ok(words)) if !words.is_empty() && !self.is_own_voice(&turn, &words) => {
                self.commit(&turn, &words)
            }
            Some(Err(message)) => self.commit_wordless(&turn, message),
            _ => self.discard(&turn),
        }
    }

    /// Whether a turn after a reply is that reply's echo.
    fn is_own_voice(&mut self, turn: &Turn, words: &str) -> bool {
        let soon = self
            .reply_over_at
            .is_some_and(|over| turn.from < over + ECHO_AFTER);
        let Some((_, _, ledger)) = self.ledgers.back().filter(|_| soon) else {
            return false;
        };
        let heard = ledger.heard_samples(self.now);
        let own = ledger.said_between(
            heard.saturating_sub(crate::playout::samples(ECHO_SPAN)),
            heard,
        );
        let echo = words.split_whitespace().count() >= 3
            && own_speech::is_echo(words, &own, self.config.interruption.echo_share.max(0.9));
        if echo {
            self.heard_itself();
        }
        echo
    }

    pub(super) fn heard_itself(&mut self) {
        self.counters.echoes += 1;
        self.tell(Notice::HeardItself {
            times: self.counters.echoes,
        });
    }

    fn commit(&mut self, turn: &Turn, words: &str) {
        self.counters.turns += 1;
        self.patience.ended_well();
        self.commit_message(turn);
        self.add_words(&turn.item, words);
        self.after_turn(turn, true);
    }

    fn commit_wordless(&mut self, turn: &Turn, message: String) {
        self.commit_message(turn);
        self.tell(Notice::InputTranscriptFailed {
            item: turn.item.clone(),
            message,
        });
        self.after_turn(turn, false);
    }

    fn commit_message(&mut self, turn: &Turn) {
        if turn.continues && self.conversation.get(&turn.item).is_some() {
            let previous = self.conversation.previous(&turn.item);
            self.tell(Notice::InputCommitted {
                item: turn.item.clone(),
                previous,
            });
        } else {
            self.add_message(turn.item.clone(), None);
        }
    }

    pub(super) fn add_message(&mut self, item: ItemId, transcript: Option<String>) {
        let previous = self.conversation.last_id();
        self.tell(Notice::InputCommitted {
            item: item.clone(),
            previous,
        });
        self.append(Item {
            id: item.clone(),
            status: ItemStatus::Completed,
            kind: ItemKind::Message {
                role: Role::User,
                content: vec![Content::Audio { transcript }],
            },
        });
        self.item_done(&item);
    }

    pub(super) fn add_words(&mut self, item: &ItemId, words: &str) {
        let before = self
            .conversation
            .get(item)
            .map(Item::text)
            .unwrap_or_default();
        let text = if before.is_empty() {
            words.to_owned()
        } else {
            format!("{before} {words}")
        };
        self.set_words(item, &text);
        self.tell(Notice::InputTranscriptCompleted {
            item: item.clone(),
            text,
        });
    }

    fn discard(&mut self, turn: &Turn) {
        self.counters.discarded_turns += 1;
        if turn.announced {
            self.tell(Notice::InputDiscarded {
                item: turn.item.clone(),
            });
        }
        self.after_turn(turn, false);
    }

    /// Answers, or goes back to waiting. A reply that was stopped for nothing is made anew: nobody is left in
    /// silence because of a cough.
    fn after_turn(&mut self, turn: &Turn, has_words: bool) {
        let earlier = turn
            .follows
            .as_ref()
            .and_then(|item| self.conversation.get(item));
        let earlier_words = earlier.is_some_and(|item| {
            !item.text().is_empty()
                || self
                    .awaited
                    .iter()
                    .any(|a| a.item == item.id && a.due.is_some())
        });
        let answer = !turn.unanswered
            && self.creates_replies()
            && (has_words || earlier_words || turn.cut_reply);
        if answer && self.wanted.is_none() {
            self.wanted = Some(ReplyPatch::default());
        }
        if self.reply.is_some() {
            return; // the reply goes on; what is wanted comes after it
        }
        if self.turns_are_used_up(has_words) {
            return;
        }
        match self.wanted.take() {
            Some(patch) => {
                let message = self
                    .conversation
                    .get(&turn.item)
                    .map(|item| item.id.clone());
                self.create_reply(&patch, message);
            }
            None if self.state != State::WaitingForInput => self.go(Trigger::TurnClosed),
            None => {}
        }
    }
}
