//! A language model that says what a scene says: an OpenAI-compatible endpoint, over real HTTP, so that neither a
//! model's wording nor its load is in the figures.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use duologue_scenes::Reply;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The name of the model.
pub const MODEL: &str = "scripted";
/// Between two words; a small model on a laptop is about as fast.
const BETWEEN_WORDS: Duration = Duration::from_millis(8);

type Scripts = Arc<BTreeMap<String, Vec<Reply>>>;

/// A running endpoint; ended when dropped.
pub struct Endpoint {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Endpoint {
    /// Serves the replies of scenes, by the scenes' names.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(scripts: BTreeMap<String, Vec<Reply>>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("cannot listen for the scripted language model")?;
        let address = listener.local_addr()?;
        let router = axum::Router::new()
            .route("/v1/models", get(models))
            .route("/v1/chat/completions", post(complete))
            .with_state(Arc::new(scripts));
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the scripted language model failed");
            }
        });
        Ok(Self { address, serving })
    }

    /// The options that make a server use it.
    pub fn serve_options(&self) -> Vec<String> {
        [
            "--llm-url",
            &format!("http://{}/v1", self.address),
            "--llm-model",
            MODEL,
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The instructions of a session that plays this scene.
pub fn instructions(scene: &str) -> String {
    format!("scene={scene}")
}

async fn models() -> Json<Value> {
    Json(json!({"object": "list", "data": [{"id": MODEL, "object": "model"}]}))
}

async fn complete(State(scripts): State<Scripts>, Json(request): Json<Value>) -> Response {
    let Some(reply) = reply_to(&scripts, &request) else {
        let error =
            json!({"error": {"message": "no scene is called so", "type": "invalid_request_error"}});
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    };
    let words: Vec<String> = reply.text.split_inclusive(' ').map(str::to_owned).collect();
    let think = Duration::from_millis(reply.think_ms);
    // A server that warms its cache asks for a token and throws it away.
    let pieces = stream::unfold((0, words, think), |(at, words, think)| async move {
        if at > words.len() {
            return None;
        }
        tokio::time::sleep(if at == 0 { think } else { BETWEEN_WORDS }).await;
        let chunk = |delta: Value, finish: Value| {
            json!({"id": "scripted", "object": "chat.completion.chunk", "model": MODEL, "created": 0,
                   "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        };
        let data = match words.get(at) {
            Some(word) => chunk(json!({"role": "assistant", "content": word}), Value::Null),
            None => chunk(json!({}), json!("stop")),
        };
        Some((
            Ok::<_, Infallible>(Event::default().data(data.to_string())),
            (at + 1, words, think),
        ))
    });
    let done = stream::iter([Ok(Event::default().data("[DONE]"))]);
    Sse::new(futures_util::StreamExt::chain(pieces, done)).into_response()
}

/// What the scene says next: as many replies on as the history has replies that were heard.
fn reply_to<'a>(scripts: &'a BTreeMap<String, Vec<Reply>>, request: &Value) -> Option<&'a Reply> {
    let messages = request["messages"].as_array()?;
    let said_by = |role: &'static str| {
        messages
            .iter()
            .filter(move |message| message["role"] == role)
    };
    let scene = said_by("system")
        .filter_map(|message| message["content"].as_str())
        .find_map(|text| text.lines().find_map(|line| line.strip_prefix("scene=")))?;
    let replies = scripts.get(scene)?;
    let said = said_by("assistant").count();
    replies.get(said.min(replies.len().checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replies_of_a_scene_are_said_one_after_the_other() {
        let reply = |text: &str| Reply {
            text: text.to_owned(),
            think_ms: 0,
        };
        let scripts = BTreeMap::from([("a/b".to_owned(), vec![reply("one"), reply("two")])]);
        let said = |assistants: usize, scene: &str| {
            let mut messages = vec![json!({"role": "system", "content": instructions(scene)})];
            messages.resize(1 + assistants, json!({"role": "assistant", "content": "x"}));
            reply_to(&scripts, &json!({"messages": messages})).map(|reply| reply.text.clone())
        };
        assert_eq!(said(0, "a/b").as_deref(), Some("one"));
        assert_eq!(said(1, "a/b").as_deref(), Some("two"));
        assert_eq!(said(5, "a/b").as_deref(), Some("two"));
        assert_eq!(said(0, "c"), None);
    }
}
