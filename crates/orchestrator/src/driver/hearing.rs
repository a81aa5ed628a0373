//! The session's ear: keeps the user's sound, and has it listened to away from the reactor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use duologue_audio::pcm;
use duologue_session::Event;
use duologue_vad::{
    Aggressiveness, LightDetector, SegmentEvent, SegmenterConfig, SileroModel, SpeechSegmenter,
    VadError, VoiceDetector, Window,
};

use super::clock::{SessionClock, length};
use crate::inference::{InferencePool, JobHandle, PoolError, Priority};
use crate::realtime::HEARING_RATE;

/// Sound that is kept: a longest turn, and what the end-of-turn model wants of before it.
const KEPT: usize = 120 * HEARING_RATE as usize;
/// Sound that may wait to be listened to before the client has to wait.
const BACKLOG: usize = 30 * HEARING_RATE as usize;

/// Which voice detector listens.
#[derive(Clone)]
pub enum Detector {
    /// Silero: a neural network, 0.4 ms a window.
    Silero(Arc<SileroModel>),
    /// A light one, for machines where that is too much.
    Light(Aggressiveness),
}

impl Detector {
    fn start(&self) -> Box<dyn VoiceDetector> {
        match self {
            Self::Silero(model) => Box::new(model.detector()),
            Self::Light(level) => Box::new(LightDetector::new(*level)),
        }
    }
}

struct Ear {
    detector: Box<dyn VoiceDetector>,
    segmenter: SpeechSegmenter,
    windows: Vec<Window>,
}

type Listened = (Ear, Vec<SegmentEvent>, Option<VadError>);

/// One session's hearing.
pub struct Hearing {
    clock: SessionClock,
    kept: VecDeque<i16>,
    pending: Vec<f32>,
    pool: InferencePool,
    kind: Detector,
    config: SegmenterConfig,
    /// Here, or away listening.
    ear: Option<Ear>,
    job: Option<JobHandle<Listened>>,
    /// First sample of the ear's stream, which starts anew when an ear is lost.
    ear_start: u64,
    scale: f32,
}

impl Hearing {
    /// An ear at the start of a session. The core adds the pre-roll itself.
    pub fn new(pool: InferencePool, kind: Detector, config: SegmenterConfig) -> Self {
        let mut hearing = Self {
            clock: SessionClock::new(),
            kept: VecDeque::new(),
            pending: Vec::new(),
            pool,
            kind,
            config: SegmenterConfig {
                pre_roll_ms: 0,
                ..config
            },
            ear: None,
            job: None,
            ear_start: 0,
            scale: 1.0,
        };
        hearing.renew_ear();
        hearing
    }

    /// The session's clock.
    pub fn clock(&self) -> &SessionClock {
        &self.clock
    }

    /// Takes sound in.
    pub fn receive(&mut self, samples: Vec<f32>, wall: Duration) {
        self.clock.receive(samples.len(), wall);
        let surplus = (self.kept.len() + samples.len()).saturating_sub(KEPT);
        self.kept.drain(..surplus.min(self.kept.len()));
        self.kept
            .extend(samples.iter().map(|sample| pcm::to_i16(*sample)));
        self.pending.extend(samples);
        self.listen();
    }

    /// Whether the client should wait before it sends more.
    pub fn is_behind(&self) -> bool {
        self.pending.len() > BACKLOG
    }

    /// Whether [`heard`](Self::heard) has something to wait for.
    pub fn is_listening(&self) -> bool {
        self.job.is_some()
    }

    /// Whether the ear was last in speech. While it is away, so it is.
    pub fn in_speech(&self) -> bool {
        self.ear
            .as_ref()
            .is_none_or(|ear| ear.segmenter.in_speech())
    }

    /// What was heard since the last call. Waits for the ear; safe to drop.
    pub async fn heard(&mut self) -> Vec<Event> {
        let Some(job) = &mut self.job else {
            return std::future::pending().await;
        };
        let outcome = job.await;
        self.job = None;
        let events = match outcome {
            Ok((ear, events, error)) => {
                self.ear = Some(ear);
                if let Some(error) = error {
                    tracing::warn!(%error, "a window of sound was not listened to");
                }
                events
            }
            Err(error) => {
                tracing::error!(%error, "the ear was lost; a new one listens from here");
                self.renew_ear();
                Vec::new()
            }
        };
        let events = events.into_iter().map(|event| self.place(event)).collect();
        self.listen();
        events
    }

    /// How much harder than usual it is to be taken for speech, from the next sound on.
    pub fn set_threshold_scale(&mut self, scale: f32) {
        self.scale = scale;
    }

    /// The threshold for speech, from the next sound on.
    pub fn set_threshold(&mut self, start: f32) {
        let stop = (start - 0.15).max(start * 0.5);
        if start == self.config.start_threshold {
            return;
        }
        self.config.start_threshold = start;
        self.config.stop_threshold = stop;
        if let Some(ear) = &mut self.ear {
            ear.segmenter = SpeechSegmenter::new(self.config);
        }
    }

    /// The sound between two times, as far as it is kept.
    pub fn sound(&self, from: Duration, to: Duration) -> Vec<f32> {
        let first_kept = self.clock.received() - self.kept.len() as u64;
        let place = |time| self.clock.sample_at(time).max(first_kept) - first_kept;
        let (from, to) = (place(from) as usize, place(to) as usize);
        self.kept
            .range(from.min(to)..to)
            .map(|sample| pcm::to_f32(*sample))
            .collect()
    }

    fn listen(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let Some(mut ear) = self.ear.take() else {
            return;
        };
        ear.segmenter.set_threshold_scale(self.scale);
        let samples = std::mem::take(&mut self.pending);
        let waiting = samples.len() as u64;
        let submitted = self.pool.submit(Priority::Conversation, move || {
            ear.windows.clear();
            let error = ear.detector.process(&samples, &mut ear.windows).err();
            let events = ear
                .windows
                .iter()
                .filter_map(|window| ear.segmenter.push(window))
                .collect();
            (ear, events, error)
        });
        match submitted {
            Ok(job) => self.job = Some(job),
            Err(PoolError::Full { .. } | PoolError::Lost { .. }) => {
                tracing::warn!(lost = ?length(waiting), "the ears are overloaded; sound was not listened to");
                self.renew_ear();
            }
        }
    }

    fn renew_ear(&mut self) {
        self.ear_start = self.clock.received() - self.pending.len() as u64;
        self.ear = Some(Ear {
            detector: self.kind.start(),
            segmenter: SpeechSegmenter::new(self.config),
            windows: Vec::new(),
        });
    }

    fn place(&self, event: SegmentEvent) -> Event {
        let at = |sample: u64| self.clock.time_of(self.ear_start + sample);
        match event {
            SegmentEvent::SpeechStarted { onset_sample } => Event::SpeechStarted {
                onset: at(onset_sample),
            },
            SegmentEvent::Silence { since_sample } => Event::Silence {
                since: at(since_sample),
            },
            SegmentEvent::SpeechResumed { at_sample } => Event::SpeechResumed {
                onset: at(at_sample),
            },
            SegmentEvent::SpeechStopped { end_sample } => Event::SpeechStopped {
                end: at(end_sample),
            },
        }
    }
}
