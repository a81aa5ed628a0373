//! The scenes against the conversation core alone, in virtual time: what is said becomes the edges and transcripts
//! that a perfect ear would tell, and what is asked for must come to pass. A core that fails here fails however good
//! the ear is. Scenes that are about the ear itself (music, a crowd, echo) are left out.
#![allow(clippy::unwrap_used)]

#[path = "../../session/tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use duologue_scenes::check::check;
use duologue_scenes::{
    Act, Control, Director, Happening, Kind, Library, RATE, ReplyTrace, Scene, Spoken, Step,
    StepTrace, Trace, Word,
};
use duologue_session::{
    Action, CancelReason, Clause, Config, Content, Event, Item, ItemId, ItemKind, ItemStatus,
    Notice, Place, ReplyId, ReplyPatch, ReplyStatus, Role, State,
};
use support::World;

const BLOCK: f64 = 0.02;
/// Rest that ends a scene, seconds.
const REST: f64 = 3.0;
const LONGEST: f64 = 120.0;
/// What happens at a moment happens after it, whatever the last digit says.
const ROUNDING: f64 = 1e-6;
/// Audio positions: the core counts at 48 kHz, clients at [`RATE`].
const RATIO: u64 = 48_000 / RATE as u64;

fn time(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
}

struct Stage<'a> {
    scene: &'a Scene,
    library: &'a Library,
    world: World,
    trace: Trace,
    ids: Vec<ReplyId>,
    seen: usize,
    progress_at: f64,
}

impl Stage<'_> {
    fn play(scene: &Scene, library: &Library) -> Trace {
        let mut world = World::new(Config::default());
        world.latency.reports = scene.client.reports.then(|| Duration::from_millis(100));
        world.replies = scene
            .replies
            .iter()
            .map(|reply| vec![Clause::plain(reply.text.clone())])
            .collect();
        world.latency.first_clause = Duration::from_millis(scene.replies[0].think_ms);
        let mut stage = Stage {
            scene,
            library,
            world,
            trace: Trace::default(),
            ids: Vec::new(),
            seen: 0,
            progress_at: 0.0,
        };
        let mut director = Director::new(scene);
        let mut now = 0.0;
        while now < LONGEST && !(director.is_done() && now > stage.progress_at + REST) {
            for cue in director.due(&stage.trace, now) {
                stage.step(cue.step, cue.at);
            }
            stage.world.run_until(time(now));
            stage.watch(now);
            now += BLOCK;
        }
        stage.trace.came_to_rest = matches!(stage.world.state(), State::WaitingForInput);
        stage.history();
        stage.trace
    }

    fn step(&mut self, number: usize, at: f64) {
        let step = &self.scene.script[number];
        let mut spans = Vec::new();
        match step.act() {
            Act::Say(parts) => spans = self.sounds(step, &parts, at, true),
            Act::Sound(parts) => spans = self.sounds(step, &parts, at, false),
            Act::Type(text) => {
                let item = Item {
                    id: ItemId(String::new()),
                    status: ItemStatus::Completed,
                    kind: ItemKind::Message {
                        role: Role::User,
                        content: vec![Content::Text(text.to_owned())],
                    },
                };
                let place = Place::End;
                self.world.at(time(at), Event::CreateItem { item, place });
                self.world
                    .at(time(at), Event::CreateReply(ReplyPatch::default()));
            }
            Act::Control(control) => {
                let event = match control {
                    Control::Pause => Event::Control(duologue_session::Control::Pause),
                    Control::Resume => Event::Control(duologue_session::Control::Resume),
                    Control::Stop => Event::Control(duologue_session::Control::Stop),
                    Control::Cancel => Event::CancelReply(None),
                };
                self.world.at(time(at), event);
            }
        }
        self.progress_at = self.progress_at.max(spans.last().map_or(at, |span| span.1));
        self.trace.steps.push(StepTrace {
            name: step
                .name
                .clone()
                .unwrap_or_else(|| format!("step-{number}")),
            label: String::new(),
            is_speech: matches!(step.act(), Act::Say(_)),
            spans,
            at,
        });
    }

    /// Schedules what a perfect ear would hear.
    fn sounds(&mut self, step: &Step, parts: &[Spoken], at: f64, is_user: bool) -> Vec<(f64, f64)> {
        // (From, to, words): clips without a pause between them are one utterance.
        let mut utterances: Vec<(f64, f64, String)> = Vec::new();
        let mut cursor = at;
        for part in parts {
            let name = match part {
                Spoken::Pause(seconds) => {
                    cursor += seconds;
                    continue;
                }
                Spoken::Clip(name) => name,
            };
            let mut clip = self.library.clip(name).unwrap().as_ref().clone();
            if let Some((from, to)) = step.cut {
                clip = clip.cut(from, to).unwrap();
            }
            let to = cursor + clip.spans.last().unwrap().1 - clip.spans[0].0;
            let text = match is_user {
                true => self
                    .library
                    .text(name)
                    .unwrap_or_else(|| panic!("nobody knows what is said in {name}")),
                false => "",
            };
            match utterances.last_mut() {
                Some((_, end, words)) if cursor - *end < 0.15 => {
                    *end = to;
                    *words = format!("{words} {text}");
                }
                _ => utterances.push((cursor, to, text.to_owned())),
            }
            cursor = to;
        }
        let last = utterances.len();
        for (number, (from, to, text)) in utterances.iter().enumerate() {
            let complete = if number + 1 == last { 0.95 } else { 0.02 };
            self.world
                .says_so_far(time(*from), time(to - from), text, complete);
        }
        utterances
            .iter()
            .map(|(from, to, _)| (*from, *to))
            .collect()
    }

    /// Notes what happened since the last time, as a client would have seen it.
    fn watch(&mut self, now: f64) {
        let happenings: Vec<(f64, Happening)> = self.world.log[self.seen..]
            .iter()
            .filter_map(|(at, action)| Some((at.as_secs_f64() + ROUNDING, happening(action)?)))
            .collect();
        self.seen = self.world.log.len();
        for (at, what) in happenings {
            self.progress_at = self.progress_at.max(at);
            self.trace.happenings.push((at, what));
        }
        for (id, truth) in &self.world.truth {
            let at = match self.ids.iter().position(|known| known == id) {
                Some(at) => at,
                None => {
                    self.ids.push(*id);
                    self.trace.replies.push(ReplyTrace::default());
                    self.ids.len() - 1
                }
            };
            let reply = &mut self.trace.replies[at];
            reply.words = truth
                .words
                .iter()
                .map(|(text, start, end)| {
                    let middle = (start + end) / 2 / RATIO;
                    Word {
                        text: text.clone(),
                        after: middle,
                        until: middle,
                    }
                })
                .collect();
            reply.all_told = true;
            let played = truth.played / RATIO;
            if played > reply.played {
                self.progress_at = self.progress_at.max(now);
                reply.stretches.push((now - BLOCK, reply.played, played));
                reply.played = played;
                if reply.audible_at.is_none() {
                    reply.audible_at = Some(now - BLOCK);
                    self.trace.happenings.push((now - BLOCK, Happening::Reply));
                }
            }
        }
    }

    /// What the session holds for said. In the core a reply's message follows its reply by order.
    fn history(&mut self) {
        let mut said: Vec<String> = self
            .world
            .session
            .items()
            .iter()
            .filter(|item| item.role() == Some(Role::Assistant))
            .map(Item::text)
            .collect();
        said.reverse();
        for reply in &mut self.trace.replies {
            reply.history = match reply.played {
                0 => None,
                _ => said.pop(),
            };
        }
    }
}

fn happening(action: &Action) -> Option<Happening> {
    Some(match action {
        Action::Pause { .. } => Happening::Held,
        Action::Resume { .. } => Happening::Resumed,
        Action::Emit(notice) => match notice {
            Notice::SpeechStarted { .. } => Happening::Speech,
            Notice::SpeechStopped { .. } => Happening::TurnOver,
            Notice::InputCommitted { .. } => Happening::Turn,
            Notice::InputDiscarded { .. } => Happening::Discarded,
            Notice::InterruptionConfirmed { .. } => Happening::Interruption,
            Notice::InterruptionRetracted { .. } => Happening::Retraction,
            Notice::HeardItself { .. } => Happening::HeardItself,
            Notice::Error { .. } => Happening::Error,
            Notice::StateChanged {
                to: State::Thinking,
                ..
            } => Happening::Thinking,
            Notice::ReplyDone(outcome) => match outcome.status {
                ReplyStatus::Completed => Happening::Completion,
                ReplyStatus::Cancelled(CancelReason::TurnDetected) => return None,
                _ => Happening::Cancelled,
            },
            _ => return None,
        },
        _ => return None,
    })
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn scenes() -> (Vec<Scene>, Library) {
    let scenes = duologue_scenes::load_dir(&root().join("scenes")).unwrap();
    (scenes, Library::new(&[root().join("tests/data")]))
}

#[test]
fn the_core_does_what_every_scene_asks_for() {
    let (scenes, library) = scenes();
    let mut failed = Vec::new();
    let mut played = 0;
    for scene in &scenes {
        let about_the_ear = matches!(
            scene.kind,
            Kind::Music | Kind::Clatter | Kind::Babble | Kind::Echo
        );
        if about_the_ear || !scene.client.events {
            continue;
        }
        played += 1;
        let trace = Stage::play(scene, &library);
        for verdict in check(scene, &trace) {
            if !verdict.passed {
                let told: Vec<String> = trace
                    .happenings
                    .iter()
                    .map(|(at, what)| format!("{at:.2} {}", what.name()))
                    .collect();
                failed.push(format!(
                    "{}: {}: {} [{}]",
                    scene.name,
                    verdict.what,
                    verdict.found,
                    told.join(", ")
                ));
            }
        }
    }
    assert!(played >= 100, "only {played} scenes");
    assert!(
        failed.is_empty(),
        "{} failures in {played} scenes:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

#[test]
fn there_are_two_hundred_scenes_and_all_their_clips_are_there() {
    let (scenes, library) = scenes();
    assert!(scenes.len() >= 200, "{}", scenes.len());
    for scene in &scenes {
        duologue_scenes::Performer::new(scene, &library)
            .unwrap_or_else(|error| panic!("{}: {error}", scene.name));
    }
}
