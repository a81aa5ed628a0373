//! What all sessions share: models, slots, configuration.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use duologue_asr::Recognizer;
use duologue_llm::{ChatModel, DEFAULT_INSTRUCTIONS};
use duologue_metrics::table;
use duologue_session::{Beginning, InterruptionConfig, Limits, Speculation, Timing};
use duologue_vad::EndOfTurn;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::driver::{Detector, HearingConfig};
use crate::fleet::{Fleet, Mode, Wanted};
use crate::http::{ApiError, SessionPlace};
use crate::inference::InferencePool;
use crate::journal::{ConversationKey, Journal, JournalWriter, Record, ResumeToken, TAKE_DEADLINE};
use crate::livekit::LiveKitConfig;
use crate::pressure::{Pressure, PressureLimits, Reason, Wait};
use crate::processor;
use crate::realtime::{HEARING_RATE, SessionSettings, VoiceNames};
use crate::recording::{RecordingConfig, SessionFile};
use crate::status::Board;
use crate::voice::{Purpose, VoiceChoice, VoiceError, VoiceSession};
use crate::webrtc::WebRtc;

/// How often [`Orchestrator::measure`] looks.
const MEASURED_EVERY: Duration = Duration::from_millis(100);
const MACHINE_MEASURED_EVERY: Duration = Duration::from_secs(2);

/// The models that sessions share.
pub struct Engines {
    /// Understands speech.
    pub recognizer: Arc<dyn Recognizer>,
    /// Thinks.
    pub chat: Arc<dyn ChatModel>,
    /// Speaks.
    pub fleet: Fleet,
    /// Hears that somebody speaks.
    pub detector: Detector,
    /// Judges whether a turn is over; without it a fixed silence decides.
    pub end_of_turn: Option<EndOfTurn>,
    /// Where voice detectors run: cheap jobs that must not wait behind dear ones.
    pub ear: InferencePool,
    /// Where the recognizer and the end-of-turn model run.
    pub mind: InferencePool,
}

/// How sessions are held.
#[derive(Clone, Debug)]
pub struct OrchestratorConfig {
    /// Sessions at once; one more is refused with when to try again.
    pub max_sessions: usize,
    /// System prompt where a client gives none.
    pub instructions: String,
    /// Voice where a client names none; empty is the worker's default.
    pub voice: String,
    /// Language of the users, where a client gives none; `None` is detected.
    pub language: Option<String>,
    /// How far sound is sent ahead of real time.
    pub lead: Duration,
    /// How much harder it is to be taken for speech while a reply is heard.
    pub speaking_threshold_scale: f32,
    /// How sessions listen.
    pub hearing: HearingConfig,
    /// What counts as an interruption.
    pub interruption: InterruptionConfig,
    /// The core's waits.
    pub timing: Timing,
    /// When a session ends by itself.
    pub limits: Limits,
    /// Whether a reply is begun before the turn is known to be over.
    pub speculation: Speculation,
    /// Where sessions are kept; `None`: nowhere.
    pub recording: Option<RecordingConfig>,
    /// When no more sessions are taken though slots are free.
    pub pressure: PressureLimits,
}

impl Default for OrchestratorConfig {
    fn default() -> Self {
        Self {
            max_sessions: 4,
            instructions: DEFAULT_INSTRUCTIONS.into(),
            voice: String::new(),
            language: None,
            lead: Duration::from_millis(200),
            speaking_threshold_scale: 2.0,
            hearing: HearingConfig::default(),
            interruption: InterruptionConfig::default(),
            timing: Timing::default(),
            limits: Limits::default(),
            speculation: Speculation::default(),
            recording: None,
            pressure: PressureLimits::default(),
        }
    }
}

/// The server's heart.
pub struct Orchestrator {
    engines: Engines,
    config: OrchestratorConfig,
    slots: Arc<Semaphore>,
    pressure: Mutex<Pressure>,
    began: Instant,
    shutdown: CancellationToken,
    draining: CancellationToken,
    journal: Option<Arc<dyn Journal>>,
    /// Those who write sessions down, which they go on with when a session is over.
    writers: TaskTracker,
    board: Arc<Board>,
    voices: VoiceNames,
    webrtc: Option<WebRtc>,
    livekit: Option<LiveKitConfig>,
}

/// A session that may begin: its slot and its open voice.
pub(crate) struct Admission {
    pub slot: OwnedSemaphorePermit,
    pub seed: String,
    pub model: String,
    pub voice: VoiceSession,
    pub voices: VoiceNames,
    /// Where the session is kept, if it is.
    pub kept: Option<Kept>,
    /// Its place among the sessions of its key.
    pub place: Option<SessionPlace>,
}

/// A session that is kept in a journal.
pub(crate) struct Kept {
    pub writer: JournalWriter,
    /// What its client is to say to go on with it; `None`: it is known by the room it is in.
    pub token: Option<ResumeToken>,
    /// What there is to go on with.
    pub record: Option<Record>,
}

/// Which conversation a session is to hold.
pub(crate) enum Which {
    /// One that its client names, or a new one.
    Token(Option<ResumeToken>),
    /// The one that is held in a room.
    Room(ConversationKey),
}

impl Which {
    /// What a client said in `duologue_resume`.
    pub fn said(resume: Option<&str>) -> Result<Self, ApiError> {
        let token = resume.map(|text| {
            let bad =
                "this is no resume token: give session.duologue.resume_token of session.created";
            ResumeToken::parse(text).ok_or_else(|| ApiError::invalid("duologue_resume", bad))
        });
        Ok(Self::Token(token.transpose()?))
    }
}

impl Orchestrator {
    /// Joins the engines. Asks the voice workers what voices they have.
    ///
    /// # Errors
    /// When there are workers but none can be reached, or none has such a voice as the configuration names.
    pub async fn new(
        engines: Engines,
        mut config: OrchestratorConfig,
        shutdown: CancellationToken,
    ) -> Result<Self, VoiceError> {
        let mut voices = VoiceNames { known: Vec::new() };
        if engines.fleet.workers().is_empty() {
            // They are still to come; then the voice is asked for by the name it has here.
            voices.known.extend(Some(config.voice.clone()));
        } else {
            let mut models = engines.fleet.models().await?;
            models.sort_by_key(|model| !model.is_default);
            for model in models {
                add_voice(&mut voices, &model.name, &model.speakers);
            }
        }
        if config.voice.is_empty() {
            config.voice = voices.known.first().cloned().unwrap_or_default();
        } else {
            let chosen = voices
                .resolve(&config.voice)
                .map_err(VoiceError::UnknownVoice)?;
            voices.known.retain(|voice| *voice != chosen);
            voices.known.insert(0, chosen);
        }
        Ok(Self {
            slots: Arc::new(Semaphore::new(config.max_sessions)),
            pressure: Mutex::new(Pressure::new(config.pressure, processor::cores())),
            began: Instant::now(),
            engines,
            config,
            shutdown,
            draining: CancellationToken::new(),
            journal: None,
            writers: TaskTracker::new(),
            board: Arc::default(),
            voices,
            webrtc: None,
            livekit: None,
        })
    }

    /// Takes WebRTC calls too.
    #[must_use]
    pub fn with_webrtc(self, webrtc: Option<WebRtc>) -> Self {
        Self { webrtc, ..self }
    }

    /// Gives users tokens for a LiveKit server.
    #[must_use]
    pub fn with_livekit(self, livekit: Option<LiveKitConfig>) -> Self {
        Self { livekit, ..self }
    }

    /// Where sessions are kept, if they are.
    pub(crate) fn journal(&self) -> Option<&Arc<dyn Journal>> {
        self.journal.as_ref()
    }

    /// Keeps sessions in a journal, so that clients can go on with them.
    #[must_use]
    pub fn with_journal(self, journal: Option<Arc<dyn Journal>>) -> Self {
        Self { journal, ..self }
    }

    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    pub(crate) fn livekit(&self) -> Option<&LiveKitConfig> {
        self.livekit.as_ref()
    }

    pub(crate) fn webrtc(&self) -> Option<&WebRtc> {
        self.webrtc.as_ref()
    }

    /// The models.
    #[must_use]
    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &OrchestratorConfig {
        &self.config
    }

    /// Sessions that may still begin.
    #[must_use]
    pub fn free_slots(&self) -> usize {
        self.slots.available_permits()
    }

    /// Measures what belongs to no session: free slots, how late the runtime's timers fire, and what else tells
    /// whether there is room for more. Ends with the server.
    pub async fn measure(&self) {
        tokio::join!(self.measure_itself(), self.measure_machine());
    }

    async fn measure_machine(&self) {
        let mut due = tokio::time::interval(MACHINE_MEASURED_EVERY);
        loop {
            tokio::select! {
                _ = due.tick() => {}
                () = self.shutdown.cancelled() => return,
            }
            let began = self.began;
            let read = tokio::task::spawn_blocking(move || {
                let (machine, own) = (processor::machine_time()?, processor::own_time()?);
                Some((
                    began.elapsed(),
                    machine.busy.saturating_sub(own),
                    machine.cores,
                ))
            });
            // Without a free file descriptor it cannot be read; later it can.
            if let Ok(Some((at, others, cores))) = read.await {
                self.pressure().others_used(at, others, cores);
            }
        }
    }

    async fn measure_itself(&self) {
        let mut due = Instant::now();
        loop {
            due += MEASURED_EVERY;
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.shutdown.cancelled() => return,
            }
            let late = due.elapsed();
            table::REACTOR_LAG.record(late);
            table::SLOTS_FREE.set(self.free_slots() as f64);
            self.note_pressure(late);
            due = due.max(Instant::now() - MEASURED_EVERY);
        }
    }

    fn note_pressure(&self, late: Duration) {
        let (ear, mind) = (
            self.engines.ear.take_waits(),
            self.engines.mind.take_waits(),
        );
        let at = self.began.elapsed();
        let mut pressure = self.pressure();
        pressure.waited(at, Wait::Timer, late);
        for waited in ear {
            pressure.waited(at, Wait::Ear, waited);
        }
        for waited in mind {
            pressure.waited(at, Wait::Mind, waited);
        }
        if let Some(cpu) = processor::own_time() {
            pressure.used(at, cpu);
        }
    }

    fn pressure(&self) -> std::sync::MutexGuard<'_, Pressure> {
        // Figures that a panic left half noted are as good as any.
        self.pressure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why one more session would break what is promised to those there are, if it would.
    pub(crate) fn pressed(&self) -> Option<Reason> {
        let running = self.config.max_sessions - self.free_slots().min(self.config.max_sessions);
        self.pressure().refusal(self.began.elapsed(), running)
    }

    /// Set when the server is to stop; sessions then end.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// The voices that there are now, and those that there were at the start.
    pub(crate) fn voice_names(&self) -> VoiceNames {
        let mut voices = self.voices.clone();
        for voice in self.engines.fleet.voices() {
            add_voice(&mut voices, &voice.name, &voice.speakers);
        }
        voices
    }

    /// What a session is like before its client says anything.
    pub(crate) fn session_settings(&self, model: Option<&str>) -> SessionSettings {
        let model = model.unwrap_or(&self.engines.chat.info().name);
        SessionSettings {
            language: self.config.language.clone(),
            recorded: self.config.recording.is_some(),
            cleaner: self.config.hearing.cleaner,
            ..SessionSettings::new(model, &self.config.instructions, &self.config.voice)
        }
    }

    /// Takes no more sessions. Those that run go on.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether no more sessions are taken.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled() || self.shutdown.is_cancelled()
    }

    /// Waits until no session runs and their clients were sent all that they were to be told.
    pub async fn all_sessions_over(&self) {
        let all = u32::try_from(self.config.max_sessions).unwrap_or(u32::MAX);
        // Never closed, and asked for no more than there are.
        let _ = self.slots.acquire_many(all).await;
    }

    /// Waits, once no session runs, until the journal has the last of each.
    pub async fn all_written_down(&self) {
        self.writers.close();
        self.writers.wait().await;
    }

    /// The voice that a client means by a name; empty is the default.
    ///
    /// # Errors
    /// What there is, when it is none of them.
    pub fn voice_choice(&self, name: &str, speed: f32) -> Result<VoiceChoice, String> {
        let name = if name.is_empty() {
            &self.config.voice
        } else {
            name
        };
        Ok(VoiceChoice::parse(
            &self.voice_names().resolve(name)?,
            speed,
        ))
    }

    /// What a recording tells of a session that begins now.
    pub(crate) fn session_file(
        &self,
        beginning: Beginning,
        settings: &SessionSettings,
    ) -> SessionFile {
        let models = [
            ("asr", self.engines.recognizer.info().name.clone()),
            ("llm", self.engines.chat.info().name.clone()),
            ("voice", settings.voice.clone()),
            ("vad", self.engines.detector.name()),
            (
                "end_of_turn",
                if self.engines.end_of_turn.is_some() {
                    "smart-turn".into()
                } else {
                    "none".into()
                },
            ),
        ];
        SessionFile {
            session: format!("sess_{}", beginning.seed),
            beginning,
            version: env!("CARGO_PKG_VERSION").into(),
            started_unix_ms: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
            models: models
                .into_iter()
                .map(|(role, name)| (role.to_owned(), name))
                .collect(),
            lead_ms: self.config.lead.as_millis() as u64,
            speaking_threshold_scale: self.config.speaking_threshold_scale,
            user_rate: HEARING_RATE,
            assistant_rate: duologue_audio::SAMPLE_RATE,
            complete: false,
            stopped_because: None,
        }
    }

    /// A part of names that no other session has.
    pub(crate) fn new_seed(&self) -> String {
        format!("{:012x}", rand::random::<u64>() >> 16)
    }

    /// A slot, if one is free and there is room for a session; dropped, it is free again.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn reserve(&self) -> Result<OwnedSemaphorePermit, NoRoom> {
        if self.is_draining() {
            return Err(NoRoom::Stopping);
        }
        if let Some(reason) = self.pressed() {
            return Err(NoRoom::Pressed(reason));
        }
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let slot = slot.map_err(|_| NoRoom::Full(self.config.max_sessions))?;
        self.pressure().admitted(self.began.elapsed());
        Ok(slot)
    }

    /// Takes a slot and opens the voice.
    pub(crate) async fn admit(
        &self,
        model: Option<&str>,
        which: Which,
    ) -> Result<Admission, ApiError> {
        let slot = self.reserve().map_err(NoRoom::told)?;
        self.admit_reserved(slot, model, which).await
    }

    /// Waits for a slot and opens the voice.
    pub(crate) async fn admit_when_free(&self, which: Which) -> Result<Admission, ApiError> {
        let slot = tokio::select! {
            slot = Arc::clone(&self.slots).acquire_owned() => slot.map_err(|_| shutting_down())?,
            () = self.draining.cancelled() => return Err(shutting_down()),
            () = self.shutdown.cancelled() => return Err(shutting_down()),
        };
        self.admit_reserved(slot, None, which).await
    }

    /// Opens the voice for a slot that was reserved, and finds the conversation that is to go on.
    pub(crate) async fn admit_reserved(
        &self,
        slot: OwnedSemaphorePermit,
        model: Option<&str>,
        which: Which,
    ) -> Result<Admission, ApiError> {
        let seed = self.new_seed();
        let choice = VoiceChoice::parse(&self.config.voice, 1.0);
        let wanted = Wanted::new(&seed, choice, Mode::Session);
        let lead = Purpose::LISTENER.lead;
        let voice = async {
            let opened = self.engines.fleet.open(wanted, seed.clone(), lead).await;
            opened
                .inspect_err(|_| table::SESSIONS_REFUSED.count_for("voice"))
                .map_err(ApiError::from)
        };
        let (voice, kept) = tokio::try_join!(voice, self.find(which))?;
        Ok(Admission {
            slot,
            seed,
            model: model.unwrap_or(&self.engines.chat.info().name).to_owned(),
            voice,
            voices: self.voice_names(),
            kept,
            place: None,
        })
    }

    /// What the journal has of a conversation; it is written there from now on.
    async fn find(&self, which: Which) -> Result<Option<Kept>, ApiError> {
        let Some(journal) = &self.journal else {
            return Ok(None);
        };
        let (key, token, named) = match which {
            Which::Token(said) => {
                let named = said.is_some();
                let token = said.unwrap_or_else(ResumeToken::random);
                (ConversationKey::of_token(&token), Some(token), named)
            }
            Which::Room(key) => (key, None, true),
        };
        let mut taken = None;
        if named {
            taken = match tokio::time::timeout(TAKE_DEADLINE, journal.take(&key)).await {
                Ok(Ok(taken)) => taken,
                // Better to ask once more than to have forgotten everything.
                Ok(Err(error)) if token.is_some() => {
                    return Err(ApiError::full(error.to_string(), 1));
                }
                Err(_) if token.is_some() => {
                    return Err(ApiError::full("the journal does not answer", 1));
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "whether a room's conversation is to go on is not known");
                    None
                }
                Err(_) => None,
            };
        }
        let epoch = taken.as_ref().map_or(1, |taken| taken.epoch);
        let record = taken.and_then(|taken| {
            let read = Record::from_json(&taken.record);
            read.inspect_err(|error| tracing::warn!(%error, "a conversation begins anew"))
                .ok()
        });
        // A token that is known no longer names nothing; the new conversation has one of its own.
        let (key, token) = match (token, &record) {
            (Some(_), None) => {
                let token = ResumeToken::random();
                (ConversationKey::of_token(&token), Some(token))
            }
            (token, _) => (key, token),
        };
        Ok(Some(Kept {
            writer: JournalWriter::begin(&self.writers, Arc::clone(journal), key, epoch),
            token,
            record,
        }))
    }
}

/// Adds a voice and its speakers to those that are known.
fn add_voice(voices: &mut VoiceNames, name: &str, speakers: &[String]) {
    let speakers = speakers.iter().map(|speaker| format!("{name}:{speaker}"));
    for name in std::iter::once(name.to_owned()).chain(speakers) {
        if !voices.known.contains(&name) {
            voices.known.push(name);
        }
    }
}

fn shutting_down() -> ApiError {
    ApiError::full("the server is shutting down", 5)
}

/// Why a session is not begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NoRoom {
    /// The server takes no more.
    Stopping,
    /// So many slots are all taken.
    Full(usize),
    /// One more would break what is promised to those there are.
    Pressed(Reason),
}

impl NoRoom {
    /// Counted, and as the client is told.
    fn told(self) -> ApiError {
        match self {
            Self::Stopping => {
                table::SESSIONS_REFUSED.count_for("stopping");
                shutting_down()
            }
            Self::Full(limit) => {
                table::SESSIONS_REFUSED.count_for("full");
                ApiError::full(
                    format!("all {limit} sessions are taken; try again in a moment"),
                    5,
                )
            }
            Self::Pressed(reason) => {
                table::SESSIONS_REFUSED.count_for("busy");
                tracing::warn!(%reason, "a session is refused: it would be too much for those there are");
                ApiError::full(
                    format!("the server is busy: {reason}; try again in a moment"),
                    10,
                )
            }
        }
    }
}
