//! The embedded engine with the model of the default set. What is asserted is counted in tokens and in the order
//! of events, never in time.
#![cfg(feature = "llama")]
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, OnceLock};

use duologue_llm::{
    ChatModel, ChatRequest, Delta, EmbeddedConfig, FinishReason, LlmConfig, LlmError, Message,
    ReplyStream, Tool, Usage, load,
};
use duologue_voicepack::VoicepackStore;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

const MODEL: &str = "qwen2.5-coder-0.5b-instruct";

fn config() -> EmbeddedConfig {
    let store = VoicepackStore::open_default().unwrap();
    let path = store.dir(MODEL).unwrap();
    assert!(
        path.is_dir(),
        "{} is missing: run `duologue models pull`",
        path.display()
    );
    // One thread: several tests and programs share the machine, and llama.cpp's threads wait busily.
    EmbeddedConfig {
        path,
        slots: 4,
        threads: 1,
        prefill_threads: 1,
        ..EmbeddedConfig::default()
    }
}

fn model() -> Arc<dyn ChatModel> {
    static MODEL: OnceLock<Arc<dyn ChatModel>> = OnceLock::new();
    MODEL
        .get_or_init(|| load(&LlmConfig::Embedded(config())).unwrap())
        .clone()
}

/// One slot with little room, and a short queue.
fn small() -> Arc<dyn ChatModel> {
    static MODEL: OnceLock<Arc<dyn ChatModel>> = OnceLock::new();
    let config = || EmbeddedConfig {
        context: 512,
        slots: 1,
        queue: 2,
        ..config()
    };
    MODEL
        .get_or_init(|| load(&LlmConfig::Embedded(config())).unwrap())
        .clone()
}

fn request(conversation: &str, messages: Vec<Message>) -> ChatRequest {
    ChatRequest {
        conversation: conversation.to_owned(),
        messages,
        temperature: Some(0.0),
        max_tokens: Some(48),
        ..ChatRequest::default()
    }
}

fn system() -> Message {
    Message::system("You are a helpful assistant. Answer in one short sentence.")
}

struct Reply {
    text: String,
    calls: Vec<duologue_llm::ToolCall>,
    reason: FinishReason,
    usage: Usage,
}

async fn collect(mut stream: ReplyStream) -> Result<Reply, LlmError> {
    let (mut text, mut calls, mut done) = (String::new(), Vec::new(), None);
    while let Some(delta) = stream.next().await {
        match delta? {
            Delta::Text(more) => text.push_str(&more),
            Delta::ToolCall(call) => calls.push(call),
            Delta::Done { reason, usage } => done = Some((reason, usage)),
        }
    }
    let (reason, usage) = done.expect("a stream ends with Done");
    Ok(Reply {
        text,
        calls,
        reason,
        usage,
    })
}

async fn ask(model: &Arc<dyn ChatModel>, request: ChatRequest) -> Reply {
    collect(
        model
            .reply(request, CancellationToken::new())
            .await
            .unwrap(),
    )
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered() {
    let question = vec![system(), Message::user("What is the capital of France?")];
    let reply = ask(&model(), request("france", question)).await;
    assert!(reply.text.contains("Paris"), "{}", reply.text);
    assert_eq!(reply.reason, FinishReason::Stop);
    assert!(
        reply.usage.completion_tokens > 0 && reply.usage.prompt_tokens > 20,
        "{:?}",
        reply.usage
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_turn_reads_only_what_is_new() {
    let model = model();
    let mut messages = vec![system(), Message::user("What is the capital of Italy?")];
    let first = ask(&model, request("second turn", messages.clone())).await;
    messages.push(Message::assistant(&first.text));
    messages.push(Message::user("And of Spain?"));
    let second = ask(&model, request("second turn", messages)).await;
    assert!(second.text.contains("Madrid"), "{}", second.text);
    // Everything up to the reply's end was kept; new are the end mark, the question and the opening.
    assert_eq!(
        second.usage.cached_tokens,
        first.usage.prompt_tokens + first.usage.completion_tokens
    );
    assert!(
        second.usage.prompt_tokens - second.usage.cached_tokens < 20,
        "{:?}",
        second.usage
    );
    model.forget("second turn");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_interruption_the_cache_goes_back_to_what_was_heard() {
    let model = model();
    let mut messages = vec![system(), Message::user("Count from one to ten in words.")];
    let first = ask(&model, request("rollback", messages.clone())).await;
    let heard: String = first
        .text
        .chars()
        .take(first.text.chars().count() / 2)
        .collect();
    messages.push(Message::assistant(heard));
    messages.push(Message::user("Stop. What is the capital of Japan?"));
    let second = ask(&model, request("rollback", messages.clone())).await;
    assert!(second.text.contains("Tokyo"), "{}", second.text);
    let (kept, all) = (
        second.usage.cached_tokens,
        first.usage.prompt_tokens + first.usage.completion_tokens,
    );
    assert!(
        kept > first.usage.prompt_tokens && kept < all,
        "kept {kept} of {all}"
    );
    // The same history in a conversation of its own, read from nothing, gives the same answer.
    let whole = ask(&model, request("rollback anew", messages)).await;
    assert!(whole.text.contains("Tokyo"), "{}", whole.text);
    model.forget("rollback");
    model.forget("rollback anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_at_once_say_what_each_says_alone() {
    let model = load(&LlmConfig::Embedded(EmbeddedConfig {
        slots: 2,
        ..config()
    }))
    .unwrap();
    let one = vec![
        Message::system("You are a pirate."),
        Message::user("Who are you?"),
    ];
    let two = vec![
        Message::system("Be brief and polite."),
        Message::user("Why is the sky blue?"),
    ];
    let mut alone = Vec::new();
    for messages in [&one, &two] {
        alone.push(ask(&model, request("alone", messages.clone())).await.text);
        model.forget("alone");
    }
    let (a, b) = tokio::join!(
        ask(&model, request("a", one)),
        ask(&model, request("b", two))
    );
    assert_eq!([a.text, b.text], [alone[0].clone(), alone[1].clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_reply_ends_and_the_next_is_answered() {
    let model = model();
    let long = vec![
        system(),
        Message::user("Write a very long story about a fox."),
    ];
    let mut long = request("cancel", long);
    long.max_tokens = Some(2000);
    let cancel = CancellationToken::new();
    let mut stream = model.reply(long.clone(), cancel.clone()).await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    assert!(matches!(first, Delta::Text(_)), "{first:?}");
    cancel.cancel();
    let rest = collect(stream).await.unwrap();
    assert_eq!(rest.reason, FinishReason::Cancelled);
    assert!(rest.usage.completion_tokens < 2000);

    // Dropping the stream does the same.
    let mut stream = model.reply(long, CancellationToken::new()).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    let question = vec![system(), Message::user("What is two plus two?")];
    let reply = ask(&model, request("cancel", question)).await;
    assert!(
        reply.text.contains('4') || reply.text.contains("four"),
        "{}",
        reply.text
    );
    model.forget("cancel");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_being_read_lets_others_speak_and_can_be_cancelled() {
    let model = model();
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(300);
    let cancel = CancellationToken::new();
    let long = request("long prompt", vec![system(), Message::user(text)]);
    let long = model.reply(long, cancel.clone()).await.unwrap();
    let question = vec![Message::system("Short."), Message::user("Say hello.")];
    let reply = ask(&model, request("short prompt", question)).await;
    assert!(!reply.text.is_empty());
    // 3,000 tokens take longer to read than a greeting takes to write: they are still being read.
    cancel.cancel();
    let long = collect(long).await.unwrap();
    assert_eq!(
        (long.reason, long.text.as_str()),
        (FinishReason::Cancelled, "")
    );
    model.forget("long prompt");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_prepared_is_not_read_again() {
    let model = model();
    let system =
        Message::system("You talk about cheese. You like cheese. Every answer mentions cheese.");
    let started = request("prepared", vec![system.clone()]);
    model.prepare(&started, CancellationToken::new()).await;
    let half = request(
        "prepared",
        vec![system.clone(), Message::user("What do you")],
    );
    model.prepare(&half, CancellationToken::new()).await;
    let question = request(
        "prepared",
        vec![system, Message::user("What do you like most?")],
    );
    model.prepare(&question, CancellationToken::new()).await;
    let reply = ask(&model, question).await;
    assert_eq!(reply.usage.cached_tokens, reply.usage.prompt_tokens - 1);
    assert!(!reply.text.is_empty());
    model.forget("prepared");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_conversation_takes_the_system_prompt_from_another() {
    let model = model();
    let system = Message::system(
        "You are the assistant of a small library. You know where every book is. You answer in one sentence, \
         and you never speak about anything but books.",
    );
    let reply = ask(
        &model,
        request("shared 1", vec![system.clone(), Message::user("Hello.")]),
    )
    .await;
    assert!(reply.usage.prompt_tokens > 30);
    let reply = ask(
        &model,
        request("shared 2", vec![system, Message::user("Any atlas?")]),
    )
    .await;
    assert!(reply.usage.cached_tokens > 30, "{:?}", reply.usage);
    assert!(!reply.text.is_empty());
    model.forget("shared 1");
    model.forget("shared 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_called_and_its_result_is_used() {
    let model = model();
    let tool = Tool {
        name: "get_weather".into(),
        description: "Tells the weather in a city now.".into(),
        parameters: serde_json::json!({"type": "object", "properties": {
            "city": {"type": "string"}}, "required": ["city"]}),
    };
    let mut messages = vec![
        system(),
        Message::user("What is the weather in Paris right now? Use the tool."),
    ];
    let mut first = request("tools", messages.clone());
    first.tools = vec![tool];
    let reply = ask(&model, first.clone()).await;
    assert_eq!(reply.reason, FinishReason::ToolCalls, "{}", reply.text);
    let call = reply.calls[0].clone();
    assert_eq!(call.name, "get_weather");
    let arguments: serde_json::Value = serde_json::from_str(&call.arguments).unwrap();
    assert!(
        arguments["city"].as_str().unwrap().contains("Paris"),
        "{arguments}"
    );
    assert!(!reply.text.contains("tool_call"), "{}", reply.text);
    messages.push(Message {
        tool_calls: vec![call.clone()],
        ..Message::assistant(&reply.text)
    });
    messages.push(Message::tool(
        call.id,
        "{\"weather\": \"snow\", \"celsius\": -3}",
    ));
    let reply = ask(&model, ChatRequest { messages, ..first }).await;
    assert!(
        reply.text.to_lowercase().contains("snow") || reply.text.contains('3'),
        "{}",
        reply.text
    );
    model.forget("tools");
}

#[tokio::test(flavor = "multi_thread")]
async fn characters_of_several_tokens_come_whole() {
    let question = vec![Message::user(
        "Repeat exactly: 你好，世界 🦊 naïve café Ωμέγα 🎉",
    )];
    let reply = ask(&model(), request("utf-8", question)).await;
    assert!(
        reply.text.contains("世界") && !reply.text.contains('\u{fffd}'),
        "{}",
        reply.text
    );
    model().forget("utf-8");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_context_loses_its_oldest_turns_and_answers_on() {
    let model = small();
    let mut messages = vec![system()];
    for _ in 0..12 {
        messages.push(Message::user(
            "Tell me something about the sea and the ships that sail on it.",
        ));
        messages.push(Message::assistant(
            "The sea is wide and deep, and many ships sail on it every day.",
        ));
    }
    messages.push(Message::user("What is the capital of France?"));
    let reply = ask(&model, request("overflow", messages.clone())).await;
    assert!(
        reply.usage.dropped_messages > 0 && reply.usage.dropped_messages % 2 == 0,
        "{:?}",
        reply.usage
    );
    assert!(reply.text.contains("Paris"), "{}", reply.text);
    // The cut stays for a while, so the next turn finds its cache.
    messages.push(Message::assistant(&reply.text));
    messages.push(Message::user("And of Italy?"));
    let next = ask(&model, request("overflow", messages)).await;
    assert_eq!(next.usage.dropped_messages, reply.usage.dropped_messages);
    assert!(
        next.usage.cached_tokens >= reply.usage.prompt_tokens,
        "{:?}",
        next.usage
    );
    model.forget("overflow");

    let endless = vec![system(), Message::user("word ".repeat(600))];
    let stream = model
        .reply(request("endless", endless), CancellationToken::new())
        .await
        .unwrap();
    let error = collect(stream).await.err().unwrap();
    assert!(matches!(error, LlmError::ContextTooSmall { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_waiting_requests_are_answered_in_turn() {
    let model = load(&LlmConfig::Embedded(EmbeddedConfig {
        context: 512,
        slots: 1,
        queue: 2,
        ..config()
    }))
    .unwrap();
    let asking = |name: &str| ChatRequest {
        max_tokens: Some(8),
        ..request(name, vec![Message::user("Write about the sea.")])
    };
    let mut streams = Vec::new();
    let mut refused = 0;
    for name in ["a", "b", "c", "d", "e", "f"] {
        match model.reply(asking(name), CancellationToken::new()).await {
            Ok(stream) => streams.push(stream),
            Err(LlmError::Busy { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused >= 1, "six requests, one slot, two places to wait");
    for reply in futures_util::future::join_all(streams.into_iter().map(collect)).await {
        assert!(!reply.unwrap().text.is_empty());
    }
    let again = ask(&model, asking("g")).await;
    assert!(!again.text.is_empty(), "the queue has room again");
}

#[test]
fn a_damaged_file_is_told_with_its_name() {
    let dir = std::env::temp_dir().join(format!("duologue-llm-damaged-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("cut.gguf");
    std::fs::write(&path, b"GGUF\x03\0\0\0").unwrap();
    let config = EmbeddedConfig {
        path: path.clone(),
        ..EmbeddedConfig::default()
    };
    let error = load(&LlmConfig::Embedded(config))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("cut.gguf") && error.contains("damaged"),
        "{error}"
    );
    std::fs::remove_dir_all(&dir).unwrap();
}
