//! What the program tells of itself while people talk to it: its log, and traces at a collector.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use duologue_audio::decode::decode_file;
use futures_util::{SinkExt, StreamExt};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use support::Server;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tonic::{Request, Response, Status};

/// What the model answers; a word of it is nowhere else.
const ANSWER: &str = "Marmalade is made of oranges.";
/// What is typed.
const TYPED: &str = "What is a persimmon?";
/// What is spoken: "This conference is now being recorded."
const SPOKEN: &str = "asterisk-conf-now-recording.flac";

const PATIENCE: Duration = Duration::from_secs(60);

/// A clip as PCM, and two seconds of silence after it.
fn speech(name: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/speech")
        .join(name);
    let recording = decode_file(&file).unwrap().at_rate(24_000).unwrap();
    let samples = recording.samples.iter().copied();
    samples
        .chain(std::iter::repeat_n(0.0, 48_000))
        .flat_map(|sample: f32| ((sample * 32_767.0) as i16).to_le_bytes())
        .collect()
}

/// Says one thing and types another, and gives the sound that went and came, in the form in which it did.
async fn converse(url: &str) -> (Vec<String>, Vec<String>) {
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let mut sent = Vec::new();
    for piece in speech(SPOKEN).chunks(4_800) {
        let audio = BASE64_STANDARD.encode(piece);
        let event = json!({"type": "input_audio_buffer.append", "audio": audio});
        socket.send(Message::text(event.to_string())).await.unwrap();
        sent.push(audio);
    }
    let mut came = until_done(&mut socket).await;
    let content = json!([{"type": "input_text", "text": TYPED}]);
    let item = json!({"type": "message", "role": "user", "content": content});
    for event in [
        json!({"type": "conversation.item.create", "item": item}),
        json!({"type": "response.create"}),
    ] {
        socket.send(Message::text(event.to_string())).await.unwrap();
    }
    came.extend(until_done(&mut socket).await);
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    (sent, came)
}

/// The sound of a reply.
async fn until_done<S>(socket: &mut S) -> Vec<String>
where
    S: futures_util::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    let mut sound = Vec::new();
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await;
        let message = message.expect("no reply comes").unwrap().unwrap();
        let Message::Text(text) = message else {
            continue;
        };
        let event: Value = serde_json::from_str(&text).unwrap();
        match event["type"].as_str().unwrap() {
            "error" => panic!("{event}"),
            "response.output_audio.delta" => {
                sound.push(event["delta"].as_str().unwrap().to_owned());
            }
            "response.done" => {
                assert_eq!(event["response"]["status"], "completed", "{event}");
                return sound;
            }
            _ => {}
        }
    }
}

async fn ended(process: &mut Child) {
    let ended = tokio::time::timeout(PATIENCE, process.wait()).await;
    ended.expect("it does not end").unwrap();
}

// ---- logs ----

/// The log of a server that was talked to, and the sound that it heard and made.
async fn logged(options: &[&str]) -> (String, Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("log");
    let log = File::create(&path).unwrap();
    let mut flags = vec!["--log", "trace", "--log-format", "json"];
    flags.extend(options);
    let mut server = Server::started(
        &flags,
        |command| {
            command.stderr(Stdio::from(log));
        },
        &[],
        Duration::ZERO,
        |_| ANSWER.to_owned(),
    )
    .await;
    let (sent, came) = converse(&server.url()).await;
    server.terminate();
    ended(&mut server.process).await;
    (std::fs::read_to_string(&path).unwrap(), sent, came)
}

/// Fields of the spans that a line is in.
fn fields(line: &Value) -> BTreeMap<String, Value> {
    let spans = line["spans"].as_array().into_iter().flatten();
    spans
        .flat_map(|span| span.as_object().unwrap().clone())
        .collect()
}

#[tokio::test]
async fn the_fullest_log_knows_its_session_turn_and_utterance_and_nothing_that_was_said() {
    let (log, sent, came) = logged(&[]).await;
    let lower = log.to_lowercase();
    for said in [
        "conference",
        "recorded",
        "persimmon",
        "marmalade",
        "oranges",
    ] {
        let line = lower.lines().find(|line| line.contains(said));
        assert_eq!(line, None, "{said:?} is in the log");
    }
    // Silence is the same everywhere; a loud piece is not.
    for pieces in [&sent, &came] {
        let mut parts = pieces.iter().filter_map(|piece| piece.get(100..160));
        let loud = parts.find(|part| !part.contains("AAAA"));
        let loud = loud.expect("there was sound");
        assert!(!log.contains(loud), "sound is in the log");
    }
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let line = |message: &str| {
        let found = lines
            .iter()
            .find(|line| line["fields"]["message"] == message);
        fields(found.unwrap_or_else(|| panic!("no line {message:?} in {log}")))
    };
    let began = line("session begins");
    let answered = line("first sound of a reply");
    let spoke = line("spoken");
    assert!(began["session"].as_str().unwrap().len() >= 12);
    assert_eq!(answered["session"], began["session"]);
    assert!(answered["turn"].is_u64(), "{answered:?}");
    assert!(
        answered["utterance"]
            .as_str()
            .unwrap()
            .starts_with("reply-")
    );
    // The worker's lines are found by the same names.
    assert_eq!(spoke["session"], began["session"]);
    assert_eq!(spoke["utterance"], answered["utterance"]);
}

#[tokio::test]
async fn a_log_that_is_asked_for_it_has_what_was_said() {
    let (log, ..) = logged(&["--log-content"]).await;
    for said in ["conference", "Marmalade"] {
        assert!(log.contains(said), "{said:?} is not in the log");
    }
}

// ---- traces ----

/// A span, and the service that told it.
type Told = (String, Span);

/// A collector of ours.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Told>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let attributes = of_resource.resource.unwrap().attributes;
            let service = attributes.iter().find(|pair| pair.key == "service.name");
            let service = service.and_then(|pair| pair.value.clone()?.value);
            let Some(AnyValue::StringValue(service)) = service else {
                panic!("a resource without a name: {attributes:?}");
            };
            let spans = of_resource.scope_spans.into_iter().flat_map(|of| of.spans);
            let told = spans.map(|span| (service.clone(), span));
            self.0.lock().unwrap().extend(told);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// One that listens, and its address.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(collector.clone());
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let serving = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(serving.serve_with_incoming(incoming));
        (collector, url)
    }

    /// What it has been told, by trace.
    fn traces(&self) -> BTreeMap<Vec<u8>, Vec<Told>> {
        let mut traces = BTreeMap::<_, Vec<Told>>::new();
        for told in self.0.lock().unwrap().iter() {
            traces
                .entry(told.1.trace_id.clone())
                .or_default()
                .push(told.clone());
        }
        traces
    }
}

/// A conversation with a server and a worker in processes of their own, both of which tell the collector.
async fn traced(options: &[&str]) -> Collector {
    let (collector, url) = Collector::start().await;
    let mut worker = Command::new(env!("CARGO_BIN_EXE_duologue"))
        .args(["--log", "warn", "worker", "--listen", "127.0.0.1:0"])
        .args(["--default-voice", "tone", "--otlp-endpoint", &url])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    let line = lines
        .next_line()
        .await
        .unwrap()
        .expect("the worker stopped");
    let (_, address) = line.split_once(" at ").expect(&line);
    let mut all = vec!["--worker", address];
    all.extend(options);
    let mut server = Server::started(
        &["--log", "warn"],
        // The specification's variable, where the worker has the flag.
        |command| {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &url);
        },
        &all,
        Duration::ZERO,
        |_| ANSWER.to_owned(),
    )
    .await;
    converse(&server.url()).await;
    // Who ends tells what is left.
    server.terminate();
    ended(&mut server.process).await;
    let id = worker.id().unwrap().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-TERM", &id])
        .status();
    assert!(killed.unwrap().success());
    ended(&mut worker).await;
    collector
}

/// Edges of a trace, parent before child, with the service of the child.
fn edges(trace: &[Told]) -> BTreeSet<(String, String, String)> {
    let name = |id: &[u8]| {
        let parent = trace.iter().find(|(_, span)| span.span_id == id);
        parent.map_or_else(String::new, |(_, span)| span.name.clone())
    };
    trace
        .iter()
        .map(|(service, span)| {
            (
                name(&span.parent_span_id),
                span.name.clone(),
                service.clone(),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_turn_is_one_trace_across_server_and_worker() {
    let collector = traced(&[]).await;
    let traces = collector.traces();
    let mut turns: Vec<&Vec<Told>> = traces
        .values()
        .filter(|trace| trace.iter().any(|(_, span)| span.name == "turn"))
        .collect();
    assert_eq!(turns.len(), 2, "one was spoken, one typed: {traces:#?}");
    turns.sort_by_key(|trace| {
        trace
            .iter()
            .map(|(_, span)| span.start_time_unix_nano)
            .min()
    });
    let tree = [
        ("", "turn", "duologue"),
        ("turn", "end_of_turn", "duologue"),
        ("turn", "transcribe", "duologue"),
        ("turn", "think", "duologue"),
        ("think", "think.first_token", "duologue"),
        ("turn", "speak", "duologue"),
        ("speak", "speak.first_audio", "duologue"),
        ("speak", "synthesize", "duologue-worker"),
        ("synthesize", "synthesize.first_audio", "duologue-worker"),
        ("turn", "send.first_frame", "duologue"),
        ("turn", "play", "duologue"),
    ];
    let tree = |left_out: &str| -> BTreeSet<(String, String, String)> {
        let kept = tree.iter().filter(|(_, name, _)| *name != left_out);
        kept.map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned()))
            .collect()
    };
    assert_eq!(edges(turns[0]), tree(""));
    // Nothing was heard before what was typed.
    assert_eq!(edges(turns[1]), tree("transcribe"));
    for turn in turns {
        assert_eq!(edges(turn).len(), turn.len(), "a step is there twice");
        let span = |name: &str| turn.iter().find(|(_, span)| span.name == name);
        let root = &span("turn").unwrap().1;
        let mut ends = Vec::new();
        for name in [
            "end_of_turn",
            "speak.first_audio",
            "send.first_frame",
            "turn",
        ] {
            let span = &span(name).unwrap().1;
            assert!(
                span.start_time_unix_nano >= root.start_time_unix_nano,
                "{name}"
            );
            assert!(
                span.end_time_unix_nano >= span.start_time_unix_nano,
                "{name}"
            );
            ends.push(span.end_time_unix_nano);
        }
        assert!(
            ends.is_sorted(),
            "steps end in the order of the turn: {ends:?}"
        );
        let text = format!("{turn:?}").to_lowercase();
        for said in ["conference", "persimmon", "marmalade"] {
            assert!(!text.contains(said), "{said:?} is in a trace");
        }
    }
}

#[tokio::test]
async fn of_no_turn_there_is_a_trace_where_the_share_is_nothing() {
    let collector = traced(&["--trace-ratio", "0"]).await;
    let traces = collector.traces();
    assert!(
        traces
            .values()
            .flatten()
            .all(|(service, span)| service == "duologue-worker" && span.name != "turn"),
        "{traces:#?}"
    );
    assert!(
        traces.is_empty(),
        "the worker does as the server: {traces:#?}"
    );
}

// ---- who operates the server ----

fn curl(url: &str, further: &[&str]) -> String {
    let mut command = std::process::Command::new("curl");
    let answer = command.args(["-s", "-m", "60", url]).args(further).output();
    String::from_utf8(answer.expect("curl is needed").stdout).unwrap()
}

/// What is recorded there for 15 s from now on. `url` wants its seconds.
async fn recorded(url: &str) -> JoinHandle<String> {
    let busy = |answer: &str| answer.contains("being recorded already");
    let whole = format!("{url}15");
    let recording = tokio::task::spawn_blocking(move || {
        let mut answers = std::iter::repeat_with(|| curl(&whole, &[]));
        answers.find(|answer| !busy(answer)).unwrap_or_default()
    });
    // It records once another is refused for it.
    while !busy(&curl(&format!("{url}0.1"), &[])) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    recording
}

#[tokio::test]
async fn who_operates_a_server_sees_its_sessions_and_what_its_threads_did() {
    // Free now, and nobody else is given it within a moment.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = free.local_addr().unwrap().to_string();
    drop(free);
    let server = Server::start(&["--admin-listen", &admin], Duration::ZERO, |_| {
        ANSWER.to_owned()
    })
    .await;
    let (mut socket, _) = tokio_tungstenite::connect_async(server.url())
        .await
        .unwrap();
    let admin = format!("http://{admin}");
    let timeline = recorded(&format!("{admin}/debug/timeline?seconds=")).await;
    let profile = recorded(&format!("{admin}/debug/profile?format=folded&seconds=")).await;
    for piece in speech(SPOKEN).chunks(4_800) {
        let audio = BASE64_STANDARD.encode(piece);
        let event = json!({"type": "input_audio_buffer.append", "audio": audio});
        socket.send(Message::text(event.to_string())).await.unwrap();
    }
    until_done(&mut socket).await;
    let status: Value = serde_json::from_str(&curl(&format!("{admin}/status"), &[])).unwrap();
    let session = &status["sessions"][0];
    assert_eq!(session["transport"], "websocket", "{status}");
    assert_eq!(session["turns"], 1, "{status}");
    assert!(
        session["received_bytes"].as_u64().unwrap() > 100_000,
        "{status}"
    );
    assert!(session["voice_to_voice_ms"].is_number(), "{status}");
    assert_eq!(status["workers"][0]["name"], "in-process", "{status}");
    let top = Command::new(env!("CARGO_BIN_EXE_duologue"))
        .args(["top", &admin])
        .output()
        .await
        .unwrap();
    let top = String::from_utf8(top.stdout).unwrap();
    for part in [
        "voice to voice",
        session["id"].as_str().unwrap(),
        "in-process",
    ] {
        assert!(top.contains(part), "{part:?} is not in:\n{top}");
    }
    // A page that somebody else's name leads to is not let in.
    let refused = curl(
        &format!("{admin}/status"),
        &["-H", "Host: elsewhere.example"],
    );
    assert!(!refused.contains("sessions"), "{refused}");
    let timeline: Value = serde_json::from_str(&timeline.await.unwrap()).unwrap();
    let names: BTreeSet<&str> = timeline["traceEvents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["ph"] == "X")
        .filter_map(|event| event["name"].as_str())
        .collect();
    for name in ["listen", "transcribe", "synthesize", "end_of_turn", "sent"] {
        assert!(names.contains(name), "{name} is not in {names:?}");
    }
    let profile = profile.await.unwrap();
    for part in ["[mind-", "duologue_asr::whisper"] {
        assert!(profile.contains(part), "{part} is not in:\n{profile}");
    }
}
