//! A reply on its way from the text to the mouth: one utterance of a voice worker.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use duologue_rpc::{AudioFrame, ControlAction};
use duologue_session::ReplyId;
use tokio::sync::mpsc;

use crate::fleet::{Fleet, Mode, Wanted};
use crate::voice::{Utterance, VoiceChoice, VoiceError, VoiceSession};

/// How far a voice may run ahead of its listener.
pub const LEAD: Duration = Duration::from_millis(1_500);
/// Clauses that a model may be ahead of its voice.
const CLAUSES: usize = 4_096;

type Opening = Pin<Box<dyn Future<Output = Result<VoiceSession, VoiceError>> + Send>>;

/// A session's voice: open, or being opened; what it says now, and what it is still to be told.
pub struct Speaking {
    fleet: Fleet,
    seed: String,
    opened: u64,
    session: Option<Arc<VoiceSession>>,
    opening: Option<Opening>,
    current: Option<Current>,
}

struct Current {
    reply: ReplyId,
    text: VecDeque<String>,
    ended: bool,
    started: Option<Started>,
}

struct Started {
    text: Option<mpsc::Sender<String>>,
    frames: mpsc::Receiver<Result<AudioFrame, VoiceError>>,
    session: Arc<VoiceSession>,
}

/// What the voice has for the session.
pub enum Voiced {
    /// A frame of a reply.
    Frame(ReplyId, AudioFrame),
    /// The reply's last frame has come.
    Ended(ReplyId),
    /// The reply's voice failed.
    Failed(ReplyId, VoiceError),
    /// It went on; nothing for the session.
    Progress,
    /// It cannot be opened.
    NotOpened(VoiceError),
}

impl Speaking {
    /// Speaks with a session that is open.
    pub fn new(fleet: Fleet, seed: &str, session: VoiceSession) -> Self {
        Self {
            fleet,
            seed: seed.into(),
            opened: 0,
            session: Some(Arc::new(session)),
            opening: None,
            current: None,
        }
    }

    /// Takes another voice for what is said from now on.
    pub fn choose(&mut self, choice: VoiceChoice) {
        if self
            .session
            .as_ref()
            .is_some_and(|session| *session.choice() == choice)
        {
            self.opening = None;
            return;
        }
        self.opened += 1;
        let id = format!("{}-{}", self.seed, self.opened);
        let wanted = Wanted {
            last_worker: self
                .session
                .as_ref()
                .map(|session| session.worker().to_owned()),
            ..Wanted::new(&self.seed, choice, Mode::Session)
        };
        let fleet = self.fleet.clone();
        self.opening = Some(Box::pin(async move { fleet.open(wanted, id, LEAD).await }));
    }

    /// Adds text to a reply; the first begins it. `false`: the voice is too far behind to take more.
    pub fn say(&mut self, reply: ReplyId, text: String) -> bool {
        let current = match &mut self.current {
            Some(current) if current.reply == reply => current,
            other => other.insert(Current {
                reply,
                text: VecDeque::new(),
                ended: false,
                started: None,
            }),
        };
        if current.text.len() >= CLAUSES {
            return false;
        }
        current.text.push_back(text);
        self.feed();
        true
    }

    /// No more text comes for this reply.
    pub fn end(&mut self, reply: ReplyId) {
        if let Some(current) = self
            .current
            .as_mut()
            .filter(|current| current.reply == reply)
        {
            current.ended = true;
            self.feed();
        }
    }

    /// Drops a reply; its worker is free at once.
    pub fn stop(&mut self, reply: ReplyId) {
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.reply == reply)
        {
            self.current = None;
        }
    }

    /// Tells the worker to hold a reply, or to go on. Not waited for: the mouth has stopped already.
    pub fn control(&self, reply: ReplyId, action: ControlAction) {
        let started = self
            .current
            .as_ref()
            .filter(|current| current.reply == reply)
            .and_then(|current| current.started.as_ref());
        if let Some(started) = started {
            let call = started.session.control(&utterance_id(reply), action);
            tokio::spawn(async move {
                if let Err(error) = call.await {
                    tracing::debug!(%error, ?action, "a voice did not take a control");
                }
            });
        }
    }

    /// The next thing the voice has. Pends for ever where nothing is to come; safe to drop.
    pub async fn next(&mut self) -> Voiced {
        if let Some(opening) = &mut self.opening {
            let opened = opening.await;
            self.opening = None;
            return match opened {
                Ok(session) => {
                    self.session = Some(Arc::new(session));
                    self.feed();
                    Voiced::Progress
                }
                Err(error) => Voiced::NotOpened(error),
            };
        }
        let Some(current) = &mut self.current else {
            return std::future::pending().await;
        };
        let reply = current.reply;
        let Some(started) = &mut current.started else {
            return std::future::pending().await;
        };
        // Text that found the worker's queue full goes as soon as there is room, and must not wait for a frame.
        let frame = match (&started.text, current.text.is_empty()) {
            (Some(text), false) => {
                tokio::select! {
                    frame = started.frames.recv() => Some(frame),
                    permit = text.reserve() => {
                        if let (Ok(permit), Some(text)) = (permit, current.text.pop_front()) {
                            permit.send(text);
                        }
                        None
                    }
                }
            }
            _ => Some(started.frames.recv().await),
        };
        let Some(frame) = frame else {
            self.feed();
            return Voiced::Progress;
        };
        match frame {
            Some(Ok(frame)) => Voiced::Frame(reply, frame),
            Some(Err(error)) => {
                self.current = None;
                // The worker may have ended the session (it had been silent for long) or be a new one: the next
                // reply opens another.
                self.session = None;
                Voiced::Failed(reply, error)
            }
            None => {
                self.current = None;
                Voiced::Ended(reply)
            }
        }
    }

    /// Hands the worker what it can take.
    fn feed(&mut self) {
        let Some(current) = &mut self.current else {
            return;
        };
        if current.started.is_none() && self.opening.is_none() {
            let Some(session) = &self.session else {
                return;
            };
            let Utterance { text, frames } = session.speak(&utterance_id(current.reply));
            current.started = Some(Started {
                text: Some(text),
                frames,
                session: Arc::clone(session),
            });
        }
        let Some(started) = &mut current.started else {
            return;
        };
        while let (Some(text), Some(next)) = (&started.text, current.text.pop_front()) {
            if let Err(mpsc::error::TrySendError::Full(next)) = text.try_send(next) {
                current.text.push_front(next);
                return;
            }
        }
        if current.ended && current.text.is_empty() {
            started.text = None;
        }
    }
}

fn utterance_id(reply: ReplyId) -> String {
    format!("reply-{reply}")
}
