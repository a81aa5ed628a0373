//! What a worker is told at start. `duologue worker --help` and `configs/worker.yaml` explain the options.

use std::time::Duration;

use crate::WorkerError;

/// Settings of a [`Worker`](crate::Worker). Every one has a default.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerConfig {
    /// What the worker calls itself in GetCapabilities and in a registry.
    pub name: String,
    /// The voice for sessions that name none; loaded at start and never evicted. `None`: such sessions are
    /// refused.
    pub default_voice: Option<String>,
    /// Further voices to load at start; never evicted either.
    pub preload: Vec<String>,
    /// What it computes with, as it tells others: `cpu`, or `cuda:0` and the like.
    pub device: String,
    /// Sessions at once, at least 1.
    pub max_sessions: usize,
    /// Threads that compute speech, at once; 0 is one for each CPU core.
    pub engine_threads: usize,
    /// Threads that work together on one piece of speech, shared by all sessions of a voice; 0 is one for
    /// each CPU core, four at most.
    pub voice_threads: usize,
    /// Voices loaded at the same time, at least 1.
    pub max_parallel_loads: usize,
    /// Most voices in memory at once, at least as many as are loaded at start; `None`: any number.
    pub max_resident: Option<usize>,
    /// Most memory of all voices together, bytes; `None`: no limit.
    pub memory_limit: Option<u64>,
    /// How long a voice stays in memory that nobody uses; `None`: for good.
    pub voice_ttl: Option<Duration>,
    /// How long a voice stays in memory at least, unless its room is needed.
    pub min_residency: Duration,
    /// How often idle voices are looked for; more than zero.
    pub evict_interval: Duration,
    /// How far frames run ahead of the listener where the session does not say, 20 to 3,600,000 ms.
    pub lead_ms: u32,
    /// Longest text chunk in characters; a voice may take less.
    pub max_chunk_chars: usize,
    /// Text chunks that wait in one utterance, at least 1; a client that sends more is held back.
    pub max_queued_chunks: usize,
    /// Settings of the built-in test voice, `tone`.
    pub tone: ToneConfig,
    /// Deadlines.
    pub timeouts: Timeouts,
}

/// Settings of the built-in test voice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ToneConfig {
    /// Time it takes to a text's first sound, in milliseconds.
    pub first_audio_ms: u32,
    /// Seconds it takes to compute a second of sound: 0 is at once, above 1 slower than real time.
    pub real_time_factor: f64,
}

/// How long the worker waits for what; more than zero and less than a century each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timeouts {
    /// A session that says nothing is ended: for orchestrators that died, so longer than people are silent.
    pub idle_session: Duration,
    /// For text, at the start of an utterance and between its chunks.
    pub text: Duration,
    /// For RESUME after a PAUSE.
    pub pause: Duration,
    /// For a client that does not read the frames that are due.
    pub stalled_client: Duration,
    /// For one piece of speech, waiting for an engine thread included.
    pub engine: Duration,
    /// For a voice to load and warm up.
    pub load: Duration,
    /// For running utterances to finish when the worker shuts down.
    pub drain: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        WorkerConfig {
            name: "worker".to_owned(),
            default_voice: Some("piper-en_US-joe-medium".to_owned()),
            preload: Vec::new(),
            device: "cpu".to_owned(),
            max_sessions: 16,
            engine_threads: 0,
            voice_threads: 0,
            max_parallel_loads: 1,
            max_resident: None,
            memory_limit: None,
            voice_ttl: Some(Duration::from_secs(1_800)),
            min_residency: Duration::from_secs(300),
            evict_interval: Duration::from_secs(30),
            lead_ms: 1_000,
            max_chunk_chars: 5_000,
            max_queued_chunks: 64,
            tone: ToneConfig::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            idle_session: Duration::from_secs(360),
            text: Duration::from_secs(60),
            pause: Duration::from_secs(300),
            stalled_client: Duration::from_secs(30),
            engine: Duration::from_secs(30),
            load: Duration::from_secs(120),
            drain: Duration::from_secs(30),
        }
    }
}

/// What a lead may be, in milliseconds.
pub(crate) const LEAD_MS: std::ops::RangeInclusive<u32> = 20..=3_600_000;
/// Keeps sums of times representable.
const CENTURY: Duration = Duration::from_secs(3_155_760_000);

impl WorkerConfig {
    /// Checks what the types leave open.
    pub(crate) fn check(&self) -> Result<(), WorkerError> {
        let refuse = |what: &str| Err(WorkerError::Config(what.to_owned()));
        if self.max_sessions == 0 {
            return refuse("max-sessions is 0: give at least 1");
        }
        if self.max_parallel_loads == 0 {
            return refuse("max-parallel-loads is 0: give at least 1");
        }
        if self.max_chunk_chars == 0 || self.max_queued_chunks == 0 {
            return refuse("max-chunk-chars and max-queued-chunks must be at least 1");
        }
        if !LEAD_MS.contains(&self.lead_ms) {
            return refuse("lead-ms is out of range: give 20 to 3600000");
        }
        let mut at_start: Vec<_> = self.default_voice.iter().chain(&self.preload).collect();
        at_start.sort();
        at_start.dedup();
        if self
            .max_resident
            .is_some_and(|max| max < at_start.len().max(1))
        {
            return Err(WorkerError::Config(format!(
                "max-resident is {}, and {} voices are to be loaded at start: raise it, or preload fewer",
                self.max_resident.unwrap_or(0),
                at_start.len()
            )));
        }
        let t = &self.timeouts;
        let all = [
            t.idle_session,
            t.text,
            t.pause,
            t.stalled_client,
            t.engine,
            t.load,
            t.drain,
            self.evict_interval,
        ];
        if all.iter().any(|t| t.is_zero() || *t > CENTURY) {
            return refuse("a time is out of range: give seconds, at least 1");
        }
        let longest = self.min_residency.max(self.voice_ttl.unwrap_or_default());
        if longest > CENTURY {
            return refuse("voice-ttl or min-residency is out of range: give less than a century");
        }
        Ok(())
    }

    pub(crate) fn engine_threads(&self) -> usize {
        match self.engine_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }
}
