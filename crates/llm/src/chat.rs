//! What a conversation asks of a language model, whichever model answers.
//!
//! A reply is a stream that may be dropped at any moment: a spoken reply is cut off more often than it is read to
//! its end, so cancelling is the ordinary case and must free the engine at once.

use std::pin::Pin;

use async_trait::async_trait;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::LlmError;

/// A reply on its way. Ends after [`Delta::Done`] or after the first error.
pub type ReplyStream = Pin<Box<dyn Stream<Item = Result<Delta, LlmError>> + Send>>;

/// A language model that holds conversations. Shared by all sessions.
#[async_trait]
pub trait ChatModel: Send + Sync {
    /// What answers.
    fn info(&self) -> &ModelInfo;

    /// Streams a reply. Dropping the stream, or cancelling `cancel`, stops the generation at once; a cancelled
    /// stream ends with [`Delta::Done`] and [`FinishReason::Cancelled`] if anybody still reads it.
    ///
    /// # Errors
    /// Any [`LlmError`], here when nothing was generated yet, else as the stream's last item.
    async fn reply(
        &self,
        request: ChatRequest,
        cancel: CancellationToken,
    ) -> Result<ReplyStream, LlmError>;

    /// A hint that these messages will begin the conversation's next request, so that a model that keeps a cache
    /// can read them now. The last message may be unfinished. Returns when that is done, cancelled, or given up
    /// because a reply of the same conversation came; errors are left for that reply to tell.
    async fn prepare(&self, request: &ChatRequest, cancel: CancellationToken) {
        let _ = (request, cancel);
    }

    /// The conversation has ended: frees what was kept for it.
    fn forget(&self, conversation: &str) {
        let _ = conversation;
    }
}

/// What answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelInfo {
    /// The model's name, as the endpoint or the file calls it.
    pub name: String,
    /// Where it runs: `embedded`, or the endpoint's address without credentials.
    pub location: String,
    /// Tokens that a conversation and its reply may have together; `None` where the endpoint does not say.
    pub context_tokens: Option<u32>,
}

/// One question to the model, with all that was said before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatRequest {
    /// Names the conversation whose cache may be used. Requests of one conversation are answered one at a time.
    pub conversation: String,
    /// System prompt first, then the turns in order.
    pub messages: Vec<Message>,
    /// Functions that the model may call.
    pub tools: Vec<Tool>,
    /// Whether it may, must or must not call them.
    pub tool_choice: ToolChoice,
    /// The reply's greatest length in tokens; `None` is the model's default.
    pub max_tokens: Option<u32>,
    /// 0.0 (always the likeliest token) to 2.0; `None` is the model's default.
    pub temperature: Option<f32>,
    /// Nucleus sampling, 0.0 to 1.0; `None` is the model's default.
    pub top_p: Option<f32>,
    /// Makes sampling repeatable where the model can.
    pub seed: Option<u32>,
}

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The human.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
}

impl Role {
    /// The name that chat formats use.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said. For an interrupted reply: what was heard of it.
    pub content: String,
    /// Calls that the assistant made in this message.
    pub tool_calls: Vec<ToolCall>,
    /// For [`Role::Tool`]: the call this is the result of.
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }

    /// Instructions to the model.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// What the human said.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// The result of the call `id`.
    pub fn tool(id: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            tool_call_id: Some(id.into()),
            ..Self::new(Role::Tool, content)
        }
    }
}

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does, for the model to read.
    pub description: String,
    /// JSON schema of its arguments.
    pub parameters: serde_json::Value,
}

/// Whether tools are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model sees fit.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// At least one. The embedded model is told so in its prompt and may still not obey.
    Required,
    /// This one; with the same reserve.
    Function(String),
}

/// A call that the model makes, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Names the call; its result carries the same.
    pub id: String,
    /// Name of the tool.
    pub name: String,
    /// Arguments: JSON text as the model wrote it, not checked against the schema.
    pub arguments: String,
}

/// A piece of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// More text; never empty.
    Text(String),
    /// A call, after its last piece has arrived.
    ToolCall(ToolCall),
    /// The reply's end.
    Done {
        /// Why it ended.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
}

/// Why a reply ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model had no more to say.
    Stop,
    /// The length allowed was reached.
    Length,
    /// The model waits for the results of its calls.
    ToolCalls,
    /// The endpoint withheld the rest.
    ContentFilter,
    /// The caller cancelled.
    Cancelled,
    /// A reason this version does not know, as the endpoint named it.
    Other(String),
}

/// What a reply took, in tokens. Zero where an endpoint does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The prompt's length.
    pub prompt_tokens: u32,
    /// How much of it was taken from the cache. The rest was read anew.
    pub cached_tokens: u32,
    /// The reply's length.
    pub completion_tokens: u32,
    /// Oldest messages left out of the prompt because the context was full.
    pub dropped_messages: u32,
}
