//! The end of a worker: what runs is finished, nothing new begins.

use duologue_rpc::{ControlAction, ControlRequest};
use tonic::Code;

use crate::support::*;

/// 60 ms a character: about 3 s.
const TEXT: &str = "A sentence of some length, said to its very end.";

#[tokio::test]
async fn a_worker_told_to_stop_says_what_it_says_to_the_end_and_takes_nothing_new() {
    let mut worker = Process::start(&[]).await;
    let client = worker.client().await;
    for session in ["speaks", "silent"] {
        open(&client, session, "").await.unwrap();
    }
    let mut frames = say(&client, "speaks", TEXT).await;
    frames.message().await.unwrap().unwrap();
    worker.signal("TERM");
    eventually("it refuses new sessions", || async {
        let refused = open(&client, "new", "").await;
        end(&client, "new").await.ok();
        refused.is_err_and(|status| status.code() == Code::Unavailable)
    })
    .await;
    assert!(capabilities(&client).await.draining);
    // What runs can still be paused, and goes on.
    for action in [ControlAction::Pause, ControlAction::Resume] {
        let request = ControlRequest {
            session_id: "speaks".to_owned(),
            action: action.into(),
            utterance_id: String::new(),
        };
        let applied = client.clone().control(request).await.unwrap();
        assert_eq!(applied.into_inner().utterance_id, "u");
    }
    assert!(rest(frames).await > 100);
    assert!(worker.ended().await.success());
}

#[tokio::test]
async fn a_worker_told_to_stop_waits_no_longer_than_it_may() {
    let mut worker = Process::start(&["--drain", "1"]).await;
    let client = worker.client().await;
    open(&client, "s", "").await.unwrap();
    let mut frames = say(&client, "s", &TEXT.repeat(20)).await;
    frames.message().await.unwrap().unwrap();
    worker.signal("TERM");
    let cut_off = loop {
        match frames.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if it were whole"),
            Err(status) => break status,
        }
    };
    assert_eq!(cut_off.code(), Code::Unavailable, "{cut_off}");
    assert!(worker.ended().await.success());
}
