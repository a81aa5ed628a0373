//! The program itself as a server, with the test tone for a voice and a few lines for a language model, so that only a
//! small recognizer has to be loaded.
#![allow(dead_code)] // each test file takes what it needs

use std::process::Stdio;
use std::time::Duration;

use axum::http::header;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A running server; killed when dropped.
pub struct Server {
    pub process: Child,
    /// `host:port`.
    pub address: String,
}

impl Server {
    /// One with these options, whose model answers after `thinks` what `answer` makes of the messages it is given.
    pub async fn start(
        options: &[&str],
        thinks: Duration,
        answer: impl Fn(&[Value]) -> String + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::started(&["--log", "warn"], |_| {}, options, thinks, answer).await
    }

    /// The same, that logs so, and is started as `prepare` makes it.
    pub async fn started(
        log: &[&str],
        prepare: impl FnOnce(&mut Command),
        options: &[&str],
        thinks: Duration,
        answer: impl Fn(&[Value]) -> String + Clone + Send + Sync + 'static,
    ) -> Self {
        let model = Router::new().route(
            "/v1/chat/completions",
            post(move |Json(request): Json<Value>| async move {
                tokio::time::sleep(thinks).await;
                let messages = request["messages"].as_array().unwrap();
                let text = answer(messages);
                let delta = json!({"choices": [{"index": 0, "delta": {"content": text}}]});
                let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
                (
                    [(header::CONTENT_TYPE, "text/event-stream")],
                    format!("data: {delta}\n\ndata: {end}\n\ndata: [DONE]\n\n"),
                )
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let llm = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, model).await });
        let mut command = Command::new(env!("CARGO_BIN_EXE_duologue"));
        prepare(&mut command);
        let mut process = command
            .args(log)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--voice", "tone", "--vad", "light:2", "--no-end-of-turn"])
            .args(["--asr", "whisper-tiny.en", "--llm-model", "answers"])
            .args(["--llm-url", &llm])
            .args(options)
            // The machine may be busy with other tests; which sessions are refused then is a test of its own.
            .env("DUOLOGUE_MAX_CPU_PERCENT", "0")
            .env("DUOLOGUE_MAX_MACHINE_PERCENT", "0")
            .env("DUOLOGUE_MAX_LAG_MS", "0")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap();
            let line = line.expect("the server stopped before it was ready");
            if let Some((_, rest)) = line.split_once("Open http://") {
                break rest.split_whitespace().next().unwrap().to_owned();
            }
        };
        let address = address.replace("localhost", "127.0.0.1");
        // Its further lines must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { process, address }
    }

    /// Where conversations are held.
    pub fn url(&self) -> String {
        format!("ws://{}/v1/realtime", self.address)
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        let id = self.process.id().expect("it has ended");
        let sent = std::process::Command::new("sh")
            .args(["-c", &format!("kill -TERM {id}")])
            .status();
        assert!(sent.unwrap().success());
    }
}
