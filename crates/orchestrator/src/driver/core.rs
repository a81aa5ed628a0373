//! The core, and the recorder that looks over its shoulder: nothing is told or done that it does not see.

use std::ops::Deref;
use std::time::Duration;

use duologue_session::{Action, Event, Session};

use crate::recording::Recorder;

/// A session's core.
pub struct Core {
    session: Session,
    now: Duration,
    /// Where the session is kept.
    pub recorder: Option<Recorder>,
}

impl Core {
    /// A core, recorded or not.
    pub fn new(session: Session, recorder: Option<Recorder>) -> Self {
        Self {
            session,
            now: Duration::ZERO,
            recorder,
        }
    }

    /// Tells what happened.
    pub fn handle(&mut self, at: Duration, event: Event) {
        if let Some(recorder) = &mut self.recorder {
            recorder.event(at, &event);
        }
        self.now = self.now.max(at);
        self.session.handle(at, event);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        let action = self.session.poll()?;
        if let Some(recorder) = &mut self.recorder {
            recorder.action(self.now, &action);
        }
        Some(action)
    }
}

impl Deref for Core {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}
