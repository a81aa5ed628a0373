//! What a client sends: the user's speech, other sounds, the background and the echo of its own loudspeaker.

use std::sync::Arc;

use duologue_audio::pcm::{dbfs, rms, to_f32, to_i16};

use crate::library::{Clip, Library, LibraryError};
use crate::scene::{Act, Background, SPEECH_LEVEL, Spoken, Step};
use crate::{BLOCK, EchoPath, RATE};

/// A step's sound, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Sounding {
    samples: Vec<f32>,
    /// Seconds of its stretches, from its beginning.
    pub spans: Vec<(f64, f64)>,
    is_user: bool,
    next: usize,
    /// Samples until it begins.
    wait: usize,
}

impl Sounding {
    /// The sound of a step; `None` for a step that has none.
    pub fn of(step: &Step, library: &Library) -> Result<Option<Self>, LibraryError> {
        let (parts, is_user) = match step.act() {
            Act::Say(parts) => (parts, true),
            Act::Sound(parts) => (parts, false),
            Act::Type(_) | Act::Control(_) => return Ok(None),
        };
        let (mut samples, mut spans) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Spoken::Pause(seconds) => {
                    let silence = (seconds * f64::from(RATE)) as usize;
                    samples.resize(samples.len() + silence, 0.0);
                }
                Spoken::Clip(name) => {
                    let whole = library.clip(&name)?;
                    let clip = match step.cut {
                        None => whole,
                        Some((from, to)) => Arc::new(
                            whole
                                .cut(from, to)
                                .ok_or_else(|| LibraryError::Silent(name.clone()))?,
                        ),
                    };
                    let begin = samples.len() as f64 / f64::from(RATE);
                    spans.extend(
                        clip.spans
                            .iter()
                            .map(|(from, to)| (begin + from, begin + to)),
                    );
                    let gain = gain(step.loudness() - clip.level);
                    samples.extend(clip.samples.iter().map(|sample| sample * gain));
                }
            }
        }
        Ok(Some(Self {
            samples,
            spans,
            is_user,
            next: 0,
            wait: 0,
        }))
    }

    /// Seconds until its first sound, from its beginning.
    pub fn lead_in(&self) -> f64 {
        self.spans.first().map_or(0.0, |span| span.0)
    }
}

fn gain(db: f32) -> f32 {
    10_f32.powf(db / 20.0)
}

/// One block, and the levels of what it is made of, dBFS.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixed {
    /// What is sent.
    pub samples: Vec<i16>,
    /// The user's speech.
    pub user: f32,
    /// Other sounds and the background.
    pub noise: f32,
    /// The echo.
    pub echo: f32,
}

/// A microphone in a room.
#[derive(Debug)]
pub struct Microphone {
    sounding: Vec<Sounding>,
    background: Option<(Arc<Clip>, f32, usize)>,
    echo: Option<EchoPath>,
}

impl Microphone {
    /// A microphone that hears nothing but the background and the echo.
    ///
    /// # Errors
    /// A background that cannot be read.
    pub fn new(
        background: Option<&Background>,
        echo: Option<EchoPath>,
        library: &Library,
    ) -> Result<Self, LibraryError> {
        let background = match background {
            None => None,
            Some(background) => {
                let clip = library.clip(&background.noise)?;
                let whole = dbfs(rms(&clip.samples));
                Some((clip, gain(SPEECH_LEVEL - background.snr - whole), 0))
            }
        };
        Ok(Self {
            sounding: Vec::new(),
            background,
            echo,
        })
    }

    /// Lets something sound, so many seconds after the beginning of the next block.
    pub(crate) fn begin(&mut self, mut sounding: Sounding, after: f64) {
        sounding.wait = (after.max(0.0) * f64::from(RATE)) as usize;
        self.sounding.push(sounding);
    }

    /// Whether a step's sound is going on.
    #[must_use]
    pub fn is_sounding(&self) -> bool {
        !self.sounding.is_empty()
    }

    /// The next block, while that one is played.
    pub fn block(&mut self, played: &[i16]) -> Mixed {
        let (mut user, mut noise) = (vec![0.0; BLOCK], vec![0.0; BLOCK]);
        for sounding in &mut self.sounding {
            let place = if sounding.is_user {
                &mut user
            } else {
                &mut noise
            };
            let skip = sounding.wait.min(BLOCK);
            sounding.wait -= skip;
            for sample in place.iter_mut().skip(skip) {
                let Some(next) = sounding.samples.get(sounding.next) else {
                    break;
                };
                *sample += next;
                sounding.next += 1;
            }
        }
        self.sounding
            .retain(|sounding| sounding.next < sounding.samples.len());
        if let Some((clip, gain, next)) = &mut self.background {
            for sample in &mut noise {
                *sample += clip.samples[*next] * *gain;
                *next = (*next + 1) % clip.samples.len();
            }
        }
        let echo = match &mut self.echo {
            None => vec![0.0; BLOCK],
            Some(path) => {
                let played: Vec<f32> = played.iter().map(|sample| to_f32(*sample)).collect();
                path.process(&played)
            }
        };
        let samples = user
            .iter()
            .zip(&noise)
            .zip(&echo)
            .map(|((user, noise), echo)| to_i16(user + noise + echo))
            .collect();
        Mixed {
            samples,
            user: dbfs(rms(&user)),
            noise: dbfs(rms(&noise)),
            echo: dbfs(rms(&echo)),
        }
    }
}
