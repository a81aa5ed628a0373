//! Prints how soon the embedded model begins to answer and how fast it goes on, as a conversation feels it: the
//! history is kept, the question is new.
//!
//! `cargo run --release -p duologue-llm --example reply_latency -- [model.gguf] [threads] [prefill threads] [prefill batch]`

use std::time::Instant;

use duologue_llm::{
    ChatRequest, DEFAULT_INSTRUCTIONS, Delta, EmbeddedConfig, LlmConfig, Message, load,
};
use duologue_voicepack::VoicepackStore;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

const QUESTIONS: [&str; 4] = [
    "What is the capital of France?",
    "And which river runs through it?",
    "How long is that river?",
    "Tell me something about a famous bridge there.",
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = match arguments.next() {
        Some(path) => path.into(),
        None => VoicepackStore::open_default()?.dir("qwen2.5-coder-0.5b-instruct")?,
    };
    let mut number = |default: u32| {
        arguments
            .next()
            .map_or(Ok(default), |number| number.parse())
    };
    let (threads, prefill_threads, prefill_batch) = (number(0)?, number(0)?, number(32)?);
    let started = Instant::now();
    let config = EmbeddedConfig {
        path,
        threads,
        prefill_threads,
        prefill_batch,
        seed: Some(1),
        ..EmbeddedConfig::default()
    };
    let model = load(&LlmConfig::Embedded(config))?;
    println!(
        "loaded and warm in {:.2} s; {}",
        started.elapsed().as_secs_f32(),
        memory()
    );
    let mut messages = vec![Message::system(DEFAULT_INSTRUCTIONS)];
    let mut request = ChatRequest {
        conversation: "one".into(),
        ..ChatRequest::default()
    };
    request.messages = messages.clone();
    let started = Instant::now();
    model.prepare(&request, CancellationToken::new()).await;
    println!(
        "system prompt read in {:.0} ms",
        started.elapsed().as_secs_f32() * 1e3
    );
    let long = ChatRequest {
        conversation: "two".into(),
        messages: vec![Message::user(
            "The quick brown fox jumps over the lazy dog. ".repeat(100),
        )],
        ..ChatRequest::default()
    };
    let (started, computed) = (Instant::now(), processor_seconds());
    model.prepare(&long, CancellationToken::new()).await;
    println!(
        "1,000 tokens read in {:.2} s ({:.2} s of processor time)",
        started.elapsed().as_secs_f32(),
        processor_seconds() - computed
    );
    model.forget("two");
    for question in QUESTIONS {
        messages.push(Message::user(question));
        request.messages = messages.clone();
        let (started, computed) = (Instant::now(), processor_seconds());
        let mut stream = model
            .reply(request.clone(), CancellationToken::new())
            .await?;
        let (mut first, mut text) = (None, String::new());
        let mut first_computed = 0.0;
        while let Some(delta) = stream.next().await {
            match delta? {
                Delta::Text(more) => {
                    first.get_or_insert_with(|| {
                        first_computed = processor_seconds() - computed;
                        started.elapsed()
                    });
                    text.push_str(&more);
                }
                Delta::ToolCall(_) => {}
                Delta::Done { usage, .. } => {
                    let first = first.unwrap_or_default();
                    let rest = (started.elapsed() - first).as_secs_f32();
                    let rest_computed = processor_seconds() - computed - first_computed;
                    let more = usage.completion_tokens.saturating_sub(1) as f32;
                    println!(
                        "{question}\n  {text}\n  read {} of {} tokens; first text after {:.0} ms ({:.0} of processor time); \
                         {} tokens, {:.1} a second ({:.0} ms of processor time each)",
                        usage.prompt_tokens - usage.cached_tokens,
                        usage.prompt_tokens,
                        first.as_secs_f32() * 1e3,
                        first_computed * 1e3,
                        usage.completion_tokens,
                        more / rest,
                        rest_computed / more * 1e3,
                    );
                }
            }
        }
        messages.push(Message::assistant(text));
    }
    println!("{}", memory());
    Ok(())
}

/// Processor time of this process so far, in steps of 10 ms: what remains comparable on a busy machine.
fn processor_seconds() -> f32 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses; user and system time are the 12th and 13th field from there.
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    fields
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f32>().ok())
        .sum::<f32>()
        / 100.0
}

/// Resident memory now and at its highest, where Linux tells.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status.lines().filter(|line| {
        ["VmRSS", "VmHWM", "RssAnon", "RssFile"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}
