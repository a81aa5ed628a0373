//! The models on real speech and on what is not speech.
#![allow(clippy::unwrap_used)]

mod sounds;

use std::f32::consts::TAU;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use duologue_audio::pcm;
use duologue_vad::{
    Aggressiveness, EndOfTurn, GateConfig, LightDetector, SegmentEvent, SegmenterConfig,
    SileroModel, SpeechListener, SpeechSegmenter, ThresholdScale, VadError, VoiceDetector, Window,
    samples,
};
use duologue_voicepack::VoicepackStore;
use sounds::{clip, recording};

fn model(name: &str, file: &str) -> PathBuf {
    let store = VoicepackStore::open_default().unwrap();
    match store.find(name) {
        Ok(voicepack) => voicepack.file(file),
        Err(error) => panic!("{error}: run `duologue models pull` before the tests"),
    }
}

fn silero() -> &'static SileroModel {
    static MODEL: OnceLock<SileroModel> = OnceLock::new();
    MODEL.get_or_init(|| SileroModel::load(&model("silero-vad", "silero_vad.onnx")).unwrap())
}

fn end_of_turn() -> &'static EndOfTurn {
    static MODEL: OnceLock<EndOfTurn> = OnceLock::new();
    MODEL.get_or_init(|| {
        let file = model("smart-turn-v3.2", "smart-turn-v3.2-cpu.onnx");
        EndOfTurn::load(&file, 2).unwrap()
    })
}

fn detectors() -> [(&'static str, Box<dyn VoiceDetector>); 2] {
    [
        ("silero", Box::new(silero().detector())),
        (
            "light",
            Box::new(LightDetector::new(Aggressiveness::Balanced)),
        ),
    ]
}

const CLIPS: [&str; 12] = [
    "jfk",
    "austen-0870",
    "austen-0880",
    "austen-0890",
    "austen-0920",
    "austen-0930",
    "goforward",
    "something",
    "asterisk-conf-now-recording",
    "asterisk-tt-weasels",
    "asterisk-invalid",
    "asterisk-demo-thanks",
];

/// White noise of an amplitude.
fn noise(seconds: f32, amplitude: f32) -> Vec<f32> {
    sounds::noise((seconds * 16_000.0) as usize, amplitude)
}

/// A few bars of real music, over and over.
fn music(seconds: usize) -> Vec<f32> {
    let bars = recording("noise/music.ogg");
    bars.into_iter().cycle().take(seconds * 16_000).collect()
}

fn windows(detector: &mut dyn VoiceDetector, samples: &[f32]) -> Vec<Window> {
    let mut windows = Vec::new();
    detector.process(samples, &mut windows).unwrap();
    windows
}

fn events(windows: &[Window], config: SegmenterConfig) -> Vec<SegmentEvent> {
    let mut segmenter = SpeechSegmenter::new(config);
    windows
        .iter()
        .filter_map(|window| segmenter.push(window))
        .collect()
}

/// First and last sample that are loud for this clip: within 30 dB of its
/// loudest 10 ms, for 30 ms on end.
fn loud_span(speech: &[f32]) -> (usize, usize) {
    let levels: Vec<f32> = speech.chunks(160).map(|c| pcm::dbfs(pcm::rms(c))).collect();
    let loudest = levels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let loud = |run: &[f32]| run.iter().all(|&level| level > loudest - 30.0);
    let first = levels.windows(3).position(loud).unwrap();
    let last = levels.windows(3).rposition(loud).unwrap() + 3;
    (first * 160, (last * 160).min(speech.len()))
}

#[test]
fn people_who_are_listened_to_on_several_threads_are_heard_as_if_alone() {
    let alone: Vec<Vec<Window>> = CLIPS[..4]
        .iter()
        .map(|name| windows(&mut silero().detector(), &clip(name)))
        .collect();
    // Each is heard by turns on both threads, as a pool has it.
    let mut detectors: Vec<_> = alone.iter().map(|_| silero().detector()).collect();
    let mut heard: Vec<Vec<Window>> = vec![Vec::new(); alone.len()];
    let clips: Vec<Vec<f32>> = CLIPS[..4].iter().map(|name| clip(name)).collect();
    let longest = clips.iter().map(Vec::len).max().unwrap();
    for (turn, from) in (0..longest).step_by(1_600).enumerate() {
        let mut all: Vec<_> = (detectors.iter_mut().zip(&mut heard).zip(&clips))
            .map(|((detector, heard), clip)| {
                let sound = clip.get(from..).unwrap_or_default();
                (detector, &sound[..sound.len().min(1_600)], heard)
            })
            .collect();
        let middle = all.len() / 2;
        all.rotate_left(turn % 4);
        let (first, second) = all.split_at_mut(middle);
        std::thread::scope(|scope| {
            for part in [first, second] {
                scope.spawn(move || {
                    for (detector, sound, heard) in part {
                        detector.process(sound, heard).unwrap();
                    }
                });
            }
        });
    }
    assert_eq!(heard, alone);
}

#[test]
fn no_onset_is_clipped_and_no_end_is_late() {
    for name in CLIPS {
        let speech = clip(name);
        let (first, last) = loud_span(&speech);
        let mut sound = noise(1.5, 1e-4);
        let offset = sound.len();
        sound.extend(&speech);
        sound.extend(noise(1.5, 1e-4));
        for (detector, mut voice) in detectors() {
            let told = events(&windows(&mut *voice, &sound), SegmenterConfig::default());
            let Some(&SegmentEvent::SpeechStarted { onset_sample }) = told.first() else {
                panic!("{detector}, {name}: {told:?}");
            };
            let onset = onset_sample as i64 - (offset + first) as i64;
            // Pre-roll and at most half a second of breath.
            assert!(
                (-12_800..=0).contains(&onset),
                "{detector}, {name}: onset off by {onset}"
            );
            let Some(&SegmentEvent::SpeechStopped { end_sample }) = told.last() else {
                panic!("{detector}, {name}: {told:?}");
            };
            let end = end_sample as i64 - (offset + last) as i64;
            // A voice that trails off over a noisy room may be given up on sooner.
            assert!(
                (-9600..=6400).contains(&end),
                "{detector}, {name}: end off by {end}"
            );
        }
    }
}

#[test]
fn the_first_sound_of_every_clip_survives_detector_gate_and_pre_roll() {
    // The pre-roll that the conversation adds.
    const PRE_ROLL: i64 = samples(300) as i64;
    for over_a_reply in [false, true] {
        for name in CLIPS {
            let speech = clip(name);
            let (first, _) = loud_span(&speech);
            let mut sound = noise(4.0, 1e-3);
            let offset = sound.len();
            sound.extend(&speech);
            for (detector, voice) in detectors() {
                let config = SegmenterConfig {
                    pre_roll_ms: 0,
                    ..SegmenterConfig::default()
                };
                let mut listener = SpeechListener::new(voice, config, Some(GateConfig::default()));
                let scale = if over_a_reply { 2.0 } else { 1.0 };
                listener.set_threshold_scale(ThresholdScale {
                    odds: scale,
                    loudness: scale,
                });
                let mut told = Vec::new();
                listener.hear(&sound, &mut told).unwrap();
                let Some(&SegmentEvent::SpeechStarted { onset_sample }) = told.first() else {
                    panic!("{detector}, {name}: {told:?}");
                };
                let begins = onset_sample as i64 - PRE_ROLL - (offset + first) as i64;
                // `loud_span` knows no better than 10 ms.
                assert!(
                    (-12_800..=160).contains(&begins),
                    "{detector}, {name}, over a reply: {over_a_reply}: begins {begins} samples after the first sound"
                );
            }
        }
    }
}

#[test]
fn noise_tones_and_silence_are_not_speech() {
    let hum: Vec<f32> = (0..80_000)
        .map(|i| 0.2 * (TAU * 50.0 * i as f32 / 16_000.0).sin())
        .collect();
    let mut clicks = noise(5.0, 1e-4);
    clicks.iter_mut().step_by(5333).for_each(|s| *s = 0.8);
    for (what, sound) in [
        ("silence", vec![0.0; 80_000]),
        ("quiet noise", noise(5.0, 0.001)),
        ("loud noise", noise(5.0, 0.3)),
        ("hum", hum),
        ("clicks", clicks),
    ] {
        let strict = LightDetector::new(Aggressiveness::Strict);
        let detectors: [(_, Box<dyn VoiceDetector>); 2] = [
            ("silero", Box::new(silero().detector())),
            ("light", Box::new(strict)),
        ];
        for (detector, mut voice) in detectors {
            let told = events(&windows(&mut *voice, &sound), SegmenterConfig::default());
            assert!(told.is_empty(), "{detector}, {what}: {told:?}");
        }
    }
}

#[test]
fn speech_is_heard_after_a_minute_of_music() {
    let before = music(60);
    for name in ["goforward", "something", "jfk"] {
        let mut sound = before.clone();
        let offset = sound.len() as u64;
        sound.extend(noise(0.2, 1e-4));
        sound.extend(clip(name));
        let told = events(
            &windows(&mut silero().detector(), &sound),
            SegmenterConfig::default(),
        );
        let heard = told.iter().any(|event| {
            matches!(event, SegmentEvent::SpeechStarted { onset_sample }
                if (offset..offset + 16_000).contains(onset_sample))
        });
        assert!(heard, "{name}: {told:?}");
    }
}

#[test]
fn music_alone_is_not_speech_to_silero() {
    let told = events(
        &windows(&mut silero().detector(), &music(30)),
        SegmenterConfig::default(),
    );
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn probabilities_depend_on_neither_blocks_nor_other_streams() {
    let speech = clip("goforward");
    for ((name, mut whole), (_, mut cut)) in detectors().into_iter().zip(detectors()) {
        let expected = windows(&mut *whole, &speech);
        let mut got = Vec::new();
        let mut other = silero().detector();
        for block in speech.chunks(333) {
            cut.process(block, &mut got).unwrap();
            windows(&mut other, &noise(0.03, 0.5));
        }
        assert_eq!(got, expected, "{name}");
        whole.reset();
        assert_eq!(
            windows(&mut *whole, &speech),
            expected,
            "{name} after a reset"
        );
    }
}

#[test]
fn a_stricter_light_detector_hears_less() {
    let mut speech = clip("austen-0870");
    for (sample, noise) in speech.iter_mut().zip(noise(8.0, 0.05)) {
        *sample += noise;
    }
    let heard = [0, 1, 2, 3].map(|level| {
        let mut voice = LightDetector::new(Aggressiveness::from_level(level).unwrap());
        windows(&mut voice, &speech)
            .iter()
            .filter(|w| w.probability >= 0.5)
            .count()
    });
    assert!(
        heard.is_sorted_by(|a, b| a >= b) && heard[0] > heard[3],
        "{heard:?}"
    );
}

#[test]
fn whole_sentences_sound_finished_and_cut_ones_do_not() {
    // Readings that end with a falling voice, and where in them the reader is
    // in the middle of a phrase.
    for (name, middle) in [
        ("jfk", 0.6),
        ("austen-0870", 0.6),
        ("austen-0920", 0.6),
        ("something", 0.6),
        ("asterisk-conf-now-recording", 0.6),
        ("asterisk-tt-weasels", 0.6),
        ("asterisk-demo-thanks", 0.6),
    ] {
        let speech = clip(name);
        let (first, last) = loud_span(&speech);
        let ask = |end: usize| {
            let mut turn = speech[..end].to_vec();
            turn.extend([0.0; 3200]);
            end_of_turn().probability(&turn).unwrap()
        };
        let whole = ask(last);
        let cut = ask(first + ((last - first) as f32 * middle) as usize);
        assert!(whole > 0.5, "{name}: {whole:.2} when whole");
        assert!(cut < 0.5, "{name}: {cut:.2} when cut");
    }
}

#[test]
fn only_the_last_8_seconds_of_a_turn_count() {
    let speech = clip("jfk");
    let recent = &speech[speech.len() - EndOfTurn::WINDOW..];
    assert_eq!(
        end_of_turn().probability(&speech).unwrap(),
        end_of_turn().probability(recent).unwrap()
    );
    for nothing in [&[][..], &[0.0; 100][..]] {
        let p = end_of_turn().probability(nothing).unwrap();
        assert!((0.0..=1.0).contains(&p));
    }
}

#[test]
fn a_file_that_is_not_the_model_is_named() {
    let nowhere = Path::new("/nowhere/silero.onnx");
    let Err(error) = SileroModel::load(nowhere) else {
        panic!()
    };
    assert!(matches!(error, VadError::Load { .. }));
    assert!(
        error.to_string().contains("/nowhere/silero.onnx"),
        "{error}"
    );
    let other = model("smart-turn-v3.2", "smart-turn-v3.2-cpu.onnx");
    assert!(matches!(
        SileroModel::load(&other),
        Err(VadError::WrongModel { .. })
    ));
    let other = model("silero-vad", "silero_vad.onnx");
    assert!(matches!(
        EndOfTurn::load(&other, 1),
        Err(VadError::WrongModel { .. })
    ));
}

#[test]
fn the_early_edge_of_silence_comes_within_150_ms_of_it() {
    let mut sound = clip("asterisk-conf-now-recording");
    let (_, last) = loud_span(&sound);
    sound.truncate(last);
    sound.extend(noise(1.5, 1e-4));
    let mut segmenter = SpeechSegmenter::new(SegmenterConfig::default());
    let told = windows(&mut silero().detector(), &sound)
        .iter()
        .find_map(|window| match segmenter.push(window) {
            Some(SegmentEvent::Silence { since_sample }) => Some((since_sample, window.end())),
            _ => None,
        });
    let (since, at) = told.unwrap();
    assert!(at - since <= samples(150), "{since} told at {at}");
}
