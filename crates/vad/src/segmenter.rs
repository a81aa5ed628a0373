//! Stretches of speech out of a row of probabilities.
//!
//! Two thresholds keep it from flickering: speech must rise above the higher one
//! to begin and fall below the lower one to pause. Both edges need a little time
//! to be believed, but they are reported at the sample where they really were.
//! A pause is told twice: early, so that transcription and the end-of-turn model
//! can begin, and again when it has lasted so long that nothing else is to be
//! waited for. Whoever decides sooner calls [`SpeechSegmenter::end`].
//!
//! A gate may have a say as well: speech begins only if enough of it is let
//! through, and is over when nothing of it has been for a while. Where it began is
//! the detector's to say, within reason.

use crate::{Window, samples};

/// How far before the first sound that a gate lets through speech may begin.
const SOFT_ONSET: u64 = samples(300);
/// Speech of which a gate lets nothing through for so long is over; one word may
/// well be quieter than the others.
const GATE_HOLD: u64 = samples(200);

/// What turns probabilities into speech. Milliseconds of sound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmenterConfig {
    /// Probability from which a window may begin speech.
    pub start_threshold: f32,
    /// Probability below which a window is silence. Not above the other.
    pub stop_threshold: f32,
    /// Speech shorter than this is not speech.
    pub min_speech_ms: u32,
    /// Silence after which [`SegmentEvent::Silence`] is told.
    pub silence_edge_ms: u32,
    /// Silence after which speech has stopped.
    pub min_silence_ms: u32,
    /// Sound before the first loud window that belongs to the speech.
    pub pre_roll_ms: u32,
}

impl Default for SegmenterConfig {
    /// 0.5 and 0.35; 64 ms of speech, 96 and 700 ms of silence, 300 ms of pre-roll.
    fn default() -> SegmenterConfig {
        SegmenterConfig {
            start_threshold: 0.5,
            stop_threshold: 0.35,
            min_speech_ms: 64,
            silence_edge_ms: 96,
            min_silence_ms: 700,
            pre_roll_ms: 300,
        }
    }
}

/// What happened, at which sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentEvent {
    /// Someone speaks.
    SpeechStarted {
        /// Where the speech begins, pre-roll included; never before the end of
        /// the speech before it.
        onset_sample: u64,
    },
    /// A pause, perhaps the end. Told once for each pause.
    Silence {
        /// The first silent sample.
        since_sample: u64,
    },
    /// The pause was only a pause.
    SpeechResumed {
        /// Where speech went on.
        at_sample: u64,
    },
    /// The speech is over; a `Silence` came before it.
    SpeechStopped {
        /// The first sample after it.
        end_sample: u64,
    },
}

/// Follows one stream's windows, in order.
#[derive(Clone, Debug)]
pub struct SpeechSegmenter {
    config: SegmenterConfig,
    /// Thresholds in force: the configured ones, scaled.
    start_threshold: f32,
    stop_threshold: f32,
    state: State,
    /// Windows of speech, believed or not yet.
    rising: Option<Rise>,
    /// End of the last window that the gate let through in this speech.
    last_open: u64,
    /// End of the last speech: pre-roll does not reach behind it.
    floor: u64,
    /// End of the last window.
    now: u64,
}

/// Windows in a row that the detector takes for speech.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rise {
    /// Where the first one begins.
    start: u64,
    /// Those that the gate lets through, no further apart than it holds.
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Open {
    from: u64,
    until: u64,
    samples: u64,
}

impl Rise {
    fn let_through(&mut self, window: &Window) {
        let open = self
            .open
            .take_if(|open| window.start - open.until < GATE_HOLD)
            .unwrap_or(Open {
                from: window.start,
                until: window.start,
                samples: 0,
            });
        self.open = Some(Open {
            until: window.end(),
            samples: open.samples + u64::from(window.length),
            ..open
        });
    }

    /// Where speech begins if this is it: `None` while nothing was let through.
    fn onset(&self) -> Option<u64> {
        let open = self.open?;
        Some(self.start.max(open.from.saturating_sub(SOFT_ONSET)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Quiet,
    Speaking,
    /// Silent windows since a sample; whether the pause has been told.
    Pausing {
        since: u64,
        told: bool,
    },
}

impl SpeechSegmenter {
    /// A segmenter at the start of a stream.
    pub fn new(config: SegmenterConfig) -> SpeechSegmenter {
        let mut segmenter = SpeechSegmenter {
            config,
            start_threshold: 0.0,
            stop_threshold: 0.0,
            state: State::Quiet,
            rising: None,
            last_open: 0,
            floor: 0,
            now: 0,
        };
        segmenter.set_threshold_scale(1.0);
        segmenter
    }

    /// Takes the next window.
    pub fn push(&mut self, window: &Window) -> Option<SegmentEvent> {
        self.push_gated(window, true)
    }

    /// Takes the next window, and whether a gate lets it through.
    pub fn push_gated(&mut self, window: &Window, open: bool) -> Option<SegmentEvent> {
        self.now = window.end();
        let p = window.probability;
        // Between the thresholds a window goes with what was before it.
        if p >= self.start_threshold {
            self.rising.get_or_insert(Rise {
                start: window.start,
                open: None,
            });
        } else if p < self.stop_threshold {
            self.rising = None;
        }
        if let Some(rise) = self.rising.as_mut().filter(|_| open) {
            rise.let_through(window);
        }
        let enough = samples(self.config.min_speech_ms);
        let risen = self
            .rising
            .filter(|rise| rise.open.is_some_and(|open| open.samples >= enough))
            .and_then(|rise| rise.onset());
        match self.state {
            State::Quiet => {
                let start = risen?;
                self.state = State::Speaking;
                self.last_open = self.now;
                let onset = start.saturating_sub(samples(self.config.pre_roll_ms));
                Some(SegmentEvent::SpeechStarted {
                    onset_sample: onset.max(self.floor),
                })
            }
            State::Speaking => {
                if p >= self.stop_threshold {
                    if open {
                        self.last_open = self.now;
                    }
                    if self.now - self.last_open < GATE_HOLD {
                        return None;
                    }
                    // To go on it must rise out of the noise again.
                    self.rising = None;
                }
                self.state = State::Pausing {
                    since: window.start,
                    told: false,
                };
                self.pause(window.start, false)
            }
            State::Pausing { since, told } => {
                // A pause nobody was told of ends with the first loud window;
                // after that a click must not pass for speech.
                let resumed = match told {
                    true => risen,
                    false => self.rising.and_then(|rise| rise.onset()),
                };
                if let Some(at) = resumed {
                    self.state = State::Speaking;
                    self.last_open = self.now;
                    return told.then_some(SegmentEvent::SpeechResumed { at_sample: at });
                }
                self.pause(since, told)
            }
        }
    }

    /// The next report of a pause that began at `since`, if it is due.
    fn pause(&mut self, since: u64, told: bool) -> Option<SegmentEvent> {
        let silence = self.now - since;
        if !told && silence >= samples(self.config.silence_edge_ms) {
            self.state = State::Pausing { since, told: true };
            return Some(SegmentEvent::Silence {
                since_sample: since,
            });
        }
        // Not while it may be about to resume.
        let rising = self.rising.and_then(|rise| rise.onset()).is_some();
        if told && !rising && silence >= samples(self.config.min_silence_ms) {
            return self.end();
        }
        None
    }

    /// Ends the speech now: the caller has decided that it is over. Tells where
    /// it ended; `None` when there was none.
    pub fn end(&mut self) -> Option<SegmentEvent> {
        let end_sample = match self.state {
            State::Quiet => return None,
            State::Speaking => self.now,
            State::Pausing { since, .. } => since,
        };
        self.state = State::Quiet;
        self.rising = None;
        self.floor = end_sample;
        Some(SegmentEvent::SpeechStopped { end_sample })
    }

    /// Makes it harder (above 1.0) or easier to take sound for speech, from the
    /// next window on, by multiplying the odds p / (1 - p) of both thresholds:
    /// at 2.0, 0.5 becomes 0.67 and 0.35 becomes 0.52. Never out of reach, as a
    /// multiplied probability would be. Values that are not above zero and
    /// finite count as 1.0.
    pub fn set_threshold_scale(&mut self, scale: f32) {
        let scale = if scale > 0.0 && scale.is_finite() {
            scale
        } else {
            1.0
        };
        let scaled = |p: f32| scale * p / (1.0 - p + scale * p);
        self.start_threshold = scaled(self.config.start_threshold.clamp(0.0, 1.0));
        self.stop_threshold =
            scaled(self.config.stop_threshold.clamp(0.0, 1.0)).min(self.start_threshold);
    }

    /// Changes the silence after which speech has stopped, from now on.
    pub fn set_min_silence_ms(&mut self, ms: u32) {
        self.config.min_silence_ms = ms;
    }

    /// The configuration in force, scale aside.
    pub fn config(&self) -> &SegmenterConfig {
        &self.config
    }

    /// Whether there is speech that has not been told to have stopped.
    pub fn in_speech(&self) -> bool {
        self.state != State::Quiet
    }

    /// Whether there is speech at this moment, not a pause in it.
    pub fn is_speaking(&self) -> bool {
        self.state == State::Speaking
    }

    /// Samples of silence since speech paused; `None` while there is speech or
    /// none has begun.
    pub fn silence(&self) -> Option<u64> {
        match self.state {
            State::Pausing { since, .. } => Some(self.now - since),
            _ => None,
        }
    }
}
