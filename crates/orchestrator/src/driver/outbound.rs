//! What the voice made, sent to the client when it is due.

use std::time::Duration;

use duologue_audio::Frame;
use duologue_rpc::AudioFrame;
use duologue_session::{Event, ReplyId, WordMark};
use serde_json::json;

use super::Driver;
use super::speaking::Voiced;
use super::turn_timer::Step;
use crate::mouth::samples_in;
use crate::realtime::{EventError, OutputEncoder};
use crate::transport::{Backlog, Outbound};

/// How long a frame lasts.
const FRAME: Duration = Duration::from_millis(20);

impl<O: Outbound> Driver<O> {
    pub(super) fn voiced(&mut self, voiced: Voiced) -> Result<(), Backlog> {
        match voiced {
            Voiced::Frame(reply, frame) => self.voice_frame(reply, &frame),
            Voiced::Ended(reply) => {
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
        if self.timed_reply == Some(reply) {
            self.timer.reach(Step::FirstAudio, self.now());
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
        if !self.outbound.sound(reply, frames)? {
            let bytes = self.encode(reply, frames);
            for event in self.scribe.audio_delta(reply, &bytes) {
                self.outbound.event(&event)?;
            }
        }
        self.core.handle(self.now(), Event::Sent { reply, samples });
        if self.timed_reply == Some(reply) {
            self.timer.reach(Step::Sent, self.now());
            if let Some(mut figures) = self.timer.finish() {
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
