//! The CSM adapter keeps the contract of voices, with a tiny random checkpoint in the published form.
#![cfg(feature = "csm")]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use duologue_tts::{Conversation, LoadOptions, Settings, StopFlag, Synthesizer, TtsError, load};
use duologue_voicepack::{Voicepack, VoicepackStore};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/csm")
}

fn pack(name: &str) -> Voicepack {
    VoicepackStore::open(fixtures()).find(name).unwrap()
}

static CSM: LazyLock<Arc<dyn Synthesizer>> =
    LazyLock::new(|| load(&pack("pack"), &LoadOptions::default()).unwrap());

duologue_tts::conformance_tests!(&CSM);

const TEXT: &str = "Hello there, how are you?";

fn say(voice: &dyn Synthesizer, texts: &[&str]) -> Vec<f32> {
    let mut speech = voice.begin(&Settings::default()).unwrap();
    let stop = StopFlag::default();
    let mut samples = Vec::new();
    for text in texts {
        speech.say(text).unwrap();
        while let Some(sound) = speech.next(&stop).unwrap() {
            samples.extend(sound.samples);
        }
    }
    samples
}

#[test]
fn two_adapters_at_once_sound_as_each_alone_and_neither_as_the_base() {
    let voices: Vec<_> = ["pack", "lora-a", "lora-b"]
        .map(|name| load(&pack(name), &LoadOptions::default()).unwrap())
        .into();
    let alone: Vec<_> = voices.iter().map(|v| say(&**v, &[TEXT])).collect();
    assert!(alone[0] != alone[1] && alone[1] != alone[2] && alone[0] != alone[2]);
    let together: Vec<_> = std::thread::scope(|scope| {
        let sessions: Vec<_> = voices
            .iter()
            .map(|voice| scope.spawn(move || say(&**voice, &[TEXT])))
            .collect();
        sessions.into_iter().map(|s| s.join().unwrap()).collect()
    });
    assert!(alone == together);
    // An adapter on a base that nobody else holds brings the base with it, and sounds the same.
    drop(voices);
    let again = load(&pack("lora-a"), &LoadOptions::default()).unwrap();
    assert!(say(&*again, &[TEXT]) == alone[1]);
}

#[test]
fn what_was_said_before_in_the_reply_is_heard_and_another_reply_is_not() {
    let second = |before: &str| {
        let mut speech = CSM.begin(&Settings::default()).unwrap();
        let stop = StopFlag::default();
        let mut said = |text: &str| {
            speech.say(text).unwrap();
            let sounds = std::iter::from_fn(|| speech.next(&stop).unwrap());
            sounds.flat_map(|s| s.samples).collect::<Vec<f32>>()
        };
        said(before);
        said(TEXT)
    };
    // As long as each other, so that the same random numbers come to the second sentence.
    assert!(second("Yes.") != second("Nor."));
    assert!(second("Yes.") == second("Yes."));
}

/// A reply of a session.
fn reply(
    voice: &dyn Synthesizer,
    speaker: &str,
    conversation: &Conversation,
    text: &str,
) -> Vec<f32> {
    let settings = Settings {
        speaker: Some(speaker.to_owned()),
        ..Settings::default()
    };
    let mut speech = voice.begin_in(&settings, conversation).unwrap();
    speech.say(text).unwrap();
    let stop = StopFlag::default();
    let sounds = std::iter::from_fn(|| speech.next(&stop).unwrap());
    sounds.flat_map(|sound| sound.samples).collect()
}

#[test]
fn a_session_goes_on_from_its_earlier_replies_and_another_session_does_not() {
    let second = |before: &str| {
        let conversation = Conversation::default();
        reply(&**CSM, "", &conversation, before);
        reply(&**CSM, "", &conversation, TEXT)
    };
    let after_yes = second("Yes.");
    assert!(after_yes != say(&**CSM, &[TEXT]));
    assert!(after_yes != second("Nor."));
    assert!(after_yes == second("Yes."));
}

#[test]
fn a_reply_that_is_broken_off_leaves_what_was_said_whole_to_the_next() {
    let conversation = Conversation::default();
    reply(&**CSM, "", &conversation, "Yes.");
    let expected = reply(&**CSM, "", &conversation, TEXT);

    let conversation = Conversation::default();
    reply(&**CSM, "", &conversation, "Yes.");
    let settings = Settings::default();
    let mut broken = CSM.begin_in(&settings, &conversation).unwrap();
    broken.say("It goes on and on.").unwrap();
    let stop = StopFlag::default();
    assert!(broken.next(&stop).unwrap().is_some());
    stop.stop();
    assert!(matches!(broken.next(&stop), Err(TtsError::Stopped)));
    drop(broken);
    assert!(reply(&**CSM, "", &conversation, TEXT) == expected);
}

#[test]
fn another_speaker_an_adapter_or_a_reload_begins_anew() {
    // Two who sound alike and have other numbers.
    let folder = tempfile::tempdir().unwrap();
    let two = folder.path().join("pack");
    std::fs::create_dir_all(two.join("ref")).unwrap();
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "metadata.yaml",
        "ref/ann.wav",
        "ref/ann.txt",
    ] {
        std::fs::copy(fixtures().join("pack").join(file), two.join(file)).unwrap();
    }
    let speakers = r#"{"longest": 1.0, "speakers": [{"name": "ann", "reference": "ref/ann.wav"},
        {"name": "bob", "id": 1, "reference": "ref/ann.wav"}]}"#;
    std::fs::write(two.join("voice.json"), speakers).unwrap();
    let pack_of_two = VoicepackStore::open(folder.path()).find("pack").unwrap();
    let base = load(&pack_of_two, &LoadOptions::default()).unwrap();
    let again = load(&pack_of_two, &LoadOptions::default()).unwrap();
    let adapter = load(&pack("lora-a"), &LoadOptions::default()).unwrap();

    let first = |voice: &dyn Synthesizer, speaker: &str| {
        reply(voice, speaker, &Conversation::default(), TEXT)
    };
    let after = |voice: &dyn Synthesizer, speaker: &str| {
        let conversation = Conversation::default();
        reply(&*base, "ann", &conversation, "Yes.");
        reply(voice, speaker, &conversation, TEXT)
    };
    assert!(after(&*base, "ann") != first(&*base, "ann"), "it goes on");
    assert!(after(&*base, "bob") == first(&*base, "bob"));
    assert!(after(&*again, "ann") == first(&*base, "ann"));
    assert!(after(&*adapter, "") == first(&*adapter, ""));
}

#[test]
fn a_session_of_any_number_of_replies_is_spoken() {
    let conversation = Conversation::default();
    for n in 0..40 {
        let text = "She walked slowly down the hill, past the old mill.";
        let said = reply(&**CSM, "", &conversation, text);
        assert!(said.len() > 24_000, "reply {n}: {} samples", said.len());
    }
}

#[test]
fn a_reply_of_any_length_is_spoken_though_the_network_remembers_a_part_of_it() {
    let mut speech = CSM.begin(&Settings::default()).unwrap();
    let stop = StopFlag::default();
    let mut words = 0;
    for _ in 0..60 {
        speech
            .say("She walked slowly down the hill, past the old mill.")
            .unwrap();
        while let Some(sound) = speech.next(&stop).unwrap() {
            words += sound.words.len();
        }
    }
    assert_eq!(words, 600);
}

#[test]
fn the_original_layout_speaks_as_the_other() {
    // Both without the recording.
    let rest = ["config.json", "tokenizer.json", "voice.json"];
    let voice = |layout: &str, weights: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let from = rest.iter().map(|file| ("pack", *file));
        for (from, file) in from.chain(weights.iter().map(|file| (layout, *file))) {
            let to = folder.path().join(file);
            std::fs::copy(fixtures().join(from).join(file), to).unwrap();
        }
        let bare = Voicepack {
            dir: folder.path().to_owned(),
            ..pack("pack")
        };
        load(&bare, &LoadOptions::default()).unwrap()
    };
    let bare = voice("pack", &["model.safetensors"]);
    let original = voice("original", &["model.safetensors", "mimi.safetensors"]);
    assert!(say(&*original, &[TEXT]) == say(&*bare, &[TEXT]));
    assert!(
        say(&*original, &[TEXT]) != say(&**CSM, &[TEXT]),
        "the recording is not heard"
    );
}

#[test]
fn an_adapter_without_its_base_says_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("lora-a");
    std::fs::create_dir(&copy).unwrap();
    for file in [
        "adapter_config.json",
        "adapter_model.safetensors",
        "metadata.yaml",
    ] {
        std::fs::copy(fixtures().join("lora-a").join(file), copy.join(file)).unwrap();
    }
    let told = |pack: &Voicepack| match load(pack, &LoadOptions::default()) {
        Err(TtsError::Load(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was loaded"),
    };
    let alone = VoicepackStore::open(folder.path()).find("lora-a").unwrap();
    let why = told(&alone);
    assert!(why.contains("its base") && why.contains("pack"), "{why}");
    let mut nameless = alone;
    nameless.metadata.base = None;
    let why = told(&nameless);
    assert!(why.contains("base:"), "{why}");
}

#[test]
fn a_recording_without_its_text_or_too_long_is_refused_with_the_file() {
    let refused = |prepare: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            std::fs::copy(fixtures().join("pack").join(file), folder.path().join(file)).unwrap();
        }
        std::fs::create_dir(folder.path().join("ref")).unwrap();
        prepare(folder.path());
        let broken = Voicepack {
            dir: folder.path().to_owned(),
            ..pack("pack")
        };
        match load(&broken, &LoadOptions::default()) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("it was loaded"),
        }
    };
    let wav = |folder: &Path| {
        std::fs::copy(
            fixtures().join("pack/ref/ann.wav"),
            folder.join("ref/ann.wav"),
        )
        .unwrap();
    };
    let untold = refused(&|folder| wav(folder));
    assert!(untold.contains("ann.txt"), "{untold}");
    let outside = refused(&|folder| {
        std::fs::write(
            folder.join("voice.json"),
            r#"{"speakers": [{"name": "ann", "reference": "../ann.wav"}]}"#,
        )
        .unwrap();
    });
    assert!(outside.contains("../ann.wav"), "{outside}");
    let long = refused(&|folder| {
        let bytes = duologue_audio::wav::encode(&vec![3_000; 8_000 * 31], 8_000);
        std::fs::write(folder.join("ref/ann.wav"), bytes).unwrap();
        std::fs::write(folder.join("ref/ann.txt"), "It goes on and on.").unwrap();
    });
    assert!(long.contains("31 s") && long.contains("ann.wav"), "{long}");
}
