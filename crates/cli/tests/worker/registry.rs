//! A worker in a registry: announced when it is ready, gone when it has died or was told to stop.

use std::time::Duration;

use duologue_registry::{RedisRegistry, Registry, WorkerRecord};
use tokio::process::Command;

use crate::redis::RedisServer;
use crate::support::*;

fn record(registry: &RedisRegistry, name: &str) -> Option<WorkerRecord> {
    let snapshot = registry.watch().borrow().clone();
    snapshot
        .worker(name)
        .map(|state| WorkerRecord::clone(&state.record))
}

async fn until(registry: &RedisRegistry, what: &str, holds: impl Fn(Option<WorkerRecord>) -> bool) {
    eventually(what, || async { holds(record(registry, "kitchen")) }).await;
}

async fn announced(redis: &RedisServer) -> Process {
    let registry = redis.url();
    let options = [
        ["--registry", &registry],
        ["--name", "kitchen"],
        ["--tags", "edge,cellar"],
        ["--lease", "2"],
        ["--max-sessions", "3"],
    ];
    Process::start(&options.concat()).await
}

#[tokio::test]
async fn a_worker_is_announced_with_what_it_can_do_and_how_it_does_until_it_has_drained() {
    let redis = RedisServer::start();
    let registry = RedisRegistry::open(&redis.url()).unwrap();
    let mut worker = announced(&redis).await;
    until(&registry, "it is announced", |record| record.is_some()).await;
    let told = record(&registry, "kitchen").unwrap();
    assert_eq!(told.address, worker.url);
    assert_eq!(told.tags, ["edge", "cellar"]);
    assert!(told.capabilities.streaming && told.capabilities.cpu_ok);
    assert!(!told.capabilities.zero_shot && !told.capabilities.emotive);
    assert_eq!((told.live.free_slots, told.live.slots), (3, 3));
    assert_eq!(
        told.live.first_audio_p50_ms, 0.0,
        "nothing was measured yet"
    );
    assert!(told.hardware.cores > 0 && !told.hardware.host.is_empty());
    let tone = told.voice("tone").unwrap();
    assert!(tone.resident && tone.default);

    let client = worker.client().await;
    open(&client, "s", "").await.unwrap();
    until(&registry, "a session is counted", |record| {
        record.unwrap().live.free_slots == 2
    })
    .await;
    rest(say(&client, "s", "Hello.").await).await;
    until(&registry, "its speed is measured", |record| {
        let live = record.unwrap().live;
        live.first_audio_p95_ms > 0.0 && live.real_time_factor > 0.0
    })
    .await;

    let mut frames = say(&client, "s", "Words that take some seconds to be said.").await;
    frames.message().await.unwrap().unwrap();
    worker.signal("TERM");
    until(&registry, "it tells that it drains", |record| {
        record.is_none_or(|record| record.draining)
    })
    .await;
    assert!(rest(frames).await > 10);
    assert!(worker.ended().await.success());
    until(&registry, "it is withdrawn", |record| record.is_none()).await;
}

#[tokio::test]
async fn a_worker_that_is_killed_is_forgotten_and_one_that_lost_its_registry_comes_back() {
    let mut redis = RedisServer::start();
    let registry = RedisRegistry::open(&redis.url()).unwrap();
    let worker = announced(&redis).await;
    until(&registry, "it is announced", |record| record.is_some()).await;
    // A Redis that comes back has forgotten all.
    redis.kill();
    redis.start_again();
    let client = worker.client().await;
    open(&client, "s", "").await.unwrap();
    assert!(rest(say(&client, "s", "Nobody waits for Redis.").await).await > 10);
    until(&registry, "it is announced again", |record| {
        record.is_some_and(|record| record.live.free_slots == 2)
    })
    .await;
    worker.signal("KILL");
    until(&registry, "its lease has ended", |record| record.is_none()).await;
}

#[tokio::test]
async fn a_worker_is_ready_though_its_registry_is_away_and_needs_an_address_that_others_reach() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let worker = Process::start(&["--registry", &url]).await;
    let client = worker.client().await;
    open(&client, "s", "").await.unwrap();
    drop(worker);
    for (options, says) in [
        (["--registry", &url, "--listen", "0.0.0.0:0"], "--advertise"),
        (
            ["--registry", "localhost", "--listen", "127.0.0.1:0"],
            "redis://HOST:PORT",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duologue"));
        command
            .args(["worker", "--default-voice", "tone"])
            .args(options);
        let ended = tokio::time::timeout(Duration::from_secs(30), command.output()).await;
        let said = String::from_utf8(ended.unwrap().unwrap().stderr).unwrap();
        assert!(said.contains(says), "{said}");
    }
}
