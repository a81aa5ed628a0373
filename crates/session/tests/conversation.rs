//! Whole conversations, and the order in which a client is told of them.
#![allow(clippy::unwrap_used)]

mod support;

use duologue_session::{Action, Clause, Config, Notice, ReplyStatus, State};
use std::time::Duration;
use support::{Dice, World, ms};

/// What a client of a turn-based protocol hears of, in short.
fn order(world: &World) -> Vec<&'static str> {
    world
        .notices()
        .into_iter()
        .filter_map(|notice| {
            Some(match notice {
                Notice::SpeechStarted { .. } => "speech started",
                Notice::SpeechStopped { .. } => "speech stopped",
                Notice::InputCommitted { .. } => "committed",
                Notice::ItemAdded { .. } => "item added",
                Notice::ItemDone { .. } => "item done",
                Notice::InputTranscriptCompleted { .. } => "input transcript",
                Notice::ReplyCreated { .. } => "reply created",
                Notice::ReplyItemAdded { .. } => "reply item added",
                Notice::PlaybackStarted { .. } => "playback started",
                Notice::PlaybackStopped { .. } => "playback stopped",
                Notice::PlaybackCleared { .. } => "playback cleared",
                Notice::ReplyAudioDone { .. } => "audio done",
                Notice::ReplyTranscriptDone { .. } => "transcript done",
                Notice::ReplyItemDone { .. } => "reply item done",
                Notice::ReplyDone(_) => "reply done",
                _ => return None,
            })
        })
        .collect()
}

#[test]
fn a_turn_is_told_in_the_order_of_the_protocol() {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(1_000), "tell me something");
    world.run_until(ms(20_000));
    assert_eq!(
        order(&world),
        [
            "speech started",
            "speech stopped",
            "committed",
            "item added",
            "item done",
            "input transcript",
            "reply created",
            "reply item added",
            "item added",
            "playback started",
            "audio done",
            "transcript done",
            "item done",
            "reply item done",
            "reply done",
            "playback stopped",
        ]
    );
}

#[test]
fn an_interruption_is_told_in_the_order_of_the_protocol() {
    let mut world = World::new(Config::default());
    world.replies = vec![vec![Clause::plain(
        "a reply that is long enough to be interrupted by somebody",
    )]];
    world.says(ms(500), ms(1_000), "tell me something");
    world.run_until_speaking();
    let seen = order(&world).len();
    world.says(world.now + ms(1_000), ms(1_500), "but what about the sea");
    world.run_for(ms(4_000));
    assert_eq!(
        order(&world)[seen..][..12],
        [
            "speech started",
            "playback cleared",
            "audio done",
            "transcript done",
            "item done",
            "reply item done",
            "reply done",
            "speech stopped",
            "committed",
            "item added",
            "item done",
            "input transcript",
        ]
    );
}

#[test]
fn the_first_clause_is_spoken_while_the_model_still_writes() {
    let mut world = World::new(Config::default());
    world.latency.next_clause = ms(1_500);
    world.says(ms(500), ms(1_000), "tell me something");
    world.run_until(ms(20_000));
    let first_frame = world.frames[0].0;
    let second_clause = world
        .when(|a| matches!(a, Action::Speak { clause: 1, .. }))
        .unwrap();
    assert!(first_frame < second_clause);
}

#[test]
fn the_wait_for_the_transcript_is_hidden_by_the_wait_for_the_end_of_turn() {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(1_000), "tell me something");
    world.run_until(ms(20_000));
    let prompted = world.when(|a| matches!(a, Action::Prompt { .. })).unwrap();
    assert_eq!(prompted, ms(1_500) + ms(250), "the moment the turn is over");
}

#[test]
fn ten_minutes_of_conversation_with_everything_in_it() {
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let mut world = World::new(Config::default());
        world.replies = vec![vec![
            Clause::plain("This is a first sentence of some length. "),
            Clause::plain("And this is another one, which takes a while to be said."),
        ]];
        let mut at = ms(1_000);
        while at < Duration::from_secs(600) {
            match dice.roll(0, 6) {
                0 => world.noise(at, ms(dice.roll(50, 600))),
                1 => world.says(at, ms(400), "mhm"),
                2 => world.says(at, ms(300), "stop"),
                3 => world.says_so_far(at, ms(900), "and then I", 0.1),
                _ => world.says(
                    at,
                    ms(dice.roll(500, 3_000)),
                    "what is it that you want to say",
                ),
            }
            at += ms(dice.roll(3_100, 12_000));
        }
        world.run_until(Duration::from_secs(640));
        assert_eq!(world.state(), State::WaitingForInput, "seed {seed}");
        let counters = world.session.counters();
        assert!(counters.turns > 20, "seed {seed}: {counters:?}");
        assert_eq!(counters.failed_replies, 0, "seed {seed}");
        for outcome in world.outcomes() {
            let truth = world.truth.get(&outcome.reply).cloned().unwrap_or_default();
            match outcome.status {
                ReplyStatus::Completed => assert_eq!(outcome.unheard, ""),
                _ => assert_eq!(outcome.heard, truth.heard(), "seed {seed}"),
            }
        }
    }
}
