//! When a user's turn is over.
#![allow(clippy::unwrap_used)]

mod support;

use duologue_session::{
    Action, Config, ConfigPatch, Eagerness, Event, Limits, Notice, State, Timing, TranscribeKind,
    TurnDetection,
};
use std::time::Duration;
use support::{World, ms};

fn turn_over_after(world: &World, speech_end: Duration) -> Duration {
    world
        .when_told(|n| matches!(n, Notice::SpeechStopped { .. }))
        .expect("the turn ends")
        - speech_end
}

fn server_vad(silence: Duration) -> TurnDetection {
    TurnDetection::ServerVad {
        silence,
        threshold: 0.5,
        prefix: ms(300),
        create_response: true,
        interrupt_response: true,
        idle_timeout: None,
    }
}

#[test]
fn a_complete_sentence_is_answered_after_the_short_silence() {
    let mut world = World::new(Config::default());
    world.says(ms(1_000), ms(1_500), "what is the weather like today");
    world.run_until(ms(20_000));
    assert_eq!(turn_over_after(&world, ms(2_500)), ms(250));
    assert_eq!(
        world.conversation(),
        [
            "user: what is the weather like today",
            "assistant: Certainly. Here is what I know about that."
        ]
    );
    assert_eq!(world.state(), State::WaitingForInput);
}

#[test]
fn a_half_asked_question_is_waited_for() {
    let mut world = World::new(Config::default());
    world.says_so_far(ms(1_000), ms(1_000), "can you tell me", 0.1);
    world.says(ms(3_500), ms(1_000), "where the station is");
    world.run_until(ms(20_000));
    assert_eq!(world.session.counters().turns, 1);
    assert_eq!(
        world.conversation()[0],
        "user: can you tell me where the station is"
    );
}

#[test]
fn a_half_asked_question_is_not_waited_for_for_ever() {
    let mut world = World::new(Config::default());
    world.says_so_far(ms(1_000), ms(1_000), "can you tell me", 0.0);
    world.run_until(ms(20_000));
    assert_eq!(turn_over_after(&world, ms(2_000)), ms(4_000));
}

#[test]
fn an_umm_is_waited_for_though_it_sounds_complete() {
    let mut world = World::new(Config::default());
    world.says_so_far(ms(1_000), ms(1_000), "I would like umm", 0.95);
    world.run_until(ms(20_000));
    assert!(turn_over_after(&world, ms(2_000)) > ms(2_000));
}

#[test]
fn the_less_complete_the_longer_the_wait() {
    let mut last = Duration::MAX;
    for complete in [0.0, 0.2, 0.4, 0.6] {
        let mut world = World::new(Config::default());
        world.says_so_far(ms(1_000), ms(1_000), "tell me a story", complete);
        world.run_until(ms(20_000));
        let wait = turn_over_after(&world, ms(2_000));
        assert!(wait < last, "{complete}: {wait:?}");
        last = wait;
    }
}

#[test]
fn eagerness_bounds_the_wait() {
    for (eagerness, bound) in [
        (Eagerness::High, 2_000),
        (Eagerness::Medium, 4_000),
        (Eagerness::Low, 8_000),
    ] {
        let turn_detection = TurnDetection::SemanticVad {
            eagerness,
            create_response: true,
            interrupt_response: true,
        };
        let mut world = World::new(Config {
            turn_detection,
            ..Config::default()
        });
        world.says_so_far(ms(1_000), ms(1_000), "so I thought", 0.0);
        world.run_until(ms(20_000));
        assert_eq!(turn_over_after(&world, ms(2_000)), ms(bound));
    }
}

#[test]
fn a_silent_end_of_turn_model_does_not_hold_the_turn() {
    let mut world = World::new(Config::default());
    world.latency.judge = Duration::from_secs(1_000);
    world.says(ms(1_000), ms(1_000), "hello there");
    world.run_until(ms(20_000));
    assert!(turn_over_after(&world, ms(2_000)) < ms(2_500));
}

#[test]
fn server_vad_waits_its_silence_and_asks_no_model() {
    let mut world = World::new(Config {
        turn_detection: server_vad(ms(500)),
        ..Config::default()
    });
    world.says_so_far(ms(1_000), ms(1_000), "hello and", 0.0);
    world.run_until(ms(20_000));
    assert_eq!(turn_over_after(&world, ms(2_000)), ms(500));
    assert_eq!(
        world.count(|a| matches!(a, Action::JudgeEndOfTurn { .. })),
        0
    );
}

#[test]
fn transcription_begins_at_the_first_silence_with_the_pre_roll() {
    let mut world = World::new(Config::default());
    world.says(ms(1_000), ms(1_000), "hello there");
    world.run_until(ms(2_200));
    let (at, action) = world
        .log
        .iter()
        .find(|(_, a)| {
            matches!(
                a,
                Action::Transcribe {
                    kind: TranscribeKind::Final,
                    ..
                }
            )
        })
        .expect("it begins");
    assert_eq!(
        *at,
        ms(2_100),
        "at the first silence, before the turn is over"
    );
    let Action::Transcribe { from, to, .. } = action else {
        unreachable!()
    };
    assert_eq!((*from, *to), (ms(700), ms(2_100)));
}

#[test]
fn a_transcription_is_thrown_away_when_speech_goes_on() {
    let mut world = World::new(Config::default());
    world.latency.asr = ms(400);
    world.says_so_far(ms(1_000), ms(1_000), "hello", 0.95);
    world.says_so_far(ms(2_200), ms(1_000), "there", 0.95);
    world.run_until(ms(20_000));
    let finals: Vec<u32> = world
        .log
        .iter()
        .filter_map(|(_, a)| match a {
            Action::Transcribe {
                revision,
                kind: TranscribeKind::Final,
                ..
            } => Some(*revision),
            _ => None,
        })
        .collect();
    assert_eq!(finals, [0, 1]);
    assert_eq!(
        world.count(|a| matches!(a, Action::CancelTranscribe { revision: 0, .. })),
        1
    );
    assert_eq!(world.conversation()[0], "user: hello there");
}

#[test]
fn words_of_an_old_revision_are_ignored_and_counted() {
    let mut world = World::new(Config::default());
    world.deaf_recognizer = true;
    world.says(ms(1_000), ms(500), "");
    world.says(ms(1_700), ms(500), "");
    world.run_until(ms(2_350));
    let (turn, revision) = world
        .log
        .iter()
        .rev()
        .find_map(|(_, a)| match a {
            Action::Transcribe { turn, revision, .. } => Some((*turn, *revision)),
            _ => None,
        })
        .unwrap();
    assert_eq!(revision, 1);
    world.tell(Event::Transcript {
        turn,
        revision: 0,
        text: "old".into(),
    });
    assert_eq!(world.session.counters().stale_events, 1);
    world.tell(Event::Transcript {
        turn,
        revision: 1,
        text: "new".into(),
    });
    world.run_until(ms(20_000));
    assert_eq!(world.conversation()[0], "user: new");
}

#[test]
fn a_turn_that_goes_on_while_its_words_are_awaited_is_one_turn() {
    let mut world = World::new(Config::default());
    world.latency.asr = ms(900);
    world.says(ms(1_000), ms(1_000), "hello there");
    world.says(ms(2_500), ms(1_000), "my friend");
    world.run_until(ms(20_000));
    assert_eq!(world.conversation()[0], "user: hello there my friend");
    assert_eq!(world.session.counters().cut_offs, 1);
    assert_eq!(world.session.counters().replies, 1);
}

#[test]
fn a_speaker_who_was_cut_off_is_given_more_time() {
    let wait = |cut_offs: u64| {
        let mut world = World::new(Config::default());
        world.latency.asr = ms(600);
        let mut at = ms(1_000);
        for _ in 0..cut_offs {
            world.says(at, ms(800), "well then");
            at += ms(1_300);
        }
        world.says(at, ms(800), "what now");
        world.run_until(at + ms(5_000));
        assert!(world.session.counters().cut_offs > 0 || cut_offs == 0);
        let last = world.log.iter().rev().find_map(|(t, a)| {
            matches!(a, Action::Emit(Notice::SpeechStopped { .. })).then_some(*t)
        });
        last.unwrap() - (at + ms(800))
    };
    assert_eq!(wait(0), ms(250));
    assert!(wait(1) > ms(250));
    assert!(wait(8) <= ms(700), "within bounds: {:?}", wait(8));
}

/// Turns of two parts, with a pause between them that sounds like the end; how long each was waited for after its
/// end, and how often the speaker was cut off.
fn pausing(world: &mut World, turns: u64, pause: Duration) -> (Vec<Duration>, u64) {
    // Before anything of the reply was heard, or after.
    let count = |world: &World| {
        let counters = world.session.counters();
        counters.cut_offs + counters.interruptions
    };
    let mut cut_offs = 0;
    let mut waits = Vec::new();
    for _ in 0..turns {
        let before = count(world);
        let at = world.now + ms(1_000);
        world.says(at, ms(900), "I was at the sea");
        world.says(at + ms(900) + pause, ms(900), "with the children");
        let end = at + ms(1_800) + pause;
        world.run_until(end + ms(9_000));
        let over = world.log.iter().rev().find_map(|(t, a)| {
            matches!(a, Action::Emit(Notice::SpeechStopped { .. })).then_some(*t)
        });
        waits.push(over.unwrap() - end);
        cut_offs += u64::from(count(world) > before);
    }
    (waits, cut_offs)
}

#[test]
fn who_pauses_long_is_cut_off_at_most_twice_and_who_then_does_not_is_waited_for_no_longer() {
    // Speech is told 60 ms after its onset, so that 640 ms is the longest pause that can be waited out.
    for pause in [320, 400, 500, 600, 630].map(ms) {
        let mut world = World::new(Config::default());
        let (waits, cut_offs) = pausing(&mut world, 12, pause);
        assert!((1..=2).contains(&cut_offs), "{pause:?}: {cut_offs}");
        assert!(*waits.last().unwrap() >= pause, "{pause:?}: {waits:?}");
        assert!(waits.iter().all(|wait| *wait <= ms(700)), "{waits:?}");
        let (waits, cut_offs) = pausing(&mut world, 25, ms(150));
        assert_eq!(cut_offs, 0);
        assert_eq!(*waits.last().unwrap(), ms(250), "{pause:?}: {waits:?}");
    }
}

#[test]
fn a_quick_speaker_is_never_made_to_wait() {
    let mut world = World::new(Config::default());
    let (waits, cut_offs) = pausing(&mut world, 20, ms(150));
    assert_eq!(cut_offs, 0);
    assert!(waits.iter().all(|wait| *wait == ms(250)), "{waits:?}");
}

#[test]
fn a_finished_short_answer_is_answered_at_once_though_it_sounds_unfinished() {
    for text in ["Yes.", "No thanks.", "Yes, please."] {
        let mut world = World::new(Config::default());
        world.says_so_far(ms(1_000), ms(500), text, 0.05);
        world.run_until(ms(20_000));
        assert_eq!(turn_over_after(&world, ms(1_500)), ms(250), "{text}");
    }
}

#[test]
fn without_an_end_of_turn_model_a_finished_sentence_is_answered_at_once() {
    let mut world = World::new(Config::default());
    world.latency.judge = Duration::from_secs(1_000);
    world.says(ms(1_000), ms(1_500), "Where is the station?");
    world.run_until(ms(20_000));
    assert_eq!(turn_over_after(&world, ms(2_500)), ms(250));
}

#[test]
fn a_cough_is_no_turn() {
    let mut world = World::new(Config::default());
    world.noise(ms(1_000), ms(200));
    world.run_until(ms(20_000));
    assert_eq!(world.state(), State::WaitingForInput);
    assert!(world.conversation().is_empty());
    assert_eq!(world.session.counters().replies, 0);
    assert_eq!(world.session.counters().discarded_turns, 1);
    assert!(
        world
            .when_told(|n| matches!(n, Notice::InputDiscarded { .. }))
            .is_some()
    );
}

#[test]
fn edges_count_by_their_audio_time_not_by_their_arrival() {
    let mut world = World::new(Config::default());
    world.deaf_recognizer = true;
    world.at(ms(1_100), Event::SpeechStarted { onset: ms(1_000) });
    world.at(ms(2_100), Event::Silence { since: ms(2_000) });
    world.at(ms(2_150), Event::SpeechResumed { onset: ms(2_050) });
    // Told late: before the speech that goes on.
    world.at(ms(2_200), Event::Silence { since: ms(1_900) });
    world.run_until(ms(10_000));
    assert_eq!(world.state(), State::Listening, "the user still speaks");
    assert_eq!(world.session.counters().stale_events, 1);

    // An onset told after its silence.
    let mut world = World::new(Config::default());
    world.deaf_recognizer = true;
    world.at(ms(2_000), Event::Silence { since: ms(1_900) });
    world.at(ms(2_010), Event::SpeechStarted { onset: ms(1_200) });
    world.run_until(ms(2_100));
    let asked = world.when(|a| {
        matches!(
            a,
            Action::Transcribe {
                kind: TranscribeKind::Final,
                ..
            }
        )
    });
    assert_eq!(asked, Some(ms(2_010)));
}

#[test]
fn a_very_long_turn_is_cut_into_messages_and_answered_once() {
    let config = Config {
        limits: Limits::default(),
        ..Config::default()
    };
    let mut world = World::new(config);
    let text: Vec<String> = (0..200).map(|n| format!("word{n}")).collect();
    world.says(ms(1_000), ms(70_000), &text.join(" "));
    world.run_until(ms(120_000));
    let users: Vec<String> = world
        .conversation()
        .into_iter()
        .filter(|line| line.starts_with("user"))
        .collect();
    assert_eq!(users.len(), 3);
    assert_eq!(world.session.counters().replies, 1);
    let said: Vec<&str> = users.iter().flat_map(|line| line[6..].split(' ')).collect();
    assert!(said.len() >= 198, "{}", said.len());
    assert_eq!(
        world.last_prompt().len(),
        3,
        "all its messages are in the prompt"
    );
}

#[test]
fn partial_transcripts_come_as_deltas_while_the_user_speaks() {
    let mut world = World::new(Config::default());
    world.says(ms(1_000), ms(3_000), "one two three four five six");
    world.run_until(ms(10_000));
    let deltas: Vec<String> = world
        .notices()
        .into_iter()
        .filter_map(|n| match n {
            Notice::InputTranscriptDelta { text, .. } => Some(text.clone()),
            _ => None,
        })
        .collect();
    assert!(deltas.len() >= 2, "{deltas:?}");
    assert!("one two three four five six".starts_with(&deltas.concat()));
}

#[test]
fn a_message_whose_transcript_never_comes_is_told_and_nothing_hangs() {
    let mut world = World::new(Config::default());
    world.deaf_recognizer = true;
    world.says(ms(1_000), ms(1_000), "hello");
    world.run_until(ms(30_000));
    assert!(
        world
            .when_told(|n| matches!(n, Notice::InputTranscriptFailed { .. }))
            .is_some()
    );
    assert_eq!(world.state(), State::WaitingForInput);
}

#[test]
fn settings_take_effect_at_the_next_turn() {
    let mut world = World::new(Config {
        turn_detection: server_vad(ms(300)),
        ..Config::default()
    });
    world.says(ms(1_000), ms(1_000), "hello there");
    world.says(ms(20_000), ms(1_000), "and again you");
    let patch = ConfigPatch {
        turn_detection: Some(server_vad(ms(900))),
        ..ConfigPatch::default()
    };
    world.at(ms(1_500), Event::Configure(Box::new(patch)));
    world.run_until(ms(40_000));
    let stops: Vec<Duration> = world
        .log
        .iter()
        .filter(|(_, a)| matches!(a, Action::Emit(Notice::SpeechStopped { .. })))
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(stops, [ms(2_300), ms(21_900)]);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let mut world = World::new(Config::default());
    let timing = Timing {
        complete: 1.5,
        ..Timing::default()
    };
    world.tell(Event::Configure(Box::new(ConfigPatch {
        timing: Some(timing),
        ..ConfigPatch::default()
    })));
    assert!(
        world
            .when_told(|n| matches!(n, Notice::Error { .. }))
            .is_some()
    );
    assert_eq!(world.session.next_config(), &Config::default());
}
