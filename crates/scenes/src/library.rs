//! The clips that scenes are made of: where their sound begins and ends, how loud it is, and what is said.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use duologue_audio::pcm::{dbfs, rms};

use crate::RATE;

/// What is this much softer than the loudest window is left out of the first estimate of the level.
const ROUGH_MARGIN_DB: f32 = 30.0;
/// What is this much softer than the level is a pause.
const MARGIN_DB: f32 = 15.9;
/// Ten milliseconds.
const WINDOW: usize = RATE as usize / 100;
/// Silence that parts two stretches of sound, windows.
const GAP: usize = 15;
/// Kept before the first and after the last sound, for its soft beginning and end, windows.
const MARGIN: usize = 12;
/// A stretch shorter than this beside longer ones is a click, windows.
const CLICK: usize = 4;

/// A recording, without the silence around it, at [`RATE`].
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    /// Its samples.
    pub samples: Vec<f32>,
    /// Loudness over what can be heard of it, dBFS.
    pub level: f32,
    /// Seconds of its stretches of sound; pauses of less than 150 ms are part of a stretch.
    pub spans: Vec<(f64, f64)>,
}

/// Clips by their names.
#[derive(Debug)]
pub struct Library {
    roots: Vec<PathBuf>,
    clips: Mutex<BTreeMap<String, Arc<Clip>>>,
    texts: BTreeMap<String, String>,
}

/// A clip that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// No such file.
    #[error("there is no clip {name:?} in {roots}")]
    Missing {
        /// As the scene says it.
        name: String,
        /// Where it was looked for.
        roots: String,
    },
    /// It cannot be decoded.
    #[error("cannot read the clip {name:?}: {reason}")]
    Unreadable {
        /// As the scene says it.
        name: String,
        /// Why.
        reason: String,
    },
    /// It is silent.
    #[error("the clip {0:?} is silent")]
    Silent(String),
}

impl Library {
    /// Clips of these folders; the first that has one counts. What is said in them is read from the files
    /// `speech.tsv` (columns `file` and `transcript`) in and below the folders.
    #[must_use]
    pub fn new(roots: &[PathBuf]) -> Self {
        let mut texts = BTreeMap::new();
        for root in roots {
            for folder in ["", "speech", "speech/short"] {
                let list = root.join(folder).join("speech.tsv");
                let Ok(text) = std::fs::read_to_string(&list) else {
                    continue;
                };
                for line in text.lines().skip(1) {
                    let mut columns = line.split('\t');
                    if let (Some(file), Some(said)) = (columns.next(), columns.next()) {
                        let name = Path::new(folder).join(file);
                        texts
                            .entry(name.to_string_lossy().into_owned())
                            .or_insert_with(|| said.trim().to_owned());
                    }
                }
            }
        }
        Self {
            roots: roots.to_vec(),
            clips: Mutex::default(),
            texts,
        }
    }

    /// What is said in a clip; `None`: nothing, or nobody knows.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// Whether there is such a file.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.roots.iter().any(|root| root.join(name).is_file())
    }

    /// A clip. Reads its file the first time.
    ///
    /// # Errors
    /// A file that is not there, is no sound, or is silent.
    pub fn clip(&self, name: &str) -> Result<Arc<Clip>, LibraryError> {
        // A thread that panicked while it held the lock left a map that is whole.
        let mut clips = self
            .clips
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(clip) = clips.get(name) {
            return Ok(clip.clone());
        }
        let file = self
            .roots
            .iter()
            .map(|root| root.join(name))
            .find(|file| file.is_file())
            .ok_or_else(|| LibraryError::Missing {
                name: name.to_owned(),
                roots: self
                    .roots
                    .iter()
                    .map(|root| root.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
            })?;
        let unreadable = |reason: String| LibraryError::Unreadable {
            name: name.to_owned(),
            reason,
        };
        let recording = duologue_audio::decode_file(&file)
            .map_err(|error| unreadable(error.to_string()))?
            .at_rate(RATE)
            .map_err(|error| unreadable(error.to_string()))?;
        let clip = Arc::new(
            Clip::of(recording.samples).ok_or_else(|| LibraryError::Silent(name.to_owned()))?,
        );
        clips.insert(name.to_owned(), clip.clone());
        Ok(clip)
    }
}

impl Clip {
    /// What can be heard of samples at [`RATE`]; `None` for silence.
    ///
    /// The level is the active speech level, in the spirit of ITU-T P.56: over the windows of 10 ms that are at most
    /// 15.9 dB below that level itself. Found in two steps, from what is at most 30 dB below the loudest window.
    #[must_use]
    pub fn of(samples: Vec<f32>) -> Option<Self> {
        let levels: Vec<f32> = samples.chunks(WINDOW).map(rms).collect();
        let peak = levels.iter().copied().fold(0.0, f32::max);
        if dbfs(peak) < -70.0 {
            return None;
        }
        let below = |level: f32, db: f32| level * 10_f32.powf(-db / 20.0);
        let over = |threshold: f32| {
            let active: Vec<usize> = (0..levels.len())
                .filter(|at| levels[*at] >= threshold)
                .collect();
            let power: f64 = active.iter().map(|at| f64::from(levels[*at]).powi(2)).sum();
            let level = (power / active.len().max(1) as f64).sqrt() as f32;
            (active, level)
        };
        let (_, rough) = over(below(peak, ROUGH_MARGIN_DB));
        let (active, level) = over(below(rough, MARGIN_DB));
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for at in active {
            match spans.last_mut() {
                Some(span) if at < span.1 + GAP => span.1 = at + 1,
                _ => spans.push((at, at + 1)),
            }
        }
        if spans.iter().any(|(from, to)| to - from >= CLICK) {
            spans.retain(|(from, to)| to - from >= CLICK);
        }
        let begin = spans.first()?.0.saturating_sub(MARGIN);
        let end = (spans.last()?.1 + MARGIN).min(levels.len());
        let seconds = |at: usize| (at - begin) as f64 / 100.0;
        Some(Self {
            level: dbfs(level),
            spans: spans
                .into_iter()
                .map(|(from, to)| (seconds(from), seconds(to)))
                .collect(),
            samples: samples[begin * WINDOW..(end * WINDOW).min(samples.len())].to_vec(),
        })
    }

    /// A part of it, seconds; `None` when that is silent.
    #[must_use]
    pub fn cut(&self, from: f64, to: f64) -> Option<Self> {
        let at = |seconds: f64| ((seconds * f64::from(RATE)) as usize).min(self.samples.len());
        Self::of(self.samples[at(from)..at(to)].to_vec())
    }

    /// Seconds that it lasts.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(RATE)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tone(seconds: f64, amplitude: f32) -> Vec<f32> {
        (0..(seconds * f64::from(RATE)) as usize)
            .map(|at| amplitude * (at as f32 * 0.2).sin())
            .collect()
    }

    #[test]
    fn a_clips_level_is_that_of_its_sound_and_not_of_its_pauses() {
        let mut samples = tone(0.5, 0.0);
        samples.extend(tone(1.0, 0.5));
        samples.extend(tone(0.5, 0.0));
        samples.extend(tone(1.0, 0.5));
        samples.extend(tone(0.7, 0.0));
        let clip = Clip::of(samples).unwrap();
        assert!(
            (clip.level - dbfs(0.5 / 2_f32.sqrt())).abs() < 0.1,
            "{}",
            clip.level
        );
        let expected = [(0.12, 1.12), (1.62, 2.62)];
        assert_eq!(clip.spans.len(), 2);
        for (span, expected) in clip.spans.iter().zip(expected) {
            assert!(
                (span.0 - expected.0).abs() < 0.011 && (span.1 - expected.1).abs() < 0.011,
                "{span:?}"
            );
        }
        assert!((clip.seconds() - 2.74).abs() < 0.03);
        assert!(Clip::of(tone(1.0, 0.0)).is_none());
    }
}
