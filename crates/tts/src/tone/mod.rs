//! A voice without a model, to test everything around voices with.
//!
//! It says each word as a 1 kHz tone and each gap as silence, 60 ms a character, so that from the samples
//! alone one can tell which word is playing; the same text gives the same samples, always. What it takes to
//! compute is set, not found: [`Tone`] spends the stated time before a text's first sound and then a stated
//! share of real time, as a slow or a fast model would, and can be stopped at any moment of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Settings, Sound, Speech, StopFlag, Synthesizer, TtsError, Voice, WordMark, words};

/// Rate of the samples, Hz: not Duologue's own, so that resampling is part of what is tested.
pub const SAMPLE_RATE: u32 = 24_000;
/// Sound for one character at speed 1.
pub const CHARACTER: Duration = Duration::from_millis(60);
/// Frequency of a word, Hz.
pub const FREQUENCY: f32 = 1_000.0;
/// Level of a word.
const AMPLITUDE: f32 = 0.25;
/// Rise and fall of a word, samples: 5 ms, against clicks.
const FADE: usize = 120;
/// Length of a piece: 100 ms.
const PIECE: usize = 2_400;
/// Longest wait without a look at the [`StopFlag`].
const POLL: Duration = Duration::from_millis(2);

/// How long the tone voice takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ToneOptions {
    /// Time from text to its first sound.
    pub first_audio: Duration,
    /// Time to compute a second of sound, in seconds; 0 is at once, above 1 is slower than real time.
    pub real_time_factor: f64,
}

/// The tone voice.
pub struct Tone {
    voice: Arc<Voice>,
    options: ToneOptions,
}

impl Tone {
    /// A tone voice with the name `tone`.
    ///
    /// # Errors
    /// [`TtsError::BadSetting`] unless the real-time factor is finite and not negative.
    pub fn new(options: ToneOptions) -> Result<Self, TtsError> {
        let factor = options.real_time_factor;
        if !(0.0..=1e6).contains(&factor) {
            return Err(TtsError::BadSetting(format!(
                "a real-time factor of {factor} is out of range: give 0 (at once) or more"
            )));
        }
        let voice = Voice {
            name: "tone".to_owned(),
            family: "tone".to_owned(),
            languages: Vec::new(),
            tags: vec!["cpu_ok".to_owned(), "test".to_owned()],
            speakers: Vec::new(),
            sample_rate: SAMPLE_RATE,
            max_chars: 5_000,
            resident_bytes: 0,
        };
        Ok(Tone {
            voice: Arc::new(voice),
            options,
        })
    }
}

impl Synthesizer for Tone {
    fn voice(&self) -> &Voice {
        &self.voice
    }

    fn begin(&self, settings: &Settings) -> Result<Box<dyn Speech>, TtsError> {
        self.voice.speaker(settings)?;
        let speed = f64::from(self.voice.speed(settings)?);
        Ok(Box::new(ToneSpeech {
            voice: Arc::clone(&self.voice),
            options: self.options,
            character: (CHARACTER.as_secs_f64() * f64::from(SAMPLE_RATE) / speed) as usize,
            chunks: 0,
            waiting: VecDeque::new(),
            spoken: 0,
        }))
    }
}

struct ToneSpeech {
    voice: Arc<Voice>,
    options: ToneOptions,
    /// Samples a character.
    character: usize,
    chunks: u32,
    waiting: VecDeque<Text>,
    /// Samples given so far.
    spoken: u64,
}

/// What is left of one `say`.
struct Text {
    /// Samples in all, and how many of them were given.
    length: usize,
    given: usize,
    /// Words with samples from this text's start.
    words: Vec<WordMark>,
}

impl Speech for ToneSpeech {
    fn say(&mut self, text: &str) -> Result<(), TtsError> {
        self.voice.check_length(text)?;
        self.waiting
            .push_back(lay_out(text, self.chunks, self.character));
        self.chunks += 1;
        Ok(())
    }

    fn next(&mut self, stop: &StopFlag) -> Result<Option<Sound>, TtsError> {
        stop.check()?;
        while self.waiting.front().is_some_and(|t| t.given == t.length) {
            self.waiting.pop_front();
        }
        let Some(text) = self.waiting.front_mut() else {
            return Ok(None);
        };
        let (from, to) = (text.given, text.length.min(text.given + PIECE));
        let sound = Duration::from_secs_f64((to - from) as f64 / f64::from(SAMPLE_RATE));
        let mut work = sound.mul_f64(self.options.real_time_factor);
        if from == 0 {
            work += self.options.first_audio;
        }
        spend(work, stop)?;
        let text_start = self.spoken - from as u64;
        let words = text
            .words
            .iter()
            .filter(|w| (from as u64..to as u64).contains(&w.start));
        let words = words
            .map(|w| WordMark {
                start: w.start + text_start,
                end: w.end + text_start,
                ..w.clone()
            })
            .collect();
        let samples = (from..to).map(|n| sample(&text.words, n as u64)).collect();
        text.given = to;
        self.spoken += (to - from) as u64;
        Ok(Some(Sound { samples, words }))
    }
}

/// A text's words, each character `character` samples long. A text without a word is without sound.
fn lay_out(text: &str, chunk: u32, character: usize) -> Text {
    let mut words = Vec::new();
    let mut at = 0;
    for words::Word { word, range, .. } in words::runs(text) {
        let start = text[..range.start].chars().count() * character;
        at = start + word.chars().count() * character;
        words.push(WordMark {
            word: word.to_owned(),
            start: start as u64,
            end: at as u64,
            chunk,
            text: range,
        });
    }
    // Punctuation and spaces after the last word take their time too.
    let length = if words.is_empty() {
        at
    } else {
        text.chars().count() * character
    };
    Text {
        length,
        given: 0,
        words,
    }
}

/// One sample of a text, at its own clock.
fn sample(words: &[WordMark], n: u64) -> f32 {
    let after = words.partition_point(|w| w.start <= n);
    let Some(word) = after
        .checked_sub(1)
        .map(|i| &words[i])
        .filter(|w| n < w.end)
    else {
        return 0.0;
    };
    let edge = (n - word.start).min(word.end - 1 - n) as usize;
    let fade = (edge as f32 / FADE as f32).min(1.0);
    let phase = std::f32::consts::TAU * FREQUENCY * ((n - word.start) as f32 / SAMPLE_RATE as f32);
    AMPLITUDE * fade * phase.sin()
}

/// Stands for a model's work: holds the thread for `work` in wall-clock time, watching `stop`.
fn spend(work: Duration, stop: &StopFlag) -> Result<(), TtsError> {
    let until = Instant::now() + work;
    loop {
        stop.check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::park_timeout(left.min(POLL));
    }
}
