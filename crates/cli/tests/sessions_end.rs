//! The program itself, over a real WebSocket: a session that ends by itself says goodbye first.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use support::Server;
use tokio_tungstenite::tungstenite::Message;

const ANSWER: &str = "That is so.";

/// A server of the program with these options, and its WebSocket address.
async fn server(options: &[&str]) -> (Server, String) {
    let server = Server::start(options, Duration::ZERO, |_| ANSWER.to_owned()).await;
    let url = server.url();
    (server, url)
}

/// Types these, each when the answer before it is done, and gives all events until the server hangs up, and why.
async fn converse(url: &str, texts: &[&str]) -> (Vec<Value>, String) {
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let mut texts = texts.iter();
    let ours = json!({"type": "session.update", "session": {"type": "realtime", "duologue": {"events": true}}});
    let mut to_send = vec![ours];
    let mut next = |to_send: &mut Vec<Value>| {
        if let Some(text) = texts.next() {
            let content = json!([{"type": "input_text", "text": text}]);
            let item = json!({"type": "message", "role": "user", "content": content});
            to_send.push(json!({"type": "conversation.item.create", "item": item}));
            to_send.push(json!({"type": "response.create"}));
        }
    };
    next(&mut to_send);
    let mut events = Vec::new();
    let started = Instant::now();
    loop {
        for event in to_send.drain(..) {
            let _ = socket.send(Message::text(event.to_string())).await;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{events:#?}");
        let message = tokio::time::timeout(Duration::from_secs(30), socket.next()).await;
        match message.expect("the server says nothing").unwrap().unwrap() {
            Message::Text(text) => {
                let event: Value = serde_json::from_str(&text).unwrap();
                if event["type"] == "response.done" {
                    next(&mut to_send);
                }
                events.push(event);
            }
            Message::Close(frame) => {
                return (
                    events,
                    frame.map_or_else(String::new, |f| f.reason.to_string()),
                );
            }
            _ => {}
        }
    }
}

fn transcripts(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .filter(|event| event["type"] == "response.output_audio_transcript.done")
        .filter_map(|event| event["transcript"].as_str())
        .collect()
}

/// Positions of the first event of each type from the end of the one before it.
fn in_order(events: &[Value], types: &[&str]) {
    let mut rest = events.iter();
    for wanted in types {
        assert!(
            rest.any(|event| event["type"] == *wanted),
            "{wanted} is missing, or not after those before it: {:?}",
            events
                .iter()
                .map(|event| &event["type"])
                .collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn an_idle_session_hears_a_goodbye_and_is_ended() {
    let (_server, url) = server(&["--idle-timeout", "2", "--goodbye", "Goodbye then."]).await;
    let (events, why) = converse(&url, &[]).await;
    in_order(
        &events,
        &[
            "session.created",
            "response.created",
            "response.output_audio.delta",
            "response.done",
            "duologue.ended",
        ],
    );
    assert_eq!(transcripts(&events), ["Goodbye then."]);
    assert_eq!(events.last().unwrap()["reason"], "idle_timeout");
    assert_eq!(why, "nobody spoke for a long time");
}

#[tokio::test]
async fn after_its_last_turn_a_session_hears_the_answer_and_a_goodbye_and_is_ended() {
    let options = ["--max-turns", "2", "--goodbye", "That was all."];
    let (_server, url) = server(&options).await;
    let (events, why) = converse(&url, &["Is it so?", "And this?", "And that?"]).await;
    assert_eq!(transcripts(&events), [ANSWER, ANSWER, "That was all."]);
    assert_eq!(events.last().unwrap()["reason"], "max_turns");
    assert_eq!(why, "the session reached its most turns");
}

#[tokio::test]
async fn a_session_without_a_goodbye_ends_silently() {
    let (_server, url) = server(&["--max-duration", "2"]).await;
    let (events, why) = converse(&url, &[]).await;
    assert!(
        events
            .iter()
            .all(|event| event["type"] != "response.created")
    );
    assert_eq!(events.last().unwrap()["reason"], "max_duration");
    assert_eq!(why, "the session reached its longest duration");
}
