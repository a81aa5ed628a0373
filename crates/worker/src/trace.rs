//! An utterance's span, below that of whoever asked for it.

use std::time::{Duration, SystemTime};

use opentelemetry::global;
use opentelemetry::trace::{Span, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};

/// The name by which spans say who made them.
const TRACER: &str = "duologue";

/// The span `synthesize`; it ends when the last clone is dropped, which is when the engine has let go of the utterance
/// and its last frame has left.
#[derive(Clone)]
pub(crate) struct Trace(Context);

impl Trace {
    /// An utterance is asked for in this context.
    pub(crate) fn begin(caller: &Context) -> Self {
        let tracer = global::tracer(TRACER);
        let span = tracer
            .span_builder("synthesize")
            .with_kind(SpanKind::Server)
            .start_with_context(&tracer, caller);
        Self(caller.with_span(span))
    }

    /// Whose utterance it is.
    pub(crate) fn is_of(&self, session: &str, utterance: &str) {
        self.0.span().set_attributes([
            KeyValue::new("session.id", session.to_owned()),
            KeyValue::new("duologue.utterance", utterance.to_owned()),
        ]);
    }

    /// Its first frame is there, so long after its first text.
    pub(crate) fn first_audio(&self, after: Duration) {
        if !self.0.span().is_recording() {
            return;
        }
        let now = SystemTime::now();
        let tracer = global::tracer(TRACER);
        tracer
            .span_builder("synthesize.first_audio")
            .with_start_time(now.checked_sub(after).unwrap_or(now))
            .start_with_context(&tracer, &self.0)
            .end_with_timestamp(now);
    }

    /// What it took, and what came of it.
    pub(crate) fn spoken(&self, computing: Duration, sound: Duration) {
        self.0.span().set_attributes([
            KeyValue::new("duologue.computing_seconds", computing.as_secs_f64()),
            KeyValue::new("duologue.sound_seconds", sound.as_secs_f64()),
        ]);
    }

    /// It was ended with an error.
    pub(crate) fn failed(&self, status: &tonic::Status) {
        self.0
            .span()
            .set_status(Status::error(status.code().to_string()));
    }
}
