//! Whatever happens, in whatever order: no stuck state, nothing stale, nothing unbounded, no panic.
//!
//! `DUOLOGUE_ORDERS=1000000 cargo test --release -p duologue-session --test properties` takes that many orders
//! instead of the share that every run of the tests takes.
//!
//! Half of the steps are anything at all, stale and absurd things included; the other half are what the world would
//! do next (the recognizer answers, the model writes, the voice sounds, the writer sends), so that the orders get
//! deep into conversations and not only astray at their beginning.
#![allow(clippy::unwrap_used)]

mod support;

use duologue_session::{
    Action, Announce, AtOnset, Beginning, Clause, Config, ConfigPatch, Control, Entry, Event,
    Finish, Happening, InterruptionConfig, Item, ItemId, ItemKind, ItemStatus, Limits, MAX_QUEUED,
    Modality, Notice, Place, RECORDING_FORMAT, ReplyId, ReplyPatch, Role, Session, Speculation,
    State, Timing, TranscribeKind, TurnDetection, TurnId, WordMark, replay, rerecord,
};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use support::{Checker, ms};

/// An event whose names and positions are chosen when it happens, around those that are current.
#[derive(Clone, Debug)]
enum Step {
    /// The world does what it owes, after so many ms.
    World(u64),
    Wait(u64),
    /// Longer than any idle timeout.
    WaitLong,
    WaitForDeadline,
    SpeechStarted(u64),
    SpeechResumed(u64),
    Silence(u64),
    SpeechStopped(u64),
    EchoHeard,
    EndOfTurn(i8, u8),
    Partial(i8, u8),
    Transcript(i8, u8),
    TranscriptFailed(i8),
    Text(i8, u8),
    ToolCall(i8),
    ReplyEnded(i8, u8),
    ReplyFailed(i8),
    Audio(i8, u64, bool),
    AudioCut(i8, u64),
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
        90 => (0_u64..400).prop_map(Step::World),
        8 => (0_u64..3_000).prop_map(Step::Wait),
        1 => Just(Step::WaitLong),
        4 => Just(Step::WaitForDeadline),
        6 => (0_u64..800).prop_map(Step::SpeechStarted),
        3 => (0_u64..800).prop_map(Step::SpeechResumed),
        6 => (0_u64..800).prop_map(Step::Silence),
        3 => (0_u64..800).prop_map(Step::SpeechStopped),
        1 => Just(Step::EchoHeard),
        3 => (id(), 0_u8..=100).prop_map(|(id, p)| Step::EndOfTurn(id, p)),
        3 => (id(), any::<u8>()).prop_map(|(id, n)| Step::Partial(id, n)),
        6 => (id(), any::<u8>()).prop_map(|(id, n)| Step::Transcript(id, n)),
        1 => id().prop_map(Step::TranscriptFailed),
        6 => (id(), any::<u8>()).prop_map(|(id, n)| Step::Text(id, n)),
        1 => id().prop_map(Step::ToolCall),
        4 => (id(), 0_u8..4).prop_map(|(id, how)| Step::ReplyEnded(id, how)),
        1 => id().prop_map(Step::ReplyFailed),
        6 => (id(), 0_u64..200_000, any::<bool>()).prop_map(|(id, n, marks)| Step::Audio(id, n, marks)),
        2 => (id(), 0_u64..60_000).prop_map(|(id, n)| Step::AudioCut(id, n)),
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
        3 => any::<u8>().prop_map(Step::Configure),
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

/// A change of any of the settings.
fn change(n: u8) -> ConfigPatch {
    let flag = n & 16 != 0;
    match n % 6 {
        0 | 1 => ConfigPatch {
            turn_detection: Some(detection(n / 6)),
            ..ConfigPatch::default()
        },
        2 => ConfigPatch {
            interruption: Some(InterruptionConfig {
                at_onset: if flag { AtOnset::Duck } else { AtOnset::Pause },
                min_words: usize::from(n / 32),
                max_rewind: ms(u64::from(n) * 8),
                ..InterruptionConfig::default()
            }),
            ..ConfigPatch::default()
        },
        3 => ConfigPatch {
            timing: Some(Timing {
                partials: flag.then_some(ms(300)),
                min_silence: ms(u64::from(n) * 2),
                max_turn: Duration::from_secs(5),
                ..Timing::default()
            }),
            speculation: Some(if flag {
                Speculation::On
            } else {
                Speculation::Off
            }),
            ..ConfigPatch::default()
        },
        4 => ConfigPatch {
            limits: Some(Limits {
                idle_timeout: Some(Duration::from_secs(if flag { 40 } else { 300 })),
                max_duration: (n & 32 != 0).then_some(Duration::from_secs(120)),
                max_turns: (n & 64 != 0).then_some(2),
                goodbye: (n & 128 != 0).then(|| "So long.".to_owned()),
                history_tokens: usize::from(n),
                max_items: 20,
                ..Limits::default()
            }),
            ..ConfigPatch::default()
        },
        _ => ConfigPatch {
            reply: ReplyPatch {
                modality: flag.then_some(Modality::Text),
                instructions: Some("Other instructions.".to_owned()),
                ..ReplyPatch::default()
            },
            ..ConfigPatch::default()
        },
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

/// What the world owes the session.
#[derive(Clone, Copy, Debug)]
enum Owed {
    Words(TurnId, u32, TranscribeKind),
    Judgement(TurnId, u32),
    Text(ReplyId),
    Call(ReplyId),
    End(ReplyId),
    Sound(ReplyId),
    Silence(ReplyId),
    /// Some of the sound.
    Frame(ReplyId),
    /// All of it.
    Frames(ReplyId),
}

/// A step's kind, to see what was done in which state.
fn kind(step: &Step) -> &'static str {
    match step {
        Step::Control(n) => ["pause", "resume", "stop"][usize::from(*n) % 3],
        Step::Lost => "lost",
        Step::Back => "back",
        Step::Close => "close",
        Step::Commit(_) => "commit",
        Step::Clear => "clear",
        Step::Configure(_) => "configure",
        Step::CreateReply(_) => "create reply",
        Step::Cancel(_) => "cancel",
        Step::Say(_) => "say",
        Step::ToolCall(_) => "tool call",
        Step::CreateItem(..) => "create item",
        Step::Truncate(..) => "truncate",
        Step::WaitLong => "wait long",
        Step::SpeechStarted(_) => "speech",
        _ => "other",
    }
}

fn orders(share: u32) -> ProptestConfig {
    let all = std::env::var("DUOLOGUE_ORDERS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20_000_u32);
    ProptestConfig {
        cases: (all / share).max(1),
        ..ProptestConfig::default()
    }
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
    /// What the world will do next.
    owed: VecDeque<Owed>,
    /// What was done in which state.
    did: BTreeSet<(State, &'static str)>,
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
            owed: VecDeque::new(),
            did: BTreeSet::new(),
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
                Action::Transcribe {
                    turn,
                    revision,
                    kind,
                    ..
                } => {
                    self.asked = (turn, revision);
                    self.owed.push_back(Owed::Words(turn, revision, kind));
                }
                Action::JudgeEndOfTurn { turn, revision, .. } => {
                    self.owed.push_back(Owed::Judgement(turn, revision));
                }
                Action::Prompt { reply, .. } => {
                    self.owed.push_back(Owed::Text(reply));
                    if reply.0 % 4 == 0 {
                        self.owed.push_back(Owed::Call(reply));
                    } else {
                        self.owed.push_back(Owed::Text(reply));
                    }
                    self.owed.push_back(Owed::End(reply));
                }
                Action::EndSpeech { reply } => {
                    for owed in [
                        Owed::Silence(reply),
                        Owed::Frame(reply),
                        Owed::Frames(reply),
                    ] {
                        self.owed.push_back(owed);
                    }
                }
                Action::Resume { reply, .. } => {
                    self.owed.push_back(Owed::Frame(reply));
                    self.owed.push_back(Owed::Frames(reply));
                }
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
                    self.owed.push_back(Owed::Sound(reply));
                    self.owed.push_back(Owed::Frame(reply));
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

    fn pay(&mut self, owed: Owed) -> Event {
        match owed {
            Owed::Words(turn, revision, TranscribeKind::Final) => Event::Transcript {
                turn,
                revision,
                text: "what about the sea".into(),
            },
            Owed::Words(turn, revision, TranscribeKind::Partial) => Event::Partial {
                turn,
                revision,
                text: "what about".into(),
            },
            Owed::Judgement(turn, revision) => Event::EndOfTurn {
                turn,
                revision,
                probability: 0.9,
            },
            Owed::Text(reply) => Event::ReplyText {
                reply,
                clause: Clause::plain("Some spoken words. "),
            },
            Owed::Call(reply) => Event::ReplyToolCall {
                reply,
                call_id: "c".into(),
                name: "f".into(),
                arguments: "{}".into(),
            },
            Owed::End(reply) => Event::ReplyEnded {
                reply,
                finish: if reply.0 % 4 == 0 {
                    Finish::ToolCalls
                } else {
                    Finish::Stop
                },
                usage: None,
            },
            Owed::Sound(reply) => {
                self.audio += 48_000;
                Event::Audio {
                    reply,
                    samples: self.audio,
                    words: Vec::new(),
                }
            }
            Owed::Silence(reply) => Event::AudioEnded { reply },
            Owed::Frame(reply) => Event::Sent {
                reply,
                samples: self.audio / 2,
            },
            Owed::Frames(reply) => Event::Sent {
                reply,
                samples: self.audio,
            },
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
        self.did.insert((self.session.state(), kind(&step)));
        let event = match step {
            Step::World(time) => {
                self.now += ms(time);
                match self.owed.pop_front() {
                    Some(owed) => self.pay(owed),
                    None => Event::Tick,
                }
            }
            Step::WaitLong => {
                self.now += Duration::from_secs(310);
                Event::Tick
            }
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
            Step::EchoHeard => Event::EchoHeard,
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
            Step::ReplyEnded(id, how) => Event::ReplyEnded {
                reply: self.reply_near(id),
                finish: [
                    Finish::Stop,
                    Finish::Length,
                    Finish::ToolCalls,
                    Finish::ContentFilter,
                ][usize::from(how) % 4],
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
            Step::AudioCut(id, less) => {
                self.audio = self.audio.saturating_sub(less);
                Event::AudioCut {
                    reply: self.reply_near(id),
                    samples: self.audio,
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
            Step::Configure(n) => Event::Configure(Box::new(change(n))),
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
    #![proptest_config(orders(1))]

    #[test]
    fn no_order_of_events_leaves_a_session_stuck(config in config(), steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new(config);
        for step in steps {
            run.step(step);
        }
        run.settle();
    }

}

proptest! {
    #![proptest_config(orders(10))]

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
fn random_orders_take_every_way_in_the_table_and_do_everything_in_every_state() {
    use duologue_session::TRANSITIONS;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut ways: BTreeSet<(State, State)> = TRANSITIONS
        .iter()
        .filter(|(a, _, b)| a != b)
        .map(|(a, _, b)| (*a, *b))
        .collect();
    let kinds = [
        "pause",
        "resume",
        "stop",
        "lost",
        "back",
        "close",
        "commit",
        "clear",
        "configure",
        "create reply",
        "cancel",
        "say",
        "tool call",
        "create item",
        "truncate",
        "wait long",
        "speech",
    ];
    let mut doings: BTreeSet<(State, &str)> = State::ALL
        .into_iter()
        .filter(|state| *state != State::Ended)
        .flat_map(|state| kinds.map(|kind| (state, kind)))
        .collect();
    let mut runner = TestRunner::deterministic();
    let orders = (config(), prop::collection::vec(step(), 20..120));
    for _ in 0..6_000 {
        let (config, steps) = orders.new_tree(&mut runner).unwrap().current();
        let mut run = Run::new(config);
        for step in steps {
            run.step(step);
        }
        run.step(Step::Close);
        ways.retain(|way| !run.ways.contains(way));
        doings.retain(|doing| !run.did.contains(doing));
        if ways.is_empty() && doings.is_empty() {
            return;
        }
    }
    panic!("never taken: {ways:?}; never done: {doings:?}");
}
