//! A worker with test voices, and clients of it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use duologue_audio::FRAME_SAMPLES;
use duologue_rpc::tts_worker_client::TtsWorkerClient;
use duologue_rpc::{
    AudioFrame, ControlAction, ControlRequest, ControlResponse, EndSessionRequest,
    GetCapabilitiesRequest, StartSessionRequest, StartSessionResponse, TextChunk,
};
use duologue_tts::tone::{Tone, ToneOptions};
use duologue_tts::{FrameStream, Settings, Sound, Speech, StopFlag, Synthesizer, TtsError, Voice};
use duologue_worker::{VoiceEntry, VoiceSource, Worker, WorkerConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

pub type Client = TtsWorkerClient<Channel>;

/// Long enough for anything that is to happen, on a machine that is busy elsewhere.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Voices by name: `tone` is as fast as can be, `slow` takes 1.5 s for a second of sound, `stuck` an hour to
/// its first sound, `crashes` panics, `fails` reports an error, `broken` does not load, `gated` loads when
/// [`TestVoices::open_gate`] is called.
#[derive(Default)]
pub struct TestVoices {
    loads: AtomicUsize,
    begun: Arc<AtomicUsize>,
    gate: Mutex<bool>,
    opened: Condvar,
}

const NAMES: [&str; 7] = [
    "broken", "crashes", "fails", "gated", "slow", "stuck", "tone",
];

impl TestVoices {
    /// Loads begun so far.
    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }

    /// Utterances of troubled voices that an engine thread has begun to compute.
    pub fn begun(&self) -> usize {
        // One was the warm-up, one the check of the session's settings.
        self.begun.load(Ordering::SeqCst).saturating_sub(2)
    }

    pub fn open_gate(&self) {
        *self.gate.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl VoiceSource for TestVoices {
    fn list(&self) -> Result<Vec<VoiceEntry>, TtsError> {
        let entry = |name: &str| VoiceEntry {
            name: name.to_owned(),
            family: "tone".to_owned(),
            languages: vec!["en-US".to_owned()],
            tags: vec!["test".to_owned()],
            estimated_bytes: 10_000_000,
        };
        Ok(NAMES.into_iter().map(entry).collect())
    }

    fn load(&self, name: &str) -> Result<Arc<dyn Synthesizer>, TtsError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let tone = |first_audio, real_time_factor| {
            Tone::new(ToneOptions {
                first_audio,
                real_time_factor,
            })
        };
        let zero = Duration::ZERO;
        let begun = || Arc::clone(&self.begun);
        Ok(match name {
            "slow" => Arc::new(tone(zero, 1.5)?),
            "stuck" => Arc::new(AfterWarmUp::new(
                begun(),
                tone(Duration::from_secs(3_600), 0.0)?,
            )),
            "crashes" => Arc::new(AfterWarmUp::new(
                begun(),
                Faulty {
                    voice: tone(zero, 0.0)?.voice().clone(),
                    panics: true,
                },
            )),
            "fails" => Arc::new(AfterWarmUp::new(
                begun(),
                Faulty {
                    voice: tone(zero, 0.0)?.voice().clone(),
                    panics: false,
                },
            )),
            "broken" => return Err(TtsError::Load("its model file is cut short".to_owned())),
            "gated" => {
                let gate = self.gate.lock().unwrap();
                drop(self.opened.wait_while(gate, |open| !*open).unwrap());
                Arc::new(tone(zero, 0.0)?)
            }
            _ => Arc::new(tone(zero, 0.0)?),
        })
    }
}

/// A voice whose trouble starts with its second utterance, the first being the warm-up.
struct AfterWarmUp<V> {
    warm: Tone,
    voice: V,
    begun: Arc<AtomicUsize>,
    is_warm: AtomicBool,
}

impl<V> AfterWarmUp<V> {
    fn new(begun: Arc<AtomicUsize>, voice: V) -> Self {
        AfterWarmUp {
            warm: Tone::new(ToneOptions::default()).unwrap(),
            voice,
            begun,
            is_warm: AtomicBool::new(false),
        }
    }
}

impl<V: Synthesizer> Synthesizer for AfterWarmUp<V> {
    fn voice(&self) -> &Voice {
        self.voice.voice()
    }
    fn begin(&self, settings: &Settings) -> Result<Box<dyn Speech>, TtsError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if !self.is_warm.swap(true, Ordering::SeqCst) {
            return self.warm.begin(settings);
        }
        self.voice.begin(settings)
    }
}

struct Faulty {
    voice: Voice,
    panics: bool,
}

impl Synthesizer for Faulty {
    fn voice(&self) -> &Voice {
        &self.voice
    }
    fn begin(&self, _: &Settings) -> Result<Box<dyn Speech>, TtsError> {
        let panics = self.panics;
        Ok(Box::new(FaultySpeech { panics }))
    }
}

struct FaultySpeech {
    panics: bool,
}

impl Speech for FaultySpeech {
    fn say(&mut self, _: &str) -> Result<(), TtsError> {
        Ok(())
    }
    fn next(&mut self, _: &StopFlag) -> Result<Option<Sound>, TtsError> {
        assert!(!self.panics, "the model's shape is wrong");
        Err(TtsError::Engine("not a number".to_owned()))
    }
}

pub fn config() -> WorkerConfig {
    WorkerConfig {
        default_voice: Some("tone".to_owned()),
        engine_threads: 2,
        ..WorkerConfig::default()
    }
}

pub async fn start(config: WorkerConfig) -> Worker {
    start_with(config).await.0
}

pub async fn start_with(config: WorkerConfig) -> (Worker, Arc<TestVoices>) {
    let voices = Arc::new(TestVoices::default());
    let worker = Worker::start_with(config, voices.clone()).await.unwrap();
    (worker, voices)
}

/// A client within the process.
pub fn connect(worker: &Worker) -> Client {
    TtsWorkerClient::new(worker.channel())
}

/// A client over TCP; the connection is made at its first call.
pub async fn connect_tcp(worker: &Worker) -> (Client, Server) {
    let server = serve(worker).await;
    let channel = Endpoint::from_shared(server.url.clone())
        .unwrap()
        .connect_lazy();
    (TtsWorkerClient::new(channel), server)
}

pub struct Server {
    pub url: String,
    pub shutdown: CancellationToken,
    pub task: tokio::task::JoinHandle<Result<(), duologue_worker::WorkerError>>,
}

pub async fn serve(worker: &Worker) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn({
        let (worker, shutdown) = (worker.clone(), shutdown.clone());
        async move { worker.serve(listener, None, shutdown).await }
    });
    Server {
        url,
        shutdown,
        task,
    }
}

pub async fn open_session(
    client: &Client,
    id: &str,
    voice: &str,
) -> Result<StartSessionResponse, Status> {
    open_session_with_lead(client, id, voice, 0).await
}

pub async fn open_session_with_lead(
    client: &Client,
    id: &str,
    voice: &str,
    lead_ms: u32,
) -> Result<StartSessionResponse, Status> {
    let request = StartSessionRequest {
        session_id: id.to_owned(),
        voice: voice.to_owned(),
        settings: None,
        lead_ms,
    };
    let response = client.clone().start_session(request).await?;
    Ok(response.into_inner())
}

pub async fn end_session(client: &Client, id: &str) -> Result<(), Status> {
    let session_id = id.to_owned();
    client
        .clone()
        .end_session(EndSessionRequest { session_id })
        .await
        .map(drop)
}

pub async fn control(
    client: &Client,
    session: &str,
    action: ControlAction,
) -> Result<ControlResponse, Status> {
    let request = ControlRequest {
        session_id: session.to_owned(),
        action: action.into(),
        utterance_id: String::new(),
    };
    Ok(client.clone().control(request).await?.into_inner())
}

pub async fn free_sessions(client: &Client) -> u32 {
    let request = GetCapabilitiesRequest {};
    let response = client.clone().get_capabilities(request).await;
    response.unwrap().into_inner().free_sessions
}

/// Waits for something that must come to be, by looking again and again.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "it never came to be that {what}");
}

/// An utterance that is written to and read from.
pub struct Utterance {
    pub text: Option<mpsc::Sender<TextChunk>>,
    pub frames: Streaming<AudioFrame>,
}

impl Utterance {
    /// Opens a stream without a first chunk.
    pub async fn silent(client: &Client) -> Utterance {
        let (text, chunks) = mpsc::channel(1_000);
        let frames = client
            .clone()
            .synthesize(ReceiverStream::new(chunks))
            .await
            .unwrap();
        Utterance {
            text: Some(text),
            frames: frames.into_inner(),
        }
    }

    /// Begins to say `text`; more may follow.
    pub async fn begin(client: &Client, session: &str, id: &str, text: &str) -> Utterance {
        let utterance = Utterance::silent(client).await;
        utterance.send(session, id, text).await;
        utterance
    }

    pub async fn send(&self, session: &str, id: &str, text: &str) {
        let chunk = TextChunk {
            session_id: session.to_owned(),
            utterance_id: id.to_owned(),
            text: text.to_owned(),
        };
        self.text.as_ref().unwrap().send(chunk).await.unwrap();
    }

    /// Says that no more text comes.
    pub fn finish(&mut self) {
        self.text = None;
    }

    pub async fn next(&mut self) -> Result<Option<AudioFrame>, Status> {
        tokio::time::timeout(PATIENCE, self.frames.message())
            .await
            .expect("a frame or the end of the stream")
    }

    pub async fn next_frame(&mut self) -> AudioFrame {
        self.next().await.unwrap().expect("a frame")
    }

    pub async fn rest(&mut self) -> Result<Vec<AudioFrame>, Status> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await? {
            frames.push(frame);
        }
        Ok(frames)
    }
}

/// Says one text and gives all its frames.
pub async fn say(client: &Client, session: &str, text: &str) -> Result<Vec<AudioFrame>, Status> {
    let mut utterance = Utterance::begin(client, session, "u", text).await;
    utterance.finish();
    utterance.rest().await
}

/// What `tone` gives for `text` without a worker around it.
pub fn tone_pcm(text: &str) -> Vec<i16> {
    let tone = Tone::new(ToneOptions::default()).unwrap();
    let speech = tone.begin(&Settings::default()).unwrap();
    let mut frames = FrameStream::new(speech, tone.voice().sample_rate).unwrap();
    frames.say(text).unwrap();
    frames.finish();
    let mut pcm = Vec::new();
    while let Some(frame) = frames.next(&StopFlag::default()).unwrap() {
        pcm.extend(frame.frame.0);
    }
    pcm
}

pub fn pcm(frames: &[AudioFrame]) -> Vec<i16> {
    let bytes = frames.iter().flat_map(|frame| frame.pcm.to_vec());
    let bytes: Vec<u8> = bytes.collect();
    let samples = bytes.chunks_exact(2);
    samples.map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
}

/// Checks that an utterance of one text is whole: framing, order, the end, and every sample of it. The worker
/// may learn that the text is over only after it was spoken, which costs one frame of silence.
pub fn assert_whole(frames: &[AudioFrame], text: &str) {
    for (n, frame) in frames.iter().enumerate() {
        assert_eq!(frame.sequence, n as u64);
        assert_eq!(frame.pcm.len(), FRAME_SAMPLES * 2);
        assert_eq!(frame.r#final, n + 1 == frames.len(), "frame {n}");
    }
    let (said, expected) = (pcm(frames), tone_pcm(text));
    assert!(
        said.len() >= expected.len(),
        "{} < {}",
        said.len(),
        expected.len()
    );
    let (sound, after) = said.split_at(expected.len());
    assert!(sound == expected, "the samples differ");
    assert!(after.len() <= FRAME_SAMPLES && after.iter().all(|s| *s == 0));
}
