//! Speech over a reply: a hypothesis, confirmed or retracted.
#![allow(clippy::unwrap_used)]

mod support;

use duologue_session::{
    Action, Announce, AtOnset, CancelReason, Clause, Config, Control, Event, Evidence,
    InterruptionConfig, Notice, ReplyStatus, State, TurnDetection,
};
use std::time::Duration;
use support::{World, ms};

const LONG: &str = "Once upon a time there lived an old fisherman who went out every morning before the sun had \
                    risen over the quiet harbour and came home every evening with nothing but stories";

/// A world in which the reply has sounded for a while.
fn speaking(config: Config) -> (World, Duration) {
    let mut world = World::new(config);
    world.replies = vec![vec![Clause::plain(LONG)], vec![Clause::plain("All right.")]];
    world.says(ms(500), ms(1_000), "tell me a story");
    world.run_until_speaking();
    world.run_for(ms(2_000));
    let now = world.now;
    (world, now)
}

fn evidence(world: &World) -> Vec<(bool, Evidence)> {
    world
        .notices()
        .into_iter()
        .filter_map(|n| match n {
            Notice::InterruptionConfirmed { evidence, .. } => Some((true, *evidence)),
            Notice::InterruptionRetracted { evidence, .. } => Some((false, *evidence)),
            _ => None,
        })
        .collect()
}

fn last_frame_before(world: &World, at: Duration) -> Duration {
    world
        .frames
        .iter()
        .rev()
        .find(|(time, _)| *time <= at)
        .unwrap()
        .0
}

#[test]
fn speech_over_the_reply_silences_it_at_once() {
    let (mut world, now) = speaking(Config::default());
    world.says(now, ms(1_500), "but what about the sea");
    world.run_until(now + ms(61));
    assert_eq!(world.state(), State::BargedIn);
    let paused = world.when(|a| matches!(a, Action::Pause { .. })).unwrap();
    assert_eq!(paused, now + ms(60), "at the edge of the voice detector");
    world.run_until(now + ms(240));
    assert!(last_frame_before(&world, world.now) <= paused + ms(20));
}

#[test]
fn words_confirm_it_and_the_history_says_what_was_heard() {
    let (mut world, now) = speaking(Config::default());
    world.says(now, ms(1_500), "but what about the sea");
    world.run_until(now + ms(15_000));
    assert_eq!(evidence(&world), [(true, Evidence::Words)]);
    let outcome = world.outcomes()[0];
    assert_eq!(
        outcome.status,
        ReplyStatus::Cancelled(CancelReason::TurnDetected)
    );
    let truth = world.truth[&outcome.reply].heard();
    assert_eq!(outcome.heard, truth);
    assert!(!truth.is_empty() && LONG.starts_with(&truth));
    assert_eq!(format!("{} {}", outcome.heard, outcome.unheard), LONG);
    assert_eq!(
        world.last_prompt(),
        [
            "user: tell me a story".to_owned(),
            format!("assistant: {truth}"),
            "user: but what about the sea".to_owned()
        ]
    );
    assert_eq!(
        world.conversation().last().unwrap(),
        "assistant: All right."
    );
}

#[test]
fn a_command_confirms_it_at_once() {
    for command in ["stop", "wait", "no", "Stop!"] {
        let (mut world, now) = speaking(Config::default());
        world.says(now, ms(220), command);
        world.run_until(now + ms(5_000));
        assert_eq!(evidence(&world), [(true, Evidence::Command)], "{command}");
    }
}

#[test]
fn a_backchannel_is_retracted_and_the_reply_goes_on_with_the_cut_word() {
    for word in [
        "mhm",
        "right",
        "okay",
        "uh-huh",
        "yeah okay",
        "I see",
        "Mm-hmm.",
    ] {
        let (mut world, now) = speaking(Config::default());
        world.says(now, ms(400), word);
        world.run_until(now + ms(1_200));
        assert_eq!(evidence(&world), [(false, Evidence::Backchannel)], "{word}");
        assert_eq!(world.state(), State::Speaking);
        let at_sample = world
            .log
            .iter()
            .find_map(|(_, a)| match a {
                Action::Resume { at_sample, .. } => Some(*at_sample),
                _ => None,
            })
            .unwrap();
        let truth = world.truth.values().next().unwrap();
        assert!(
            truth.words.iter().any(|(_, start, end)| *start == at_sample
                || (*end <= at_sample && at_sample <= end + 1_920)),
            "begins with a word or between two: {at_sample}"
        );
        world.run_until(now + ms(30_000));
        assert_eq!(world.outcomes()[0].heard, LONG, "and is said to its end");
        assert_eq!(world.conversation().len(), 2, "{word} is in no history");
    }
}

#[test]
fn a_retraction_comes_within_300_ms_of_its_evidence() {
    let (mut world, now) = speaking(Config::default());
    world.says(now, ms(400), "mhm");
    world.run_until(now + ms(5_000));
    let evidence_came = now + ms(400) + world.latency.vad_off + world.latency.asr;
    let resumed = world.when(|a| matches!(a, Action::Resume { .. })).unwrap();
    assert!(resumed <= evidence_came + ms(300));
    let frame = world
        .frames
        .iter()
        .find(|(at, _)| *at >= resumed)
        .unwrap()
        .0;
    assert!(frame <= resumed + ms(20));
}

#[test]
fn a_cough_is_retracted() {
    let (mut world, now) = speaking(Config::default());
    world.noise(now, ms(200));
    world.run_until(now + ms(2_000));
    assert_eq!(evidence(&world), [(false, Evidence::NoWords)]);
    assert_eq!(world.state(), State::Speaking);
    assert!(
        world
            .when_told(|n| matches!(n, Notice::SpeechStarted { at, .. } if *at > ms(2_000)))
            .is_none()
    );
}

#[test]
fn a_cough_is_retracted_though_the_recognizer_says_nothing() {
    let (mut world, now) = speaking(Config::default());
    world.deaf_recognizer = true;
    world.noise(now, ms(200));
    world.run_until(now + ms(2_000));
    assert_eq!(evidence(&world), [(false, Evidence::TooShort)]);
}

#[test]
fn music_is_retracted_while_it_goes_on() {
    let (mut world, now) = speaking(Config::default());
    world.noise(now, ms(60_000));
    world.run_until(now + ms(4_000));
    assert_eq!(evidence(&world), [(false, Evidence::NoWords)]);
    assert_eq!(world.state(), State::Speaking);
    world.run_until(now + ms(40_000));
    assert_eq!(world.outcomes()[0].heard, LONG);
    assert_eq!(
        world.session.counters().retractions,
        1,
        "the rest of the music is ignored"
    );
}

#[test]
fn speech_that_lasts_confirms_it_when_the_recognizer_says_nothing() {
    let (mut world, now) = speaking(Config::default());
    world.deaf_recognizer = true;
    world.says(now, ms(3_000), "nobody hears me");
    world.run_until(now + ms(1_100));
    assert_eq!(evidence(&world), [(true, Evidence::Duration)]);
}

#[test]
fn the_replys_own_words_coming_back_are_an_echo() {
    let (mut world, now) = speaking(Config::default());
    let truth = world.truth.values().next().unwrap().clone();
    let playing: Vec<String> = truth
        .words
        .iter()
        .filter(|(_, _, end)| *end < support::samples(ms(2_000)))
        .map(|w| w.0.clone())
        .collect();
    let echo = playing[playing.len().saturating_sub(4)..].join(" ");
    world.says(now, ms(1_200), &echo);
    world.run_until(now + ms(3_000));
    assert_eq!(evidence(&world), [(false, Evidence::OwnSpeech)], "{echo}");
    assert!(
        world
            .when_told(|n| matches!(n, Notice::HeardItself { .. }))
            .is_some()
    );
    world.run_until(now + ms(40_000));
    assert_eq!(world.outcomes()[0].heard, LONG);
}

#[test]
fn an_echo_known_by_its_sound_needs_no_words() {
    let (mut world, now) = speaking(Config::default());
    world.says(now, ms(3_000), "something else entirely");
    world.run_until(now + ms(300));
    assert_eq!(world.state(), State::BargedIn);
    world.tell(Event::EchoHeard);
    assert_eq!(world.state(), State::Speaking);
    world.tell(Event::EchoHeard);
    world.run_until(now + ms(40_000));
    assert_eq!(evidence(&world), [(false, Evidence::Echo)]);
    assert_eq!(world.outcomes()[0].heard, LONG);
}

#[test]
fn an_echo_after_the_reply_is_no_turn() {
    let mut world = World::new(Config::default());
    world.replies = vec![vec![Clause::plain("The harbour opens at seven.")]];
    world.says(ms(500), ms(1_000), "when does it open");
    world.run_until_speaking();
    while world.state() != State::WaitingForInput {
        world.run_for(ms(10));
    }
    world.says(world.now + ms(100), ms(900), "harbour opens at seven");
    world.run_for(ms(20_000));
    assert_eq!(world.conversation().len(), 2);
    assert_eq!(world.session.counters().echoes, 1);
}

#[test]
fn two_interruptions_in_a_row_each_have_their_outcome() {
    let (mut world, now) = speaking(Config::default());
    world.says(now, ms(300), "mhm");
    world.says(now + ms(1_500), ms(1_200), "but which harbour was it");
    world.run_until(now + ms(20_000));
    assert_eq!(
        evidence(&world),
        [(false, Evidence::Backchannel), (true, Evidence::Words)]
    );
    let outcome = world.outcomes()[0];
    assert_eq!(outcome.heard, world.truth[&outcome.reply].heard());
}

#[test]
fn a_reply_suspected_in_vain_three_times_is_only_softened() {
    let (mut world, now) = speaking(Config::default());
    for n in 0..5 {
        world.noise(now + ms(1_000) * n, ms(200));
    }
    world.run_until(now + ms(6_000));
    assert_eq!(world.count(|a| matches!(a, Action::Pause { .. })), 3);
    assert_eq!(world.count(|a| matches!(a, Action::Duck { .. })), 2);
    assert_eq!(world.count(|a| matches!(a, Action::Resume { .. })), 5);
}

#[test]
fn ducking_keeps_the_reply_audible_until_it_is_sure() {
    let interruption = InterruptionConfig {
        at_onset: AtOnset::Duck,
        ..InterruptionConfig::default()
    };
    let (mut world, now) = speaking(Config {
        interruption,
        ..Config::default()
    });
    world.says(now, ms(1_500), "but what about the sea");
    world.run_until(now + ms(15_000));
    let duck = world.when(|a| matches!(a, Action::Duck { .. })).unwrap();
    let stop = world.when(|a| matches!(a, Action::Stop { .. })).unwrap();
    assert!(
        world
            .frames
            .iter()
            .any(|(at, _)| *at > duck + ms(100) && *at < stop)
    );
    let outcome = world.outcomes()[0];
    assert_eq!(
        outcome.status,
        ReplyStatus::Cancelled(CancelReason::TurnDetected)
    );
}

#[test]
fn an_interruption_in_the_first_word_leaves_nothing_heard() {
    let mut world = World::new(Config::default());
    world.replies = vec![vec![Clause::plain(LONG)], vec![Clause::plain("All right.")]];
    world.says(ms(500), ms(1_000), "tell me a story");
    world.run_until_speaking();
    let now = world.now;
    world.says(now, ms(1_500), "sorry I meant a poem");
    world.run_until(now + ms(15_000));
    let outcome = world.outcomes()[0];
    assert_eq!(outcome.heard, world.truth[&outcome.reply].heard());
    assert_eq!(
        world.conversation().last().unwrap(),
        "assistant: All right."
    );
}

#[test]
fn yes_over_the_last_word_is_an_answer() {
    let mut world = World::new(Config::default());
    world.replies = vec![
        vec![Clause::plain("Shall I go on with the story?")],
        vec![Clause::plain("Good.")],
    ];
    world.says(ms(500), ms(1_000), "tell me a story");
    world.run_until_speaking();
    let truth = world.truth.values().next().unwrap();
    let length = truth.words.last().unwrap().2;
    world.says(
        world.now + Duration::from_millis(length / 48 - 300),
        ms(400),
        "yes",
    );
    world.run_for(ms(20_000));
    assert_eq!(world.conversation()[2..], ["user: yes", "assistant: Good."]);
}

#[test]
fn speech_after_the_reply_is_a_turn_of_its_own() {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(1_000), "tell me something");
    world.run_until(ms(15_000));
    world.says(ms(15_000), ms(1_000), "and what else");
    world.run_until(ms(30_000));
    assert_eq!(world.session.counters().interruptions, 0);
    assert_eq!(world.conversation().len(), 4);
}

// ---- before anything of the reply is heard ----

#[test]
fn a_user_who_goes_on_during_thinking_extends_the_same_message() {
    let mut world = World::new(Config::default());
    world.latency.first_clause = ms(3_000);
    world.says(ms(500), ms(1_000), "tell me a story");
    world.says(ms(2_500), ms(1_200), "about an old fisherman");
    world.run_until(ms(30_000));
    assert_eq!(
        world.conversation()[0],
        "user: tell me a story about an old fisherman"
    );
    assert_eq!(
        world.last_prompt(),
        ["user: tell me a story about an old fisherman"]
    );
    assert_eq!(world.count(|a| matches!(a, Action::CancelPrompt { .. })), 1);
    assert_eq!(world.count(|a| matches!(a, Action::Prompt { .. })), 2);
    assert_eq!(world.session.counters().cut_offs, 1);
    let spoken = world
        .conversation()
        .iter()
        .filter(|line| line.starts_with("assistant: C"))
        .count();
    assert_eq!(spoken, 1);
}

#[test]
fn a_cough_during_thinking_does_not_throw_the_reply_away() {
    let mut world = World::new(Config::default());
    world.latency.first_clause = ms(700);
    world.says(ms(500), ms(1_000), "tell me a story");
    world.noise(ms(2_200), ms(400));
    world.run_until(ms(2_700));
    assert!(
        world.frames.is_empty(),
        "the first clause came, and is held"
    );
    let speak = world.when(|a| matches!(a, Action::Speak { .. })).unwrap();
    let pause = world.when(|a| matches!(a, Action::Pause { .. })).unwrap();
    assert_eq!(speak, pause, "held as soon as there is something to hold");
    world.run_until(ms(20_000));
    assert_eq!(world.count(|a| matches!(a, Action::Prompt { .. })), 1);
    assert_eq!(world.count(|a| matches!(a, Action::CancelPrompt { .. })), 0);
    assert_eq!(world.outcomes()[0].status, ReplyStatus::Completed);
}

#[test]
fn a_reply_that_was_stopped_for_nothing_is_made_anew() {
    let (mut world, now) = speaking(Config::default());
    // The recognizer is silent for so long that the length of the speech decides, and then finds no words.
    world.latency.asr = ms(2_500);
    world.noise(now, ms(1_500));
    world.run_until(now + ms(20_000));
    assert_eq!(evidence(&world), [(true, Evidence::Duration)]);
    assert_eq!(
        world.session.counters().replies,
        2,
        "nobody is left in silence"
    );
    assert_eq!(world.state(), State::WaitingForInput);
}

// ---- what the client is told ----

#[test]
fn clients_hear_of_speech_when_it_is_sure() {
    let (mut world, now) = speaking(Config::default());
    world.says(now, ms(1_500), "but what about the sea");
    world.run_until(now + ms(15_000));
    let sure = world
        .when_told(|n| matches!(n, Notice::InterruptionConfirmed { .. }))
        .unwrap();
    let started: Vec<Duration> = world
        .log
        .iter()
        .filter(|(_, a)| matches!(a, Action::Emit(Notice::SpeechStarted { .. })))
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(started.len(), 2);
    assert_eq!(started[1], sure);
}

#[test]
fn clients_hear_of_speech_at_its_onset_if_they_want() {
    let interruption = InterruptionConfig {
        announce: Announce::AtOnset,
        ..InterruptionConfig::default()
    };
    let (mut world, now) = speaking(Config {
        interruption,
        ..Config::default()
    });
    world.noise(now, ms(200));
    world.run_until(now + ms(5_000));
    assert!(
        world
            .when_told(|n| matches!(n, Notice::SpeechStarted { at, .. } if *at > ms(2_000)))
            .is_some()
    );
    assert!(
        world
            .when_told(|n| matches!(n, Notice::InputDiscarded { .. }))
            .is_some()
    );
}

#[test]
fn with_interruptions_off_the_reply_is_finished_and_then_the_user_is_answered() {
    let turn_detection = TurnDetection::ServerVad {
        silence: ms(300),
        threshold: 0.5,
        prefix: ms(300),
        create_response: true,
        interrupt_response: false,
        idle_timeout: None,
    };
    let (mut world, now) = speaking(Config {
        turn_detection,
        ..Config::default()
    });
    world.says(now, ms(1_000), "but what about the sea");
    world.run_until(now + ms(40_000));
    assert_eq!(
        world.count(|a| matches!(a, Action::Pause { .. } | Action::Stop { .. })),
        0
    );
    assert_eq!(world.outcomes()[0].heard, LONG);
    let lines = world.conversation();
    assert_eq!(lines.last().unwrap(), "assistant: All right.");
    assert!(lines.contains(&"user: but what about the sea".to_owned()));
}

// ---- pause, resume, stop ----

#[test]
fn pause_and_resume_hold_the_reply_where_it_is() {
    let (mut world, now) = speaking(Config::default());
    world.tell(Event::Control(Control::Pause));
    assert_eq!(world.state(), State::WaitingForInput);
    world.run_until(now + ms(20_000));
    assert!(last_frame_before(&world, world.now) <= now + ms(20));
    world.tell(Event::Control(Control::Resume));
    world.run_until(now + ms(60_000));
    assert_eq!(world.outcomes()[0].heard, LONG);
}

#[test]
fn speech_over_a_paused_reply_is_weighed_like_any_other() {
    let (mut world, now) = speaking(Config::default());
    world.tell(Event::Control(Control::Pause));
    world.noise(now + ms(500), ms(200));
    world.run_until(now + ms(3_000));
    assert_eq!(world.state(), State::WaitingForInput, "still paused");
    world.says(now + ms(3_000), ms(1_000), "never mind the story");
    world.run_until(now + ms(5_000));
    assert_eq!(
        world.outcomes()[0].status,
        ReplyStatus::Cancelled(CancelReason::TurnDetected)
    );
}

#[test]
fn stop_ends_the_reply_in_every_state_and_is_harmless_without_one() {
    let (mut world, now) = speaking(Config::default());
    world.tell(Event::Control(Control::Stop));
    assert_eq!(
        world.outcomes()[0].status,
        ReplyStatus::Cancelled(CancelReason::ClientCancelled)
    );
    assert_eq!(world.state(), State::WaitingForInput);
    world.tell(Event::Control(Control::Stop));
    world.latency.asr = ms(600);
    world.says(now + ms(500), ms(1_000), "and now");
    world.run_until(now + ms(1_000));
    world.tell(Event::Control(Control::Stop));
    assert_eq!(world.state(), State::Listening);
    world.run_until(now + ms(1_900));
    world.tell(Event::Control(Control::Stop));
    world.run_until(now + ms(10_000));
    assert_eq!(world.state(), State::WaitingForInput);
    assert_eq!(
        world.outcomes().len(),
        1,
        "the turn that was stopped is not answered"
    );
    assert_eq!(world.conversation().last().unwrap(), "user: and now");
}

#[test]
fn stop_while_barged_in_leaves_the_user_heard() {
    let (mut world, now) = speaking(Config::default());
    world.says(now, ms(1_500), "but what about the sea");
    world.run_until(now + ms(100));
    assert_eq!(world.state(), State::BargedIn);
    world.tell(Event::Control(Control::Stop));
    assert_eq!(world.state(), State::Listening);
    world.run_until(now + ms(20_000));
    assert_eq!(
        world.conversation().last().unwrap(),
        "assistant: All right."
    );
}

#[test]
fn pause_while_thinking_holds_the_coming_reply() {
    let mut world = World::new(Config::default());
    world.latency.first_clause = ms(1_000);
    world.says(ms(500), ms(1_000), "tell me something");
    world.run_until(ms(2_100));
    assert_eq!(world.state(), State::Thinking);
    world.tell(Event::Control(Control::Pause));
    world.run_until(ms(12_000));
    assert!(world.frames.is_empty());
    world.tell(Event::Control(Control::Resume));
    world.run_until(ms(30_000));
    assert_eq!(world.outcomes()[0].status, ReplyStatus::Completed);
}

#[test]
fn one_word_so_far_is_not_enough_but_one_word_in_all_is() {
    let (mut world, now) = speaking(Config::default());
    world.says(now, ms(450), "why");
    world.run_until(now + ms(540));
    assert_eq!(evidence(&world), []);
    world.run_until(now + ms(5_000));
    assert_eq!(evidence(&world), [(true, Evidence::Words)]);
}
