//! The session's ear: keeps the user's sound, and has it listened to away from the reactor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use duologue_audio::pcm;
use duologue_metrics::timeline;
use duologue_session::Event;
use duologue_vad::{
    Aggressiveness, CleanerConfig, EchoCancellation, EchoStatistics, GateConfig, GateStatistics,
    LightDetector, SegmentEvent, SegmenterConfig, SileroModel, SoundCleaner, SpeechListener,
    ThresholdScale, VadError, VoiceDetector,
};

use super::clock::{SessionClock, length};
use super::loudspeaker::Loudspeaker;
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
    /// What is taken out of the sound before anybody listens, where a client does not say.
    pub cleaner: CleanerConfig,
}

impl Default for HearingConfig {
    /// With the gate, and the echo taken out where there is one.
    fn default() -> Self {
        Self {
            segmenter: SegmenterConfig::default(),
            gate: Some(GateConfig::default()),
            cleaner: CleanerConfig {
                echo: EchoCancellation::Auto,
                ..CleanerConfig::default()
            },
        }
    }
}

struct Ear {
    cleaner: Option<SoundCleaner>,
    listener: SpeechListener,
}

/// What an ear brings back.
struct Listened {
    ear: Ear,
    events: Vec<SegmentEvent>,
    /// Sound to take the place of what was kept, where it was cleaned.
    cleaned: Vec<f32>,
    /// All that is heard is an echo that has just been found.
    echo_heard: bool,
    error: Option<VadError>,
}

impl Ear {
    fn listen(mut self, heard: &[f32], played: &[f32]) -> Listened {
        let _slice = timeline::slice("listen");
        let mut events = Vec::new();
        let mut cleaned = Vec::new();
        let mut error = None;
        let sound = match &mut self.cleaner {
            None => heard,
            Some(cleaner) => {
                error = cleaner.clean(heard, played, &mut cleaned).err();
                &cleaned
            }
        };
        error = self.listener.hear(sound, &mut events).err().or(error);
        let echo_heard = self
            .cleaner
            .as_mut()
            .is_some_and(SoundCleaner::just_heard_echo);
        Listened {
            ear: self,
            events,
            cleaned,
            echo_heard,
            error,
        }
    }
}

/// What is known of the place, for people to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HearingStatistics {
    /// What the noise gate knows; `None` without one.
    pub gate: Option<GateStatistics>,
    /// What is known of the echo, where it is taken out.
    pub echo: Option<EchoStatistics>,
}

/// One session's hearing.
pub struct Hearing {
    clock: SessionClock,
    kept: VecDeque<i16>,
    pending: Vec<f32>,
    pool: InferencePool,
    kind: Detector,
    config: HearingConfig,
    /// Here, or away listening.
    ear: Option<Ear>,
    job: Option<JobHandle<Listened>>,
    /// First sample of the ear's stream, which starts anew when an ear is lost.
    ear_start: u64,
    /// The session was told of speech, and not of its end.
    speech_told: bool,
    /// An ear was lost in the middle of speech: the end of what is known of it.
    broken_off: Option<Event>,
    /// The next sample to come back cleaned.
    clean_from: u64,
    loudspeaker: Loudspeaker,
    scale: ThresholdScale,
    /// The ear does not know of the last [`set_threshold`](Self::set_threshold) yet.
    new_threshold: bool,
    /// Nor of the last [`set_cleaning`](Self::set_cleaning).
    new_cleaning: bool,
    /// What the ear knew when it was last here.
    statistics: HearingStatistics,
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
            speech_told: false,
            broken_off: None,
            clean_from: 0,
            loudspeaker: Loudspeaker::new(),
            scale: ThresholdScale::default(),
            new_threshold: false,
            new_cleaning: false,
            statistics: HearingStatistics::default(),
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
        self.loudspeaker.hear(
            self.clock.now(wall),
            self.clock.time_of(self.clock.received()),
        );
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
        self.job.is_some() || self.broken_off.is_some()
    }

    /// Whether the ear was last in speech. While it is away, so it is.
    pub fn in_speech(&self) -> bool {
        self.ear.as_ref().is_none_or(|ear| ear.listener.in_speech())
    }

    /// What was heard since the last call. Waits for the ear; safe to drop.
    pub async fn heard(&mut self) -> Vec<Event> {
        if let Some(end) = self.broken_off.take() {
            return vec![end];
        }
        let Some(job) = &mut self.job else {
            return std::future::pending().await;
        };
        let outcome = job.await;
        self.job = None;
        let mut echo_heard = false;
        let events = match outcome {
            Ok(listened) => {
                self.statistics = HearingStatistics {
                    gate: listened.ear.listener.gate(),
                    echo: listened.ear.cleaner.as_ref().and_then(SoundCleaner::echo),
                };
                self.ear = Some(listened.ear);
                if let Some(error) = listened.error {
                    tracing::warn!(%error, "a window of sound was not listened to");
                }
                self.keep_cleaned(&listened.cleaned);
                echo_heard = listened.echo_heard;
                listened.events
            }
            Err(error) => {
                tracing::error!(%error, "the ear was lost; a new one listens from here");
                self.renew_ear();
                Vec::new()
            }
        };
        let mut events: Vec<Event> = events.into_iter().map(|event| self.place(event)).collect();
        if echo_heard {
            events.push(Event::EchoHeard);
        }
        for event in &events {
            match event {
                Event::SpeechStarted { .. } | Event::SpeechResumed { .. } => {
                    self.speech_told = true;
                }
                Event::SpeechStopped { .. } => self.speech_told = false,
                _ => {}
            }
        }
        events.extend(self.broken_off.take());
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

    /// What is taken out of the sound, from the next sound on.
    pub fn set_cleaning(&mut self, cleaner: CleanerConfig) {
        self.new_cleaning |= cleaner != self.config.cleaner;
        self.config.cleaner = cleaner;
    }

    /// Looks for an echo again, where it was given up.
    pub fn look_for_echo(&mut self) {
        self.new_cleaning |=
            self.config.cleaner.echo == EchoCancellation::Auto && self.statistics.echo.is_none();
    }

    /// Where the client's loudspeaker is told of what it is sent.
    pub fn loudspeaker(&mut self) -> &mut Loudspeaker {
        &mut self.loudspeaker
    }

    /// What is known of the place.
    pub fn statistics(&self) -> HearingStatistics {
        self.statistics
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
            ear.listener.set_segmenter(self.config.segmenter);
        }
        ear.listener.set_threshold_scale(self.scale);
        let first = self.clock.received() - self.pending.len() as u64;
        let mut samples = std::mem::take(&mut self.pending);
        let waiting = samples.len() as u64;
        let mut unheard = 0;
        if std::mem::take(&mut self.new_cleaning) {
            // What the last cleaner had not got to goes first, so that no sample is lost.
            let rest = ear.cleaner.take().map(SoundCleaner::rest);
            let rest = rest.unwrap_or_default();
            unheard = rest.len();
            self.clean_from = first - unheard as u64;
            samples.splice(0..0, rest);
            ear.cleaner = cleaner(self.config.cleaner);
        }
        let played = match &ear.cleaner {
            Some(cleaner) if cleaner.wants_played() => {
                let mut played = vec![0.0; unheard];
                let from = self.clock.time_of(first);
                played.extend(self.loudspeaker.read(from, samples.len() - unheard));
                played
            }
            _ => Vec::new(),
        };
        let submitted = self.pool.submit(Priority::Conversation, move || {
            ear.listen(&samples, &played)
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
        self.clean_from = self.ear_start;
        // The new ear will not tell the end of what it did not hear begin.
        if std::mem::take(&mut self.speech_told) {
            self.broken_off = Some(Event::SpeechStopped {
                end: self.clock.time_of(self.ear_start),
            });
        }
        (self.new_cleaning, self.new_threshold) = (false, false);
        let HearingConfig {
            segmenter, gate, ..
        } = self.config;
        self.ear = Some(Ear {
            cleaner: cleaner(self.config.cleaner),
            listener: SpeechListener::new(self.kind.start(), segmenter, gate),
        });
    }

    /// The recognizer is given what the ear was left with.
    fn keep_cleaned(&mut self, cleaned: &[f32]) {
        let first_kept = self.clock.received() - self.kept.len() as u64;
        let until = self.clean_from + cleaned.len() as u64;
        let forgotten = first_kept.saturating_sub(self.clean_from) as usize;
        let at = (self.clean_from.max(first_kept) - first_kept) as usize;
        let cleaned = cleaned.get(forgotten..).unwrap_or_default();
        for (kept, clean) in self.kept.range_mut(at..).zip(cleaned) {
            *kept = pcm::to_i16(*clean);
        }
        self.clean_from = until;
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

fn cleaner(config: CleanerConfig) -> Option<SoundCleaner> {
    (config != CleanerConfig::default()).then(|| SoundCleaner::new(config))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A clip of somebody who speaks, at the ear's rate.
    fn speech() -> Vec<f32> {
        let clip = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/data/speech/jfk.flac"
        );
        let clip = duologue_audio::decode_file(clip.as_ref()).unwrap();
        clip.at_rate(HEARING_RATE).unwrap().samples
    }

    #[tokio::test]
    async fn an_ear_lost_in_the_middle_of_speech_leaves_no_speech_without_an_end() {
        let pool = InferencePool::new("ear", 1, 1);
        let level = Aggressiveness::from_level(0).unwrap();
        let mut hearing = Hearing::new(
            pool.clone(),
            Detector::Light(level),
            HearingConfig::default(),
        );
        let speech = speech();
        let second = HEARING_RATE as usize;
        hearing.receive(speech[..2 * second].to_vec(), Duration::from_secs(2));
        let heard = hearing.heard().await;
        assert!(
            matches!(heard[..], [Event::SpeechStarted { .. }]),
            "{heard:?}"
        );

        // The pool is full: one job runs, another waits.
        let (release, blocked) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel();
        let jobs = [
            pool.submit(Priority::Conversation, move || {
                started.send(()).unwrap();
                blocked.recv().ok();
            }),
            {
                running.recv().unwrap();
                pool.submit(Priority::Conversation, || ())
            },
        ];
        hearing.receive(
            speech[2 * second..2 * second + 320].to_vec(),
            Duration::from_millis(2_020),
        );
        assert!(hearing.is_listening());
        let told = hearing.heard().await;
        assert!(
            matches!(told[..], [Event::SpeechStopped { .. }]),
            "{told:?}"
        );
        assert!(!hearing.is_listening());
        drop(release);
        drop(jobs);
    }
}
