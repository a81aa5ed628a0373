//! Any endpoint that speaks OpenAI's chat completions: Ollama, vLLM, llama.cpp's server, a cloud.
//!
//! A request is sent again only while nothing of its reply has been passed on: a reply that was begun aloud cannot
//! be begun anew. One task owns the connection of a reply, so that cancelling closes it whether or not anybody is
//! reading, and the endpoint stops.

mod chunk;
mod request;
mod retry;
mod sse;

use std::collections::VecDeque;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::chunk::{Assembler, Wrong, error_message};
use self::request::Quirks;
use self::sse::SseParser;
use crate::chat::{ChatModel, ChatRequest, Delta, FinishReason, ModelInfo, ReplyStream, Usage};
use crate::config::{EndpointConfig, seconds};
use crate::{LlmError, stream_of};

/// Deltas that may wait for a slow reader; then the connection is read no further.
const QUEUE: usize = 64;
/// An error's text is read up to here.
const MAX_ERROR_BODY: usize = 16 * 1024;
/// A reply that is not streamed is read up to here.
const MAX_WHOLE_BODY: usize = 4 * 1024 * 1024;

/// A model behind an endpoint.
pub(crate) struct EndpointModel {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    config: EndpointConfig,
    url: Url,
    /// The address for messages: without user and password.
    shown: String,
    key: Option<String>,
    info: ModelInfo,
    quirks: AtomicU8,
}

impl EndpointModel {
    pub(crate) fn new(config: &EndpointConfig) -> Result<Self, LlmError> {
        let config = config.clone();
        let bad = |why: String| {
            LlmError::Config(format!(
                "the language model's address {:?} {why}",
                config.url
            ))
        };
        let mut url =
            Url::parse(config.url.trim()).map_err(|e| bad(format!("is not a URL: {e}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("must begin with http:// or https://".to_owned()));
        }
        if config.model.is_empty() {
            return Err(LlmError::Config(format!(
                "no model is named for the language model endpoint {}: set `model`, or DUOLOGUE_LLM_MODEL",
                config.url
            )));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        if !path.ends_with("/chat/completions") {
            url.set_path(&format!("{path}/chat/completions"));
        }
        let mut shown = url.clone();
        // These fail only for addresses without a host, which http cannot be.
        let _ = shown.set_username("");
        let _ = shown.set_password(None);
        shown.set_query(None);
        let key = config
            .api_key
            .clone()
            .or_else(|| std::env::var(&config.api_key_env).ok());
        let key = key
            .map(|key| key.trim().to_owned())
            .filter(|key| !key.is_empty());
        let client = Client::builder()
            .connect_timeout(seconds(config.connect_timeout_s))
            // A redirected POST would come out as a GET: told instead.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| {
                LlmError::Config(format!("cannot set up the HTTP client: {}", chain(&error)))
            })?;
        let shown = shown.to_string();
        let info = ModelInfo {
            name: config.model.clone(),
            location: shown.clone(),
            context_tokens: None,
        };
        let quirks = AtomicU8::new(0);
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                config,
                url,
                shown,
                key,
                info,
                quirks,
            }),
        })
    }
}

#[async_trait]
impl ChatModel for EndpointModel {
    fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    async fn reply(
        &self,
        mut request: ChatRequest,
        cancel: CancellationToken,
    ) -> Result<ReplyStream, LlmError> {
        let config = &self.inner.config;
        request.temperature = request.temperature.or(config.temperature);
        request.max_tokens = request.max_tokens.or(config.max_tokens);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let reply = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Gone),
            reply = self.inner.begin(&request) => Ok(reply),
        };
        match reply {
            Ok(reply) => {
                tokio::spawn(drive(reply?, sender, cancel));
            }
            // There is room: the channel is new.
            Err(Gone) => drop(sender.try_send(Ok(cancelled()))),
        }
        Ok(stream_of(receiver))
    }
}

/// Nobody wants the reply any more.
struct Gone;

fn cancelled() -> Delta {
    Delta::Done {
        reason: FinishReason::Cancelled,
        usage: Usage::default(),
    }
}

impl Inner {
    /// Sends the request, again if that may help, until the first delta is there.
    async fn begin(&self, request: &ChatRequest) -> Result<Reply, LlmError> {
        let mut attempt = 0;
        loop {
            let quirks = Quirks(self.quirks.load(Ordering::Relaxed));
            let error = match self.attempt(request, quirks).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            if let LlmError::Rejected {
                status: 400 | 422,
                message,
                ..
            } = &error
                && let Some(learned) = quirks.learn(message)
            {
                tracing::info!(endpoint = %self.shown, "the endpoint does not take a part of the request: {message}");
                self.quirks.fetch_or(learned.0, Ordering::Relaxed);
                continue;
            }
            attempt += 1;
            let longest = seconds(self.config.max_retry_wait_s);
            match retry::wait(&error, attempt, longest).filter(|_| attempt <= self.config.retries) {
                Some(wait) => {
                    tracing::warn!(%error, attempt, wait_ms = wait.as_millis() as u64, "asking the language model again");
                    tokio::time::sleep(wait).await;
                }
                None => return Err(error),
            }
        }
    }

    async fn attempt(&self, request: &ChatRequest, quirks: Quirks) -> Result<Reply, LlmError> {
        let body = request::body(&self.config.model, request, quirks);
        let mut post = self.client.post(self.url.clone()).json(&body);
        if let Some(key) = &self.key {
            post = post.bearer_auth(key);
        }
        let idle = seconds(self.config.idle_timeout_s);
        let response = match tokio::time::timeout(idle, post.send()).await {
            Err(_) => {
                return Err(LlmError::Stalled {
                    url: self.shown.clone(),
                    waited: idle,
                });
            }
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Ok(Ok(response)) => response,
        };
        if !response.status().is_success() {
            return Err(self.refusal(response, idle).await);
        }
        let kind = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("");
        let whole = kind.starts_with("application/json");
        if kind.starts_with("text/html") {
            return Err(LlmError::Malformed {
                url: self.shown.clone(),
                reason: "a web page".to_owned(),
            });
        }
        let mut reply = Reply {
            response,
            whole: whole.then(Vec::new),
            parser: SseParser::default(),
            assembler: Assembler::new(),
            ready: VecDeque::new(),
            url: self.shown.clone(),
            idle,
        };
        // Until something is there to pass on, a failure may be mended by asking again.
        while reply.ready.is_empty() {
            reply.read().await?;
        }
        Ok(reply)
    }

    /// What a status other than success means.
    async fn refusal(&self, mut response: Response, idle: Duration) -> LlmError {
        let status = response.status();
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .map(str::to_owned)
        };
        let date = header(DATE);
        let retry_after =
            header(RETRY_AFTER).and_then(|value| retry::retry_after(&value, date.as_deref()));
        let location = header(LOCATION);
        let mut body = Vec::new();
        while let Ok(Ok(Some(bytes))) = tokio::time::timeout(idle, response.chunk()).await {
            body.extend_from_slice(&bytes);
            if body.len() > MAX_ERROR_BODY {
                break;
            }
        }
        let (url, message) = (
            self.shown.clone(),
            error_message(&String::from_utf8_lossy(&body)),
        );
        let number = status.as_u16();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => LlmError::Unauthorized {
                url,
                status: number,
                message,
            },
            StatusCode::NOT_FOUND => LlmError::UnknownModel {
                url,
                model: self.config.model.clone(),
                message,
            },
            StatusCode::TOO_MANY_REQUESTS => LlmError::RateLimited {
                url,
                retry_after,
                message,
            },
            _ if status.is_server_error() => LlmError::Upstream {
                url,
                status: Some(number),
                message,
            },
            _ if status.is_redirection() => {
                let to = location.unwrap_or_else(|| "another address".to_owned());
                let message = format!("it has moved to {to}: configure that address");
                LlmError::Rejected {
                    url,
                    status: number,
                    message,
                }
            }
            _ => LlmError::Rejected {
                url,
                status: number,
                message,
            },
        }
    }

    /// Why there is no connection, with what to do.
    fn unreachable(&self, error: &reqwest::Error) -> LlmError {
        let text = chain(error);
        let lower = text.to_lowercase();
        let mut io = None;
        let mut source = error.source();
        while let (None, Some(cause)) = (io, source) {
            io = cause
                .downcast_ref::<std::io::Error>()
                .map(std::io::Error::kind);
            source = cause.source();
        }
        let reason = if io == Some(std::io::ErrorKind::ConnectionRefused) {
            "nothing listens there; start the server (for Ollama: `ollama serve`) or correct the address".to_owned()
        } else if lower.contains("dns") || lower.contains("name resolution") {
            format!("its host name is not known ({text}); check the address and the network")
        } else if ["certificate", "tls", "handshake", "corrupt message"]
            .iter()
            .any(|w| lower.contains(w))
        {
            format!(
                "no secure connection ({text}); check http or https in the address, and the certificate"
            )
        } else if error.is_timeout() {
            format!(
                "no connection within {} s; check the address and the firewall",
                self.config.connect_timeout_s
            )
        } else if error.is_connect() {
            text
        } else {
            // The connection was there and broke before the answer.
            return LlmError::Cut {
                url: self.shown.clone(),
                reason: text,
            };
        };
        LlmError::Unreachable {
            url: self.shown.clone(),
            reason,
        }
    }
}

/// A reply that has begun.
struct Reply {
    response: Response,
    /// The body so far, of an endpoint that does not stream.
    whole: Option<Vec<u8>>,
    parser: SseParser,
    assembler: Assembler,
    ready: VecDeque<Delta>,
    url: String,
    idle: Duration,
}

impl Reply {
    /// Waits for the next bytes and takes what they bring into `ready`.
    async fn read(&mut self) -> Result<(), LlmError> {
        let bytes = match tokio::time::timeout(self.idle, self.response.chunk()).await {
            Err(_) => {
                return Err(LlmError::Stalled {
                    url: self.url.clone(),
                    waited: self.idle,
                });
            }
            Ok(Err(error)) => return Err(self.cut(chain(&error))),
            Ok(Ok(bytes)) => bytes,
        };
        let (mut events, ended) = (Vec::new(), bytes.is_none());
        let read = match (&mut self.whole, bytes) {
            (Some(whole), Some(bytes)) => {
                whole.extend_from_slice(&bytes);
                if whole.len() > MAX_WHOLE_BODY {
                    Err(format!("a reply of more than {MAX_WHOLE_BODY} bytes"))
                } else {
                    Ok(())
                }
            }
            (Some(whole), None) => {
                events.push(String::from_utf8_lossy(whole).into_owned());
                Ok(())
            }
            (None, Some(bytes)) => self.parser.push(&bytes, &mut events),
            (None, None) => self.parser.finish(&mut events),
        };
        let mut deltas = Vec::new();
        for event in &events {
            self.assembler
                .event(event, &mut deltas)
                .map_err(|wrong| match wrong {
                    Wrong::Failed(message) => LlmError::Upstream {
                        url: self.url.clone(),
                        status: None,
                        message,
                    },
                    Wrong::Malformed(reason) => LlmError::Malformed {
                        url: self.url.clone(),
                        reason,
                    },
                })?;
        }
        read.map_err(|reason| LlmError::Malformed {
            url: self.url.clone(),
            reason,
        })?;
        if ended && !self.assembler.end(&mut deltas) {
            return Err(self.cut("it closed before the end".to_owned()));
        }
        self.ready.extend(deltas);
        Ok(())
    }

    fn cut(&self, reason: String) -> LlmError {
        LlmError::Cut {
            url: self.url.clone(),
            reason,
        }
    }
}

/// Passes a reply on until it ends or nobody wants it. Owns the connection: returning closes it.
async fn drive(
    mut reply: Reply,
    sender: mpsc::Sender<Result<Delta, LlmError>>,
    cancel: CancellationToken,
) {
    let pass = async {
        loop {
            while let Some(delta) = reply.ready.pop_front() {
                if sender.send(Ok(delta)).await.is_err() {
                    return;
                }
            }
            if reply.assembler.is_done() {
                return;
            }
            if let Err(error) = reply.read().await {
                // Nobody left to tell if this fails.
                let _ = sender.send(Err(error)).await;
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => drop(sender.try_send(Ok(cancelled()))),
        () = sender.closed() => {}
        () = pass => {}
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}

/// A streamed reply, as the network cuts it, to its end or to what is wrong with it.
pub(crate) fn read_stream(reads: &[&[u8]]) {
    let (mut parser, mut assembler) = (SseParser::default(), Assembler::new());
    let (mut events, mut deltas) = (Vec::new(), Vec::new());
    for read in reads {
        if parser.push(read, &mut events).is_err() {
            return;
        }
    }
    if parser.finish(&mut events).is_err() {
        return;
    }
    for event in &events {
        if assembler.event(event, &mut deltas).is_err() {
            let _ = error_message(event);
            return;
        }
    }
    assembler.end(&mut deltas);
}
