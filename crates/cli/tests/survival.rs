//! The program itself: clients that come back, and servers that are asked to end.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use support::Server;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

const PATIENCE: Duration = Duration::from_secs(30);

/// A client that types.
struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    created: Value,
    /// The last close frame.
    closed: Option<CloseFrame>,
}

impl Client {
    async fn connect(url: &str) -> Self {
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        Self::greeted(socket).await
    }

    /// One whose system takes little that it has not read.
    async fn narrow(server: &Server) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let stream = socket.connect(server.address.parse().unwrap()).await;
        let stream = MaybeTlsStream::Plain(stream.unwrap());
        let (socket, _) = tokio_tungstenite::client_async(server.url(), stream)
            .await
            .unwrap();
        Self::greeted(socket).await
    }

    async fn greeted(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        let mut client = Self {
            socket,
            created: Value::Null,
            closed: None,
        };
        client.created = client.until("session.created").await;
        client
    }

    async fn resume(url: &str, token: &str) -> Self {
        Self::connect(&format!("{url}?duologue_resume={token}")).await
    }

    fn told(&self, name: &str) -> &Value {
        &self.created["session"]["duologue"][name]
    }

    fn token(&self) -> String {
        self.told("resume_token").as_str().unwrap().to_owned()
    }

    async fn send(&mut self, event: Value) {
        let message = Message::text(event.to_string());
        self.socket.send(message).await.unwrap();
    }

    async fn ask(&mut self, text: &str) {
        let content = json!([{"type": "input_text", "text": text}]);
        let item = json!({"type": "message", "role": "user", "content": content});
        self.send(json!({"type": "conversation.item.create", "item": item}))
            .await;
        self.send(json!({"type": "response.create"})).await;
    }

    /// The next event; `None` when the server has closed.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            match message.expect("the server says nothing") {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => self.closed = frame,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    async fn until(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await;
            let event = event.unwrap_or_else(|| panic!("it closed before {kind}"));
            if event["type"] == kind {
                return event;
            }
            assert_ne!(event["type"], "error", "{event}");
        }
    }

    /// The words of the next answer, once it is over.
    async fn answer(&mut self) -> String {
        let done = self.until("response.output_audio_transcript.done").await;
        self.until("response.done").await;
        done["transcript"].as_str().unwrap().to_owned()
    }
}

/// Says how much it was told, so that one sees what of the history the model gets.
fn counts(messages: &[Value]) -> String {
    let by = |role: &str| {
        messages
            .iter()
            .filter(|message| message["role"] == role)
            .count()
    };
    format!("User {}, me {}.", by("user"), by("assistant"))
}

async fn counting(options: &[&str]) -> Server {
    Server::start(options, Duration::ZERO, counts).await
}

/// Status and headers of a plain request.
fn get(server: &Server, path: &str) -> String {
    let url = format!("http://{}{path}", server.address);
    let answer = Command::new("curl").args(["-si", "-m", "5", &url]).output();
    String::from_utf8(answer.expect("curl is needed").stdout).unwrap()
}

/// What `duologue health` says of it.
fn health(server: &Server, options: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duologue"));
    let url = format!("http://{}/", server.address);
    let output = command.args(["health", &url]).args(options).output();
    let output = output.unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat());
    (output.status.success(), told.unwrap())
}

#[tokio::test]
async fn who_comes_back_goes_on_where_the_conversation_was() {
    let server = counting(&["--journal", "memory"]).await;
    let mut client = Client::connect(&server.url()).await;
    assert_eq!(client.told("resumed"), false);
    let token = client.token();
    let session = json!({"type": "realtime", "instructions": "Be brief.", "audio": {"output": {"speed": 1.5}}});
    client
        .send(json!({"type": "session.update", "session": session}))
        .await;
    client.ask("One.").await;
    assert_eq!(client.answer().await, "User 1, me 0.");
    // A connection that breaks, without a word of goodbye.
    drop(client);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    let mut client = Client::resume(&server.url(), &token).await;
    assert_eq!(client.told("resumed"), true);
    assert_eq!(client.told("resumed_items"), 2);
    assert_eq!(client.token(), token);
    assert_eq!(client.created["session"]["instructions"], "Be brief.");
    assert_eq!(client.created["session"]["audio"]["output"]["speed"], 1.5);
    let first = client.until("conversation.item.done").await;
    assert_eq!(first["item"]["content"][0]["text"], "One.");
    let second = client.until("conversation.item.done").await;
    assert_eq!(second["item"]["role"], "assistant");
    assert!(began.elapsed() < Duration::from_secs(2));
    client.ask("Two.").await;
    assert_eq!(client.answer().await, "User 2, me 1.");
}

#[tokio::test]
async fn words_that_had_no_answer_yet_are_answered_when_their_speaker_comes_back() {
    let options = ["--journal", "memory", "--speculation", "off"];
    let server = Server::start(&options, Duration::from_millis(1_500), counts).await;
    let mut client = Client::connect(&server.url()).await;
    let token = client.token();
    client.ask("Well?").await;
    client.until("response.created").await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut client = Client::resume(&server.url(), &token).await;
    assert_eq!(client.told("resumed_items"), 1);
    assert_eq!(client.answer().await, "User 1, me 0.");
}

#[tokio::test]
async fn a_token_that_names_nothing_begins_anew_and_one_that_is_none_is_refused() {
    let server = counting(&["--journal", "memory"]).await;
    let unknown = "0123456789abcdef0123456789abcdef";
    let client = Client::resume(&server.url(), unknown).await;
    assert_eq!(client.told("resumed"), false);
    assert_ne!(
        client.token(),
        unknown,
        "a client must not choose its token"
    );
    let url = format!("{}?duologue_resume=sess_1", server.url());
    match tokio_tungstenite::connect_async(&url).await {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 400),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_without_a_journal_gives_no_token() {
    let server = counting(&[]).await;
    let client = Client::connect(&server.url()).await;
    assert_eq!(client.told("resume_token"), &Value::Null);
    assert_eq!(client.told("resumed"), &Value::Null);
}

#[tokio::test]
async fn a_server_that_is_asked_to_end_takes_no_session_and_lets_those_that_run_end() {
    let mut server = counting(&[]).await;
    let mut client = Client::connect(&server.url()).await;
    assert!(get(&server, "/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(health(&server, &[]), (true, "ready\n".to_owned()));
    server.terminate();
    let began = Instant::now();
    let refused = loop {
        let answer = get(&server, "/v1/realtime");
        if answer.starts_with("HTTP/1.1 503") {
            break answer.to_lowercase();
        }
        assert!(began.elapsed() < PATIENCE, "{answer}");
    };
    assert!(refused.contains("retry-after: "), "{refused}");
    assert!(get(&server, "/readyz").starts_with("HTTP/1.1 503"));
    let (well, told) = health(&server, &[]);
    assert!(!well && told.contains("draining"), "{told}");
    assert!(health(&server, &["--alive"]).0);
    client.ask("Still there?").await;
    assert_eq!(client.answer().await, "User 1, me 0.");
    client.socket.close(None).await.unwrap();
    while client.next().await.is_some() {}
    let ended = tokio::time::timeout(PATIENCE, server.process.wait()).await;
    assert!(ended.expect("it goes on").unwrap().success());
}

#[tokio::test]
async fn who_is_still_there_after_the_drain_timeout_is_told_and_goes_on_elsewhere() {
    let mut server = counting(&["--drain-timeout", "1", "--journal", "memory"]).await;
    let mut client = Client::connect(&server.url()).await;
    let ours = json!({"type": "realtime", "duologue": {"events": true}});
    client
        .send(json!({"type": "session.update", "session": ours}))
        .await;
    client.until("session.updated").await;
    server.terminate();
    let ended = client.until("duologue.ended").await;
    assert_eq!(ended["reason"], "shutdown");
    while client.next().await.is_some() {}
    assert_eq!(u16::from(client.closed.clone().unwrap().code), 1001);
    let ended = tokio::time::timeout(PATIENCE, server.process.wait()).await;
    assert!(ended.expect("it goes on").unwrap().success());
}

/// More than a system keeps for a client that does not read, and less than the server does.
const UNREAD: usize = 6 * 1024 * 1024;

#[tokio::test]
async fn who_reads_slowly_gets_all_of_it_before_a_server_that_is_asked_to_end_has_ended() {
    let asked = Arc::new(Notify::new());
    let answer = {
        let asked = Arc::clone(&asked);
        move |_: &[Value]| {
            asked.notify_one();
            "Yes.".to_owned()
        }
    };
    let options = ["--drain-timeout", "0"];
    let mut server = Server::start(&options, Duration::ZERO, answer).await;
    let mut client = Client::narrow(&server).await;
    let ours = json!({"type": "realtime", "duologue": {"events": true}});
    client
        .send(json!({"type": "session.update", "session": ours}))
        .await;
    let text = "words ".repeat(40_000);
    // Each is told of twice with its words: when it is added, and when it is done.
    let items = UNREAD / (2 * text.len());
    for item in 0..items {
        let id = format!("item-{item}");
        let content = json!([{"type": "input_text", "text": text}]);
        let message = json!({"type": "message", "role": "user", "id": id, "content": content});
        client
            .send(json!({"type": "conversation.item.create", "item": message}))
            .await;
        client
            .send(json!({"type": "conversation.item.delete", "item_id": id}))
            .await;
    }
    // All of that was taken in once the model is asked.
    client.ask("Is that all?").await;
    asked.notified().await;
    server.terminate();
    while TcpStream::connect(&server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let mut deleted = 0;
    let ended = loop {
        let event = client.next().await.expect("it closed before all was told");
        match event["type"].as_str().unwrap() {
            "conversation.item.deleted" => deleted += 1,
            "duologue.ended" => break event,
            kind => assert_ne!(kind, "error", "{event}"),
        }
    };
    assert_eq!((deleted, &ended["reason"]), (items, &json!("shutdown")));
    let ended = tokio::time::timeout(PATIENCE, server.process.wait()).await;
    assert!(ended.expect("it goes on").unwrap().success());
}
