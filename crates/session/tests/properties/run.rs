//! One session to which things happen, and a world that answers it.

use crate::steps::{Step, change, kind};
use crate::support::{Checker, ms};
use duologue_session::{
    Action, Clause, Config, Control, Entry, Event, Finish, Happening, Item, ItemId, ItemKind,
    ItemStatus, MAX_QUEUED, Modality, Notice, Place, ReplyId, ReplyPatch, Role, Session, State,
    TranscribeKind, TurnId, WordMark,
};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// What the world owes the session.
#[derive(Clone, Copy, Debug)]
pub enum Owed {
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

/// A session in the making, with what is known of it.
pub struct Run {
    pub session: Session,
    pub checker: Checker,
    pub now: Duration,
    asked: (TurnId, u32),
    pub items: Vec<ItemId>,
    /// Clauses that the voice was given.
    spoken: Vec<(u32, String)>,
    audio: u64,
    reply: ReplyId,
    /// Ways from state to state that were taken.
    pub ways: Vec<(State, State)>,
    /// What the world will do next.
    owed: VecDeque<Owed>,
    /// What was done in which state.
    pub did: BTreeSet<(State, &'static str)>,
    /// Kept where it is set.
    pub recording: Option<Vec<Entry>>,
}

impl Run {
    pub fn new(config: Config) -> Self {
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

    pub fn record(&mut self, what: Happening) {
        let at = self.now;
        if let Some(recording) = &mut self.recording {
            recording.push(Entry { at, what });
        }
    }

    pub fn handle(&mut self, event: Event) {
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

    pub fn pay(&mut self, owed: Owed) -> Event {
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

    pub fn reply_near(&self, offset: i8) -> ReplyId {
        let current = self.session.reply().unwrap_or(self.reply);
        ReplyId(current.0.saturating_add_signed(i64::from(offset)))
    }

    pub fn turn_near(&self, offset: i8) -> (TurnId, u32) {
        match offset {
            0 => self.asked,
            offset if offset > 0 => (self.asked.0, self.asked.1 + 1),
            _ => (TurnId(self.asked.0.0.saturating_sub(1)), self.asked.1),
        }
    }

    pub fn item_near(&self, n: u8) -> ItemId {
        self.items[usize::from(n) % self.items.len()].clone()
    }

    pub fn step(&mut self, step: Step) {
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
            Step::PlayerHolds(holds) => Event::PlayerHolds(holds),
            Step::Lost => Event::TransportLost,
            Step::Back => Event::TransportBack,
            Step::Close => Event::Close,
        };
        self.handle(event);
    }

    /// Everybody falls silent; only time passes.
    pub fn settle(&mut self) {
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
