//! Whoever fails, or falls silent, the conversation goes on.
#![allow(clippy::unwrap_used)]

mod support;

use duologue_session::{
    Action, CancelReason, Clause, Config, ErrorCode, Event, Finish, IncompleteReason, Notice,
    ReplyId, ReplyStatus, Session, State, Timing, TurnDetection,
};
use support::{World, ms};

fn asked() -> World {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(1_000), "tell me something");
    world
}

fn failure(world: &World) -> ErrorCode {
    match &world.outcomes()[0].status {
        ReplyStatus::Failed { code, .. } => *code,
        other => panic!("{other:?}"),
    }
}

/// After a failure the next turn is answered as ever.
fn recovers(world: &mut World) {
    assert_eq!(world.state(), State::WaitingForInput);
    world.mute_voice = false;
    world.mute_model = false;
    world.stuck_writer = false;
    let replies = world.outcomes().len();
    world.says(world.now + ms(500), ms(1_000), "are you there");
    world.run_for(ms(20_000));
    assert_eq!(world.outcomes()[replies].status, ReplyStatus::Completed);
}

#[test]
fn a_model_that_never_answers() {
    let mut world = asked();
    world.mute_model = true;
    world.run_until(ms(60_000));
    assert_eq!(failure(&world), ErrorCode::ModelFailed);
    assert_eq!(world.count(|a| matches!(a, Action::CancelPrompt { .. })), 1);
    recovers(&mut world);
}

#[test]
fn a_model_that_stops_in_the_middle_keeps_what_was_heard() {
    let mut world = asked();
    world.mute_model = true;
    world.run_until(ms(2_500));
    let reply = world.session.reply().unwrap();
    world.tell(Event::ReplyText {
        reply,
        clause: Clause::plain("First of all"),
    });
    world.run_until(ms(60_000));
    assert_eq!(failure(&world), ErrorCode::ModelFailed);
    assert_eq!(world.outcomes()[0].heard, "First of all");
    assert!(
        world.session.counters().gaps >= 1,
        "it was not speaking all the while"
    );
    recovers(&mut world);
}

#[test]
fn a_model_that_fails() {
    let mut world = asked();
    world.mute_model = true;
    world.run_until(ms(2_500));
    let reply = world.session.reply().unwrap();
    world.tell(Event::ReplyFailed {
        reply,
        message: "rate limit".into(),
    });
    assert_eq!(failure(&world), ErrorCode::ModelFailed);
    recovers(&mut world);
}

#[test]
fn a_voice_that_never_sounds() {
    let mut world = asked();
    world.mute_voice = true;
    world.run_until(ms(60_000));
    assert_eq!(failure(&world), ErrorCode::VoiceFailed);
    assert_eq!(world.outcomes()[0].heard, "");
    recovers(&mut world);
}

#[test]
fn a_voice_that_dies_in_the_middle_keeps_what_was_heard() {
    let mut world = asked();
    world.run_until_speaking();
    world.run_for(ms(1_000));
    let reply = world.session.reply().unwrap();
    world.tell(Event::VoiceFailed {
        reply,
        message: "worker gone".into(),
    });
    let outcome = world.outcomes()[0].clone();
    assert_eq!(failure(&world), ErrorCode::VoiceFailed);
    assert_eq!(outcome.heard, world.truth[&reply].heard());
    assert!(!outcome.heard.is_empty() && !outcome.unheard.is_empty());
    recovers(&mut world);
}

#[test]
fn a_writer_that_stands_still_is_reminded_and_then_given_up() {
    let mut world = asked();
    world.run_until_speaking();
    world.stuck_writer = true;
    world.run_for(ms(10_000));
    assert_eq!(world.session.counters().writer_restarts, 1);
    assert_eq!(failure(&world), ErrorCode::OutputStalled);
    recovers(&mut world);
}

#[test]
fn a_slow_voice_is_a_gap_and_not_the_end() {
    let mut world = asked();
    world.latency.real_time_factor = 3.0;
    world.latency.first_audio = ms(1_500);
    world.run_until(ms(60_000));
    assert_eq!(world.outcomes()[0].status, ReplyStatus::Completed);
    assert_eq!(
        world.outcomes()[0].heard,
        "Certainly. Here is what I know about that."
    );
}

#[test]
fn the_token_limit_is_told() {
    let mut world = asked();
    world.mute_model = true;
    world.run_until(ms(2_500));
    let reply = world.session.reply().unwrap();
    world.tell(Event::ReplyText {
        reply,
        clause: Clause::plain("As I was saying, the"),
    });
    world.tell(Event::ReplyEnded {
        reply,
        finish: Finish::Length,
        usage: None,
    });
    world.run_for(ms(10_000));
    assert_eq!(
        world.outcomes()[0].status,
        ReplyStatus::Incomplete(IncompleteReason::MaxOutputTokens)
    );
    assert_eq!(world.outcomes()[0].heard, "As I was saying, the");
}

#[test]
fn a_model_with_nothing_to_say_ends_the_reply() {
    let mut world = asked();
    world.replies = vec![vec![]];
    world.run_until(ms(10_000));
    assert_eq!(world.outcomes()[0].status, ReplyStatus::Completed);
    assert!(world.outcomes()[0].items.is_empty());
    assert_eq!(world.state(), State::WaitingForInput);
}

#[test]
fn what_comes_for_an_old_reply_is_ignored_and_counted() {
    let mut world = asked();
    world.run_until_speaking();
    let old = world.session.reply().unwrap();
    world.tell(Event::CancelReply(Some(old)));
    let (actions, stale) = (world.log.len(), world.session.counters().stale_events);
    world.tell(Event::ReplyText {
        reply: old,
        clause: Clause::plain("old"),
    });
    world.tell(Event::Audio {
        reply: old,
        samples: 99_999,
        words: vec![],
    });
    world.tell(Event::Sent {
        reply: old,
        samples: 99_999,
    });
    world.tell(Event::ReplyEnded {
        reply: old,
        finish: Finish::Stop,
        usage: None,
    });
    world.tell(Event::VoiceFailed {
        reply: ReplyId(77),
        message: "who?".into(),
    });
    assert_eq!(world.log.len(), actions);
    assert_eq!(world.session.counters().stale_events, stale + 5);
}

#[test]
fn a_cancelled_reply_is_stopped_everywhere() {
    let mut world = asked();
    world.latency.next_clause = ms(5_000);
    world.run_until_speaking();
    world.run_for(ms(300));
    world.tell(Event::CancelReply(None));
    for wanted in ["CancelPrompt", "Stop"] {
        assert_eq!(
            world.count(|a| format!("{a:?}").starts_with(wanted)),
            1,
            "{wanted}"
        );
    }
    assert_eq!(
        world.outcomes()[0].status,
        ReplyStatus::Cancelled(CancelReason::ClientCancelled)
    );
    let frames = world.frames.len();
    world.run_for(ms(10_000));
    assert_eq!(world.frames.len(), frames);
}

#[test]
fn a_recognizer_that_fails_is_told_and_the_next_turn_is_answered() {
    let mut world = asked();
    world.deaf_recognizer = true;
    world.run_until(ms(1_650));
    let (turn, revision) = world
        .log
        .iter()
        .rev()
        .find_map(|(_, a)| match a {
            Action::Transcribe { turn, revision, .. } => Some((*turn, *revision)),
            _ => None,
        })
        .unwrap();
    world.tell(Event::TranscriptFailed {
        turn,
        revision,
        message: "out of memory".into(),
    });
    world.run_for(ms(1_000));
    assert!(
        world
            .when_told(|n| matches!(n, Notice::InputTranscriptFailed { .. }))
            .is_some()
    );
    world.deaf_recognizer = false;
    recovers(&mut world);
}

#[test]
fn a_voice_that_ends_before_its_text_has_failed() {
    let mut world = asked();
    world.latency.next_clause = ms(5_000);
    world.run_until_speaking();
    let reply = world.session.reply().unwrap();
    world.run_for(ms(300));
    world.tell(Event::AudioEnded { reply });
    assert_eq!(failure(&world), ErrorCode::VoiceFailed);
    recovers(&mut world);
}

/// Found by the random orders: each piece of a long speech had its words awaited before the last one's came.
#[test]
fn a_user_who_speaks_on_beside_a_reply_does_not_hold_it_for_ever() {
    let mut session = Session::new(
        "test",
        Config {
            turn_detection: TurnDetection::ServerVad {
                silence: ms(300),
                threshold: 0.5,
                prefix: ms(300),
                create_response: true,
                interrupt_response: false,
                idle_timeout: None,
            },
            timing: Timing {
                max_turn: ms(5_000), // less than a transcript is waited for
                ..Timing::default()
            },
            ..Config::default()
        },
    );
    session.handle(ms(100), Event::SpeechStarted { onset: ms(0) });
    session.handle(ms(5_000), Event::Tick); // the first piece, whose words never come
    session.handle(ms(5_200), Event::Silence { since: ms(5_100) });
    session.handle(ms(5_400), Event::Tick);
    let (turn, revision) = std::iter::from_fn(|| session.poll())
        .filter_map(|action| match action {
            Action::Transcribe { turn, revision, .. } => Some((turn, revision)),
            _ => None,
        })
        .last()
        .unwrap();
    let text = "and that is all".to_owned();
    session.handle(
        ms(5_500),
        Event::Transcript {
            turn,
            revision,
            text,
        },
    );
    assert_eq!(session.reply(), Some(ReplyId(1)));
    session.handle(ms(6_100), Event::SpeechStarted { onset: ms(6_000) });
    let prompted = std::iter::from_fn(|| {
        let at = session.deadline()?;
        session.handle(at, Event::Tick);
        let prompted = std::iter::from_fn(|| session.poll())
            .filter(|action| matches!(action, Action::Prompt { .. }))
            .count();
        Some((at, prompted > 0))
    })
    .take(40)
    .find(|(_, prompted)| *prompted);
    // When the first piece's words have been waited for.
    assert_eq!(prompted, Some((ms(15_000), true)));
}
