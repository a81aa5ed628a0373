//! The noise gate on levels it was told, and on real speech over real noise.
#![allow(clippy::unwrap_used)]

mod sounds;

use duologue_audio::pcm;
use duologue_vad::{
    Aggressiveness, GateConfig, LightDetector, NoiseGate, SegmentEvent, SegmenterConfig,
    SpeechListener, ThresholdScale, samples,
};
use proptest::prelude::*;
use sounds::recording;

const SECOND: usize = samples(1000) as usize;

/// White noise of a level in dBFS.
fn noise(seconds: f32, dbfs: f32) -> Vec<f32> {
    // A uniform distribution has 1/sqrt(3) of its peak as its level.
    let peak = 10f32.powf(dbfs / 20.0) * 3f32.sqrt();
    sounds::noise((seconds * SECOND as f32) as usize, peak)
}

/// A recording at a level in dBFS, over all of it.
fn at(mut sound: Vec<f32>, dbfs: f32) -> Vec<f32> {
    let gain = 10f32.powf(dbfs / 20.0) / pcm::rms(&sound);
    sound.iter_mut().for_each(|sample| *sample *= gain);
    sound
}

/// A fluent reading, 27 s, with hardly a pause.
fn reading() -> Vec<f32> {
    ["austen-0870", "austen-0880", "austen-0890", "austen-0920"]
        .iter()
        .flat_map(|name| sounds::clip(name))
        .collect()
}

fn mixed(mut sound: Vec<f32>, other: &[f32], from: usize) -> Vec<f32> {
    for (sample, other) in sound[from..].iter_mut().zip(other) {
        *sample += other;
    }
    sound
}

fn gate() -> NoiseGate {
    NoiseGate::new(GateConfig::default())
}

fn floor(gate: &NoiseGate) -> f32 {
    gate.statistics().floor_dbfs.unwrap()
}

fn open(gate: &NoiseGate, end: usize) -> bool {
    gate.excess((end - 512) as u64..end as u64) >= 1.0
}

#[test]
fn nothing_is_gated_before_the_noise_is_known() {
    let mut gate = gate();
    let sound = noise(2.1, -50.0);
    for (i, block) in sound.chunks(320).enumerate() {
        let known = gate.statistics().floor_dbfs.is_some();
        assert_eq!(known, i >= 100, "after {} ms", i * 20);
        if !known && i >= 2 {
            assert!(open(&gate, i * 320));
        }
        gate.process(block);
    }
    assert!((floor(&gate) + 50.0).abs() < 1.0, "{:?}", gate.statistics());
    assert!(!open(&gate, sound.len() / 320 * 320));
}

#[test]
fn what_stands_out_of_the_noise_passes_and_what_does_not_is_counted() {
    let mut gate = gate();
    gate.process(&noise(4.0, -50.0));
    gate.process(&noise(1.0, -40.0));
    assert!(open(&gate, 5 * SECOND));
    gate.process(&noise(5.0, -46.5));
    assert!(!open(&gate, 10 * SECOND));
    // Two seconds of calibration and the loud one were not below.
    let ratio = gate.statistics().gating_ratio;
    assert!((ratio - 0.7).abs() < 0.01, "{ratio}");
}

#[test]
fn a_scale_of_two_asks_for_6_db_more() {
    let mut gate = gate();
    gate.process(&noise(4.0, -50.0));
    let usual = gate.statistics().threshold_dbfs.unwrap();
    gate.set_threshold_scale(2.0);
    let more = gate.statistics().threshold_dbfs.unwrap();
    assert!((more - usual - 6.02).abs() < 0.01, "{usual} {more}");
    for nonsense in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        gate.set_threshold_scale(nonsense);
        assert_eq!(gate.statistics().threshold_dbfs, Some(usual));
    }
}

#[test]
fn speech_does_not_drag_the_floor_up() {
    for (speech_dbfs, noise_dbfs) in [
        (-25.0, -40.0),
        (-25.0, -35.0),
        (-25.0, -25.0),
        (-40.0, -50.0),
    ] {
        let speech = at(reading(), speech_dbfs);
        let room = noise(speech.len() as f32 / SECOND as f32, noise_dbfs);
        let sound = mixed(room, &speech, 0);
        let mut gate = gate();
        let mut worst: f32 = -100.0;
        for second in sound.chunks(SECOND) {
            gate.process(second);
            if let Some(floor) = gate.statistics().floor_dbfs {
                worst = worst.max(floor);
            }
        }
        assert!(
            worst < noise_dbfs + 3.0,
            "speech at {speech_dbfs} over noise at {noise_dbfs}: the floor rose to {worst}"
        );
        assert!(floor(&gate) > noise_dbfs - 2.0);
    }
}

#[test]
fn speech_without_a_pause_in_a_quiet_room_passes_its_own_gate() {
    // The reader's breath is then the noise; what is spoken stands out of it, even over a reply.
    let speech = at(reading(), -25.0);
    let mut gate = gate();
    gate.set_threshold_scale(2.0);
    let (mut loud, mut passed) = (0, 0);
    for (i, block) in speech.chunks_exact(512).enumerate() {
        gate.process(block);
        if pcm::dbfs(pcm::rms(block)) > -25.0 {
            loud += 1;
            passed += usize::from(open(&gate, (i + 1) * 512));
        }
    }
    assert!(passed * 100 > loud * 98, "{passed} of {loud}");
}

#[test]
fn a_talker_as_loud_as_the_place_is_not_shut_out() {
    let mut gate = gate();
    gate.process(&noise(12.0, -35.0));
    gate.set_threshold_scale(2.0);
    // Nobody was heard yet: what is asked for is bounded.
    assert!(gate.statistics().threshold_dbfs.unwrap() <= -30.0);
    gate.set_threshold_scale(1.0);
    for i in 0..60 {
        gate.process(&noise(0.032, -30.0));
        let end = 12 * SECOND as u64 + (i + 1) * 512;
        gate.accept(end - 512..end);
    }
    gate.process(&noise(0.3, -35.0));
    gate.set_threshold_scale(2.0);
    let threshold = gate.statistics().threshold_dbfs.unwrap();
    assert!((-44.5..=-37.5).contains(&threshold), "{threshold}");
}

#[test]
fn over_a_reply_what_is_far_below_the_talker_does_not_pass_in_a_quiet_place_either() {
    let mut gate = gate();
    gate.process(&noise(3.0, -70.0));
    for i in 0..60 {
        gate.process(&noise(0.032, -20.0));
        let end = 3 * SECOND as u64 + (i + 1) * 512;
        gate.accept(end - 512..end);
    }
    gate.process(&noise(0.2, -70.0));
    let listening = gate.statistics().threshold_dbfs.unwrap();
    gate.set_threshold_scale(2.0);
    let speaking = gate.statistics().threshold_dbfs.unwrap();
    assert!((listening + 60.0).abs() < 0.1, "{listening}");
    assert!((speaking + 34.0).abs() < 0.5, "{speaking}");
}

#[test]
fn a_fan_that_starts_is_noise_after_10_s_and_gone_soon_after_it_stops() {
    let mut gate = gate();
    gate.process(&noise(10.0, -60.0));
    gate.process(&noise(5.0, -35.0));
    // Not yet: what is loud may be meant for us.
    assert!(floor(&gate) < -55.0);
    assert!(open(&gate, 15 * SECOND));
    gate.process(&noise(5.0, -35.0));
    assert!((floor(&gate) + 35.0).abs() < 1.0);
    assert!(!open(&gate, 20 * SECOND));
    // Speech over it is heard, also while the assistant speaks.
    gate.set_threshold_scale(2.0);
    gate.process(&noise(0.1, -20.0));
    assert!(open(&gate, 20 * SECOND + SECOND / 10));
    gate.process(&noise(2.0, -60.0));
    assert!(floor(&gate) < -55.0);
}

#[test]
fn digital_silence_is_no_noise() {
    let mut gate = gate();
    gate.process(&noise(5.0, -45.0));
    gate.process(&vec![0.0; 60 * SECOND]);
    assert!((floor(&gate) + 45.0).abs() < 1.0);
    // Where there was never anything else, anything audible passes.
    let mut gate = NoiseGate::new(GateConfig::default());
    gate.process(&vec![0.0; 10 * SECOND]);
    assert_eq!(gate.statistics().floor_dbfs, None);
    gate.process(&noise(0.1, -70.0));
    assert!(open(&gate, 10 * SECOND + SECOND / 10));
}

#[test]
fn values_that_are_no_numbers_do_not_blind_it() {
    let mut gate = gate();
    gate.process(&noise(3.0, -45.0));
    gate.process(&vec![f32::NAN; SECOND]);
    gate.process(&vec![f32::INFINITY; SECOND]);
    gate.process(&noise(3.0, -45.0));
    assert!((floor(&gate) + 45.0).abs() < 1.0);
}

proptest! {
    #[test]
    fn it_does_not_depend_on_the_blocks(
        blocks in prop::collection::vec(1usize..900, 1..6),
        levels in prop::collection::vec(-80.0f32..-10.0, 4..8),
    ) {
        let sound: Vec<f32> = levels.iter().flat_map(|&level| noise(0.7, level)).collect();
        let mut whole = gate();
        whole.process(&sound);
        let mut cut = gate();
        let mut rest = &sound[..];
        for &block in blocks.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(block.min(rest.len()));
            cut.process(now);
            rest = later;
        }
        prop_assert_eq!(cut.statistics(), whole.statistics());
        let end = sound.len() as u64;
        prop_assert_eq!(cut.excess(end - 256..end), whole.excess(end - 256..end));
    }
}

// ---- with a detector ----

fn listener() -> SpeechListener {
    SpeechListener::new(
        Box::new(LightDetector::new(Aggressiveness::Balanced)),
        SegmenterConfig {
            pre_roll_ms: 0,
            ..SegmenterConfig::default()
        },
        Some(GateConfig::default()),
    )
}

fn told(listener: &mut SpeechListener, sound: &[f32]) -> Vec<SegmentEvent> {
    let mut events = Vec::new();
    listener.hear(sound, &mut events).unwrap();
    events
}

fn starts(events: &[SegmentEvent]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|event| match event {
            SegmentEvent::SpeechStarted { onset_sample } => Some(*onset_sample),
            _ => None,
        })
        .collect()
}

#[test]
fn a_talker_from_the_very_first_sample_is_heard_to_the_end() {
    let speech = at(reading(), -25.0);
    let mut listener = listener();
    let mut sound = speech.clone();
    sound.extend(noise(2.0, -70.0));
    let events = told(&mut listener, &sound);
    assert!(starts(&events)[0] < samples(600), "{events:?}");
    let end = events.iter().rev().find_map(|event| match event {
        SegmentEvent::SpeechStopped { end_sample } => Some(*end_sample),
        _ => None,
    });
    let late = end.unwrap() as i64 - speech.len() as i64;
    assert!((-8_000..=4_000).contains(&late), "{late}");
}

#[test]
fn a_quiet_talker_in_a_quiet_room_is_heard_over_a_reply() {
    let mut listener = listener();
    told(&mut listener, &noise(5.0, -70.0));
    let ungated = |sound: &[f32]| {
        let mut listener = SpeechListener::new(
            Box::new(LightDetector::new(Aggressiveness::Balanced)),
            SegmenterConfig::default(),
            None,
        );
        starts(&told(&mut listener, sound)).len()
    };
    listener.set_threshold_scale(ThresholdScale {
        odds: 1.0,
        loudness: 2.0,
    });
    let speech = at(recording("speech/jfk.flac"), -45.0);
    let sound = mixed(noise(12.0, -70.0), &speech, 0);
    let events = told(&mut listener, &sound);
    assert!(!starts(&events).is_empty());
    assert!(
        starts(&events)[0] < 5 * SECOND as u64 + samples(1_000),
        "{events:?}"
    );
    assert_eq!(starts(&events).len(), ungated(&sound), "{events:?}");
}

#[test]
fn a_murmur_that_is_no_louder_than_the_room_is_left_unheard_and_a_near_voice_is_not() {
    // Voices at the level of the noise, which the detector hears.
    let sentence = recording("speech/jfk.flac");
    let room = noise(20.0, -45.0);
    let murmur = mixed(room.clone(), &at(sentence.clone(), -44.0), 5 * SECOND);
    let near = mixed(room, &at(sentence, -25.0), 5 * SECOND);
    let mut ungated = SpeechListener::new(
        Box::new(LightDetector::new(Aggressiveness::Lenient)),
        SegmenterConfig::default(),
        None,
    );
    let heard = |events: &[SegmentEvent]| starts(events).iter().any(|at| *at > 4 * SECOND as u64);
    assert!(heard(&told(&mut ungated, &murmur)));
    let scale = ThresholdScale {
        odds: 1.0,
        loudness: 2.0,
    };
    for (what, sound, expected) in [("murmur", murmur, false), ("near", near, true)] {
        let mut listener = SpeechListener::new(
            Box::new(LightDetector::new(Aggressiveness::Lenient)),
            SegmenterConfig::default(),
            Some(GateConfig::default()),
        );
        listener.set_threshold_scale(scale);
        let events = told(&mut listener, &sound);
        assert_eq!(heard(&events), expected, "{what}: {events:?}");
    }
}
