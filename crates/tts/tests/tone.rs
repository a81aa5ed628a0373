//! The tone voice keeps the contract of voices, and its own promises.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use duologue_tts::tone::{CHARACTER, SAMPLE_RATE, Tone, ToneOptions};
use duologue_tts::{Settings, StopFlag, Synthesizer, TtsError};

static TONE: LazyLock<Arc<dyn Synthesizer>> =
    LazyLock::new(|| Arc::new(Tone::new(ToneOptions::default()).unwrap()));

duologue_tts::conformance_tests!(&TONE);

#[test]
fn a_word_is_a_kilohertz_for_as_long_as_its_characters() {
    let mut speech = TONE.begin(&Settings::default()).unwrap();
    speech.say("to be.").unwrap();
    let stop = StopFlag::default();
    let (mut samples, mut words) = (Vec::new(), Vec::new());
    while let Some(sound) = speech.next(&stop).unwrap() {
        samples.extend(sound.samples);
        words.extend(sound.words);
    }
    let character = (CHARACTER.as_secs_f64() * f64::from(SAMPLE_RATE)) as usize;
    assert_eq!(samples.len(), 6 * character);
    let places: Vec<_> = words
        .iter()
        .map(|w| (w.start as usize, w.end as usize))
        .collect();
    assert_eq!(places, [(0, 2 * character), (3 * character, 5 * character)]);
    for (start, end) in places {
        let word = &samples[start..end];
        let rises = word
            .windows(2)
            .filter(|w| w[0] <= 0.0 && w[1] > 0.0)
            .count();
        let cycles = (end - start) / 24;
        assert!(rises.abs_diff(cycles) <= 1, "{rises} cycles, not {cycles}");
    }
    assert!(
        samples[2 * character..3 * character]
            .iter()
            .all(|s| *s == 0.0)
    );
}

#[test]
fn a_voice_that_takes_for_ever_stops_when_it_is_told_to() {
    let slow = [
        ToneOptions {
            first_audio: Duration::from_secs(100_000),
            real_time_factor: 0.0,
        },
        ToneOptions {
            first_audio: Duration::ZERO,
            real_time_factor: 1e6,
        },
    ];
    for options in slow {
        let mut speech = Tone::new(options)
            .unwrap()
            .begin(&Settings::default())
            .unwrap();
        speech.say("never to be heard").unwrap();
        let stop = StopFlag::default();
        let flag = stop.clone();
        let (at_work, is_at_work) = std::sync::mpsc::channel();
        let voice = std::thread::spawn(move || {
            at_work.send(()).unwrap();
            speech.next(&flag)
        });
        is_at_work.recv().unwrap();
        stop.stop();
        // Without the stop this would not come in a day.
        assert!(matches!(voice.join().unwrap(), Err(TtsError::Stopped)));
    }
}

#[test]
fn the_stated_time_is_spent() {
    let options = ToneOptions {
        first_audio: Duration::from_millis(30),
        real_time_factor: 0.1,
    };
    let mut speech = Tone::new(options)
        .unwrap()
        .begin(&Settings::default())
        .unwrap();
    speech.say("ten chars.").unwrap();
    let stop = StopFlag::default();
    let begun = std::time::Instant::now();
    let mut sound = 0;
    while let Some(piece) = speech.next(&stop).unwrap() {
        assert!(begun.elapsed() >= Duration::from_millis(30));
        sound += piece.samples.len();
    }
    let sound = Duration::from_secs_f64(sound as f64 / f64::from(SAMPLE_RATE));
    assert!(begun.elapsed() >= Duration::from_millis(30) + sound / 10);
}

#[test]
fn a_real_time_factor_that_means_nothing_is_refused() {
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        let refused = Tone::new(ToneOptions {
            real_time_factor: bad,
            ..ToneOptions::default()
        });
        assert!(
            matches!(refused.err(), Some(TtsError::BadSetting(_))),
            "{bad}"
        );
    }
}
