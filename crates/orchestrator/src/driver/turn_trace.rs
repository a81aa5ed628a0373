//! One trace a turn: where its time went, as spans for OpenTelemetry.
//!
//! The root, `turn`, begins with the user's last sound (or the client's request) and ends with the reply. Its children
//! are the steps between. What comes before the turn is known to be one (its transcript, a reply that was begun on
//! speculation) is written down and told then. The worker's spans hang below `speak`, whose context goes with the call.
//!
//! Times are the system's; nothing here reads a clock.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use duologue_session::{ReplyId, ReplyStatus};
use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{Span, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};

/// The name by which spans say who made them.
const TRACER: &str = "duologue";

/// When a model thought. It is told by the task that asks it.
#[derive(Debug)]
pub struct Thought {
    asked: SystemTime,
    first_token: OnceLock<SystemTime>,
    done: OnceLock<SystemTime>,
}

impl Thought {
    /// A model is asked.
    pub fn new(asked: SystemTime) -> Arc<Self> {
        Arc::new(Self {
            asked,
            first_token: OnceLock::new(),
            done: OnceLock::new(),
        })
    }

    /// Its first text is there.
    pub fn begins(&self, at: SystemTime) {
        let _ = self.first_token.set(at);
    }

    /// Nothing more comes of it.
    pub fn ends(&self, at: SystemTime) {
        let _ = self.done.set(at);
    }
}

/// What is known of a turn before it is one.
#[derive(Debug, Default)]
struct Before {
    silent_since: Option<SystemTime>,
    asked: Option<SystemTime>,
    transcribed: Option<(SystemTime, SystemTime)>,
    end_of_turn: Option<f32>,
}

/// A turn that is being answered.
struct Turn {
    reply: ReplyId,
    root: Context,
    thought: Option<Arc<Thought>>,
    speak: Option<(Context, SystemTime)>,
    first_audio: Option<SystemTime>,
    first_sent: Option<SystemTime>,
}

/// The present turn's trace.
pub struct TurnTrace {
    session: String,
    transport: &'static str,
    before: Before,
    turn: Option<Turn>,
}

impl TurnTrace {
    /// No turn yet.
    pub fn new(session: &str, transport: &'static str) -> Self {
        Self {
            session: session.to_owned(),
            transport,
            before: Before::default(),
            turn: None,
        }
    }

    /// The user has been silent since then, or asked for a reply then. What was known before is of another turn.
    pub fn silent(&mut self, since: SystemTime) {
        self.before = Before {
            silent_since: Some(since),
            ..Before::default()
        };
    }

    /// A final transcript is asked for.
    pub fn asks_transcript(&mut self, at: SystemTime) {
        self.before.asked = Some(at);
    }

    /// It is there.
    pub fn transcribed(&mut self, at: SystemTime) {
        if let Some(asked) = self.before.asked.take() {
            self.before.transcribed = Some((asked, at));
        }
    }

    /// How sure the model was that the turn is over, 0 to 1.
    pub fn judged(&mut self, probability: f32) {
        self.before.end_of_turn = Some(probability);
    }

    /// The turn is over, and this reply answers it. Its trace's id, where one is kept.
    pub fn decided(
        &mut self,
        reply: ReplyId,
        speculated: bool,
        thought: Arc<Thought>,
        at: SystemTime,
    ) -> Option<String> {
        let before = std::mem::take(&mut self.before);
        let began = before.silent_since.unwrap_or(at);
        let tracer = global::tracer(TRACER);
        let root = tracer
            .span_builder("turn")
            .with_start_time(began)
            .with_attributes([
                KeyValue::new("session.id", self.session.clone()),
                KeyValue::new("duologue.utterance", crate::voice::utterance_id(reply)),
                KeyValue::new("duologue.transport", self.transport),
                KeyValue::new("duologue.speculated", speculated),
            ])
            .start_with_context(&tracer, &Context::new());
        let root = Context::new().with_span(root);
        let span = root.span();
        let recorded = span.is_recording();
        let id = span.span_context().trace_id();
        if recorded {
            let probability = before
                .end_of_turn
                .map(|p| KeyValue::new("duologue.end_of_turn.probability", f64::from(p)));
            step(&root, "end_of_turn", (began, at), probability);
            if let Some(times) = before.transcribed {
                step(&root, "transcribe", times, None);
            }
        }
        self.turn = Some(Turn {
            reply,
            root,
            thought: Some(thought),
            speak: None,
            first_audio: None,
            first_sent: None,
        });
        recorded.then(|| id.to_string())
    }

    /// The voice is given the reply's first text; what its worker does belongs below this.
    pub fn speaks(&mut self, reply: ReplyId, at: SystemTime) -> Context {
        let Some(turn) = self.of(reply) else {
            return Context::new();
        };
        let tracer = global::tracer(TRACER);
        let span = tracer
            .span_builder("speak")
            .with_kind(SpanKind::Client)
            .with_start_time(at)
            .start_with_context(&tracer, &turn.root);
        let context = turn.root.with_span(span);
        turn.speak = Some((context.clone(), at));
        context
    }

    /// The voice's first sound is there.
    pub fn first_audio(&mut self, reply: ReplyId, at: SystemTime) {
        let Some(turn) = self.of(reply) else { return };
        if turn.first_audio.is_some() {
            return;
        }
        turn.first_audio = Some(at);
        if let Some((context, began)) = &turn.speak
            && context.span().is_recording()
        {
            step(context, "speak.first_audio", (*began, at), None);
        }
    }

    /// It was handed to the transport.
    pub fn first_sent(&mut self, reply: ReplyId, at: SystemTime) {
        let Some(turn) = self.of(reply) else { return };
        if turn.first_sent.is_some() {
            return;
        }
        turn.first_sent = Some(at);
        if let Some(made) = turn.first_audio
            && turn.root.span().is_recording()
        {
            step(&turn.root, "send.first_frame", (made, at), None);
        }
    }

    /// The voice has said all, or was stopped.
    pub fn spoken(&mut self, reply: ReplyId, at: SystemTime) {
        if let Some((context, _)) = self.of(reply).and_then(|turn| turn.speak.take()) {
            context.span().end_with_timestamp(at);
        }
    }

    /// The reply is over.
    pub fn done(&mut self, reply: ReplyId, status: &ReplyStatus, at: SystemTime) {
        if self.of(reply).is_some() {
            let (name, failure) = match status {
                ReplyStatus::Completed => ("completed", None),
                ReplyStatus::Cancelled(_) => ("cancelled", None),
                ReplyStatus::Incomplete(_) => ("incomplete", None),
                ReplyStatus::Failed { code, .. } => ("failed", Some(format!("{code:?}"))),
            };
            self.end(name, failure, at);
        }
    }

    /// The session is over.
    pub fn session_ends(&mut self, at: SystemTime) {
        self.end("session_ended", None, at);
    }

    fn end(&mut self, status: &'static str, failure: Option<String>, at: SystemTime) {
        let Some(turn) = self.turn.take() else { return };
        let root = turn.root.span();
        if !root.is_recording() {
            return;
        }
        if let Some((context, _)) = turn.speak {
            context.span().end_with_timestamp(at);
        }
        if let Some(thought) = turn.thought {
            tell_thought(&turn.root, &thought, at);
        }
        if let Some(sent) = turn.first_sent {
            step(&turn.root, "play", (sent, at), None);
        }
        root.set_attribute(KeyValue::new("duologue.status", status));
        if let Some(failure) = failure {
            root.set_status(Status::error(failure));
        }
        root.end_with_timestamp(at);
    }

    fn of(&mut self, reply: ReplyId) -> Option<&mut Turn> {
        self.turn.as_mut().filter(|turn| turn.reply == reply)
    }
}

/// A step that is over.
fn step(
    parent: &Context,
    name: &'static str,
    (from, to): (SystemTime, SystemTime),
    attribute: Option<KeyValue>,
) {
    begun(parent, name, from, attribute).end_with_timestamp(to);
}

fn begun(
    parent: &Context,
    name: &'static str,
    from: SystemTime,
    attribute: Option<KeyValue>,
) -> BoxedSpan {
    let tracer = global::tracer(TRACER);
    tracer
        .span_builder(name)
        .with_start_time(from)
        .with_attributes(attribute)
        .start_with_context(&tracer, parent)
}

fn tell_thought(root: &Context, thought: &Thought, now: SystemTime) {
    let done = thought.done.get().copied().unwrap_or(now);
    let context = root.with_span(begun(root, "think", thought.asked, None));
    if let Some(&first) = thought.first_token.get() {
        step(&context, "think.first_token", (thought.asked, first), None);
    }
    context.span().end_with_timestamp(done);
}
