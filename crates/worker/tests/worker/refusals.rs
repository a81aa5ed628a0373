//! What is refused, with which code, and that the message says what to do.

use crate::support::*;
use duologue_rpc::{
    AudioFrame, ControlAction, ControlRequest, LoadModelRequest, StartSessionRequest, TextChunk,
    UnloadModelRequest, VoiceSettings,
};
use std::time::Duration;

use duologue_worker::{Timeouts, Worker, WorkerConfig, WorkerError};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};

fn assert_refused<T>(result: Result<T, Status>, code: Code, message: &str) {
    let Err(status) = result else {
        panic!("not refused; expected {code:?}: {message}");
    };
    assert_eq!(status.code(), code, "{}", status.message());
    assert!(
        status.message().contains(message),
        "{:?} lacks {message:?}",
        status.message()
    );
}

/// The status that an utterance ends with.
async fn end_of(utterance: &mut Utterance) -> Result<Vec<AudioFrame>, Status> {
    utterance.rest().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_never_was_is_not_found() {
    let client = connect(&start(config()).await);
    let says = "no session \"ghost\"";
    assert_refused(
        control(&client, "ghost", ControlAction::Pause).await,
        Code::NotFound,
        says,
    );
    assert_refused(end_session(&client, "ghost").await, Code::NotFound, says);
    assert_refused(say(&client, "ghost", "Boo.").await, Code::NotFound, says);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_has_ended_is_told_so_and_ending_it_again_is_fine() {
    let client = connect(&start(config()).await);
    open_session(&client, "s", "").await.unwrap();
    end_session(&client, "s").await.unwrap();
    let says = "has ended (by EndSession)";
    let code = Code::FailedPrecondition;
    for action in [
        ControlAction::Pause,
        ControlAction::Resume,
        ControlAction::Stop,
        ControlAction::Reload,
    ] {
        assert_refused(control(&client, "s", action).await, code, says);
    }
    assert_refused(say(&client, "s", "Boo.").await, code, says);
    end_session(&client, "s").await.unwrap();
    // The id may be used again.
    open_session(&client, "s", "").await.unwrap();
    assert_whole(&say(&client, "s", "Hello.").await.unwrap(), "Hello.");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_may_not_have_one_id() {
    let client = connect(&start(config()).await);
    open_session(&client, "s", "").await.unwrap();
    assert_refused(
        open_session(&client, "s", "").await,
        Code::AlreadyExists,
        "end it or take another id",
    );
    assert_eq!(
        free_sessions(&client).await,
        15,
        "the refused one holds no slot"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_worker_refuses_until_a_session_ends() {
    let worker = start(WorkerConfig {
        max_sessions: 2,
        ..config()
    })
    .await;
    let client = connect(&worker);
    open_session(&client, "a", "").await.unwrap();
    open_session(&client, "b", "").await.unwrap();
    let refused = open_session(&client, "c", "").await;
    assert_refused(refused, Code::ResourceExhausted, "all 2 sessions");
    end_session(&client, "a").await.unwrap();
    open_session(&client, "c", "").await.unwrap();
    assert_eq!(free_sessions(&client).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_voice_is_told_with_those_there_are_and_holds_no_slot() {
    let client = connect(&start(config()).await);
    let says = "it has broken, crashes, fails, gated, slow, stuck, tone";
    assert_refused(
        open_session(&client, "s", "nobody").await,
        Code::NotFound,
        says,
    );
    let load = LoadModelRequest {
        name: "nobody".to_owned(),
        reload: false,
    };
    assert_refused(client.clone().load_model(load).await, Code::NotFound, says);
    let unload = UnloadModelRequest {
        name: "nobody".to_owned(),
    };
    assert_refused(
        client.clone().unload_model(unload).await,
        Code::NotFound,
        says,
    );
    assert_eq!(free_sessions(&client).await, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_that_does_not_load_is_told_why() {
    let client = connect(&start(config()).await);
    let refused = open_session(&client, "s", "broken").await;
    assert_refused(
        refused,
        Code::FailedPrecondition,
        "its model file is cut short",
    );
    assert_eq!(free_sessions(&client).await, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_do_not_fit_are_refused_when_the_session_opens() {
    let client = connect(&start(config()).await);
    let open = |settings, lead_ms| {
        let request = StartSessionRequest {
            session_id: "s".to_owned(),
            voice: String::new(),
            settings: Some(settings),
            lead_ms,
        };
        let mut client = client.clone();
        async move { client.start_session(request).await }
    };
    let fast = VoiceSettings {
        speed: 9.0,
        ..Default::default()
    };
    assert_refused(open(fast, 0).await, Code::InvalidArgument, "0.5 to 2.0");
    let speaker = VoiceSettings {
        speaker: "bob".to_owned(),
        ..Default::default()
    };
    assert_refused(
        open(speaker, 0).await,
        Code::InvalidArgument,
        "no speaker \"bob\"",
    );
    assert_refused(
        open(VoiceSettings::default(), 5).await,
        Code::InvalidArgument,
        "20 to 3600000",
    );
    let no_id = open_session(&client, "", "").await;
    assert_refused(no_id, Code::InvalidArgument, "session_id has 0 bytes");
    let long_id = open_session(&client, &"x".repeat(129), "").await;
    assert_refused(long_id, Code::InvalidArgument, "session_id has 129 bytes");
    assert_eq!(free_sessions(&client).await, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_too_long_ends_the_utterance_and_not_the_session() {
    let client = connect(
        &start(WorkerConfig {
            max_chunk_chars: 100,
            ..config()
        })
        .await,
    );
    open_session(&client, "s", "").await.unwrap();
    let fits = "\u{e9}".repeat(100);
    say(&client, "s", &fits).await.unwrap();
    let says = "has 101 characters; this voice takes at most 100";
    assert_refused(
        say(&client, "s", &"x".repeat(101)).await,
        Code::InvalidArgument,
        says,
    );
    // More than one message may hold.
    let huge = say(&client, "s", &"x".repeat(5_000_000)).await;
    assert_refused(huge, Code::InvalidArgument, "too large");
    let mut utterance = Utterance::begin(&client, "s", "u", "Hello.").await;
    utterance.send("", "", &"x".repeat(101)).await;
    assert_refused(
        end_of(&mut utterance).await,
        Code::InvalidArgument,
        "text chunk 1",
    );
    assert_whole(&say(&client, "s", "Hello.").await.unwrap(), "Hello.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_one_utterance_of_one_session() {
    let client = connect(&start(config()).await);
    open_session(&client, "s", "").await.unwrap();
    let mut utterance = Utterance::begin(&client, "s", "u", "Hello.").await;
    utterance.send("other", "", "Hello.").await;
    assert_refused(
        end_of(&mut utterance).await,
        Code::InvalidArgument,
        "one utterance a stream",
    );
    let mut utterance = Utterance::begin(&client, "s", "u", "Hello.").await;
    utterance.send("", "v", "Hello.").await;
    assert_refused(
        end_of(&mut utterance).await,
        Code::InvalidArgument,
        "one utterance a stream",
    );
    let mut nameless = Utterance::begin(&client, "s", "", "Hello.").await;
    assert_refused(
        end_of(&mut nameless).await,
        Code::InvalidArgument,
        "utterance_id has 0 bytes",
    );
    let mut empty = Utterance::silent(&client).await;
    empty.finish();
    assert_refused(
        end_of(&mut empty).await,
        Code::InvalidArgument,
        "before its first text chunk",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_utterance_waits_for_the_first_to_end() {
    let client = connect(&start(config()).await);
    open_session(&client, "s", "").await.unwrap();
    let mut first = Utterance::begin(&client, "s", "first", "Hello.").await;
    let mut frames = vec![first.next_frame().await];
    let mut second = Utterance::begin(&client, "s", "second", "Hello.").await;
    assert_refused(
        end_of(&mut second).await,
        Code::FailedPrecondition,
        "one utterance at a time",
    );
    first.finish();
    frames.extend(first.rest().await.unwrap());
    assert_whole(&frames, "Hello.");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_must_be_one_of_the_abi() {
    let client = connect(&start(config()).await);
    open_session(&client, "s", "").await.unwrap();
    let unspecified = control(&client, "s", ControlAction::Unspecified).await;
    assert_refused(unspecified, Code::InvalidArgument, "no action");
    let unheard_of = ControlRequest {
        session_id: "s".to_owned(),
        action: 99,
        utterance_id: String::new(),
    };
    assert_refused(
        client.clone().control(unheard_of).await,
        Code::InvalidArgument,
        "none of this ABI's",
    );
}

/// The wire form of a message, with bytes where the ABI has text.
#[derive(Clone, PartialEq, prost::Message)]
struct RawText {
    #[prost(bytes = "vec", tag = "1")]
    session_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    second: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    text: Vec<u8>,
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf_8_is_the_callers_mistake() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session(&client, "s", "").await.unwrap();
    let bad = RawText {
        session_id: b"s".to_vec(),
        second: b"u".to_vec(),
        text: vec![0xff, 0xfe],
    };
    let mut raw = Grpc::new(worker.channel());
    let path =
        |call: &str| PathAndQuery::try_from(format!("/duologue.tts.v1.TtsWorker/{call}")).unwrap();
    raw.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<RawText, AudioFrame>::default();
    let stream = Request::new(tokio_stream::iter([bad.clone()]));
    let response = raw.streaming(stream, path("Synthesize"), codec).await;
    let streamed = async { response?.into_inner().message().await };
    assert_refused(streamed.await, Code::InvalidArgument, "UTF-8");

    raw.ready().await.unwrap();
    let bad_id = RawText {
        session_id: vec![0xff],
        ..Default::default()
    };
    let codec = tonic_prost::ProstCodec::<RawText, duologue_rpc::StartSessionResponse>::default();
    let unary = raw
        .unary(Request::new(bad_id), path("StartSession"), codec)
        .await;
    assert_refused(unary, Code::InvalidArgument, "UTF-8");
    assert_whole(&say(&client, "s", "Hello.").await.unwrap(), "Hello.");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_fails_or_crashes_ends_the_utterance_and_disturbs_nobody() {
    let client = connect(&start(config()).await);
    open_session(&client, "fails", "fails").await.unwrap();
    open_session(&client, "crashes", "crashes").await.unwrap();
    open_session(&client, "fine", "tone").await.unwrap();
    for _ in 0..3 {
        let failed = say(&client, "fails", "Hello.").await;
        assert_refused(failed, Code::Internal, "not a number");
        let crashed = say(&client, "crashes", "Hello.").await;
        assert_refused(crashed, Code::Internal, "crashed");
        assert_whole(&say(&client, "fine", "Hello.").await.unwrap(), "Hello.");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_gives_no_sound_in_time_is_given_up() {
    let timeouts = Timeouts {
        engine: Duration::from_secs(1),
        ..Default::default()
    };
    let worker = start(WorkerConfig {
        timeouts,
        engine_threads: 1,
        ..config()
    })
    .await;
    let client = connect(&worker);
    open_session(&client, "stuck", "stuck").await.unwrap();
    open_session(&client, "fine", "tone").await.unwrap();
    let late = say(&client, "stuck", "Hello.").await;
    assert_refused(
        late,
        Code::DeadlineExceeded,
        "the engine gave no sound for 1 s",
    );
    assert_whole(&say(&client, "fine", "Hello.").await.unwrap(), "Hello.");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_writes_or_never_goes_on_is_not_waited_for_for_ever() {
    let client = connect(&start(config()).await);
    open_session(&client, "s", "").await.unwrap();
    let mut silent = Utterance::silent(&client).await;
    let patience = std::time::Duration::from_secs(3_600);
    let end = tokio::time::timeout(patience, silent.frames.message())
        .await
        .unwrap();
    assert_refused(
        end,
        Code::DeadlineExceeded,
        "no first text chunk came for 60 s",
    );

    let utterance = Utterance::begin(&client, "s", "u", "Hello.").await;
    let end = ended_with(utterance).await;
    assert_refused(end, Code::DeadlineExceeded, "no further text came for 60 s");

    let utterance = Utterance::begin(&client, "s", "u", "Hello.").await;
    eventually("it speaks", || async {
        let paused = control(&client, "s", ControlAction::Pause).await.unwrap();
        paused.utterance_id == "u"
    })
    .await;
    let end = ended_with(utterance).await;
    assert_refused(
        end,
        Code::DeadlineExceeded,
        "no RESUME came after PAUSE for 300 s",
    );
}

async fn ended_with(mut utterance: Utterance) -> Result<(), Status> {
    let wait = async {
        while utterance.frames.message().await?.is_some() {}
        Ok(())
    };
    let patience = std::time::Duration::from_secs(3_600);
    tokio::time::timeout(patience, wait).await.expect("an end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_default_voice_asks_for_one() {
    let client = connect(
        &start(WorkerConfig {
            default_voice: None,
            ..config()
        })
        .await,
    );
    let refused = open_session(&client, "s", "").await;
    assert_refused(refused, Code::InvalidArgument, "name one");
    open_session(&client, "s", "tone").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_does_not_start_with_settings_that_cannot_be_or_a_voice_that_is_not_there() {
    let start = |config| async {
        let voices = std::sync::Arc::new(TestVoices::default());
        Worker::start_with(config, voices).await.err().unwrap()
    };
    let none = start(WorkerConfig {
        max_sessions: 0,
        ..config()
    })
    .await;
    assert!(matches!(none, WorkerError::Config(_)), "{none}");
    let timeouts = Timeouts {
        text: Duration::ZERO,
        ..Default::default()
    };
    let zero = start(WorkerConfig {
        timeouts,
        ..config()
    })
    .await;
    assert!(matches!(zero, WorkerError::Config(_)), "{zero}");
    let crowded = start(WorkerConfig {
        preload: vec!["slow".to_owned()],
        max_resident: Some(1),
        ..config()
    })
    .await;
    assert!(crowded.to_string().contains("max-resident"), "{crowded}");
    let broken = start(WorkerConfig {
        preload: vec!["broken".to_owned()],
        ..config()
    })
    .await;
    assert!(broken.to_string().contains("cut short"), "{broken}");
}

/// Keeps `RawText` in step with the ABI.
#[test]
fn the_raw_message_has_the_fields_of_a_text_chunk() {
    use prost::Message;
    let chunk = TextChunk {
        session_id: "s".to_owned(),
        utterance_id: "u".to_owned(),
        text: "t".to_owned(),
    };
    let raw = RawText::decode(chunk.encode_to_vec().as_slice()).unwrap();
    assert_eq!(
        (raw.session_id, raw.second, raw.text),
        (b"s".into(), b"u".into(), b"t".into())
    );
}
