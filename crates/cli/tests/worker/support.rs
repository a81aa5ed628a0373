//! The program as a worker, in a process of its own, and a client of it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use duologue_rpc::tts_worker_client::TtsWorkerClient;
use duologue_rpc::{
    AudioFrame, EndSessionRequest, GetCapabilitiesRequest, GetCapabilitiesResponse,
    ListModelsRequest, LoadModelRequest, Model, StartSessionRequest, TextChunk, UnloadModelRequest,
};
use futures_util::stream;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Long enough for anything that is to happen, on a machine that is busy elsewhere.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub type Client = TtsWorkerClient<Channel>;

/// A worker that runs; killed when dropped.
pub struct Process {
    pub child: Child,
    pub url: String,
}

/// The program with the arguments that all these workers have.
pub fn command(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duologue"));
    command
        .args(["--log", "error", "worker", "--listen", "127.0.0.1:0"])
        .args(["--default-voice", "tone"])
        .args(options)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Process {
    pub async fn start(options: &[&str]) -> Process {
        let mut child = command(options).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap();
        let line = line.expect("the worker stopped before it was ready");
        let (_, url) = line.split_once(" at ").expect(&line);
        Process {
            child,
            url: url.to_owned(),
        }
    }

    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        signal(self.child.id().unwrap(), name);
    }

    /// The exit status, when it has ended by itself.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.expect("the worker does not end").unwrap()
    }
}

pub fn signal(process: u32, name: &str) {
    let sent = std::process::Command::new("kill")
        .args(["-s", name, &process.to_string()])
        .status();
    assert!(sent.unwrap().success(), "kill -s {name} {process}");
}

pub async fn connect(url: &str) -> Client {
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
    TtsWorkerClient::new(endpoint.connect().await.unwrap())
}

pub async fn open(client: &Client, session: &str, voice: &str) -> Result<(), Status> {
    let request = StartSessionRequest {
        session_id: session.to_owned(),
        voice: voice.to_owned(),
        settings: None,
        lead_ms: 200,
    };
    client.clone().start_session(request).await.map(drop)
}

pub async fn end(client: &Client, session: &str) -> Result<(), Status> {
    let session_id = session.to_owned();
    let request = EndSessionRequest { session_id };
    client.clone().end_session(request).await.map(drop)
}

pub async fn load(client: &Client, name: &str) -> Result<(), Status> {
    let request = LoadModelRequest {
        name: name.to_owned(),
        reload: false,
    };
    client.clone().load_model(request).await.map(drop)
}

pub async fn unload(client: &Client, name: &str) -> Result<(), Status> {
    let name = name.to_owned();
    let request = UnloadModelRequest { name };
    client.clone().unload_model(request).await.map(drop)
}

pub async fn models(client: &Client) -> Vec<Model> {
    let response = client.clone().list_models(ListModelsRequest {}).await;
    response.unwrap().into_inner().models
}

pub async fn capabilities(client: &Client) -> GetCapabilitiesResponse {
    let request = GetCapabilitiesRequest {};
    let response = client.clone().get_capabilities(request).await;
    response.unwrap().into_inner()
}

/// Begins to say a text, of which no more comes.
pub async fn say(client: &Client, session: &str, text: &str) -> Streaming<AudioFrame> {
    let chunk = TextChunk {
        session_id: session.to_owned(),
        utterance_id: "u".to_owned(),
        text: text.to_owned(),
    };
    let chunks = stream::iter([chunk]);
    client
        .clone()
        .synthesize(chunks)
        .await
        .unwrap()
        .into_inner()
}

/// All frames to come; they must end with the final one.
pub async fn rest(mut frames: Streaming<AudioFrame>) -> usize {
    let mut n = 0;
    let mut last = false;
    loop {
        let frame = tokio::time::timeout(PATIENCE, frames.message()).await;
        match frame.expect("no frame comes").unwrap() {
            Some(frame) => (n, last) = (n + 1, frame.r#final),
            None => break,
        }
    }
    assert!(last, "the utterance was cut off after {n} frames");
    n
}

/// Waits for something that must come to be, by looking again and again.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "it never came to be that {what}");
}

/// A voicepack of the test voice that looks as large as it is told.
pub fn voicepack(store: &Path, name: &str, bytes: usize) {
    let folder = store.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("weights"), vec![0u8; bytes]).unwrap();
    let metadata = "kind: tts\nfamily: tone\nlanguages: [en-US]\ntags: [cpu_ok]\nlicense: MIT\n";
    std::fs::write(folder.join("metadata.yaml"), metadata).unwrap();
}
