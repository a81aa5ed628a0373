//! A real Piper voice keeps the contract of voices. Needs the default models: `duologue models pull`.
#![cfg(feature = "espeak")]
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, LazyLock};

use duologue_audio::loudness;
use duologue_tts::{LoadOptions, Settings, StopFlag, Synthesizer, TtsError, load};
use duologue_voicepack::{Voicepack, VoicepackStore};

const NAME: &str = "piper-en_US-joe-medium";

fn pack() -> Voicepack {
    let store = VoicepackStore::open_default().unwrap();
    store.find(NAME).unwrap_or_else(|e| panic!("{e}\nThis test needs models: run `duologue models pull`."))
}

static JOE: LazyLock<Arc<dyn Synthesizer>> = LazyLock::new(|| load(&pack(), &LoadOptions::default()).unwrap());

duologue_tts::conformance_tests!(&JOE);

fn say(voice: &dyn Synthesizer, text: &str) -> Vec<f32> {
    let mut speech = voice.begin(&Settings::default()).unwrap();
    speech.say(text).unwrap();
    let stop = StopFlag::default();
    let pieces = std::iter::from_fn(|| speech.next(&stop).unwrap());
    pieces.flat_map(|p| p.samples).collect()
}

#[test]
fn it_speaks_at_the_common_loudness() {
    let text = "The train leaves at nine, so we should have breakfast before eight. \
                Please remember to bring your coat, because it will be cold in the evening.";
    let measured = loudness::measure(&say(&**JOE, text), JOE.voice().sample_rate).unwrap().unwrap();
    assert!((measured - loudness::SPEECH_LUFS).abs() < 1.5, "{measured} LUFS");
}

#[test]
fn another_seed_is_another_reading_of_the_same_length_or_nearly() {
    let options = LoadOptions { seed: 7, ..LoadOptions::default() };
    let other = load(&pack(), &options).unwrap();
    let text = "A sentence to compare, neither long nor short.";
    let (a, b) = (say(&**JOE, text), say(&*other, text));
    assert_ne!(a, b);
    let ratio = a.len() as f64 / b.len() as f64;
    assert!((0.6..1.6).contains(&ratio), "{ratio}");
}

#[test]
fn the_number_of_threads_changes_nothing_one_could_hear() {
    let options = LoadOptions { threads: std::num::NonZeroUsize::new(1), ..LoadOptions::default() };
    let single = load(&pack(), &options).unwrap();
    let text = "A sentence to compare.";
    let (a, b) = (say(&**JOE, text), say(&*single, text));
    assert_eq!(a.len(), b.len());
    let difference = a.iter().zip(&b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-3, "{difference}");
}

#[test]
fn a_voicepack_that_is_broken_says_what_is_wrong() {
    let sound = pack();
    let told = |prepare: &dyn Fn(&std::path::Path)| {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let broken = Voicepack { dir: folder.path().to_owned(), ..sound.clone() };
        match load(&broken, &LoadOptions::default()) {
            Err(TtsError::Load(why)) => why,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("a broken voicepack was loaded"),
        }
    };
    let config = std::fs::read(sound.dir.join("en_US-joe-medium.onnx.json")).unwrap();
    let model = |folder: &std::path::Path, bytes: &[u8]| std::fs::write(folder.join("v.onnx"), bytes).unwrap();

    assert!(told(&|_| {}).contains("no .onnx file"));
    assert!(told(&|d| model(d, b"x")).contains("v.onnx.json"));
    let garbled = told(&|d| {
        model(d, b"\xff\xff\xff not a model");
        std::fs::write(d.join("v.onnx.json"), &config).unwrap();
    });
    assert!(garbled.contains("v.onnx") && garbled.contains(NAME), "{garbled}");
    let whole = std::fs::read(sound.dir.join("en_US-joe-medium.onnx")).unwrap();
    let cut = told(&|d| {
        model(d, &whole[..whole.len() / 2]);
        std::fs::write(d.join("v.onnx.json"), &config).unwrap();
    });
    assert!(cut.contains("v.onnx"), "{cut}");
    let unknown = Voicepack {
        metadata: duologue_voicepack::Metadata { family: "parrot".into(), ..sound.metadata.clone() },
        ..sound.clone()
    };
    let told = load(&unknown, &LoadOptions::default()).err().unwrap().to_string();
    assert!(told.contains("parrot") && told.contains("piper"), "{told}");
}
