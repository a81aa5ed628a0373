//! A real Piper voice keeps the contract of voices. Needs the default models: `duologue models pull`.
#![cfg(feature = "espeak")]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use duologue_audio::loudness;
use duologue_tts::{LoadOptions, Settings, StopFlag, Synthesizer, TtsError, load};
use duologue_voicepack::{Voicepack, VoicepackStore};
use rten_onnx::onnx::{DataType, ModelProto, NodeProto, TensorProto, ValueInfoProto};

const NAME: &str = "piper-en_US-joe-medium";

fn pack() -> Voicepack {
    let store = VoicepackStore::open_default().unwrap();
    store
        .find(NAME)
        .unwrap_or_else(|e| panic!("{e}\nThis test needs models: run `duologue models pull`."))
}

static JOE: LazyLock<Arc<dyn Synthesizer>> =
    LazyLock::new(|| load(&pack(), &LoadOptions::default()).unwrap());

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
    let text = "The capital of France is Paris, and about two million people live there. \
                Water boils at one hundred degrees at sea level; on a mountain it boils sooner. \
                I am sorry, I did not understand that. Could you say it again? \
                We walked along the river until it was dark, and then we took the last bus home.";
    let samples = say(&**JOE, text);
    let measured = loudness::measure(&samples, JOE.voice().sample_rate)
        .unwrap()
        .unwrap();
    assert!(
        (measured - loudness::SPEECH_LUFS).abs() < 1.0,
        "{measured} LUFS"
    );
    let peak = samples.iter().fold(0.0f32, |peak, s| peak.max(s.abs()));
    assert!(peak <= 0.8913, "the peak, {peak}, is above -1 dBFS");
}

#[test]
fn another_seed_is_another_reading_of_the_same_length_or_nearly() {
    let options = LoadOptions {
        seed: 7,
        ..LoadOptions::default()
    };
    let other = load(&pack(), &options).unwrap();
    let text = "A sentence to compare, neither long nor short.";
    let (a, b) = (say(&**JOE, text), say(&*other, text));
    assert_ne!(a, b);
    let ratio = a.len() as f64 / b.len() as f64;
    assert!((0.6..1.6).contains(&ratio), "{ratio}");
}

#[test]
fn the_number_of_threads_changes_nothing_one_could_hear() {
    let options = LoadOptions {
        threads: std::num::NonZeroUsize::new(1),
        ..LoadOptions::default()
    };
    let single = load(&pack(), &options).unwrap();
    let text = "A sentence to compare.";
    let (a, b) = (say(&**JOE, text), say(&*single, text));
    assert_eq!(a.len(), b.len());
    let difference = a
        .iter()
        .zip(&b)
        .map(|(x, y)| (x - y).abs())
        .fold(0.0, f32::max);
    assert!(difference < 1e-3, "{difference}");
}

/// The voice with three speakers: a speaker's vector is added where voices with several have theirs added, to
/// what the vocoder's first layer gives. The first one's is zero.
fn three_speakers(folder: &Path) -> Voicepack {
    let single = pack();
    let onnx = std::fs::read(single.dir.join("en_US-joe-medium.onnx")).unwrap();
    let mut model = ModelProto::parse_buf(&onnx).unwrap();
    let graph = model.graph.as_mut().unwrap();
    // In this voice a weight has the name that is the speaker's elsewhere.
    for node in &mut graph.node {
        for input in node.input.iter_mut().filter(|i| *i == "sid") {
            *input = "phoneme vectors".to_owned();
        }
    }
    for weight in graph
        .initializer
        .iter_mut()
        .filter(|w| w.name.as_deref() == Some("sid"))
    {
        weight.name = Some("phoneme vectors".to_owned());
    }
    let first = graph
        .node
        .iter()
        .position(|n| n.name.as_deref() == Some("/dec/conv_pre/Conv"))
        .unwrap();
    let made = graph.node[first].output[0].clone();
    for node in &mut graph.node {
        for input in node.input.iter_mut().filter(|i| **i == made) {
            *input = "conditioned".to_owned();
        }
    }
    let channels = 256;
    let vectors = (0..3 * channels).map(|i| {
        if i < channels {
            0.0
        } else {
            (i % 7) as f32 * 0.4 - 1.0
        }
    });
    graph.initializer.push(TensorProto {
        name: Some("emb_g.weight".to_owned()),
        dims: vec![3, channels, 1],
        data_type: Some(DataType::FLOAT),
        float_data: vectors.collect(),
        ..TensorProto::default()
    });
    let node = |operator: &str, inputs: [&str; 2], output: &str| NodeProto {
        name: Some(format!("/{output}")),
        op_type: Some(operator.to_owned()),
        input: inputs.map(str::to_owned).to_vec(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    graph
        .node
        .insert(first + 1, node("Gather", ["emb_g.weight", "sid"], "g"));
    graph
        .node
        .insert(first + 2, node("Add", [&made, "g"], "conditioned"));
    graph.input.push(ValueInfoProto {
        name: Some("sid".to_owned()),
        ..ValueInfoProto::default()
    });
    std::fs::write(folder.join("v.onnx"), model.write_buf().unwrap()).unwrap();

    let config = std::fs::read_to_string(single.dir.join("en_US-joe-medium.onnx.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["num_speakers"] = 3.into();
    config["speaker_id_map"] = serde_json::json!({ "ann": 1, "bob": 2, "joe": 0 });
    std::fs::write(folder.join("v.onnx.json"), config.to_string()).unwrap();
    Voicepack {
        dir: folder.to_owned(),
        ..single
    }
}

#[test]
fn a_voice_with_several_speakers_speaks_as_each_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let voice = load(&three_speakers(folder.path()), &LoadOptions::default()).unwrap();
    assert_eq!(voice.voice().speakers, ["joe", "ann", "bob"]);
    let as_speaker = |speaker: &str| {
        let settings = Settings {
            speaker: Some(speaker.to_owned()),
            ..Settings::default()
        };
        let mut speech = voice.begin(&settings).unwrap();
        speech.say("Who is speaking now?").unwrap();
        let stop = StopFlag::default();
        std::iter::from_fn(|| speech.next(&stop).unwrap())
            .flat_map(|p| p.samples)
            .collect::<Vec<_>>()
    };
    let (joe, ann, bob) = (as_speaker("joe"), as_speaker("ann"), as_speaker("bob"));
    assert!(
        joe == say(&**JOE, "Who is speaking now?"),
        "the speaker without a vector is not as without speakers"
    );
    assert!(joe != ann && ann != bob);
    assert!(as_speaker("2") == bob && as_speaker("") == joe);
}

#[test]
fn a_voicepack_that_is_broken_says_what_is_wrong() {
    let sound = pack();
    let told = |prepare: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let broken = Voicepack {
            dir: folder.path().to_owned(),
            ..sound.clone()
        };
        match load(&broken, &LoadOptions::default()) {
            Err(TtsError::Load(why)) => why,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("a broken voicepack was loaded"),
        }
    };
    let config = std::fs::read(sound.dir.join("en_US-joe-medium.onnx.json")).unwrap();
    let model = |folder: &Path, bytes: &[u8]| std::fs::write(folder.join("v.onnx"), bytes).unwrap();

    assert!(told(&|_| {}).contains("no .onnx file"));
    assert!(told(&|d| model(d, b"x")).contains("v.onnx.json"));
    let garbled = told(&|d| {
        model(d, b"\xff\xff\xff not a model");
        std::fs::write(d.join("v.onnx.json"), &config).unwrap();
    });
    assert!(
        garbled.contains("v.onnx") && garbled.contains(NAME),
        "{garbled}"
    );
    let whole = std::fs::read(sound.dir.join("en_US-joe-medium.onnx")).unwrap();
    let cut = told(&|d| {
        model(d, &whole[..whole.len() / 2]);
        std::fs::write(d.join("v.onnx.json"), &config).unwrap();
    });
    assert!(cut.contains("v.onnx"), "{cut}");
    let unknown = Voicepack {
        metadata: duologue_voicepack::Metadata {
            family: "parrot".into(),
            ..sound.metadata.clone()
        },
        ..sound.clone()
    };
    let told = load(&unknown, &LoadOptions::default())
        .err()
        .unwrap()
        .to_string();
    assert!(told.contains("parrot") && told.contains("piper"), "{told}");
}
