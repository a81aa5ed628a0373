//! Recorded sessions do today what they did when they were recorded.
//!
//! A change of the core that changes what is done shows here. Where the change is wanted,
//! `duologue replay crates/session/tests/recordings --accept` writes it into the recordings, for review.
#![allow(clippy::unwrap_used)]

use duologue_session::{
    Action, AtOnset, Beginning, Entry, Happening, Notice, Overridden, Tally, rehearse, replay,
    rerecord,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn recordings() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    all.sort();
    assert!(!all.is_empty());
    all
}

fn read(folder: &Path) -> (Beginning, Vec<Entry>) {
    let beginning = std::fs::read(folder.join("session.json")).unwrap();
    let events = std::fs::read_to_string(folder.join("events.jsonl")).unwrap();
    (
        serde_json::from_slice(&beginning).unwrap(),
        events
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

fn interruption() -> (Beginning, Vec<Entry>) {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/interruption"))
}

#[test]
fn recorded_sessions_replay_to_the_same_actions() {
    for folder in recordings() {
        let (beginning, entries) = read(&folder);
        let replayed = replay(&beginning, &entries, true).unwrap_or_else(|difference| {
            panic!("{}: {difference:#?}", folder.display());
        });
        assert_eq!(replayed.counters.defects, 0);
    }
}

#[test]
fn the_recording_has_what_it_is_there_for() {
    let (beginning, entries) = interruption();
    let counters = replay(&beginning, &entries, true).unwrap().counters;
    assert!(counters.turns >= 3 && counters.interruptions >= 1 && counters.retractions >= 1);
    assert!(counters.failed_replies == 1 && counters.speculations > counters.speculations_kept);
    assert!(counters.speculations_kept >= 1);
}

#[test]
fn another_policy_is_found_out_at_the_first_action_that_differs() {
    let (mut beginning, entries) = interruption();
    let suspected = entries
        .iter()
        .position(|entry| {
            matches!(
                entry.what,
                Happening::Action(Action::Emit(Notice::InterruptionSuspected { .. }))
            )
        })
        .unwrap();
    beginning.config.interruption.at_onset = duologue_session::AtOnset::Duck;
    let difference = replay(&beginning, &entries, true).unwrap_err();
    // The settings are told when the client changes its own; that is the first thing to differ.
    assert!(difference.entry < suspected);
    assert!(matches!(
        (&difference.recorded, &difference.now),
        (
            Some(Action::Emit(Notice::Configured(_))),
            Some(Action::Emit(Notice::Configured(_)))
        )
    ));
}

#[test]
fn an_action_too_many_or_too_few_is_found_out() {
    let (beginning, entries) = interruption();
    let actions: Vec<usize> = (0..entries.len())
        .filter(|at| matches!(entries[*at].what, Happening::Action(_)))
        .collect();
    for at in [
        actions[3],
        actions[actions.len() / 2],
        *actions.last().unwrap(),
    ] {
        let mut fewer = entries.clone();
        fewer.remove(at);
        let difference = replay(&beginning, &fewer, true).unwrap_err();
        assert!(difference.entry >= at, "{difference:?}");
        let mut more = entries.clone();
        more.insert(at, entries[at].clone());
        assert!(replay(&beginning, &more, true).is_err());
    }
}

#[test]
fn a_recording_that_was_cut_off_replays_as_far_as_it_goes() {
    let (beginning, entries) = interruption();
    for length in (0..entries.len()).step_by(97) {
        let cut = &entries[..length];
        assert!(replay(&beginning, cut, false).is_ok(), "{length}");
    }
}

#[test]
fn rerecording_gives_what_replays() {
    let (mut beginning, entries) = interruption();
    beginning.config.timing.min_silence = Duration::from_millis(600);
    let again = rerecord(&beginning, &entries);
    assert!(replay(&beginning, &again, true).is_ok());
    assert!(replay(&beginning, &entries, true).is_err());
}

const LEAD: Duration = Duration::from_millis(200);

#[test]
fn rehearsed_with_its_own_settings_a_session_comes_out_as_it_was() {
    let (beginning, entries) = interruption();
    let recorded = Tally::of(&entries);
    let rehearsed = rehearse(&beginning, &entries, Overridden::default(), LEAD, None);
    let tally = Tally::of(&rehearsed.entries);
    assert_eq!(rehearsed.counters.defects, 0);
    let counts = |tally: &Tally| {
        (
            tally.turns,
            tally.interruptions,
            tally.retractions,
            tally.replies,
            tally.discarded,
        )
    };
    assert_eq!(counts(&tally), counts(&recorded), "{:#?}", tally.moments);
    let words = |tally: &Tally| {
        let moments = tally.moments.iter().map(|moment| moment.what.clone());
        moments
            .filter(|what| what.contains("has said"))
            .collect::<Vec<_>>()
    };
    assert_eq!(words(&tally), words(&recorded));
    for (ours, theirs) in tally.waits.iter().zip(&recorded.waits) {
        let apart = ours.abs_diff(*theirs);
        assert!(apart < Duration::from_millis(150), "{ours:?} {theirs:?}");
    }
    // What a rehearsal did can be replayed like a recording.
    replay(&beginning, &rehearsed.entries, false).unwrap();
}

#[test]
fn rehearsed_with_another_policy_it_shows_what_the_policy_does() {
    let (beginning, entries) = interruption();
    let with = |change: &dyn Fn(&mut duologue_session::Config)| {
        let mut beginning = beginning.clone();
        change(&mut beginning.config);
        let rehearsed = rehearse(&beginning, &entries, Overridden::default(), LEAD, None);
        Tally::of(&rehearsed.entries)
    };
    let as_it_was = with(&|_| {});
    let patient = with(&|config| config.timing.min_silence = Duration::from_millis(1_500));
    let longest = |tally: &Tally| tally.waits.iter().min().copied().unwrap();
    assert!(longest(&patient) >= Duration::from_millis(1_500));
    assert!(longest(&as_it_was) < Duration::from_millis(1_500));
    // A short sound that was held against the reply is held against it no longer.
    let hasty = with(&|config| config.interruption.decide_within = Duration::from_millis(300));
    assert!(hasty.silenced.iter().sum::<Duration>() < as_it_was.silenced.iter().sum());
    let ducking = with(&|config| config.interruption.at_onset = AtOnset::Duck);
    assert_eq!(ducking.interruptions, as_it_was.interruptions);
}
