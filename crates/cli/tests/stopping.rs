//! A stop that comes before the server is ready.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

/// Long enough for anything that is to happen, on a machine that is busy elsewhere.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server says and returns that is sent `signal` while it waits for its voice worker, which never answers.
async fn stopped_by(signal: &str) -> (String, Option<i32>) {
    let worker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", worker.local_addr().unwrap());
    let mut server = Command::new(env!("CARGO_BIN_EXE_duologue"))
        .args(["--log", "info", "serve", "--listen", "127.0.0.1:0"])
        .args(["--worker", &url, "--no-webrtc", "--no-pull"])
        .args(["--vad", "light:2", "--no-end-of-turn"])
        .args(["--asr", "whisper-tiny.en", "--llm-model", "nobody"])
        .args(["--llm-url", "http://127.0.0.1:9/v1"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap());
    let mut told = String::new();
    while !told.contains("loading models") {
        assert!(lines.read_line(&mut told).await.unwrap() > 0, "{told}");
    }
    let kill = format!("kill -{signal} {}", server.id().unwrap());
    let sent = std::process::Command::new("sh")
        .args(["-c", &kill])
        .status();
    assert!(sent.unwrap().success());
    let ended = tokio::time::timeout(PATIENCE, server.wait()).await;
    let ended = ended.expect("it goes on loading").unwrap();
    lines.read_to_string(&mut told).await.unwrap();
    (told, ended.code())
}

#[tokio::test]
async fn a_server_that_is_stopped_while_models_load_says_so_and_ends_well() {
    for signal in ["TERM", "INT"] {
        let (told, code) = stopped_by(signal).await;
        assert!(told.contains("before its models were loaded"), "{told}");
        assert_eq!(code, Some(0), "{told}");
    }
}
