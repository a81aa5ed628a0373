//! A world for a session to live in, with a clock that jumps: a user who speaks on time, a recognizer, a model, a
//! voice, a paced writer and a client's player, each as slow as it is told to be. Ten minutes take milliseconds.
//!
//! The world knows the truth (what the player really played), and every action passes the [`Checker`].
#![allow(dead_code, clippy::unwrap_used)]

mod checker;
mod story;

pub use checker::Checker;
use duologue_session::{
    Action, Clause, Config, Event, Finish, ReplyId, Session, State, TranscribeKind, TurnId,
    WordMark,
};
use std::collections::BTreeMap;
use std::time::Duration;

pub const FRAME: u64 = 960;

pub fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

pub fn samples(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() * 48_000 / 1_000_000_000).unwrap()
}

/// How slow everybody is.
#[derive(Clone, Debug)]
pub struct Latency {
    pub vad_on: Duration,
    pub vad_off: Duration,
    pub asr: Duration,
    pub judge: Duration,
    pub first_clause: Duration,
    pub next_clause: Duration,
    pub first_audio: Duration,
    /// Time to make one second of audio.
    pub real_time_factor: f64,
    /// Writer to ear.
    pub network: Duration,
    /// The client reports its playout that often.
    pub reports: Option<Duration>,
    /// A report arrives so late.
    pub report_delay: Duration,
    /// Of so many reports one arrives; the others are lost.
    pub report_every: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            vad_on: ms(60),
            vad_off: ms(100),
            asr: ms(150),
            judge: ms(40),
            first_clause: ms(200),
            next_clause: ms(100),
            first_audio: ms(80),
            real_time_factor: 0.1,
            network: ms(100),
            reports: None,
            report_delay: Duration::ZERO,
            report_every: 1,
        }
    }
}

/// Something the user says, or a noise that is none (`text` empty).
#[derive(Clone, Debug)]
struct Utterance {
    from: Duration,
    to: Duration,
    text: String,
    complete: f32,
}

enum Task {
    Event(Event),
    /// An event that counts only if nobody cancelled its maker.
    Transcript {
        turn: TurnId,
        revision: u32,
        event: Event,
    },
    Model {
        reply: ReplyId,
        event: Event,
    },
    Voice {
        reply: ReplyId,
        event: Event,
    },
    Frame,
    Arrive {
        reply: ReplyId,
        position: u64,
    },
    Report,
}

/// The audio of the reply being written.
#[derive(Default)]
struct Mouth {
    reply: Option<ReplyId>,
    made: u64,
    ended: bool,
    position: u64,
    paused: bool,
    ticking: bool,
    /// When the voice is free again.
    busy_until: Duration,
    synthesized: u64,
}

/// What one reply really was: words, their samples, and how far they were played.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Display text and samples of each word.
    pub words: Vec<(String, u64, u64)>,
    pub played: u64,
}

impl Truth {
    /// The words of which more than half was played.
    pub fn heard(&self) -> String {
        let heard: Vec<&str> = self
            .words
            .iter()
            .take_while(|(_, start, end)| 2 * self.played > start + end)
            .map(|(word, _, _)| word.as_str())
            .collect();
        heard.join(" ")
    }
}

pub struct World {
    pub session: Session,
    pub now: Duration,
    pub latency: Latency,
    /// What the model says, by turn; the last is said again.
    pub replies: Vec<Vec<Clause>>,
    /// The voice makes no sound from this reply on.
    pub mute_voice: bool,
    pub mute_model: bool,
    pub deaf_recognizer: bool,
    pub stuck_writer: bool,
    pub checker: Checker,
    pub log: Vec<(Duration, Action)>,
    pub truth: BTreeMap<ReplyId, Truth>,
    /// Time of every frame sent.
    pub frames: Vec<(Duration, ReplyId)>,
    prompts: usize,
    reported: u64,
    speculated_at: Option<Duration>,
    speech: Vec<Utterance>,
    queue: BTreeMap<(Duration, u64), Task>,
    count: u64,
    mouth: Mouth,
}

impl World {
    pub fn new(config: Config) -> Self {
        Self {
            session: Session::new("test", config),
            now: Duration::ZERO,
            latency: Latency::default(),
            replies: vec![vec![
                Clause::plain("Certainly. "),
                Clause::plain("Here is what I know about that."),
            ]],
            mute_voice: false,
            mute_model: false,
            deaf_recognizer: false,
            stuck_writer: false,
            checker: Checker::default(),
            log: Vec::new(),
            truth: BTreeMap::new(),
            frames: Vec::new(),
            prompts: 0,
            reported: 0,
            speculated_at: None,
            speech: Vec::new(),
            queue: BTreeMap::new(),
            count: 0,
            mouth: Mouth::default(),
        }
    }

    // ---- script ----

    pub fn at(&mut self, at: Duration, event: Event) {
        self.schedule(at, Task::Event(event));
    }

    /// The user says a complete sentence.
    pub fn says(&mut self, from: Duration, lasts: Duration, text: &str) {
        self.says_so_far(from, lasts, text, 0.95);
    }

    /// The user says something that is complete with that probability.
    pub fn says_so_far(&mut self, from: Duration, lasts: Duration, text: &str, complete: f32) {
        let to = from + lasts;
        self.speech.push(Utterance {
            from,
            to,
            text: text.to_owned(),
            complete,
        });
        self.at(
            from + self.latency.vad_on,
            Event::SpeechStarted { onset: from },
        );
        self.at(to + self.latency.vad_off, Event::Silence { since: to });
    }

    /// A cough, a door.
    pub fn noise(&mut self, from: Duration, lasts: Duration) {
        self.says_so_far(from, lasts, "", 0.5);
    }

    /// Tells something now.
    pub fn tell(&mut self, event: Event) {
        self.handle(event);
    }

    pub fn run_until(&mut self, end: Duration) {
        loop {
            let task = self.queue.first_key_value().map(|(key, _)| *key);
            let deadline = self.session.deadline();
            match (task, deadline) {
                (Some(key), deadline)
                    if key.0 <= end && deadline.is_none_or(|deadline| key.0 <= deadline) =>
                {
                    let task = self.queue.remove(&key).unwrap();
                    self.now = self.now.max(key.0);
                    self.run(task);
                }
                (_, Some(deadline)) if deadline <= end => {
                    self.now = self.now.max(deadline);
                    self.handle(Event::Tick);
                    assert!(
                        self.session.deadline().is_none_or(|next| next > self.now),
                        "a deadline at {deadline:?} does not go away in {:?}",
                        self.session.state()
                    );
                }
                _ => break,
            }
        }
        self.now = self.now.max(end);
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs until the reply has sounded for that long.
    pub fn run_until_speaking(&mut self) {
        let give_up = self.now + Duration::from_secs(60);
        while self.state() != State::Speaking {
            assert!(
                self.now < give_up,
                "never speaks; {:?}\n{}",
                self.state(),
                self.story()
            );
            self.run_for(ms(10));
        }
    }

    // ---- machinery ----

    fn schedule(&mut self, at: Duration, task: Task) {
        self.count += 1;
        self.queue.insert((at.max(self.now), self.count), task);
    }

    fn run(&mut self, task: Task) {
        match task {
            Task::Event(event) | Task::Transcript { event, .. } | Task::Model { event, .. } => {
                self.handle(event)
            }
            Task::Voice { reply, event } => {
                if self.mouth.reply == Some(reply) {
                    match &event {
                        Event::Audio { samples, .. } => self.mouth.made = *samples,
                        Event::AudioEnded { .. } => self.mouth.ended = true,
                        _ => {}
                    }
                }
                self.handle(event);
                self.start_writer();
            }
            Task::Frame => self.write_frame(),
            Task::Arrive { reply, position } => {
                let truth = self.truth.entry(reply).or_default();
                truth.played = truth.played.max(position);
            }
            Task::Report => {
                if let Some((reply, truth)) = self.truth.last_key_value() {
                    let event = Event::Played {
                        reply: *reply,
                        samples: truth.played,
                    };
                    self.reported += 1;
                    let arrives = self.reported.is_multiple_of(self.latency.report_every);
                    if truth.played > 0 && arrives {
                        if self.latency.report_delay.is_zero() {
                            self.handle(event);
                        } else {
                            self.at(self.now + self.latency.report_delay, event);
                        }
                    }
                }
                if let Some(every) = self.latency.reports {
                    self.schedule(self.now + every, Task::Report);
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        self.session.handle(self.now, event);
        while let Some(action) = self.session.poll() {
            self.checker.check(&action);
            self.log.push((self.now, action.clone()));
            self.act(action);
        }
        self.checker.check_session(&self.session);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Transcribe {
                turn,
                revision,
                from,
                to,
                kind,
            } if !self.deaf_recognizer => {
                let text = self.words_between(from, to);
                let event = match kind {
                    TranscribeKind::Partial => Event::Partial {
                        turn,
                        revision,
                        text,
                    },
                    TranscribeKind::Final => Event::Transcript {
                        turn,
                        revision,
                        text,
                    },
                };
                self.schedule(
                    self.now + self.latency.asr,
                    Task::Transcript {
                        turn,
                        revision,
                        event,
                    },
                );
            }
            Action::CancelTranscribe { turn, revision } => {
                self.queue.retain(|_, task| {
                    !matches!(task, Task::Transcript { turn: t, revision: r, .. } if *t == turn && *r <= revision)
                });
            }
            Action::JudgeEndOfTurn {
                turn, revision, to, ..
            } => {
                let probability = self
                    .speech
                    .iter()
                    .rev()
                    .find(|u| u.to <= to + ms(1))
                    .map_or(0.5, |utterance| utterance.complete);
                let event = Event::EndOfTurn {
                    turn,
                    revision,
                    probability,
                };
                self.at(self.now + self.latency.judge, event);
            }
            Action::Speculate { .. } => self.speculated_at = Some(self.now),
            Action::CancelSpeculation { .. } => self.speculated_at = None,
            Action::Prompt {
                reply, speculated, ..
            } => {
                let begun = self.speculated_at.take().filter(|_| speculated);
                if !self.mute_model {
                    self.answer(reply, begun.unwrap_or(self.now));
                }
            }
            Action::CancelPrompt { reply } => {
                self.queue
                    .retain(|_, task| !matches!(task, Task::Model { reply: r, .. } if *r == reply));
            }
            Action::Speak {
                reply,
                clause,
                text,
            } => self.speak(reply, clause, &text),
            Action::EndSpeech { reply } if !self.mute_voice => {
                let at = self.mouth.busy_until.max(self.now);
                self.schedule(
                    at,
                    Task::Voice {
                        reply,
                        event: Event::AudioEnded { reply },
                    },
                );
            }
            Action::Pause { reply } => {
                self.adopt(reply);
                self.mouth.paused = true;
            }
            Action::Resume { reply, at_sample } => {
                self.adopt(reply);
                self.mouth.paused = false;
                self.mouth.position = at_sample;
                self.start_writer();
            }
            Action::Stop { reply } => {
                self.queue.retain(|_, task| match task {
                    Task::Voice { reply: r, .. } | Task::Arrive { reply: r, .. } => *r != reply,
                    _ => true,
                });
                if self.mouth.reply == Some(reply) {
                    self.mouth.made = self.mouth.position;
                }
            }
            _ => {}
        }
    }

    /// What the model has been writing since `begun`; what it has written already comes now.
    fn answer(&mut self, reply: ReplyId, begun: Duration) {
        let clauses = self.replies[self.prompts.min(self.replies.len() - 1)].clone();
        self.prompts += 1;
        let mut at = begun + self.latency.first_clause;
        for clause in clauses {
            self.schedule(
                at,
                Task::Model {
                    reply,
                    event: Event::ReplyText { reply, clause },
                },
            );
            at += self.latency.next_clause;
        }
        let event = Event::ReplyEnded {
            reply,
            finish: Finish::Stop,
            usage: None,
        };
        self.schedule(at, Task::Model { reply, event });
    }

    fn adopt(&mut self, reply: ReplyId) {
        if self.mouth.reply != Some(reply) {
            let ticking = self.mouth.ticking;
            self.mouth = Mouth {
                reply: Some(reply),
                ticking,
                ..Mouth::default()
            };
        }
    }

    /// Makes the audio of a clause, a word at a time: 70 ms a letter, 40 ms between words.
    fn speak(&mut self, reply: ReplyId, clause: u32, text: &str) {
        self.adopt(reply);
        if self.mute_voice {
            return;
        }
        let mut at = self
            .mouth
            .busy_until
            .max(self.now + self.latency.first_audio);
        for word in text.split_whitespace() {
            let offset = word.as_ptr() as usize - text.as_ptr() as usize;
            let length = 48 * 70 * u64::try_from(word.chars().count()).unwrap();
            let start = self.mouth.synthesized;
            let end = start + length;
            self.mouth.synthesized = end + 48 * 40;
            self.truth
                .entry(reply)
                .or_default()
                .words
                .push((word.to_owned(), start, end));
            let mark = WordMark {
                clause,
                spoken: offset..offset + word.len(),
                start_sample: start,
                end_sample: end,
            };
            at += Duration::from_secs_f64(
                (self.mouth.synthesized - start) as f64 / 48_000.0 * self.latency.real_time_factor,
            );
            let event = Event::Audio {
                reply,
                samples: self.mouth.synthesized,
                words: vec![mark],
            };
            self.schedule(at, Task::Voice { reply, event });
        }
        self.mouth.busy_until = at;
    }

    fn start_writer(&mut self) {
        if !self.mouth.ticking
            && !self.mouth.paused
            && self.mouth.position < self.mouth.made
            && !self.stuck_writer
        {
            self.mouth.ticking = true;
            self.schedule(self.now, Task::Frame);
        }
    }

    fn write_frame(&mut self) {
        self.mouth.ticking = false;
        let Some(reply) = self.mouth.reply else {
            return;
        };
        if self.mouth.paused || self.mouth.position >= self.mouth.made || self.stuck_writer {
            return;
        }
        self.checker.frame(reply);
        self.mouth.position = (self.mouth.position + FRAME).min(self.mouth.made);
        let position = self.mouth.position;
        self.frames.push((self.now, reply));
        self.mouth.ticking = true;
        self.schedule(self.now + ms(20), Task::Frame);
        // The frame has been played when its last sample has.
        self.schedule(
            self.now + self.latency.network + ms(20),
            Task::Arrive { reply, position },
        );
        if self.latency.reports.is_some()
            && !self.queue.values().any(|task| matches!(task, Task::Report))
        {
            self.schedule(self.now + self.latency.network, Task::Report);
        }
        self.handle(Event::Sent {
            reply,
            samples: position,
        });
    }

    fn words_between(&self, from: Duration, to: Duration) -> String {
        let mut heard = Vec::new();
        for utterance in &self.speech {
            let words: Vec<&str> = utterance.text.split_whitespace().collect();
            let length =
                (utterance.to - utterance.from) / u32::try_from(words.len().max(1)).unwrap();
            for (at, word) in words.into_iter().enumerate() {
                let end = utterance.from + length * u32::try_from(at + 1).unwrap();
                if end - length / 2 >= from && end - length / 3 <= to {
                    heard.push(word);
                }
            }
        }
        heard.join(" ")
    }
}

/// Numbers that look random and are always the same (Knuth's MMIX generator).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// From `low` to below `high`.
    pub fn roll(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        low + (self.0 >> 33) % (high - low)
    }
}
