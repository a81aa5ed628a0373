//! What can go wrong between a client and its server.

use std::path::PathBuf;

use duologue_audio::{DecodeError, ResampleError};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::http::header::InvalidHeaderValue;

/// Why a conversation cannot be held, or goes no further.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// What was given leads to no server.
    #[error("{url:?} is not an address; write it as ws://host:port/v1/realtime")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: Box<tungstenite::Error>,
    },
    /// The key has characters that a header cannot carry.
    #[error("the API key cannot be sent; copy it anew, without spaces and line ends")]
    Key(#[source] InvalidHeaderValue),
    /// The server answered, and takes no conversation.
    #[error("{url} answered {status}: {message}")]
    Refused {
        /// The server.
        url: String,
        /// Its answer.
        status: StatusCode,
        /// What it says.
        message: String,
    },
    /// Nobody answers.
    #[error("cannot reach {url}; start the server with `duologue serve`")]
    Unreachable {
        /// The server.
        url: String,
        /// What the system said.
        source: Box<tungstenite::Error>,
    },
    /// The connection is gone.
    #[error("the connection broke")]
    Broken(#[source] Box<tungstenite::Error>),
    /// An event cannot be read.
    #[error("the server sent what is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// Sound cannot be read.
    #[error("the server sent sound that is not base64")]
    NotBase64(#[source] base64::DecodeError),
    /// A file is no sound.
    #[error("cannot read {}", path.display())]
    Sound {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A file's sample rate cannot be brought to [`RATE`](crate::RATE).
    #[error(transparent)]
    Rate(#[from] ResampleError),
}
