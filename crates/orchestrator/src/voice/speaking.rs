//! A session's voice: what it says now, on which worker, and on which one next when that fails.
//!
//! [`Script`] knows what of the text was said, [`Watch`] whether the worker makes progress; here both are asked, and
//! another worker is opened when the present one has broken or stands still. One that only stands still keeps its
//! part until the other is open, and keeps it for good if it has come back by then: so at most one other is tried at a
//! time, and a fleet of one loses nothing by the attempt.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use duologue_rpc::{AudioFrame, ControlAction};
use duologue_session::ReplyId;
use opentelemetry::Context;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Instrument;

use super::script::{Cut, Script};
use super::watch::{Patience, Watch};
use super::{Utterance, VoiceChoice, VoiceError, VoiceSession};
use crate::fleet::{Fleet, Mode, Wanted};

/// Clauses that a model may be ahead of its voice.
const CLAUSES: usize = 4_096;
/// Times that one reply goes on with another worker: text that breaks every worker must not go round for ever.
const CHANGES: usize = 6;
/// For a worker to open a session in the middle of a reply.
const MOVE_DEADLINE: Duration = Duration::from_secs(2);
/// Pauses before the next attempts to find a worker when none was found.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
];
/// Pause after nobody else was found for a worker that stands still.
const NOBODY_ELSE: Duration = Duration::from_secs(1);

type Opening = Pin<Box<dyn Future<Output = Result<VoiceSession, VoiceError>> + Send>>;

/// What a voice is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purpose {
    /// As the fleet is asked.
    pub mode: Mode,
    /// How far it may run ahead of its listener.
    pub lead: Duration,
    /// How long a worker may stand still.
    pub patience: Patience,
}

impl Purpose {
    /// Somebody listens.
    pub const LISTENER: Self = Self {
        mode: Mode::Session,
        lead: Duration::from_millis(1_500),
        patience: Patience::LISTENER,
    };
    /// Nobody listens in real time to a file, so the voice may run far ahead.
    pub const FILE: Self = Self {
        mode: Mode::Text,
        lead: Duration::from_secs(3_600),
        patience: Patience::FILE,
    };
}

/// A session's voice: open, or being opened; what it says now, and what it is still to be told.
pub(crate) struct Speaking {
    fleet: Fleet,
    purpose: Purpose,
    origin: Instant,
    seed: String,
    /// Sessions opened so far, which makes their names.
    opened: u64,
    choice: VoiceChoice,
    session: Option<Arc<VoiceSession>>,
    opening: Option<(Why, Opening)>,
    current: Option<Current>,
}

/// Why a session is being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Another voice is wanted, or there is none.
    Wanted,
    /// In place of a worker that is given up.
    Instead(&'static str),
}

struct Current {
    reply: ReplyId,
    script: Script,
    watch: Watch,
    held: bool,
    /// Frames of silence to be given before the next that comes.
    silence: usize,
    /// Absent where no session is open for it, and where its worker has broken.
    started: Option<Started>,
    /// How its worker broke.
    broken: Option<VoiceError>,
    /// Workers that have failed it.
    avoid: Vec<String>,
    /// Attempts in vain to find another since it broke.
    attempts: usize,
    /// Times that its worker broke.
    breaks: usize,
    /// No attempt is made before.
    not_before: Duration,
    trace: Context,
}

struct Started {
    text: Option<mpsc::Sender<String>>,
    frames: mpsc::Receiver<Result<AudioFrame, VoiceError>>,
    session: Arc<VoiceSession>,
}

/// Where the listener is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listener {
    /// Sound that is here and was not heard yet.
    pub in_hand: Duration,
    /// Samples of the reply that have left and cannot be taken back.
    pub left: u64,
}

/// What the voice has for the session.
#[derive(Debug)]
pub(crate) enum Voiced {
    /// A frame of a reply, numbered from the reply's start.
    Frame(ReplyId, AudioFrame),
    /// Another worker goes on with the reply from this sample; sound after it is to be dropped. Says why.
    Moved(ReplyId, u64, &'static str),
    /// A frame of silence, between the words of two workers.
    Pause(ReplyId),
    /// The reply's last frame has come.
    Ended(ReplyId),
    /// The reply's voice failed, and no other could be found.
    Failed(ReplyId, VoiceError),
    /// It went on; nothing for the session.
    Progress,
    /// It cannot be opened.
    NotOpened(VoiceError),
}

enum Came {
    Frame(Option<Result<AudioFrame, VoiceError>>),
    Fed,
}

impl Speaking {
    /// Speaks with a session that is open.
    pub fn new(fleet: Fleet, seed: &str, session: VoiceSession, purpose: Purpose) -> Self {
        Self {
            fleet,
            purpose,
            origin: Instant::now(),
            seed: seed.into(),
            opened: 0,
            choice: session.wanted().clone(),
            session: Some(Arc::new(session)),
            opening: None,
            current: None,
        }
    }

    /// The worker that speaks, where a session with it is open.
    pub fn worker(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.worker())
    }

    /// Takes another voice for what is said from now on.
    pub fn choose(&mut self, choice: VoiceChoice) {
        self.choice = choice;
        let open = self.session.as_ref();
        if open.is_some_and(|session| *session.choice() == self.choice) {
            self.opening = None;
            return;
        }
        self.open(Why::Wanted, Vec::new());
    }

    /// Adds text to a reply; the first begins it. `false`: the voice is too far behind to take more.
    /// `trace`, with the first text, is the span that the workers' belong to.
    pub fn say(&mut self, reply: ReplyId, text: String, trace: Option<Context>) -> bool {
        if self.current(reply).is_none() {
            self.leave_stand_in();
            self.current = Some(Current {
                reply,
                script: Script::default(),
                watch: Watch::new(self.purpose.patience),
                held: false,
                silence: 0,
                started: None,
                broken: None,
                avoid: Vec::new(),
                attempts: 0,
                breaks: 0,
                not_before: Duration::ZERO,
                trace: trace.unwrap_or_default(),
            });
        }
        if let Some(current) = self.current(reply) {
            if current.script.waiting() >= CLAUSES {
                return false;
            }
            current.script.say(text);
        }
        self.feed();
        true
    }

    /// Takes the voice that is wanted for the next reply, if another stood in for it and it is loaded now.
    fn leave_stand_in(&mut self) {
        let open = self.session.as_ref();
        let stands_in = open.is_some_and(|session| *session.choice() != self.choice);
        if stands_in && self.opening.is_none() && self.fleet.is_resident(&self.choice.voice) {
            self.open(Why::Wanted, Vec::new());
        }
    }

    /// No more text comes for this reply.
    pub fn end(&mut self, reply: ReplyId) {
        if let Some(current) = self.current(reply) {
            current.script.end();
            self.feed();
        }
    }

    /// Drops a reply; its worker is free at once.
    pub fn stop(&mut self, reply: ReplyId) {
        if self.current(reply).is_some() {
            self.current = None;
        }
    }

    /// Tells the worker to hold a reply, or to go on. Not waited for: the mouth has stopped already.
    pub fn control(&mut self, reply: ReplyId, action: ControlAction) {
        let now = self.now();
        let Some(current) = self.current(reply) else {
            return;
        };
        current.held = match action {
            ControlAction::Pause => true,
            ControlAction::Resume => false,
            _ => current.held,
        };
        current.watch.hold(now, current.held);
        if let Some(started) = &current.started {
            let call = started.session.control(&utterance_id(reply), action);
            let told = async move {
                if let Err(error) = call.await {
                    tracing::debug!(%error, ?action, "a voice did not take a control");
                }
            };
            tokio::spawn(told.in_current_span());
        }
    }

    /// The next thing the voice has. Pends for ever where nothing is to come; safe to drop. `listener` is where the
    /// listener is now, and no sound may leave while this is waited for.
    pub async fn next(&mut self, listener: Listener) -> Voiced {
        if let Some(current) = self.current.as_mut().filter(|current| current.silence > 0) {
            current.silence -= 1;
            return Voiced::Pause(current.reply);
        }
        let asked = self.now();
        loop {
            let now = self.now();
            let listener = Listener {
                in_hand: listener.in_hand.saturating_sub(now - asked),
                ..listener
            };
            let wake = self.look(now, listener.in_hand);
            let held = self.current.as_ref().is_some_and(|current| current.held);
            tokio::select! {
                opened = opened(&mut self.opening, held) => return self.take(opened, listener),
                came = came(&mut self.current) => match came {
                    Came::Frame(frame) => return self.came(frame),
                    Came::Fed => self.feed(),
                },
                () = tokio::time::sleep_until(self.origin + wake) => {}
            }
        }
    }

    /// Looks for another worker if the present one has broken or stands still. When to look again.
    fn look(&mut self, now: Duration, in_hand: Duration) -> Duration {
        // Nothing is due: an hour is as good as never.
        let never = now + Duration::from_secs(3_600);
        let Some(current) = self.current.as_ref().filter(|current| !current.held) else {
            return never;
        };
        if self.opening.is_some() {
            return never;
        }
        // Who has not been asked for a while finds sound that came in time.
        let waits = current
            .started
            .as_ref()
            .is_some_and(|started| !started.frames.is_empty());
        let stall = current.watch.judge(now, in_hand).filter(|_| !waits);
        let why = match (&current.broken, stall) {
            (Some(_), _) => "broken",
            (None, Some(stall)) => stall.name(),
            (None, None) => {
                let at = current.watch.deadline(now, in_hand);
                return at.map_or(never, |at| at.max(current.not_before));
            }
        };
        if now < current.not_before {
            return current.not_before;
        }
        let mut avoid = current.avoid.clone();
        avoid.extend(
            current
                .started
                .as_ref()
                .map(|started| started.session.worker().to_owned()),
        );
        self.open(Why::Instead(why), avoid);
        never
    }

    /// Opens a session, in place of whatever is being opened.
    fn open(&mut self, why: Why, avoid: Vec<String>) {
        self.opened += 1;
        let id = format!("{}-{}", self.seed, self.opened);
        let wanted = Wanted {
            last_worker: self
                .session
                .as_ref()
                .map(|session| session.worker().to_owned()),
            avoid,
            ..Wanted::new(&self.seed, self.choice.clone(), self.purpose.mode)
        };
        let (fleet, lead) = (self.fleet.clone(), self.purpose.lead);
        let opening: Opening = match why {
            Why::Wanted => Box::pin(async move { fleet.open(wanted, id, lead).await }),
            Why::Instead(_) => Box::pin(open_quickly(fleet, wanted, id, lead)),
        };
        self.opening = Some((why, opening));
    }

    /// A session is open, or is not.
    fn take(
        &mut self,
        (why, opened): (Why, Result<VoiceSession, VoiceError>),
        listener: Listener,
    ) -> Voiced {
        let now = self.now();
        let (why, current) = match (why, &mut self.current) {
            (Why::Instead(why), Some(current)) => (why, current),
            (Why::Wanted, _) | (_, None) => {
                return match opened {
                    Ok(session) => {
                        self.session = Some(Arc::new(session));
                        self.feed();
                        Voiced::Progress
                    }
                    Err(error) if why == Why::Wanted => Voiced::NotOpened(error),
                    Err(_) => Voiced::Progress,
                };
            }
        };
        let reply = current.reply;
        match opened {
            Ok(session) => {
                let back = current.watch.judge(now, listener.in_hand).is_none();
                if current.broken.is_none() && back {
                    tracing::info!(
                        reply = reply.0,
                        "a voice worker that stood still has come back"
                    );
                    return Voiced::Progress;
                }
                let Cut { at, pause } = current.script.hand_over(listener.left);
                current.silence = pause;
                tracing::warn!(
                    reply = reply.0,
                    why,
                    to = session.worker(),
                    voice = session.choice().voice,
                    at,
                    "a reply goes on with another voice worker"
                );
                current.started = None;
                current.broken = None;
                current.watch = Watch::new(self.purpose.patience);
                self.session = Some(Arc::new(session));
                self.feed();
                Voiced::Moved(reply, at, why)
            }
            Err(error) => {
                let Some(broken) = current.broken.clone() else {
                    // It may still come back by itself.
                    tracing::debug!(%error, "no other voice worker for one that stands still");
                    current.not_before = now + NOBODY_ELSE;
                    return Voiced::Progress;
                };
                // With nobody else left, those that failed are better than none.
                if !std::mem::take(&mut current.avoid).is_empty() {
                    return Voiced::Progress;
                }
                current.attempts += 1;
                match PAUSES.get(current.attempts - 1) {
                    Some(pause) => {
                        current.not_before = now + *pause;
                        Voiced::Progress
                    }
                    None => {
                        tracing::warn!(reply = reply.0, %error, "no voice worker goes on with a reply");
                        self.fail(reply, broken)
                    }
                }
            }
        }
    }

    /// A frame came, or the end of them.
    fn came(&mut self, frame: Option<Result<AudioFrame, VoiceError>>) -> Voiced {
        let now = self.now();
        let Some(current) = &mut self.current else {
            return Voiced::Progress;
        };
        let reply = current.reply;
        let error = match frame {
            Some(Ok(mut frame)) => match current.script.place(&mut frame) {
                Ok(()) => {
                    current.watch.frame(now);
                    current.watch.owes(now, current.script.is_owed());
                    return Voiced::Frame(reply, frame);
                }
                Err(error) => VoiceError::Worker(error.to_string()),
            },
            Some(Err(error)) => error,
            None => VoiceError::Worker("it ended a reply before its text".into()),
        };
        // After the last word, how the worker ends is its own affair; but it may not be there for the next reply.
        let ended = current.script.is_finished();
        if ended || current.script.is_said() {
            self.current = None;
            if !ended {
                self.session = None;
            }
            return Voiced::Ended(reply);
        }
        let lost = current.started.take();
        let worker = lost.map(|started| started.session.worker().to_owned());
        tracing::warn!(reply = reply.0, worker, %error, "a voice worker failed in the middle of a reply");
        if matches!(error, VoiceError::BadText(_)) {
            return self.fail(reply, error);
        }
        // A worker that has only forgotten the session (it was silent for long, or is a new one) is as good as any.
        if !matches!(error, VoiceError::SessionLost(_)) {
            current.avoid.extend(worker);
        }
        self.session = None;
        self.opening = self.opening.take().filter(|(why, _)| *why != Why::Wanted);
        current.attempts = 0;
        current.breaks += 1;
        if current.breaks > CHANGES {
            return self.fail(reply, error);
        }
        current.broken = Some(error);
        current.watch.owes(now, false);
        Voiced::Progress
    }

    fn fail(&mut self, reply: ReplyId, error: VoiceError) -> Voiced {
        self.current = None;
        self.opening = None;
        // The next reply opens another.
        self.session = None;
        Voiced::Failed(reply, error)
    }

    /// Hands the worker what it can take.
    fn feed(&mut self) {
        let now = self.now();
        let Some(current) = self
            .current
            .as_mut()
            .filter(|current| current.broken.is_none())
        else {
            return;
        };
        if current.started.is_none() {
            if self.opening.is_some() {
                return;
            }
            let Some(session) = &self.session else {
                return self.open(Why::Wanted, Vec::new());
            };
            let Utterance { text, frames } =
                session.speak_within(&utterance_id(current.reply), &current.trace);
            current.started = Some(Started {
                text: Some(text),
                frames,
                session: Arc::clone(session),
            });
        }
        let Some(started) = &mut current.started else {
            return;
        };
        while let (Some(text), Some(next)) = (&started.text, current.script.next_text()) {
            match text.try_send(next.to_owned()) {
                Ok(()) => current.script.hand(),
                Err(mpsc::error::TrySendError::Full(_)) => break,
                // The frames bring the reason.
                Err(mpsc::error::TrySendError::Closed(_)) => started.text = None,
            }
        }
        if current.script.all_handed() {
            started.text = None;
        }
        current.watch.owes(now, current.script.is_owed());
    }

    fn current(&mut self, reply: ReplyId) -> Option<&mut Current> {
        self.current
            .as_mut()
            .filter(|current| current.reply == reply)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// The session that is being opened, once it is. One that takes the place of another waits while the reply is held:
/// it would not know that it is.
async fn opened(
    opening: &mut Option<(Why, Opening)>,
    held: bool,
) -> (Why, Result<VoiceSession, VoiceError>) {
    match opening {
        Some((why, session)) if !(held && *why != Why::Wanted) => {
            let (why, session) = (*why, session.await);
            *opening = None;
            (why, session)
        }
        _ => std::future::pending().await,
    }
}

/// What the worker brings, or that it took more text.
async fn came(current: &mut Option<Current>) -> Came {
    let Some(current) = current else {
        return std::future::pending().await;
    };
    let Some(started) = &mut current.started else {
        return std::future::pending().await;
    };
    // Text that found the worker's queue full goes as soon as there is room, and must not wait for a frame.
    let (Some(text), Some(next)) = (&started.text, current.script.next_text()) else {
        return Came::Frame(started.frames.recv().await);
    };
    let taken = tokio::select! {
        frame = started.frames.recv() => return Came::Frame(frame),
        permit = text.reserve() => permit.map(|permit| permit.send(next.to_owned())).is_ok(),
    };
    if taken {
        current.script.hand();
    } else {
        // The frames bring the reason.
        started.text = None;
    }
    Came::Fed
}

/// As [`Fleet::open`], but no worker is waited for long: somebody listens to the silence.
async fn open_quickly(
    fleet: Fleet,
    mut wanted: Wanted,
    id: String,
    lead: Duration,
) -> Result<VoiceSession, VoiceError> {
    let mut failed = None;
    for _ in 0..CHANGES {
        let leased = match fleet.acquire(&wanted).await {
            Ok(leased) => leased,
            Err(error) => return Err(failed.unwrap_or(error)),
        };
        let worker = leased.worker.clone();
        let error = match tokio::time::timeout(MOVE_DEADLINE, leased.open(id.clone(), lead)).await {
            Ok(Ok(session)) => return Ok(session),
            Ok(Err(error)) => error,
            Err(_) => VoiceError::Worker("it opens no session".into()),
        };
        tracing::warn!(%worker, %error, session = wanted.session, "a voice worker is passed over");
        wanted.avoid.push(worker);
        failed = Some(error);
    }
    Err(failed.unwrap_or_else(|| VoiceError::Worker("no worker was tried".into())))
}

/// The name by which a worker knows a reply.
pub(crate) fn utterance_id(reply: ReplyId) -> String {
    format!("reply-{reply}")
}

#[cfg(test)]
mod tests;
