//! What a recording knows of the world: what was said and when, what the models answered, and how long they took.

use crate::playout::duration;
use crate::{
    Action, Clause, Entry, Event, Finish, Happening, Item, ReplyId, Role, TranscribeKind, TurnId,
    WordMark,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Stretches whose ends differ by no more are the same.
const SAME: Duration = Duration::from_millis(60);
/// Sound before a stretch's first word and after its last that belongs to it.
const BEFORE: Duration = Duration::from_millis(300);
const AFTER: Duration = Duration::from_millis(150);
/// Samples of a spoken character where nothing better is known: 65 ms.
const CHARACTER: u64 = 48 * 65;
/// What a reply says whose words were never made.
const UNKNOWN: &str = "Something that was never said.";

/// A stretch that was transcribed.
#[derive(Clone, Debug)]
struct Stretch {
    from: Duration,
    to: Duration,
    kind: TranscribeKind,
    words: Result<String, String>,
    latency: Duration,
}

/// A reply that the model wrote.
#[derive(Clone, Debug, Default)]
struct Written {
    /// What the user said last.
    question: String,
    steps: Vec<(Duration, Event)>,
    whole: bool,
}

/// How a text was spoken: its words, from 0, and how many samples there were with each.
type Spoken = Vec<(WordMark, u64)>;

/// Words for a stretch.
pub(super) struct Heard {
    pub words: Result<String, String>,
    pub latency: Duration,
    /// The stretch was transcribed; else its words are cut out of others.
    pub known: bool,
}

pub(super) struct Memory {
    stretches: Vec<Stretch>,
    judgements: Vec<(Duration, f32, Duration)>,
    written: Vec<Written>,
    used: BTreeSet<usize>,
    spoken: HashMap<String, Spoken>,
    first_audio: Duration,
    /// Time to make a second of sound.
    pace: f64,
    player_delay: Option<Duration>,
}

impl Memory {
    pub fn of(recorded: &[Entry]) -> Self {
        let mut collected = Collected::default();
        for entry in recorded {
            match &entry.what {
                Happening::Action(action) => collected.action(entry.at, action),
                Happening::Event(event) => collected.event(entry.at, event),
            }
        }
        collected.finish()
    }

    /// The words between two times.
    pub fn words(&self, from: Duration, to: Duration, kind: TranscribeKind) -> Heard {
        let near = |a: Duration, b: Duration| a.abs_diff(b) <= SAME;
        let same = self
            .stretches
            .iter()
            .rev()
            .filter(|stretch| near(stretch.from, from) && near(stretch.to, to))
            .max_by_key(|stretch| stretch.kind == kind);
        if let Some(stretch) = same {
            return Heard {
                words: stretch.words.clone(),
                latency: stretch.latency,
                known: true,
            };
        }
        Heard {
            words: Ok(self.cut_out(from, to)),
            latency: median(
                self.stretches
                    .iter()
                    .filter(|stretch| stretch.kind == kind)
                    .map(|stretch| stretch.latency),
            )
            .unwrap_or(Duration::from_millis(300)),
            known: false,
        }
    }

    /// The words of the longest stretches, as if they were spoken evenly.
    fn cut_out(&self, from: Duration, to: Duration) -> String {
        let mut finals: Vec<&Stretch> = self
            .stretches
            .iter()
            .filter(|stretch| stretch.kind == TranscribeKind::Final && stretch.words.is_ok())
            .collect();
        finals.sort_by_key(|stretch| std::cmp::Reverse(stretch.to.saturating_sub(stretch.from)));
        let mut chosen: Vec<&Stretch> = Vec::new();
        for stretch in finals {
            let apart = |other: &&Stretch| {
                stretch.to <= other.from + BEFORE + AFTER
                    || other.to <= stretch.from + BEFORE + AFTER
            };
            if chosen.iter().all(apart) {
                chosen.push(stretch);
            }
        }
        chosen.sort_by_key(|stretch| stretch.from);
        let mut words = Vec::new();
        for stretch in chosen {
            let Ok(text) = &stretch.words else { continue };
            let all: Vec<&str> = text.split_whitespace().collect();
            let (start, end) = (stretch.from + BEFORE, stretch.to.saturating_sub(AFTER));
            let each = end.saturating_sub(start) / u32::try_from(all.len().max(1)).unwrap_or(1);
            for (n, word) in (0_u32..).zip(all) {
                let middle = start + each * n + each / 2;
                if (from..to).contains(&middle) {
                    words.push(word);
                }
            }
        }
        words.join(" ")
    }

    /// What the model of turns said of a silence, and how long it took.
    pub fn judgement(&self, to: Duration) -> Option<(f32, Duration)> {
        self.judgements
            .iter()
            .filter(|(at, _, _)| at.abs_diff(to) <= SAME)
            .min_by_key(|(at, _, _)| at.abs_diff(to))
            .map(|(_, probability, latency)| (*probability, *latency))
    }

    /// Which recorded reply answers a conversation, and whether it was made for that.
    pub fn reply_to(&mut self, history: &[Item]) -> (usize, bool) {
        let question = question(history);
        let fits = |n: &usize| self.written[*n].question == question;
        let unused = |n: &usize| !self.used.contains(n);
        let all = || 0..self.written.len();
        let fitting = all().filter(fits).find(unused).or_else(|| all().find(fits));
        let which = fitting
            .or_else(|| all().find(unused))
            .unwrap_or(self.written.len().saturating_sub(1));
        self.used.insert(which);
        (which, fitting.is_some())
    }

    /// A recorded reply as one of this generation: what comes when after the model was asked; and whether it is
    /// whole. One that was cut off ends where it was.
    pub fn reply(&self, which: usize, reply: ReplyId) -> (Vec<(Duration, Event)>, bool) {
        let written = self.written.get(which).cloned().unwrap_or_default();
        let mut steps = written.steps;
        let mut whole = written.whole;
        if steps.is_empty() {
            whole = false;
            let clause = Clause::plain(UNKNOWN);
            steps.push((
                Duration::from_millis(500),
                Event::ReplyText { reply, clause },
            ));
        }
        if !written.whole {
            let last = steps.last().map_or(Duration::ZERO, |(at, _)| *at);
            let ended = Event::ReplyEnded {
                reply,
                finish: Finish::Stop,
                usage: None,
            };
            steps.push((last, ended));
        }
        for (_, event) in &mut steps {
            match event {
                Event::ReplyText { reply: of, .. }
                | Event::ReplyToolCall { reply: of, .. }
                | Event::ReplyEnded { reply: of, .. }
                | Event::ReplyFailed { reply: of, .. } => *of = reply,
                _ => {}
            }
        }
        (steps, whole)
    }

    /// How a text is spoken, and whether it ever was.
    pub fn spoken(&self, text: &str) -> (Spoken, bool) {
        if let Some(spoken) = self.spoken.get(text) {
            return (spoken.clone(), true);
        }
        let mut at = 0;
        let spoken = text
            .split_whitespace()
            .map(|word| {
                let offset = word.as_ptr() as usize - text.as_ptr() as usize;
                let start_sample = at;
                at += CHARACTER * (word.chars().count() as u64 + 1);
                let mark = WordMark {
                    clause: 0,
                    spoken: offset..offset + word.len(),
                    start_sample,
                    end_sample: at - CHARACTER,
                };
                (mark, at)
            })
            .collect();
        (spoken, false)
    }

    /// From a reply's first text to its first sound.
    pub fn first_audio(&self) -> Duration {
        self.first_audio
    }

    /// How long the voice takes for so much sound.
    pub fn time_to_make(&self, samples: u64) -> Duration {
        duration(samples).mul_f64(self.pace)
    }

    /// How much later than the writer thinks the client's player is; `None` for a client that does not tell.
    pub fn player_delay(&self) -> Option<Duration> {
        self.player_delay
    }
}

fn question(history: &[Item]) -> String {
    history
        .iter()
        .rev()
        .find(|item| item.role() == Some(Role::User))
        .map(Item::text)
        .unwrap_or_default()
}

fn median(times: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// A memory in the making.
#[derive(Default)]
struct Collected {
    asked: HashMap<(TurnId, u32, bool), (Duration, Duration, Duration)>,
    judging: HashMap<(TurnId, u32), (Duration, Duration)>,
    prompts: BTreeMap<ReplyId, (Duration, Written)>,
    /// Clauses by number, as spoken.
    texts: BTreeMap<(ReplyId, u32), (String, Vec<WordMark>)>,
    made: BTreeMap<ReplyId, Made>,
    stretches: Vec<Stretch>,
    judgements: Vec<(Duration, f32, Duration)>,
    player: Vec<Duration>,
}

/// A reply's sound.
#[derive(Default)]
struct Made {
    first_text: Option<Duration>,
    first_audio: Option<Duration>,
    last_audio: Duration,
    samples: u64,
    ended: bool,
    first_sent: Option<Duration>,
    was_held: bool,
}

impl Collected {
    fn action(&mut self, at: Duration, action: &Action) {
        match action {
            Action::Transcribe {
                turn,
                revision,
                from,
                to,
                kind,
            } => {
                let is_final = *kind == TranscribeKind::Final;
                self.asked
                    .insert((*turn, *revision, is_final), (at, *from, *to));
            }
            Action::JudgeEndOfTurn {
                turn, revision, to, ..
            } => {
                self.judging.insert((*turn, *revision), (at, *to));
            }
            // The time that counts is that of the first asking.
            Action::Speculate { reply, history, .. } => {
                let written = Written {
                    question: question(history),
                    ..Written::default()
                };
                self.prompts.insert(*reply, (at, written));
            }
            Action::CancelSpeculation { reply } => {
                self.prompts.remove(reply);
            }
            Action::Prompt {
                reply,
                history,
                speculated,
                ..
            } => {
                let asked = self.prompts.remove(reply).filter(|_| *speculated);
                let written = Written {
                    question: question(history),
                    ..Written::default()
                };
                self.prompts
                    .insert(*reply, (asked.map_or(at, |(at, _)| at), written));
            }
            Action::Speak {
                reply,
                clause,
                text,
            } => {
                let made = self.made.entry(*reply).or_default();
                made.first_text.get_or_insert(at);
                self.texts
                    .insert((*reply, *clause), (text.clone(), Vec::new()));
            }
            Action::Pause { reply } => self.made.entry(*reply).or_default().was_held = true,
            _ => {}
        }
    }

    fn event(&mut self, at: Duration, event: &Event) {
        match event {
            Event::Partial {
                turn,
                revision,
                text,
            } => self.answered((*turn, *revision, false), at, Ok(text.clone())),
            Event::Transcript {
                turn,
                revision,
                text,
            } => self.answered((*turn, *revision, true), at, Ok(text.clone())),
            Event::TranscriptFailed {
                turn,
                revision,
                message,
            } => self.answered((*turn, *revision, true), at, Err(message.clone())),
            Event::EndOfTurn {
                turn,
                revision,
                probability,
            } => {
                if let Some((asked, to)) = self.judging.remove(&(*turn, *revision)) {
                    self.judgements
                        .push((to, *probability, at.saturating_sub(asked)));
                }
            }
            Event::ReplyText { reply, .. }
            | Event::ReplyToolCall { reply, .. }
            | Event::ReplyEnded { reply, .. }
            | Event::ReplyFailed { reply, .. } => {
                if let Some((asked, written)) = self.prompts.get_mut(reply) {
                    written
                        .steps
                        .push((at.saturating_sub(*asked), event.clone()));
                    written.whole |=
                        matches!(event, Event::ReplyEnded { .. } | Event::ReplyFailed { .. });
                }
            }
            Event::Audio {
                reply,
                samples,
                words,
            } => {
                let made = self.made.entry(*reply).or_default();
                made.first_audio.get_or_insert(at);
                made.last_audio = at;
                made.samples = *samples;
                for word in words {
                    if let Some((_, marks)) = self.texts.get_mut(&(*reply, word.clause)) {
                        marks.push(word.clone());
                    }
                }
            }
            Event::AudioCut { reply, samples } => {
                self.made.entry(*reply).or_default().samples = *samples;
                let cut = self.texts.iter_mut().filter(|((of, _), _)| of == reply);
                cut.for_each(|(_, (_, marks))| marks.retain(|mark| mark.end_sample <= *samples));
            }
            Event::AudioEnded { reply } => self.made.entry(*reply).or_default().ended = true,
            Event::Sent { reply, .. } => {
                self.made
                    .entry(*reply)
                    .or_default()
                    .first_sent
                    .get_or_insert(at);
            }
            Event::Played { reply, samples } => {
                let made = self.made.entry(*reply).or_default();
                if let Some(sent) = made.first_sent.filter(|_| !made.was_held) {
                    self.player
                        .push(at.saturating_sub(sent + duration(*samples)));
                }
            }
            _ => {}
        }
    }

    fn answered(
        &mut self,
        (turn, revision, is_final): (TurnId, u32, bool),
        at: Duration,
        words: Result<String, String>,
    ) {
        if let Some((asked, from, to)) = self.asked.remove(&(turn, revision, is_final)) {
            self.stretches.push(Stretch {
                from,
                to,
                kind: if is_final {
                    TranscribeKind::Final
                } else {
                    TranscribeKind::Partial
                },
                words,
                latency: at.saturating_sub(asked),
            });
        }
    }

    fn finish(self) -> Memory {
        let first_audio = median(
            self.made
                .values()
                .filter_map(|made| Some(made.first_audio?.saturating_sub(made.first_text?))),
        );
        // How fast sound comes once it comes.
        let (mut took, mut made) = (Duration::ZERO, 0);
        for reply in self.made.values() {
            if let Some(first) = reply.first_audio {
                took += reply.last_audio.saturating_sub(first);
                made += reply.samples;
            }
        }
        let pace = if made == 0 {
            0.1
        } else {
            (took.as_secs_f64() / duration(made).as_secs_f64()).min(1.0)
        };
        Memory {
            spoken: spoken(&self.texts, &self.made),
            stretches: self.stretches,
            judgements: self.judgements,
            written: self.prompts.into_values().map(|(_, w)| w).collect(),
            used: BTreeSet::new(),
            first_audio: first_audio.unwrap_or(Duration::from_millis(100)),
            pace,
            player_delay: median(self.player.into_iter()),
        }
    }
}

/// How each text was spoken, as far as it was.
fn spoken(
    texts: &BTreeMap<(ReplyId, u32), (String, Vec<WordMark>)>,
    made: &BTreeMap<ReplyId, Made>,
) -> HashMap<String, Spoken> {
    let mut spoken = HashMap::new();
    for ((reply, clause), (text, marks)) in texts {
        let begins = |marks: &[WordMark]| marks.first().map(|mark| mark.start_sample);
        let Some(start) = begins(marks) else { continue };
        let next = texts
            .get(&(*reply, clause + 1))
            .and_then(|(_, marks)| begins(marks));
        let end = match (next, made.get(reply)) {
            (Some(next), _) => next,
            (None, Some(made)) if made.ended => made.samples,
            _ => continue, // it was cut off
        };
        let words: Spoken = marks
            .iter()
            .enumerate()
            .map(|(n, mark)| {
                let until = marks.get(n + 1).map_or(end, |next| next.start_sample);
                let mark = WordMark {
                    start_sample: mark.start_sample - start,
                    end_sample: mark.end_sample - start,
                    ..mark.clone()
                };
                (mark, until.saturating_sub(start))
            })
            .collect();
        spoken.insert(text.clone(), words);
    }
    spoken
}
