//! A language model answers, piece by piece, and its text is made speakable on its way to the voice.
//!
//! Two kinds of model stand behind one trait, [`ChatModel`]: an OpenAI-compatible endpoint, and a GGUF file run
//! in this process (feature `llama`). [`speakable`] is apart from both: pure text in, clauses for the voice out.

mod chat;
mod config;
#[cfg(feature = "llama")]
mod embedded;
mod endpoint;
mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod speakable;
mod tags;

use std::sync::Arc;

use tokio::sync::mpsc;

pub use chat::{
    ChatModel, ChatRequest, Delta, FinishReason, Message, ModelInfo, ReplyStream, Role, Tool,
    ToolCall, ToolChoice, Usage,
};
pub use config::{DEFAULT_INSTRUCTIONS, EmbeddedConfig, EndpointConfig, LlmConfig};
pub use error::LlmError;

/// Loads a model and, where it is embedded, warms it up. Blocks for as long as that takes (seconds): call it
/// from a blocking thread.
///
/// # Errors
/// [`LlmError::Config`] or [`LlmError::Load`]. An endpoint is not contacted here.
pub fn load(config: &LlmConfig) -> Result<Arc<dyn ChatModel>, LlmError> {
    match config {
        LlmConfig::Endpoint(config) => Ok(Arc::new(endpoint::EndpointModel::new(config)?)),
        #[cfg(feature = "llama")]
        LlmConfig::Embedded(config) => Ok(Arc::new(embedded::EmbeddedModel::load(config)?)),
        #[cfg(not(feature = "llama"))]
        LlmConfig::Embedded(_) => Err(LlmError::Config(
            "this build has no embedded language model: configure an endpoint, or build with the feature `llama`"
                .to_owned(),
        )),
    }
}

/// A reply that a task or thread sends piece by piece.
fn stream_of(mut receiver: mpsc::Receiver<Result<Delta, LlmError>>) -> ReplyStream {
    Box::pin(futures_util::stream::poll_fn(move |context| {
        receiver.poll_recv(context)
    }))
}
