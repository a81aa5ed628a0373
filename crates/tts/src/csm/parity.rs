//! The network beside transformers' `CsmForConditionalGeneration`, stage by stage, on a tiny random checkpoint in both
//! layouts, with adapters and without. `bench/parity/csm.py` makes what is compared with, and says how.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use candle_core::{DType, Device, IndexOp, Tensor};

use super::config::Config;
use super::model::{Manner, Memory, Model, Step};
use super::prompt::Tokens;
use crate::StopFlag;
use crate::neural::{Adapters, LoraSet, Part, Sampling};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/csm")
}

static GOLDEN: LazyLock<HashMap<String, Tensor>> = LazyLock::new(|| {
    candle_core::safetensors::load(fixtures().join("golden.safetensors"), &Device::Cpu).unwrap()
});

fn open(layout: &str) -> Model {
    open_with(layout, |config| config)
}

/// With its configuration changed.
fn open_with(layout: &str, change: impl FnOnce(String) -> String) -> Model {
    // The two layouts are of one model, whose configuration is there once.
    let config = fixtures().join("pack/config.json");
    let config = change(std::fs::read_to_string(config).unwrap());
    let files = super::voice::checkpoint(&fixtures().join(layout)).unwrap();
    Model::load(Config::parse(&config).unwrap(), &files, &Device::Cpu).unwrap()
}

/// The same where the codec's attention sees so many steps only.
fn with_window(steps: usize) -> Model {
    open_with("pack", |config| {
        let (from, to) = (
            "\"sliding_window\": 250",
            format!("\"sliding_window\": {steps}"),
        );
        assert!(config.contains(from), "{config}");
        config.replace(from, &to)
    })
}

pub(super) static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| Arc::new(open("pack")));

pub(super) fn adapter(name: &str) -> LoraSet {
    LoraSet::load(&fixtures().join(name), &MODEL.targets(), &MODEL.placement()).unwrap()
}

fn golden(name: &str) -> &'static Tensor {
    GOLDEN
        .get(name)
        .unwrap_or_else(|| panic!("the fixtures have no {name}"))
}

pub(super) fn codes(name: &str) -> Vec<Vec<u32>> {
    golden(name)
        .to_dtype(DType::U32)
        .unwrap()
        .to_vec2()
        .unwrap()
}

fn prompt() -> Vec<u32> {
    golden("prompt")
        .to_dtype(DType::U32)
        .unwrap()
        .to_vec1()
        .unwrap()
}

fn tokens(ids: &[u32]) -> Vec<Step> {
    ids.iter().copied().map(Step::Token).collect()
}

/// The prompt, to be read.
pub(super) fn prompt_steps() -> Vec<Step> {
    tokens(&prompt())
}

/// The prompt after a recording and what is said in it, to be read.
pub(super) fn prompt_after_recording() -> Vec<Step> {
    let known = Tokens::load(&fixtures().join("pack/tokenizer.json"), 10_000).unwrap();
    let said = std::fs::read_to_string(fixtures().join("pack/ref/ann.txt")).unwrap();
    let mut steps = tokens(&known.turn(0, said.trim()).unwrap());
    steps.extend(codes("reference_codes").into_iter().map(Step::Frame));
    steps.push(MODEL.end_frame());
    steps.extend(prompt_steps());
    steps
}

/// The greatest difference, as a share of the greatest value.
fn difference(ours: &Tensor, theirs: &Tensor) -> f32 {
    assert_eq!(ours.dims(), theirs.dims());
    let most = |t: Tensor| {
        t.abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
    };
    most((ours - theirs).unwrap()) / most(theirs.clone())
}

fn assert_near(what: &str, ours: &Tensor, theirs: &Tensor, limit: f32) {
    let found = difference(ours, theirs);
    assert!(found <= limit, "{what} differs by {found:e}");
}

/// Frames without chance, after these steps.
fn greedy(model: &Model, steps: &[Step], lora: Option<&LoraSet>) -> Vec<Vec<u32>> {
    let mut memory = model.memory(200).unwrap();
    let mut depth = model.depth_cache(1).unwrap();
    let mut unread = steps.to_vec();
    let mut made = Vec::new();
    for _ in 0..codes("frames").len() {
        read(model, &unread, &mut memory, lora);
        let manner = Manner {
            sampling: Sampling::Greedy,
            lora,
            draws: vec![0.0; model.config().codebooks],
        };
        let codes = model.frames(&[&memory], &[manner], &mut depth, &mut || false);
        let codes = codes.unwrap().unwrap().get(0).unwrap().to_vec1().unwrap();
        unread = vec![Step::Frame(Vec::clone(&codes))];
        made.push(codes);
    }
    made
}

fn read(model: &Model, steps: &[Step], memory: &mut Memory, lora: Option<&LoraSet>) {
    let never = StopFlag::default();
    model.read_alone(steps, memory, lora, &never).unwrap();
}

/// Every stage of the network; `prefix` is that of the stages with an adapter.
fn compare(model: &Model, lora: Option<&LoraSet>, prefix: &str) {
    let named = |name: &str| golden(&format!("{prefix}{name}"));
    let text = model.embed(&prompt_steps()).unwrap();
    assert_near("the text's embedding", &text, named("text_embedding"), 0.0);

    let mut memory = model.memory(100).unwrap();
    let mut layers = Vec::new();
    let steps = prompt().len();
    let mut parts = [Part {
        cache: memory.backbone(),
        steps,
    }];
    let adapters = Adapters::new([(steps, lora)]);
    let hidden = model
        .backbone()
        .forward_watched(&text, &mut parts, &adapters, |_, x| layers.push(x.clone()))
        .unwrap();
    for (n, layer) in layers.iter().enumerate() {
        assert_near(
            &format!("backbone layer {n}"),
            layer,
            named(&format!("backbone_layer_{n}")),
            1e-5,
        );
    }
    assert_near("the backbone", &hidden, named("backbone"), 1e-5);
    let last = hidden.narrow(0, steps - 1, 1).unwrap();
    let first = model.first_scores(&last, &Adapters::new([(1, lora)]));
    let first = first.unwrap().i(0).unwrap();
    assert_near(
        "scores of the first code",
        &first,
        named("first_scores"),
        1e-5,
    );

    let given: Vec<u32> = named("given_codes")
        .to_dtype(DType::U32)
        .unwrap()
        .to_vec1()
        .unwrap();
    let scores = model.depth_scores_of(&last, &given, lora).unwrap();
    assert_near(
        "scores of the other codes",
        &scores,
        named("depth_scores"),
        1e-4,
    );

    assert_eq!(
        greedy(model, &prompt_steps(), lora),
        codes(&format!("{prefix}frames"))
    );
    assert_eq!(
        greedy(model, &prompt_after_recording(), lora),
        codes(&format!("{prefix}frames_with_reference"))
    );
}

#[test]
fn every_stage_is_as_in_the_reference() {
    compare(&MODEL, None, "");
}

#[test]
fn the_original_layout_is_the_same_model() {
    compare(&open("original"), None, "");
}

#[test]
fn an_adapter_changes_every_stage_as_in_the_reference() {
    for name in ["lora_a", "lora_b"] {
        let lora = adapter(&name.replace('_', "-"));
        compare(&MODEL, Some(&lora), &format!("{name}."));
    }
    // And taken off leaves nothing behind.
    compare(&MODEL, None, "");
}

#[test]
fn a_text_has_the_tokens_of_the_reference() {
    let tokens = Tokens::load(&fixtures().join("pack/tokenizer.json"), 384).unwrap();
    assert_eq!(
        tokens.turn(0, "Hello there, how are you?").unwrap(),
        prompt()
    );
    let spoken = tokens.turn(0, "<|end_of_text|>").unwrap();
    let end = *prompt().last().unwrap();
    assert_eq!(
        spoken.iter().filter(|t| **t == end).count(),
        1,
        "a text cannot end its turn"
    );
    let refused = Tokens::load(&fixtures().join("pack/tokenizer.json"), 300)
        .err()
        .unwrap();
    assert!(refused.contains("token"), "{refused}");
}

#[test]
fn the_codec_hears_and_speaks_as_the_reference_and_in_steps_as_at_once() {
    let sound = duologue_audio::decode_file(&fixtures().join("pack/ref/ann.wav")).unwrap();
    let heard = MODEL.codec().encode(&sound.samples).unwrap();
    assert_eq!(heard, codes("reference_codes"));

    let given = codes("decoded_codes");
    let theirs: Vec<f32> = golden("decoded").to_vec1().unwrap();
    assert_sounds_like("at once", &at_once(&MODEL, &given), &theirs);
    assert_sounds_like("in steps", &in_steps(&MODEL, &given), &theirs);
}

fn at_once(model: &Model, codes: &[Vec<u32>]) -> Vec<f32> {
    let books = Tensor::new(codes.to_vec(), &Device::Cpu)
        .unwrap()
        .t()
        .unwrap();
    model.codec().decode(&books.contiguous().unwrap()).unwrap()
}

fn in_steps(model: &Model, codes: &[Vec<u32>]) -> Vec<f32> {
    let mut decoder = model.codec().decoder();
    let step = |frame: &Vec<u32>| {
        let frame = Tensor::new(&frame[..], &Device::Cpu).unwrap();
        let sound: Vec<f32> = decoder.step(&frame).unwrap().to_vec1().unwrap();
        assert_eq!(sound.len(), model.config().codec.frame);
        sound
    };
    codes.iter().flat_map(step).collect()
}

fn assert_sounds_like(what: &str, ours: &[f32], theirs: &[f32]) {
    let peak = theirs.iter().fold(0.0f32, |peak, s| peak.max(s.abs()));
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let most = ours
        .iter()
        .zip(theirs)
        .fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(
        most <= 1e-4 * peak,
        "{what} the sound differs by {most} of {peak}"
    );
}

/// Ten seconds are many frames, so the window is made short instead. What a pass over the whole gives is the measure: a
/// step in it sees its window and one more.
#[test]
fn sound_beyond_the_window_of_attention_is_in_steps_as_at_once() {
    let given = codes("decoded_codes");
    for window in [3, 7, 8, 30, 59] {
        let whole = at_once(&with_window(window - 1), &given);
        let steps = in_steps(&with_window(window), &given);
        assert_sounds_like(&format!("with a window of {window}"), &steps, &whole);
    }
    // And the window is looked through: with another the same codes sound otherwise.
    let (short, long) = (in_steps(&with_window(8), &given), in_steps(&MODEL, &given));
    let early = 3 * MODEL.config().codec.frame;
    assert!(short[..early] == long[..early] && short != long);
}

#[test]
fn a_stop_is_seen_between_two_codes_of_a_frame() {
    let mut memory = MODEL.memory(100).unwrap();
    read(&MODEL, &prompt_steps(), &mut memory, None);
    let mut asked = 0;
    let mut third = || {
        asked += 1;
        asked == 3
    };
    let manner = Manner {
        sampling: Sampling::Greedy,
        lora: None,
        draws: vec![0.0; MODEL.config().codebooks],
    };
    let mut depth = MODEL.depth_cache(1).unwrap();
    let made = MODEL.frames(&[&memory], &[manner], &mut depth, &mut third);
    assert!(made.unwrap().is_none());
    assert_eq!(asked, 3);
}

fn refusal(prepare: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixtures().join("pack").join(file), folder.path().join(file)).unwrap();
    }
    prepare(folder.path());
    let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    let files = super::voice::checkpoint(folder.path()).unwrap();
    match Model::load(Config::parse(&config).unwrap(), &files, &Device::Cpu) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_checkpoint_that_is_not_whole_or_of_another_model_is_refused_with_what_it_lacks() {
    let file = |folder: &Path| folder.join("model.safetensors");
    let cut = refusal(|folder| {
        let whole = std::fs::read(file(folder)).unwrap();
        std::fs::write(file(folder), &whole[..whole.len() / 2]).unwrap();
    });
    assert!(
        cut.contains("cut short") && cut.contains("model.safetensors"),
        "{cut}"
    );
    let foreign =
        refusal(|folder| std::fs::write(file(folder), b"PK\x03\x04 not it at all").unwrap());
    assert!(foreign.contains("safetensors format"), "{foreign}");
    let other = refusal(|folder| {
        let tensor = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        let tensors = HashMap::from([("model.embed_tokens.weight".to_owned(), tensor)]);
        candle_core::safetensors::save(&tensors, file(folder)).unwrap();
    });
    assert!(
        other.contains("43 of 43 tensors are missing: embed_text_tokens.weight"),
        "{other}"
    );
    let larger = refusal(|folder| {
        let json = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let json = json.replace("\"intermediate_size\": 128", "\"intermediate_size\": 256");
        std::fs::write(folder.join("config.json"), json).unwrap();
    });
    assert!(
        larger.contains("6 tensors have another shape") && larger.contains("[128, 64]"),
        "{larger}"
    );
    let without_codec = refusal(|folder| {
        std::fs::copy(fixtures().join("original/model.safetensors"), file(folder)).unwrap();
    });
    assert!(
        without_codec.contains("mimi.safetensors"),
        "{without_codec}"
    );
    let part_of_codec = refusal(|folder| {
        let mut tensors = candle_core::safetensors::load(file(folder), &Device::Cpu).unwrap();
        let lost = tensors.remove("codec_model.decoder.layers.0.conv.bias");
        assert!(lost.is_some());
        candle_core::safetensors::save(&tensors, file(folder)).unwrap();
    });
    assert!(
        part_of_codec.contains("codec_model.decoder.layers.0.conv.bias"),
        "{part_of_codec}"
    );
}

#[test]
fn an_adapter_for_another_base_or_of_another_kind_is_refused_by_name() {
    let refusal = |prepare: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(
                fixtures().join("lora-a").join(file),
                folder.path().join(file),
            )
            .unwrap();
        }
        prepare(folder.path());
        match LoraSet::load(folder.path(), &MODEL.targets(), &MODEL.placement()) {
            Ok(_) => panic!("it was taken"),
            Err(why) => why,
        }
    };
    let config = |folder: &Path, from: &str, to: &str| {
        let file = folder.join("adapter_config.json");
        let json = std::fs::read_to_string(&file).unwrap();
        assert!(json.contains(from), "{json}");
        std::fs::write(file, json.replace(from, to)).unwrap();
    };
    let weights = |folder: &Path, change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        let file = folder.join("adapter_model.safetensors");
        let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
        change(&mut tensors);
        candle_core::safetensors::save(&tensors, file).unwrap();
    };
    let dora = refusal(&|d| config(d, "\"use_dora\": false", "\"use_dora\": true"));
    assert!(
        dora.contains("use_dora") && dora.contains("adapter_config.json"),
        "{dora}"
    );
    let rank = refusal(&|d| config(d, "\"down_proj\": 2", "\"down_proj\": 3"));
    assert!(
        rank.contains("down_proj") && rank.contains("rank"),
        "{rank}"
    );
    let missing = refusal(&|d| std::fs::remove_file(d.join("adapter_model.safetensors")).unwrap());
    assert!(missing.contains("adapter_model.safetensors"), "{missing}");
    let codec = "base_model.model.codec_model.decoder.decoder_transformer.layers.0.self_attn.q_proj.lora_B.weight";
    let heard = refusal(&|d| {
        weights(d, &|tensors| {
            let zero = tensors[codec].clone();
            tensors.insert(codec.to_owned(), (zero + 1.0).unwrap());
        });
    });
    assert!(
        heard.contains("codec_model.decoder.decoder_transformer.layers.0.self_attn.q_proj"),
        "{heard}"
    );
    let half = refusal(&|d| {
        weights(d, &|tensors| {
            tensors.remove(codec);
        });
    });
    assert!(half.contains("only one of"), "{half}");
}
