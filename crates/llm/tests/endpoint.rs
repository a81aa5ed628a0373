//! The endpoint client against a server that misbehaves in every way that endpoints do.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use duologue_llm::{
    ChatModel, ChatRequest, Delta, EndpointConfig, FinishReason, LlmConfig, LlmError, Message, load,
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const HELLO: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n";
const STOP: &str =
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// What the server answers to its first, second, ... request; the last answer is repeated.
type Script = Vec<Box<dyn Fn() -> Response + Send + Sync>>;

struct Server {
    url: String,
    asked: Arc<AtomicU32>,
    bodies: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
}

#[derive(Clone)]
struct Shared {
    script: Arc<Script>,
    asked: Arc<AtomicU32>,
    bodies: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
}

async fn answer(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let turn = shared.asked.fetch_add(1, Ordering::SeqCst) as usize;
    shared.bodies.lock().unwrap().push((headers, body));
    shared.script[turn.min(shared.script.len() - 1)]()
}

async fn serve(script: Script) -> Server {
    let shared = Shared {
        script: Arc::new(script),
        asked: Arc::default(),
        bodies: Arc::default(),
    };
    let (asked, bodies) = (shared.asked.clone(), shared.bodies.clone());
    let router = Router::new()
        .route("/v1/chat/completions", post(answer))
        .with_state(shared);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Server { url, asked, bodies }
}

impl Server {
    fn model(&self) -> Arc<dyn ChatModel> {
        model(&self.url, |_| {})
    }
}

fn model(url: &str, change: impl FnOnce(&mut EndpointConfig)) -> Arc<dyn ChatModel> {
    let mut config = EndpointConfig {
        url: url.to_owned(),
        model: "m".into(),
        api_key: Some("secret".into()),
        max_retry_wait_s: 0.05,
        ..EndpointConfig::default()
    };
    change(&mut config);
    load(&LlmConfig::Endpoint(config)).unwrap()
}

fn events(parts: &[&str]) -> Response {
    let text: String = parts.concat();
    ([("content-type", "text/event-stream")], text).into_response()
}

/// A stream of these parts, then `last`: an error cuts the connection, pending keeps it open.
fn parts(
    first: &'static [&'static str],
    then: stream::BoxStream<'static, Result<Bytes, std::io::Error>>,
) -> Response {
    let first = stream::iter(
        first
            .iter()
            .map(|part| Ok(Bytes::from_static(part.as_bytes()))),
    );
    (
        [("content-type", "text/event-stream")],
        Body::from_stream(first.chain(then)),
    )
        .into_response()
}

fn status(code: u16, body: &'static str) -> Box<dyn Fn() -> Response + Send + Sync> {
    Box::new(move || (StatusCode::from_u16(code).unwrap(), body).into_response())
}

fn well() -> Box<dyn Fn() -> Response + Send + Sync> {
    Box::new(|| events(&[HELLO, STOP]))
}

async fn ask(model: &Arc<dyn ChatModel>) -> Result<(String, FinishReason), LlmError> {
    let request = ChatRequest {
        messages: vec![Message::user("Hi")],
        ..ChatRequest::default()
    };
    ask_for(model, request).await
}

async fn ask_for(
    model: &Arc<dyn ChatModel>,
    request: ChatRequest,
) -> Result<(String, FinishReason), LlmError> {
    let mut stream = model.reply(request, CancellationToken::new()).await?;
    let mut text = String::new();
    while let Some(delta) = stream.next().await {
        match delta? {
            Delta::Text(more) => text.push_str(&more),
            Delta::ToolCall(_) => {}
            Delta::Done { reason, .. } => return Ok((text, reason)),
        }
    }
    panic!("the stream ended without Done");
}

#[tokio::test]
async fn a_reply_is_streamed_with_key_and_model() {
    let server = serve(vec![well()]).await;
    assert_eq!(
        ask(&server.model()).await.unwrap(),
        ("Hello".into(), FinishReason::Stop)
    );
    let bodies = server.bodies.lock().unwrap();
    let (headers, body) = &bodies[0];
    assert_eq!(headers["authorization"], "Bearer secret");
    assert_eq!(
        (&body["model"], &body["stream"]),
        (&json!("m"), &json!(true))
    );
    assert_eq!(body["messages"], json!([{"role": "user", "content": "Hi"}]));
}

#[tokio::test]
async fn a_reply_that_is_not_streamed_is_taken_too() {
    let whole = r#"{"choices":[{"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]}"#;
    let server = serve(vec![Box::new(move || {
        ([("content-type", "application/json")], whole).into_response()
    })])
    .await;
    assert_eq!(ask(&server.model()).await.unwrap().0, "Hello");
}

#[tokio::test]
async fn nobody_listening_is_told_with_what_to_do() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let error = ask(&model(&url, |_| {})).await.unwrap_err();
    assert!(matches!(&error, LlmError::Unreachable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&url) && text.contains("start the server"),
        "{text}"
    );
}

#[tokio::test]
async fn an_unknown_host_is_told() {
    let error = ask(&model("http://nowhere.invalid/v1", |c| c.retries = 0))
        .await
        .unwrap_err();
    // Behind a proxy it is the proxy that says so.
    assert!(
        matches!(
            &error,
            LlmError::Unreachable { .. }
                | LlmError::Upstream { .. }
                | LlmError::Rejected { .. }
                | LlmError::Unauthorized { .. }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn https_to_a_server_without_it_is_told() {
    let server = serve(vec![well()]).await;
    let error = ask(&model(&server.url.replace("http:", "https:"), |_| {}))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("no secure connection"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_key_is_told_and_not_retried() {
    let server = serve(vec![
        status(401, r#"{"error":{"message":"bad key"}}"#),
        well(),
    ])
    .await;
    let error = ask(&server.model()).await.unwrap_err();
    assert!(
        matches!(&error, LlmError::Unauthorized { status: 401, message, .. } if message == "bad key"),
        "{error:?}"
    );
    assert!(error.to_string().contains("OPENAI_API_KEY"), "{error}");
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_unknown_model_is_told() {
    let server = serve(vec![status(
        404,
        r#"{"error":{"message":"model 'm' not found"}}"#,
    )])
    .await;
    let error = ask(&server.model()).await.unwrap_err();
    assert!(
        matches!(&error, LlmError::UnknownModel { model, .. } if model == "m"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_limit_that_passes_soon_is_waited_for() {
    let limited = || {
        let headers = [("retry-after", "0.01")];
        (StatusCode::TOO_MANY_REQUESTS, headers, "slow down").into_response()
    };
    let server = serve(vec![Box::new(limited), well()]).await;
    assert_eq!(ask(&server.model()).await.unwrap().0, "Hello");
    assert_eq!(server.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_limit_that_lasts_is_told_at_once() {
    let limited = || {
        (
            StatusCode::TOO_MANY_REQUESTS,
            [("retry-after", "90")],
            "quota",
        )
            .into_response()
    };
    let server = serve(vec![Box::new(limited)]).await;
    let error = ask(&server.model()).await.unwrap_err();
    let LlmError::RateLimited { retry_after, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*retry_after, Some(Duration::from_secs(90)));
    assert!(error.to_string().contains("90 s"), "{error}");
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_error_is_retried_so_often_and_then_told() {
    let server = serve(vec![status(503, "loading"), status(502, ""), well()]).await;
    assert_eq!(ask(&server.model()).await.unwrap().0, "Hello");
    let server = serve(vec![status(500, "out of memory")]).await;
    let error = ask(&server.model()).await.unwrap_err();
    assert!(
        matches!(
            &error,
            LlmError::Upstream {
                status: Some(500),
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(server.asked.load(Ordering::SeqCst), 3, "two retries");
}

#[tokio::test]
async fn a_part_that_the_endpoint_does_not_take_is_left_out_from_then_on() {
    let refuse = status(
        400,
        r#"{"error":{"message":"Unrecognized request argument supplied: stream_options"}}"#,
    );
    let server = serve(vec![refuse, well()]).await;
    let model = server.model();
    ask(&model).await.unwrap();
    ask(&model).await.unwrap();
    let bodies = server.bodies.lock().unwrap();
    let sent: Vec<bool> = bodies
        .iter()
        .map(|(_, body)| body.get("stream_options").is_some())
        .collect();
    assert_eq!(sent, [true, false, false]);
}

#[tokio::test]
async fn another_rejection_is_told_in_its_words() {
    let server = serve(vec![status(
        400,
        r#"{"error":{"message":"too many tokens"}}"#,
    )])
    .await;
    let error = ask(&server.model()).await.unwrap_err();
    assert!(
        matches!(&error, LlmError::Rejected { status: 400, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("too many tokens"));
}

#[tokio::test]
async fn a_redirect_is_told_with_its_target() {
    let moved = || {
        (
            StatusCode::MOVED_PERMANENTLY,
            [("location", "https://new/v1")],
        )
            .into_response()
    };
    let server = serve(vec![Box::new(moved)]).await;
    let error = ask(&server.model()).await.unwrap_err();
    assert!(error.to_string().contains("https://new/v1"), "{error}");
}

#[tokio::test]
async fn what_is_no_stream_is_told() {
    let page = || ([("content-type", "text/html")], "<html>").into_response();
    let server = serve(vec![Box::new(page)]).await;
    assert!(matches!(
        ask(&server.model()).await,
        Err(LlmError::Malformed { .. })
    ));
    let server = serve(vec![Box::new(|| events(&["data: {oops\n\n"]))]).await;
    assert!(matches!(
        ask(&server.model()).await,
        Err(LlmError::Malformed { .. })
    ));
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_endless_line_is_told_and_does_not_fill_the_memory() {
    let endless = || {
        let more = stream::repeat_with(|| Ok(Bytes::from_static(&[b'x'; 64 * 1024])));
        parts(&["data: "], more.boxed())
    };
    let server = serve(vec![Box::new(endless)]).await;
    let error = ask(&server.model()).await.unwrap_err();
    assert!(
        matches!(&error, LlmError::Malformed { reason, .. } if reason.contains("more than")),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_error_within_the_stream_is_told() {
    let server = serve(vec![Box::new(|| {
        events(&[HELLO, "data: {\"error\":{\"message\":\"CUDA\"}}\n\n"])
    })])
    .await;
    let error = ask(&server.model()).await.unwrap_err();
    assert!(
        matches!(&error, LlmError::Upstream { status: None, message, .. } if message == "CUDA"),
        "{error:?}"
    );
}

fn broken() -> stream::BoxStream<'static, Result<Bytes, std::io::Error>> {
    stream::once(async { Err(std::io::Error::other("cut")) }).boxed()
}

#[tokio::test]
async fn a_stream_cut_before_the_first_token_is_asked_for_again() {
    let server = serve(vec![Box::new(|| parts(&[": hello\n\n"], broken())), well()]).await;
    assert_eq!(ask(&server.model()).await.unwrap().0, "Hello");
    assert_eq!(server.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_stream_cut_later_is_told_and_never_begun_anew() {
    for cut in [broken as fn() -> _, || stream::empty().boxed()] {
        // Cut only when the first piece has arrived.
        let arrived = Arc::new(Notify::new());
        let wait = arrived.clone();
        let answer = move || {
            let wait = wait.clone();
            let then = stream::once(async move { wait.notified().await }).flat_map(move |()| cut());
            parts(&[HELLO], then.boxed())
        };
        let server = serve(vec![Box::new(answer), well()]).await;
        let mut stream = server
            .model()
            .reply(ChatRequest::default(), CancellationToken::new())
            .await
            .unwrap();
        assert_eq!(stream.next().await, Some(Ok(Delta::Text("Hello".into()))));
        arrived.notify_one();
        let rest: Vec<_> = stream.collect().await;
        assert!(matches!(&rest[..], [Err(LlmError::Cut { .. })]), "{rest:?}");
        assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_stream_that_stands_still_is_given_up() {
    for first in [&[][..], &[HELLO][..]] {
        let server = serve(vec![Box::new(move || {
            parts(first, stream::pending().boxed())
        })])
        .await;
        let error = ask(&model(&server.url, |c| c.idle_timeout_s = 0.2))
            .await
            .unwrap_err();
        assert!(matches!(&error, LlmError::Stalled { .. }), "{error:?}");
    }
}

/// Tells when the server has noticed that the client is gone.
struct Gone(Arc<Notify>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// An endless reply that tells when nobody takes it any more.
async fn endless() -> (Server, Arc<Notify>) {
    let gone = Arc::new(Notify::new());
    let tell = gone.clone();
    let answer = move || {
        let gone = Gone(tell.clone());
        let more = stream::unfold(gone, |gone| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Some((Ok(Bytes::from_static(HELLO.as_bytes())), gone))
        });
        parts(&[HELLO], more.boxed())
    };
    (serve(vec![Box::new(answer)]).await, gone)
}

#[tokio::test]
async fn cancelling_closes_the_connection_though_nobody_reads() {
    let (server, gone) = endless().await;
    let cancel = CancellationToken::new();
    let mut stream = server
        .model()
        .reply(ChatRequest::default(), cancel.clone())
        .await
        .unwrap();
    assert!(matches!(stream.next().await, Some(Ok(Delta::Text(_)))));
    cancel.cancel();
    gone.notified().await;
    let rest: Vec<_> = stream.collect().await;
    let last = rest.last().unwrap();
    assert!(
        matches!(
            last,
            Ok(Delta::Text(_)
                | Delta::Done {
                    reason: FinishReason::Cancelled,
                    ..
                })
        ),
        "{last:?}"
    );
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let (server, gone) = endless().await;
    let stream = server
        .model()
        .reply(ChatRequest::default(), CancellationToken::new())
        .await
        .unwrap();
    drop(stream);
    gone.notified().await;
}

#[tokio::test]
async fn cancelling_before_the_first_token_returns() {
    let server = serve(vec![Box::new(|| parts(&[], stream::pending().boxed()))]).await;
    let cancel = CancellationToken::new();
    let model = server.model();
    let reply = model.reply(ChatRequest::default(), cancel.clone());
    let cancelling = async {
        while server.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (reply, ()) = tokio::join!(reply, cancelling);
    let deltas: Vec<_> = reply.unwrap().collect().await;
    assert!(
        matches!(
            &deltas[..],
            [Ok(Delta::Done {
                reason: FinishReason::Cancelled,
                ..
            })]
        ),
        "{deltas:?}"
    );
}

#[tokio::test]
async fn characters_split_between_reads_come_whole() {
    let split = || {
        let text = "data: {\"choices\":[{\"delta\":{\"content\":\"né🦊\"}}]}\n\n".as_bytes();
        let bytes = stream::iter(
            text.iter()
                .map(|b| Ok::<_, Infallible>(Bytes::copy_from_slice(&[*b]))),
        );
        let end = stream::iter([Ok(Bytes::from_static(STOP.as_bytes()))]);
        (
            [("content-type", "text/event-stream")],
            Body::from_stream(bytes.chain(end)),
        )
            .into_response()
    };
    let server = serve(vec![Box::new(split)]).await;
    assert_eq!(ask(&server.model()).await.unwrap().0, "né🦊");
}

#[test]
fn a_configuration_that_cannot_work_is_told() {
    let with = |url: &str, model: &str| {
        let config = EndpointConfig {
            url: url.into(),
            model: model.into(),
            ..EndpointConfig::default()
        };
        load(&LlmConfig::Endpoint(config))
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert!(
        with("localhost:11434", "m").contains("must begin with http"),
        "{}",
        with("localhost:11434", "m")
    );
    assert!(with("not a url", "m").contains("is not a URL"));
    assert!(with("http://a/v1", "").contains("DUOLOGUE_LLM_MODEL"));
}

#[test]
fn the_address_shown_has_no_password() {
    let model = model("http://user:pass@host/v1/", |_| {});
    assert_eq!(model.info().location, "http://host/v1/chat/completions");
}
