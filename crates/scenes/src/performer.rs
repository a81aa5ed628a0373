//! A client that plays a scene: told what the server said and when a block is due, it says what to send. It holds
//! no clock and no connection.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use duologue_audio::pcm;
use serde_json::{Value, json};

use crate::director::Director;
use crate::library::{Library, LibraryError};
use crate::microphone::{Microphone, Sounding};
use crate::player::Player;
use crate::scene::{Act, Control, Scene, Spoken, unnamed};
use crate::trace::{Block, Happening, ReplyTrace, StepTrace, Trace, Word};
use crate::{BLOCK, EchoPath, RATE};

/// A client reports its playout that often, blocks.
const REPORT_EVERY: usize = 5;
/// Seconds without any progress after which a scene is given up.
const PATIENCE: f64 = 12.0;
/// No scene is longer, seconds.
const LONGEST: f64 = 90.0;

/// What is to be sent in a block's time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sending {
    /// The microphone's sound.
    pub sound: Vec<i16>,
    /// Events, before the sound.
    pub events: Vec<Value>,
}

/// Plays one scene.
#[derive(Debug)]
pub struct Performer<'a> {
    scene: &'a Scene,
    soundings: Vec<Option<Sounding>>,
    director: Director,
    microphone: Microphone,
    player: Player,
    trace: Trace,
    /// Where the sound of a message that comes next belongs.
    incoming: BTreeMap<String, u64>,
    /// Begin of the last piece of sound of a message.
    piece: BTreeMap<String, u64>,
    responses_open: usize,
    /// Somebody speaks, or has spoken and is not answered yet.
    answer_due: bool,
    state: String,
    /// (Arrival, the server's time), seconds.
    clocks: Vec<(f64, f64)>,
    edges: Vec<f64>,
    retracted: Vec<f64>,
    progress_at: f64,
    was_playing: bool,
    /// Messages of which no more is wanted.
    dropped: Vec<String>,
    /// A microphone hands a block over when its last sample has been spoken: this one is next.
    spoken: Vec<i16>,
}

impl<'a> Performer<'a> {
    /// A client before its first block.
    ///
    /// # Errors
    /// A clip that cannot be read.
    pub fn new(scene: &'a Scene, library: &Library) -> Result<Self, LibraryError> {
        let soundings = scene
            .script
            .iter()
            .map(|step| Sounding::of(step, library))
            .collect::<Result<_, _>>()?;
        let echo = scene.echo.as_ref().map(EchoPath::new);
        Ok(Self {
            scene,
            soundings,
            director: Director::new(scene),
            microphone: Microphone::new(scene.background.as_ref(), echo, library)?,
            player: Player::new(scene.client.buffer_ms),
            trace: Trace::default(),
            incoming: BTreeMap::new(),
            piece: BTreeMap::new(),
            responses_open: 0,
            answer_due: false,
            state: String::new(),
            clocks: Vec::new(),
            edges: Vec::new(),
            retracted: Vec::new(),
            progress_at: 0.0,
            was_playing: false,
            dropped: Vec::new(),
            spoken: vec![0; BLOCK],
        })
    }

    /// The settings that the session begins with. `instructions` names the conversation to the language model.
    #[must_use]
    pub fn session(&self, instructions: &str) -> Value {
        let format = json!({"type": "audio/pcm", "rate": RATE});
        json!({"type": "session.update", "session": {
            "type": "realtime",
            "instructions": instructions,
            "audio": {"input": {"format": format, "transcription": {"language": "en"}}, "output": {"format": format}},
            "duologue": {"events": self.scene.client.events},
        }})
    }

    /// The time of the next block, seconds.
    #[must_use]
    pub fn now(&self) -> f64 {
        self.trace.seconds()
    }

    /// A block is due: it is played from now on, and what was spoken until now is sent.
    pub fn tick(&mut self) -> Sending {
        let now = self.now();
        let mut events = Vec::new();
        for cue in self.director.due(&self.trace, now) {
            self.step(cue.step, cue.at, &mut events);
        }
        let played = self.player.block();
        let level = pcm::dbfs(pcm::rms(&pcm::i16_to_f32(&played.samples)));
        let mixed = self.microphone.block(&played.samples);
        let block = Block {
            user: mixed.user,
            noise: mixed.noise,
            echo: mixed.echo,
            played: level,
            playing: played.part.is_some(),
        };
        self.trace.blocks.push(block);
        if let Some((item, from, to)) = played.part {
            self.progress_at = now;
            if let Some(reply) = self.reply_of_item(&item) {
                reply.played = reply.played.max(to);
                match reply.stretches.last_mut() {
                    Some((_, _, end)) if *end == from => *end = to,
                    _ => reply.stretches.push((now, from, to)),
                }
                if block.is_audible() && reply.audible_at.is_none() {
                    reply.audible_at = Some(now);
                    self.happened(now, Happening::Reply);
                }
            }
        }
        let stopped = self.was_playing && !block.playing;
        self.was_playing = block.playing;
        if self.microphone.is_sounding() {
            self.progress_at = now;
        }
        let due = self.trace.blocks.len().is_multiple_of(REPORT_EVERY) && block.playing;
        if (due || stopped) && self.scene.client.reports {
            events.extend(self.report());
        }
        Sending {
            sound: std::mem::replace(&mut self.spoken, mixed.samples),
            events,
        }
    }

    fn report(&self) -> Option<Value> {
        let (item, ms) = self.player.position()?;
        Some(
            json!({"type": "duologue.playout", "item_id": item, "content_index": 0, "audio_end_ms": ms}),
        )
    }

    fn step(&mut self, number: usize, at: f64, events: &mut Vec<Value>) {
        let step = &self.scene.script[number];
        let name = step.name.clone().unwrap_or_else(|| unnamed(number));
        let act = step.act();
        let label = match &act {
            Act::Say(parts) | Act::Sound(parts) => label(parts),
            Act::Type(text) => (*text).to_owned(),
            Act::Control(control) => format!("{control:?}").to_lowercase(),
        };
        let now = self.now();
        // What is not heard but sent goes at once, and its answer may be here before the moment it was meant for.
        let at = match act {
            Act::Type(_) | Act::Control(_) => at.min(now),
            Act::Say(_) | Act::Sound(_) => at,
        };
        let mut spans = Vec::new();
        if let Some(sounding) = self.soundings[number].take() {
            let begin = (at - sounding.lead_in()).max(now);
            spans = sounding
                .spans
                .iter()
                .map(|(from, to)| (begin + from, begin + to))
                .collect();
            self.microphone.begin(sounding, begin - now);
        }
        match act {
            Act::Type(text) => {
                let content = json!([{"type": "input_text", "text": text}]);
                events.push(json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}}));
                events.push(json!({"type": "response.create"}));
            }
            Act::Control(control) => {
                let event = match control {
                    Control::Pause => "duologue.pause",
                    Control::Resume => "duologue.resume",
                    Control::Cancel => "response.cancel",
                    Control::Stop => "output_audio_buffer.clear",
                };
                if matches!(control, Control::Cancel | Control::Stop) {
                    self.drop_sound();
                    events.extend(self.report().filter(|_| self.scene.client.reports));
                }
                events.push(json!({"type": event}));
            }
            Act::Say(_) | Act::Sound(_) => {}
        }
        self.progress_at = at;
        self.trace.steps.push(StepTrace {
            name,
            label,
            is_speech: matches!(step.act(), Act::Say(_)),
            spans,
            at,
        });
    }

    /// The client drops what it has and wants no more of it.
    fn drop_sound(&mut self) {
        if let Some((item, _)) = self.player.position() {
            self.dropped.push(item.to_owned());
        }
        self.player.clear();
    }

    fn reply_of_item(&mut self, item: &str) -> Option<&mut ReplyTrace> {
        self.trace
            .replies
            .iter_mut()
            .find(|reply| reply.item == item)
    }

    fn happened(&mut self, at: f64, what: Happening) {
        self.trace.happenings.push((at, what));
        self.progress_at = at;
    }

    /// The server said something at that time; what is to be sent because of it.
    ///
    /// # Errors
    /// Sound that cannot be decoded.
    pub fn event(&mut self, at: f64, event: &Value) -> Result<Vec<Value>, String> {
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let item = text("item_id");
        let mut send = Vec::new();
        match text("type") {
            "response.created" => {
                self.responses_open += 1;
                self.answer_due = false;
                self.trace.replies.push(ReplyTrace {
                    id: event["response"]["id"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                    ..ReplyTrace::default()
                });
                self.progress_at = at;
            }
            "response.output_item.added" => {
                let id = event["item"]["id"].as_str().unwrap_or_default();
                let response = text("response_id");
                let reply = self
                    .trace
                    .replies
                    .iter_mut()
                    .find(|reply| reply.id == response);
                if let Some(reply) = reply {
                    reply.item = id.to_owned();
                }
            }
            "response.output_audio.delta" => {
                let bytes = STANDARD.decode(text("delta")).map_err(|error| {
                    format!("the server sent sound that is not base64: {error}")
                })?;
                self.sound(item, &pcm::le_bytes_to_i16(&bytes));
            }
            "response.output_audio_transcript.delta" => self.words(item, text("delta")),
            "response.done" => {
                self.responses_open = self.responses_open.saturating_sub(1);
                self.response_done(at, &event["response"]);
            }
            "conversation.item.retrieved" => {
                let id = event["item"]["id"].as_str().unwrap_or_default();
                let said: String = event["item"]["content"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|part| part["transcript"].as_str().or(part["text"].as_str()))
                    .collect();
                if let Some(reply) = self.reply_of_item(id) {
                    reply.history = Some(said);
                }
            }
            "conversation.item.input_audio_transcription.completed" => {
                self.trace.user_messages.push(text("transcript").to_owned());
            }
            "input_audio_buffer.speech_started" => {
                self.happened(at, Happening::Speech);
                self.answer_due = true;
                if self.scene.client.truncates && !self.player.is_empty() {
                    self.drop_sound();
                    if let Some((item, ms)) = self.player.position() {
                        let item = item.to_owned();
                        if let Some(reply) = self.reply_of_item(&item) {
                            reply.truncated = true;
                        }
                        send.push(json!({"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": ms}));
                    }
                }
            }
            "input_audio_buffer.speech_stopped" => self.happened(at, Happening::TurnOver),
            "input_audio_buffer.committed" => self.happened(at, Happening::Turn),
            "duologue.input.discarded" => {
                self.answer_due = false;
                self.happened(at, Happening::Discarded);
            }
            "duologue.playout.pause" => {
                self.player.hold();
                self.happened(at, Happening::Held);
                send.extend(self.report().filter(|_| self.scene.client.reports));
            }
            "duologue.playout.resume" => {
                let samples = event["audio_start_ms"]
                    .as_u64()
                    .map(|ms| ms * u64::from(RATE) / 1_000);
                match samples {
                    Some(samples) if !item.is_empty() => {
                        self.player.resume(item, samples);
                        self.incoming.insert(item.to_owned(), samples);
                    }
                    _ => self.player.go_on(),
                }
                self.happened(at, Happening::Resumed);
            }
            "duologue.playout.clear" => {
                if !item.is_empty() {
                    self.dropped.push(item.to_owned());
                }
                self.player.clear();
                send.extend(self.report().filter(|_| self.scene.client.reports));
            }
            "duologue.state" => self.entered(at, event),
            "duologue.interruption" => {
                let outcome = match text("outcome") {
                    "committed" => Happening::Interruption,
                    _ => Happening::Retraction,
                };
                let why = format!("{}: {}", text("outcome"), text("evidence"));
                self.trace.evidence.push((at, why));
                if outcome == Happening::Retraction {
                    self.retracted.push(at);
                }
                self.happened(at, outcome);
            }
            "duologue.heard_itself" => self.happened(at, Happening::HeardItself),
            "duologue.ended" => self.happened(at, Happening::Ended),
            // A reply of which nothing was heard is not in the history.
            "error" if event["error"]["code"] == "item_not_found" => {}
            "error" => {
                let message = event["error"]["message"].as_str().unwrap_or("unknown");
                self.trace.errors.push(message.to_owned());
                self.happened(at, Happening::Error);
            }
            _ => {}
        }
        Ok(send)
    }

    fn entered(&mut self, at: f64, event: &Value) {
        let state = event["state"].as_str().unwrap_or_default().to_owned();
        if let Some(ms) = event["at_ms"].as_f64() {
            self.clocks.push((at, ms / 1_000.0));
            if state == "barged_in" {
                self.edges.push(ms / 1_000.0);
            }
        }
        if state == "thinking" && self.state != "thinking" {
            self.happened(at, Happening::Thinking);
        }
        self.progress_at = at;
        self.trace.states.push((at, state.clone()));
        self.state = state;
    }

    fn sound(&mut self, item: &str, samples: &[i16]) {
        let from = self.incoming.get(item).copied().unwrap_or(0);
        let to = from + samples.len() as u64;
        self.incoming.insert(item.to_owned(), to);
        self.piece.insert(item.to_owned(), from);
        if let Some(reply) = self.reply_of_item(item) {
            reply.received = reply.received.max(to);
        }
        if !self.dropped.iter().any(|dropped| dropped == item) {
            self.player.push(item, from, samples);
        }
    }

    /// A word is told when the sound that holds its middle has been sent: it lies in the last piece that came.
    fn words(&mut self, item: &str, delta: &str) {
        let until = self.incoming.get(item).copied().unwrap_or(0);
        let after = self.piece.get(item).copied().unwrap_or(0);
        let number = self
            .trace
            .replies
            .iter()
            .filter(|reply| !reply.words.is_empty() && reply.item != item)
            .count();
        let texts = &self.scene.replies;
        let whole = texts[number.min(texts.len() - 1)]
            .text
            .split_whitespace()
            .count();
        if let Some(reply) = self.reply_of_item(item) {
            for text in delta.split_whitespace() {
                reply.words.push(Word {
                    text: text.to_owned(),
                    after,
                    until,
                });
            }
            reply.all_told |= reply.words.len() >= whole;
        }
    }

    fn response_done(&mut self, at: f64, response: &Value) {
        let status = response["status"].as_str().unwrap_or_default();
        let reason = response["status_details"]["reason"]
            .as_str()
            .unwrap_or_default();
        let what = match (status, reason) {
            ("completed", _) => Happening::Completion,
            ("cancelled", "turn_detected") => Happening::Interruption,
            _ => Happening::Cancelled,
        };
        let id = response["id"].as_str().unwrap_or_default();
        if let Some(reply) = self.trace.replies.iter_mut().find(|reply| reply.id == id) {
            reply.done = true;
            status.clone_into(&mut reply.status);
            let own = &response["duologue"];
            reply.heard = own["heard"].as_str().map(str::to_owned);
            reply.reported = own["heard_by"].as_str() == Some("client");
        }
        // Where the client is told of the decision itself, that counts.
        if what != Happening::Interruption || !self.scene.client.events {
            self.happened(at, what);
        }
        self.progress_at = at;
    }

    /// Whether everything was done and all is at rest, or nothing goes on any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let now = self.now();
        self.is_at_rest() || now > self.progress_at + PATIENCE || now > LONGEST
    }

    fn is_at_rest(&self) -> bool {
        let quiet_for = self.now() - self.progress_at;
        // A stock client is told no states: for it, what was asked is to be answered.
        let state = match self.scene.client.events {
            true => matches!(self.state.as_str(), "waiting_for_input" | "ended"),
            false => !self.answer_due,
        };
        self.director.is_done()
            && !self.microphone.is_sounding()
            && self.player.is_empty()
            && self.responses_open == 0
            && state
            && quiet_for
                >= self
                    .scene
                    .tail
                    .max(if self.scene.client.events { 0.0 } else { 2.0 })
    }

    /// What to ask the server at the end: its history of every reply.
    #[must_use]
    pub fn questions(&self) -> Vec<Value> {
        self.trace
            .replies
            .iter()
            .filter(|reply| !reply.item.is_empty())
            .map(|reply| json!({"type": "conversation.item.retrieve", "item_id": reply.item}))
            .collect()
    }

    /// What came of it. `late`: the most that a block was late, seconds.
    #[must_use]
    pub fn finish(mut self, late: f64) -> Trace {
        self.trace.came_to_rest = self.is_at_rest();
        self.trace.late = late;
        // The server's clock by ours: the message that took the least time took none.
        let ahead = self
            .clocks
            .iter()
            .map(|(arrival, theirs)| arrival - theirs)
            .fold(f64::INFINITY, f64::min);
        self.trace.edges = self.edges.iter().map(|theirs| theirs + ahead).collect();
        self.trace.retractions = self.retracted;
        self.trace
    }

    /// Steps that never became due, by their places in the script.
    pub fn waiting(&self) -> impl Iterator<Item = usize> {
        self.director.waiting()
    }
}

fn label(parts: &[Spoken]) -> String {
    let names: Vec<String> = parts
        .iter()
        .map(|part| match part {
            Spoken::Pause(seconds) => format!("{seconds} s"),
            Spoken::Clip(file) => {
                let file = file.rsplit('/').next().unwrap_or(file);
                file.split('.').next().unwrap_or(file).to_owned()
            }
        })
        .collect();
    names.join(", ")
}
