//! The table of states: complete, without dead ends, and as documented.
#![allow(clippy::unwrap_used)]

use duologue_session::{State, TRANSITIONS, diagram};
use std::collections::HashSet;

#[test]
fn each_state_and_trigger_lead_to_one_state() {
    let mut seen = HashSet::new();
    for (from, trigger, _) in TRANSITIONS {
        assert!(
            seen.insert((from, trigger)),
            "{from:?} by {trigger:?} is there twice"
        );
    }
}

#[test]
fn every_state_is_reached_and_left() {
    for state in State::ALL {
        let reached =
            state == State::WaitingForInput || TRANSITIONS.iter().any(|(_, _, to)| *to == state);
        let left = TRANSITIONS
            .iter()
            .any(|(from, _, to)| *from == state && *to != state);
        assert!(reached, "{state:?} is never reached");
        assert_eq!(left, state != State::Ended, "{state:?}");
    }
}

#[test]
fn from_every_state_the_session_can_end_and_get_back_to_waiting() {
    for state in State::ALL
        .into_iter()
        .filter(|state| *state != State::Ended)
    {
        let mut reach = HashSet::from([state]);
        for _ in 0..State::ALL.len() {
            for (from, _, to) in TRANSITIONS {
                if reach.contains(from) {
                    reach.insert(*to);
                }
            }
        }
        assert!(
            reach.contains(&State::Ended) && reach.contains(&State::WaitingForInput),
            "{state:?}"
        );
    }
}

/// `DUOLOGUE_WRITE_DOCS=1 cargo test -p duologue-session` writes the page.
#[test]
fn the_documented_diagram_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/session-states.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    let (start, end) = ("```mermaid\n", "```\n");
    let at = page
        .find(start)
        .expect("docs/session-states.md has a mermaid block")
        + start.len();
    let until = at + page[at..].find(end).unwrap();
    if std::env::var_os("DUOLOGUE_WRITE_DOCS").is_some() {
        std::fs::write(
            path,
            format!("{}{}{}", &page[..at], diagram(), &page[until..]),
        )
        .unwrap();
        return;
    }
    assert_eq!(
        page[at..until],
        diagram(),
        "run DUOLOGUE_WRITE_DOCS=1 cargo test -p duologue-session --test states"
    );
}
