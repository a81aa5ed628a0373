//! What the worker refuses, and the gRPC status that tells it.
//!
//! One place for codes and words, so that the ABI's comments can be checked against it.

use std::time::Duration;

use duologue_tts::TtsError;
use tonic::{Code, Status};

use crate::model_manager::ModelError;
use crate::sessions::Ended;

/// Why a call is refused or an utterance ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no session {0:?} on this worker; start one")]
    UnknownSession(String),
    #[error("session {0:?} has ended ({why}); start a new one", why = ended(*.1))]
    SessionEnded(String, Ended),
    #[error("a session {0:?} is open already; end it or take another id")]
    SessionExists(String),
    #[error(
        "all {0} sessions of this worker are taken; end one, try again later or ask another worker"
    )]
    Full(usize),
    #[error(
        "session {0:?} is still speaking; one utterance at a time: STOP it or wait for its final frame"
    )]
    Speaking(String),
    #[error("no voice was asked for and this worker has no default voice; name one")]
    NoDefaultVoice,
    #[error("the worker is shutting down; ask another")]
    ShuttingDown,
    #[error("{what} has {bytes} bytes: give 1 to {limit}")]
    BadId {
        what: &'static str,
        bytes: usize,
        limit: usize,
    },
    #[error("lead_ms is {0}: give 20 to 3600000, or 0 for the worker's default")]
    BadLead(u32),
    #[error("{0}")]
    BadAction(&'static str),
    #[error(
        "text chunk {chunk} has {chars} characters; this voice takes at most {limit} in a chunk: cut it at a sentence"
    )]
    ChunkTooLong {
        chunk: usize,
        chars: usize,
        limit: usize,
    },
    #[error(
        "text chunk {chunk} names {what} {found:?}, the first one named {expected:?}; one utterance a stream"
    )]
    MixedStream {
        chunk: usize,
        what: &'static str,
        found: String,
        expected: String,
    },
    #[error(
        "the stream ended before its first text chunk, which names the session and the utterance"
    )]
    NoFirstChunk,
    #[error("{what} for {seconds} s; the utterance was ended", seconds = .waited.as_secs())]
    TimedOut {
        what: &'static str,
        waited: Duration,
    },
    #[error("the voice's engine crashed: {0}")]
    EngineCrash(String),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Voice(#[from] TtsError),
}

fn ended(why: Ended) -> String {
    match why {
        Ended::Asked => "by EndSession".to_owned(),
        Ended::Idle(limit) => format!("it said nothing for {} s", limit.as_secs()),
    }
}

impl Refusal {
    fn code(&self) -> Code {
        match self {
            Refusal::UnknownSession(_) => Code::NotFound,
            Refusal::SessionExists(_) => Code::AlreadyExists,
            Refusal::Full(_) => Code::ResourceExhausted,
            Refusal::SessionEnded(..) | Refusal::Speaking(_) => Code::FailedPrecondition,
            Refusal::ShuttingDown => Code::Unavailable,
            Refusal::NoDefaultVoice
            | Refusal::BadId { .. }
            | Refusal::BadLead(_)
            | Refusal::BadAction(_)
            | Refusal::ChunkTooLong { .. }
            | Refusal::MixedStream { .. }
            | Refusal::NoFirstChunk => Code::InvalidArgument,
            Refusal::TimedOut { .. } => Code::DeadlineExceeded,
            Refusal::EngineCrash(_) => Code::Internal,
            Refusal::Model(error) => match error {
                ModelError::Unknown { .. } => Code::NotFound,
                ModelError::Load { .. } | ModelError::InUse { .. } | ModelError::Loading { .. } => {
                    Code::FailedPrecondition
                }
                ModelError::NoRoom { .. } => Code::ResourceExhausted,
                ModelError::Slow { .. } => Code::DeadlineExceeded,
                ModelError::List(_) => Code::Internal,
            },
            Refusal::Voice(error) => match error {
                TtsError::TextTooLong { .. }
                | TtsError::UnknownSpeaker { .. }
                | TtsError::BadSetting(_) => Code::InvalidArgument,
                TtsError::Stopped => Code::Cancelled,
                TtsError::Engine(_) => Code::Internal,
                TtsError::Load(_) => Code::FailedPrecondition,
            },
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Status::new(refusal.code(), refusal.to_string())
    }
}
