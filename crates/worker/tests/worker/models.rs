//! Voices: listed, loaded once however many ask, never unloaded in use.

use std::time::Duration;

use crate::support::*;
use duologue_rpc::{
    GetCapabilitiesRequest, GetCapabilitiesResponse, ListModelsRequest, LoadModelRequest, Model,
    UnloadModelRequest,
};
use duologue_worker::{Timeouts, WorkerConfig};
use tonic::{Code, Status};

async fn model(client: &Client, name: &str) -> Model {
    let response = client
        .clone()
        .list_models(ListModelsRequest {})
        .await
        .unwrap();
    let models = response.into_inner().models;
    models.into_iter().find(|model| model.name == name).unwrap()
}

async fn load(client: &Client, name: &str) -> Result<Model, Status> {
    let name = name.to_owned();
    let response = client
        .clone()
        .load_model(LoadModelRequest {
            name,
            reload: false,
        })
        .await?;
    Ok(response.into_inner().model.unwrap())
}

async fn unload(client: &Client, name: &str) -> Result<(), Status> {
    let name = name.to_owned();
    client
        .clone()
        .unload_model(UnloadModelRequest { name })
        .await
        .map(drop)
}

async fn capabilities(client: &Client) -> GetCapabilitiesResponse {
    let request = GetCapabilitiesRequest {};
    let response = client.clone().get_capabilities(request).await;
    response.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_voice_and_the_preload_list_are_resident_from_the_start() {
    let (worker, voices) = start_with(WorkerConfig {
        preload: vec!["slow".to_owned(), "tone".to_owned()],
        ..config()
    })
    .await;
    let client = connect(&worker);
    assert_eq!(voices.loads(), 2);
    let tone = model(&client, "tone").await;
    assert!(tone.resident && tone.is_default);
    let slow = model(&client, "slow").await;
    assert!(slow.resident && !slow.is_default);
    let stuck = model(&client, "stuck").await;
    assert!(!stuck.resident);
    assert_eq!(
        (stuck.family.as_str(), stuck.languages[0].as_str()),
        ("tone", "en-US")
    );
    let capabilities = capabilities(&client).await;
    assert_eq!(capabilities.models.len(), 7);
    assert_eq!(
        (capabilities.max_sessions, capabilities.free_sessions),
        (16, 16)
    );
    assert_eq!(capabilities.worker, "worker");
    assert_eq!(capabilities.format.unwrap().sample_rate, 48_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_load_serves_all_who_ask_and_goes_on_without_the_first_of_them() {
    let (worker, voices) = start_with(config()).await;
    let client = connect(&worker);
    let before = voices.loads();
    let ask = |n: usize| {
        let client = client.clone();
        tokio::spawn(async move { open_session(&client, &format!("s{n}"), "gated").await })
    };
    let first = ask(0);
    eventually("the load is under way", || async {
        voices.loads() == before + 1
    })
    .await;
    let others: Vec<_> = (1..9).map(ask).collect();
    eventually("all have asked", || async {
        model(&client, "gated").await.sessions == 9
    })
    .await;
    first.abort();
    eventually("the first has gone", || async {
        model(&client, "gated").await.sessions == 8
    })
    .await;
    assert!(
        !model(&client, "gated").await.resident,
        "not advertised before it is loaded"
    );
    let busy = unload(&client, "gated").await.unwrap_err();
    assert_eq!(busy.code(), Code::FailedPrecondition);
    voices.open_gate();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(voices.loads(), before + 1);
    assert_whole(&say(&client, "s5", "Hello.").await.unwrap(), "Hello.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_in_use_is_not_unloaded() {
    let (worker, voices) = start_with(config()).await;
    let client = connect(&worker);
    assert!(load(&client, "slow").await.unwrap().resident);
    open_session(&client, "s", "slow").await.unwrap();
    let busy = unload(&client, "slow").await.unwrap_err();
    assert_eq!(busy.code(), Code::FailedPrecondition);
    assert!(
        busy.message().contains("used by 1 session"),
        "{}",
        busy.message()
    );
    end_session(&client, "s").await.unwrap();
    let loads = voices.loads();
    unload(&client, "slow").await.unwrap();
    assert!(!model(&client, "slow").await.resident);
    unload(&client, "slow").await.unwrap();
    // It is loaded again when it is needed.
    open_session(&client, "s", "slow").await.unwrap();
    assert_eq!(voices.loads(), loads + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_takes_too_long_is_told_and_goes_on() {
    let (worker, voices) = start_with(WorkerConfig {
        timeouts: Timeouts {
            load: Duration::from_secs(1),
            ..Timeouts::default()
        },
        ..config()
    })
    .await;
    let client = connect(&worker);
    let slow = load(&client, "gated").await.unwrap_err();
    assert_eq!(slow.code(), Code::DeadlineExceeded);
    assert!(
        slow.message().contains("still loading"),
        "{}",
        slow.message()
    );
    voices.open_gate();
    eventually("it is resident", || async {
        model(&client, "gated").await.resident
    })
    .await;
    assert_eq!(voices.loads(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_that_failed_to_load_may_be_tried_again() {
    let (worker, voices) = start_with(config()).await;
    let client = connect(&worker);
    for n in 1..=2 {
        let failed = load(&client, "broken").await.unwrap_err();
        assert_eq!(failed.code(), Code::FailedPrecondition);
        assert_eq!(voices.loads(), 1 + n);
    }
}

/// A worker for two voices of 10 MB, as the test voices are thought to take, beside the default.
async fn small() -> (Client, std::sync::Arc<TestVoices>) {
    let (worker, voices) = start_with(WorkerConfig {
        max_resident: Some(3),
        memory_limit: Some(30_000_000),
        voice_ttl: Some(Duration::from_secs(600)),
        min_residency: Duration::from_secs(60),
        evict_interval: Duration::from_secs(10),
        // Longer than any voice stays.
        timeouts: Timeouts {
            idle_session: Duration::from_secs(3_600),
            ..Timeouts::default()
        },
        ..config()
    })
    .await;
    (connect(&worker), voices)
}

async fn resident(client: &Client) -> Vec<String> {
    let response = client.clone().list_models(ListModelsRequest {}).await;
    let models = response.unwrap().into_inner().models;
    let resident = models.into_iter().filter(|model| model.resident);
    resident.map(|model| model.name).collect()
}

#[tokio::test(start_paused = true)]
async fn idle_voices_go_after_a_while_and_used_and_default_ones_stay() {
    let (client, _) = small().await;
    load(&client, "slow").await.unwrap();
    open_session(&client, "s", "fails").await.unwrap();
    tokio::time::sleep(Duration::from_secs(590)).await;
    assert_eq!(resident(&client).await, ["fails", "slow", "tone"]);
    tokio::time::sleep(Duration::from_secs(21)).await;
    assert_eq!(resident(&client).await, ["fails", "tone"]);
    end_session(&client, "s").await.unwrap();
    tokio::time::sleep(Duration::from_secs(590)).await;
    assert_eq!(resident(&client).await, ["fails", "tone"]);
    tokio::time::sleep(Duration::from_secs(21)).await;
    assert_eq!(resident(&client).await, ["tone"]);
    tokio::time::sleep(Duration::from_secs(100_000)).await;
    assert_eq!(resident(&client).await, ["tone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_without_room_lets_the_idle_go_or_says_what_would_have_to() {
    let (client, voices) = small().await;
    load(&client, "slow").await.unwrap();
    load(&client, "fails").await.unwrap();
    // `slow` is idle for longest.
    open_session(&client, "s", "crashes").await.unwrap();
    assert_eq!(resident(&client).await, ["crashes", "fails", "tone"]);
    open_session(&client, "t", "fails").await.unwrap();
    let before = voices.loads();
    let full = load(&client, "slow").await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    let said = full.message();
    assert!(said.contains("3 voices at a time"), "{said}");
    assert!(said.contains("tone (kept"), "{said}");
    assert!(said.contains("max-resident"), "{said}");
    assert_eq!(voices.loads(), before, "it was not even begun");
    let also = open_session(&client, "u", "slow").await.unwrap_err();
    assert_eq!(also.code(), Code::ResourceExhausted);
    end_session(&client, "s").await.unwrap();
    open_session(&client, "u", "slow").await.unwrap();
    assert_eq!(resident(&client).await, ["fails", "slow", "tone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_counted_before_a_load_and_after_and_reloads_need_room_for_both() {
    let (worker, _) = start_with(WorkerConfig {
        memory_limit: Some(25_000_000),
        ..config()
    })
    .await;
    let client = connect(&worker);
    let slow = load(&client, "slow").await.unwrap();
    assert!(slow.estimated_bytes == 10_000_000 && slow.resident_bytes == 10_000_000);
    open_session(&client, "s", "slow").await.unwrap();
    let request = LoadModelRequest {
        name: "slow".to_owned(),
        reload: true,
    };
    let refused = client.clone().load_model(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("memory-limit"), "{refused}");
    // The old one still speaks.
    say(&client, "s", "Hello.").await.unwrap();
    let residency = capabilities(&client).await.residency.unwrap();
    assert_eq!(
        (residency.bytes, residency.limit_bytes),
        (20_000_000, 25_000_000)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_tells_how_quickly_it_spoke() {
    let worker = start(config()).await;
    let client = connect(&worker);
    let live = || async { capabilities(&client).await.live.unwrap() };
    let before = live().await;
    assert_eq!((before.utterances, before.first_audio_p50_ms), (0, 0.0));
    open_session(&client, "s", "slow").await.unwrap();
    say(&client, "s", "One.").await.unwrap();
    // A text without a word is no utterance to learn from.
    say(&client, "s", " ").await.unwrap();
    eventually("it is counted", || async { live().await.utterances == 1 }).await;
    let after = live().await;
    // The voice takes 1.5 s for a second of sound.
    assert!(after.real_time_factor >= 1.4, "{after:?}");
    assert!(after.first_audio_p95_ms >= after.first_audio_p50_ms);
    assert!(after.first_audio_p50_ms > 0.0);
}
