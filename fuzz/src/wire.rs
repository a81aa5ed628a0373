//! What comes over the network from other programs.

use std::sync::LazyLock;
use std::time::Duration;

use duologue_livekit::fuzzing as livekit;
use duologue_rpc::tts_worker_client::TtsWorkerClient;
use duologue_rpc::{
    ControlRequest, EndSessionRequest, LoadModelRequest, StartSessionRequest, TextChunk,
    UnloadModelRequest,
};
use duologue_voicepack::VoicepackStore;
use duologue_worker::{Worker, WorkerConfig};
use prost::Message as _;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::pieces::pieces;

/// A datagram.
pub fn datagram(data: &[u8]) {
    duologue_rtc::fuzzing::datagram(data);
}

/// Messages; the first byte of each says where it comes from.
pub fn livekit_message(data: &[u8]) {
    let mut packets = Vec::new();
    for piece in pieces(data) {
        let Some((from, message)) = piece.split_first() else {
            continue;
        };
        let text = || String::from_utf8_lossy(message).into_owned();
        match from % 6 {
            0 | 1 => packets.push(message),
            2 => livekit::signal(message),
            3 => livekit::job(message),
            4 => livekit::description(&text()),
            _ => livekit::answer(&text()),
        }
    }
    livekit::data_packets(&packets);
}

/// Frames that are taken of an utterance before it is given up: more come no quicker than they are heard.
const MOST_FRAMES: usize = 40;
/// A call that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls, one after the other: which, and its message. The texts of an utterance are those up to the next other call.
pub fn worker_calls(data: &[u8]) {
    static WORKER: LazyLock<Option<(Runtime, TtsWorkerClient<Channel>)>> = LazyLock::new(|| {
        let runtime = Runtime::new().ok()?;
        let config = WorkerConfig {
            default_voice: Some("tone".into()),
            ..WorkerConfig::default()
        };
        // No voice but the one that needs no files.
        let store = VoicepackStore::open("/nonexistent");
        let worker = runtime.block_on(Worker::start(config, store)).ok()?;
        let channel = runtime.block_on(async { worker.channel() });
        Some((runtime, TtsWorkerClient::new(channel)))
    });
    let Some((runtime, client)) = &*WORKER else {
        panic!("no worker could be started");
    };
    runtime.block_on(async {
        let called = tokio::time::timeout(PATIENCE, calls(client.clone(), data)).await;
        assert!(called.is_ok(), "a call hangs");
    });
}

async fn calls(mut client: TtsWorkerClient<Channel>, data: &[u8]) {
    let mut opened = Vec::new();
    let mut texts = Vec::new();
    for piece in pieces(data).take(32).chain([&[0][..]]) {
        let Some((which, message)) = piece.split_first() else {
            continue;
        };
        // A stranger knows how to write protobuf, so what does not decode is left out; rpc's own tests have it.
        if which % 6 == 1 {
            texts.extend(TextChunk::decode(message));
            continue;
        }
        if !texts.is_empty() {
            say(&mut client, std::mem::take(&mut texts)).await;
        }
        match which % 6 {
            2 => {
                if let Ok(request) = ControlRequest::decode(message) {
                    let _ = client.control(request).await;
                }
            }
            3 => {
                if let Ok(request) = EndSessionRequest::decode(message) {
                    let _ = client.end_session(request).await;
                }
            }
            4 => {
                if let Ok(request) = LoadModelRequest::decode(message) {
                    let _ = client.load_model(request).await;
                }
            }
            5 => {
                if let Ok(request) = UnloadModelRequest::decode(message) {
                    let _ = client.unload_model(request).await;
                }
            }
            _ => {
                if let Ok(request) = StartSessionRequest::decode(message) {
                    let id = request.session_id.clone();
                    if client.start_session(request).await.is_ok() {
                        opened.push(id);
                    }
                }
            }
        }
    }
    for session_id in opened {
        let ended = client.end_session(EndSessionRequest { session_id }).await;
        assert!(ended.is_ok(), "a session cannot be ended: {ended:?}");
    }
}

async fn say(client: &mut TtsWorkerClient<Channel>, texts: Vec<TextChunk>) {
    let stream = tokio_stream::iter(texts);
    let Ok(frames) = client.synthesize(stream).await else {
        return;
    };
    let mut frames = frames.into_inner();
    let mut next = 0;
    while let Ok(Some(frame)) = frames.message().await {
        assert_eq!((frame.sequence, frame.pcm.len()), (next, 1_920));
        next += 1;
        if next as usize >= MOST_FRAMES {
            return;
        }
    }
}
