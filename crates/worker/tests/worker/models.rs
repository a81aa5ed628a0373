//! Voices: listed, loaded once however many ask, never unloaded in use.

use crate::support::*;
use duologue_rpc::{
    GetCapabilitiesRequest, ListModelsRequest, LoadModelRequest, Model, UnloadModelRequest,
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
    let response = client.clone().load_model(LoadModelRequest { name }).await?;
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
    let capabilities = client
        .clone()
        .get_capabilities(GetCapabilitiesRequest {})
        .await;
    let capabilities = capabilities.unwrap().into_inner();
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
            load_s: 1,
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
