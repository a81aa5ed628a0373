//! The same with a real voice, from its files on disk.

use duologue_rpc::ListModelsRequest;
use duologue_voicepack::VoicepackStore;
use duologue_worker::{Worker, WorkerConfig};

use crate::support::*;

const VOICE: &str = "piper-en_US-joe-medium";
const TEXT: &str =
    "The worker speaks with a real voice now, and this sentence comes out of it whole.";

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_speak_with_a_voice_from_the_disk() {
    let store = VoicepackStore::open_default().unwrap();
    store.find(VOICE).expect("run `duologue models pull`");
    let config = WorkerConfig {
        default_voice: Some(VOICE.to_owned()),
        ..WorkerConfig::default()
    };
    let worker = Worker::start(config, store).await.unwrap();
    let (client, _server) = connect_tcp(&worker).await;
    let list = client.clone().list_models(ListModelsRequest {}).await;
    let models = list.unwrap().into_inner().models;
    let voice = models.iter().find(|model| model.name == VOICE).unwrap();
    assert!(voice.resident && voice.is_default && voice.resident_bytes > 10_000_000);
    assert_eq!(voice.family, "piper");
    let speak = async |id: &str| {
        open_session(&client, id, "").await.unwrap();
        say(&client, id, TEXT).await.unwrap()
    };
    let (a, b) = tokio::join!(speak("a"), speak("b"));
    for frames in [a, b] {
        for (n, frame) in frames.iter().enumerate() {
            assert_eq!(frame.sequence, n as u64);
            assert_eq!(frame.r#final, n + 1 == frames.len());
        }
        let seconds = frames.len() as f64 / 50.0;
        assert!((3.0..8.0).contains(&seconds), "{seconds} s");
        let words: Vec<_> = frames.iter().flat_map(|frame| &frame.words).collect();
        let written: Vec<_> = TEXT
            .split([' ', ',', '.'])
            .filter(|w| !w.is_empty())
            .collect();
        let said: Vec<_> = words.iter().map(|mark| mark.word.as_str()).collect();
        assert_eq!(said, written);
        let loud = |samples: &[i16]| {
            let sum: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
            (sum / samples.len().max(1) as f64).sqrt()
        };
        let sound = pcm(&frames);
        for mark in words {
            let word =
                &sound[mark.start_sample as usize..(mark.end_sample as usize).min(sound.len())];
            assert!(loud(word) > 100.0, "{mark:?} is silent");
        }
    }
}
