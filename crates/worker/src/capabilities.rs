//! What the worker says of itself: to who asks by GetCapabilities, and to a registry.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use duologue_rpc::{GetCapabilitiesResponse, Hardware, LiveFigures, Model, Residency};
use tokio::time::Instant;

use crate::figures::{Figures, Spoken, Summary};
use crate::service::{Inner, format};
use crate::voices::VoiceEntry;

/// The figures of a worker, shared by the threads that speak.
pub(crate) struct Gauge {
    origin: Instant,
    figures: Mutex<Figures>,
    /// Utterances that are computed now.
    computing: AtomicU32,
}

impl Gauge {
    pub(crate) fn new() -> Self {
        Gauge {
            origin: Instant::now(),
            figures: Mutex::default(),
            computing: AtomicU32::new(0),
        }
    }

    /// Runs a computation; also the share of the worker's time that it took, others having theirs.
    pub(crate) fn share<T>(&self, compute: impl FnOnce() -> T) -> (T, Duration) {
        let begun = Instant::now();
        let at_first = self.computing.fetch_add(1, Ordering::Relaxed) + 1;
        let computed = compute();
        let at_last = self.computing.fetch_sub(1, Ordering::Relaxed);
        // In the mean so many were at work.
        (computed, begun.elapsed() * 2 / (at_first + at_last))
    }

    pub(crate) fn add(&self, spoken: Spoken) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.add(self.origin.elapsed(), spoken);
    }

    fn summary(&self) -> Option<Summary> {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.summary(self.origin.elapsed())
    }
}

impl Inner {
    /// What the worker is and how it does, with these voices.
    pub(crate) fn describe(&self, entries: Vec<VoiceEntry>) -> GetCapabilitiesResponse {
        let models = self.models_of(entries);
        let languages: BTreeSet<&String> = models.iter().flat_map(|m| &m.languages).collect();
        let languages = languages.into_iter().cloned().collect();
        let room = self.models.room();
        GetCapabilitiesResponse {
            worker: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            format: Some(format()),
            max_sessions: count(self.sessions.max()),
            free_sessions: count(self.sessions.free()),
            zero_shot: any_has(&models, "zero_shot"),
            lora: any_has(&models, "lora"),
            cpu_ok: any_has(&models, "cpu_ok"),
            emotive: any_has(&models, "expressive"),
            languages,
            models,
            hardware: Some(hardware(&self.config.device)),
            residency: Some(Residency {
                bytes: room.bytes,
                limit_bytes: room.memory_limit.unwrap_or(0),
                max_voices: room.max_resident.map_or(0, count),
            }),
            live: Some(self.live()),
            draining: self.shutdown.is_cancelled(),
        }
    }

    fn live(&self) -> LiveFigures {
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        let queue_depth = count(self.engine.queue_depth());
        match self.figures.summary() {
            Some(summary) => LiveFigures {
                utterances: count(summary.utterances),
                real_time_factor: summary.real_time_factor,
                first_audio_p50_ms: ms(summary.first_audio_p50),
                first_audio_p95_ms: ms(summary.first_audio_p95),
                queue_depth,
            },
            None => LiveFigures {
                queue_depth,
                ..LiveFigures::default()
            },
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn any_has(models: &[Model], tag: &str) -> bool {
    models
        .iter()
        .any(|model| model.tags.iter().any(|t| t == tag))
}

fn hardware(device: &str) -> Hardware {
    Hardware {
        device: device.to_owned(),
        // Heeds what the process is pinned to.
        cores: std::thread::available_parallelism().map_or(0, |n| count(n.get())),
        memory_bytes: machine_memory().unwrap_or(0),
    }
}

/// The machine's memory in bytes, where the system tells it.
fn machine_memory() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1_024)
}
