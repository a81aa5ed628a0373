//! The orchestrator's side of the worker ABI: a session on a voice, and utterances spoken with it.

use std::time::Duration;

use duologue_rpc::tts_worker_client::TtsWorkerClient;
use duologue_rpc::{
    AudioFrame, ControlAction, ControlRequest, EndSessionRequest, GetCapabilitiesRequest,
    GetCapabilitiesResponse, ListModelsRequest, LoadModelRequest, Model, StartSessionRequest,
    TextChunk, VoiceSettings, trace_context,
};
use opentelemetry::Context;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tracing::Instrument;

use crate::fleet::Slot;

/// Pieces of text that may wait for the worker, and frames that may wait for the session.
const QUEUE: usize = 64;
/// Longest wait for a worker to answer a call that needs no speech.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Opening a session may load its voice first.
const OPEN_DEADLINE: Duration = Duration::from_secs(120);

/// Why a voice did not speak.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VoiceError {
    /// All slots of the worker are taken.
    #[error("the voice worker is full: {0}")]
    Busy(String),
    /// No worker has room.
    #[error("{why}; try again in {} s", .retry_after.as_secs_f32().ceil())]
    Full {
        /// What was found.
        why: String,
        /// When asking again makes sense.
        retry_after: Duration,
    },
    /// No such voice.
    #[error("{0}")]
    UnknownVoice(String),
    /// The text cannot be spoken.
    #[error("{0}")]
    BadText(String),
    /// The worker has ended the session, or never had it: it was silent for too long, or was started anew.
    #[error("the voice worker has ended the session: {0}")]
    SessionLost(String),
    /// The worker failed or cannot be reached.
    #[error("the voice worker failed: {0}")]
    Worker(String),
}

impl From<tonic::Status> for VoiceError {
    fn from(status: tonic::Status) -> Self {
        let message = why(&status);
        match status.code() {
            Code::ResourceExhausted => Self::Busy(message),
            Code::NotFound => Self::UnknownVoice(message),
            Code::InvalidArgument => Self::BadText(message),
            code => Self::Worker(format!("{message} ({code:?})")),
        }
    }
}

/// What a status says; of a connection that broke, also what broke it, such as a certificate that was not taken.
#[must_use]
pub fn why(status: &tonic::Status) -> String {
    let message = status.message().to_owned();
    match std::error::Error::source(status).map(innermost) {
        Some(cause) if !message.contains(&cause) => format!("{message}: {cause}"),
        _ => message,
    }
}

/// What is at the bottom of an error.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A worker, reached over TCP or in the process.
#[derive(Clone)]
pub struct VoiceClient {
    client: TtsWorkerClient<Channel>,
}

/// How a session wants to be spoken to.
#[derive(Clone, Debug, PartialEq)]
pub struct VoiceChoice {
    /// Voicepack.
    pub voice: String,
    /// Speaker of a voice that has several.
    pub speaker: Option<String>,
    /// Rate of speech, 0.5 to 2.0.
    pub speed: f32,
}

impl VoiceChoice {
    /// Reads a voice's name as clients write it: a voicepack, or `voicepack:speaker`.
    #[must_use]
    pub fn parse(name: &str, speed: f32) -> Self {
        let (voice, speaker) = match name.split_once(':') {
            Some((voice, speaker)) => (voice, Some(speaker.to_owned())),
            None => (name, None),
        };
        Self {
            voice: voice.to_owned(),
            speaker,
            speed,
        }
    }
}

impl VoiceClient {
    /// Speaks to the worker behind `channel`.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self {
            client: TtsWorkerClient::new(channel),
        }
    }

    /// The voices it has.
    ///
    /// # Errors
    /// [`VoiceError::Worker`].
    pub async fn models(&self) -> Result<Vec<Model>, VoiceError> {
        let mut client = self.client.clone();
        let call = client.list_models(ListModelsRequest {});
        Ok(within(CALL_DEADLINE, call).await?.into_inner().models)
    }

    /// What it is, and what room it has.
    ///
    /// # Errors
    /// [`VoiceError::Worker`].
    pub async fn capabilities(&self) -> Result<GetCapabilitiesResponse, VoiceError> {
        let mut client = self.client.clone();
        let call = client.get_capabilities(GetCapabilitiesRequest {});
        Ok(within(CALL_DEADLINE, call).await?.into_inner())
    }

    /// Loads a voice, and is done when it can be spoken with.
    ///
    /// # Errors
    /// [`VoiceError::UnknownVoice`] or [`VoiceError::Worker`].
    pub async fn load(&self, voice: &str) -> Result<(), VoiceError> {
        let mut client = self.client.clone();
        let request = LoadModelRequest {
            name: voice.to_owned(),
            reload: false,
        };
        within(OPEN_DEADLINE, client.load_model(request)).await?;
        Ok(())
    }

    /// Opens a session. `lead` is how far frames may run ahead of real time.
    ///
    /// # Errors
    /// Any [`VoiceError`] but [`VoiceError::BadText`].
    pub async fn open(
        &self,
        session_id: String,
        choice: VoiceChoice,
        lead: Duration,
    ) -> Result<VoiceSession, VoiceError> {
        let mut client = self.client.clone();
        let request = StartSessionRequest {
            session_id: session_id.clone(),
            voice: choice.voice.clone(),
            settings: Some(VoiceSettings {
                speaker: choice.speaker.clone().unwrap_or_default(),
                speed: choice.speed,
                language: String::new(),
            }),
            lead_ms: lead.as_millis() as u32,
        };
        within(OPEN_DEADLINE, client.start_session(request)).await?;
        Ok(VoiceSession {
            client,
            id: session_id,
            wanted: choice.clone(),
            choice,
            worker: String::new(),
            slot: None,
        })
    }
}

/// A session on one voice. Dropping it ends it.
pub struct VoiceSession {
    client: TtsWorkerClient<Channel>,
    id: String,
    choice: VoiceChoice,
    wanted: VoiceChoice,
    worker: String,
    /// Given back once the worker has ended the session.
    slot: Option<Slot>,
}

impl VoiceSession {
    /// Says which worker of a fleet it is on, in which room, and what was wanted of it.
    pub(crate) fn on(mut self, worker: String, slot: Slot, wanted: VoiceChoice) -> Self {
        self.worker = worker;
        self.wanted = wanted;
        self.slot = Some(slot);
        self
    }

    /// The worker that speaks; empty where it is not one of a fleet.
    #[must_use]
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// The voice it was opened with.
    #[must_use]
    pub fn choice(&self) -> &VoiceChoice {
        &self.choice
    }

    /// The voice that was wanted; what it was opened with stands in for it, where that is another.
    #[must_use]
    pub fn wanted(&self) -> &VoiceChoice {
        &self.wanted
    }

    /// Begins an utterance. Text sent is spoken in order; dropping the sender ends the utterance, dropping
    /// the receiver stops it.
    #[must_use]
    pub fn speak(&self, utterance: &str) -> Utterance {
        self.speak_within(utterance, &Context::new())
    }

    /// As [`speak`](Self::speak), with the worker's spans below that of `trace`.
    #[must_use]
    pub fn speak_within(&self, utterance: &str, trace: &Context) -> Utterance {
        let (text, mut pieces) = mpsc::channel::<String>(QUEUE);
        let (to_worker, chunks) = mpsc::channel(QUEUE);
        let (to_session, frames) = mpsc::channel(QUEUE);
        let session_id = self.id.clone();
        let utterance_id = utterance.to_owned();
        tokio::spawn(async move {
            while let Some(text) = pieces.recv().await {
                let chunk = TextChunk {
                    session_id: session_id.clone(),
                    utterance_id: utterance_id.clone(),
                    text,
                };
                if to_worker.send(chunk).await.is_err() {
                    return;
                }
            }
        });
        let mut client = self.client.clone();
        let mut request = Request::new(ReceiverStream::new(chunks));
        trace_context::inject(trace, request.metadata_mut());
        let forwarded = async move {
            let result = forward(&mut client, request, &to_session).await;
            if let Err(error) = result {
                // A closed channel: the session stopped this utterance and wants no news of it.
                let _ = to_session.send(Err(error)).await;
            }
        };
        tokio::spawn(forwarded.in_current_span());
        Utterance { text, frames }
    }

    /// Pauses, resumes or stops what the session says.
    ///
    /// # Errors
    /// [`VoiceError::Worker`].
    pub fn control(
        &self,
        utterance: &str,
        action: ControlAction,
    ) -> impl Future<Output = Result<u64, VoiceError>> + Send + use<> {
        let mut client = self.client.clone();
        let request = ControlRequest {
            session_id: self.id.clone(),
            action: action.into(),
            utterance_id: utterance.to_owned(),
        };
        async move {
            let answer = within(CALL_DEADLINE, client.control(request)).await?;
            Ok(answer.into_inner().samples_sent)
        }
    }
}

impl Drop for VoiceSession {
    fn drop(&mut self) {
        let mut client = self.client.clone();
        let request = EndSessionRequest {
            session_id: std::mem::take(&mut self.id),
        };
        let slot = self.slot.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = within(CALL_DEADLINE, client.end_session(request)).await {
                    tracing::debug!(%error, "the worker did not end a session");
                }
                drop(slot);
            });
        }
    }
}

/// One utterance in the making.
pub struct Utterance {
    /// Where its text goes.
    pub text: mpsc::Sender<String>,
    /// Where its sound comes from; closed after the final frame.
    pub frames: mpsc::Receiver<Result<AudioFrame, VoiceError>>,
}

async fn forward(
    client: &mut TtsWorkerClient<Channel>,
    request: Request<ReceiverStream<TextChunk>>,
    to_session: &mpsc::Sender<Result<AudioFrame, VoiceError>>,
) -> Result<(), VoiceError> {
    // The worker answers once it has the first chunk, so this waits for text as well as for the worker.
    let call = client.synthesize(request);
    let mut stream = tokio::select! {
        answer = call => answer.map_err(of_session)?.into_inner(),
        () = to_session.closed() => return Ok(()),
    };
    loop {
        let frame = tokio::select! {
            frame = stream.message() => frame.map_err(of_session)?,
            () = to_session.closed() => return Ok(()),
        };
        match frame {
            Some(frame) => {
                if to_session.send(Ok(frame)).await.is_err() {
                    return Ok(());
                }
            }
            None => return Ok(()),
        }
    }
}

/// What a status means where only the session can be what is not there.
fn of_session(status: tonic::Status) -> VoiceError {
    match status.code() {
        Code::NotFound | Code::FailedPrecondition => {
            VoiceError::SessionLost(status.message().to_owned())
        }
        _ => status.into(),
    }
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, VoiceError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(VoiceError::Worker(format!(
            "it did not answer within {} s",
            deadline.as_secs()
        ))),
    }
}
