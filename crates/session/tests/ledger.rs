//! What was heard: no word more, no word less.
#![allow(clippy::unwrap_used)]

mod support;

use duologue_session::{
    Action, CancelReason, Clause, Config, Control, Event, Finish, HeardBy, Item, Notice, Place,
    ReplyId, ReplyStatus, Role, Session, WordMark,
};
use std::time::Duration;
use support::{Dice, World, ms};

fn runs() -> u64 {
    std::env::var("DUOLOGUE_INTERRUPTIONS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000)
}

fn random_reply(dice: &mut Dice) -> Vec<Clause> {
    (0..dice.roll(1, 6))
        .map(|_| {
            let words: Vec<String> = (0..dice.roll(1, 12))
                .map(|_| "abcdefghijklm"[..usize::try_from(dice.roll(1, 13)).unwrap()].to_owned())
                .collect();
            Clause::plain(format!("{}. ", words.join(" ")))
        })
        .collect()
}

/// How a client tells what it played.
#[derive(Clone, Copy, Default)]
struct Reports {
    /// How often; `None`: never.
    every: Option<Duration>,
    late: Duration,
    /// Of so many one arrives.
    one_of: u64,
}

/// One interrupted conversation; the outcome of its first reply and the truth about it.
fn interrupted(seed: u64, reports: Reports) -> (String, String, bool) {
    let mut dice = Dice::new(seed);
    let mut world = World::new(Config::default());
    world.replies = vec![random_reply(&mut dice), vec![Clause::plain("Well.")]];
    world.latency.asr = ms(dice.roll(20, 600));
    world.latency.real_time_factor = f64::from(u32::try_from(dice.roll(1, 150)).unwrap()) / 100.0;
    world.latency.next_clause = ms(dice.roll(10, 800));
    world.latency.reports = reports.every;
    world.latency.report_delay = reports.late;
    world.latency.report_every = reports.one_of.max(1);
    world.says(ms(500), ms(1_000), "tell me a story");
    world.run_until_speaking();
    if dice.roll(0, 3) == 0 {
        world.noise(world.now + ms(dice.roll(0, 2_000)), ms(dice.roll(50, 400)));
    }
    let at = world.now + ms(dice.roll(600, 9_000));
    world.says(at, ms(dice.roll(600, 2_000)), "xyz zyx xxy yyx zzx");
    world.run_until(at + ms(90_000));
    let outcome = world.outcomes()[0];
    let interrupted = outcome.status == ReplyStatus::Cancelled(CancelReason::TurnDetected);
    let history = world
        .conversation()
        .into_iter()
        .find(|line| line.starts_with("assistant"))
        .unwrap_or_default();
    let heard = history.strip_prefix("assistant: ").unwrap_or("").to_owned();
    (heard, world.truth[&outcome.reply].heard(), interrupted)
}

#[test]
fn over_1000_random_interruptions_no_word_unheard_is_in_the_history_and_none_heard_is_missing() {
    let mut interruptions = 0;
    for seed in 0..runs() {
        let (history, truth, was_interrupted) = interrupted(seed, Reports::default());
        assert_eq!(history, truth, "seed {seed}");
        interruptions += u64::from(was_interrupted);
    }
    assert!(
        interruptions > runs() / 3,
        "{interruptions} of {} were interruptions",
        runs()
    );
}

#[test]
fn with_a_client_that_reports_its_playout_likewise() {
    for seed in 0..runs() {
        let reports = Reports {
            every: Some(ms(50)),
            ..Reports::default()
        };
        let (history, truth, _) = interrupted(seed, reports);
        assert_eq!(history, truth, "seed {seed}");
    }
}

#[test]
fn reports_that_come_late_or_not_at_all_end_in_the_same_history() {
    for seed in 0..runs() {
        let mut dice = Dice::new(seed + 77);
        let reports = Reports {
            every: Some(ms(50)),
            late: ms(dice.roll(1, 1_500)),
            one_of: dice.roll(1, 8),
        };
        let (history, truth, _) = interrupted(seed, reports);
        assert_eq!(history, truth, "seed {seed}");
    }
}

/// A client that hears speech itself, stops its player at once and says where.
#[test]
fn a_client_that_truncates_by_itself_has_the_last_word_on_what_was_heard() {
    let mut truncated = 0;
    for seed in 0..runs() {
        let mut dice = Dice::new(seed);
        let mut world = World::new(Config::default());
        world.replies = vec![random_reply(&mut dice), vec![Clause::plain("Well.")]];
        world.latency.reports = (dice.roll(0, 2) == 0).then(|| ms(50));
        world.says(ms(500), ms(1_000), "tell me a story");
        world.run_until_speaking();
        let reply = world.session.reply().unwrap();
        let item = world
            .notices()
            .into_iter()
            .find_map(|notice| match notice {
                Notice::ReplyItemAdded { item, .. } => Some(item.id.clone()),
                _ => None,
            })
            .unwrap();
        let at = world.now + ms(dice.roll(100, 4_000));
        if dice.roll(0, 2) == 0 {
            world.says(at, ms(900), "xyz zyx xxy yyx zzx");
        }
        // Before the server has heard of the speech, or after it has ended the reply for it.
        world.run_until(at + ms(dice.roll(1, 900)));
        let played = world.truth[&reply].played;
        if played == 0 {
            continue;
        }
        let heard = world.truth[&reply].heard();
        let mark = world.log.len();
        world.tell(Event::TruncateItem {
            item: item.clone(),
            audio_end: Duration::from_nanos((played * 1_000_000_000).div_ceil(48_000)),
        });
        // The client plays no more of it, whatever was on its way, and has no more to report.
        world.latency.reports = None;
        let told = world.log[mark..]
            .iter()
            .find_map(|(_, action)| match action {
                Action::Emit(Notice::ItemTruncated { text, .. }) => Some(text.clone()),
                _ => None,
            });
        assert_eq!(told.as_deref(), Some(heard.as_str()), "seed {seed}");
        world.run_for(ms(60_000));
        let history = world
            .session
            .items()
            .iter()
            .find(|kept| kept.id == item)
            .map(Item::text);
        assert_eq!(history.as_deref(), Some(heard.as_str()), "seed {seed}");
        truncated += 1;
    }
    assert!(truncated > runs() / 2, "{truncated} of {}", runs());
}

/// A session that is speaking one clause whose marks are given by hand.
struct Spoken {
    session: Session,
    reply: ReplyId,
}

impl Spoken {
    fn new(clauses: Vec<Clause>, marks: &[(u32, &str, u64, u64)], total: u64) -> Self {
        let mut session = Session::new("test", Config::default());
        session.handle(
            ms(0),
            Event::CreateReply(duologue_session::ReplyPatch::default()),
        );
        let reply = session.reply().unwrap();
        let said: Vec<String> = clauses
            .iter()
            .filter(|c| !c.spoken.trim().is_empty())
            .map(|c| c.spoken.clone())
            .collect();
        for clause in clauses {
            session.handle(ms(10), Event::ReplyText { reply, clause });
        }
        session.handle(
            ms(20),
            Event::ReplyEnded {
                reply,
                finish: Finish::Stop,
                usage: None,
            },
        );
        let words = marks
            .iter()
            .map(|(clause, word, start, end)| {
                let at = said[*clause as usize].find(word).unwrap();
                WordMark {
                    clause: *clause,
                    spoken: at..at + word.len(),
                    start_sample: *start,
                    end_sample: *end,
                }
            })
            .collect();
        session.handle(
            ms(30),
            Event::Audio {
                reply,
                samples: total,
                words,
            },
        );
        session.handle(ms(30), Event::AudioEnded { reply });
        Self { session, reply }
    }

    /// What is in the history when the client played that much and cancels.
    fn heard_at(mut self, played: u64) -> String {
        let reply = self.reply;
        self.session.handle(
            ms(40),
            Event::Sent {
                reply,
                samples: u64::MAX,
            },
        );
        self.session.handle(
            ms(50),
            Event::Played {
                reply,
                samples: played,
            },
        );
        self.session.handle(ms(60), Event::CancelReply(None));
        self.session.items().last().unwrap().text()
    }
}

/// A word is marked at 300 to 900 samples, of which the voice made only 600 before it was given up; another voice says
/// it again from 300 on, and faster.
#[test]
fn a_word_that_is_made_anew_counts_where_it_is_heard_whole() {
    let reply = ReplyId(1);
    let mark = |spoken: std::ops::Range<usize>, samples: std::ops::Range<u64>| WordMark {
        clause: 0,
        spoken,
        start_sample: samples.start,
        end_sample: samples.end,
    };
    let heard_at = |played: u64| {
        let mut session = Session::new("test", Config::default());
        let patch = duologue_session::ReplyPatch::default();
        session.handle(ms(0), Event::CreateReply(patch));
        let clause = Clause::plain("one two three");
        session.handle(ms(10), Event::ReplyText { reply, clause });
        let (finish, usage) = (Finish::Stop, None);
        session.handle(
            ms(20),
            Event::ReplyEnded {
                reply,
                finish,
                usage,
            },
        );
        let audio = |samples, words| Event::Audio {
            reply,
            samples,
            words,
        };
        let first = vec![mark(0..3, 0..200), mark(4..7, 300..900)];
        session.handle(ms(30), audio(600, first));
        let samples = 250;
        session.handle(ms(31), Event::Sent { reply, samples });
        let samples = 300;
        session.handle(ms(32), Event::AudioCut { reply, samples });
        let again = vec![mark(4..7, 300..500), mark(8..13, 500..800)];
        session.handle(ms(33), audio(800, again));
        session.handle(ms(34), Event::AudioEnded { reply });
        let samples = 800;
        session.handle(ms(40), Event::Sent { reply, samples });
        let samples = played;
        session.handle(ms(50), Event::Played { reply, samples });
        session.handle(ms(60), Event::CancelReply(None));
        session.items().last().unwrap().text()
    };
    assert_eq!(heard_at(350), "one");
    assert_eq!(heard_at(450), "one two");
    assert_eq!(heard_at(800), "one two three");
}

#[test]
fn while_a_reply_is_said_the_conversation_so_far_has_what_was_heard_of_it() {
    let mut spoken = five_dollars();
    let so_far = |spoken: &Spoken| -> Vec<String> {
        let items = spoken.session.items_so_far();
        items.iter().map(duologue_session::Item::text).collect()
    };
    assert_eq!(so_far(&spoken), Vec::<String>::new());
    let reply = spoken.reply;
    for (at, samples) in [(40, 500), (50, 210)] {
        let event = match at {
            40 => Event::Sent { reply, samples },
            _ => Event::Played { reply, samples },
        };
        spoken.session.handle(ms(at), event);
    }
    assert_eq!(so_far(&spoken), ["It costs"]);
    // The conversation itself gets to know it when the reply is over.
    assert_eq!(spoken.session.items().last().unwrap().text(), "");
}

fn five_dollars() -> Spoken {
    let clause = Clause {
        display: "It costs $5 today.".into(),
        spoken: "It costs five dollars today.".into(),
        words: vec![(0..2, 0..2), (3..8, 3..8), (9..21, 9..11), (22..27, 12..17)],
    };
    Spoken::new(
        vec![clause],
        &[
            (0, "It", 0, 100),
            (0, "costs", 100, 200),
            (0, "five", 200, 300),
            (0, "dollars", 300, 400),
            (0, "today", 400, 500),
        ],
        520,
    )
}

#[test]
fn the_history_has_the_text_as_read_not_as_said() {
    assert_eq!(five_dollars().heard_at(520), "It costs $5 today.");
    assert_eq!(
        five_dollars().heard_at(301),
        "It costs $5",
        "more than half of \"five dollars\""
    );
    assert_eq!(five_dollars().heard_at(300), "It costs");
}

#[test]
fn a_word_counts_when_more_than_half_of_it_was_played() {
    assert_eq!(five_dollars().heard_at(0), "");
    assert_eq!(five_dollars().heard_at(50), "");
    assert_eq!(five_dollars().heard_at(51), "It");
    assert_eq!(five_dollars().heard_at(150), "It");
    assert_eq!(five_dollars().heard_at(151), "It costs");
}

#[test]
fn what_is_never_said_counts_with_the_word_before_it() {
    let code = Clause {
        display: "\n```\nlet x = 1;\n```\n".into(),
        spoken: String::new(),
        words: Vec::new(),
    };
    let make = || {
        let clauses = vec![
            Clause::plain("Try this:"),
            code.clone(),
            Clause::plain("It works."),
        ];
        let marks = [
            (0, "Try", 0, 100),
            (0, "this:", 100, 200),
            (1, "It", 250, 300),
            (1, "works.", 300, 400),
        ];
        Spoken::new(clauses, &marks, 400)
    };
    assert_eq!(make().heard_at(140), "Try");
    assert_eq!(make().heard_at(200), "Try this:\n```\nlet x = 1;\n```");
    assert_eq!(
        make().heard_at(400),
        "Try this:\n```\nlet x = 1;\n```\nIt works."
    );
}

#[test]
fn punctuation_goes_with_its_word() {
    let make = || {
        let marks = [
            (0, "Yes", 0, 100),
            (0, "of", 100, 200),
            (0, "course", 200, 300),
        ];
        Spoken::new(vec![Clause::plain("Yes, of course!")], &marks, 300)
    };
    assert_eq!(make().heard_at(90), "Yes,");
    assert_eq!(make().heard_at(300), "Yes, of course!");
}

#[test]
fn a_voice_without_marks_is_estimated() {
    let text = "one two three four five six seven eight nine ten";
    let heard = |played| Spoken::new(vec![Clause::plain(text)], &[], 48_000 * 4).heard_at(played);
    assert_eq!(heard(0), "");
    let half = heard(48_000 * 2);
    assert!(
        text.starts_with(&half) && half.len() > 10 && half.len() < 40,
        "{half}"
    );
    assert_eq!(heard(48_000 * 4), text);
}

#[test]
fn what_was_sent_but_not_played_is_not_heard() {
    let Spoken { mut session, reply } = five_dollars();
    session.handle(
        ms(40),
        Event::Sent {
            reply,
            samples: 520,
        },
    );
    session.handle(ms(40), Event::CancelReply(None));
    assert_eq!(
        session.items().last().unwrap().text(),
        "",
        "it has not arrived yet"
    );
}

#[test]
fn an_output_delay_that_is_told_holds_from_the_next_frame_on() {
    for (delay, heard) in [(ms(20), "It costs $5"), (ms(1_000), "")] {
        let Spoken { mut session, reply } = five_dollars();
        session.handle(ms(30), Event::OutputDelay { delay });
        let samples = 520;
        session.handle(ms(40), Event::Sent { reply, samples });
        session.handle(ms(300), Event::CancelReply(None));
        let text = session.items().last().unwrap().text();
        assert!(
            text.starts_with(heard) && text.is_empty() == heard.is_empty(),
            "{text:?}"
        );
    }
}

#[test]
fn a_player_that_holds_when_it_is_told_to_is_not_imagined_to_play_on() {
    for (holds, heard) in [(false, "It costs $5 today."), (true, "It costs")] {
        let Spoken { mut session, reply } = five_dollars();
        session.handle(ms(0), Event::PlayerHolds(holds));
        let samples = 520;
        session.handle(ms(40), Event::Sent { reply, samples });
        // It arrives 100 ms later, and 4 ms are two words.
        session.handle(ms(144), Event::Control(Control::Pause));
        session.handle(ms(5_000), Event::CancelReply(None));
        let text = session.items().last().unwrap().text();
        assert_eq!(text, heard, "holds: {holds}");
    }
}

#[test]
fn the_estimate_is_named_as_such() {
    for (reports, by) in [(None, HeardBy::Estimate), (Some(ms(50)), HeardBy::Client)] {
        let mut world = World::new(Config::default());
        world.latency.reports = reports;
        world.says(ms(500), ms(1_000), "tell me a story");
        world.run_until(ms(20_000));
        assert_eq!(world.outcomes()[0].heard_by, by);
        assert_eq!(world.outcomes()[0].status, ReplyStatus::Completed);
    }
}

#[test]
fn a_client_that_stops_reporting_does_not_hold_the_reply() {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(1_000), "tell me a story");
    world.run_until_speaking();
    let reply = world.session.reply().unwrap();
    world.run_for(ms(300));
    world.tell(Event::Played {
        reply,
        samples: 4_800,
    });
    world.run_for(ms(20_000));
    assert_eq!(world.outcomes()[0].status, ReplyStatus::Completed);
    assert_eq!(
        world.outcomes()[0].heard,
        "Certainly. Here is what I know about that."
    );
}

#[test]
fn a_late_report_corrects_the_history() {
    let Spoken { mut session, reply } = five_dollars();
    session.handle(
        ms(40),
        Event::Sent {
            reply,
            samples: 520,
        },
    );
    session.handle(ms(45), Event::Played { reply, samples: 60 });
    session.handle(ms(50), Event::CancelReply(None));
    assert_eq!(session.items().last().unwrap().text(), "It");
    session.handle(
        ms(90),
        Event::Played {
            reply,
            samples: 210,
        },
    );
    assert_eq!(session.items().last().unwrap().text(), "It costs");
    let told = std::iter::from_fn(|| session.poll()).any(
        |a| matches!(a, Action::Emit(Notice::ItemTruncated { text, .. }) if text == "It costs"),
    );
    assert!(told);
}

#[test]
fn a_client_cannot_have_played_what_was_never_sent() {
    let Spoken { mut session, reply } = five_dollars();
    session.handle(
        ms(40),
        Event::Sent {
            reply,
            samples: 120,
        },
    );
    session.handle(
        ms(45),
        Event::Played {
            reply,
            samples: 10_000,
        },
    );
    session.handle(ms(50), Event::CancelReply(None));
    assert_eq!(session.items().last().unwrap().text(), "It");
}

#[test]
fn deltas_are_the_text_as_it_is_spoken() {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(1_000), "tell me a story");
    world.run_until(ms(20_000));
    let deltas: Vec<(Duration, String)> = world
        .log
        .iter()
        .filter_map(|(at, a)| match a {
            Action::Emit(Notice::ReplyTranscriptDelta { text, .. }) => Some((*at, text.clone())),
            _ => None,
        })
        .collect();
    let text: String = deltas.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(text, "Certainly. Here is what I know about that.");
    assert!(
        deltas.last().unwrap().0 - deltas[0].0 > ms(1_000),
        "word by word, not all at once"
    );
}

#[test]
fn a_reply_cancelled_at_any_moment_leaves_what_had_reached_the_ear() {
    for seed in 0..runs() / 4 {
        let mut dice = Dice::new(seed);
        let mut world = World::new(Config::default());
        world.replies = vec![random_reply(&mut dice)];
        world.says(ms(500), ms(1_000), "tell me a story");
        world.run_until_speaking();
        world.run_for(ms(dice.roll(0, 6_000)));
        if world.session.reply().is_none() {
            continue;
        }
        world.tell(Event::CancelReply(None));
        let outcome = world.outcomes()[0].clone();
        let truth = world.truth[&outcome.reply].clone();
        // The world counts a frame as played when its last sample was.
        let possible = [0, support::FRAME].map(|more| {
            support::Truth {
                played: truth.played + more,
                ..truth.clone()
            }
            .heard()
        });
        assert!(
            possible.contains(&outcome.heard),
            "seed {seed}: {:?} is not {possible:?}",
            outcome.heard
        );
    }
}

#[test]
fn time_does_not_go_back() {
    let Spoken { mut session, reply } = five_dollars();
    session.handle(
        ms(40),
        Event::Sent {
            reply,
            samples: 520,
        },
    );
    session.handle(ms(1_000), Event::Tick);
    session.handle(
        ms(20),
        Event::CreateItem {
            item: Item::message("late", Role::User, "x"),
            place: Place::End,
        },
    );
    assert_eq!(
        session.reply(),
        None,
        "the reply was over at 1 s, and stays so"
    );
    let idle = session.deadline().unwrap();
    assert_eq!(
        idle,
        ms(1_000) + Duration::from_secs(270),
        "counted from the latest time"
    );
}
