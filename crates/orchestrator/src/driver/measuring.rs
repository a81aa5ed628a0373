//! What a session's course means for the metrics.

use std::time::{Duration, Instant};

use duologue_asr::{Reason, Transcript};
use duologue_metrics::{Held, table};
use duologue_session::{Counters, EndReason, Notice, ReplyStatus};

use crate::realtime::names;

/// Measures one session, which is open as long as this lives.
pub struct Measuring {
    _open: Held,
    began: Instant,
    /// When the present suspicion of an interruption arose.
    suspected: Option<Duration>,
}

impl Measuring {
    /// A session begins.
    pub fn begin(transport: &'static str) -> Self {
        table::SESSIONS_BEGUN.count_for(transport);
        Self {
            _open: table::SESSIONS.hold_for(transport),
            began: Instant::now(),
            suspected: None,
        }
    }

    /// The core tells of something, `now` in the session's time.
    pub fn notice(&mut self, notice: &Notice, now: Duration) {
        match notice {
            Notice::InputCommitted { .. } => table::TURNS.count(),
            Notice::InputDiscarded { .. } => table::INPUT_DISCARDED.count(),
            Notice::ReplyDone(outcome) => table::REPLIES.count_for(match outcome.status {
                ReplyStatus::Completed => "completed",
                ReplyStatus::Cancelled(_) => "cancelled",
                ReplyStatus::Incomplete(_) => "incomplete",
                ReplyStatus::Failed { .. } => "failed",
            }),
            Notice::InterruptionSuspected { at, .. } => {
                self.suspected = Some(now);
                table::INTERRUPTIONS_SUSPECTED.count();
                table::BARGE_IN.record(now.saturating_sub(*at));
            }
            Notice::InterruptionConfirmed { evidence, .. } => {
                table::INTERRUPTIONS_COMMITTED.count_for(names::evidence(*evidence));
                self.decided(now);
            }
            Notice::InterruptionRetracted { evidence, .. } => {
                table::INTERRUPTIONS_RETRACTED.count_for(names::evidence(*evidence));
                self.decided(now);
            }
            Notice::HeardItself { .. } => table::HEARD_ITSELF.count(),
            _ => {}
        }
    }

    fn decided(&mut self, now: Duration) {
        if let Some(since) = self.suspected.take() {
            table::INTERRUPTION_DECIDED.record(now.saturating_sub(since));
        }
    }

    /// Frames of a reply leave at `now` that were due at `due`, by the wall.
    pub fn frames_leave(&self, due: Option<Duration>, now: Duration) {
        // The first one of a reply has no time of its own: it is due when it is there.
        if let Some(due) = due.filter(|due| !due.is_zero()) {
            table::FRAME_LATENESS.record(now.saturating_sub(due));
        }
    }

    /// The session is over.
    pub fn end(&self, reason: EndReason, counters: Counters) {
        table::SESSIONS_ENDED.count_for(names::end_reason(reason));
        table::SESSION_SECONDS.record(self.began.elapsed());
        let kept = counters.speculations_kept;
        table::SPECULATIONS.add_for("kept", kept);
        table::SPECULATIONS.add_for("wasted", counters.speculations.saturating_sub(kept));
    }
}

/// A transcript of sound of a length took so long.
pub fn transcribed(transcript: &Transcript, partial: bool, length: Duration, took: Duration) {
    table::TRANSCRIPTION.record_for(if partial { "partial" } else { "final" }, took);
    if partial {
        return;
    }
    if !length.is_zero() {
        table::TRANSCRIPTION_FACTOR.record_value(took.div_duration_f64(length));
    }
    if transcript.text.is_empty() {
        table::TRANSCRIPTS_WITHOUT_WORDS.count_for("empty");
    }
    if let Some(junk) = &transcript.rejected {
        table::TRANSCRIPTS_REJECTED.count_for(match junk.reason {
            Reason::Silence => "silence",
            Reason::NoSpeech => "no_speech",
            Reason::Unsure => "unsure",
            Reason::Repetition => "repetition",
            Reason::KnownPhrase => "known_phrase",
        });
    }
}
