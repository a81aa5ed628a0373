//! Says one utterance: text from the client to the engine, sound from the engine to the outbox.
//!
//! One task an utterance. It computes only while the outbox has room, so a pause, a lead that is used up or a
//! client that does not read stops the engine by themselves. It takes text only while its queue has room, so
//! a client that writes faster than is spoken is held back by flow control. Every wait ends at a deadline.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use duologue_metrics::{table, timeline};
use duologue_rpc::TextChunk;
use duologue_tts::{FrameStream, Synthesizer, TtsError};
use futures_util::future::OptionFuture;
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};
use tracing::{Instrument, Span};

use crate::capabilities::Gauge;
use crate::config::Timeouts;
use crate::engine::Engine;
use crate::figures::Spoken;
use crate::outbox::{Outbox, Progress};
use crate::pacing::FRAME;
use crate::refusal::Refusal;
use crate::service::Inner;
use crate::sessions::Session;
use crate::trace::Trace;
use crate::validate::check_id;

/// Frames computed before the engine thread is somebody else's: 100 ms.
const QUANTUM: usize = 5;

/// How long an utterance waits for the end of the one before.
const CANCEL_WAIT: Duration = Duration::from_millis(250);

/// Says what comes on `input` into `outbox`, to its end.
pub(crate) async fn run(
    worker: Arc<Inner>,
    input: Streaming<TextChunk>,
    outbox: Arc<Outbox>,
    trace: Trace,
) {
    let ended = outbox.ended.clone();
    let spoken = tokio::select! {
        biased;
        // Drops all the utterance held; a computation under way has been told to stop.
        () = ended.cancelled() => return,
        spoken = speak(&worker, input, &outbox, &trace) => spoken,
    };
    if let Err(status) = spoken {
        table::WORKER_FAILURES.count();
        trace.failed(&status);
        outbox.end(Some(status));
    }
}

async fn speak(
    worker: &Arc<Inner>,
    mut input: Streaming<TextChunk>,
    outbox: &Arc<Outbox>,
    trace: &Trace,
) -> Result<(), Status> {
    let timeouts = worker.config.timeouts;
    let first = tokio::time::timeout(timeouts.text, input.message())
        .await
        .map_err(|_| Refusal::TimedOut {
            what: "no first text chunk came",
            waited: timeouts.text,
        })?
        .map_err(input_error)?
        .ok_or(Refusal::NoFirstChunk)?;
    check_id("utterance_id", &first.utterance_id)?;
    let span = tracing::error_span!(
        "utterance",
        session = first.session_id,
        utterance = first.utterance_id
    );
    trace.is_of(&first.session_id, &first.utterance_id);
    let said = say(worker, first, input, outbox, trace);
    said.instrument(span).await
}

/// Says the utterance whose first text is here.
async fn say(
    worker: &Arc<Inner>,
    first: TextChunk,
    input: Streaming<TextChunk>,
    outbox: &Arc<Outbox>,
    trace: &Trace,
) -> Result<(), Status> {
    let timeouts = worker.config.timeouts;
    let session = worker.sessions.find(&first.session_id)?;
    outbox.open(&first.utterance_id, session.lead);
    begin(&session, outbox).await?;
    // Only now: a worker that shuts down looks for what has begun after it has closed.
    worker.check_open()?;
    let voice = session.voice.voice();
    let mut utterance = Utterance {
        limit: worker.config.max_chunk_chars.min(voice.voice().max_chars),
        max_queued: worker.config.max_queued_chunks,
        session_id: first.session_id.clone(),
        utterance_id: first.utterance_id.clone(),
        chunks: 0,
        queue: VecDeque::new(),
        more_text: true,
        engine: Arc::clone(&worker.engine),
        outbox: Arc::clone(outbox),
        voicing: Some(Voicing {
            state: VoicingState::Closed(voice),
            effort: Effort::new(Arc::clone(&worker.figures), trace.clone()),
            session,
        }),
        job: None,
        unspoken: false,
        finish_told: false,
        asked_at: None,
        active_at: Instant::now(),
    };
    utterance.take_chunk(first)?;
    utterance.run(input, timeouts).await
}

/// Begins the utterance, after the one before if that is about to end: a client that cancelled its stream may
/// have its next one here before the cancellation has taken its course.
async fn begin(session: &Session, outbox: &Arc<Outbox>) -> Result<(), Refusal> {
    let Err(refusal) = session.begin(outbox) else {
        return Ok(());
    };
    let (Refusal::Speaking(_), Some(before)) = (&refusal, session.current()) else {
        return Err(refusal);
    };
    match tokio::time::timeout(CANCEL_WAIT, before.ended.cancelled()).await {
        Ok(()) => session.begin(outbox),
        Err(_) => Err(refusal),
    }
}

/// A message that does not come through: the codec's own refusals, or a message that is too large.
fn input_error(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => Status::invalid_argument(status.message()),
        _ => status,
    }
}

struct Utterance {
    limit: usize,
    max_queued: usize,
    session_id: String,
    utterance_id: String,
    /// Chunks taken so far.
    chunks: usize,
    /// Text the voice has not been given; at most `max_queued`, then no more is read.
    queue: VecDeque<String>,
    /// The client may send more.
    more_text: bool,
    engine: Arc<Engine>,
    outbox: Arc<Outbox>,
    /// Absent while a job has it.
    voicing: Option<Voicing>,
    job: Option<Job>,
    /// The voice has text it has not finished saying.
    unspoken: bool,
    /// The voice knows that no more text comes.
    finish_told: bool,
    /// When the first text came.
    asked_at: Option<Instant>,
    /// When text last came or a computation ended.
    active_at: Instant,
}

struct Job {
    since: Instant,
    done: Pin<Box<dyn Future<Output = Computed> + Send>>,
}

/// The voice back, and what it did; or how it crashed.
type Computed = Result<(Voicing, Result<Said, TtsError>), Refusal>;

/// What became of a computation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    /// There is more to say.
    More,
    /// All text so far was said.
    All,
}

impl Utterance {
    async fn run(
        &mut self,
        mut input: Streaming<TextChunk>,
        timeouts: Timeouts,
    ) -> Result<(), Status> {
        loop {
            let progress = self.outbox.progress();
            if self.job.is_none() && progress.room && self.has_work() {
                self.start(progress.dry_at);
            }
            let (deadline, late) = self.deadline(&progress, &timeouts);
            if deadline <= Instant::now() {
                return Err(late.into());
            }
            let outbox = Arc::clone(&self.outbox);
            let job: OptionFuture<_> = self.job.as_mut().map(|job| &mut job.done).into();
            tokio::select! {
                biased;
                () = outbox.changed() => {}
                Some(done) = job => {
                    self.job = None;
                    self.active_at = Instant::now();
                    let (voicing, said) = done?;
                    self.voicing = Some(voicing);
                    self.unspoken = said.map_err(Refusal::from)? == Said::More;
                }
                chunk = input.message(), if self.more_text && self.queue.len() < self.max_queued => {
                    self.active_at = Instant::now();
                    match chunk.map_err(input_error)? {
                        Some(chunk) => self.take_chunk(chunk)?,
                        None => self.more_text = false,
                    }
                }
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    fn take_chunk(&mut self, chunk: TextChunk) -> Result<(), Refusal> {
        let n = self.chunks;
        let same = |what, found: String, expected: &String| {
            if found.is_empty() || found == *expected {
                return Ok(());
            }
            Err(Refusal::MixedStream {
                chunk: n,
                what,
                found,
                expected: expected.clone(),
            })
        };
        same("session", chunk.session_id, &self.session_id)?;
        same("utterance", chunk.utterance_id, &self.utterance_id)?;
        let chars = chunk.text.chars().count();
        if chars > self.limit {
            return Err(Refusal::ChunkTooLong {
                chunk: n,
                chars,
                limit: self.limit,
            });
        }
        self.chunks += 1;
        if !chunk.text.trim().is_empty() {
            self.asked_at.get_or_insert_with(Instant::now);
        }
        self.queue.push_back(chunk.text);
        Ok(())
    }

    fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.unspoken || !(self.more_text || self.finish_told)
    }

    fn start(&mut self, dry_at: Instant) {
        let Some(mut voicing) = self.voicing.take() else {
            return;
        };
        let texts = std::mem::take(&mut self.queue);
        let finish = !self.more_text;
        self.finish_told = finish;
        self.unspoken = true;
        let (engine, outbox) = (Arc::clone(&self.engine), Arc::clone(&self.outbox));
        voicing.effort.asked_at = self.asked_at;
        let compute = async move {
            let lane = engine.lane(dry_at).await;
            tokio::task::spawn_blocking(move || {
                let said = voicing.compute(texts, finish, &outbox);
                drop(lane);
                (voicing, said)
            })
            .await
            .map_err(|error| Refusal::EngineCrash(error.to_string()))
        };
        self.job = Some(Job {
            since: Instant::now(),
            done: Box::pin(compute),
        });
    }

    /// When what is waited for is overdue, and how that is told.
    fn deadline(&self, progress: &Progress, timeouts: &Timeouts) -> (Instant, Refusal) {
        let due = |since: Instant, waited: Duration, what| {
            (since + waited, Refusal::TimedOut { what, waited })
        };
        if progress.paused {
            return due(
                progress.quiet_since,
                timeouts.pause,
                "no RESUME came after PAUSE",
            );
        }
        let engine = self
            .job
            .as_ref()
            .map(|job| due(job.since, timeouts.engine, "the engine gave no sound"));
        let client = progress.unsent.then(|| {
            due(
                progress.quiet_since,
                timeouts.stalled_client,
                "the client read no frame",
            )
        });
        match (engine, client) {
            (Some(a), Some(b)) => {
                if a.0 <= b.0 {
                    a
                } else {
                    b
                }
            }
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => due(
                self.active_at.max(progress.quiet_since),
                timeouts.text,
                "no further text came",
            ),
        }
    }
}

/// The engine's side of an utterance, handed to a blocking thread and back. It holds the session, so that the
/// slot is not free before the engine is.
struct Voicing {
    state: VoicingState,
    effort: Effort,
    session: Arc<Session>,
}

enum VoicingState {
    Closed(Arc<dyn Synthesizer>),
    Open(Box<FrameStream>),
}

impl Voicing {
    /// Adds text and computes up to [`QUANTUM`] frames into `outbox`. Blocks.
    fn compute(
        &mut self,
        texts: VecDeque<String>,
        finish: bool,
        outbox: &Outbox,
    ) -> Result<Said, TtsError> {
        let _slice = timeline::slice("synthesize");
        let gauge = Arc::clone(&self.effort.gauge);
        let (said, took) = gauge.share(|| self.say(texts, finish, outbox));
        self.effort.computing += took;
        said
    }

    fn say(
        &mut self,
        texts: VecDeque<String>,
        finish: bool,
        outbox: &Outbox,
    ) -> Result<Said, TtsError> {
        let frames = match &mut self.state {
            VoicingState::Open(frames) => frames,
            VoicingState::Closed(voice) => {
                let (settings, before) = (&self.session.settings, &self.session.conversation);
                let speech = voice.begin_in(settings, before)?;
                let frames = FrameStream::new(speech, voice.voice().sample_rate)?;
                self.state = VoicingState::Open(Box::new(frames));
                return self.say(texts, finish, outbox);
            }
        };
        for text in &texts {
            frames.say(text)?;
        }
        if finish {
            frames.finish();
        }
        for _ in 0..QUANTUM {
            let Some(frame) = frames.next(&outbox.stop)? else {
                return Ok(Said::All);
            };
            self.effort.frame();
            if !outbox.push(frame) {
                break;
            }
        }
        Ok(Said::More)
    }
}

/// What an utterance costs, told when it is over however it ended.
struct Effort {
    gauge: Arc<Gauge>,
    trace: Trace,
    /// The utterance's, for it may end on a thread that knows of none.
    span: Span,
    asked_at: Option<Instant>,
    first_audio: Option<Duration>,
    computing: Duration,
    frames: u32,
}

impl Effort {
    fn new(gauge: Arc<Gauge>, trace: Trace) -> Self {
        Effort {
            gauge,
            trace,
            span: Span::current(),
            asked_at: None,
            first_audio: None,
            computing: Duration::ZERO,
            frames: 0,
        }
    }

    /// A frame was computed.
    fn frame(&mut self) {
        self.frames += 1;
        if self.first_audio.is_none() {
            self.first_audio = self.asked_at.map(|asked| asked.elapsed());
            if let Some(after) = self.first_audio {
                self.trace.first_audio(after);
            }
        }
    }
}

impl Drop for Effort {
    fn drop(&mut self) {
        // Where there was no text there is but a frame of silence.
        if let Some(first_audio) = self.first_audio {
            let sound = FRAME * self.frames;
            table::WORKER_UTTERANCES.count();
            table::WORKER_FIRST_AUDIO.record(first_audio);
            table::WORKER_FACTOR.record_value(self.computing.div_duration_f64(sound));
            self.trace.spoken(self.computing, sound);
            let first_audio_ms = first_audio.as_millis() as u64;
            self.span
                .in_scope(|| tracing::debug!(first_audio_ms, ?sound, "spoken"));
            self.gauge.add(Spoken {
                first_audio,
                computing: self.computing,
                sound,
            });
        }
    }
}
