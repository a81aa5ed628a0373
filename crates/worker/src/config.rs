//! What a worker is told at start. `configs/worker.yaml` shows every option with its default.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::WorkerError;

/// Settings of a [`Worker`](crate::Worker). Every field has a default, so an empty file is a valid one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// What the worker calls itself in GetCapabilities.
    pub name: String,
    /// Address that `duologue worker` listens on.
    pub listen: String,
    /// The voice for sessions that name none; loaded at start. `None`: such sessions are refused.
    pub default_voice: Option<String>,
    /// Further voices to load at start.
    pub preload: Vec<String>,
    /// Sessions at once, at least 1.
    pub max_sessions: usize,
    /// Threads that compute speech, at once; 0 is one for each CPU core.
    pub engine_threads: usize,
    /// Threads that work together on one piece of speech, shared by all sessions of a voice; 0 is one for
    /// each CPU core, four at most.
    pub voice_threads: usize,
    /// Voices loaded at the same time, at least 1.
    pub max_parallel_loads: usize,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToneConfig {
    /// Time it takes to a text's first sound, in milliseconds.
    pub first_audio_ms: u32,
    /// Seconds it takes to compute a second of sound: 0 is at once, above 1 slower than real time.
    pub real_time_factor: f64,
}

/// How long the worker waits for what, in seconds, at least 1 each.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// A session that says nothing is ended: for orchestrators that died, so longer than people are silent.
    pub idle_session_s: u64,
    /// For text, at the start of an utterance and between its chunks.
    pub text_s: u64,
    /// For RESUME after a PAUSE.
    pub pause_s: u64,
    /// For a client that does not read the frames that are due.
    pub stalled_client_s: u64,
    /// For one piece of speech, waiting for an engine thread included.
    pub engine_s: u64,
    /// For a voice to load and warm up.
    pub load_s: u64,
    /// For running utterances to finish when the worker shuts down.
    pub drain_s: u64,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        WorkerConfig {
            name: "worker".to_owned(),
            listen: "127.0.0.1:50051".to_owned(),
            default_voice: Some("piper-en_US-joe-medium".to_owned()),
            preload: Vec::new(),
            max_sessions: 16,
            engine_threads: 0,
            voice_threads: 0,
            max_parallel_loads: 1,
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
            idle_session_s: 1_800,
            text_s: 60,
            pause_s: 300,
            stalled_client_s: 30,
            engine_s: 30,
            load_s: 120,
            drain_s: 10,
        }
    }
}

/// What a lead may be, in milliseconds.
pub(crate) const LEAD_MS: std::ops::RangeInclusive<u32> = 20..=3_600_000;

impl WorkerConfig {
    /// Checks what the types leave open.
    pub(crate) fn check(&self) -> Result<(), WorkerError> {
        let refuse = |what: &str| Err(WorkerError::Config(what.to_owned()));
        if self.max_sessions == 0 {
            return refuse("max_sessions is 0: give at least 1");
        }
        if self.max_parallel_loads == 0 {
            return refuse("max_parallel_loads is 0: give at least 1");
        }
        if self.max_chunk_chars == 0 || self.max_queued_chunks == 0 {
            return refuse("max_chunk_chars and max_queued_chunks must be at least 1");
        }
        if !LEAD_MS.contains(&self.lead_ms) {
            return refuse("lead_ms is out of range: give 20 to 60000");
        }
        let t = &self.timeouts;
        let all = [
            t.idle_session_s,
            t.text_s,
            t.pause_s,
            t.stalled_client_s,
            t.engine_s,
            t.load_s,
            t.drain_s,
        ];
        // A century keeps sums of times representable.
        if all.iter().any(|s| !(1..=3_155_760_000).contains(s)) {
            return refuse("a timeout is out of range: give seconds, at least 1");
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

impl Timeouts {
    pub(crate) fn idle_session(&self) -> Duration {
        Duration::from_secs(self.idle_session_s)
    }
    pub(crate) fn text(&self) -> Duration {
        Duration::from_secs(self.text_s)
    }
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_secs(self.pause_s)
    }
    pub(crate) fn stalled_client(&self) -> Duration {
        Duration::from_secs(self.stalled_client_s)
    }
    pub(crate) fn engine(&self) -> Duration {
        Duration::from_secs(self.engine_s)
    }
    pub(crate) fn load(&self) -> Duration {
        Duration::from_secs(self.load_s)
    }
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_s)
    }
}
