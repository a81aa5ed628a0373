//! What an utterance has said and not yet sent.
//!
//! The engine puts frames in; the response stream takes them out when the connection has room and the pacer
//! allows; Control acts on it in between. There is no queue after this one but the connection's own, and all
//! three act under one lock. So once PAUSE or STOP has been applied no further frame leaves, and the number
//! of samples that Control answers with is exact.
//!
//! An utterance ends once: whoever ends it first decides how. From then on it is over for its session, which
//! may begin the next, and [`StopFlag`] is set so that the engine lets go of it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use duologue_audio::FRAME_SAMPLES;
use duologue_rpc::{AudioFrame, WordMark};
use duologue_tts::{SpokenFrame, StopFlag};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::pacing::{Pacer, Permit};

/// The engine computes on when fewer frames than this wait to be sent: 500 ms. A voice needs longest for the start of
/// a sentence, several times as long on a busy machine, and frames go out evenly only while there are some.
const LOW_WATER: usize = 25;

pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Something changed that the utterance's task may wait for.
    changed: Notify,
    /// Tells the engine to give up.
    pub(crate) stop: StopFlag,
    /// Tells everybody else that the utterance is over.
    pub(crate) ended: CancellationToken,
    origin: Instant,
}

struct State {
    utterance_id: String,
    frames: VecDeque<SpokenFrame>,
    pacer: Pacer,
    frames_sent: u64,
    reader: Option<Waker>,
    /// When a frame was last sent or first came to wait, or when the utterance was paused or resumed.
    quiet_since: Instant,
    over: Option<Over>,
}

/// An utterance's end.
struct Over {
    at: Instant,
    /// For the client, until it has been told.
    status: Option<Status>,
}

/// What the utterance's task needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) paused: bool,
    /// Frames wait for the client.
    pub(crate) unsent: bool,
    /// More sound should be computed.
    pub(crate) room: bool,
    /// Since when nothing was sent, or since when the utterance is paused.
    pub(crate) quiet_since: Instant,
    /// When the listener runs out of all there is.
    pub(crate) dry_at: Instant,
}

/// What Control did.
pub(crate) struct Applied {
    pub(crate) samples_sent: u64,
    pub(crate) utterance_id: String,
}

impl Outbox {
    pub(crate) fn new(lead: Duration) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Outbox {
            state: Mutex::new(State {
                utterance_id: String::new(),
                frames: VecDeque::new(),
                pacer: Pacer::new(lead),
                frames_sent: 0,
                reader: None,
                quiet_since: now,
                over: None,
            }),
            changed: Notify::new(),
            stop: StopFlag::default(),
            ended: CancellationToken::new(),
            origin: now,
        })
    }

    /// Names the utterance and sets its lead, before its first frame.
    pub(crate) fn open(&self, utterance_id: &str, lead: Duration) {
        let mut state = self.lock();
        utterance_id.clone_into(&mut state.utterance_id);
        state.pacer = Pacer::new(lead);
    }

    /// Resolves when the state may have changed since the last call; for one waiter.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(crate) fn progress(&self) -> Progress {
        let state = self.lock();
        let unsent = crate::pacing::FRAME * state.frames.len() as u32;
        let now = self.elapsed();
        let paused = state.pacer.is_paused();
        Progress {
            paused,
            unsent: !state.frames.is_empty(),
            room: state.over.is_none() && !paused && state.frames.len() < LOW_WATER,
            quiet_since: state.quiet_since,
            dry_at: self.origin + state.pacer.dry_at(now).max(now) + unsent,
        }
    }

    /// Adds a frame; from any thread. Returns whether there is room for more.
    pub(crate) fn push(&self, frame: SpokenFrame) -> bool {
        let mut state = self.lock();
        if state.over.is_some() {
            return false;
        }
        if state.frames.is_empty() {
            state.quiet_since = Instant::now();
        }
        state.frames.push_back(frame);
        self.wake(&mut state);
        state.frames.len() < LOW_WATER
    }

    pub(crate) fn is_over(&self) -> bool {
        self.lock().over.is_some()
    }

    /// When the utterance ended, if it has.
    pub(crate) fn over_at(&self) -> Option<Instant> {
        self.lock().over.as_ref().map(|over| over.at)
    }

    /// Stops frames. `None` if the utterance is over or is not the one named.
    pub(crate) fn pause(&self, utterance_id: &str) -> Option<Applied> {
        self.apply(utterance_id, |state, now, elapsed| {
            if !state.pacer.is_paused() {
                state.quiet_since = now;
                state.pacer.pause(elapsed);
            }
        })
    }

    /// Lets frames go on; `None` as for [`Outbox::pause`].
    pub(crate) fn resume(&self, utterance_id: &str) -> Option<Applied> {
        self.apply(utterance_id, |state, now, elapsed| {
            if state.pacer.is_paused() {
                state.quiet_since = now;
                state.pacer.resume(elapsed);
            }
        })
    }

    /// Ends the utterance without an error; `None` as for [`Outbox::pause`].
    pub(crate) fn halt(&self, utterance_id: &str) -> Option<Applied> {
        let applied = self.apply(utterance_id, |_, _, _| {})?;
        self.end(None);
        Some(applied)
    }

    /// Looks without touching; `None` as for [`Outbox::pause`].
    pub(crate) fn look(&self, utterance_id: &str) -> Option<Applied> {
        self.apply(utterance_id, |_, _, _| {})
    }

    fn apply(
        &self,
        utterance_id: &str,
        act: impl FnOnce(&mut State, Instant, Duration),
    ) -> Option<Applied> {
        let mut state = self.lock();
        if state.over.is_some() || !(utterance_id.is_empty() || utterance_id == state.utterance_id)
        {
            return None;
        }
        act(&mut state, Instant::now(), self.elapsed());
        self.wake(&mut state);
        Some(Applied {
            samples_sent: state.frames_sent * FRAME_SAMPLES as u64,
            utterance_id: state.utterance_id.clone(),
        })
    }

    /// Ends the utterance, with an error for the client or without; only the first end counts.
    pub(crate) fn end(&self, status: Option<Status>) {
        let mut state = self.lock();
        self.end_locked(&mut state, status);
        self.wake(&mut state);
    }

    fn end_locked(&self, state: &mut State, status: Option<Status>) {
        if state.over.is_none() {
            state.over = Some(Over {
                at: Instant::now(),
                status,
            });
            state.frames.clear();
            self.stop.stop();
            self.ended.cancel();
        }
    }

    fn wake(&self, state: &mut State) {
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
        self.changed.notify_one();
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next frame, the end, or the time to ask again; keeps the waker for changes before that.
    fn take(&self, cx: &Context<'_>) -> Take {
        let mut state = self.lock();
        if let Some(over) = &mut state.over {
            return Take::Over(over.status.take());
        }
        let now = self.elapsed();
        match state.pacer.permit(now) {
            Permit::Now => {
                if let Some(spoken) = state.frames.pop_front() {
                    state.pacer.sent(now);
                    let frame = to_message(&state.utterance_id, state.frames_sent, spoken);
                    state.frames_sent += 1;
                    state.quiet_since = Instant::now();
                    if frame.r#final {
                        self.end_locked(&mut state, None);
                    }
                    self.changed.notify_one();
                    return Take::Frame(frame);
                }
            }
            Permit::At(at) if !state.frames.is_empty() => {
                state.reader = Some(cx.waker().clone());
                return Take::At(self.origin + at);
            }
            Permit::At(_) | Permit::Paused => {}
        }
        state.reader = Some(cx.waker().clone());
        Take::Later
    }
}

enum Take {
    Frame(AudioFrame),
    At(Instant),
    Later,
    Over(Option<Status>),
}

fn to_message(utterance_id: &str, sequence: u64, spoken: SpokenFrame) -> AudioFrame {
    let pcm: Vec<u8> = spoken
        .frame
        .0
        .iter()
        .flat_map(|s| s.to_le_bytes())
        .collect();
    let words = spoken.words.into_iter().map(|word| WordMark {
        word: word.word,
        start_sample: word.start,
        end_sample: word.end,
        chunk: word.chunk,
        // A chunk is far shorter than 4 GiB.
        text_start: word.text.start as u32,
        text_end: word.text.end as u32,
    });
    AudioFrame {
        utterance_id: utterance_id.to_owned(),
        sequence,
        pcm: pcm.into(),
        r#final: spoken.last,
        words: words.collect(),
    }
}

/// The response stream of Synthesize. Dropping it, as the server does when the client or its connection goes
/// away, ends the utterance.
pub(crate) struct Frames {
    outbox: Arc<Outbox>,
    timer: Pin<Box<Sleep>>,
}

impl Frames {
    pub(crate) fn new(outbox: Arc<Outbox>) -> Self {
        Frames {
            outbox,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }
}

impl Stream for Frames {
    type Item = Result<AudioFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.outbox.take(cx) {
                Take::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                Take::Over(status) => return Poll::Ready(status.map(Err)),
                Take::Later => return Poll::Pending,
                Take::At(at) => {
                    self.timer.as_mut().reset(at);
                    ready!(self.timer.as_mut().poll(cx));
                }
            }
        }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.outbox.end(None);
    }
}
