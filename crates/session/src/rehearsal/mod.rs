//! What if? A recorded session again, with other settings.
//!
//! With other settings the core asks for other things, so its recorded answers do not fit any more: a turn that ends
//! sooner is transcribed sooner, and a reply that was stopped goes on. A rehearsal therefore plays the world: what
//! the user did comes when it came; the recognizer, the model of turns, the language model, the voice, the writer
//! and the client's player answer as they answered then, as late as they were then ([`memory`]). Time is virtual: an
//! hour takes a second.
//!
//! It is a model of the world and not the world. What the recording cannot know (the rest of a reply that was cut
//! off, the words of a stretch that was never transcribed) is made up, and counted in [`Rehearsed::made_up`]. The
//! same settings rehearsed show how good the model is for a session.

mod memory;
mod mouth;
mod tally;

pub use tally::{Moment, Tally};

use crate::{
    Action, Beginning, ConfigPatch, Counters, Entry, Event, Happening, ReplyId, Session, State,
    TranscribeKind, TurnId,
};
use memory::Memory;
use mouth::Mouth;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A player reports so often.
const REPORT: Duration = Duration::from_millis(100);
/// Events after which a rehearsal is given up; an hour has some hundred thousand.
const MOST_EVENTS: usize = 20_000_000;

/// What hears the user.
pub trait Ear {
    /// When it hears something next; never before what it has told.
    fn next(&mut self) -> Option<Duration>;
    /// What it hears then, with the session in this state.
    fn hear(&mut self, state: State) -> Option<Event>;
}

/// How a rehearsal came out.
#[derive(Debug)]
pub struct Rehearsed {
    /// What the core was told and did.
    pub entries: Vec<Entry>,
    /// What happened, counted.
    pub counters: Counters,
    /// Answers of the world that the recording does not have.
    pub made_up: u32,
}

/// Which of the recorded settings are not to be taken, because others are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the sections of `Config`
#[allow(clippy::struct_excessive_bools)]
pub struct Overridden {
    pub reply: bool,
    pub turn_detection: bool,
    pub interruption: bool,
    pub timing: bool,
    pub limits: bool,
    pub speculation: bool,
}

impl Overridden {
    fn strip(self, patch: &mut ConfigPatch) {
        if self.reply {
            patch.reply = crate::ReplyPatch::default();
        }
        if self.turn_detection {
            patch.turn_detection = None;
        }
        if self.interruption {
            patch.interruption = None;
        }
        if self.timing {
            patch.timing = None;
        }
        if self.limits {
            patch.limits = None;
        }
        if self.speculation {
            patch.speculation = None;
        }
    }
}

/// Plays a recorded session with the settings in `beginning`. `lead` is how far the writer ran ahead; `ear` hears
/// instead of the recorded one.
#[must_use]
pub fn rehearse(
    beginning: &Beginning,
    recorded: &[Entry],
    overridden: Overridden,
    lead: Duration,
    ear: Option<Box<dyn Ear>>,
) -> Rehearsed {
    let own_ear = ear.is_some();
    let mut world = World {
        session: Session::new(&beginning.seed, beginning.config.clone()),
        now: Duration::ZERO,
        memory: Memory::of(recorded),
        inputs: inputs(recorded, overridden, own_ear),
        ear,
        queue: BTreeMap::new(),
        count: 0,
        speculated: None,
        voice: Voice::default(),
        mouth: Mouth::new(lead),
        reporting: false,
        entries: Vec::new(),
        made_up: 0,
    };
    let end = recorded.last().map_or(Duration::ZERO, |entry| entry.at);
    world.run_until(end);
    Rehearsed {
        counters: world.session.counters(),
        entries: world.entries,
        made_up: world.made_up,
    }
}

/// What came from outside: the user's edges and what the client asked for. Answers are left out, and what a client
/// did to things that may not be there this time.
fn inputs(
    recorded: &[Entry],
    overridden: Overridden,
    own_ear: bool,
) -> VecDeque<(Duration, Event)> {
    let mut inputs = VecDeque::new();
    for entry in recorded {
        let Happening::Event(event) = &entry.what else {
            continue;
        };
        let event = match event {
            Event::SpeechStarted { .. }
            | Event::Silence { .. }
            | Event::EchoHeard
            | Event::SpeechResumed { .. }
            | Event::SpeechStopped { .. } => {
                if own_ear {
                    continue;
                }
                event.clone()
            }
            Event::Configure(patch) => {
                let mut patch = patch.clone();
                overridden.strip(&mut patch);
                Event::Configure(patch)
            }
            Event::CancelReply(_) => Event::CancelReply(None),
            Event::Control(_)
            | Event::CommitInput { .. }
            | Event::ClearInput
            | Event::CreateItem { .. }
            | Event::CreateReply(_)
            | Event::Say(_)
            | Event::TransportLost
            | Event::TransportBack
            | Event::Close => event.clone(),
            _ => continue,
        };
        inputs.push_back((entry.at, event));
    }
    inputs
}

enum Task {
    Event(Event),
    Words(TurnId, u32, Event),
    Model(ReplyId, Event),
    Voice(ReplyId, Event),
    Frames,
    Report,
}

#[derive(Default)]
struct Voice {
    reply: Option<ReplyId>,
    /// Samples made or being made.
    samples: u64,
    /// When it is free again.
    busy_until: Duration,
}

struct World {
    session: Session,
    now: Duration,
    memory: Memory,
    inputs: VecDeque<(Duration, Event)>,
    ear: Option<Box<dyn Ear>>,
    queue: BTreeMap<(Duration, u64), Task>,
    count: u64,
    /// A reply that the model was asked for before its time: when, and what it says.
    speculated: Option<(ReplyId, Duration, usize)>,
    voice: Voice,
    mouth: Mouth,
    reporting: bool,
    entries: Vec<Entry>,
    made_up: u32,
}

impl World {
    fn run_until(&mut self, end: Duration) {
        for _ in 0..MOST_EVENTS {
            let task = self.queue.first_key_value().map(|(key, _)| *key);
            let input = self.inputs.front().map(|(at, _)| *at);
            let heard = self.ear.as_mut().and_then(|ear| ear.next());
            let tick = self.session.deadline();
            // What comes together with a deadline goes first; the outside before the answers.
            let next = [input, heard, task.map(|(at, _)| at), tick]
                .into_iter()
                .enumerate()
                .filter_map(|(which, at)| at.map(|at| (at, which)))
                .min();
            let Some((at, which)) = next.filter(|(at, _)| *at <= end) else {
                return;
            };
            self.now = self.now.max(at);
            match (which, task) {
                (0, _) => {
                    if let Some((_, event)) = self.inputs.pop_front() {
                        self.tell(event);
                    }
                }
                (1, _) => {
                    let state = self.session.state();
                    if let Some(event) = self.ear.as_mut().and_then(|ear| ear.hear(state)) {
                        self.tell(event);
                    }
                }
                (2, Some(key)) => {
                    if let Some(task) = self.queue.remove(&key) {
                        self.run(task);
                    }
                }
                _ => self.tell(Event::Tick),
            }
            if self.session.state() == State::Ended {
                return;
            }
        }
    }

    fn later(&mut self, after: Duration, task: Task) {
        self.count += 1;
        self.queue.insert((self.now + after, self.count), task);
    }

    fn run(&mut self, task: Task) {
        match task {
            Task::Event(event) | Task::Words(_, _, event) | Task::Model(_, event) => {
                self.tell(event);
            }
            Task::Voice(reply, event) => {
                match &event {
                    Event::Audio { samples, .. } => self.mouth.made(reply, *samples),
                    Event::AudioEnded { .. } => self.mouth.ended(reply),
                    _ => {}
                }
                self.tell(event);
                self.write();
            }
            Task::Frames => {
                self.mouth.woken();
                self.write();
            }
            Task::Report => {
                self.reporting = false;
                self.report();
            }
        }
    }

    fn tell(&mut self, event: Event) {
        self.note(Happening::Event(event.clone()));
        self.session.handle(self.now, event);
        while let Some(action) = self.session.poll() {
            self.note(Happening::Action(action.clone()));
            self.act(action);
        }
    }

    fn note(&mut self, what: Happening) {
        self.entries.push(Entry { at: self.now, what });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Transcribe {
                turn,
                revision,
                from,
                to,
                kind,
            } => self.transcribe((turn, revision), (from, to), kind),
            Action::CancelTranscribe { turn, revision } => self.queue.retain(
                |_, task| !matches!(task, Task::Words(t, r, _) if *t == turn && *r <= revision),
            ),
            Action::JudgeEndOfTurn {
                turn, revision, to, ..
            } => {
                if let Some((probability, latency)) = self.memory.judgement(to) {
                    let event = Event::EndOfTurn {
                        turn,
                        revision,
                        probability,
                    };
                    self.later(latency, Task::Event(event));
                }
            }
            Action::Speculate { reply, history, .. } => {
                let (which, _) = self.memory.reply_to(&history);
                self.speculated = Some((reply, self.now, which));
            }
            Action::CancelSpeculation { .. } => self.speculated = None,
            Action::Prompt {
                reply,
                history,
                speculated,
                ..
            } => {
                let begun = self.speculated.take().filter(|_| speculated);
                let (which, known) = match begun {
                    Some((_, _, which)) => (which, true),
                    None => self.memory.reply_to(&history),
                };
                self.made_up += u32::from(!known);
                let head_start = begun.map_or(Duration::ZERO, |(_, since, _)| {
                    self.now.saturating_sub(since)
                });
                let (steps, whole) = self.memory.reply(which, reply);
                self.made_up += u32::from(!whole);
                for (after, event) in steps {
                    self.later(after.saturating_sub(head_start), Task::Model(reply, event));
                }
            }
            Action::CancelPrompt { reply } => self
                .queue
                .retain(|_, task| !matches!(task, Task::Model(r, _) if *r == reply)),
            Action::Speak {
                reply,
                clause,
                text,
            } => self.speak(reply, clause, &text),
            Action::EndSpeech { reply } => {
                let after = self.voice.busy_until.saturating_sub(self.now);
                self.later(after, Task::Voice(reply, Event::AudioEnded { reply }));
            }
            Action::Pause { reply } => self.mouth.hold(reply),
            Action::Resume { reply, at_sample } => {
                if let Some(samples) = self.mouth.resume(reply, at_sample) {
                    self.later(Duration::ZERO, Task::Event(Event::Sent { reply, samples }));
                }
                self.write();
            }
            Action::Stop { reply } => {
                self.queue
                    .retain(|_, task| !matches!(task, Task::Voice(r, _) if *r == reply));
                self.mouth.stop(reply);
            }
            Action::Duck { .. } | Action::Emit(_) | Action::Close { .. } => {}
        }
    }

    fn transcribe(
        &mut self,
        (turn, revision): (TurnId, u32),
        (from, to): (Duration, Duration),
        kind: TranscribeKind,
    ) {
        let heard = self.memory.words(from, to, kind);
        self.made_up += u32::from(!heard.known);
        let event = match (heard.words, kind) {
            (Ok(text), TranscribeKind::Partial) => Event::Partial {
                turn,
                revision,
                text,
            },
            (Ok(text), TranscribeKind::Final) => Event::Transcript {
                turn,
                revision,
                text,
            },
            (Err(message), _) => Event::TranscriptFailed {
                turn,
                revision,
                message,
            },
        };
        self.later(heard.latency, Task::Words(turn, revision, event));
    }

    fn speak(&mut self, reply: ReplyId, clause: u32, text: &str) {
        if self.voice.reply != Some(reply) {
            self.voice = Voice {
                reply: Some(reply),
                samples: 0,
                busy_until: self.now + self.memory.first_audio(),
            };
            self.mouth.begin(reply);
        }
        let (spoken, known) = self.memory.spoken(text);
        self.made_up += u32::from(!known);
        let mut at = self.voice.busy_until.max(self.now);
        let length = spoken.last().map_or(0, |(_, until)| *until);
        for (mut mark, until) in spoken {
            mark.clause = clause;
            mark.start_sample += self.voice.samples;
            mark.end_sample += self.voice.samples;
            at = self.voice.busy_until.max(self.now) + self.memory.time_to_make(until);
            let samples = self.voice.samples + until;
            let words = vec![mark];
            let event = Event::Audio {
                reply,
                samples,
                words,
            };
            self.later(at.saturating_sub(self.now), Task::Voice(reply, event));
        }
        self.voice.samples += length;
        self.voice.busy_until = at;
    }

    /// Sends what is due.
    fn write(&mut self) {
        if let Some((reply, samples)) = self.mouth.due(self.now) {
            self.tell(Event::Sent { reply, samples });
            if self.memory.player_delay().is_some() && !self.reporting {
                self.reporting = true;
                self.later(REPORT, Task::Report);
            }
        }
        if let Some(at) = self.mouth.wants_waking() {
            self.later(at.saturating_sub(self.now), Task::Frames);
        }
    }

    fn report(&mut self) {
        let Some(delay) = self.memory.player_delay() else {
            return;
        };
        if let Some((reply, samples, more)) = self.mouth.played(self.now.saturating_sub(delay)) {
            self.tell(Event::Played { reply, samples });
            if more && !self.reporting {
                self.reporting = true;
                self.later(REPORT, Task::Report);
            }
        }
    }
}
