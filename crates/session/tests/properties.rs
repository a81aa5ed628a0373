//! Whatever happens, in whatever order: no stuck state, nothing stale, nothing unbounded, no panic.
//!
//! `PROPTEST_CASES` raises the number of cases (256).
#![allow(clippy::unwrap_used)]

mod support;

use duologue_session::{
    Action, Announce, AtOnset, Beginning, Clause, Config, ConfigPatch, Control, Entry, Event,
    Finish, Happening, InterruptionConfig, Item, ItemId, ItemKind, ItemStatus, Limits, MAX_QUEUED,
    Modality, Notice, Place, RECORDING_FORMAT, ReplyId, ReplyPatch, Role, Session, State, Timing,
    TurnDetection, TurnId, WordMark, replay, rerecord,
};
use proptest::prelude::*;
use std::time::Duration;
use support::{Checker, ms};

/// An event whose names and positions are chosen when it happens, around those that are current.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    WaitForDeadline,
    SpeechStarted(u64),
    SpeechResumed(u64),
    Silence(u64),
    SpeechStopped(u64),
    EndOfTurn(i8, u8),
    Partial(i8, u8),
    Transcript(i8, u8),
    TranscriptFailed(i8),
    Text(i8, u8),
    ToolCall(i8),
    ReplyEnded(i8, bool),
    ReplyFailed(i8),
    Audio(i8, u64, bool),
    AudioEnded(i8),
    VoiceFailed(i8),
    Sent(i8, u64),
    SentAll(i8),
    Played(i8, u64),
    Control(u8),
    Commit(u64),
    Clear,
    CreateItem(u8, u8),
    DeleteItem(u8),
    Retrieve(u8),
    Truncate(u8, u64),
    CreateReply(u8),
    Cancel(i8),
    Configure(u8),
    Say(bool),
    Lost,
    Back,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly the current generation, sometimes an old or a future one.
    let id = || prop_oneof![6 => Just(0_i8), 1 => Just(-1), 1 => Just(1)];
    prop_oneof![
        8 => (0_u64..3_000).prop_map(Step::Wait),
        4 => Just(Step::WaitForDeadline),
        6 => (0_u64..800).prop_map(Step::SpeechStarted),
        3 => (0_u64..800).prop_map(Step::SpeechResumed),
        6 => (0_u64..800).prop_map(Step::Silence),
        3 => (0_u64..800).prop_map(Step::SpeechStopped),
        3 => (id(), 0_u8..=100).prop_map(|(id, p)| Step::EndOfTurn(id, p)),
        3 => (id(), any::<u8>()).prop_map(|(id, n)| Step::Partial(id, n)),
        6 => (id(), any::<u8>()).prop_map(|(id, n)| Step::Transcript(id, n)),
        1 => id().prop_map(Step::TranscriptFailed),
        6 => (id(), any::<u8>()).prop_map(|(id, n)| Step::Text(id, n)),
        1 => id().prop_map(Step::ToolCall),
        4 => (id(), any::<bool>()).prop_map(|(id, long)| Step::ReplyEnded(id, long)),
        1 => id().prop_map(Step::ReplyFailed),
        6 => (id(), 0_u64..200_000, any::<bool>()).prop_map(|(id, n, marks)| Step::Audio(id, n, marks)),
        3 => id().prop_map(Step::AudioEnded),
        1 => id().prop_map(Step::VoiceFailed),
        6 => (id(), 0_u64..100_000).prop_map(|(id, n)| Step::Sent(id, n)),
        3 => id().prop_map(Step::SentAll),
        3 => (id(), 0_u64..200_000).prop_map(|(id, n)| Step::Played(id, n)),
        3 => (0_u8..3).prop_map(Step::Control),
        1 => (0_u64..3_000).prop_map(Step::Commit),
        1 => Just(Step::Clear),
        1 => any::<(u8, u8)>().prop_map(|(n, kind)| Step::CreateItem(n, kind)),
        1 => any::<u8>().prop_map(Step::DeleteItem),
        1 => any::<u8>().prop_map(Step::Retrieve),
        1 => (any::<u8>(), 0_u64..5_000).prop_map(|(n, at)| Step::Truncate(n, at)),
        3 => any::<u8>().prop_map(Step::CreateReply),
        1 => id().prop_map(Step::Cancel),
        1 => any::<u8>().prop_map(Step::Configure),
        1 => any::<bool>().prop_map(Step::Say),
        1 => Just(Step::Lost),
        2 => Just(Step::Back),
    ]
}

fn detection(n: u8) -> TurnDetection {
    let vad = |create_response, interrupt_response, idle| TurnDetection::ServerVad {
        silence: ms(u64::from(n) * 4),
        threshold: 0.5,
        prefix: ms(300),
        create_response,
        interrupt_response,
        idle_timeout: idle,
    };
    match n % 6 {
        0 | 1 => TurnDetection::default(),
        2 => vad(true, true, None),
        3 => vad(true, false, Some(Duration::from_secs(5))),
        4 => vad(false, true, None),
        _ => TurnDetection::Manual,
    }
}

fn config() -> impl Strategy<Value = Config> {
    (
        any::<u8>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        proptest::option::of(1_u32..4),
        any::<bool>(),
    )
        .prop_map(
            |(detect, duck, at_onset, partials, max_turns, goodbye)| Config {
                turn_detection: detection(detect),
                interruption: InterruptionConfig {
                    at_onset: if duck { AtOnset::Duck } else { AtOnset::Pause },
                    announce: if at_onset {
                        Announce::AtOnset
                    } else {
                        Announce::WhenSure
                    },
                    ..InterruptionConfig::default()
                },
                timing: Timing {
                    partials: partials.then_some(ms(500)),
                    ..Timing::default()
                },
                limits: Limits {
                    max_turns,
                    goodbye: goodbye.then(|| "Bye now.".to_owned()),
                    max_items: 20,
                    ..Limits::default()
                },
                ..Config::default()
            },
        )
}

struct Run {
    session: Session,
    checker: Checker,
    now: Duration,
    asked: (TurnId, u32),
    items: Vec<ItemId>,
    /// Clauses that the voice was given.
    spoken: Vec<(u32, String)>,
    audio: u64,
    reply: ReplyId,
    /// Ways from state to state that were taken.
    ways: Vec<(State, State)>,
    /// Kept where it is set.
    recording: Option<Vec<Entry>>,
}

impl Run {
    fn new(config: Config) -> Self {
        Self {
            session: Session::new("p", config),
            checker: Checker::default(),
            now: Duration::ZERO,
            asked: (TurnId(0), 0),
            items: vec!["none".into()],
            spoken: Vec::new(),
            audio: 0,
            reply: ReplyId(0),
            ways: Vec::new(),
            recording: None,
        }
    }

    fn record(&mut self, what: Happening) {
        let at = self.now;
        if let Some(recording) = &mut self.recording {
            recording.push(Entry { at, what });
        }
    }

    fn handle(&mut self, event: Event) {
        if self.recording.is_some() {
            self.record(Happening::Event(event.clone()));
        }
        self.session.handle(self.now, event);
        let mut count = 0;
        while let Some(action) = self.session.poll() {
            count += 1;
            assert!(count < 200, "one event makes {count} actions");
            self.checker.check(&action);
            if self.recording.is_some() {
                self.record(Happening::Action(action.clone()));
            }
            match action {
                Action::Transcribe { turn, revision, .. } => self.asked = (turn, revision),
                Action::Speak {
                    reply,
                    clause,
                    text,
                } => {
                    if reply != self.reply {
                        (self.reply, self.audio) = (reply, 0);
                        self.spoken.clear();
                    }
                    self.spoken.push((clause, text));
                }
                Action::Emit(Notice::StateChanged { from, to }) => self.ways.push((from, to)),
                Action::Emit(Notice::ItemAdded { item, .. }) => self.items.push(item.id),
                _ => {}
            }
        }
        assert!(count < MAX_QUEUED);
        self.checker.check_session(&self.session);
        if let Some(deadline) = self.session.deadline() {
            assert!(
                deadline > self.now,
                "a deadline at {deadline:?} stays due at {:?}",
                self.now
            );
        }
    }

    fn reply_near(&self, offset: i8) -> ReplyId {
        let current = self.session.reply().unwrap_or(self.reply);
        ReplyId(current.0.saturating_add_signed(i64::from(offset)))
    }

    fn turn_near(&self, offset: i8) -> (TurnId, u32) {
        match offset {
            0 => self.asked,
            offset if offset > 0 => (self.asked.0, self.asked.1 + 1),
            _ => (TurnId(self.asked.0.0.saturating_sub(1)), self.asked.1),
        }
    }

    fn item_near(&self, n: u8) -> ItemId {
        self.items[usize::from(n) % self.items.len()].clone()
    }

    fn step(&mut self, step: Step) {
        let before = |lag: u64| self.now.saturating_sub(ms(lag));
        let words = |n: u8| {
            [
                "",
                "mhm",
                "stop",
                "what about the sea",
                "spoken words of",
                "no",
                "um",
            ][usize::from(n) % 7]
                .to_owned()
        };
        let event = match step {
            Step::Wait(time) => {
                self.now += ms(time);
                Event::Tick
            }
            Step::WaitForDeadline => {
                self.now = self
                    .session
                    .deadline()
                    .map_or(self.now, |at| at.min(self.now + ms(60_000)));
                Event::Tick
            }
            Step::SpeechStarted(lag) => Event::SpeechStarted { onset: before(lag) },
            Step::SpeechResumed(lag) => Event::SpeechResumed { onset: before(lag) },
            Step::Silence(lag) => Event::Silence { since: before(lag) },
            Step::SpeechStopped(lag) => Event::SpeechStopped { end: before(lag) },
            Step::EndOfTurn(id, p) => {
                let (turn, revision) = self.turn_near(id);
                Event::EndOfTurn {
                    turn,
                    revision,
                    probability: f32::from(p) / 100.0,
                }
            }
            Step::Partial(id, n) => {
                let (turn, revision) = self.turn_near(id);
                Event::Partial {
                    turn,
                    revision,
                    text: words(n),
                }
            }
            Step::Transcript(id, n) => {
                let (turn, revision) = self.turn_near(id);
                Event::Transcript {
                    turn,
                    revision,
                    text: words(n),
                }
            }
            Step::TranscriptFailed(id) => {
                let (turn, revision) = self.turn_near(id);
                Event::TranscriptFailed {
                    turn,
                    revision,
                    message: "failed".into(),
                }
            }
            Step::Text(id, n) => {
                let clause = match n % 4 {
                    0 => Clause {
                        display: "```code```".into(),
                        ..Clause::default()
                    },
                    1 => Clause {
                        display: "für $5 – ✓ ".into(),
                        spoken: "für five dollars".into(),
                        words: vec![(0..4, 0..4), (5..17, 5..7)],
                    },
                    _ => Clause::plain("some spoken words of it. "),
                };
                Event::ReplyText {
                    reply: self.reply_near(id),
                    clause,
                }
            }
            Step::ToolCall(id) => Event::ReplyToolCall {
                reply: self.reply_near(id),
                call_id: "c".into(),
                name: "f".into(),
                arguments: "{}".into(),
            },
            Step::ReplyEnded(id, long) => Event::ReplyEnded {
                reply: self.reply_near(id),
                finish: if long { Finish::Length } else { Finish::Stop },
                usage: None,
            },
            Step::ReplyFailed(id) => Event::ReplyFailed {
                reply: self.reply_near(id),
                message: "failed".into(),
            },
            Step::Audio(id, more, marks) => {
                let start = self.audio;
                self.audio += more;
                let words = self
                    .spoken
                    .iter()
                    .filter(|_| marks)
                    .map(|(clause, text)| WordMark {
                        clause: *clause,
                        spoken: 0..text.len() / 2,
                        start_sample: start,
                        end_sample: self.audio,
                    })
                    .collect();
                Event::Audio {
                    reply: self.reply_near(id),
                    samples: self.audio,
                    words,
                }
            }
            Step::AudioEnded(id) => Event::AudioEnded {
                reply: self.reply_near(id),
            },
            Step::VoiceFailed(id) => Event::VoiceFailed {
                reply: self.reply_near(id),
                message: "failed".into(),
            },
            Step::Sent(id, samples) => Event::Sent {
                reply: self.reply_near(id),
                samples,
            },
            Step::SentAll(id) => Event::Sent {
                reply: self.reply_near(id),
                samples: self.audio,
            },
            Step::Played(id, samples) => Event::Played {
                reply: self.reply_near(id),
                samples,
            },
            Step::Control(n) => {
                Event::Control([Control::Pause, Control::Resume, Control::Stop][usize::from(n) % 3])
            }
            Step::Commit(lag) => Event::CommitInput {
                from: before(lag),
                to: self.now,
            },
            Step::Clear => Event::ClearInput,
            Step::CreateItem(n, kind) => {
                let kind = match kind % 3 {
                    0 => ItemKind::FunctionCallOutput {
                        call_id: "c".into(),
                        output: "x".into(),
                    },
                    _ => {
                        let role = if kind % 2 == 0 {
                            Role::User
                        } else {
                            Role::System
                        };
                        Item::message("", role, "hello").kind
                    }
                };
                let place = match n % 3 {
                    0 => Place::Start,
                    1 => Place::After(self.item_near(n)),
                    _ => Place::End,
                };
                Event::CreateItem {
                    item: Item {
                        id: "".into(),
                        status: ItemStatus::Completed,
                        kind,
                    },
                    place,
                }
            }
            Step::DeleteItem(n) => Event::DeleteItem(self.item_near(n)),
            Step::Retrieve(n) => Event::RetrieveItem(self.item_near(n)),
            Step::Truncate(n, at) => Event::TruncateItem {
                item: self.item_near(n),
                audio_end: ms(at),
            },
            Step::CreateReply(n) => Event::CreateReply(ReplyPatch {
                modality: (n % 4 == 0).then_some(Modality::Text),
                in_conversation: (n % 5 == 0).then_some(false),
                ..ReplyPatch::default()
            }),
            Step::Cancel(id) => Event::CancelReply((id != 0).then(|| self.reply_near(id))),
            Step::Configure(n) => Event::Configure(Box::new(ConfigPatch {
                turn_detection: Some(detection(n)),
                ..ConfigPatch::default()
            })),
            Step::Say(empty) => Event::Say(if empty {
                String::new()
            } else {
                "Hello there.".into()
            }),
            Step::Lost => Event::TransportLost,
            Step::Back => Event::TransportBack,
            Step::Close => Event::Close,
        };
        self.handle(event);
    }

    /// Everybody falls silent; only time passes.
    fn settle(&mut self) {
        for _ in 0..400 {
            let resting = matches!(
                self.session.state(),
                State::WaitingForInput | State::Listening | State::Ended
            );
            if resting {
                return;
            }
            self.now = self
                .session
                .deadline()
                .expect("every state that is no rest has a deadline");
            self.handle(Event::Tick);
        }
        panic!("stuck in {:?} at {:?}", self.session.state(), self.now);
    }
}

proptest! {
    #[test]
    fn no_order_of_events_leaves_a_session_stuck(config in config(), steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new(config);
        for step in steps {
            run.step(step);
        }
        run.settle();
    }

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
fn random_orders_take_every_way_in_the_table() {
    use duologue_session::TRANSITIONS;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    use std::collections::BTreeSet;
    let wanted: BTreeSet<(State, State)> = TRANSITIONS
        .iter()
        .filter(|(a, _, b)| a != b)
        .map(|(a, _, b)| (*a, *b))
        .collect();
    let mut taken = BTreeSet::new();
    let mut runner = TestRunner::deterministic();
    let orders = (config(), prop::collection::vec(step(), 20..120));
    for _ in 0..4_000 {
        let (config, steps) = orders.new_tree(&mut runner).unwrap().current();
        let mut run = Run::new(config);
        for step in steps {
            run.step(step);
        }
        run.step(Step::Close);
        taken.extend(run.ways);
        if taken.len() == wanted.len() {
            break;
        }
    }
    let missing: Vec<_> = wanted.difference(&taken).collect();
    assert!(missing.is_empty(), "never taken: {missing:?}");
}
