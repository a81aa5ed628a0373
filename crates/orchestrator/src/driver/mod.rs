//! Runs one session: tells the core what happened, does what it says, and decides nothing itself.
//!
//! One task owns the session. Models work elsewhere and report back through one bounded queue; the user's
//! sound goes through [`hearing`](self::hearing), the reply's through the [`Mouth`].

mod client;
mod clock;
mod hearing;
mod speaking;
mod thinking;
mod turn_timer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use duologue_asr::Cancel;
use duologue_audio::{Frame, Resampler};
use duologue_rpc::{AudioFrame, ControlAction};
use duologue_session::{
    Action, Config, Control, EndReason, Event, Item, ItemId, Modality, Notice, ReplyId,
    ReplyOptions, Session, State, TranscribeKind, TurnId, WordMark,
};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::Orchestrator;
use crate::inference::Priority;
use crate::mouth::{Mouth, time_of};
use crate::orchestrator::Admission;
use crate::realtime::{
    ClientEvent, Dialect, EventError, HEARING_RATE, InputDecoder, OutputEncoder, Scribe,
    SessionSettings, VoiceNames, apply_update,
};
use crate::transport::{Backlog, Inbound, Outbound};
use crate::voice::VoiceChoice;
use turn_timer::{Step, TurnTimer};

pub use hearing::Detector;
pub use speaking::LEAD;

use hearing::Hearing;
use speaking::{Speaking, Voiced};

/// Reports of models that may wait for the session.
const FEEDBACK: usize = 256;
/// Sound that may wait in the mouth before the voice has to.
const MOUTHFUL: Duration = Duration::from_secs(10);
/// In the middle of speech, a client that sends no sound for so long is taken to be silent.
const STALL: Duration = Duration::from_millis(500);
/// How much silence is then put in at a time.
const STALL_STEP: Duration = Duration::from_millis(100);

/// One session.
pub(crate) struct Driver<O> {
    orchestrator: Arc<Orchestrator>,
    _slot: OwnedSemaphorePermit,
    seed: String,
    started: Instant,
    core: Session,
    settings: SessionSettings,
    voices: VoiceNames,
    scribe: Scribe,
    outbound: O,
    hearing: Hearing,
    decoder: Option<InputDecoder>,
    beside: Option<Resampler>,
    last_sound: Duration,
    buffer_from: Duration,
    mouth: Mouth,
    encoder: Option<(ReplyId, OutputEncoder)>,
    speaking: Speaking,
    transcribing: HashMap<TurnId, Vec<(u32, Cancel)>>,
    thinking: Option<(ReplyId, CancellationToken)>,
    preparing: CancellationToken,
    timer: TurnTimer,
    timed_reply: Option<ReplyId>,
    feedback: mpsc::Sender<Event>,
    reports: mpsc::Receiver<Event>,
    /// `event_id` of the client event that is being carried out.
    cause: Option<String>,
    /// Output that was cleared by the client and not yet told so.
    ended: Option<EndReason>,
}

impl<O: Outbound> Driver<O> {
    pub fn new(
        orchestrator: &Arc<Orchestrator>,
        admission: Admission,
        dialect: Dialect,
        outbound: O,
    ) -> Self {
        let config = orchestrator.config();
        let engines = orchestrator.engines();
        let Admission {
            slot,
            seed,
            model,
            voice,
            voices,
        } = admission;
        let mut settings = SessionSettings::new(&model, &config.instructions, &config.voice);
        settings.language.clone_from(&config.language);
        let core_config = Config {
            interruption: config.interruption.clone(),
            timing: config.timing.clone(),
            limits: config.limits.clone(),
            ..Config::default()
        }
        .patched(&client::config_patch(&settings));
        let (feedback, reports) = mpsc::channel(FEEDBACK);
        Self {
            orchestrator: Arc::clone(orchestrator),
            _slot: slot,
            started: Instant::now(),
            core: Session::new(&seed, core_config),
            voices,
            scribe: Scribe::new(&seed, dialect, settings.clone()),
            settings,
            outbound,
            hearing: Hearing::new(
                engines.ear.clone(),
                engines.detector.clone(),
                config.segmenter,
            ),
            decoder: None,
            beside: None,
            last_sound: Duration::ZERO,
            buffer_from: Duration::ZERO,
            mouth: Mouth::new(config.lead, config.interruption.max_rewind),
            encoder: None,
            speaking: Speaking::new(engines.voice.clone(), &seed, voice),
            transcribing: HashMap::new(),
            thinking: None,
            preparing: CancellationToken::new(),
            timer: TurnTimer::default(),
            timed_reply: None,
            feedback,
            reports,
            cause: None,
            ended: None,
            seed,
        }
    }

    /// Holds the conversation to its end.
    pub async fn run(mut self, inbound: mpsc::Receiver<Inbound>) {
        let span = tracing::info_span!("session", id = %self.seed);
        async {
            tracing::info!("session begins");
            let reason = match self.converse(inbound).await {
                Ok(reason) => reason,
                Err(Backlog) => {
                    tracing::warn!("the client reads too slowly; session ends");
                    EndReason::Overrun
                }
            };
            self.outbound.close(reason);
            self.preparing.cancel();
            if let Some((_, cancel)) = self.thinking.take() {
                cancel.cancel();
            }
            self.transcribing
                .values()
                .flatten()
                .for_each(|(_, cancel)| cancel.cancel());
            self.orchestrator.engines().chat.forget(&self.seed);
            let counters = self.core.counters();
            tracing::info!(
                ?reason,
                turns = counters.turns,
                interruptions = counters.interruptions,
                retractions = counters.retractions,
                underruns = self.mouth.underruns(),
                "session ends"
            );
        }
        .instrument(span)
        .await;
    }

    async fn converse(
        &mut self,
        mut inbound: mpsc::Receiver<Inbound>,
    ) -> Result<EndReason, Backlog> {
        let created = self.scribe.session_created();
        self.outbound.event(&created)?;
        self.prepare(None);
        let shutdown = self.orchestrator.shutdown().clone();
        let mut closing = false;
        loop {
            self.act()?;
            if let Some(reason) = self.ended {
                return Ok(reason);
            }
            let wake = self.wake_at();
            tokio::select! {
                message = inbound.recv(), if !self.hearing.is_behind() => {
                    self.client_says(message.unwrap_or(Inbound::Gone))?;
                }
                heard = self.hearing.heard(), if self.hearing.is_listening() => {
                    for event in heard {
                        self.note_hearing(&event);
                        self.tell(event)?;
                    }
                }
                Some(event) = self.reports.recv() => {
                    self.note_report(&event);
                    self.tell(event)?;
                }
                voiced = self.speaking.next(), if self.mouth.waiting() < MOUTHFUL => self.voiced(voiced)?,
                () = tokio::time::sleep_until(wake) => {
                    self.fill_stall();
                    self.tell(Event::Tick)?;
                }
                () = shutdown.cancelled(), if !closing => {
                    closing = true;
                    self.tell(Event::Close)?;
                }
            }
        }
    }

    fn wall(&self) -> Duration {
        self.started.elapsed()
    }

    fn now(&self) -> Duration {
        self.hearing.clock().now(self.wall())
    }

    fn wake_at(&self) -> Instant {
        let ahead = self.now().saturating_sub(self.wall());
        let core = self.core.deadline().map(|at| at.saturating_sub(ahead));
        let stall = self.hearing.in_speech().then(|| self.last_sound + STALL);
        let next = [core, self.mouth.deadline(), stall]
            .into_iter()
            .flatten()
            .min();
        // Nothing is due: an hour is as good as never.
        self.started + next.unwrap_or(self.wall() + Duration::from_secs(3_600))
    }

    /// Tells the core, and does what it says.
    fn tell(&mut self, event: Event) -> Result<(), Backlog> {
        self.core.handle(self.now(), event);
        self.act()
    }

    /// Does all that is to be done now.
    fn act(&mut self) -> Result<(), Backlog> {
        loop {
            while let Some(action) = self.core.poll() {
                self.perform(action)?;
            }
            let frames = self.mouth.due(self.wall());
            if frames.is_empty() {
                return Ok(());
            }
            self.send(&frames)?;
        }
    }

    fn perform(&mut self, action: Action) -> Result<(), Backlog> {
        match action {
            Action::Transcribe {
                turn,
                revision,
                from,
                to,
                kind,
            } => {
                self.transcribe(turn, revision, (from, to), kind);
            }
            Action::CancelTranscribe { turn, revision } => {
                if let Some(running) = self.transcribing.get_mut(&turn) {
                    running.retain(|(number, cancel)| {
                        let old = *number <= revision;
                        if old {
                            cancel.cancel();
                        }
                        !old
                    });
                    if running.is_empty() {
                        self.transcribing.remove(&turn);
                    }
                }
            }
            Action::JudgeEndOfTurn {
                turn, revision, to, ..
            } => self.judge(turn, revision, to),
            Action::Prompt {
                reply,
                history,
                options,
            } => self.prompt(reply, &history, &options),
            Action::CancelPrompt { reply } => {
                if let Some((_, cancel)) = self.thinking.take_if(|(thinking, _)| *thinking == reply)
                {
                    cancel.cancel();
                }
            }
            Action::Speak {
                reply,
                clause,
                text,
            } => {
                if clause == 0 {
                    self.mouth.begin(reply);
                    self.encoder = None;
                }
                if !self.speaking.say(reply, text) {
                    let message = "the model writes faster than the voice can take".into();
                    self.core
                        .handle(self.now(), Event::VoiceFailed { reply, message });
                }
            }
            Action::EndSpeech { reply } => self.speaking.end(reply),
            Action::Pause { reply } => {
                self.mouth.hold(reply);
                self.speaking.control(reply, ControlAction::Pause);
                self.own(
                    "duologue.playout.pause",
                    json!({"response_id": self.scribe.response_id(reply)}),
                )?;
            }
            Action::Duck { reply } => self.mouth.duck(reply),
            Action::Resume { reply, at_sample } => {
                self.speaking.control(reply, ControlAction::Resume);
                if let Some(at) = self.mouth.resume(reply, at_sample) {
                    let body = json!({
                        "response_id": self.scribe.response_id(reply),
                        "item_id": self.scribe.message_of(reply),
                        "audio_start_ms": time_of(at).as_millis() as u64,
                    });
                    self.own("duologue.playout.resume", body)?;
                    self.core
                        .handle(self.now(), Event::Sent { reply, samples: at });
                }
            }
            Action::Stop { reply } => self.stop(reply)?,
            Action::Emit(notice) => self.emit(notice)?,
            Action::Close { reason } => self.ended = Some(reason),
        }
        Ok(())
    }

    fn stop(&mut self, reply: ReplyId) -> Result<(), Backlog> {
        self.speaking.control(reply, ControlAction::Stop);
        self.speaking.stop(reply);
        let sent = self.mouth.sent().filter(|(speaking, _)| *speaking == reply);
        self.mouth.stop(reply);
        self.encoder = None;
        if let Some((_, sent)) = sent {
            let body = json!({
                "response_id": self.scribe.response_id(reply),
                "item_id": self.scribe.message_of(reply),
                "audio_end_ms": time_of(sent).as_millis() as u64,
            });
            self.own("duologue.playout.clear", body)?;
        }
        Ok(())
    }

    fn emit(&mut self, notice: Notice) -> Result<(), Backlog> {
        let at = self.now();
        match &notice {
            Notice::StateChanged { to, .. } => {
                let heard = matches!(to, State::Speaking | State::BargedIn);
                let scale = self.orchestrator.config().speaking_threshold_scale;
                self.hearing
                    .set_threshold_scale(if heard { scale } else { 1.0 });
            }
            // The last of the sound, which the client's rate still held back, goes before the news of its end.
            Notice::ReplyAudioDone { reply, .. } => {
                if let Some((_, mut encoder)) =
                    self.encoder.take_if(|(encoding, _)| encoding == reply)
                {
                    let rest = encoder.finish();
                    if !rest.is_empty() {
                        for event in self.scribe.audio_delta(*reply, &rest) {
                            self.outbound.event(&event)?;
                        }
                    }
                }
            }
            _ => {}
        }
        let replied = matches!(notice, Notice::ReplyDone(_));
        for event in self.scribe.write(notice, at, self.cause.as_deref()) {
            self.outbound.event(&event)?;
        }
        if replied {
            self.prepare(None);
        }
        Ok(())
    }

    fn own(&mut self, name: &str, body: serde_json::Value) -> Result<(), Backlog> {
        match self.scribe.own(name, body) {
            Some(event) => self.outbound.event(&event),
            None => Ok(()),
        }
    }

    // ---- the client ----

    fn client_says(&mut self, message: Inbound) -> Result<(), Backlog> {
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
            Inbound::Gone => self.tell(Event::Close),
        }
    }

    fn refuse(&mut self, error: EventError) -> Result<(), Backlog> {
        let event = self.scribe.error(&error);
        self.outbound.event(&event)
    }

    fn client_event(&mut self, event: ClientEvent) -> Result<(), EventError> {
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
                self.timer.start(now);
                Event::CreateReply(client::reply_patch(request))
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
                let cleared = self.scribe.output_cleared(reply);
                return self.outbound.event(&cleared).map_err(overrun);
            }
            ClientEvent::Pause => Event::Control(Control::Pause),
            ClientEvent::Resume => Event::Control(Control::Resume),
            ClientEvent::Playout { item, audio_end_ms } => {
                // A report on a reply that is long over is late, not wrong.
                let Some(reply) = self.scribe.reply_of_item(&item) else {
                    return Ok(());
                };
                Event::Played {
                    reply,
                    samples: audio_end_ms * u64::from(duologue_session::SAMPLE_RATE) / 1_000,
                }
            }
        };
        self.core.handle(now, event);
        Ok(())
    }

    fn configure(&mut self, settings: SessionSettings) {
        if let crate::realtime::TurnDetection::ServerVad { threshold, .. } =
            &settings.turn_detection
        {
            self.hearing.set_threshold(*threshold);
        }
        let patch = client::config_patch(&settings);
        self.settings = settings;
        self.core
            .handle(self.now(), Event::Configure(Box::new(patch)));
        self.prepare(None);
    }

    fn decode(&mut self, bytes: Vec<u8>) -> Result<Vec<f32>, EventError> {
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

    fn receive(&mut self, samples: Vec<f32>) {
        if !samples.is_empty() {
            self.last_sound = self.wall();
            self.hearing.receive(samples, self.last_sound);
        }
    }

    /// A client that stops sending in the middle of speech is silent, as far as the conversation goes.
    fn fill_stall(&mut self) {
        let wall = self.wall();
        if self.hearing.in_speech() && wall >= self.last_sound + STALL {
            let samples = STALL_STEP.as_millis() as usize * HEARING_RATE as usize / 1_000;
            self.hearing.receive(vec![0.0; samples], wall);
            self.last_sound = wall + STALL_STEP - STALL;
        }
    }

    // ---- hearing ----

    fn note_hearing(&mut self, event: &Event) {
        if let Event::Silence { since } = event
            && self.mouth.sent().is_none_or(|_| self.mouth.finished())
        {
            self.timer.start(*since);
        }
    }

    fn transcribe(
        &mut self,
        turn: TurnId,
        revision: u32,
        span: (Duration, Duration),
        kind: TranscribeKind,
    ) {
        let engines = self.orchestrator.engines();
        let partial = kind == TranscribeKind::Partial;
        let sound = self.hearing.sound(span.0, span.1);
        let options = duologue_asr::Options {
            language: self.settings.language.clone(),
            prompt: self.settings.transcription_prompt.clone(),
            partial,
            ..duologue_asr::Options::default()
        };
        let cancel = Cancel::default();
        self.transcribing
            .entry(turn)
            .or_default()
            .push((revision, cancel.clone()));
        let recognizer = Arc::clone(&engines.recognizer);
        let priority = if partial {
            Priority::Background
        } else {
            Priority::Conversation
        };
        let flag = cancel.clone();
        let job = engines.mind.submit(priority, move || {
            recognizer.transcribe(&sound, &options, &flag)
        });
        self.report(async move {
            let message = match job {
                Ok(job) => match job.await {
                    Ok(Ok(transcript)) => {
                        let text = transcript.text;
                        return Some(if partial {
                            Event::Partial {
                                turn,
                                revision,
                                text,
                            }
                        } else {
                            Event::Transcript {
                                turn,
                                revision,
                                text,
                            }
                        });
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            let wanted = !cancel.is_cancelled();
            wanted.then_some(Event::TranscriptFailed {
                turn,
                revision,
                message,
            })
        });
    }

    fn judge(&mut self, turn: TurnId, revision: u32, to: Duration) {
        let engines = self.orchestrator.engines();
        let Some(model) = engines.end_of_turn.clone() else {
            // Without a model the fixed silence decides.
            return;
        };
        let from = to.saturating_sub(clock::length(duologue_vad::EndOfTurn::WINDOW as u64));
        let sound = self.hearing.sound(from, self.now());
        let job = engines
            .mind
            .submit(Priority::Conversation, move || model.probability(&sound));
        self.report(async move {
            match job.ok()?.await {
                Ok(Ok(probability)) => Some(Event::EndOfTurn {
                    turn,
                    revision,
                    probability,
                }),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the end of a turn was not judged");
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "the end of a turn was not judged");
                    None
                }
            }
        });
    }

    /// Brings an event about later.
    fn report(&self, event: impl Future<Output = Option<Event>> + Send + 'static) {
        let feedback = self.feedback.clone();
        tokio::spawn(async move {
            if let Some(event) = event.await {
                // A closed channel: the session is over.
                let _ = feedback.send(event).await;
            }
        });
    }

    fn note_report(&mut self, event: &Event) {
        let now = self.now();
        match event {
            Event::Transcript { turn, text, .. } => {
                self.transcribing.remove(turn);
                self.timer.reach(Step::Transcript, now);
                if !text.is_empty() {
                    // While the end of the turn is still judged, the model can read the question.
                    self.prepare(Some(text.clone()));
                }
            }
            Event::Partial { .. } | Event::TranscriptFailed { .. } => {}
            Event::ReplyText { reply, .. } if self.timed_reply == Some(*reply) => {
                self.timer.reach(Step::FirstClause, now);
            }
            _ => {}
        }
    }

    // ---- thinking ----

    fn prompt(&mut self, reply: ReplyId, history: &[Item], options: &ReplyOptions) {
        self.timer.reach(Step::EndOfTurn, self.now());
        self.timed_reply = Some(reply);
        self.preparing.cancel();
        if options.modality == Modality::Audio {
            let voice = options.voice.as_deref().unwrap_or(&self.settings.voice);
            self.speaking
                .choose(VoiceChoice::parse(voice, options.speed.unwrap_or(1.0)));
        }
        let cancel = CancellationToken::new();
        self.thinking = Some((reply, cancel.clone()));
        let request = thinking::chat_request(&self.seed, history, options);
        tokio::spawn(thinking::think(
            Arc::clone(&self.orchestrator.engines().chat),
            request,
            reply,
            options.modality,
            self.settings
                .language
                .clone()
                .unwrap_or_else(|| "en".into()),
            cancel,
            self.feedback.clone(),
        ));
    }

    /// Lets the model read what is known of its next prompt.
    fn prepare(&mut self, heard: Option<String>) {
        self.preparing.cancel();
        if self
            .thinking
            .as_ref()
            .is_some_and(|(_, cancel)| !cancel.is_cancelled())
            && matches!(self.core.state(), State::Thinking | State::Speaking)
        {
            return;
        }
        self.preparing = CancellationToken::new();
        let mut history = self.core.items().to_vec();
        if let Some(text) = heard {
            history.push(Item::message("", duologue_session::Role::User, text));
        }
        let request = thinking::chat_request(&self.seed, &history, &self.core.config().reply);
        let chat = Arc::clone(&self.orchestrator.engines().chat);
        let cancel = self.preparing.clone();
        tokio::spawn(async move { chat.prepare(&request, cancel).await });
    }

    // ---- speaking ----

    fn voiced(&mut self, voiced: Voiced) -> Result<(), Backlog> {
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

    fn voice_frame(&mut self, reply: ReplyId, frame: &AudioFrame) -> Result<(), Backlog> {
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

    fn send(&mut self, frames: &[Frame]) -> Result<(), Backlog> {
        let Some((reply, samples)) = self.mouth.sent() else {
            return Ok(());
        };
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

    fn encode(&mut self, reply: ReplyId, frames: &[Frame]) -> Vec<u8> {
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

fn overrun(backlog: Backlog) -> EventError {
    EventError::server("server_error", backlog.to_string())
}
