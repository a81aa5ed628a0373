//! Is it loud enough to be meant for us?
//!
//! A voice detector tells speech from other sounds, but not the speaker at the
//! microphone from a television in the next room. The gate looks at loudness
//! alone. It follows the noise of the place, and lets through what stands out of
//! it by a margin; while the assistant speaks the margin is larger, for then a
//! mistake stops it in the middle of a word.
//!
//! Where it is loud, that would shut out the talker as well. So once somebody has
//! been heard, their own level has a say: nothing is asked for that the talker
//! would not reach with ease, and over a reply, nothing passes that is far below
//! it, however quiet the place.
//!
//! The noise is a low percentile of the levels of the last seconds. Speech does
//! not drag it up far, because even a fluent speaker leaves gaps in a tenth of the
//! 20 ms frames; a fan that is switched on does, after a while, and until then
//! the gate lets through what it would have let through before. Frames of digital
//! silence say nothing about the place (a muted microphone, a stalled client) and
//! are left out. After R. Martin, "Noise power spectral density estimation based
//! on optimal smoothing and minimum statistics" (2001), without its spectrum.

use std::collections::VecDeque;
use std::ops::Range;

use duologue_audio::pcm;

use crate::samples;

/// Samples a frame: 20 ms.
const FRAME: usize = samples(20) as usize;
/// Samples in which levels are kept for later questions: what frames and every
/// detector's windows are made of.
const BLOCK: usize = 64;
/// Blocks that are kept: half a second.
const KEPT: usize = samples(500) as usize / BLOCK;
/// Quieter than this a frame is digital silence: 16-bit sound with its last bit
/// flickering is at -90 dBFS.
const DIGITAL_SILENCE: f32 = 4e-5;
/// Windows of speech from which the talker's level is judged; a talker who says
/// one word has said enough.
const SPEECH: usize = 300;
const LEAST_SPEECH: usize = 10;
/// The level that the loudest third of speech exceeds: vowels.
const TALKER_PERCENTILE: f32 = 0.67;
/// What is shown for silence, dBFS.
const LEAST_DBFS: f32 = -100.0;

/// How the gate follows the noise. Milliseconds of sound; amplitudes, not powers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateConfig {
    /// How much sound the noise is judged from.
    pub buffer_ms: u32,
    /// Sound to have heard before anything is gated.
    pub calibration_ms: u32,
    /// How often the noise is judged anew.
    pub update_ms: u32,
    /// Part of the frames that is taken to be no louder than the noise, 0 to 1.
    pub percentile: f32,
    /// How many times louder than the noise a sound must be.
    pub margin: f32,
    /// Never ask for less than this, however quiet the place is.
    pub least: f32,
    /// Never ask for more than this, however loud the place is, as long as the
    /// talker's level is not known.
    pub most: f32,
    /// Once the talker's level is known: never ask for more than this part of it,
    /// and while more is asked for than usual, for at least half of that.
    pub talker: f32,
    /// The level that a talker is taken to have over a reply, as long as nobody was heard.
    pub assumed_talker: f32,
}

impl Default for GateConfig {
    /// The quietest tenth of 10 s, judged every 200 ms from 2 s on; twice its
    /// amplitude (6 dB), between -60 and -30 dBFS; a fifth of the talker's (-14 dB),
    /// who is taken to speak at -28 dBFS, which is 2 dB less than usual.
    fn default() -> GateConfig {
        GateConfig {
            buffer_ms: 10_000,
            calibration_ms: 2_000,
            update_ms: 200,
            percentile: 0.1,
            margin: 2.0,
            least: 1e-3,
            most: 0.03,
            talker: 0.2,
            assumed_talker: 0.04,
        }
    }
}

/// What the gate knows, for people to look at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateStatistics {
    /// Noise of the place, dBFS; `None` until enough was heard.
    pub floor_dbfs: Option<f32>,
    /// Level from which sound is let through, dBFS; `None` while all is.
    pub threshold_dbfs: Option<f32>,
    /// Share of the 20 ms frames since the beginning that were below, 0 to 1.
    /// Frames during calibration are not below.
    pub gating_ratio: f32,
}

/// Follows one stream's noise, and tells what stands out of it.
///
/// Deterministic: the same samples give the same answers, however they are cut
/// into blocks.
#[derive(Clone, Debug)]
pub struct NoiseGate {
    config: GateConfig,
    scale: f32,
    /// Sum of squares of the block that is being filled, and its samples.
    filling: (f64, usize),
    /// Mean squares of the last blocks.
    blocks: VecDeque<f32>,
    /// Blocks before the first of them.
    forgotten: u64,
    /// Levels of the last frames; digital silence left out.
    levels: VecDeque<f32>,
    /// Frames, frames below, and frames since the noise was last judged.
    frames: u64,
    below: u64,
    since_update: u32,
    floor: Option<f32>,
    /// Levels of speech that was accepted, and what they come to.
    speech: VecDeque<f32>,
    talker: Option<f32>,
    sorted: Vec<f32>,
}

impl NoiseGate {
    /// A gate at the start of a stream.
    pub fn new(config: GateConfig) -> NoiseGate {
        NoiseGate {
            config,
            scale: 1.0,
            filling: (0.0, 0),
            blocks: VecDeque::with_capacity(KEPT + 1),
            forgotten: 0,
            levels: VecDeque::new(),
            frames: 0,
            below: 0,
            since_update: 0,
            floor: None,
            speech: VecDeque::new(),
            talker: None,
            sorted: Vec::new(),
        }
    }

    /// Asks for more (above 1.0) or less than usual from the next sample on, by
    /// multiplying the threshold's amplitude: 2.0 is 6 dB. Values that are not
    /// above zero and finite count as 1.0.
    pub fn set_threshold_scale(&mut self, scale: f32) {
        self.scale = if scale > 0.0 && scale.is_finite() {
            scale
        } else {
            1.0
        };
    }

    /// Hears 16 kHz samples.
    pub fn process(&mut self, samples: &[f32]) {
        for &sample in samples {
            self.filling.0 += f64::from(sample) * f64::from(sample);
            self.filling.1 += 1;
            if self.filling.1 == BLOCK {
                self.block();
            }
        }
    }

    fn block(&mut self) {
        let (energy, _) = std::mem::take(&mut self.filling);
        // A client's NaN must not become the noise.
        let energy = if energy.is_finite() { energy } else { 0.0 };
        self.blocks.push_back((energy / BLOCK as f64) as f32);
        if self.blocks.len() > KEPT {
            self.blocks.pop_front();
            self.forgotten += 1;
        }
        let heard = self.forgotten + self.blocks.len() as u64;
        if heard.is_multiple_of((FRAME / BLOCK) as u64) {
            let end = heard * BLOCK as u64;
            let level = self.level(end - FRAME as u64..end);
            self.frame(level);
        }
    }

    fn frame(&mut self, level: f32) {
        self.frames += 1;
        if self.threshold().is_some_and(|least| level < least) {
            self.below += 1;
        }
        if level >= DIGITAL_SILENCE {
            self.levels.push_back(level);
            if self.levels.len() > frames(self.config.buffer_ms) {
                self.levels.pop_front();
            }
        }
        self.since_update += 1;
        if self.since_update as usize >= frames(self.config.update_ms) {
            self.since_update = 0;
            self.judge();
        }
    }

    fn judge(&mut self) {
        let NoiseGate {
            config,
            levels,
            speech,
            sorted,
            ..
        } = self;
        if levels.len() >= frames(config.calibration_ms) {
            self.floor = Some(percentile(levels, config.percentile, sorted));
        }
        if speech.len() >= LEAST_SPEECH {
            self.talker = Some(percentile(speech, TALKER_PERCENTILE, sorted));
        }
    }

    /// Learns that a stretch of the last half second was speech meant for us.
    pub fn accept(&mut self, span: Range<u64>) {
        let level = self.level(span);
        self.speech.push_back(level);
        if self.speech.len() > SPEECH {
            self.speech.pop_front();
        }
    }

    /// The amplitude that is asked for; `None` while nothing is: where the noise is
    /// not known, only over a reply is there something to compare with.
    fn threshold(&self) -> Option<f32> {
        let config = &self.config;
        let over_reply = self.scale > 1.0;
        let asked = match self.floor {
            Some(floor) => (floor * config.margin).max(config.least) * self.scale,
            None if over_reply => 0.0,
            None => return None,
        };
        Some(match self.talker {
            None if over_reply => asked
                .max(config.talker * config.assumed_talker)
                .min(config.most),
            None => asked.min(config.most),
            Some(talker) => {
                let most = talker * config.talker * self.scale;
                let least = if over_reply { most / 2.0 } else { 0.0 };
                asked.clamp(least, most)
            }
        })
    }

    /// Level of a stretch of the last half second, root mean square; blocks that
    /// are only partly in it count as a whole.
    fn level(&self, span: Range<u64>) -> f32 {
        let block = BLOCK as u64;
        let first = (span.start / block).saturating_sub(self.forgotten) as usize;
        let end = span.end.div_ceil(block).saturating_sub(self.forgotten) as usize;
        let end = end.min(self.blocks.len());
        if first >= end {
            return 0.0;
        }
        let sum: f32 = self.blocks.range(first..end).sum();
        (sum / (end - first) as f32).sqrt()
    }

    /// By how much a stretch of the last half second exceeds what is asked for,
    /// as a ratio of amplitudes: from 1.0 on it is let through. Infinite while the
    /// noise is not known yet.
    pub fn excess(&self, span: Range<u64>) -> f32 {
        match self.threshold() {
            Some(threshold) => self.level(span) / threshold,
            None => f32::INFINITY,
        }
    }

    /// What it knows.
    pub fn statistics(&self) -> GateStatistics {
        let shown = |amplitude: f32| pcm::dbfs(amplitude).max(LEAST_DBFS);
        GateStatistics {
            floor_dbfs: self.floor.map(shown),
            threshold_dbfs: self.threshold().map(shown),
            gating_ratio: self.below as f32 / self.frames.max(1) as f32,
        }
    }
}

/// The value below which a part of the values lies.
fn percentile(values: &VecDeque<f32>, part: f32, sorted: &mut Vec<f32>) -> f32 {
    sorted.clear();
    sorted.extend(values);
    let rank = ((sorted.len() - 1) as f32 * part.clamp(0.0, 1.0)).round() as usize;
    *sorted.select_nth_unstable_by(rank, f32::total_cmp).1
}

/// Frames in a number of milliseconds.
fn frames(ms: u32) -> usize {
    (samples(ms) as usize / FRAME).max(1)
}
