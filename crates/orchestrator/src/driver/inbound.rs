//! What the client says and sends, told to the core.

use std::time::{Duration, SystemTime};

use duologue_audio::Resampler;
use duologue_session::{Control, Event, ItemId, ReplyId};
use serde_json::json;

use super::{Driver, HEARING_TOLD, client, clock};
use crate::mouth::time_of;
use crate::realtime::{
    ClientEvent, EventError, HEARING_RATE, InputDecoder, SessionSettings, TurnDetection,
    apply_update,
};
use crate::transport::{Backlog, Inbound, Outbound};

/// In the middle of speech, a client that sends no sound for so long is taken to be silent.
pub(super) const STALL: Duration = Duration::from_millis(500);
/// How much silence is then put in at a time.
const STALL_STEP: Duration = Duration::from_millis(100);

impl<O: Outbound> Driver<O> {
    pub(super) fn client_says(&mut self, message: Inbound) -> Result<(), Backlog> {
        match message {
            Inbound::Event(event, id) => {
                self.cause.clone_from(&id);
                let outcome = self.client_event(event);
                // What the core says to it is caused by it.
                self.act()?;
                self.cause = None;
                match outcome {
                    Ok(()) => Ok(()),
                    Err(error) => self.refuse(error.of(id)),
                }
            }
            Inbound::Malformed(error) => self.refuse(error),
            Inbound::Sound(samples) => {
                if self.beside.is_none() {
                    self.beside = Resampler::new(duologue_audio::SAMPLE_RATE, HEARING_RATE).ok();
                }
                if let Some(resampler) = &mut self.beside {
                    let samples = resampler.process(&samples);
                    self.receive(samples);
                }
                Ok(())
            }
            Inbound::Lost => self.tell(Event::TransportLost),
            Inbound::Back => {
                self.tell(Event::TransportBack)?;
                self.answer_what_is_owed()
            }
            // A client knows its own buffers better than we can guess them.
            Inbound::OutputDelay(_) if self.delay_told => Ok(()),
            Inbound::OutputDelay(delay) => self.tell(Event::OutputDelay { delay }),
            Inbound::Gone => self.tell(Event::Close),
        }
    }

    pub(super) fn refuse(&mut self, error: EventError) -> Result<(), Backlog> {
        let event = self.scribe.error(&error);
        self.outbound.event(&event)
    }

    pub(super) fn client_event(&mut self, event: ClientEvent) -> Result<(), EventError> {
        let now = self.now();
        let event = match event {
            ClientEvent::SessionUpdate(update) => {
                let settings = apply_update(&self.settings, &update, &self.voices)?;
                let event = self.scribe.session_updated(settings.clone());
                self.configure(settings);
                return self.outbound.event(&event).map_err(overrun);
            }
            ClientEvent::Append(bytes) => {
                let samples = self.decode(bytes)?;
                self.receive(samples);
                return Ok(());
            }
            ClientEvent::Commit => {
                let from = std::mem::replace(&mut self.buffer_from, now);
                Event::CommitInput { from, to: now }
            }
            ClientEvent::ClearInput => {
                self.buffer_from = now;
                Event::ClearInput
            }
            ClientEvent::CreateItem { previous, item } => Event::CreateItem {
                item: client::item(item),
                place: client::place(previous),
            },
            ClientEvent::RetrieveItem(item) => Event::RetrieveItem(ItemId(item)),
            ClientEvent::DeleteItem(item) => Event::DeleteItem(ItemId(item)),
            ClientEvent::TruncateItem { item, audio_end_ms } => Event::TruncateItem {
                item: ItemId(item),
                audio_end: Duration::from_millis(audio_end_ms),
            },
            ClientEvent::CreateReply(request) => {
                let patch = client::reply_patch(request, self.core.items())?;
                self.timer.start(now);
                self.trace.silent(SystemTime::now());
                Event::CreateReply(patch)
            }
            ClientEvent::CancelReply(id) => {
                let reply = match id {
                    None => None,
                    Some(id) => Some(self.scribe.reply_of(&id).ok_or_else(|| {
                        EventError::invalid(
                            "response_cancel_not_active",
                            "response_id",
                            format!("there is no response {id:?} here"),
                        )
                    })?),
                };
                Event::CancelReply(reply)
            }
            ClientEvent::ClearOutput => {
                let reply = self.mouth.sent().map(|(reply, _)| reply);
                self.core.handle(now, Event::Control(Control::Stop));
                if reply.is_some() && self.outbound.lead().is_some() {
                    // The core tells of what it clears.
                    return Ok(());
                }
                let cleared = self.scribe.output_cleared(reply);
                return self.outbound.event(&cleared).map_err(overrun);
            }
            ClientEvent::Pause => Event::Control(Control::Pause),
            ClientEvent::Resume => Event::Control(Control::Resume),
            ClientEvent::OutputDelay(ms) => {
                self.delay_told = true;
                Event::OutputDelay {
                    delay: Duration::from_millis(ms),
                }
            }
            ClientEvent::Playout { item, audio_end_ms } => {
                // A report on a reply that is long over is late, not wrong.
                let Some(reply) = self.scribe.reply_of_item(&item) else {
                    return Ok(());
                };
                let samples = audio_end_ms * u64::from(duologue_session::SAMPLE_RATE) / 1_000;
                self.note_playout(reply, samples);
                Event::Played { reply, samples }
            }
        };
        self.core.handle(now, event);
        Ok(())
    }

    pub(super) fn configure(&mut self, settings: SessionSettings) {
        if let TurnDetection::ServerVad { threshold, .. } = &settings.turn_detection {
            self.hearing.set_threshold(*threshold);
        }
        self.hearing.set_cleaning(settings.cleaner);
        let patch = client::config_patch(&settings);
        // Over a call it is the network's buffers that play on.
        let holds = settings.duologue_events && self.outbound.lead().is_none();
        self.core.handle(self.now(), Event::PlayerHolds(holds));
        self.settings = settings;
        self.core
            .handle(self.now(), Event::Configure(Box::new(patch)));
        self.prepare(None);
    }

    pub(super) fn decode(&mut self, bytes: Vec<u8>) -> Result<Vec<f32>, EventError> {
        let encoding = self.settings.input;
        if self
            .decoder
            .as_ref()
            .is_none_or(|decoder| decoder.encoding() != encoding)
        {
            let decoder = InputDecoder::new(encoding)
                .map_err(|error| EventError::server("server_error", error.to_string()))?;
            self.decoder = Some(decoder);
        }
        Ok(self
            .decoder
            .as_mut()
            .map(|decoder| decoder.decode(bytes))
            .unwrap_or_default())
    }

    pub(super) fn receive(&mut self, samples: Vec<f32>) {
        if !samples.is_empty() {
            self.last_sound = self.wall();
            self.hear(samples, self.last_sound);
        }
    }

    fn hear(&mut self, samples: Vec<f32>, wall: Duration) {
        // Where they lie in time is known once the clock has taken them; the recorder cannot wait for that.
        let copy = self.core.recorder.is_some().then(|| samples.clone());
        self.hearing.receive(samples, wall);
        if let (Some(recorder), Some(samples)) = (&mut self.core.recorder, copy) {
            let clock = self.hearing.clock();
            let begins = clock.time_of(clock.received() - samples.len() as u64);
            recorder.user(clock::position(begins), &samples);
        }
    }

    /// Whether the client has run dry, and by how much its loudspeaker is behind the mouth.
    fn note_playout(&mut self, reply: ReplyId, samples: u64) {
        let wall = self.wall();
        self.traffic.reports();
        if let Some(gap) = self.reports_of_playout.played(wall, reply, samples) {
            tracing::debug!(reply = reply.0, ?gap, "the client had a gap in a reply");
            self.traffic.ran_dry();
        }
        let meant = self.mouth.heard_until().zip(self.mouth.sent());
        if let Some((until, (_, sent))) = meant.filter(|(_, (speaking, _))| *speaking == reply) {
            // A pause or the end: nothing is playing.
            if samples == 0 || samples >= sent {
                return;
            }
            let meant = until.saturating_sub(time_of(sent - samples));
            let late = wall.saturating_sub(meant);
            self.hearing.loudspeaker().report(late);
        }
    }

    /// Tells the client what the ear knows, now and then.
    pub(super) fn tell_of_hearing(&mut self) -> Result<(), Backlog> {
        let now = self.now();
        if now < self.hearing_told_next {
            return Ok(());
        }
        self.hearing_told_next = now + HEARING_TOLD;
        let known = self.hearing.statistics();
        let gate = known.gate.map(|gate| {
            json!({
                "floor_dbfs": gate.floor_dbfs,
                "threshold_dbfs": gate.threshold_dbfs,
                "gating_ratio": gate.gating_ratio,
            })
        });
        let echo = known.echo.map(|echo| {
            json!({
                "delay_ms": echo.delay_ms,
                "return_loss_db": echo.return_loss_db,
                "enhancement_db": echo.enhancement_db,
            })
        });
        self.own(
            "duologue.hearing",
            json!({"noise_gate": gate, "echo_cancellation": echo}),
        )
    }

    /// A client that stops sending in the middle of speech is silent, as far as the conversation goes.
    pub(super) fn fill_stall(&mut self) {
        let wall = self.wall();
        if self.hearing.in_speech() && wall >= self.last_sound + STALL {
            let samples = STALL_STEP.as_millis() as usize * HEARING_RATE as usize / 1_000;
            self.hear(vec![0.0; samples], wall);
            self.last_sound = wall + STALL_STEP - STALL;
        }
    }
}

fn overrun(backlog: Backlog) -> EventError {
    EventError::server("server_error", backlog.to_string())
}
