//! Two hosts, as network namespaces with addresses of their own: three workers, a registry and two orchestrators, and
//! a cable that is pulled.
//!
//! It needs to be root on Linux, with `ip` and `curl`; elsewhere it says so and tests nothing.
#![cfg(target_os = "linux")]

use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::post;
use duologue_registry::{RedisRegistry, Registry};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;

use crate::support::*;

const ANSWER: &str = "That is so.";

/// A bridge with an address for the test itself, and hosts on it.
struct Network {
    name: String,
    subnet: String,
}

fn ip(arguments: &str) -> bool {
    let status = std::process::Command::new("ip")
        .args(arguments.split_whitespace())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

impl Network {
    /// `None` where that is not permitted.
    fn new() -> Option<Network> {
        let process = std::process::id();
        let network = Network {
            name: format!("dl{}", process % 100_000),
            subnet: format!("10.213.{}", process % 250),
        };
        let Network { name, subnet } = &network;
        let made = ip(&format!("link add {name} type bridge"))
            && ip(&format!("addr add {subnet}.1/24 dev {name}"))
            && ip(&format!("link set {name} up"))
            && network.add_host("a", 2)
            && network.add_host("b", 3);
        made.then_some(network)
    }

    fn add_host(&self, host: &str, number: u8) -> bool {
        let Network { name, subnet } = self;
        let host = format!("{name}{host}");
        ip(&format!("netns add {host}"))
            && ip(&format!("link add {host}0 type veth peer name {host}1"))
            && ip(&format!("link set {host}0 master {name} up"))
            && ip(&format!("link set {host}1 netns {host}"))
            && ip(&format!(
                "-n {host} addr add {subnet}.{number}/24 dev {host}1"
            ))
            && ip(&format!("-n {host} link set {host}1 up"))
            && ip(&format!("-n {host} link set lo up"))
    }

    /// Pulls the cable of a host, or plugs it in.
    fn cable(&self, host: &str, state: &str) {
        assert!(ip(&format!("link set {}{host}0 {state}", self.name)));
    }

    fn address(&self, number: u8) -> String {
        format!("{}.{number}", self.subnet)
    }

    /// Runs a program on a host, until it is dropped.
    fn run(&self, host: &str, program: &str, arguments: &[&str]) -> Child {
        // `ip` becomes the program.
        Command::new("ip")
            .args(["netns", "exec", &format!("{}{host}", self.name), program])
            .args(arguments)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in ["a", "b"] {
            ip(&format!("netns del {}{host}", self.name));
            ip(&format!("link del {}{host}0", self.name));
        }
        ip(&format!("link del {}", self.name));
    }
}

/// A language model that always answers the same, for both orchestrators.
async fn model(address: &str) -> String {
    let model = Router::new().route(
        "/v1/chat/completions",
        post(|| async {
            let delta = json!({"choices": [{"index": 0, "delta": {"content": ANSWER}}]});
            let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
            (
                [(header::CONTENT_TYPE, "text/event-stream")],
                format!("data: {delta}\n\ndata: {end}\n\ndata: [DONE]\n\n"),
            )
        }),
    );
    let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, model).await });
    url
}

type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// Says something in a conversation, and gives what was answered and how much sound came of it.
async fn converse(socket: &mut Socket) -> (String, usize) {
    let content = json!([{"type": "input_text", "text": "Is it so?"}]);
    let item = json!({"type": "message", "role": "user", "content": content});
    for event in [
        json!({"type": "conversation.item.create", "item": item}),
        json!({"type": "response.create"}),
    ] {
        socket.send(Message::text(event.to_string())).await.unwrap();
    }
    let (mut said, mut sound) = (String::new(), 0);
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await;
        let message = message.expect("the server says nothing").unwrap().unwrap();
        let Message::Text(text) = message else {
            continue;
        };
        let event: Value = serde_json::from_str(&text).unwrap();
        match event["type"].as_str().unwrap() {
            "response.output_audio.delta" => sound += event["delta"].as_str().unwrap().len(),
            "response.output_audio_transcript.done" => {
                event["transcript"].as_str().unwrap().clone_into(&mut said);
            }
            "response.done" => return (said, sound),
            _ => {}
        }
    }
}

async fn session(address: &str) -> Socket {
    let url = format!("ws://{address}:8080/v1/realtime");
    tokio_tungstenite::connect_async(url).await.unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_lose_each_other_go_on_with_what_they_have_and_find_each_other_again() {
    let Some(network) = Network::new() else {
        eprintln!("skipped: network namespaces are for root on Linux, with `ip`");
        return;
    };
    let (a, b) = (network.address(2), network.address(3));
    let url = format!("redis://{a}:6379");
    let options = [
        "--port",
        "6379",
        "--bind",
        &a,
        "--protected-mode",
        "no",
        "--save",
        "",
    ];
    let _redis = network.run("a", "redis-server", &options);
    let program = env!("CARGO_BIN_EXE_duologue");
    let worker = |host: &str, address: &str, port: &str, name: &str| {
        let listen = format!("{address}:{port}");
        let options = [
            "--log",
            "warn",
            "worker",
            "--listen",
            &listen,
            "--name",
            name,
            "--registry",
            &url,
            "--lease",
            "2",
            "--default-voice",
            "tone",
        ];
        network.run(host, program, &options)
    };
    let on_a = [
        worker("a", &a, "50051", "a-1"),
        worker("a", &a, "50052", "a-2"),
    ];
    let _on_b = worker("b", &b, "50051", "b-1");
    let llm = model(&network.address(1)).await;
    let serve = |host: &str, address: &str| {
        let listen = format!("{address}:8080");
        let options = [
            "--log",
            "warn",
            "serve",
            "--listen",
            &listen,
            "--registry",
            &url,
            "--voice",
            "tone",
            "--vad",
            "light:2",
            "--no-end-of-turn",
            "--asr",
            "whisper-tiny.en",
            "--no-webrtc",
            "--allow-anyone",
            "--llm-model",
            "answers",
            "--llm-url",
            &llm,
        ];
        network.run(host, program, &options)
    };
    let _servers = [serve("a", &a), serve("b", &b)];
    let registry = RedisRegistry::open(&url).unwrap();
    let known = || {
        let snapshot = registry.watch().borrow().clone();
        let names = snapshot
            .workers
            .iter()
            .map(|worker| worker.record.name.clone());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    eventually("all workers are announced", || async {
        known() == ["a-1", "a-2", "b-1"]
    })
    .await;
    for address in [&a, &b] {
        eventually("the orchestrators are ready", || async {
            tokio::net::TcpStream::connect((address.as_str(), 8080))
                .await
                .is_ok()
        })
        .await;
    }
    let mut on_host_a = session(&a).await;
    for socket in [&mut on_host_a, &mut session(&b).await] {
        let (said, sound) = converse(socket).await;
        assert!(said == ANSWER && sound > 10_000, "{said:?}, {sound}");
    }

    // `a` has the registry and two workers left; `b` has one, and what it knew.
    network.cable("b", "down");
    let speech = b_speaks(&network, &b);
    let (said, sound) = converse(&mut on_host_a).await;
    assert!(said == ANSWER && sound > 10_000, "{said:?}, {sound}");
    assert!(speech.await > 10_000, "`b` speaks alone");
    eventually("the registry has forgotten `b`", || async {
        known() == ["a-1", "a-2"]
    })
    .await;
    let (said, _) = converse(&mut session(&a).await).await;
    assert_eq!(said, ANSWER);

    network.cable("b", "up");
    eventually("`b` is back", || async { known() == ["a-1", "a-2", "b-1"] }).await;
    // Without a worker of its own, `a` speaks with that of `b`.
    for worker in &on_a {
        signal(worker.id().unwrap(), "TERM");
    }
    eventually("the workers of `a` are gone", || async {
        known() == ["b-1"]
    })
    .await;
    let (said, sound) = converse(&mut on_host_a).await;
    assert!(said == ANSWER && sound > 10_000, "{said:?}, {sound}");
}

/// Bytes of a text that the orchestrator on `b` speaks for a client there.
async fn b_speaks(network: &Network, b: &str) -> usize {
    let body =
        json!({"model": "tts-1", "voice": "tone", "input": ANSWER, "response_format": "pcm"});
    let spoken = Command::new("ip")
        .args(["netns", "exec", &format!("{}b", network.name), "curl"])
        .args(["--silent", "--show-error", "--fail", "--max-time", "30"])
        .args([
            "-H",
            "content-type: application/json",
            "-d",
            &body.to_string(),
        ])
        .arg(format!("http://{b}:8080/v1/audio/speech"))
        .output();
    let spoken = tokio::time::timeout(Duration::from_secs(40), spoken).await;
    let spoken = spoken.unwrap().unwrap();
    let told = String::from_utf8_lossy(&spoken.stderr).into_owned();
    assert!(spoken.status.success(), "{told}");
    spoken.stdout.len()
}
