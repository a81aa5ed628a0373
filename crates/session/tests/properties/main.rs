//! Whatever happens, in whatever order: no stuck state, nothing stale, nothing unbounded, no panic.
//!
//! `DUOLOGUE_ORDERS=1000000 cargo test --release -p duologue-session --test properties` takes that many orders
//! instead of the share that every run of the tests takes.
//!
//! Half of the steps are anything at all, stale and absurd things included; the other half are what the world would
//! do next (the recognizer answers, the model writes, the voice sounds, the writer sends), so that the orders get
//! deep into conversations and not only astray at their beginning.
#![allow(clippy::unwrap_used)]

mod run;
mod steps;
#[path = "../support/mod.rs"]
mod support;

use duologue_session::{Beginning, Entry, Event, RECORDING_FORMAT, State, replay, rerecord};
use proptest::prelude::*;
use run::Run;
use std::collections::BTreeSet;
use steps::{Step, config, step};

fn orders(share: u32) -> ProptestConfig {
    let all = std::env::var("DUOLOGUE_ORDERS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20_000_u32);
    ProptestConfig {
        cases: (all / share).max(1),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(orders(1))]

    #[test]
    fn no_order_of_events_leaves_a_session_stuck(config in config(), steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new(config);
        for step in steps {
            run.step(step);
        }
        run.settle();
    }

}

proptest! {
    #![proptest_config(orders(10))]

    #[test]
    fn every_session_ends_when_nobody_comes_back(config in config(), steps in prop::collection::vec(step(), 1..60)) {
        let mut run = Run::new(config);
        for step in steps {
            run.step(step);
        }
        run.handle(Event::Silence { since: run.now });
        let start = run.now;
        for _ in 0..2_000 {
            if run.session.state() == State::Ended {
                return Ok(());
            }
            run.now = run.session.deadline().expect("a session that has not ended has a deadline");
            run.handle(Event::Tick);
        }
        prop_assert!(false, "still {:?} after {:?}", run.session.state(), run.now - start);
    }

    #[test]
    fn a_closed_session_says_nothing_more(config in config(), steps in prop::collection::vec(step(), 1..60),
                                          after in prop::collection::vec(step(), 1..30)) {
        let mut run = Run::new(config);
        for step in steps {
            run.step(step);
        }
        run.step(Step::Close);
        prop_assert_eq!(run.session.state(), State::Ended);
        for step in after {
            run.step(step); // the checker allows nothing after Close
        }
    }

    #[test]
    fn what_is_written_down_is_read_back_and_plays_again(config in config(), steps in prop::collection::vec(step(), 1..60)) {
        let beginning = Beginning { format: RECORDING_FORMAT, seed: "p".into(), config: config.clone() };
        let mut run = Run::new(config);
        run.recording = Some(Vec::new());
        for step in steps {
            run.step(step);
        }
        let entries = run.recording.take().unwrap();
        let written: Vec<String> = entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        let read: Vec<Entry> = written.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        prop_assert_eq!(&entries, &read);
        let written = serde_json::to_string(&beginning).unwrap();
        let read_beginning: Beginning = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(&beginning, &read_beginning);
        let replayed = replay(&read_beginning, &read, true).map_err(|difference| {
            TestCaseError::fail(format!("{difference:?}"))
        })?;
        prop_assert_eq!(replayed.counters, run.session.counters());
        prop_assert_eq!(rerecord(&read_beginning, &read), read);
    }

    #[test]
    fn the_same_events_give_the_same_actions(config in config(), steps in prop::collection::vec(step(), 1..60)) {
        let log = |steps: Vec<Step>| {
            let mut run = Run::new(config.clone());
            let mut states = Vec::new();
            for step in steps {
                run.step(step);
                states.push((run.session.state(), run.session.deadline(), run.session.items().to_vec()));
            }
            states
        };
        prop_assert_eq!(log(steps.clone()), log(steps));
    }
}

/// The orders above are worth something only if they get everywhere.
#[test]
fn random_orders_take_every_way_in_the_table_and_do_everything_in_every_state() {
    use duologue_session::TRANSITIONS;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut ways: BTreeSet<(State, State)> = TRANSITIONS
        .iter()
        .filter(|(a, _, b)| a != b)
        .map(|(a, _, b)| (*a, *b))
        .collect();
    let kinds = [
        "pause",
        "resume",
        "stop",
        "lost",
        "back",
        "close",
        "commit",
        "clear",
        "configure",
        "create reply",
        "cancel",
        "say",
        "tool call",
        "create item",
        "truncate",
        "wait long",
        "speech",
    ];
    let mut doings: BTreeSet<(State, &str)> = State::ALL
        .into_iter()
        .filter(|state| *state != State::Ended)
        .flat_map(|state| kinds.map(|kind| (state, kind)))
        .collect();
    let mut runner = TestRunner::deterministic();
    let orders = (config(), prop::collection::vec(step(), 20..120));
    for _ in 0..6_000 {
        let (config, steps) = orders.new_tree(&mut runner).unwrap().current();
        let mut run = Run::new(config);
        for step in steps {
            run.step(step);
        }
        run.step(Step::Close);
        ways.retain(|way| !run.ways.contains(way));
        doings.retain(|doing| !run.did.contains(doing));
        if ways.is_empty() && doings.is_empty() {
            return;
        }
    }
    panic!("never taken: {ways:?}; never done: {doings:?}");
}
