//! Pause, resume, stop and reload: the order of events.

use std::time::Duration;

use crate::support::*;
use duologue_audio::FRAME_SAMPLES;
use duologue_rpc::{AudioFrame, ControlAction, ControlRequest};

/// About 4 s of sound.
const TEXT: &str = "A sentence that is long enough to be interrupted in its middle.";

/// Pauses after some frames, checks that none comes but those on their way, resumes, and gives all frames.
async fn say_with_a_pause(client: &Client, pause: Duration) -> Vec<AudioFrame> {
    let mut utterance = Utterance::begin(client, "s", "u", TEXT).await;
    utterance.finish();
    let mut frames = Vec::new();
    for _ in 0..20 {
        frames.push(utterance.next_frame().await);
    }
    let paused = control(client, "s", ControlAction::Pause).await.unwrap();
    assert_eq!(paused.utterance_id, "u");
    assert_eq!(paused.samples_sent % FRAME_SAMPLES as u64, 0);
    // Those that were sent before arrive, and not one more.
    while (frames.len() as u64) < paused.samples_sent / FRAME_SAMPLES as u64 {
        frames.push(utterance.next_frame().await);
    }
    let silence = tokio::time::timeout(pause, utterance.frames.message()).await;
    assert!(silence.is_err(), "a frame came after PAUSE was answered");
    let resumed = control(client, "s", ControlAction::Resume).await.unwrap();
    assert_eq!(
        resumed.samples_sent, paused.samples_sent,
        "nothing was sent in between"
    );
    frames.extend(utterance.rest().await.unwrap());
    frames
}

#[tokio::test(start_paused = true)]
async fn after_a_pause_of_a_minute_the_sound_goes_on_at_the_next_sample() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session_with_lead(&client, "s", "", 200).await.unwrap();
    let frames = say_with_a_pause(&client, Duration::from_secs(60)).await;
    assert_whole(&frames, TEXT);
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_resume_hold_over_tcp() {
    let worker = start(config()).await;
    let (client, _server) = connect_tcp(&worker).await;
    open_session_with_lead(&client, "s", "", 200).await.unwrap();
    let frames = say_with_a_pause(&client, Duration::from_millis(200)).await;
    assert_whole(&frames, TEXT);
}

#[tokio::test(start_paused = true)]
async fn a_pause_over_the_final_frames_keeps_them_for_after() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session_with_lead(&client, "s", "", 100).await.unwrap();
    let mut utterance = Utterance::begin(&client, "s", "u", "Hello.").await;
    utterance.finish();
    let mut frames = vec![utterance.next_frame().await];
    control(&client, "s", ControlAction::Pause).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    control(&client, "s", ControlAction::Resume).await.unwrap();
    frames.extend(utterance.rest().await.unwrap());
    assert_whole(&frames, "Hello.");
}

#[tokio::test(start_paused = true)]
async fn stop_ends_the_stream_without_a_final_frame_and_without_an_error() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session_with_lead(&client, "s", "", 200).await.unwrap();
    // Also while paused.
    for pause_first in [false, true] {
        let mut utterance = Utterance::begin(&client, "s", "u", TEXT).await;
        let mut frames = vec![utterance.next_frame().await];
        if pause_first {
            control(&client, "s", ControlAction::Pause).await.unwrap();
        }
        let stopped = control(&client, "s", ControlAction::Stop).await.unwrap();
        frames.extend(utterance.rest().await.unwrap());
        assert!(frames.iter().all(|frame| !frame.r#final));
        assert_eq!(
            frames.len() as u64 * FRAME_SAMPLES as u64,
            stopped.samples_sent
        );
        let (said, whole) = (pcm(&frames), tone_pcm(TEXT));
        assert!(said.len() < whole.len() && said == whole[..said.len()]);
        // The session is free for the next at once.
        assert_whole(&say(&client, "s", "Next.").await.unwrap(), "Next.");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_in_the_middle_of_a_slow_chunk_frees_the_engine() {
    let (worker, voices) = start_with(duologue_worker::WorkerConfig {
        engine_threads: 1,
        timeouts: duologue_worker::Timeouts {
            engine: Duration::from_secs(3_600),
            ..Default::default()
        },
        ..config()
    })
    .await;
    let client = connect(&worker);
    open_session(&client, "stuck", "stuck").await.unwrap();
    open_session(&client, "waits", "tone").await.unwrap();
    let mut stuck = Utterance::begin(&client, "stuck", "u", "An hour of computing.").await;
    eventually("the only engine thread computes", || async {
        voices.begun() == 1
    })
    .await;
    let mut waits = Utterance::begin(&client, "waits", "u", "Hello.").await;
    waits.finish();
    eventually("somebody waits for the engine", || async {
        worker.queue_depth() == 1
    })
    .await;
    let stopped = control(&client, "stuck", ControlAction::Stop)
        .await
        .unwrap();
    assert_eq!(stopped.samples_sent, 0);
    assert!(stuck.rest().await.unwrap().is_empty());
    assert_whole(&waits.rest().await.unwrap(), "Hello.");
}

#[tokio::test(start_paused = true)]
async fn control_where_nothing_runs_is_no_error_and_touches_nothing_to_come() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session(&client, "s", "").await.unwrap();
    for action in [
        ControlAction::Pause,
        ControlAction::Stop,
        ControlAction::Resume,
    ] {
        let answer = control(&client, "s", action).await.unwrap();
        assert_eq!((answer.samples_sent, answer.utterance_id.as_str()), (0, ""));
    }
    control(&client, "s", ControlAction::Pause).await.unwrap();
    assert_whole(&say(&client, "s", "Hello.").await.unwrap(), "Hello.");
}

#[tokio::test(start_paused = true)]
async fn control_of_another_utterance_than_the_one_that_runs_does_nothing() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session(&client, "s", "").await.unwrap();
    let mut utterance = Utterance::begin(&client, "s", "new", TEXT).await;
    utterance.finish();
    let mut frames = vec![utterance.next_frame().await];
    let stop_old = ControlRequest {
        session_id: "s".to_owned(),
        action: ControlAction::Stop.into(),
        utterance_id: "old".to_owned(),
    };
    let answer = client.clone().control(stop_old).await.unwrap().into_inner();
    assert_eq!(answer.utterance_id, "");
    frames.extend(utterance.rest().await.unwrap());
    assert_whole(&frames, TEXT);
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_reads_the_voice_again_and_leaves_what_runs_alone() {
    let (worker, voices) = start_with(config()).await;
    let client = connect(&worker);
    open_session_with_lead(&client, "s", "", 100).await.unwrap();
    assert_eq!(voices.loads(), 1);
    let mut utterance = Utterance::begin(&client, "s", "u", "Some words.").await;
    utterance.finish();
    let mut frames = vec![utterance.next_frame().await];
    let answer = control(&client, "s", ControlAction::Reload).await.unwrap();
    assert_eq!(voices.loads(), 2);
    assert_eq!(answer.utterance_id, "u");
    frames.extend(utterance.rest().await.unwrap());
    assert_whole(&frames, "Some words.");
    assert_whole(&say(&client, "s", "More.").await.unwrap(), "More.");
}
