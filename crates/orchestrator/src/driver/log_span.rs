//! What a session's log lines are known by.
//!
//! Every line bears the session's id; those of a turn its number, and those of a reply the utterance by which the
//! voice worker's lines know it too. The spans have the level of errors, so that a filter which lets few lines through
//! does not take their ids.

use duologue_session::{ReplyId, TurnId};
use tracing::Span;
use tracing::field::Empty;

/// The spans of a session and of its present turn.
pub struct LogSpan {
    session: Span,
    turn: Span,
    number: Option<TurnId>,
    reply: Option<ReplyId>,
}

impl LogSpan {
    /// A session in which nothing was said.
    pub fn new(session: &str) -> Self {
        let session = tracing::error_span!("session", session);
        Self {
            turn: session.clone(),
            session,
            number: None,
            reply: None,
        }
    }

    /// The session's.
    pub fn session(&self) -> &Span {
        &self.session
    }

    /// That of the turn, or the session's before the first.
    pub fn turn(&self) -> &Span {
        &self.turn
    }

    /// The user's turn has this number.
    pub fn turn_is(&mut self, turn: TurnId) {
        if self.number != Some(turn) {
            (self.number, self.reply) = (Some(turn), None);
            self.begin(None);
        }
    }

    /// The turn is answered with this reply, in this trace.
    pub fn reply_is(&mut self, reply: ReplyId, trace: Option<String>) {
        self.reply = Some(reply);
        self.begin(trace);
    }

    fn begin(&mut self, trace: Option<String>) {
        self.turn = tracing::error_span!(
            parent: &self.session,
            "turn",
            turn = Empty,
            utterance = Empty,
            trace,
        );
        if let Some(turn) = self.number {
            self.turn.record("turn", turn.0);
        }
        if let Some(reply) = self.reply {
            self.turn
                .record("utterance", crate::voice::utterance_id(reply));
        }
    }
}
