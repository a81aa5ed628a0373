//! Detector, gate and segmenter, joined: from samples to stretches of speech.
//!
//! A window counts as speech where the detector says so and the gate lets it
//! through. The detector decides where speech begins; the gate, whether it counts
//! at all. So a word that begins softly and grows loud is reported from its soft
//! beginning. Within speech the gate asks for half as much: the weak end of a word
//! belongs to it.

use crate::gate::{GateConfig, GateStatistics, NoiseGate};
use crate::{SegmentEvent, SegmenterConfig, SpeechSegmenter, VadError, VoiceDetector, Window};

/// What speech that has begun needs of what is asked of speech that begins.
const GOES_ON: f32 = 0.5;

/// Probability from which a window tells something of the talker's level.
const SURE: f32 = 0.7;

/// How much harder it is to be taken for speech.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThresholdScale {
    /// Factor of the odds of the detector's thresholds:
    /// [`SpeechSegmenter::set_threshold_scale`].
    pub odds: f32,
    /// Factor of the gate's amplitude: [`NoiseGate::set_threshold_scale`].
    pub loudness: f32,
}

impl Default for ThresholdScale {
    /// No harder than usual.
    fn default() -> ThresholdScale {
        ThresholdScale {
            odds: 1.0,
            loudness: 1.0,
        }
    }
}

/// Hears speech in one stream of 16 kHz sound.
pub struct SpeechListener {
    detector: Box<dyn VoiceDetector>,
    gate: Option<NoiseGate>,
    segmenter: SpeechSegmenter,
    scale: ThresholdScale,
    windows: Vec<Window>,
}

impl SpeechListener {
    /// A listener at the start of a stream; without a gate the detector alone
    /// decides.
    pub fn new(
        detector: Box<dyn VoiceDetector>,
        segmenter: SegmenterConfig,
        gate: Option<GateConfig>,
    ) -> SpeechListener {
        SpeechListener {
            detector,
            gate: gate.map(NoiseGate::new),
            segmenter: SpeechSegmenter::new(segmenter),
            scale: ThresholdScale::default(),
            windows: Vec::new(),
        }
    }

    /// Adds samples and appends what they tell. Sound that the detector fails on
    /// is passed over, and the rest is heard. May take a millisecond a window: not
    /// for a thread that must never wait.
    pub fn hear(&mut self, sound: &[f32], events: &mut Vec<SegmentEvent>) -> Result<(), VadError> {
        let mut outcome = Ok(());
        // The gate forgets what is older than half a second.
        for sound in sound.chunks(crate::samples(100) as usize) {
            self.windows.clear();
            if let Err(error) = self.detector.process(sound, &mut self.windows) {
                outcome = Err(error);
            }
            if let Some(gate) = &mut self.gate {
                gate.process(sound);
            }
            for window in &self.windows {
                let open = match &self.gate {
                    None => true,
                    Some(gate) => {
                        let needed = match self.segmenter.is_speaking() {
                            true => GOES_ON,
                            false => 1.0,
                        };
                        gate.excess(window.start..window.end()) >= needed
                    }
                };
                events.extend(self.segmenter.push_gated(window, open));
                // While more is asked for than usual, what passes may be an echo.
                if self.scale.loudness <= 1.0
                    && self.segmenter.is_speaking()
                    && window.probability >= SURE
                    && let Some(gate) = &mut self.gate
                {
                    gate.accept(window.start..window.end());
                }
            }
        }
        outcome
    }

    /// Makes it harder or easier to be taken for speech, from the next sound on.
    pub fn set_threshold_scale(&mut self, scale: ThresholdScale) {
        self.scale = scale;
        self.segmenter.set_threshold_scale(scale.odds);
        if let Some(gate) = &mut self.gate {
            gate.set_threshold_scale(scale.loudness);
        }
    }

    /// Begins anew with other thresholds; what the gate knows of the place stays.
    pub fn set_segmenter(&mut self, config: SegmenterConfig) {
        self.segmenter = SpeechSegmenter::new(config);
    }

    /// Whether there is speech that has not been told to have stopped.
    pub fn in_speech(&self) -> bool {
        self.segmenter.in_speech()
    }

    /// What the gate knows; `None` without one.
    pub fn gate(&self) -> Option<GateStatistics> {
        self.gate.as_ref().map(NoiseGate::statistics)
    }
}
