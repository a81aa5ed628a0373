//! Sessions end by themselves: idle, too long, enough turns, a client that left.
#![allow(clippy::unwrap_used)]

mod support;

use duologue_session::{
    Action, Clause, Config, Control, EndReason, Event, Item, Limits, Notice, Place, ReplyPatch,
    ReplyStatus, Role, State, TurnDetection,
};
use std::time::Duration;
use support::{World, ms};

fn secs(value: u64) -> Duration {
    Duration::from_secs(value)
}

fn limited(limits: Limits) -> World {
    World::new(Config {
        limits,
        ..Config::default()
    })
}

fn ended(world: &World) -> Option<(Duration, EndReason)> {
    world.log.iter().find_map(|(at, a)| match a {
        Action::Close { reason } => Some((*at, *reason)),
        _ => None,
    })
}

#[test]
fn an_idle_session_is_warned_and_ends() {
    let mut world = World::new(Config::default());
    world.run_until(secs(1_000));
    assert_eq!(
        world.when_told(|n| matches!(n, Notice::IdleWarning { .. })),
        Some(secs(270))
    );
    assert_eq!(ended(&world), Some((secs(300), EndReason::IdleTimeout)));
    assert_eq!(world.state(), State::Ended);
}

#[test]
fn activity_of_any_kind_keeps_it_alive() {
    let mut world = World::new(Config::default());
    for n in 1..8 {
        world.at(secs(200 * n), Event::Configure(Box::default()));
    }
    world.says(secs(1_550), secs(2), "still here are you");
    world.run_until(secs(1_800));
    assert_eq!(ended(&world), None);
    world.run_until(secs(3_000));
    assert!(ended(&world).unwrap().0 > secs(1_850));
}

#[test]
fn a_goodbye_is_spoken_before_it_ends() {
    let mut world = limited(Limits {
        goodbye: Some("Goodbye for now.".into()),
        ..Limits::default()
    });
    world.run_until(secs(400));
    let (at, reason) = ended(&world).unwrap();
    assert_eq!(reason, EndReason::IdleTimeout);
    assert!(at > secs(301), "not before it was heard");
    assert_eq!(world.outcomes()[0].heard, "Goodbye for now.");
    assert!(!world.frames.is_empty());
}

#[test]
fn a_goodbye_that_cannot_be_spoken_does_not_keep_the_session() {
    let mut world = limited(Limits {
        goodbye: Some("Goodbye for now.".into()),
        ..Limits::default()
    });
    world.mute_voice = true;
    world.run_until(secs(400));
    assert!(ended(&world).unwrap().0 <= secs(321));
}

#[test]
fn after_the_last_turn_its_reply_is_said_and_the_session_ends() {
    let mut world = limited(Limits {
        max_turns: Some(2),
        goodbye: Some("Bye.".into()),
        ..Limits::default()
    });
    world.says(secs(1), secs(1), "first of all");
    world.says(secs(12), secs(1), "and second");
    world.run_until(secs(60));
    let heard: Vec<&str> = world.outcomes().iter().map(|o| o.heard.as_str()).collect();
    assert_eq!(heard.len(), 3);
    assert_eq!(heard[2], "Bye.");
    assert_eq!(world.outcomes()[1].status, ReplyStatus::Completed);
    assert_eq!(ended(&world).unwrap().1, EndReason::MaxTurns);
}

#[test]
fn typed_turns_count_too() {
    let mut world = limited(Limits {
        max_turns: Some(2),
        goodbye: Some("Bye.".into()),
        ..Limits::default()
    });
    let asks = |world: &mut World, text: &str| {
        world.tell(Event::CreateItem {
            item: Item::message("", Role::User, text),
            place: Place::End,
        });
        world.tell(Event::CreateReply(ReplyPatch::default()));
        world.run_for(secs(10));
    };
    asks(&mut world, "first of all");
    assert_eq!(ended(&world), None);
    asks(&mut world, "and second");
    assert_eq!(world.outcomes().len(), 3);
    assert_eq!(world.outcomes()[1].status, ReplyStatus::Completed);
    assert_eq!(world.outcomes()[2].heard, "Bye.");
    assert_eq!(ended(&world).unwrap().1, EndReason::MaxTurns);
}

#[test]
fn the_longest_session_ends_in_the_middle_of_a_reply_with_what_was_heard() {
    let mut world = limited(Limits {
        max_duration: Some(secs(6)),
        ..Limits::default()
    });
    world.replies = vec![vec![Clause::plain(
        "a very long reply that goes on and on and on and on and on and on",
    )]];
    world.says(secs(2), secs(1), "talk to me");
    world.run_until(secs(60));
    assert_eq!(ended(&world), Some((secs(6), EndReason::MaxDuration)));
    let outcome = world.outcomes()[0];
    assert_eq!(outcome.heard, world.truth[&outcome.reply].heard());
    assert!(!outcome.heard.is_empty());
}

#[test]
fn nothing_happens_after_the_end() {
    let mut world = World::new(Config::default());
    world.tell(Event::Close);
    assert_eq!(ended(&world).unwrap().1, EndReason::ClientClosed);
    let before = world.log.len();
    world.says(secs(1), secs(1), "hello");
    world.tell(Event::Say("hello".into()));
    world.run_until(secs(1_000));
    assert_eq!(world.log.len(), before);
    assert_eq!(world.session.deadline(), None);
}

#[test]
fn a_lost_client_is_waited_for_and_finds_its_reply_where_it_was() {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(1_000), "tell me something");
    world.run_until_speaking();
    world.run_for(ms(500));
    world.tell(Event::TransportLost);
    assert_eq!(world.state(), State::WaitingForInput);
    let frames = world.frames.len();
    world.run_for(secs(10));
    assert_eq!(world.frames.len(), frames);
    world.tell(Event::TransportBack);
    world.run_for(secs(20));
    assert_eq!(world.outcomes()[0].status, ReplyStatus::Completed);
}

#[test]
fn a_client_that_does_not_come_back_ends_the_session() {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(5_000), "tell me something");
    world.run_until(ms(2_000));
    world.tell(Event::TransportLost);
    world.run_until(secs(100));
    assert_eq!(ended(&world), Some((secs(32), EndReason::TransportLost)));
}

#[test]
fn a_paused_session_ends_when_idle() {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(1_000), "tell me something");
    world.run_until_speaking();
    world.tell(Event::Control(Control::Pause));
    world.run_until(secs(1_000));
    assert_eq!(ended(&world).unwrap().1, EndReason::IdleTimeout);
}

#[test]
fn silence_after_a_reply_prompts_the_model_if_the_detector_says_so() {
    let turn_detection = TurnDetection::ServerVad {
        silence: ms(500),
        threshold: 0.5,
        prefix: ms(300),
        create_response: true,
        interrupt_response: true,
        idle_timeout: Some(secs(6)),
    };
    let mut world = World::new(Config {
        turn_detection,
        ..Config::default()
    });
    world.run_until(secs(20));
    assert_eq!(
        world.session.counters().replies,
        0,
        "not before the first reply"
    );
    world.says(secs(20), secs(1), "hello to you");
    world.run_until(secs(36));
    assert_eq!(world.session.counters().replies, 2);
    assert!(
        world
            .when_told(|n| matches!(n, Notice::InputTimeout { .. }))
            .is_some()
    );
    world.run_until(secs(2_000));
    assert_eq!(
        ended(&world).unwrap().1,
        EndReason::IdleTimeout,
        "a session does not talk to itself for ever"
    );
}

#[test]
fn a_driver_that_never_polls_loses_its_session_not_its_memory() {
    use duologue_session::{MAX_QUEUED, Session};
    let mut session = Session::new("test", Config::default());
    for n in 0..10_000 {
        let item = Item::message("", Role::User, "x");
        session.handle(
            ms(n),
            Event::CreateItem {
                item,
                place: Place::End,
            },
        );
    }
    assert_eq!(session.state(), State::Ended);
    let left: Vec<Action> = std::iter::from_fn(|| session.poll()).collect();
    assert!(left.len() < MAX_QUEUED);
    assert_eq!(
        left.last(),
        Some(&Action::Close {
            reason: EndReason::Overrun
        })
    );
}
