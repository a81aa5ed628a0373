//! Takes the assistant's own voice, and noise, out of what is heard.
//!
//! Browsers and telephones cancel echo themselves; a client that plays through a
//! loudspeaker without doing so sends the reply back to us. [`SoundCleaner`] is
//! given both the sound that is heard and the sound that is played, and subtracts
//! what the one holds of the other. It finds the delay between them by itself as
//! long as the played sound comes first, and by less than half a second: who
//! feeds it has to bring them that close.
//!
//! Where nobody knows whether there is an echo, [`EchoCancellation::Auto`] finds
//! out, and changes nothing until it has.
//!
//! The work is done by sonora, which is WebRTC's audio processing (AEC3 and its
//! noise suppressor) in Rust, in steps of 10 ms.

use sonora::config::{EchoCanceller, NoiseSuppression, NoiseSuppressionLevel};
use sonora::{AudioProcessing, Config, StreamConfig};

use crate::echo_watch::EchoWatch;
use crate::{SAMPLE_RATE, VadError, samples};

/// Steps after the last played sound in which its echo may still come: a second.
const ECHO_TAIL: u32 = 100;
/// Mean square below which nothing is played: -80 dBFS.
const SILENCE: f32 = 1e-8;
/// Samples in a step.
const STEP: usize = samples(10) as usize;

/// How much noise is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseReduction {
    /// A little, for a microphone close to the mouth (6 dB).
    NearField,
    /// More, for one across the room (12 dB).
    FarField,
}

/// Whether the assistant's own voice is taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EchoCancellation {
    /// Never.
    #[default]
    Off,
    /// Once it is found that it is there: usually after a second of it. Looked for in the first 8 s that are
    /// played.
    Auto,
    /// Always.
    On,
}

/// What is taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanerConfig {
    /// The assistant's own voice.
    pub echo: EchoCancellation,
    /// Noise.
    pub noise: Option<NoiseReduction>,
}

/// What is known of the echo.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EchoStatistics {
    /// From the played sound to its echo, as it was fed, ms; `None`: none was found.
    pub delay_ms: Option<u32>,
    /// How much weaker the echo is than what was played, dB.
    pub return_loss_db: Option<f32>,
    /// How much of the echo is taken out, dB.
    pub enhancement_db: Option<f32>,
}

/// Cleans one stream.
pub struct SoundCleaner {
    canceller: Option<AudioProcessing>,
    /// Whether the canceller's work is listened to; `None`: always.
    watch: Option<EchoWatch>,
    /// Steps since something was played.
    quiet: u32,
    reducer: Option<AudioProcessing>,
    heard: Vec<f32>,
    played: Vec<f32>,
    step: [f32; STEP],
}

impl SoundCleaner {
    /// A cleaner at the start of a stream.
    pub fn new(config: CleanerConfig) -> SoundCleaner {
        let level = |reduction| match reduction {
            NoiseReduction::NearField => NoiseSuppressionLevel::Low,
            NoiseReduction::FarField => NoiseSuppressionLevel::Moderate,
        };
        let canceller = (config.echo != EchoCancellation::Off).then(|| {
            processing(Config {
                echo_canceller: Some(EchoCanceller::default()),
                ..Config::default()
            })
        });
        let reducer = config.noise.map(|reduction| {
            processing(Config {
                noise_suppression: Some(NoiseSuppression {
                    level: level(reduction),
                    ..NoiseSuppression::default()
                }),
                ..Config::default()
            })
        });
        SoundCleaner {
            canceller,
            watch: (config.echo == EchoCancellation::Auto).then(EchoWatch::default),
            reducer,
            quiet: ECHO_TAIL,
            heard: Vec::with_capacity(STEP),
            played: Vec::with_capacity(STEP),
            step: [0.0; STEP],
        }
    }

    /// Adds sound that was heard, and the sound that was played meanwhile (as many
    /// samples; more are ignored, missing ones are silence). Appends what is left
    /// of the heard sound, in whole steps of 10 ms: what is left over waits for the
    /// next call. Takes a hundredth of the sound's length.
    pub fn clean(
        &mut self,
        heard: &[f32],
        played: &[f32],
        cleaned: &mut Vec<f32>,
    ) -> Result<(), VadError> {
        let mut outcome = Ok(());
        let mut played = played.iter().copied().chain(std::iter::repeat(0.0));
        // One value that is no number would stay in the filters for ever.
        let mut heard = heard
            .iter()
            .map(|&sample| if sample.is_finite() { sample } else { 0.0 });
        loop {
            let room = STEP - self.heard.len();
            let before = self.heard.len();
            self.heard.extend(heard.by_ref().take(room));
            let taken = self.heard.len() - before;
            self.played.extend(played.by_ref().take(taken));
            if self.heard.len() < STEP {
                return outcome;
            }
            if let Err(error) = self.process() {
                self.step.copy_from_slice(&self.heard);
                outcome = Err(error);
            }
            cleaned.extend_from_slice(&self.step);
            self.heard.clear();
            self.played.clear();
        }
    }

    /// What waited for a whole step, as it was heard. The stream is complete with it.
    pub fn rest(self) -> Vec<f32> {
        self.heard
    }

    fn process(&mut self) -> Result<(), VadError> {
        let failed = |error: sonora::Error| VadError::run("sound cleaning", error.to_string());
        self.step.copy_from_slice(&self.heard);
        let played = energy(&self.played);
        self.quiet = if played < SILENCE {
            self.quiet.saturating_add(1)
        } else {
            0
        };
        // Where it is only looked for an echo, there is nothing to be found while nothing is played.
        let looking = self.watch.as_ref().is_some_and(|watch| !watch.is_found());
        let idle = looking && self.quiet >= ECHO_TAIL;
        if let Some(canceller) = self.canceller.as_mut().filter(|_| !idle) {
            let mut left = [0.0; STEP];
            canceller
                .process_render_f32(&[&self.played], &mut [&mut left])
                .map_err(failed)?;
            canceller
                .process_capture_f32(&[&self.heard], &mut [&mut left])
                .map_err(failed)?;
            if let Some(watch) = &mut self.watch {
                let known = statistics(canceller);
                watch.step(played, energy(&self.heard), energy(&left), &known);
            }
            if self.watch.as_ref().is_none_or(EchoWatch::is_found) {
                self.step = left;
            }
            if self.watch.as_ref().is_some_and(EchoWatch::is_given_up) {
                self.canceller = None;
            }
        }
        if let Some(reducer) = &mut self.reducer {
            let heard = self.step;
            reducer
                .process_capture_f32(&[&heard], &mut [&mut self.step])
                .map_err(failed)?;
        }
        Ok(())
    }

    /// What is known of the echo; `None` where it is not taken out.
    pub fn echo(&self) -> Option<EchoStatistics> {
        let found = self.watch.as_ref().is_none_or(EchoWatch::is_found);
        self.canceller.as_ref().filter(|_| found).map(statistics)
    }

    /// Whether an echo has just been found, and nothing else is heard at the moment. Tells it once.
    pub fn just_heard_echo(&mut self) -> bool {
        self.watch.as_mut().is_some_and(EchoWatch::just_heard)
    }

    /// Whether what is played still matters.
    pub fn wants_played(&self) -> bool {
        self.canceller.is_some()
    }
}

fn processing(config: Config) -> AudioProcessing {
    let stream = StreamConfig::new(SAMPLE_RATE, 1);
    AudioProcessing::builder()
        .config(config)
        .capture_config(stream)
        .render_config(stream)
        .build()
}

fn statistics(canceller: &AudioProcessing) -> EchoStatistics {
    let known = canceller.statistics();
    EchoStatistics {
        delay_ms: known.delay_ms.and_then(|ms| u32::try_from(ms).ok()),
        return_loss_db: known.echo_return_loss.map(|db| db as f32),
        enhancement_db: known.echo_return_loss_enhancement.map(|db| db as f32),
    }
}

/// Mean square.
fn energy(sound: &[f32]) -> f32 {
    sound.iter().map(|sample| sample * sample).sum::<f32>() / sound.len().max(1) as f32
}
