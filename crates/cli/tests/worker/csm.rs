//! CSM and its adapters in a running worker, with the tiny checkpoint of the adapter's own tests.

use std::path::Path;

use duologue_rpc::{AudioFrame, ControlAction, ControlRequest};
use tonic::{Code, Streaming};

use crate::support::*;

const TEXT: &str = "Hello there, how are you?";

/// Puts one of the fixtures into a worker's store, in place of what was there.
fn place(store: &Path, fixture: &str, name: &str) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tts/tests/csm");
    copy(&fixtures.join(fixture), &store.join(name));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The sound of an utterance, which must come to its end.
async fn sound(mut frames: Streaming<AudioFrame>) -> Vec<u8> {
    let mut sound = Vec::new();
    let mut last = false;
    while let Some(frame) = tokio::time::timeout(PATIENCE, frames.message())
        .await
        .expect("no frame comes")
        .unwrap()
    {
        sound.extend(frame.pcm);
        last = frame.r#final;
    }
    assert!(last, "the utterance was cut off");
    sound
}

/// What a session of its own says with a voice.
async fn alone(client: &Client, voice: &str) -> Vec<u8> {
    let session = format!("alone-{voice}");
    open(client, &session, voice).await.unwrap();
    let said = sound(say(client, &session, TEXT).await).await;
    end(client, &session).await.unwrap();
    said
}

async fn reload(client: &Client, session: &str) {
    let request = ControlRequest {
        session_id: session.to_owned(),
        action: ControlAction::Reload.into(),
        utterance_id: String::new(),
    };
    client.clone().control(request).await.unwrap();
}

async fn is_resident(client: &Client, name: &str) -> bool {
    let models = models(client).await;
    let model = models.iter().find(|model| model.name == name);
    model.expect("the worker does not know it").resident
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_come_change_and_go_in_a_running_worker() {
    let store = tempfile::tempdir().unwrap();
    place(store.path(), "pack", "pack");
    let worker = Process::start(&["--voicepacks", store.path().to_str().unwrap()]).await;
    let client = worker.client().await;
    let base = alone(&client, "pack").await;

    // Put there while the worker runs, and found.
    place(store.path(), "lora-a", "mine");
    place(store.path(), "lora-b", "other");
    assert!(!is_resident(&client, "mine").await);
    let (mine, other) = (alone(&client, "mine").await, alone(&client, "other").await);
    assert!(mine != base && other != base && mine != other);

    // All at once, each as it is alone.
    let mut speaking = Vec::new();
    for voice in ["pack", "mine", "other"] {
        open(&client, voice, voice).await.unwrap();
        speaking.push(tokio::spawn(sound(say(&client, voice, TEXT).await)));
    }
    for (speaking, expected) in speaking.into_iter().zip([&base, &mine, &other]) {
        assert!(speaking.await.unwrap() == *expected);
    }

    // Other weights under the same name: what is being said ends as it began, the session's next utterance is said with
    // the new ones, and as if nothing had been said before.
    open(&client, "live", "mine").await.unwrap();
    let mut frames = say(&client, "live", TEXT).await;
    let begun = frames.message().await.unwrap().unwrap().pcm.to_vec();
    place(store.path(), "lora-b", "mine");
    reload(&client, "live").await;
    let finished = [begun, sound(frames).await].concat();
    assert!(finished == mine);
    assert!(sound(say(&client, "live", TEXT).await).await == other);

    // A session that goes on hears what it said before.
    assert!(sound(say(&client, "live", TEXT).await).await != other);

    let refused = unload(&client, "mine").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    for session in ["live", "mine", "pack", "other"] {
        end(&client, session).await.unwrap();
    }
    for voice in ["mine", "other", "pack"] {
        unload(&client, voice).await.unwrap();
        assert!(!is_resident(&client, voice).await);
    }
    // And back, which brings the base along.
    assert!(alone(&client, "mine").await == other);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_cannot_be_read_leaves_the_one_that_is_in_use() {
    let store = tempfile::tempdir().unwrap();
    place(store.path(), "pack", "pack");
    place(store.path(), "lora-a", "mine");
    let worker = Process::start(&["--voicepacks", store.path().to_str().unwrap()]).await;
    let client = worker.client().await;
    let mine = alone(&client, "mine").await;
    let weights = store.path().join("mine/adapter_model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    open(&client, "s", "mine").await.unwrap();
    let request = ControlRequest {
        session_id: "s".to_owned(),
        action: ControlAction::Reload.into(),
        utterance_id: String::new(),
    };
    let refused = client.clone().control(request).await.unwrap_err();
    assert!(refused.message().contains("cut short"), "{refused}");
    assert!(sound(say(&client, "s", TEXT).await).await == mine);
}
