//! What the voice made, sent to the client when it is due.

use std::time::{Duration, SystemTime};

use duologue_audio::Frame;
use duologue_metrics::{table, timeline};
use duologue_rpc::AudioFrame;
use duologue_session::{Event, ReplyId, WordMark};
use serde_json::json;

use super::Driver;
use super::turn_timer::Step;
use crate::mouth::{samples_in, time_of};
use crate::playback::Sound;
use crate::realtime::{EventError, OutputEncoder};
use crate::transport::{Backlog, Outbound};
use crate::voice::{Listener, Voiced};

/// How long a frame lasts.
const FRAME: Duration = Duration::from_millis(20);

/// A reply that goes on with another worker.
#[derive(Debug)]
pub(super) struct Moved {
    reply: ReplyId,
    /// Where in its sound.
    at: u64,
    why: &'static str,
    /// When the listener has heard all that came before.
    dry_at: Duration,
}

impl<O: Outbound> Driver<O> {
    /// Where the listener is in the reply.
    pub(super) fn listener(&self) -> Listener {
        let on_its_way = self
            .mouth
            .heard_until()
            .map_or(Duration::ZERO, |until| until.saturating_sub(self.wall()));
        Listener {
            in_hand: self.mouth.waiting() + on_its_way,
            left: self.mouth.sent().map_or(0, |(_, sent)| sent),
        }
    }

    pub(super) fn voiced(&mut self, voiced: Voiced) -> Result<(), Backlog> {
        match voiced {
            Voiced::Frame(reply, frame) => self.voice_frame(reply, &frame),
            Voiced::Moved(reply, at, why) => {
                let Some(samples) = self.mouth.cut(reply, at) else {
                    return Ok(());
                };
                let heard = self.mouth.heard_until();
                let dry_at = heard.map_or(self.speech_began, |until| until + self.mouth.waiting());
                self.moved = Some(Moved {
                    reply,
                    at,
                    why,
                    dry_at,
                });
                self.tell(Event::AudioCut { reply, samples })
            }
            Voiced::Pause(reply) => match self.mouth.push(reply, &Frame::SILENCE.0) {
                Some(samples) => self.tell(Event::Audio {
                    reply,
                    samples,
                    words: Vec::new(),
                }),
                None => Ok(()),
            },
            Voiced::Ended(reply) => {
                self.trace.spoken(reply, SystemTime::now());
                self.mouth.complete(reply);
                self.tell(Event::AudioEnded { reply })
            }
            Voiced::Failed(reply, error) => self.tell(Event::VoiceFailed {
                reply,
                message: error.to_string(),
            }),
            Voiced::Progress => Ok(()),
            Voiced::NotOpened(error) => {
                let message = error.to_string();
                match self.timed_reply {
                    Some(reply) => self.tell(Event::VoiceFailed { reply, message }),
                    None => self.refuse(EventError::server("voice_failed", message)),
                }
            }
        }
    }

    pub(super) fn voice_frame(
        &mut self,
        reply: ReplyId,
        frame: &AudioFrame,
    ) -> Result<(), Backlog> {
        let Some(sound) = Frame::from_le_bytes(&frame.pcm) else {
            let message = format!("the voice worker sent a frame of {} bytes", frame.pcm.len());
            return self.tell(Event::VoiceFailed { reply, message });
        };
        let Some(samples) = self.mouth.push(reply, &sound.0) else {
            return Ok(());
        };
        if let Some(moved) = self.moved.take().filter(|moved| moved.reply == reply) {
            let gap = self.wall().saturating_sub(moved.dry_at);
            self.tell_of_move(&moved, gap)?;
        }
        if self.timed_reply == Some(reply) {
            self.timer.reach(Step::FirstAudio, self.now());
            self.trace.first_audio(reply, SystemTime::now());
        }
        let words = frame
            .words
            .iter()
            .map(|word| WordMark {
                clause: word.chunk,
                spoken: word.text_start as usize..word.text_end as usize,
                start_sample: word.start_sample,
                end_sample: word.end_sample,
            })
            .collect();
        self.tell(Event::Audio {
            reply,
            samples,
            words,
        })?;
        if frame.r#final {
            self.mouth.complete(reply);
        }
        Ok(())
    }

    /// Tells that another worker speaks now, and how long the listener heard nothing for it.
    fn tell_of_move(&mut self, moved: &Moved, gap: Duration) -> Result<(), Backlog> {
        let gap_ms = gap.as_millis() as u64;
        self.failovers += 1;
        table::VOICE_FAILOVERS.count();
        table::VOICE_GAP.record(gap);
        tracing::info!(why = moved.why, gap_ms, "another voice worker speaks");
        let body = json!({
            "response_id": self.scribe.response_id(moved.reply),
            "item_id": self.scribe.message_of(moved.reply),
            "reason": moved.why,
            "audio_ms": time_of(moved.at).as_millis() as u64,
            "gap_ms": gap_ms,
        });
        self.own("duologue.voice.failed_over", body)
    }

    pub(super) fn send(&mut self, frames: &[Frame]) -> Result<(), Backlog> {
        let Some((reply, samples)) = self.mouth.sent() else {
            return Ok(());
        };
        let now = self.now();
        if let Some(recorder) = &mut self.core.recorder {
            recorder.assistant(samples_in(now), frames);
        }
        if let Some(until) = self.mouth.heard_until() {
            let ahead = now.saturating_sub(self.wall());
            let length = FRAME * frames.len() as u32;
            let at = (until + ahead).saturating_sub(length);
            self.hearing.loudspeaker().write(at, frames);
        }
        let length = FRAME * frames.len() as u32;
        if self.outbound.sound(reply, frames)? {
            let begins = self.mouth.has_begun();
            let sound = Sound { length, begins };
            if self.imagined.hears(self.wall(), sound).is_some() {
                self.traffic.late();
            }
        } else {
            let bytes = self.encode(reply, frames);
            let mut events = self.scribe.audio_delta(reply, &bytes);
            let last = events.pop();
            for event in events {
                self.outbound.event(&event)?;
            }
            if let Some(last) = last {
                let begins = self.mouth.has_begun();
                self.outbound.sound_event(&last, Sound { length, begins })?;
            }
        }
        self.core.handle(self.now(), Event::Sent { reply, samples });
        if self.timed_reply == Some(reply) {
            self.timer.reach(Step::Sent, self.now());
            self.trace.first_sent(reply, SystemTime::now());
            if let Some(figures) = self.timer.finish() {
                table::VOICE_TO_VOICE.record(figures.voice_to_voice);
                self.seen.answered(figures.voice_to_voice);
                let now = SystemTime::now();
                let since = now.checked_sub(figures.voice_to_voice).unwrap_or(now);
                for (step, after) in &figures.steps {
                    table::TURN_STEP.record_for(step.name(), *after);
                    timeline::step(&self.seed, step.name(), since, since + *after);
                }
                let mut figures = figures.to_json();
                figures["response_id"] = json!(self.scribe.response_id(reply));
                tracing::info!(voice_to_voice_ms = %figures["voice_to_voice_ms"], steps = %figures["steps"], "first sound of a reply");
                self.own("duologue.turn.metrics", figures)?;
            }
        }
        Ok(())
    }

    pub(super) fn encode(&mut self, reply: ReplyId, frames: &[Frame]) -> Vec<u8> {
        let fresh = self
            .encoder
            .as_ref()
            .is_none_or(|(encoding, _)| *encoding != reply);
        if fresh {
            match OutputEncoder::new(self.settings.output) {
                Ok(encoder) => self.encoder = Some((reply, encoder)),
                Err(error) => tracing::error!(%error, "a reply cannot be encoded"),
            }
        }
        self.encoder
            .as_mut()
            .map(|(_, encoder)| encoder.encode(frames))
            .unwrap_or_default()
    }
}
