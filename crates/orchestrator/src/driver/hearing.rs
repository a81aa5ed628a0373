//! The session's ear: keeps the user's sound, and has it listened to away from the reactor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use duologue_audio::pcm;
use duologue_session::Event;
use duologue_vad::{
    Aggressiveness, GateConfig, GateStatistics, LightDetector, SegmentEvent, SegmenterConfig,
    SileroModel, SpeechListener, ThresholdScale, VadError, VoiceDetector,
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
    /// Its name, for people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Silero(_) => "silero".into(),
            Self::Light(level) => format!("light {level:?}"),
        }
    }

    fn start(&self) -> Box<dyn VoiceDetector> {
        match self {
            Self::Silero(model) => Box::new(model.detector()),
            Self::Light(level) => Box::new(LightDetector::new(*level)),
        }
    }
}

/// How a session listens.
#[derive(Clone, Copy, Debug)]
pub struct HearingConfig {
    /// What makes speech out of the detector's probabilities.
    pub segmenter: SegmenterConfig,
    /// What is too quiet to be meant for us; `None`: the detector alone decides.
    pub gate: Option<GateConfig>,
}

impl Default for HearingConfig {
    /// With the gate.
    fn default() -> Self {
        Self {
            segmenter: SegmenterConfig::default(),
            gate: Some(GateConfig::default()),
        }
    }
}

type Listened = (SpeechListener, Vec<SegmentEvent>, Option<VadError>);

/// One session's hearing.
pub struct Hearing {
    clock: SessionClock,
    kept: VecDeque<i16>,
    pending: Vec<f32>,
    pool: InferencePool,
    kind: Detector,
    config: HearingConfig,
    /// Here, or away listening.
    ear: Option<SpeechListener>,
    job: Option<JobHandle<Listened>>,
    /// First sample of the ear's stream, which starts anew when an ear is lost.
    ear_start: u64,
    scale: ThresholdScale,
    /// The ear does not know of the last [`set_threshold`](Self::set_threshold) yet.
    new_threshold: bool,
    /// What the gate knew when the ear was last here.
    gate: Option<GateStatistics>,
}

impl Hearing {
    /// An ear at the start of a session. The core adds the pre-roll itself.
    pub fn new(pool: InferencePool, kind: Detector, config: HearingConfig) -> Self {
        let mut hearing = Self {
            clock: SessionClock::new(),
            kept: VecDeque::new(),
            pending: Vec::new(),
            pool,
            kind,
            config: HearingConfig {
                segmenter: SegmenterConfig {
                    pre_roll_ms: 0,
                    ..config.segmenter
                },
                ..config
            },
            ear: None,
            job: None,
            ear_start: 0,
            scale: ThresholdScale::default(),
            new_threshold: false,
            gate: None,
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
        self.ear.as_ref().is_none_or(SpeechListener::in_speech)
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
                self.gate = ear.gate();
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
        self.scale = ThresholdScale {
            odds: scale,
            loudness: scale,
        };
    }

    /// What the noise gate knew last; `None` without one.
    pub fn gate(&self) -> Option<GateStatistics> {
        self.gate
    }

    /// The threshold for speech, from the next sound on.
    pub fn set_threshold(&mut self, start: f32) {
        let stop = (start - 0.15).max(start * 0.5);
        let segmenter = &mut self.config.segmenter;
        if start == segmenter.start_threshold {
            return;
        }
        segmenter.start_threshold = start;
        segmenter.stop_threshold = stop;
        self.new_threshold = true;
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
        if std::mem::take(&mut self.new_threshold) {
            ear.set_segmenter(self.config.segmenter);
        }
        ear.set_threshold_scale(self.scale);
        let samples = std::mem::take(&mut self.pending);
        let waiting = samples.len() as u64;
        let submitted = self.pool.submit(Priority::Conversation, move || {
            let mut events = Vec::new();
            let error = ear.hear(&samples, &mut events).err();
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
        let HearingConfig { segmenter, gate } = self.config;
        self.ear = Some(SpeechListener::new(self.kind.start(), segmenter, gate));
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
