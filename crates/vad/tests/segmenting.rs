//! Stretches of speech out of given probabilities, in sample time.
#![allow(clippy::unwrap_used)]

use duologue_vad::SegmentEvent::{self, *};
use duologue_vad::{SegmenterConfig, SpeechSegmenter, Window, samples};
use proptest::prelude::*;

/// Samples in a test window: 32 ms.
const LENGTH: u32 = 512;

fn row(probabilities: &[f32]) -> Vec<Window> {
    (0u64..)
        .zip(probabilities)
        .map(|(i, &probability)| Window {
            start: i * u64::from(LENGTH),
            length: LENGTH,
            probability,
        })
        .collect()
}

/// Windows of silence, then of speech, then of silence, and so on.
fn alternating(counts: &[usize]) -> Vec<Window> {
    let probabilities: Vec<f32> = counts
        .iter()
        .enumerate()
        .flat_map(|(i, &count)| vec![if i % 2 == 0 { 0.02 } else { 0.97 }; count])
        .collect();
    row(&probabilities)
}

/// Events with the index of the window that brought each.
fn run(segmenter: &mut SpeechSegmenter, windows: &[Window]) -> Vec<(usize, SegmentEvent)> {
    windows
        .iter()
        .enumerate()
        .filter_map(|(i, window)| Some((i, segmenter.push(window)?)))
        .collect()
}

fn segmenter() -> SpeechSegmenter {
    SpeechSegmenter::new(SegmenterConfig::default())
}

fn at(window: u64) -> u64 {
    window * u64::from(LENGTH)
}

#[test]
fn speech_starts_after_64_ms_at_its_onset_with_pre_roll() {
    let told = run(&mut segmenter(), &alternating(&[20, 10]));
    let onset_sample = at(20) - samples(300);
    assert_eq!(told, [(21, SpeechStarted { onset_sample })]);
}

#[test]
fn pre_roll_does_not_begin_before_the_stream() {
    let told = run(&mut segmenter(), &alternating(&[1, 10]));
    assert_eq!(told, [(2, SpeechStarted { onset_sample: 0 })]);
}

#[test]
fn pre_roll_does_not_reach_into_the_speech_before() {
    let config = SegmenterConfig {
        min_silence_ms: 128,
        ..Default::default()
    };
    let told = run(
        &mut SpeechSegmenter::new(config),
        &alternating(&[20, 10, 4, 10]),
    );
    let end = at(30);
    assert_eq!(told[2].1, SpeechStopped { end_sample: end });
    assert_eq!(told[3].1, SpeechStarted { onset_sample: end });
}

#[test]
fn a_burst_of_one_window_is_not_speech() {
    assert_eq!(run(&mut segmenter(), &alternating(&[20, 1, 20, 1, 20])), []);
}

#[test]
fn silence_is_told_early_and_the_stop_when_it_has_lasted() {
    let told = run(&mut segmenter(), &alternating(&[10, 10, 40]));
    assert_eq!(
        told[1],
        (
            22,
            Silence {
                since_sample: at(20)
            }
        )
    );
    // 700 ms are 21.9 windows.
    assert_eq!(told[2], (41, SpeechStopped { end_sample: at(20) }));
    assert_eq!(told.len(), 3);
}

#[test]
fn speech_that_goes_on_is_told_where_it_went_on() {
    let told = run(&mut segmenter(), &alternating(&[10, 10, 8, 10]));
    assert_eq!(
        told[1],
        (
            22,
            Silence {
                since_sample: at(20)
            }
        )
    );
    assert_eq!(told[2], (29, SpeechResumed { at_sample: at(28) }));
    assert_eq!(told.len(), 3);
}

#[test]
fn a_click_in_a_pause_neither_resumes_nor_restarts_the_wait() {
    let told = run(&mut segmenter(), &alternating(&[10, 10, 10, 1, 30]));
    assert_eq!(told[2], (41, SpeechStopped { end_sample: at(20) }));
    assert_eq!(told.len(), 3);
}

#[test]
fn a_gap_shorter_than_the_edge_is_not_told() {
    let told = run(&mut segmenter(), &alternating(&[10, 10, 2, 10, 2, 10]));
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn speech_that_may_be_resuming_is_not_stopped() {
    // Speech returns in the very window in which the stop would be due.
    let told = run(&mut segmenter(), &alternating(&[10, 10, 21, 10]));
    assert_eq!(told[2], (42, SpeechResumed { at_sample: at(41) }));
    assert_eq!(told.len(), 3);
}

#[test]
fn probabilities_between_the_thresholds_keep_what_is() {
    let mut middling = vec![0.42; 20];
    assert_eq!(run(&mut segmenter(), &row(&middling)), []);
    middling.splice(0..0, [0.9; 4]);
    let told = run(&mut segmenter(), &row(&middling));
    assert_eq!(told, [(1, SpeechStarted { onset_sample: 0 })]);
}

#[test]
fn a_raised_threshold_takes_more_to_start() {
    let mut hard = segmenter();
    hard.set_threshold_scale(2.0);
    assert_eq!(run(&mut hard, &row(&[0.65; 20])), []);
    let mut hard = segmenter();
    hard.set_threshold_scale(2.0);
    assert_eq!(run(&mut hard, &row(&[0.68; 20])).len(), 1);
    // And it can be taken back while running.
    let mut segmenter = segmenter();
    segmenter.set_threshold_scale(8.0);
    assert_eq!(run(&mut segmenter, &row(&[0.6; 5])), []);
    segmenter.set_threshold_scale(1.0);
    assert_eq!(run(&mut segmenter, &row(&[0.6; 5])).len(), 1);
}

#[test]
fn no_scale_puts_certain_speech_out_of_reach() {
    for scale in [0.01, 1.0, 100.0, f32::NAN, 0.0, -1.0, f32::INFINITY] {
        let mut segmenter = segmenter();
        segmenter.set_threshold_scale(scale);
        assert_eq!(run(&mut segmenter, &row(&[1.0; 5])).len(), 1, "{scale}");
    }
}

#[test]
fn the_caller_can_end_a_turn_sooner() {
    let mut segmenter = segmenter();
    assert_eq!(segmenter.end(), None);
    run(&mut segmenter, &alternating(&[10, 10, 5]));
    assert_eq!(segmenter.silence(), Some(at(5)));
    assert_eq!(segmenter.end(), Some(SpeechStopped { end_sample: at(20) }));
    assert!(!segmenter.in_speech());
    assert_eq!(segmenter.end(), None);
}

#[test]
fn a_longer_wait_can_be_asked_for_in_the_middle_of_a_pause() {
    let windows = alternating(&[10, 10, 60]);
    let mut segmenter = segmenter();
    run(&mut segmenter, &windows[..35]);
    segmenter.set_min_silence_ms(1280);
    let told = run(&mut segmenter, &windows[35..]);
    assert_eq!(told, [(59 - 35, SpeechStopped { end_sample: at(20) })]);
}

/// Events of windows that are all speech, of which a gate lets these through.
fn gated(segmenter: &mut SpeechSegmenter, counts: &[usize]) -> Vec<(usize, SegmentEvent)> {
    let open = counts
        .iter()
        .enumerate()
        .flat_map(|(i, &count)| vec![i % 2 == 1; count]);
    let windows = row(&vec![0.97; counts.iter().sum()]);
    windows
        .iter()
        .zip(open)
        .enumerate()
        .filter_map(|(i, (window, open))| Some((i, segmenter.push_gated(window, open)?)))
        .collect()
}

#[test]
fn a_voice_that_the_gate_never_lets_through_is_none() {
    assert_eq!(gated(&mut segmenter(), &[500]), []);
    // Nor one of which single windows are let through, now and then.
    assert_eq!(gated(&mut segmenter(), &[50, 1, 50, 1, 50, 1, 50]), []);
}

#[test]
fn a_word_that_begins_softly_is_told_from_its_soft_beginning() {
    let config = SegmenterConfig {
        pre_roll_ms: 0,
        ..Default::default()
    };
    let mut quiet = row(&[0.02; 10]);
    let mut segmenter = SpeechSegmenter::new(config);
    run(&mut segmenter, &quiet);
    let soft = row(&[0.97; 20]);
    quiet.extend(soft.iter().skip(10));
    let told: Vec<_> = quiet[10..]
        .iter()
        .enumerate()
        .filter_map(|(i, window)| Some((i, segmenter.push_gated(window, i >= 5)?)))
        .collect();
    assert_eq!(
        told,
        [(
            6,
            SpeechStarted {
                onset_sample: at(10)
            }
        )]
    );
}

#[test]
fn behind_a_crowd_that_never_stops_speech_begins_near_where_it_grew_loud() {
    let config = SegmenterConfig {
        pre_roll_ms: 0,
        ..Default::default()
    };
    let told = gated(&mut SpeechSegmenter::new(config), &[100, 20]);
    let onset_sample = at(100) - samples(300);
    assert_eq!(told, [(101, SpeechStarted { onset_sample })]);
}

#[test]
fn speech_before_a_crowd_is_over_when_the_gate_has_let_nothing_through_for_200_ms() {
    let told = gated(&mut segmenter(), &[0, 20, 60]);
    // The seventh window is the first to end 200 ms after the last that was let through.
    let since = at(26);
    assert_eq!(
        told[1],
        (
            28,
            Silence {
                since_sample: since
            }
        )
    );
    assert_eq!(told[2], (47, SpeechStopped { end_sample: since }));
    // A word that is quieter than the others does not end it.
    assert_eq!(gated(&mut segmenter(), &[0, 20, 6, 20, 6, 20]).len(), 1);
}

proptest! {
    #[test]
    fn events_alternate_in_order_and_never_lie_in_the_future(
        probabilities in prop::collection::vec(0.0f32..=1.0, 0..400),
        min_speech_ms in 0u32..200,
        silence_edge_ms in 0u32..300,
        min_silence_ms in 0u32..1000,
        scales in prop::collection::vec(0.3f32..4.0, 1..5),
        gate in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        let config = SegmenterConfig {
            min_speech_ms, silence_edge_ms, min_silence_ms, ..Default::default()
        };
        let mut segmenter = SpeechSegmenter::new(config);
        let (mut speaking, mut paused) = (false, false);
        let (mut onset, mut pause, mut floor) = (0, 0, 0);
        for (i, window) in row(&probabilities).iter().enumerate() {
            segmenter.set_threshold_scale(scales[i % scales.len()]);
            match segmenter.push_gated(window, gate[i % gate.len()]) {
                None => {}
                Some(SpeechStarted { onset_sample }) => {
                    prop_assert!(!speaking && onset_sample >= floor && onset_sample <= window.start);
                    speaking = true;
                    onset = onset_sample;
                }
                Some(Silence { since_sample }) => {
                    prop_assert!(speaking && !paused && since_sample >= onset);
                    prop_assert!(since_sample < window.end());
                    paused = true;
                    pause = since_sample;
                }
                Some(SpeechResumed { at_sample }) => {
                    prop_assert!(speaking && paused && at_sample > pause);
                    prop_assert!(at_sample <= window.start);
                    paused = false;
                }
                Some(SpeechStopped { end_sample }) => {
                    prop_assert!(speaking && paused && end_sample == pause);
                    (speaking, paused) = (false, false);
                    floor = end_sample;
                }
            }
            prop_assert_eq!(segmenter.in_speech(), speaking);
            prop_assert_eq!(segmenter.silence().is_some() || !paused, true);
        }
    }
}
