//! A reply that sounds: what the voice has made of it, what was sent, and what was heard.

use super::Session;
use crate::playout::duration;
use crate::{ErrorCode, Notice, ReplyId, State, Trigger, WordMark};

impl Session {
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
}
