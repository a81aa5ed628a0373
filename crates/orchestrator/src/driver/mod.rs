//! Runs one session: tells the core what happened, does what it says, and decides nothing itself.
//!
//! One task owns the session. Models work elsewhere and report back through one bounded queue; the user's
//! sound goes through [`hearing`](self::hearing), the reply's through the [`Mouth`].

mod actions;
mod client;
mod clock;
mod core;
mod hearing;
mod inbound;
mod journaling;
mod log_span;
mod loudspeaker;
mod measuring;
mod models;
mod outbound;
mod speculating;
mod thinking;
mod turn_timer;
mod turn_trace;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use duologue_asr::Cancel;
use duologue_audio::Resampler;
use duologue_session::{
    Beginning, Config, EndReason, Event, RECORDING_FORMAT, ReplyId, Session, TurnId,
};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::Orchestrator;
use crate::http::SessionPlace;
use crate::journal::JournalWriter;
use crate::mouth::Mouth;
use crate::orchestrator::Admission;
use crate::playback::{Listener, Reports};
use crate::realtime::{
    Dialect, EventError, InputDecoder, OutputEncoder, Resume, Scribe, SessionSettings, VoiceNames,
    apply_update,
};
use crate::recording::Recorder;
use crate::status::Place;
use crate::traffic::Traffic;
use crate::transport::{Backlog, Inbound, Outbound};
use crate::voice::{Purpose, Speaking, Voiced};
use turn_timer::TurnTimer;
use turn_trace::{Thought, TurnTrace};

use self::core::Core;
use hearing::Hearing;
pub use hearing::{Detector, HearingConfig};
use inbound::STALL;
use journaling::Past;
use log_span::LogSpan;
use measuring::Measuring;
use outbound::Moved;
use speculating::Speculating;

/// Reports of models that may wait for the session.
const FEEDBACK: usize = 256;
/// How often a client that wants to know is told of what the ear knows.
const HEARING_TOLD: Duration = Duration::from_secs(5);
/// Sound that may wait in the mouth before the voice has to.
const MOUTHFUL: Duration = Duration::from_secs(10);

/// What a session waits for.
enum Came {
    Message(Inbound),
    Heard(Vec<Event>),
    Report(Event),
    Voiced(Voiced),
    Time,
    Shutdown,
}

/// What a session takes of the server's room. Whoever holds its connection keeps this until the client has all that it
/// was to be told: a server that is asked to end waits for it.
#[must_use = "the server may end as soon as it is dropped"]
pub(crate) struct Seat {
    _slot: OwnedSemaphorePermit,
    _place: Option<SessionPlace>,
}

/// One session.
pub(crate) struct Driver<O> {
    orchestrator: Arc<Orchestrator>,
    seat: Seat,
    seed: String,
    started: Instant,
    core: Core,
    settings: SessionSettings,
    voices: VoiceNames,
    scribe: Scribe,
    outbound: O,
    hearing: Hearing,
    decoder: Option<InputDecoder>,
    /// For sound that comes beside the events.
    beside: Option<Resampler>,
    last_sound: Duration,
    /// When the client is next told of what the ear knows.
    hearing_told_next: Duration,
    /// Start of the client's input buffer.
    buffer_from: Duration,
    mouth: Mouth,
    encoder: Option<(ReplyId, OutputEncoder)>,
    speaking: Speaking,
    /// When the voice was given a reply's first text.
    speech_began: Duration,
    /// Replies that went on with another worker.
    failovers: u64,
    /// Another worker goes on with the reply, and has not made sound yet.
    moved: Option<Moved>,
    transcribing: HashMap<TurnId, Vec<(u32, Cancel)>>,
    thinking: Option<(ReplyId, CancellationToken)>,
    /// What the model was asked last.
    thought: Option<Arc<Thought>>,
    speculating: Option<Speculating>,
    preparing: CancellationToken,
    /// The client has told how late its sound is heard.
    delay_told: bool,
    timer: TurnTimer,
    trace: TurnTrace,
    measuring: Measuring,
    traffic: Arc<Traffic>,
    /// One who hears what leaves beside the events.
    imagined: Listener,
    /// What the client tells of its playout.
    reports_of_playout: Reports,
    /// What operators see of the session.
    seen: Place,
    /// The turn and the reply that log lines belong to.
    log_span: LogSpan,
    timed_reply: Option<ReplyId>,
    feedback: mpsc::Sender<Event>,
    reports: mpsc::Receiver<Event>,
    /// `event_id` of the client event that is being carried out.
    cause: Option<String>,
    /// Where the session is kept.
    journal: Option<JournalWriter>,
    /// What was said before, until the core knows it.
    past: Option<Past>,
    /// The user's turn is over, and nothing of an answer was heard.
    thinking_now: bool,
    /// Why the session is over, once it is.
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
            kept,
            place,
        } = admission;
        let mut settings = orchestrator.session_settings(Some(&model));
        let (mut journal, mut record) = (None, None);
        if let Some(kept) = kept {
            settings.resume = Some(Resume {
                token: kept.token,
                resumed: kept.record.as_ref().map(|record| record.items.len()),
            });
            (journal, record) = (Some(kept.writer), kept.record);
        }
        let core_config = Config {
            interruption: config.interruption.clone(),
            timing: config.timing.clone(),
            limits: config.limits.clone(),
            speculation: config.speculation,
            ..Config::default()
        }
        .patched(&client::config_patch(&settings));
        let recorder = config.recording.as_ref().map(|recording| {
            let beginning = Beginning {
                format: RECORDING_FORMAT,
                seed: seed.clone(),
                config: core_config.clone(),
            };
            Recorder::begin(recording, orchestrator.session_file(beginning, &settings))
        });
        let (feedback, reports) = mpsc::channel(FEEDBACK);
        let lead = outbound.lead();
        let measuring = Measuring::begin(outbound.transport());
        let traffic = Arc::new(Traffic::new(outbound.transport()));
        let seen = orchestrator
            .board()
            .enter(&seed, outbound.transport(), Arc::clone(&traffic));
        let trace = TurnTrace::new(&seed, outbound.transport());
        let mut driver = Self {
            orchestrator: Arc::clone(orchestrator),
            seat: Seat {
                _slot: slot,
                _place: place,
            },
            started: Instant::now(),
            core: Core::new(Session::new(&seed, core_config), recorder),
            voices,
            scribe: Scribe::new(&seed, dialect, settings.clone()).telling_playback(lead.is_some()),
            settings,
            outbound,
            hearing: Hearing::new(
                engines.ear.clone(),
                engines.detector.clone(),
                config.hearing,
            ),
            decoder: None,
            beside: None,
            last_sound: Duration::ZERO,
            hearing_told_next: HEARING_TOLD,
            buffer_from: Duration::ZERO,
            mouth: Mouth::new(lead.unwrap_or(config.lead), config.interruption.max_rewind),
            encoder: None,
            speaking: Speaking::new(engines.fleet.clone(), &seed, voice, Purpose::LISTENER),
            speech_began: Duration::ZERO,
            failovers: 0,
            moved: None,
            transcribing: HashMap::new(),
            thinking: None,
            thought: None,
            speculating: None,
            preparing: CancellationToken::new(),
            delay_told: false,
            timer: TurnTimer::default(),
            trace,
            measuring,
            traffic,
            imagined: Listener::default(),
            reports_of_playout: Reports::default(),
            seen,
            log_span: LogSpan::new(&seed),
            timed_reply: None,
            feedback,
            reports,
            cause: None,
            ended: None,
            journal,
            past: None,
            thinking_now: false,
            seed,
        };
        if let Some(record) = record {
            driver.remember(record);
        }
        driver
    }

    /// Settings that a client gave before it was connected, as in a `session.update`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn preset(&mut self, session: &serde_json::Value) -> Result<(), EventError> {
        let settings = apply_update(&self.settings, session, &self.voices)?;
        // Told in `session.created`.
        let _ = self.scribe.session_updated(settings.clone());
        self.configure(settings);
        Ok(())
    }

    /// What counts the bytes of the client's connection.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Holds the conversation to its end. What the client was told last may still be on its way.
    pub async fn run(mut self, inbound: mpsc::Receiver<Inbound>) -> Seat {
        let span = self.log_span.session().clone();
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
            self.journal_now();
            self.preparing.cancel();
            self.speculating = None;
            if let Some((_, cancel)) = self.thinking.take() {
                cancel.cancel();
            }
            self.transcribing
                .values()
                .flatten()
                .for_each(|(_, cancel)| cancel.cancel());
            let chat = &self.orchestrator.engines().chat;
            chat.forget(&self.seed);
            chat.forget(&models::aside(&self.seed));
            if let Some(recorder) = self.core.recorder.take() {
                recorder.finish().await;
            }
            let counters = self.core.counters();
            self.measuring.end(reason, counters);
            self.trace.session_ends(SystemTime::now());
            let hearing = self.hearing.statistics();
            if let Some(gate) = hearing.gate {
                tracing::info!(
                    floor_dbfs = gate.floor_dbfs,
                    threshold_dbfs = gate.threshold_dbfs,
                    gating_ratio = gate.gating_ratio,
                    "noise gate"
                );
            }
            if let Some(echo) = hearing.echo {
                tracing::info!(
                    delay_ms = echo.delay_ms,
                    return_loss_db = echo.return_loss_db,
                    enhancement_db = echo.enhancement_db,
                    "echo cancellation"
                );
            }
            tracing::info!(
                ?reason,
                turns = counters.turns,
                interruptions = counters.interruptions,
                retractions = counters.retractions,
                speculations = counters.speculations,
                speculations_kept = counters.speculations_kept,
                underruns = self.traffic.underruns(),
                failovers = self.failovers,
                "session ends"
            );
        }
        .instrument(span)
        .await;
        self.seat
    }

    async fn converse(
        &mut self,
        mut inbound: mpsc::Receiver<Inbound>,
    ) -> Result<EndReason, Backlog> {
        let created = self.scribe.session_created();
        self.outbound.event(&created)?;
        self.recall()?;
        self.prepare(None);
        let shutdown = self.orchestrator.shutdown().clone();
        let mut closing = false;
        loop {
            self.act()?;
            self.tell_of_recording()?;
            self.journal_if_due();
            if let Some(reason) = self.ended {
                return Ok(reason);
            }
            let wake = self.wake_at();
            let listener = self.listener();
            let came = tokio::select! {
                message = inbound.recv(), if !self.hearing.is_behind() => {
                    Came::Message(message.unwrap_or(Inbound::Gone))
                }
                heard = self.hearing.heard(), if self.hearing.is_listening() => Came::Heard(heard),
                Some(event) = self.reports.recv() => Came::Report(event),
                voiced = self.speaking.next(listener), if self.mouth.waiting() < MOUTHFUL => {
                    Came::Voiced(voiced)
                }
                () = tokio::time::sleep_until(wake) => Came::Time,
                () = shutdown.cancelled(), if !closing => {
                    closing = true;
                    Came::Shutdown
                }
            };
            let span = self.log_span.turn().clone();
            span.in_scope(|| self.take(came))?;
        }
    }

    /// Takes in what came. What is logged meanwhile belongs to the turn.
    fn take(&mut self, came: Came) -> Result<(), Backlog> {
        match came {
            Came::Message(message) => self.client_says(message),
            Came::Heard(heard) => {
                for event in heard {
                    self.note_hearing(&event);
                    self.tell(event)?;
                }
                self.tell_of_hearing()
            }
            Came::Report(event) => {
                self.note_report(&event);
                self.tell(event)
            }
            Came::Voiced(voiced) => self.voiced(voiced),
            Came::Time => {
                self.fill_stall();
                self.tell(Event::Tick)
            }
            Came::Shutdown => self.tell(Event::Shutdown),
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
        let next = [core, self.mouth.deadline(), stall, self.journal_due()]
            .into_iter()
            .flatten()
            .min();
        // Nothing is due: an hour is as good as never.
        self.started + next.unwrap_or(self.wall() + Duration::from_secs(3_600))
    }

    /// Says, once, that the recording has stopped.
    fn tell_of_recording(&mut self) -> Result<(), Backlog> {
        let stopped = self
            .core
            .recorder
            .as_mut()
            .and_then(Recorder::newly_stopped);
        let Some(reason) = stopped.map(str::to_owned) else {
            return Ok(());
        };
        tracing::error!(%reason, "the recording of this session has stopped; the session goes on");
        self.own(
            "duologue.recording",
            json!({"active": false, "reason": reason}),
        )
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
            let (due, wall) = (self.mouth.deadline(), self.wall());
            let frames = self.mouth.due(wall);
            if frames.is_empty() {
                return Ok(());
            }
            self.measuring.frames_leave(due, wall);
            self.send(&frames)?;
        }
    }
}
