//! A reply begun before it is sure that the turn is over.
#![allow(clippy::unwrap_used)]

mod support;

use duologue_session::{
    Action, Config, ConfigPatch, Event, ReplyId, ReplyPatch, Speculation, State,
};
use support::{World, ms};

/// A sentence that sounds half finished is waited for, long after its words are known.
const DOUBTFUL: f32 = 0.3;

fn begun(world: &World) -> usize {
    world.count(|a| matches!(a, Action::Speculate { .. }))
}

fn dropped(world: &World) -> usize {
    world.count(|a| matches!(a, Action::CancelSpeculation { .. }))
}

fn first_frame(world: &World) -> std::time::Duration {
    world.frames.first().unwrap().0
}

#[test]
fn a_reply_begins_with_the_transcript_and_is_heard_when_the_turn_is_over() {
    let sound_of = |speculation| {
        let mut world = World::new(Config {
            speculation,
            ..Config::default()
        });
        world.says_so_far(ms(1_000), ms(1_500), "the one in the corner", DOUBTFUL);
        world.run_until(ms(30_000));
        world
    };
    let (with, without) = (sound_of(Speculation::On), sound_of(Speculation::Off));
    assert_eq!(with.conversation(), without.conversation());
    assert_eq!((begun(&with), dropped(&with)), (1, 0));
    assert_eq!((begun(&without), dropped(&without)), (0, 0));
    let over = with.when(|a| matches!(a, Action::Prompt { .. })).unwrap();
    assert!(
        first_frame(&with) > over,
        "nothing is heard before the turn is over"
    );
    assert_eq!(
        first_frame(&without) - first_frame(&with),
        with.latency.first_clause
    );
    let counters = with.session.counters();
    assert_eq!((counters.speculations, counters.speculations_kept), (1, 1));
}

#[test]
fn a_turn_that_goes_on_takes_the_reply_back_and_asks_again_with_all_its_words() {
    let mut world = World::new(Config::default());
    world.says_so_far(ms(1_000), ms(1_000), "can you tell me", 0.1);
    world.says(ms(3_500), ms(1_000), "where the station is");
    world.run_until(ms(20_000));
    assert_eq!((begun(&world), dropped(&world)), (2, 1));
    assert_eq!(
        world.conversation(),
        [
            "user: can you tell me where the station is",
            "assistant: Certainly. Here is what I know about that."
        ]
    );
    assert_eq!(world.session.counters().speculations_kept, 1);
}

#[test]
fn a_conversation_that_changes_meanwhile_is_asked_about_anew() {
    let mut world = World::new(Config::default());
    world.says_so_far(ms(1_000), ms(1_000), "and what about this", 0.1);
    world.run_until(ms(2_600));
    assert_eq!(begun(&world), 1);
    world.tell(Event::Configure(Box::new(ConfigPatch {
        reply: ReplyPatch {
            instructions: Some("Be brief.".to_owned()),
            ..ReplyPatch::default()
        },
        ..ConfigPatch::default()
    })));
    world.run_until(ms(20_000));
    assert_eq!((begun(&world), dropped(&world)), (1, 1));
    assert!(
        world
            .when(
                |a| matches!(a, Action::Prompt { speculated: false, options, .. }
                if options.instructions == "Be brief.")
            )
            .is_some()
    );
}

#[test]
fn nothing_of_a_dropped_reply_gets_into_the_conversation() {
    let mut world = World::new(Config::default());
    world.says_so_far(ms(1_000), ms(1_000), "can you tell me", 0.1);
    world.run_until(ms(2_600));
    assert_eq!(world.state(), State::Listening);
    let id = ReplyId(1);
    world.tell(Event::ReplyFailed {
        reply: id,
        message: "a model that spoke out of turn".to_owned(),
    });
    assert_eq!(world.session.counters().stale_events, 1);
    assert_eq!(world.session.counters().replies, 0);
    assert_eq!(world.session.items(), []);
}

#[test]
fn a_turn_without_words_begins_none() {
    let mut world = World::new(Config::default());
    world.noise(ms(1_000), ms(400));
    world.run_until(ms(10_000));
    assert_eq!(begun(&world), 0);
}

#[test]
fn a_client_that_closes_leaves_none_behind() {
    let mut world = World::new(Config::default());
    world.says_so_far(ms(1_000), ms(1_000), "can you tell me", 0.1);
    world.run_until(ms(2_600));
    world.tell(Event::Close);
    assert_eq!(world.state(), State::Ended);
}
