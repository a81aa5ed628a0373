//! Why there is no reply, in words that say what to do about it.

use std::time::Duration;

/// Why a model did not answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LlmError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// A model file cannot be loaded.
    #[error("cannot load the language model {path}: {reason}")]
    Load {
        /// The file.
        path: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// No connection to the endpoint: refused, no such host, TLS.
    #[error("cannot reach the language model at {url}: {reason}")]
    Unreachable {
        /// The endpoint.
        url: String,
        /// What failed and what to do.
        reason: String,
    },
    /// HTTP 401 or 403.
    #[error(
        "{url} refused the key ({status}{}): set OPENAI_API_KEY, or api_key_env in the configuration, to a key that may use this model",
        said(.message)
    )]
    Unauthorized {
        /// The endpoint.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the endpoint said.
        message: String,
    },
    /// HTTP 404.
    #[error(
        "{url} has no model {model:?} (404{}): check the model's name, and that the address ends where the API begins (often /v1)",
        said(.message)
    )]
    UnknownModel {
        /// The endpoint.
        url: String,
        /// The model asked for.
        model: String,
        /// What the endpoint said.
        message: String,
    },
    /// HTTP 429, after retries.
    #[error("{url} is limiting requests (429{}){}", said(.message), retry(.retry_after))]
    RateLimited {
        /// The endpoint.
        url: String,
        /// When the endpoint says to come back.
        retry_after: Option<Duration>,
        /// What the endpoint said.
        message: String,
    },
    /// Another 4xx: the endpoint does not like the request.
    #[error("{url} rejected the request ({status}{})", said(.message))]
    Rejected {
        /// The endpoint.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the endpoint said.
        message: String,
    },
    /// 5xx, after retries, or an error within the stream.
    #[error("{url} failed ({}{}): look at its log", .status.map_or("error in the stream".to_owned(), |s| s.to_string()), said(.message))]
    Upstream {
        /// The endpoint.
        url: String,
        /// The HTTP status; `None` for an error told within the stream.
        status: Option<u16>,
        /// What the endpoint said.
        message: String,
    },
    /// The answer is not what an OpenAI-compatible endpoint sends.
    #[error(
        "{url} sent something that is not an OpenAI-compatible stream: {reason}; check that the address is that of the API, not of a web page"
    )]
    Malformed {
        /// The endpoint.
        url: String,
        /// What was wrong.
        reason: String,
    },
    /// The connection ended before the reply did.
    #[error("the connection to {url} broke in the middle of a reply: {reason}")]
    Cut {
        /// The endpoint.
        url: String,
        /// What happened.
        reason: String,
    },
    /// Nothing came for longer than allowed.
    #[error("{url} sent nothing for {waited:?}: it is overloaded, loading the model, or gone")]
    Stalled {
        /// The endpoint.
        url: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The embedded model's queue is full.
    #[error("the language model is busy with {waiting} waiting requests; try again shortly")]
    Busy {
        /// Requests waiting.
        waiting: usize,
    },
    /// The system prompt and the last turn alone do not fit.
    #[error(
        "the system prompt and the last turn need {needed} tokens, but the context has room for {available}: shorten them, or raise `context`"
    )]
    ContextTooSmall {
        /// Tokens needed.
        needed: usize,
        /// Tokens there is room for.
        available: usize,
    },
    /// The model's chat template cannot be used.
    #[error("the model's chat template failed: {0}")]
    Template(String),
    /// The engine failed.
    #[error("the language model's engine failed: {0}")]
    Engine(String),
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

fn retry(after: &Option<Duration>) -> String {
    match after {
        Some(after) => format!("; it says to try again in {} s", after.as_secs()),
        None => "; try again later, or raise the limit of your account".to_owned(),
    }
}
