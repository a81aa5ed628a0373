//! The adapter: a loaded voice, and an utterance of it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use duologue_audio::Resampler;
use duologue_audio::loudness::{self, Normaliser, SPEECH_LUFS};
use duologue_voicepack::Voicepack;

use super::config::Config;
use super::engine::{Engine, Manner, Rendering};
use super::phonemes::Phonemizer;
use super::script::{self, Sentence};
use crate::texts::Texts;
use crate::{
    LoadOptions, Settings, Sound, Speech, StopFlag, Synthesizer, TtsError, Voice, WordMark,
};

/// Most characters in one `say`.
const MAX_CHARS: usize = 5_000;
/// Frames of sound in a sentence's first piece, and in a long one's later pieces: what comes first is to come
/// soon, and what is longer wastes less.
const FIRST_FRAMES: usize = 16;
const MOST_FRAMES: usize = 64;
/// Silence between two sentences, seconds, on top of what the voice leaves itself.
const PAUSE: f64 = 0.1;
/// What a voice says when it is loaded: to be warm, and to have its loudness measured. Sentences of several
/// kinds, for their loudness differs by 2 LU and more; about fifteen seconds.
const WARM_UP: &str = "The quick brown fox jumps over the lazy dog, while a bright moon shines. \
                       How are you today? I would like to tell you about the weather in the north. \
                       Please remember to bring your coat, because it will be cold in the evening. \
                       Yes, of course: the train leaves at nine.";

/// Loads a Piper voice: `*.onnx` and the `.onnx.json` beside it.
pub(crate) fn load(
    pack: &Voicepack,
    options: &LoadOptions,
) -> Result<Arc<dyn Synthesizer>, TtsError> {
    let failed = |what: &str, why: String| {
        TtsError::Load(format!(
            "voice {} cannot be loaded: {what}: {why}",
            pack.name
        ))
    };
    let model = model_file(pack).map_err(|why| failed("its model", why))?;
    let mut beside = model.clone().into_os_string();
    beside.push(".json");
    let beside = PathBuf::from(beside);
    let json = std::fs::read_to_string(&beside)
        .map_err(|e| failed(&beside.display().to_string(), e.to_string()))?;
    let config = Config::parse(&json).map_err(|why| failed(&beside.display().to_string(), why))?;
    let rate = config.audio.sample_rate;
    Resampler::new(rate, duologue_audio::SAMPLE_RATE)
        .map_err(|e| failed("its sample rate", e.to_string()))?;

    let onnx =
        std::fs::read(&model).map_err(|e| failed(&model.display().to_string(), e.to_string()))?;
    let engine = Engine::load(&onnx, options.threads());
    let engine = engine.map_err(|why| failed(&model.display().to_string(), why))?;
    drop(onnx);
    let phonemizer =
        Phonemizer::new(&config.espeak.voice).map_err(|why| failed("its phonemes", why))?;

    let speakers = config.speakers();
    let shared = Shared {
        voice: Voice {
            name: pack.name.clone(),
            family: pack.metadata.family.clone(),
            languages: pack.metadata.languages.clone(),
            tags: pack.metadata.tags.clone(),
            sample_rate: rate,
            max_chars: MAX_CHARS,
            resident_bytes: engine.bytes,
            speakers: speakers.clone(),
        },
        lag: engine.lag(),
        hop: engine.hop(),
        engine: Arc::new(engine),
        phonemizer,
        normalisers: std::iter::repeat_with(OnceLock::new)
            .take(speakers.len().max(1))
            .collect(),
        seed: options.seed,
        config,
    };
    let piper = Piper(Arc::new(shared));
    // Warms up too.
    piper.0.normaliser(0)?;
    Ok(Arc::new(piper))
}

/// The one `.onnx` of the folder.
fn model_file(pack: &Voicepack) -> Result<PathBuf, String> {
    let folder = pack.dir.display();
    let entries = std::fs::read_dir(&pack.dir).map_err(|e| format!("{folder}: {e}"))?;
    let mut models: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    models.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
    models.sort();
    match models.len() {
        1 => Ok(models.remove(0)),
        0 => Err(format!(
            "there is no .onnx file in {folder}; pull it again (duologue models pull {})",
            pack.name
        )),
        n => Err(format!("there are {n} .onnx files in {folder}; leave one")),
    }
}

struct Piper(Arc<Shared>);

struct Shared {
    voice: Voice,
    config: Config,
    engine: Arc<Engine>,
    phonemizer: Phonemizer,
    /// By speaker; measured when first needed.
    normalisers: Vec<OnceLock<Normaliser>>,
    seed: u64,
    lag: usize,
    hop: usize,
}

impl Shared {
    fn manner(&self, speaker: usize, speed: f32) -> Manner {
        let scales = &self.config.inference;
        Manner {
            speaker,
            noise: scales.noise_scale,
            duration_noise: scales.noise_w,
            length: scales.length_scale / speed,
            seed: self.seed,
        }
    }

    fn sentences(&self, text: &str) -> Result<Vec<Sentence>, TtsError> {
        let clauses = |t: &str| self.phonemizer.clauses(t).map_err(TtsError::Engine);
        let whole = clauses(text)?;
        script::sentences(text, &whole, &self.config.phoneme_id_map, |word| {
            clauses(word).map(|c| c.to_vec())
        })
    }

    /// What brings a speaker to the common loudness.
    fn normaliser(&self, speaker: usize) -> Result<Normaliser, TtsError> {
        let cell = &self.normalisers[speaker];
        if let Some(known) = cell.get() {
            return Ok(*known);
        }
        let never = StopFlag::default();
        let mut spoken = Vec::new();
        for sentence in self.sentences(WARM_UP)? {
            let mut rendering =
                Rendering::new(&self.engine, &sentence.ids, self.manner(speaker, 1.0))?;
            while rendering.left() > 0 {
                spoken.extend(rendering.advance(MOST_FRAMES, &never)?);
            }
        }
        let normaliser = level(&spoken, self.voice.sample_rate)?.ok_or_else(|| {
            TtsError::Load(format!(
                "voice {} says nothing audible: its files are broken",
                self.voice.name
            ))
        })?;
        Ok(*cell.get_or_init(|| normaliser))
    }
}

/// What brings a recording to the common loudness, the limiter's loss made good; `None` for silence.
fn level(spoken: &[f32], rate: u32) -> Result<Option<Normaliser>, TtsError> {
    let measure =
        |sound: &[f32]| loudness::measure(sound, rate).map_err(|e| TtsError::Engine(e.to_string()));
    let Some(raw) = measure(spoken)? else {
        return Ok(None);
    };
    let mut target = SPEECH_LUFS;
    // The limiter takes little, so this converges at once; a sound that is all peaks never would.
    for _ in 0..3 {
        let mut limited = spoken.to_vec();
        Normaliser::new(raw, target).apply(&mut limited);
        let reached = measure(&limited)?.unwrap_or(target);
        target += (SPEECH_LUFS - reached).clamp(-3.0, 3.0);
    }
    Ok(Some(Normaliser::new(raw, target)))
}

impl Synthesizer for Piper {
    fn voice(&self) -> &Voice {
        &self.0.voice
    }

    fn begin(&self, settings: &Settings) -> Result<Box<dyn Speech>, TtsError> {
        let voice = &self.0.voice;
        voice.check_language(settings)?;
        let (speaker, speed) = (voice.speaker(settings)?, voice.speed(settings)?);
        Ok(Box::new(PiperSpeech {
            manner: self.0.manner(speaker, speed),
            normaliser: self.0.normaliser(speaker)?,
            shared: Arc::clone(&self.0),
            texts: Texts::default(),
            sentences: VecDeque::new(),
            current: None,
            begun: 0,
            spoken: 0,
            after_sentence: false,
        }))
    }
}

struct PiperSpeech {
    shared: Arc<Shared>,
    manner: Manner,
    normaliser: Normaliser,
    texts: Texts,
    /// Sentences not yet begun, with their text and its number.
    sentences: VecDeque<(u32, Arc<str>, Sentence)>,
    current: Option<Current>,
    /// Sentences begun.
    begun: u64,
    /// Samples given.
    spoken: u64,
    /// The last sentence ended as one.
    after_sentence: bool,
}

/// The sentence being said.
struct Current {
    rendering: Rendering,
    /// Not yet given.
    words: VecDeque<WordMark>,
    /// Frames of the next piece.
    piece: usize,
    /// Frames that go before it, since the stages hold them back.
    lag: usize,
    ends: bool,
}

impl Speech for PiperSpeech {
    fn say(&mut self, text: &str) -> Result<(), TtsError> {
        self.texts.say(&self.shared.voice, text)
    }

    fn next(&mut self, stop: &StopFlag) -> Result<Option<Sound>, TtsError> {
        loop {
            stop.check()?;
            if let Some(current) = &mut self.current {
                let frames = current.piece + std::mem::take(&mut current.lag);
                let mut samples = current.rendering.advance(frames, stop)?;
                current.piece = (current.piece * 3 / 2).min(MOST_FRAMES);
                let over = current.rendering.left() == 0;
                self.normaliser.apply(&mut samples);
                self.spoken += samples.len() as u64;
                let ready = current
                    .words
                    .iter()
                    .take_while(|w| over || w.start < self.spoken)
                    .count();
                let words = current.words.drain(..ready).collect();
                if over {
                    self.after_sentence = current.ends;
                    self.current = None;
                }
                if !samples.is_empty() {
                    return Ok(Some(Sound { samples, words }));
                }
            } else if let Some((chunk, text, sentence)) = self.sentences.pop_front() {
                let silence = self.begin_sentence(chunk, &text, sentence)?;
                if !silence.is_empty() {
                    return Ok(Some(Sound {
                        samples: silence,
                        words: Vec::new(),
                    }));
                }
            } else if let Some((chunk, text)) = self.texts.read() {
                let sentences = self.shared.sentences(&text)?;
                let text: Arc<str> = text.into();
                self.sentences
                    .extend(sentences.into_iter().map(|s| (chunk, Arc::clone(&text), s)));
            } else {
                return Ok(None);
            }
        }
    }
}

impl PiperSpeech {
    /// Encodes a sentence; the silence that goes before it.
    fn begin_sentence(
        &mut self,
        chunk: u32,
        text: &str,
        sentence: Sentence,
    ) -> Result<Vec<f32>, TtsError> {
        // Each sentence of an utterance has noise of its own, the same in every run.
        let seed = self
            .manner
            .seed
            .wrapping_add(self.begun.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let rendering = Rendering::new(
            &self.shared.engine,
            &sentence.ids,
            Manner {
                seed,
                ..self.manner
            },
        )?;
        self.begun += 1;
        let pause = if self.after_sentence {
            PAUSE * f64::from(self.shared.voice.sample_rate)
        } else {
            0.0
        };
        let silence = vec![0.0; pause as usize];
        self.spoken += silence.len() as u64;
        self.after_sentence = false;

        let first = self.spoken;
        let sample = |id: f64| {
            let whole = id as usize;
            let frames: usize = rendering.durations.iter().take(whole).sum();
            let within =
                rendering.durations.get(whole).copied().unwrap_or_default() as f64 * id.fract();
            first + ((frames as f64 + within) * self.shared.hop as f64) as u64
        };
        let words = sentence.words.iter().map(|place| WordMark {
            word: text[place.text.clone()].to_owned(),
            start: sample(place.ids.start),
            end: sample(place.ids.end),
            chunk,
            text: place.text.clone(),
        });
        let words = words.collect();
        self.current = Some(Current {
            rendering,
            words,
            piece: FIRST_FRAMES,
            lag: self.shared.lag,
            ends: sentence.ends,
        });
        Ok(silence)
    }
}
