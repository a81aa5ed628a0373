//! The gRPC service: each call in terms of sessions, utterances and voices.

use std::sync::Arc;
use std::time::Duration;

use duologue_audio::{FRAME_SAMPLES, SAMPLE_RATE};
use duologue_rpc::tts_worker_server::TtsWorker;
use duologue_rpc::{
    AudioFormat, ControlAction, ControlRequest, ControlResponse, EndSessionRequest,
    EndSessionResponse, GetCapabilitiesRequest, GetCapabilitiesResponse, ListModelsRequest,
    ListModelsResponse, LoadModelRequest, LoadModelResponse, Model, StartSessionRequest,
    StartSessionResponse, TextChunk, UnloadModelRequest, UnloadModelResponse, trace_context,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::capabilities::Gauge;
use crate::config::{LEAD_MS, WorkerConfig};
use crate::engine::Engine;
use crate::model_manager::{ModelManager, VoiceState};
use crate::outbox::{Frames, Outbox};
use crate::refusal::Refusal;
use crate::sessions::{Session, Sessions};
use crate::trace::Trace;
use crate::voices::VoiceEntry;
use crate::{utterance, validate};

/// How long EndSession waits for the engine to let go.
const END_WAIT: Duration = Duration::from_secs(2);

/// What all calls share.
pub(crate) struct Inner {
    pub(crate) config: WorkerConfig,
    pub(crate) sessions: Sessions,
    pub(crate) models: Arc<ModelManager>,
    pub(crate) engine: Arc<Engine>,
    /// How quickly it speaks.
    pub(crate) figures: Arc<Gauge>,
    /// Set when no new work is taken.
    pub(crate) shutdown: CancellationToken,
}

#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Inner>);

#[tonic::async_trait]
impl TtsWorker for Service {
    async fn start_session(
        &self,
        request: Request<StartSessionRequest>,
    ) -> Result<Response<StartSessionResponse>, Status> {
        let request = request.into_inner();
        let worker = &self.0;
        worker.check_open()?;
        validate::check_id("session_id", &request.session_id)?;
        let lead_ms = match request.lead_ms {
            0 => worker.config.lead_ms,
            ms if LEAD_MS.contains(&ms) => ms,
            ms => return Err(Refusal::BadLead(ms).into()),
        };
        worker.sessions.check_unused(&request.session_id)?;
        let slot = worker.sessions.slot()?;
        let name = match (&request.voice, &worker.config.default_voice) {
            (name, _) if !name.is_empty() => name,
            (_, Some(default)) => default,
            _ => return Err(Refusal::NoDefaultVoice.into()),
        };
        let lease = worker.models.lease(name).await.map_err(Refusal::from)?;
        let settings = validate::settings(request.settings);
        // The voice itself says whether the settings fit; it may take a moment.
        let (voice, wanted) = (lease.voice(), settings.clone());
        tokio::task::spawn_blocking(move || voice.begin(&wanted).map(drop))
            .await
            .map_err(|error| Refusal::EngineCrash(error.to_string()))?
            .map_err(Refusal::from)?;
        let voice = lease.name().to_owned();
        let lead = Duration::from_millis(lead_ms.into());
        let session = Session::new(request.session_id, lease, settings, lead, slot);
        worker.sessions.insert(session)?;
        Ok(Response::new(StartSessionResponse {
            voice,
            format: Some(format()),
        }))
    }

    type SynthesizeStream = Frames;

    async fn synthesize(
        &self,
        request: Request<Streaming<TextChunk>>,
    ) -> Result<Response<Frames>, Status> {
        let worker = &self.0;
        worker.check_open()?;
        let trace = Trace::begin(&trace_context::extract(request.metadata()));
        // Answered before the first chunk is there, so that a client which waits for the response's headers
        // before it writes does not wait for ever.
        let outbox = Outbox::new(Duration::from_millis(worker.config.lead_ms.into()));
        let frames = Frames::new(Arc::clone(&outbox));
        tokio::spawn(utterance::run(
            Arc::clone(worker),
            request.into_inner(),
            outbox,
            trace,
        ));
        Ok(Response::new(frames))
    }

    async fn control(
        &self,
        request: Request<ControlRequest>,
    ) -> Result<Response<ControlResponse>, Status> {
        let request = request.into_inner();
        let action = ControlAction::try_from(request.action)
            .map_err(|_| Refusal::BadAction("action is none of this ABI's"))?;
        let session = self.0.sessions.find(&request.session_id)?;
        let current = session.current();
        let (outbox, id) = (current.as_deref(), request.utterance_id.as_str());
        let applied = match action {
            ControlAction::Unspecified => {
                return Err(Refusal::BadAction("no action was given").into());
            }
            ControlAction::Pause => outbox.and_then(|outbox| outbox.pause(id)),
            ControlAction::Resume => outbox.and_then(|outbox| outbox.resume(id)),
            ControlAction::Stop => outbox.and_then(|outbox| outbox.halt(id)),
            ControlAction::Reload => {
                let voice = session.voice.name();
                self.0.models.reload(voice).await.map_err(Refusal::from)?;
                outbox.and_then(|outbox| outbox.look(id))
            }
        };
        let (samples_sent, utterance_id) = applied
            .map(|applied| (applied.samples_sent, applied.utterance_id))
            .unwrap_or_default();
        Ok(Response::new(ControlResponse {
            samples_sent,
            utterance_id,
        }))
    }

    async fn end_session(
        &self,
        request: Request<EndSessionRequest>,
    ) -> Result<Response<EndSessionResponse>, Status> {
        let id = request.into_inner().session_id;
        if let Some(gone) = self.0.sessions.end(&id)?
            && tokio::time::timeout(END_WAIT, gone.cancelled())
                .await
                .is_err()
        {
            tracing::warn!(
                session = id,
                "ended, but its engine has not let go of it yet"
            );
        }
        Ok(Response::new(EndSessionResponse {}))
    }

    async fn list_models(
        &self,
        _: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        let models = self.0.list_models().await?;
        Ok(Response::new(ListModelsResponse { models }))
    }

    async fn load_model(
        &self,
        request: Request<LoadModelRequest>,
    ) -> Result<Response<LoadModelResponse>, Status> {
        self.0.check_open()?;
        let LoadModelRequest { name, reload } = request.into_inner();
        let loaded = match reload {
            true => self.0.models.reload(&name).await,
            false => self.0.models.ensure(&name).await,
        };
        loaded.map_err(Refusal::from)?;
        let models = self.0.list_models().await?;
        let model = models.into_iter().find(|model| model.name == name);
        Ok(Response::new(LoadModelResponse { model }))
    }

    async fn unload_model(
        &self,
        request: Request<UnloadModelRequest>,
    ) -> Result<Response<UnloadModelResponse>, Status> {
        let name = request.into_inner().name;
        self.0.models.unload(&name).await.map_err(Refusal::from)?;
        Ok(Response::new(UnloadModelResponse {}))
    }

    async fn get_capabilities(
        &self,
        _: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<GetCapabilitiesResponse>, Status> {
        let entries = self.0.models.entries().await.map_err(Refusal::from)?;
        Ok(Response::new(self.0.describe(entries)))
    }
}

impl Inner {
    /// Refuses when the worker is shutting down.
    pub(crate) fn check_open(&self) -> Result<(), Refusal> {
        if self.shutdown.is_cancelled() {
            return Err(Refusal::ShuttingDown);
        }
        Ok(())
    }

    async fn list_models(&self) -> Result<Vec<Model>, Refusal> {
        Ok(self.models_of(self.models.entries().await?))
    }

    /// These voices, as clients are told of them.
    pub(crate) fn models_of(&self, entries: Vec<VoiceEntry>) -> Vec<Model> {
        let default = self.config.default_voice.as_deref();
        let voices = self.models.states(entries).into_iter();
        voices.map(|voice| model(voice, default)).collect()
    }
}

pub(crate) fn format() -> AudioFormat {
    AudioFormat {
        sample_rate: SAMPLE_RATE,
        channels: 1,
        frame_samples: FRAME_SAMPLES as u32,
        encoding: "s16le".to_owned(),
    }
}

fn model(voice: VoiceState, default: Option<&str>) -> Model {
    let VoiceState {
        entry,
        resident,
        bytes,
        sessions,
    } = voice;
    Model {
        is_default: default == Some(entry.name.as_str()),
        name: entry.name,
        family: entry.family,
        languages: entry.languages,
        tags: entry.tags,
        resident: resident.is_some(),
        resident_bytes: bytes,
        estimated_bytes: entry.estimated_bytes,
        speakers: resident.map(|voice| voice.speakers).unwrap_or_default(),
        sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
    }
}
