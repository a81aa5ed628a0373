//! A loaded voice: a base, perhaps an adapter on it, and who speaks.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use duologue_audio::loudness::{self, Gain, Normaliser, SPEECH_LUFS, SoftLimiter};
use duologue_voicepack::{Voicepack, VoicepackStore};

use super::codec::Codec;
use super::config::Config;
use super::engine::Engine;
use super::model::{Memory, Model, Step, engine};
use super::prompt::Tokens;
use super::settings::{SpeakerSettings, VoiceSettings};
use super::speech::CsmSpeech;
use crate::neural::{LoraSet, device};
use crate::{
    Conversation, DeviceChoice, LoadOptions, Settings, Speech, StopFlag, Synthesizer, TtsError,
    Voice,
};

/// Most characters in one `say`.
const MAX_CHARS: usize = 2_000;
/// Longest recording of a speaker, seconds: the model's whole context is less than three minutes.
const LONGEST_REFERENCE: f64 = 30.0;
/// What one sentence needs of a session's memory at most, steps: its text and its sound.
const SENTENCE: usize = 1_200;

/// A checkpoint in memory, shared by the voices on it.
pub(super) struct Base {
    pub(super) model: Arc<Model>,
    pub(super) tokens: Tokens,
    /// Speaks for all who use it.
    pub(super) engine: Engine,
    pool: Arc<rayon::ThreadPool>,
}

/// Bases in memory, so that adapters find theirs. A base lives as long as a voice on it does.
static BASES: LazyLock<Mutex<Bases>> = LazyLock::new(Mutex::default);
/// By their folder and device.
type Bases = HashMap<(PathBuf, DeviceChoice), Weak<Base>>;

/// A loaded voice.
pub(super) struct Csm(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) voice: Voice,
    pub(super) base: Arc<Base>,
    pub(super) lora: Option<Arc<LoraSet>>,
    pub(super) speakers: Vec<Speaker>,
    pub(super) manner: VoiceSettings,
    pub(super) seed: u64,
}

/// Somebody who can speak.
pub(super) struct Speaker {
    /// Their number in the prompt.
    pub(super) id: u32,
    /// Their recording: what is said in it, and its frames.
    reference: Option<Turn>,
    pub(super) normaliser: Normaliser,
    /// What the network remembers of the recording; read when first needed.
    memory: Mutex<Option<Arc<Memory>>>,
}

/// What was said, as the network reads it.
pub(super) struct Turn {
    pub(super) tokens: Vec<u32>,
    pub(super) frames: Vec<Vec<u32>>,
}

impl Turn {
    /// Steps that reading it takes; its end is one.
    pub(super) fn steps(&self) -> usize {
        self.tokens.len() + self.frames.len() + 1
    }

    /// What is read of it once it is over, with what stands at its end.
    pub(super) fn read(&self, end: Step) -> impl Iterator<Item = Step> {
        let tokens = self.tokens.iter().copied().map(Step::Token);
        let frames = self.frames.iter().cloned().map(Step::Frame);
        tokens.chain(frames).chain([end])
    }
}

/// Loads a base voice.
pub(crate) fn load(
    pack: &Voicepack,
    options: &LoadOptions,
) -> Result<Arc<dyn Synthesizer>, TtsError> {
    let failed = |why: String| cannot_load(&pack.name, why);
    let base = load_base(&pack.dir, options).map_err(failed)?;
    remember(&pack.dir, options, &base);
    assemble(pack, &pack.dir, base, None, options)
}

/// Loads an adapter, and its base where no voice in memory is on that.
pub(crate) fn load_adapter(
    pack: &Voicepack,
    options: &LoadOptions,
) -> Result<Arc<dyn Synthesizer>, TtsError> {
    let failed = |why: String| cannot_load(&pack.name, why);
    let base_name = pack.metadata.base.as_deref().ok_or_else(|| {
        failed("its metadata.yaml does not name a base (base: the base's voicepack)".to_owned())
    })?;
    let store = pack.dir.parent().unwrap_or(Path::new("."));
    let base_pack = VoicepackStore::open(store)
        .find(base_name)
        .map_err(|e| failed(format!("its base: {e}")))?;
    if base_pack.metadata.family != super::FAMILY {
        let family = &base_pack.metadata.family;
        return Err(failed(format!(
            "its base {base_name} is of the family {family:?}"
        )));
    }
    let known = remembered(&base_pack.dir, options);
    let base = match known {
        Some(base) => base,
        None => {
            let base = load_base(&base_pack.dir, options)
                .map_err(|why| failed(format!("its base {base_name}: {why}")))?;
            remember(&base_pack.dir, options, &base);
            base
        }
    };
    let (targets, placement) = (base.model.targets(), base.model.placement());
    let lora = LoraSet::load(&pack.dir, &targets, &placement).map_err(failed)?;
    // An adapter that brings no speakers speaks as those of its base.
    let own = VoiceSettings::read(&pack.dir).map_err(failed)?;
    let folder = if own.speakers.is_empty() {
        &base_pack.dir
    } else {
        &pack.dir
    };
    assemble(pack, folder, base, Some(Arc::new(lora)), options)
}

fn cannot_load(name: &str, why: String) -> TtsError {
    TtsError::Load(format!("voice {name} cannot be loaded: {why}"))
}

fn remembered(folder: &Path, options: &LoadOptions) -> Option<Arc<Base>> {
    let bases = BASES.lock().unwrap_or_else(PoisonError::into_inner);
    bases.get(&(folder.to_owned(), options.device))?.upgrade()
}

fn remember(folder: &Path, options: &LoadOptions, base: &Arc<Base>) {
    let mut bases = BASES.lock().unwrap_or_else(PoisonError::into_inner);
    bases.retain(|_, base| base.strong_count() > 0);
    bases.insert((folder.to_owned(), options.device), Arc::downgrade(base));
}

fn load_base(folder: &Path, options: &LoadOptions) -> Result<Arc<Base>, String> {
    let read = |name: &str| {
        let file = folder.join(name);
        std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))
    };
    let config = Config::parse(&read("config.json")?)
        .map_err(|why| format!("{}: {why}", folder.join("config.json").display()))?;
    let file = folder.join("tokenizer.json");
    let tokens = Tokens::load(&file, config.text_vocabulary)
        .map_err(|why| format!("{}: {why}", file.display()))?;
    let device = device::open(options.device)?;
    let files = checkpoint(folder)?;
    let model =
        Model::load(config, &files, &device).map_err(|e| format!("{}: {e}", folder.display()))?;
    base(model, tokens, options)
}

fn base(model: Model, tokens: Tokens, options: &LoadOptions) -> Result<Arc<Base>, String> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads())
        .thread_name(|n| format!("csm-{n}"))
        .build()
        .map_err(|e| e.to_string())?;
    let (model, pool) = (Arc::new(model), Arc::new(pool));
    let engine = Engine::start(Arc::clone(&model), Arc::clone(&pool));
    Ok(Arc::new(Base {
        engine: engine.map_err(|e| format!("a thread for it cannot be started: {e}"))?,
        model,
        tokens,
        pool,
    }))
}

/// The files of a checkpoint: those that an index names, else the one there is, and the codec's where it has one of
/// its own.
pub(super) fn checkpoint(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let there = |name: &str| Some(folder.join(name)).filter(|file| file.is_file());
    let indices = [
        "transformers.safetensors.index.json",
        "model.safetensors.index.json",
    ];
    let mut files = if let Some(index) = indices.into_iter().find_map(there) {
        let wrong = |why: String| format!("{}: {why}", index.display());
        let json = std::fs::read_to_string(&index).map_err(|e| wrong(e.to_string()))?;
        let json: serde_json::Value =
            serde_json::from_str(&json).map_err(|e| wrong(e.to_string()))?;
        let map = json["weight_map"].as_object();
        let map = map.ok_or_else(|| wrong("it has no weight_map".to_owned()))?;
        let mut names: Vec<&str> = map.values().filter_map(|name| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if let Some(outside) = names.iter().find(|name| name.contains(['/', '\\'])) {
            return Err(wrong(format!("{outside} is not in its folder")));
        }
        names.into_iter().map(|name| folder.join(name)).collect()
    } else if let Some(file) = there("model.safetensors") {
        vec![file]
    } else {
        return Err(format!(
            "there is no model.safetensors in {}",
            folder.display()
        ));
    };
    files.extend(there(super::model::CODEC_FILE));
    Ok(files)
}

fn assemble(
    pack: &Voicepack,
    folder: &Path,
    base: Arc<Base>,
    lora: Option<Arc<LoraSet>>,
    options: &LoadOptions,
) -> Result<Arc<dyn Synthesizer>, TtsError> {
    let failed = |why: String| cannot_load(&pack.name, why);
    // How it speaks is the adapter's own to say, who speaks may be the base's.
    let mut manner = VoiceSettings::read(&pack.dir).map_err(failed)?;
    if manner.speakers.is_empty() {
        manner.speakers = VoiceSettings::read(folder).map_err(failed)?.speakers;
    }
    let speakers = speakers(&manner, folder, &base, lora.as_deref()).map_err(failed)?;
    let memory: usize = speakers
        .iter()
        .filter_map(|s| Some(s.lock().as_ref()?.bytes()))
        .sum();
    let weights = lora
        .as_ref()
        .map_or(base.model.bytes(), |lora| lora.bytes());
    let voice = Voice {
        name: pack.name.clone(),
        family: pack.metadata.family.clone(),
        languages: pack.metadata.languages.clone(),
        tags: pack.metadata.tags.clone(),
        speakers: manner.speakers.iter().map(|s| s.name.clone()).collect(),
        sample_rate: base.model.config().codec.rate,
        max_chars: MAX_CHARS,
        resident_bytes: (weights + memory) as u64,
    };
    Ok(Arc::new(Csm(Arc::new(Shared {
        voice,
        base,
        lora,
        speakers,
        manner,
        seed: options.seed,
    }))))
}

/// Those who can speak: one without a recording where none is given. The first one's recording is read at once.
fn speakers(
    manner: &VoiceSettings,
    folder: &Path,
    base: &Base,
    lora: Option<&LoraSet>,
) -> Result<Vec<Speaker>, String> {
    let nobody = [SpeakerSettings {
        name: String::new(),
        id: 0,
        reference: None,
    }];
    let all = if manner.speakers.is_empty() {
        &nobody[..]
    } else {
        &manner.speakers
    };
    let codec = base.model.codec();
    let speakers = all
        .iter()
        .map(|settings| speaker(settings, folder, base, codec))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(first) = speakers.first() {
        let never = StopFlag::default();
        first
            .memory(base, lora, &never)
            .map_err(|e| e.to_string())?;
    }
    Ok(speakers)
}

fn speaker(
    settings: &SpeakerSettings,
    folder: &Path,
    base: &Base,
    codec: &Codec,
) -> Result<Speaker, String> {
    let mut speaker = Speaker {
        id: settings.id,
        reference: None,
        normaliser: Normaliser {
            gain: Gain::UNITY,
            limiter: SoftLimiter::default(),
        },
        memory: Mutex::default(),
    };
    let Some(name) = &settings.reference else {
        return Ok(speaker);
    };
    let outside = Path::new(name).is_absolute() || name.split(['/', '\\']).any(|part| part == "..");
    if outside {
        return Err(format!(
            "the recording {name} is not in the voicepack's folder"
        ));
    }
    let file = folder.join(name);
    let wrong = |why: String| format!("{}: {why}", file.display());
    let rate = base.model.config().codec.rate;
    let sound = duologue_audio::decode_file(&file).map_err(|e| wrong(e.to_string()))?;
    if sound.seconds() > LONGEST_REFERENCE {
        return Err(wrong(format!(
            "it lasts {:.0} s; give {LONGEST_REFERENCE} s at most, cut at a pause",
            sound.seconds()
        )));
    }
    let sound = sound
        .at_rate(rate)
        .map_err(|e| wrong(e.to_string()))?
        .samples;
    if let Some(measured) = loudness::measure(&sound, rate).map_err(|e| wrong(e.to_string()))? {
        speaker.normaliser = Normaliser::new(measured, SPEECH_LUFS);
    }
    let beside = file.with_extension("txt");
    let said = std::fs::read_to_string(&beside).map_err(|e| {
        format!(
            "{}: {e}; it has to say what is said in {}",
            beside.display(),
            file.display()
        )
    })?;
    let tokens = base.tokens.turn(settings.id, said.trim());
    let frames = base.pool.install(|| codec.encode(&sound));
    speaker.reference = Some(Turn {
        tokens: tokens.map_err(wrong)?,
        frames: frames.map_err(|e| wrong(e.to_string()))?,
    });
    Ok(speaker)
}

impl Speaker {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Memory>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the network remembers of their recording; nothing where there is none.
    pub(super) fn memory(
        &self,
        base: &Base,
        lora: Option<&LoraSet>,
        stop: &StopFlag,
    ) -> Result<Option<Arc<Memory>>, TtsError> {
        let Some(turn) = &self.reference else {
            return Ok(None);
        };
        if let Some(known) = self.lock().clone() {
            return Ok(Some(known));
        }
        // Two who need it at the same time both read it, and get the same.
        let mut memory = base.model.memory(turn.steps()).map_err(engine)?;
        let steps: Vec<Step> = turn.read(base.model.end_frame()).collect();
        base.pool
            .install(|| base.model.read_alone(&steps, &mut memory, lora, stop))?;
        let memory = Arc::new(memory);
        *self.lock() = Some(Arc::clone(&memory));
        Ok(Some(memory))
    }
}

impl Shared {
    /// Steps that a session's memory has room for.
    pub(super) fn capacity(&self, speaker: &Speaker) -> usize {
        let reference = speaker.reference.as_ref().map_or(0, Turn::steps);
        reference + self.context() + SENTENCE
    }

    /// Steps of what was said before that are kept.
    pub(super) fn context(&self) -> usize {
        let config = &self.base.model.config().codec;
        let rate = f64::from(config.rate) / config.frame as f64;
        // Text takes about as many steps as a quarter of its sound.
        (self.manner.context_seconds * rate * 1.25) as usize
    }
}

impl Synthesizer for Csm {
    fn voice(&self) -> &Voice {
        &self.0.voice
    }

    fn begin(&self, settings: &Settings) -> Result<Box<dyn Speech>, TtsError> {
        // A conversation that ends with its first reply.
        self.begin_in(settings, &Conversation::default())
    }

    fn begin_in(
        &self,
        settings: &Settings,
        conversation: &Conversation,
    ) -> Result<Box<dyn Speech>, TtsError> {
        let voice = &self.0.voice;
        voice.check_language(settings)?;
        let (speaker, speed) = (voice.speaker(settings)?, voice.speed(settings)?);
        let speech = CsmSpeech::new(Arc::clone(&self.0), speaker, speed, conversation.clone());
        Ok(Box::new(speech))
    }
}

/// A voice's shape where its weights are random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// So small that a CPU speaks with it at once.
    Tiny,
    /// CSM-1B's.
    Full,
}

/// A voice of no meaning: noise in the shape of speech.
pub struct RandomVoice {
    base: Arc<Base>,
    options: LoadOptions,
}

/// Makes a voice with random weights, to time one of that shape. Blocks; the full shape takes about 7 GB on a CPU.
///
/// # Errors
/// [`TtsError::Load`] when the device cannot be used or has not enough memory.
pub fn random(shape: Shape, options: &LoadOptions) -> Result<RandomVoice, TtsError> {
    let failed = |why: String| cannot_load("random", why);
    let config = match shape {
        Shape::Tiny => Config::tiny(),
        Shape::Full => Config::published(),
    };
    let device = device::open(options.device).map_err(failed)?;
    let model = Model::random(config, options.seed, &device).map_err(|e| failed(e.to_string()))?;
    Ok(RandomVoice {
        base: base(model, Tokens::Bytes, options).map_err(failed)?,
        options: options.clone(),
    })
}

impl RandomVoice {
    /// The voice, with an adapter from a folder or without one. All share the weights.
    ///
    /// # Errors
    /// [`TtsError::Load`] when the adapter is none for this shape.
    pub fn voice(&self, adapter: Option<&Path>) -> Result<Arc<dyn Synthesizer>, TtsError> {
        let failed = |why: String| cannot_load("random", why);
        let model = &self.base.model;
        let lora = adapter
            .map(|folder| LoraSet::load(folder, &model.targets(), &model.placement()))
            .transpose()
            .map_err(failed)?;
        let manner = VoiceSettings::default();
        let config = model.config();
        let lora = lora.map(Arc::new);
        let weights = lora.as_ref().map_or(model.bytes(), |lora| lora.bytes());
        Ok(Arc::new(Csm(Arc::new(Shared {
            voice: Voice {
                name: "random".to_owned(),
                family: super::FAMILY.to_owned(),
                languages: Vec::new(),
                tags: Vec::new(),
                speakers: Vec::new(),
                sample_rate: config.codec.rate,
                max_chars: MAX_CHARS,
                resident_bytes: weights as u64,
            },
            speakers: speakers(&manner, Path::new("."), &self.base, lora.as_deref())
                .map_err(failed)?,
            base: Arc::clone(&self.base),
            lora,
            // Chance ends no turn: it ends where it is thought to.
            manner: VoiceSettings {
                longest: 1.0,
                ..manner
            },
            seed: self.options.seed,
        }))))
    }

    /// Writes an adapter of that rank for every matrix of this shape, as PEFT would, into a folder.
    ///
    /// # Errors
    /// [`TtsError::Load`] when it cannot be written.
    pub fn write_adapter(&self, folder: &Path, rank: NonZeroUsize) -> Result<(), TtsError> {
        crate::neural::lora::write_random(
            folder,
            &self.base.model.targets(),
            rank.get(),
            self.options.seed,
        )
        .map_err(|e| cannot_load("random", e))
    }

    /// Memory that the weights take, bytes.
    pub fn weight_bytes(&self) -> u64 {
        self.base.model.bytes() as u64
    }

    /// Memory that a session takes, bytes.
    ///
    /// # Errors
    /// [`TtsError::Engine`] when there is not enough.
    pub fn session_bytes(&self) -> Result<u64, TtsError> {
        let steps = VoiceSettings::default().context_seconds * 12.5 * 1.25;
        let memory = self
            .base
            .model
            .memory(steps as usize + SENTENCE)
            .map_err(engine)?;
        Ok(memory.bytes() as u64)
    }
}
