//! What `duologue worker` may be told.

use std::path::PathBuf;
use std::time::Duration;

use super::devices::Device;
use super::supervisor;
use crate::admin::AdminOptions;
use crate::size;
use crate::traces::TraceOptions;
use crate::worker_tls::WorkerTlsOptions;
use clap::Args;
use duologue_worker::{Timeouts, ToneConfig, WorkerConfig};

/// Word for "no voice" where a voice's name stands.
const NO_VOICE: &str = "none";

/// The options, which are the keys of the configuration file too (`max-sessions: 8`). A flag counts before the
/// environment, that before the file, that before the default.
#[derive(Debug, Args)]
#[command(
    after_help = "Options can also stand in a YAML file, by their long names: see configs/worker.yaml."
)]
pub struct WorkerCommand {
    /// Configuration file
    #[arg(long, env = "DUOLOGUE_WORKER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Address to listen on; port 0 takes a free one. Keep the port to hosts you trust, or
    /// take only those that show a certificate (see TLS below)
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_LISTEN",
        default_value = "127.0.0.1:50051",
        value_name = "ADDR"
    )]
    pub(super) listen: String,

    /// What the worker calls itself; left out, it is the machine's name and the port
    #[arg(long, env = "DUOLOGUE_WORKER_NAME", value_name = "NAME")]
    pub(super) name: Option<String>,

    /// Address at which Prometheus finds `/metrics`; left out, nothing is measured
    #[arg(long, env = "DUOLOGUE_WORKER_METRICS_LISTEN", value_name = "ADDR")]
    pub(super) metrics_listen: Option<String>,

    #[command(flatten)]
    pub(super) traces: TraceOptions,

    #[command(flatten)]
    pub(super) admin: AdminOptions,

    /// Sessions at once; one more is refused
    #[arg(long, env = "DUOLOGUE_WORKER_MAX_SESSIONS", default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_sessions: u32,

    #[command(flatten)]
    pub(super) tls: WorkerTlsOptions,

    #[command(flatten)]
    pub(super) fleet: FleetOptions,

    #[command(flatten)]
    models: ModelOptions,

    #[command(flatten)]
    resources: ResourceOptions,

    #[command(flatten)]
    timeouts: TimeoutOptions,

    #[command(flatten)]
    tone: ToneOptions,
}

/// How orchestrators find the worker.
#[derive(Debug, Args)]
#[command(next_help_heading = "Fleet")]
pub(super) struct FleetOptions {
    /// Registry to announce the worker in, such as redis://10.0.0.2:6379; orchestrators with the same one find it
    /// there
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_REGISTRY",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(super) registry: Option<String>,

    /// Address under which orchestrators reach the worker; left out, it is the one it listens on
    #[arg(long, env = "DUOLOGUE_WORKER_ADVERTISE", value_name = "URL")]
    pub(super) advertise: Option<String>,

    /// What routing policies may ask for: a zone, gpu, edge, ..., separated by commas
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_TAGS",
        value_name = "TAG",
        value_delimiter = ','
    )]
    pub(super) tags: Vec<String>,

    /// Seconds that the registry remembers a worker which has died; it is renewed three times as often
    #[arg(long, env = "DUOLOGUE_WORKER_LEASE", default_value_t = 6, value_name = "S", value_parser = seconds())]
    pub(super) lease: u64,
}

/// Which voices are in memory.
#[derive(Debug, Args)]
#[command(next_help_heading = "Voices")]
struct ModelOptions {
    /// Voice for sessions that name none: loaded and warmed up before the worker is ready, never evicted; `none`:
    /// such sessions are refused
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_DEFAULT_VOICE",
        default_value = "piper-en_US-joe-medium",
        value_name = "VOICE"
    )]
    default_voice: String,

    /// Further voices to load before the worker is ready, never evicted either, separated by commas
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_PRELOAD",
        value_name = "VOICE",
        value_delimiter = ','
    )]
    preload: Vec<String>,

    /// Folder that holds the voicepacks, instead of the one where `duologue models` puts them
    #[arg(long, env = "DUOLOGUE_WORKER_VOICEPACKS", value_name = "DIR")]
    voicepacks: Option<PathBuf>,

    /// Voices loaded at the same time
    #[arg(long, env = "DUOLOGUE_WORKER_MAX_PARALLEL_LOADS", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_parallel_loads: u32,

    /// Most voices in memory; for one more, the least recently used that is idle goes. 0: any number
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_MAX_RESIDENT",
        default_value_t = 0,
        value_name = "N"
    )]
    max_resident: usize,

    /// Most memory that all voices take together, such as 2GB: idle ones go for a load, and one for which that is
    /// not enough is refused. 0: no limit
    #[arg(long, env = "DUOLOGUE_WORKER_MEMORY_LIMIT", default_value = "0", value_name = "SIZE", value_parser = size::parse)]
    memory_limit: u64,

    /// Seconds that a voice stays in memory which nobody uses; 0: for good
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_VOICE_TTL",
        default_value_t = 1_800,
        value_name = "S"
    )]
    voice_ttl: u64,

    /// Seconds that a voice stays in memory at least, unless its room is needed
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_MIN_RESIDENCY",
        default_value_t = 300,
        value_name = "S"
    )]
    min_residency: u64,

    /// Seconds between two looks for voices that nobody uses
    #[arg(long, env = "DUOLOGUE_WORKER_EVICT_INTERVAL", default_value_t = 30, value_name = "S", value_parser = seconds())]
    evict_interval: u64,
}

/// What speaking may take.
#[derive(Debug, Args)]
#[command(next_help_heading = "Resources")]
struct ResourceOptions {
    /// Devices to speak with, one worker process each, separated by commas: GPUs by number (0,1), cores of the CPU
    /// as cpu:0-3. A process that dies is started again. Each listens on the next port and has its number in its
    /// name
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_DEVICES",
        value_name = "DEVICE",
        value_delimiter = ','
    )]
    devices: Vec<Device>,

    /// Threads that compute speech at the same time; 0 is one for each CPU core
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_ENGINE_THREADS",
        default_value_t = 0,
        value_name = "N"
    )]
    engine_threads: usize,

    /// Threads that work together on one piece of speech; 0 is one for each CPU core, four at most
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_VOICE_THREADS",
        default_value_t = 0,
        value_name = "N"
    )]
    voice_threads: usize,

    /// How far frames run ahead of the listener where a session does not say, in milliseconds. More rides out a
    /// busy machine; less is less to throw away when the speaker is interrupted
    #[arg(long, env = "DUOLOGUE_WORKER_LEAD_MS", default_value_t = 1_000, value_name = "MS", value_parser = clap::value_parser!(u32).range(20..=3_600_000))]
    lead_ms: u32,

    /// Longest piece of text in characters; a voice may take less
    #[arg(long, env = "DUOLOGUE_WORKER_MAX_CHUNK_CHARS", default_value_t = 5_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_chunk_chars: u32,

    /// Pieces of text that may wait in one utterance; a client that sends more is held back
    #[arg(long, env = "DUOLOGUE_WORKER_MAX_QUEUED_CHUNKS", default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_queued_chunks: u32,
}

/// How long the worker waits for what.
#[derive(Debug, Args)]
#[command(next_help_heading = "Deadlines")]
struct TimeoutOptions {
    /// Seconds that running utterances are given to end on SIGTERM; new sessions are refused meanwhile
    #[arg(long, env = "DUOLOGUE_WORKER_DRAIN", default_value_t = 30, value_name = "S", value_parser = seconds())]
    drain: u64,

    /// Seconds for a voice to load and warm up
    #[arg(long, env = "DUOLOGUE_WORKER_LOAD_TIMEOUT", default_value_t = 120, value_name = "S", value_parser = seconds())]
    load_timeout: u64,

    /// Seconds after which a session is ended that says nothing. It is there for orchestrators that died, so let
    /// it be longer than people are silent
    #[arg(long, env = "DUOLOGUE_WORKER_IDLE_TIMEOUT", default_value_t = 360, value_name = "S", value_parser = seconds())]
    idle_timeout: u64,

    /// Seconds that an utterance waits for text, at its start and between its pieces
    #[arg(long, env = "DUOLOGUE_WORKER_TEXT_TIMEOUT", default_value_t = 60, value_name = "S", value_parser = seconds())]
    text_timeout: u64,

    /// Seconds that a paused utterance waits for RESUME
    #[arg(long, env = "DUOLOGUE_WORKER_PAUSE_TIMEOUT", default_value_t = 300, value_name = "S", value_parser = seconds())]
    pause_timeout: u64,

    /// Seconds after which an utterance is ended whose client does not read the frames that are due
    #[arg(long, env = "DUOLOGUE_WORKER_STALL_TIMEOUT", default_value_t = 30, value_name = "S", value_parser = seconds())]
    stall_timeout: u64,

    /// Seconds for one piece of speech, waiting for a thread included
    #[arg(long, env = "DUOLOGUE_WORKER_ENGINE_TIMEOUT", default_value_t = 30, value_name = "S", value_parser = seconds())]
    engine_timeout: u64,
}

/// The built-in voice `tone`: beeps in place of words, at a speed of your choice.
#[derive(Debug, Args)]
#[command(next_help_heading = "Test voice `tone`")]
struct ToneOptions {
    /// Milliseconds to a text's first sound
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_TONE_FIRST_AUDIO_MS",
        default_value_t = 0,
        value_name = "MS"
    )]
    tone_first_audio_ms: u32,

    /// Seconds it takes to compute a second of sound: 0 is at once, above 1 slower than real time
    #[arg(long, env = "DUOLOGUE_WORKER_TONE_REAL_TIME_FACTOR", default_value_t = 0.0, value_name = "F", value_parser = factor)]
    tone_real_time_factor: f64,
}

impl WorkerCommand {
    /// Folder that holds the voicepacks, if it is not the usual one.
    pub(super) fn voicepacks(&self) -> Option<&PathBuf> {
        self.models.voicepacks.as_ref()
    }

    /// The devices that each get a process.
    pub(super) fn devices(&self) -> &[Device] {
        &self.resources.devices
    }

    /// Number and device of this process, if it is one of several.
    pub(super) fn own_device(&self) -> Option<(usize, &Device)> {
        let index = supervisor::index()?;
        Some((index, self.resources.devices.get(index)?))
    }

    /// Time to drain.
    pub(super) fn drain(&self) -> Duration {
        Duration::from_secs(self.timeouts.drain)
    }

    /// The worker's settings, with this name.
    pub(crate) fn worker_config(&self, name: String) -> WorkerConfig {
        let ModelOptions {
            default_voice,
            preload,
            voicepacks: _,
            max_parallel_loads,
            max_resident,
            memory_limit,
            voice_ttl,
            min_residency,
            evict_interval,
        } = &self.models;
        let resources = &self.resources;
        let timeouts = &self.timeouts;
        WorkerConfig {
            name,
            default_voice: (default_voice != NO_VOICE).then(|| default_voice.clone()),
            preload: preload.iter().filter(|v| !v.is_empty()).cloned().collect(),
            device: self
                .own_device()
                .map_or_else(|| "cpu".to_owned(), |(_, device)| device.to_string()),
            max_sessions: self.max_sessions as usize,
            engine_threads: resources.engine_threads,
            voice_threads: resources.voice_threads,
            max_parallel_loads: *max_parallel_loads as usize,
            max_resident: (*max_resident > 0).then_some(*max_resident),
            memory_limit: (*memory_limit > 0).then_some(*memory_limit),
            voice_ttl: (*voice_ttl > 0).then(|| Duration::from_secs(*voice_ttl)),
            min_residency: Duration::from_secs(*min_residency),
            evict_interval: Duration::from_secs(*evict_interval),
            lead_ms: resources.lead_ms,
            max_chunk_chars: resources.max_chunk_chars as usize,
            max_queued_chunks: resources.max_queued_chunks as usize,
            tone: ToneConfig {
                first_audio_ms: self.tone.tone_first_audio_ms,
                real_time_factor: self.tone.tone_real_time_factor,
            },
            timeouts: Timeouts {
                idle_session: Duration::from_secs(timeouts.idle_timeout),
                text: Duration::from_secs(timeouts.text_timeout),
                pause: Duration::from_secs(timeouts.pause_timeout),
                stalled_client: Duration::from_secs(timeouts.stall_timeout),
                engine: Duration::from_secs(timeouts.engine_timeout),
                load: Duration::from_secs(timeouts.load_timeout),
                drain: Duration::from_secs(timeouts.drain),
            },
        }
    }
}

/// At least one.
fn seconds() -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(1..)
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(factor) if (0.0..=1e6).contains(&factor) => Ok(factor),
        _ => Err(format!(
            "{text:?} is not a factor: give 0 (at once) or more"
        )),
    }
}
