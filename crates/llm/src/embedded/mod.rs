//! A GGUF model in this process, run by llama.cpp.
//!
//! One thread owns the model's context and takes turns among the requests, a token or a small batch of prompt at a
//! time, so conversations share the processor evenly and a cancelled one is noticed at once. Each conversation
//! keeps its tokens in the cache between turns; the next request reads only what differs, also when the history
//! has become shorter because the user interrupted.

mod engine;
mod file;
mod job;
mod slots;
mod template;
mod threads;
mod trim;
mod utf8;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::job::{Asked, Command, Job};
use crate::chat::{ChatModel, ChatRequest, ModelInfo, ReplyStream};
use crate::config::EmbeddedConfig;
use crate::{LlmError, stream_of};

/// Room in the engine's channel beyond the waiting requests, for conversations that end.
const ENDINGS: usize = 256;

/// A model in this process.
pub(crate) struct EmbeddedModel {
    info: ModelInfo,
    commands: SyncSender<Command>,
    waiting: Arc<AtomicUsize>,
    config: EmbeddedConfig,
}

impl EmbeddedModel {
    /// Loads and warms up; blocks until that is done.
    pub(crate) fn load(config: &EmbeddedConfig) -> Result<Self, LlmError> {
        let mut config = config.clone();
        config.path = file::find(&config.path)?;
        file::check(&config.path)?;
        if config.name.is_empty() {
            config.name = file::name(&config.path);
        }
        if config.context < 256 {
            return Err(LlmError::Config(format!(
                "`context` is {}; the embedded model needs at least 256 tokens",
                config.context
            )));
        }
        config.slots = config.slots.clamp(1, 64);
        config.prefill_batch = config.prefill_batch.clamp(1, 2048);
        let (commands, received) = sync_channel(config.queue + ENDINGS);
        let (loaded, result) = sync_channel(1);
        let for_engine = config.clone();
        std::thread::Builder::new()
            .name("llm".to_owned())
            .spawn(move || engine::run(&for_engine, &received, &loaded))
            .map_err(|error| LlmError::Engine(format!("cannot start its thread: {error}")))?;
        let context = result.recv().map_err(|_| stopped())??;
        let info = ModelInfo {
            name: config.name.clone(),
            location: "embedded".to_owned(),
            context_tokens: Some(context),
        };
        Ok(Self {
            info,
            commands,
            waiting: Arc::new(AtomicUsize::new(0)),
            config,
        })
    }

    fn send(
        &self,
        asked: Asked,
        request: ChatRequest,
        cancel: CancellationToken,
    ) -> Result<(), LlmError> {
        let ticket = Some(Ticket::take(&self.waiting, self.config.queue)?);
        let command = Command::Job(Box::new(Job {
            asked,
            request,
            cancel,
            ticket,
        }));
        self.commands
            .try_send(command)
            .map_err(|error| match error {
                TrySendError::Full(_) => LlmError::Busy {
                    waiting: self.config.queue,
                },
                TrySendError::Disconnected(_) => stopped(),
            })
    }
}

fn stopped() -> LlmError {
    LlmError::Engine("its thread has ended; see the log, and restart".to_owned())
}

/// A place among the waiting requests; dropping it frees the place.
struct Ticket(Arc<AtomicUsize>);

impl Ticket {
    fn take(waiting: &Arc<AtomicUsize>, most: usize) -> Result<Self, LlmError> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let ticket = Self(waiting.clone());
        if before >= most.max(1) {
            Err(LlmError::Busy { waiting: before })
        } else {
            Ok(ticket)
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl ChatModel for EmbeddedModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn reply(
        &self,
        mut request: ChatRequest,
        cancel: CancellationToken,
    ) -> Result<ReplyStream, LlmError> {
        let context = self.info.context_tokens.unwrap_or(u32::MAX);
        let most = request
            .max_tokens
            .unwrap_or(self.config.max_tokens)
            .clamp(1, context);
        request.max_tokens = Some(most);
        // Room for the longest reply, so that the engine never waits for a slow reader: a token gives at most a
        // text and a call.
        let (sender, receiver) = mpsc::channel(2 * most as usize + 16);
        self.send(Asked::Reply(sender), request, cancel)?;
        Ok(stream_of(receiver))
    }

    async fn prepare(&self, request: &ChatRequest, cancel: CancellationToken) {
        let (done, result) = oneshot::channel();
        match self.send(Asked::Prepare(done), request.clone(), cancel) {
            // An error here only says that the engine dropped the request: it was cancelled or overtaken.
            Ok(()) => drop(result.await),
            Err(error) => tracing::debug!(%error, "not prepared"),
        }
    }

    fn forget(&self, conversation: &str) {
        // When the channel is full the slot is not emptied but goes to the next conversation that needs one.
        let _ = self
            .commands
            .try_send(Command::Forget(conversation.to_owned()));
    }
}
