//! Echo cancellation and noise reduction on real speech.
#![allow(clippy::unwrap_used)]

mod sounds;

use duologue_audio::pcm;
use duologue_vad::{CleanerConfig, EchoCancellation, NoiseReduction, SoundCleaner, samples};
use sounds::{clip, noise};

const SECOND: usize = samples(1000) as usize;
/// A small room, by sample and gain.
const ROOM: [(usize, f32); 5] = [
    (0, 0.3),
    (37, 0.12),
    (130, -0.08),
    (271, 0.05),
    (600, -0.03),
];

/// What the assistant says: 10 s.
fn reply() -> Vec<f32> {
    [clip("austen-0870"), clip("austen-0880")].concat()
}

/// What a microphone in the room hears of it.
fn echo(played: &[f32], delay_ms: u32) -> Vec<f32> {
    let mut heard = noise(played.len(), 5e-4);
    for (reflection, gain) in ROOM {
        let late = samples(delay_ms) as usize + reflection;
        for (sample, played) in heard[late..].iter_mut().zip(played) {
            *sample += gain * played;
        }
    }
    heard
}

fn canceller() -> SoundCleaner {
    SoundCleaner::new(CleanerConfig {
        echo: EchoCancellation::On,
        noise: None,
    })
}

fn cleaned(cleaner: &mut SoundCleaner, heard: &[f32], played: &[f32]) -> Vec<f32> {
    let mut out = Vec::new();
    for (heard, played) in heard.chunks(320).zip(played.chunks(320)) {
        cleaner.clean(heard, played, &mut out).unwrap();
    }
    out
}

fn level(sound: &[f32], from: usize, to: usize) -> f32 {
    pcm::dbfs(pcm::rms(&sound[from * SECOND..to * SECOND]))
}

#[test]
fn an_echo_is_taken_out_and_its_delay_found() {
    let played = reply();
    for delay in [30, 150, 450] {
        let heard = echo(&played, delay);
        let mut cleaner = canceller();
        let left = cleaned(&mut cleaner, &heard, &played);
        let (before, after) = (level(&heard, 2, 9), level(&left, 2, 9));
        assert!(
            after < before - 25.0,
            "{delay} ms: {before} to {after} dBFS"
        );
        let found = cleaner.echo().unwrap().delay_ms.unwrap();
        assert!(found.abs_diff(delay) <= 20, "{delay} ms: found {found}");
    }
}

#[test]
fn who_speaks_over_the_echo_is_still_heard() {
    let played = reply();
    let mut heard = echo(&played, 120);
    let voice = clip("goforward");
    let from = 6 * SECOND;
    for (sample, voice) in heard[from..].iter_mut().zip(&voice) {
        *sample += voice;
    }
    let left = cleaned(&mut canceller(), &heard, &played);
    let span = from..from + voice.len();
    let (before, after) = (pcm::rms(&voice), pcm::rms(&left[span]));
    let change = pcm::dbfs(after) - pcm::dbfs(before);
    assert!((-6.0..3.0).contains(&change), "{change} dB");
}

#[test]
fn without_anything_played_speech_is_left_as_it_is() {
    let speech = clip("jfk");
    let left = cleaned(&mut canceller(), &speech, &vec![0.0; speech.len()]);
    let change = level(&left, 1, 9) - level(&speech, 1, 9);
    assert!(change.abs() < 1.5, "{change} dB");
}

fn automatic() -> SoundCleaner {
    SoundCleaner::new(CleanerConfig {
        echo: EchoCancellation::Auto,
        noise: None,
    })
}

#[test]
fn an_echo_that_nobody_spoke_of_is_found_and_taken_out() {
    let played = reply();
    for delay in [40, 150, 450] {
        let heard = echo(&played, delay);
        let mut cleaner = automatic();
        let mut out = Vec::new();
        let mut told = None;
        for (at, (heard, played)) in heard.chunks(320).zip(played.chunks(320)).enumerate() {
            cleaner.clean(heard, played, &mut out).unwrap();
            if cleaner.just_heard_echo() {
                assert_eq!(told.replace(at * 20), None, "told twice");
            }
        }
        let told = told.unwrap();
        assert!((300..1_500).contains(&told), "{delay} ms: after {told} ms");
        let change = level(&out, 2, 9) - level(&heard, 2, 9);
        assert!(change < -25.0, "{delay} ms: {change} dB");
    }
}

#[test]
fn without_an_echo_whoever_speaks_over_a_reply_is_left_as_they_are() {
    let played = reply();
    for name in [
        "jfk",
        "goforward",
        "something",
        "austen-0930",
        "asterisk-invalid",
    ] {
        let mut heard = noise(played.len(), 1e-3);
        for (sample, voice) in heard[3 * SECOND..].iter_mut().zip(&clip(name)) {
            *sample += voice;
        }
        let mut cleaner = automatic();
        let left = cleaned(&mut cleaner, &heard, &played);
        assert!(left == heard[..left.len()], "{name}");
        assert_eq!(cleaner.echo(), None, "{name}");
        assert!(!cleaner.just_heard_echo(), "{name}");
    }
}

#[test]
fn noise_is_reduced_and_more_so_from_afar() {
    let sound = noise(6 * SECOND, 0.02);
    let left = [NoiseReduction::NearField, NoiseReduction::FarField].map(|reduction| {
        let mut cleaner = SoundCleaner::new(CleanerConfig {
            echo: EchoCancellation::Off,
            noise: Some(reduction),
        });
        let left = cleaned(&mut cleaner, &sound, &sound);
        assert_eq!(cleaner.echo(), None);
        level(&left, 3, 5) - level(&sound, 3, 5)
    });
    assert!(left[0] < -4.0 && left[1] < left[0] - 3.0, "{left:?}");
}

#[test]
fn no_sample_is_lost_however_the_sound_is_cut() {
    let played = reply()[..4 * SECOND].to_vec();
    let heard = echo(&played, 60);
    let whole = cleaned(&mut canceller(), &heard, &played);
    let mut cleaner = canceller();
    let mut cut = Vec::new();
    for (heard, played) in heard.chunks(333).zip(played.chunks(333)) {
        cleaner.clean(heard, played, &mut cut).unwrap();
    }
    assert_eq!(cut, whole);
    let rest = cleaner.rest();
    assert_eq!(cut.len() + rest.len(), heard.len());
    assert_eq!(rest, heard[cut.len()..]);
}

#[test]
fn values_that_are_no_numbers_do_not_stay() {
    let speech = clip("jfk");
    let mut cleaner = canceller();
    let mut out = Vec::new();
    cleaner.clean(&[f32::NAN; 480], &[], &mut out).unwrap();
    cleaner.clean(&speech, &[], &mut out).unwrap();
    assert!(out.iter().all(|sample| sample.is_finite()));
    assert!(level(&out, 2, 9) > -40.0);
}
