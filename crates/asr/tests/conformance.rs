//! What every `Recognizer` keeps to. Each loads once; a new one is a line in `every_recognizer`.
#![cfg(feature = "whisper")]
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use duologue_asr::{
    AsrError, Cancel, LoadOptions, Options, Reason, Recognizer, Transcript, load, wer,
};
use duologue_voicepack::VoicepackStore;

/// Every recognizer that there is, by the voicepack that it is loaded from.
fn every_recognizer() -> &'static [Arc<dyn Recognizer>] {
    static ALL: OnceLock<Vec<Arc<dyn Recognizer>>> = OnceLock::new();
    ALL.get_or_init(|| {
        ["whisper-tiny.en", "whisper-base"]
            .into_iter()
            .map(|name| {
                let store = VoicepackStore::open_default().unwrap();
                let pack = store
                    .find(name)
                    .unwrap_or_else(|e| panic!("{e}. Run `duologue models pull {name}`"));
                load(
                    &pack,
                    &LoadOptions {
                        threads: 2,
                        ..LoadOptions::default()
                    },
                )
                .unwrap()
            })
            .collect()
    })
}

/// A clip of real speech at 16 kHz and what is said in it.
fn clip(name: &str) -> (Vec<f32>, String) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/speech");
    let table = std::fs::read_to_string(dir.join("speech.tsv")).unwrap();
    let text = table
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .find(|fields| fields[0] == name)
        .unwrap_or_else(|| panic!("{name} is not in speech.tsv"))[1]
        .to_owned();
    let recording = duologue_audio::decode_file(&dir.join(name))
        .unwrap()
        .at_rate(16_000)
        .unwrap();
    (recording.samples, text)
}

fn english() -> Options {
    Options {
        language: Some("en".into()),
        ..Options::default()
    }
}

fn hear(recognizer: &dyn Recognizer, audio: &[f32]) -> Transcript {
    recognizer
        .transcribe(audio, &english(), &Cancel::default())
        .unwrap()
}

fn noise(seconds: f32, level: f32) -> Vec<f32> {
    let mut state = 1_u32;
    (0..(seconds * 16_000.0) as usize)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            level * (state as f32 / u32::MAX as f32 - 0.5)
        })
        .collect()
}

#[test]
fn speech_becomes_its_words() {
    let clips = [
        "jfk.flac",
        "austen-0870.flac",
        "austen-0880.flac",
        "austen-0890.flac",
        "goforward.flac",
        "something.flac",
        "asterisk-conf-now-recording.flac",
        "asterisk-invalid.flac",
    ];
    for recognizer in every_recognizer() {
        let errors: wer::Errors = clips
            .iter()
            .map(|name| {
                let (audio, text) = clip(name);
                wer::compare(&text, &hear(&**recognizer, &audio).text)
            })
            .sum();
        assert!(
            errors.rate() < 0.12,
            "{}: {errors:?}",
            recognizer.info().name
        );
    }
}

#[test]
fn silence_and_scraps_are_told_and_not_transcribed() {
    for recognizer in every_recognizer() {
        for audio in [
            vec![],
            vec![0.0; 1],
            vec![0.0; 1_600],
            vec![0.0; 48_000],
            noise(3.0, 0.0005),
        ] {
            let heard = hear(&**recognizer, &audio);
            assert_eq!(heard.text, "", "{} samples", audio.len());
            assert!(heard.segments.is_empty());
            if !audio.is_empty() {
                assert_eq!(heard.rejected.unwrap().reason, Reason::Silence);
            }
        }
    }
}

#[test]
fn noise_is_no_text() {
    for recognizer in every_recognizer() {
        for (seconds, level) in [(0.1, 0.2), (1.0, 0.1), (3.0, 0.02), (5.0, 0.3)] {
            let heard = hear(&**recognizer, &noise(seconds, level));
            assert_eq!(
                heard.text,
                "",
                "{}: {seconds} s of noise: {heard:?}",
                recognizer.info().name
            );
        }
    }
}

#[test]
fn a_tenth_of_a_second_of_speech_does_no_harm() {
    let (audio, _) = clip("jfk.flac");
    for recognizer in every_recognizer() {
        let heard = hear(&**recognizer, &audio[16_000..17_600]);
        assert!(heard.text.len() < 20, "{heard:?}");
    }
}

#[test]
fn samples_that_are_no_numbers_count_as_silence() {
    let (mut audio, text) = clip("goforward.flac");
    audio[100] = f32::NAN;
    audio[20_000] = f32::INFINITY;
    for recognizer in every_recognizer() {
        assert!(wer::compare(&text, &hear(&**recognizer, &audio).text).rate() < 0.3);
        assert_eq!(hear(&**recognizer, &vec![f32::NAN; 16_000]).text, "");
    }
}

#[test]
fn long_audio_is_heard_to_its_end() {
    let (speech, text) = clip("jfk.flac");
    let mut audio = Vec::new();
    for _ in 0..3 {
        audio.extend(&speech);
        audio.extend(vec![0.0; 2 * 16_000]);
    }
    audio.extend(clip("goforward.flac").0);
    assert!(audio.len() > 40 * 16_000);
    let text = format!("{text} {text} {text} go forward ten meters");
    for recognizer in every_recognizer() {
        let heard = hear(&**recognizer, &audio);
        let errors = wer::compare(&text, &heard.text);
        assert!(
            errors.rate() < 0.15,
            "{}: {errors:?} {}",
            recognizer.info().name,
            heard.text
        );
        assert!(heard.segments.len() >= 2);
        assert!(
            heard
                .segments
                .windows(2)
                .all(|pair| pair[0].end <= pair[1].start + 0.5)
        );
    }
}

#[test]
fn several_at_once_hear_what_one_hears_alone() {
    let clips: Vec<_> = [
        "goforward.flac",
        "austen-0880.flac",
        "asterisk-invalid.flac",
    ]
    .map(|n| clip(n).0)
    .into();
    for recognizer in every_recognizer() {
        let alone: Vec<String> = clips
            .iter()
            .map(|audio| hear(&**recognizer, audio).text)
            .collect();
        let together: Vec<String> = std::thread::scope(|scope| {
            let running: Vec<_> = clips
                .iter()
                .map(|audio| scope.spawn(|| hear(&**recognizer, audio).text))
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(together, alone);
    }
}

#[test]
fn words_have_times_in_order_within_the_audio() {
    let (audio, text) = clip("jfk.flac");
    let options = Options {
        word_times: true,
        ..english()
    };
    for recognizer in every_recognizer() {
        let heard = recognizer
            .transcribe(&audio, &options, &Cancel::default())
            .unwrap();
        let words: Vec<_> = heard.segments.iter().flat_map(|s| &s.words).collect();
        let joined = words
            .iter()
            .map(|w| w.text.as_str())
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(joined, heard.text);
        assert!(wer::compare(&text, &joined).rate() < 0.15);
        assert!(
            words
                .iter()
                .all(|w| 0.0 <= w.start && w.start <= w.end && w.end <= 11.1)
        );
        assert!(
            words
                .windows(2)
                .all(|pair| pair[0].end <= pair[1].start + 0.01)
        );
        assert!(words.iter().all(|w| (0.0..=1.0).contains(&w.probability)));
        // "ask" is said at about 4.0 and again at 7.7 to 8.4 s.
        let asks: Vec<f32> = words
            .iter()
            .filter(|w| w.text.eq_ignore_ascii_case("ask"))
            .map(|w| w.start)
            .collect();
        assert_eq!(asks.len(), 2, "{joined}");
        assert!(
            (3.0..=4.6).contains(&asks[0]) && (7.3..=8.7).contains(&asks[1]),
            "{asks:?}"
        );
    }
}

#[test]
fn words_start_after_the_silence_that_was_left_out() {
    let (speech, _) = clip("goforward.flac");
    let mut audio = vec![0.0; 5 * 16_000];
    audio.extend(speech);
    let options = Options {
        word_times: true,
        ..english()
    };
    for recognizer in every_recognizer() {
        let heard = recognizer
            .transcribe(&audio, &options, &Cancel::default())
            .unwrap();
        assert!(heard.segments[0].start >= 4.5);
        assert!(
            heard.segments[0]
                .words
                .iter()
                .all(|w| (4.9..8.0).contains(&w.end)),
            "{heard:?}"
        );
    }
}

#[test]
fn a_language_is_detected_or_refused() {
    let (audio, _) = clip("jfk.flac");
    for recognizer in every_recognizer() {
        let heard = recognizer
            .transcribe(&audio, &Options::default(), &Cancel::default())
            .unwrap();
        assert_eq!(heard.language, "en");
        assert!(heard.language_probability > 0.5);
        let klingon = Options {
            language: Some("tlh".into()),
            ..Options::default()
        };
        let refused = recognizer.transcribe(&audio, &klingon, &Cancel::default());
        assert!(
            matches!(refused, Err(AsrError::UnknownLanguage { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn a_prompt_steers_the_spelling_and_is_not_repeated() {
    let (audio, text) = clip("goforward.flac");
    let options = Options {
        prompt: Some("The robot hears: turn left, go back two meters.".into()),
        ..english()
    };
    for recognizer in every_recognizer() {
        let heard = recognizer
            .transcribe(&audio, &options, &Cancel::default())
            .unwrap();
        assert!(!heard.text.contains("robot"), "{}", heard.text);
        assert!(
            wer::compare(&text, &heard.text).rate() <= 0.5,
            "{}",
            heard.text
        );
    }
}

#[test]
fn what_was_cancelled_is_not_begun() {
    let (audio, _) = clip("goforward.flac");
    let cancel = Cancel::default();
    cancel.cancel();
    for recognizer in every_recognizer() {
        let heard = recognizer.transcribe(&audio, &english(), &cancel);
        assert!(matches!(heard, Err(AsrError::Cancelled)), "{heard:?}");
    }
}

#[test]
fn a_folder_without_a_model_says_how_to_get_one() {
    let dir = std::env::temp_dir().join("duologue-no-model-here");
    let error = duologue_asr::load_dir("whisper-base", &dir, &LoadOptions::default())
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("duologue models pull whisper-base"),
        "{error}"
    );
}
