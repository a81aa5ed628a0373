//! What a session's course means for the metrics.

use std::time::{Duration, Instant};

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

    /// The session is over.
    pub fn end(&self, reason: EndReason, counters: Counters, underruns: u64) {
        table::SESSIONS_ENDED.count_for(names::end_reason(reason));
        table::SESSION_SECONDS.record(self.began.elapsed());
        table::UNDERRUNS.add(underruns);
        let kept = counters.speculations_kept;
        table::SPECULATIONS.add_for("kept", kept);
        table::SPECULATIONS.add_for("wasted", counters.speculations.saturating_sub(kept));
    }
}
