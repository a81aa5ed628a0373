//! The thread that owns llama.cpp's context.
//!
//! Every round gives each running request one step: a batch of its prompt, or one token of its reply. Requests are
//! decoded one by one rather than together, so that what one conversation says never depends, by rounding, on who
//! else is talking.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};

use super::job::{Asked, Command, Job, Running};
use super::slots::Slots;
use super::template::ChatTemplate;
use super::threads::physical_cores;
use super::trim::Turns;
use super::utf8::Utf8Joiner;
use crate::LlmError;
use crate::chat::{ChatRequest, FinishReason, Role, ToolChoice, Usage};
use crate::config::EmbeddedConfig;
use crate::tags::TagFilter;

/// A beginning shorter than this is read again rather than copied from another conversation's cache.
const WORTH_COPYING: usize = 16;
/// Tokens that the repetition penalty looks back.
const PENALTY_WINDOW: i32 = 64;

/// How a step leaves a request.
enum Step {
    More,
    Finished(FinishReason),
}

struct Engine<'m> {
    config: &'m EmbeddedConfig,
    model: &'m LlamaModel,
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    template: ChatTemplate,
    slots: Slots<LlamaToken>,
    /// Tokens that one sequence holds.
    room: usize,
    can_copy: bool,
    waiting: VecDeque<Job>,
    running: Vec<Running>,
    calls: u64,
}

/// llama.cpp may be initialised once in a process.
fn backend() -> Result<&'static LlamaBackend, LlmError> {
    static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    let backend = BACKEND.get_or_init(|| {
        send_logs_to_tracing(LogOptions::default());
        LlamaBackend::init().map_err(|error| error.to_string())
    });
    backend
        .as_ref()
        .map_err(|error| LlmError::Engine(format!("llama.cpp does not start: {error}")))
}

/// The thread: loads, says how it went (with the tokens that a conversation may have), and works until the last
/// sender is gone.
pub(super) fn run(
    config: &EmbeddedConfig,
    commands: &Receiver<Command>,
    loaded: &SyncSender<Result<u32, LlmError>>,
) {
    // Whoever asked for the model may have gone; then the channel of commands is closed too.
    let tell = |result| drop(loaded.send(result));
    let model = match load_model(config) {
        Ok(model) => model,
        Err(error) => return tell(Err(error)),
    };
    let mut engine = match Engine::new(config, &model) {
        Ok(engine) => engine,
        Err(error) => return tell(Err(error)),
    };
    tell(engine.warm_up().map(|()| engine.room as u32));
    engine.work(commands);
}

fn load_model(config: &EmbeddedConfig) -> Result<LlamaModel, LlmError> {
    let params = LlamaModelParams::default()
        .with_use_mmap(true)
        .with_n_gpu_layers(config.gpu_layers);
    LlamaModel::load_from_file(backend()?, &config.path, &params).map_err(|error| LlmError::Load {
        path: config.path.display().to_string(),
        reason: format!(
            "llama.cpp does not take it ({error}): the file is damaged or cut short, of an architecture this \
             version does not know, or too large for the memory; its log has more"
        ),
    })
}

fn engine_error(error: impl std::fmt::Display) -> LlmError {
    LlmError::Engine(error.to_string())
}

impl<'m> Engine<'m> {
    fn new(config: &'m EmbeddedConfig, model: &'m LlamaModel) -> Result<Self, LlmError> {
        let cores = physical_cores();
        let or = |configured: u32, default: u32| if configured == 0 { default } else { configured };
        let threads = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        let sequence = config
            .context
            .min(model.n_ctx_train().max(256))
            .next_multiple_of(256);
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(sequence.saturating_mul(config.slots)))
            .with_n_seq_max(config.slots)
            // Each conversation has its own part of the cache and does not pay for the others' length.
            .with_kv_unified(false)
            .with_n_batch(config.prefill_batch)
            .with_n_ubatch(config.prefill_batch)
            .with_n_threads(threads(or(config.threads, (cores - 1).max(1))))
            .with_n_threads_batch(threads(or(config.prefill_threads, cores)))
            .with_no_perf(true);
        let context = model.new_context(backend()?, params).map_err(|error| LlmError::Load {
            path: config.path.display().to_string(),
            reason: format!(
                "no memory for its cache ({error}): lower `context` ({sequence}) or `slots` ({})",
                config.slots
            ),
        })?;
        let vocab = model.vocab();
        let text = |token: LlamaToken| {
            if token.0 < 0 {
                return String::new();
            }
            String::from_utf8_lossy(&vocab.token_to_piece(token, true, None)).into_owned()
        };
        let control = vocab
            .tokens()
            .filter(|token| vocab.is_control(*token))
            .map(text);
        let control = control.filter(|text| text.len() > 2).collect();
        let source = model
            .chat_template(None)
            .ok()
            .and_then(|template| template.to_string().ok());
        let template = ChatTemplate::new(source, text(vocab.bos()), text(vocab.eos()), control)?;
        Ok(Self {
            config,
            model,
            context,
            batch: LlamaBatch::new(config.prefill_batch as usize, 1),
            template,
            slots: Slots::new(config.slots as usize),
            room: sequence as usize,
            // A recurrent state cannot be cut back to a shared beginning.
            can_copy: !model.is_recurrent() && !model.is_hybrid(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            calls: 0,
        })
    }

    /// One whole batch and one token through every layer, so that the first conversation finds the weights in
    /// memory.
    fn warm_up(&mut self) -> Result<(), LlmError> {
        let token = self.model.vocab().eos();
        let token = if token.0 < 0 {
            LlamaToken::new(0)
        } else {
            token
        };
        let tokens = vec![token; self.config.prefill_batch as usize];
        decode(&mut self.context, &mut self.batch, 0, 0, &tokens, true)?;
        decode(
            &mut self.context,
            &mut self.batch,
            0,
            tokens.len(),
            &tokens[..1],
            true,
        )?;
        self.context.clear_kv_cache();
        Ok(())
    }

    fn work(&mut self, commands: &Receiver<Command>) {
        loop {
            // With nothing running every slot is free, so what waits now is admitted below.
            if self.running.is_empty() && self.waiting.is_empty() {
                match commands.recv() {
                    Ok(command) => self.take(command),
                    Err(_) => return,
                }
            }
            while let Ok(command) = commands.try_recv() {
                self.take(command);
            }
            self.admit();
            let mut index = 0;
            while index < self.running.len() {
                match self.step(index) {
                    Ok(Step::More) => index += 1,
                    Ok(Step::Finished(reason)) => self.end(index, Ok(reason)),
                    Err(error) => self.end(index, Err(error)),
                }
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Forget(conversation) => {
                self.waiting.retain(|job| {
                    job.request.conversation != conversation || !job.asked.is_prepare()
                });
                if let Some(slot) = self.slots.forget(&conversation) {
                    self.clear(slot);
                }
            }
            Command::Job(job) => {
                // What is being prepared serves the newer request as far as it has come.
                let name = &job.request.conversation;
                let overtaken =
                    |asked: &Asked, conversation: &str| asked.is_prepare() && conversation == name;
                self.waiting
                    .retain(|job| !overtaken(&job.asked, &job.request.conversation));
                while let Some(index) = self
                    .running
                    .iter()
                    .position(|r| overtaken(&r.asked, &r.conversation))
                {
                    self.end(index, Ok(FinishReason::Cancelled));
                }
                self.waiting.push_back(*job);
            }
        }
    }

    /// Gives slots to waiting requests, in order of arrival, as far as there are any.
    fn admit(&mut self) {
        for mut job in std::mem::take(&mut self.waiting) {
            if job.cancel.is_cancelled() || job.asked.is_deserted() {
                job.asked
                    .end(Ok((FinishReason::Cancelled, Usage::default())));
                continue;
            }
            let Some(slot) = self.slots.take(&job.request.conversation) else {
                self.waiting.push_back(job);
                continue;
            };
            job.ticket = None;
            match self.begin(&job, slot) {
                Ok((prompt, usage, limit)) => {
                    let calls = !job.request.tools.is_empty()
                        && job.request.tool_choice != ToolChoice::None;
                    self.running.push(Running {
                        sampler: sampler(self.config, &job.request, self.model),
                        asked: job.asked,
                        conversation: job.request.conversation,
                        cancel: job.cancel,
                        slot,
                        prompt,
                        usage,
                        limit,
                        token: None,
                        joiner: Utf8Joiner::default(),
                        filter: TagFilter::new(calls),
                        calls: 0,
                        malformed_call: false,
                    });
                }
                Err(error) => {
                    self.slots.give_back(slot);
                    job.asked.end(Err(error));
                }
            }
        }
    }

    /// Makes the prompt, and brings the slot's cache back to what the prompt has in common with it.
    fn begin(&mut self, job: &Job, slot: usize) -> Result<(Vec<LlamaToken>, Usage, u32), LlmError> {
        let request = &job.request;
        let reply = !job.asked.is_prepare();
        let wanted = request.max_tokens.unwrap_or(self.config.max_tokens) as usize;
        let available = self.room - wanted.min(self.room / 4);
        let turns = Turns::of(&request.messages);
        let last = request.messages.last().map(|message| message.role);
        let open = reply || matches!(last, Some(Role::User | Role::Tool));
        let mut best = (usize::MAX, Vec::new());
        let before = self.slots.get(slot).dropped_turns;
        let dropped = turns.fit(available, before, |out| {
            if best.0 != out {
                let left_out = turns.left_out(out);
                let mut messages = request.messages.clone();
                messages.drain(left_out);
                best = (
                    out,
                    self.tokenize(&self.template.render(request, &messages, open)?),
                );
            }
            Ok::<_, LlmError>(best.1.len())
        })?;
        let dropped = dropped.map_err(|needed| LlmError::ContextTooSmall { needed, available })?;
        // `fit` asks last for the number it settles on.
        let prompt = best.1;
        if prompt.is_empty() {
            return Err(LlmError::Template(
                "it made no prompt of these messages".to_owned(),
            ));
        }
        self.slots.get(slot).dropped_turns = dropped;

        let mut common = self.slots.common(slot, &prompt);
        let (other, shared) = self.slots.best(&prompt);
        if self.can_copy && other != slot && shared >= common + WORTH_COPYING {
            self.context
                .copy_kv_cache_seq(other as i32, slot as i32, None, None)
                .map_err(engine_error)?;
            self.slots.get(slot).tokens = self.slots.get(other).tokens.clone();
            common = shared;
        }
        // The last token must be decoded for there to be a next one.
        common = common.min(prompt.len() - usize::from(reply));
        self.roll_back(slot, &mut common);
        let usage = Usage {
            prompt_tokens: prompt.len() as u32,
            cached_tokens: common as u32,
            completion_tokens: 0,
            dropped_messages: turns.left_out(dropped).len() as u32,
        };
        let limit = wanted.min(self.room - prompt.len()) as u32;
        Ok((prompt, usage, limit))
    }

    fn tokenize(&self, prompt: &str) -> Vec<LlamaToken> {
        let vocab = self.model.vocab();
        let bos = vocab.bos();
        // Many templates write the first token themselves.
        let written = bos.0 >= 0
            && prompt
                .as_bytes()
                .starts_with(&vocab.token_to_piece(bos, true, None));
        vocab.tokenize(prompt.as_bytes(), vocab.should_add_bos() && !written, true)
    }

    /// Cuts a slot's cache to its first `keep` tokens; to none where the model cannot do that.
    fn roll_back(&mut self, slot: usize, keep: &mut usize) {
        if self.slots.get(slot).tokens.len() > *keep {
            let cut = self
                .context
                .clear_kv_cache_seq(Some(slot as u32), Some(*keep as u32), None);
            if !matches!(cut, Ok(true)) {
                self.clear(slot);
                *keep = 0;
            }
        }
        self.slots.get(slot).tokens.truncate(*keep);
    }

    fn clear(&mut self, slot: usize) {
        // Removing a whole sequence cannot fail.
        let _ = self
            .context
            .clear_kv_cache_seq(Some(slot as u32), None, None);
        self.slots.get(slot).tokens.clear();
    }

    fn step(&mut self, index: usize) -> Result<Step, LlmError> {
        let running = &mut self.running[index];
        if running.cancel.is_cancelled() || running.asked.is_deserted() {
            return Ok(Step::Finished(FinishReason::Cancelled));
        }
        let slot = self.slots.get(running.slot);
        let at = slot.tokens.len();
        let (next, last) = match &running.token {
            Some(token) => (std::slice::from_ref(token), true),
            None => {
                let end = running
                    .prompt
                    .len()
                    .min(at + self.config.prefill_batch as usize);
                (
                    &running.prompt[at.min(end)..end],
                    end == running.prompt.len(),
                )
            }
        };
        let wants_token = last && !running.asked.is_prepare();
        if !next.is_empty() {
            decode(
                &mut self.context,
                &mut self.batch,
                running.slot,
                at,
                next,
                wants_token,
            )?;
            slot.tokens.extend_from_slice(next);
        }
        if !wants_token {
            return Ok(if last {
                Step::Finished(FinishReason::Stop)
            } else {
                Step::More
            });
        }
        let token = running.sampler.sample(&self.context, -1);
        let vocab = self.model.vocab();
        if vocab.is_eog(token) {
            return Ok(Step::Finished(FinishReason::Stop));
        }
        running.token = Some(token);
        running.usage.completion_tokens += 1;
        let text = running
            .joiner
            .push(&vocab.token_to_piece(token, false, None));
        let pieces = running.filter.push(&text);
        running.give(pieces, &mut self.calls);
        let full = running.usage.completion_tokens >= running.limit;
        Ok(if full {
            Step::Finished(FinishReason::Length)
        } else {
            Step::More
        })
    }

    /// Ends a request; its slot keeps what was read and written.
    fn end(&mut self, index: usize, result: Result<FinishReason, LlmError>) {
        let mut running = self.running.remove(index);
        if result.is_err() {
            // What the cache holds after a failure is not known.
            self.clear(running.slot);
        }
        self.slots.give_back(running.slot);
        let result = result.map(|reason| {
            if reason == FinishReason::Cancelled || running.asked.is_prepare() {
                return (reason, running.usage);
            }
            let text = running.joiner.finish();
            let mut pieces = running.filter.push(&text);
            pieces.extend(running.filter.finish());
            running.give(pieces, &mut self.calls);
            let reason = match reason {
                FinishReason::Stop if running.calls > 0 => FinishReason::ToolCalls,
                FinishReason::Stop if running.malformed_call => {
                    FinishReason::Other("malformed_tool_call".to_owned())
                }
                other => other,
            };
            (reason, running.usage)
        });
        if let Err(error) = &result {
            tracing::error!(%error, "a reply failed");
        }
        running.asked.end(result);
    }
}

/// Decodes `tokens` of one sequence from position `at`; `output`: the last one's logits are wanted.
fn decode(
    context: &mut LlamaContext<'_>,
    batch: &mut LlamaBatch<'_>,
    sequence: usize,
    at: usize,
    tokens: &[LlamaToken],
    output: bool,
) -> Result<(), LlmError> {
    batch.clear();
    for (offset, token) in tokens.iter().enumerate() {
        let last = offset + 1 == tokens.len();
        batch
            .add(
                *token,
                (at + offset) as i32,
                &[sequence as i32],
                output && last,
            )
            .map_err(engine_error)?;
    }
    context.decode(batch).map_err(engine_error)
}

fn sampler(config: &EmbeddedConfig, request: &ChatRequest, model: &LlamaModel) -> LlamaSampler {
    let temperature = request.temperature.unwrap_or(config.temperature);
    let mut chain = Vec::new();
    if config.repeat_penalty != 1.0 {
        chain.push(LlamaSampler::penalties(
            model.n_vocab(),
            PENALTY_WINDOW,
            config.repeat_penalty,
            0.0,
            0.0,
        ));
    }
    if temperature <= 0.0 {
        chain.push(LlamaSampler::greedy());
    } else {
        let seed = request.seed.or(config.seed);
        // A hasher with random keys, hashing nothing: a random number without another dependency.
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(()) as u32);
        chain.extend([
            LlamaSampler::top_k(40),
            LlamaSampler::top_p(request.top_p.unwrap_or(config.top_p), 1),
            LlamaSampler::min_p(config.min_p, 1),
            LlamaSampler::temp(temperature),
            LlamaSampler::dist(seed),
        ]);
    }
    LlamaSampler::chain(chain, true)
}
