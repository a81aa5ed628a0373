//! `duologue health --worker`, as a container's health check asks.

use tokio::process::Command;

use crate::support::*;

async fn health(worker: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duologue"));
    let output = command.args(["health", "--worker", worker]).output().await;
    let output = output.unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8(told).unwrap();
    (output.status.success(), told)
}

#[tokio::test]
async fn a_worker_is_well_until_it_is_told_to_stop() {
    let mut worker = Process::start(&[]).await;
    let address = worker.url.trim_start_matches("http://").to_owned();
    assert_eq!(health(&address).await, (true, "ready\n".to_owned()));
    let client = worker.client().await;
    open(&client, "speaks", "").await.unwrap();
    let mut frames = say(&client, "speaks", &"It speaks on. ".repeat(5)).await;
    frames.message().await.unwrap().unwrap();
    worker.signal("TERM");
    eventually("it is unwell", || async { !health(&address).await.0 }).await;
    rest(frames).await;
    assert!(worker.ended().await.success());
    let (well, told) = health(&address).await;
    assert!(!well && told.contains("cannot reach a worker"), "{told}");
}
