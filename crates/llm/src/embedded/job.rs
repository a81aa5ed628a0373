//! A request on its way through the engine: what is wanted, and what has come of it so far.

use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Ticket;
use super::utf8::Utf8Joiner;
use crate::LlmError;
use crate::chat::{ChatRequest, Delta, FinishReason, Usage};
use crate::tags::{Piece, TagFilter, parse_call};

/// What the engine is told.
pub(super) enum Command {
    Job(Box<Job>),
    Forget(String),
}

/// A request, from the moment it is sent.
pub(super) struct Job {
    pub(super) asked: Asked,
    pub(super) request: ChatRequest,
    pub(super) cancel: CancellationToken,
    /// Its place among the waiting; freed when it has a slot.
    pub(super) ticket: Option<Ticket>,
}

/// What is wanted.
pub(super) enum Asked {
    Reply(mpsc::Sender<Result<Delta, LlmError>>),
    /// Only that the prompt is read.
    Prepare(oneshot::Sender<()>),
}

impl Asked {
    /// Whether nobody waits for it any more.
    pub(super) fn is_deserted(&self) -> bool {
        match self {
            Asked::Reply(sender) => sender.is_closed(),
            Asked::Prepare(done) => done.is_closed(),
        }
    }

    pub(super) fn is_prepare(&self) -> bool {
        matches!(self, Asked::Prepare(_))
    }

    fn give(&self, item: Result<Delta, LlmError>) {
        if let Asked::Reply(sender) = self {
            // The channel has room for the longest reply; a reader who has gone is noticed in the next step.
            let _ = sender.try_send(item);
        }
    }

    pub(super) fn end(self, result: Result<(FinishReason, Usage), LlmError>) {
        match self {
            Asked::Reply(_) => {
                self.give(result.map(|(reason, usage)| Delta::Done { reason, usage }))
            }
            // The waiting side may have gone.
            Asked::Prepare(done) => drop(done.send(())),
        }
    }
}

/// A request that has a slot.
pub(super) struct Running {
    pub(super) asked: Asked,
    pub(super) conversation: String,
    pub(super) cancel: CancellationToken,
    pub(super) slot: usize,
    pub(super) prompt: Vec<LlamaToken>,
    pub(super) usage: Usage,
    pub(super) limit: u32,
    pub(super) sampler: LlamaSampler,
    /// Sampled and given, not yet decoded. `None` while the prompt is read.
    pub(super) token: Option<LlamaToken>,
    pub(super) joiner: Utf8Joiner,
    pub(super) filter: TagFilter,
    pub(super) calls: u32,
    pub(super) malformed_call: bool,
}

impl Running {
    pub(super) fn give(&mut self, pieces: Vec<Piece>, calls: &mut u64) {
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.asked.give(Ok(Delta::Text(text))),
                Piece::Call(body) => {
                    *calls += 1;
                    match parse_call(&body, format!("call_{calls}")) {
                        Some(call) => {
                            self.calls += 1;
                            self.asked.give(Ok(Delta::ToolCall(call)));
                        }
                        None => {
                            self.malformed_call = true;
                            tracing::warn!(
                                "the model wrote a tool call that is not JSON; it was left out"
                            );
                        }
                    }
                }
            }
        }
    }
}
