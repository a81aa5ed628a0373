//! Push to talk: the client says where turns begin and end.
#![allow(clippy::unwrap_used)]

mod support;

use duologue_session::{
    Action, Config, ErrorCode, Event, Notice, ReplyPatch, State, TranscribeKind, TurnDetection,
    TurnId,
};
use support::{World, ms};

fn manual() -> World {
    World::new(Config {
        turn_detection: TurnDetection::Manual,
        ..Config::default()
    })
}

/// Two words were said, and are committed at 1.6 s.
fn committed() -> World {
    let mut world = manual();
    world.says(ms(500), ms(1_000), "hello there");
    world.at(
        ms(1_600),
        Event::CommitInput {
            from: ms(400),
            to: ms(1_600),
        },
    );
    world
}

#[test]
fn the_ear_starts_no_turn() {
    let mut world = manual();
    world.says(ms(500), ms(1_000), "hello there");
    world.run_until(ms(5_000));
    assert_eq!(world.state(), State::WaitingForInput);
    assert!(world.log.is_empty());
}

#[test]
fn a_committed_buffer_becomes_a_message_and_is_answered_when_asked() {
    let mut world = committed();
    world.run_until(ms(3_000));
    assert_eq!(world.conversation(), ["user: hello there"]);
    assert_eq!(world.session.counters().replies, 0);
    world.tell(Event::CreateReply(ReplyPatch::default()));
    world.run_until(ms(20_000));
    assert_eq!(world.last_prompt(), ["user: hello there"]);
}

#[test]
fn a_reply_asked_for_at_once_waits_for_the_words() {
    let mut world = committed();
    world.latency.asr = ms(700);
    world.at(ms(1_600), Event::CreateReply(ReplyPatch::default()));
    world.run_until(ms(1_700));
    assert_eq!(world.state(), State::Thinking);
    assert!(
        world
            .when_told(|n| matches!(n, Notice::ReplyCreated { .. }))
            .is_some(),
        "told at once"
    );
    world.run_until(ms(20_000));
    assert_eq!(world.last_prompt(), ["user: hello there"]);
    let prompted = world.when(|a| matches!(a, Action::Prompt { .. }));
    assert_eq!(prompted, Some(ms(2_300)));
}

#[test]
fn the_order_is_committed_item_then_transcript() {
    let mut world = committed();
    world.run_until(ms(3_000));
    let order: Vec<&str> = world
        .notices()
        .into_iter()
        .map(|n| match n {
            Notice::InputCommitted { .. } => "committed",
            Notice::ItemAdded { .. } => "added",
            Notice::ItemDone { .. } => "done",
            Notice::InputTranscriptCompleted { .. } => "transcript",
            _ => "other",
        })
        .collect();
    assert_eq!(order, ["committed", "added", "done", "transcript"]);
}

#[test]
fn an_empty_buffer_is_refused() {
    let mut world = manual();
    world.run_until(ms(1_000));
    world.tell(Event::CommitInput {
        from: ms(950),
        to: ms(1_000),
    });
    assert!(
        world
            .when_told(|n| matches!(
                n,
                Notice::Error {
                    code: ErrorCode::InputEmpty,
                    ..
                }
            ))
            .is_some()
    );
    assert!(world.conversation().is_empty());
}

#[test]
fn what_was_cleared_is_not_committed() {
    let mut world = manual();
    world.says(ms(500), ms(1_000), "never mind that");
    world.at(ms(1_600), Event::ClearInput);
    world.says(ms(2_000), ms(1_000), "hello again");
    world.at(
        ms(3_100),
        Event::CommitInput {
            from: ms(0),
            to: ms(3_100),
        },
    );
    world.run_until(ms(5_000));
    assert_eq!(world.conversation(), ["user: hello again"]);
}

#[test]
fn a_transcript_that_does_not_come_fails_the_message_and_late_words_are_still_taken() {
    let mut world = manual();
    world.deaf_recognizer = true;
    world.at(
        ms(1_600),
        Event::CommitInput {
            from: ms(400),
            to: ms(1_600),
        },
    );
    world.at(ms(1_600), Event::CreateReply(ReplyPatch::default()));
    world.run_until(ms(12_000));
    assert!(
        world
            .when_told(|n| matches!(n, Notice::InputTranscriptFailed { .. }))
            .is_some()
    );
    assert_eq!(
        world.count(|a| matches!(a, Action::Prompt { .. })),
        1,
        "the reply does not hang"
    );
    world.run_until(ms(30_000));
    world.tell(Event::Transcript {
        turn: TurnId(1),
        revision: 0,
        text: "late words".into(),
    });
    assert_eq!(world.conversation()[0], "user: late words");
}

#[test]
fn a_commit_during_a_detected_turn_closes_it_and_starts_no_reply() {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(3_000), "one two three four five six");
    world.at(
        ms(2_000),
        Event::CommitInput {
            from: ms(0),
            to: ms(2_000),
        },
    );
    world.run_until(ms(2_400));
    assert_eq!(world.conversation(), ["user: one two three"]);
    assert_eq!(world.session.counters().replies, 0);
    assert_eq!(world.state(), State::Listening, "the user goes on");
    world.run_until(ms(20_000));
    assert_eq!(world.conversation()[1], "user: four five six");
    assert_eq!(world.session.counters().replies, 1);
}

#[test]
fn clearing_an_open_turn_drops_it() {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(2_000), "never mind all that");
    world.at(ms(1_500), Event::ClearInput);
    world.run_until(ms(20_000));
    assert!(world.conversation().is_empty());
    assert_eq!(world.state(), State::WaitingForInput);
    assert_eq!(
        world.count(|a| matches!(
            a,
            Action::Transcribe {
                kind: TranscribeKind::Final,
                ..
            }
        )),
        0
    );
}

#[test]
fn clearing_the_input_over_a_reply_lets_it_go_on() {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(1_000), "tell me something");
    world.run_until_speaking();
    world.says(world.now + ms(100), ms(2_000), "never mind all that");
    world.run_for(ms(300));
    assert_eq!(world.state(), State::BargedIn);
    world.tell(Event::ClearInput);
    assert_eq!(world.state(), State::Speaking);
    world.run_for(ms(20_000));
    assert_eq!(world.conversation().len(), 2);
}
