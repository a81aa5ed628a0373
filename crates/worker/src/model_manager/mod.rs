//! Loads voices, keeps them, and lets go of them.
//!
//! A voice is loaded, then warmed up by speaking a little, then handed out, so that nobody's first sentence
//! pays for cold caches. Loads run on the blocking pool, at most `max_parallel_loads` at once, and one load
//! serves all who ask. A load goes on when whoever asked for it has gone: somebody else may be waiting.
//!
//! What may be done to which voice, and which one goes when room is needed, is decided in [`residency`]; this
//! drives it. Room is made before a load by what the voice's files say, and looked at again after it by what
//! the load took.

mod error;
mod memory;
mod residency;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use duologue_metrics::table;
use duologue_tts::{FrameStream, Settings, StopFlag, Synthesizer, TtsError};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::WorkerConfig;
use crate::voices::{VoiceEntry, VoiceSource};
pub use error::ModelError;
use residency::{Busy, Gone, Need, Residency, Rules};

/// Text that warms a voice up, and how much of its sound is computed: about 300 ms.
const WARM_UP_TEXT: &str = "This is a voice.";
const WARM_UP_FRAMES: usize = 15;

type Voice = Arc<dyn Synthesizer>;
type Outcome = Option<Result<(), ModelError>>;

/// The voices of a worker.
pub(crate) struct ModelManager {
    source: Arc<dyn VoiceSource>,
    table: Mutex<Table>,
    loads: Arc<Semaphore>,
    load_timeout: Duration,
    memory_limit: Option<u64>,
    max_resident: Option<usize>,
    origin: Instant,
}

struct Table {
    residency: Residency<Voice>,
    /// Loads under way; at most one a voice.
    under_way: HashMap<String, watch::Receiver<Outcome>>,
}

/// A voice in use: while it lives the voice is not unloaded.
pub(crate) struct VoiceLease {
    manager: Arc<ModelManager>,
    name: String,
}

/// A voice as the list shows it.
pub(crate) struct VoiceState {
    pub(crate) entry: VoiceEntry,
    pub(crate) resident: Option<duologue_tts::Voice>,
    /// Memory it takes; 0 if it is not resident.
    pub(crate) bytes: u64,
    pub(crate) sessions: usize,
}

/// Memory of the resident voices, and what bounds it.
pub(crate) struct Room {
    pub(crate) bytes: u64,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) max_resident: Option<usize>,
}

impl ModelManager {
    pub(crate) fn new(source: Arc<dyn VoiceSource>, config: &WorkerConfig) -> Arc<Self> {
        let kept = config.default_voice.iter().chain(&config.preload).cloned();
        let rules = Rules {
            max_resident: config.max_resident,
            memory_limit: config.memory_limit,
            ttl: config.voice_ttl,
            min_residency: config.min_residency,
            kept: kept.collect::<BTreeSet<_>>(),
        };
        Arc::new(ModelManager {
            source,
            table: Mutex::new(Table {
                residency: Residency::new(rules),
                under_way: HashMap::new(),
            }),
            loads: Arc::new(Semaphore::new(config.max_parallel_loads)),
            load_timeout: config.timeouts.load,
            memory_limit: config.memory_limit,
            max_resident: config.max_resident,
            origin: Instant::now(),
        })
    }

    /// Lets idle voices go whose time is over, every `interval`, until `shutdown` or the manager is gone.
    pub(crate) async fn evict(
        manager: Weak<Self>,
        interval: Duration,
        shutdown: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = shutdown.cancelled() => return,
            }
            let Some(manager) = manager.upgrade() else {
                return;
            };
            let gone = manager.lock().residency.expire(manager.now());
            evicted(&gone);
            free(gone, "unloaded: nobody used it").await;
            manager.measure();
        }
    }

    /// A lease on a voice, loaded if need be.
    pub(crate) async fn lease(self: &Arc<Self>, name: &str) -> Result<VoiceLease, ModelError> {
        self.lock().residency.pin(name);
        // From here on its drop unpins, also when the caller goes away.
        let lease = VoiceLease {
            manager: Arc::clone(self),
            name: name.to_owned(),
        };
        self.load(name, false).await?;
        Ok(lease)
    }

    /// Loads a voice and warms it up; at once if it is resident.
    pub(crate) async fn ensure(self: &Arc<Self>, name: &str) -> Result<(), ModelError> {
        self.load(name, false).await
    }

    /// Reads a voice's files again; the old voice serves until then, and on if that fails.
    pub(crate) async fn reload(self: &Arc<Self>, name: &str) -> Result<(), ModelError> {
        self.load(name, true).await
    }

    /// Drops a voice nobody uses from memory.
    pub(crate) async fn unload(self: &Arc<Self>, name: &str) -> Result<(), ModelError> {
        let removed = self.lock().residency.remove(name);
        let name = name.to_owned();
        match removed {
            Ok(Some(voice)) => {
                free(vec![(name, voice)], "unloaded").await;
                self.measure();
                Ok(())
            }
            Ok(None) => self.known(&name).await.map(drop),
            Err(Busy::Pinned(sessions)) => Err(ModelError::InUse { name, sessions }),
            Err(Busy::Loading) => Err(ModelError::Loading { name }),
        }
    }

    /// The state of these voices.
    pub(crate) fn states(&self, entries: Vec<VoiceEntry>) -> Vec<VoiceState> {
        let table = self.lock();
        let state = |entry: VoiceEntry| VoiceState {
            resident: table
                .residency
                .resident(&entry.name)
                .map(|voice| voice.voice().clone()),
            bytes: table.residency.resident_bytes(&entry.name),
            sessions: table.residency.pins(&entry.name),
            entry,
        };
        entries.into_iter().map(state).collect()
    }

    /// Memory of the resident voices, and the bounds.
    pub(crate) fn room(&self) -> Room {
        Room {
            bytes: self.lock().residency.bytes(),
            memory_limit: self.memory_limit,
            max_resident: self.max_resident,
        }
    }

    /// All voices, by name, as they are on the disk.
    pub(crate) async fn entries(&self) -> Result<Vec<VoiceEntry>, ModelError> {
        let source = Arc::clone(&self.source);
        tokio::task::spawn_blocking(move || source.list())
            .await
            .map_err(|error| ModelError::List(error.to_string()))?
            .map_err(|error| ModelError::List(error.to_string()))
    }

    async fn known(&self, name: &str) -> Result<VoiceEntry, ModelError> {
        let mut entries = self.entries().await?;
        if let Some(found) = entries.iter().position(|entry| entry.name == name) {
            return Ok(entries.swap_remove(found));
        }
        let known: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
        Err(ModelError::Unknown {
            name: name.to_owned(),
            known: known.join(", "),
        })
    }

    async fn load(self: &Arc<Self>, name: &str, again: bool) -> Result<(), ModelError> {
        let outcome = {
            let (mut table, now) = (self.lock(), self.now());
            let need = if again {
                table.residency.renew(name, now)
            } else {
                table.residency.need(name, now)
            };
            match need {
                Need::Ready(_) => return Ok(()),
                Need::Load => {
                    let (tell, outcome) = watch::channel(None);
                    table.under_way.insert(name.to_owned(), outcome.clone());
                    tokio::spawn(Arc::clone(self).run_load(name.to_owned(), tell));
                    Some(outcome)
                }
                Need::Wait => table.under_way.get(name).cloned(),
            }
        };
        // Loads are entered and taken out under one lock, so there is one to wait for.
        let Some(mut outcome) = outcome else {
            return Ok(());
        };
        let done = outcome.wait_for(Option::is_some);
        match tokio::time::timeout(self.load_timeout, done).await {
            Ok(Ok(result)) => result.clone().unwrap_or(Ok(())),
            // The load's task was dropped with the runtime.
            Ok(Err(_)) => Err(ModelError::Load {
                name: name.to_owned(),
                reason: "the worker is shutting down".to_owned(),
            }),
            Err(_) => Err(ModelError::Slow {
                name: name.to_owned(),
                seconds: self.load_timeout.as_secs(),
            }),
        }
    }

    async fn run_load(self: Arc<Self>, name: String, tell: watch::Sender<Outcome>) {
        let begun = Instant::now();
        let loaded = self.load_and_warm_up(&name).await;
        let (result, gone) = {
            let (mut table, now) = (self.lock(), self.now());
            table.under_way.remove(&name);
            match loaded {
                Ok((voice, bytes)) => match table.residency.loaded(&name, voice, bytes, now) {
                    Ok(gone) => (Ok(bytes), gone),
                    Err((voice, no_room)) => (
                        Err(ModelError::no_room(&name, &no_room)),
                        vec![(name.clone(), voice)],
                    ),
                },
                Err(error) => {
                    table.residency.failed(&name);
                    (Err(error), Vec::new())
                }
            }
        };
        match &result {
            Ok(bytes) => {
                table::MODEL_LOADS.count_for("loaded");
                table::MODEL_LOAD.record(begun.elapsed());
                tracing::info!(
                    voice = name,
                    megabytes = bytes / 1_000_000,
                    "loaded and warmed up"
                );
            }
            Err(error) => {
                table::MODEL_LOADS.count_for("failed");
                tracing::warn!(voice = name, %error, "not loaded");
            }
        }
        tell.send_replace(Some(result.map(drop)));
        let (old, others) = gone.into_iter().partition(|(gone, _)| *gone == name);
        free(old, "its place was taken by a newer one").await;
        evicted(&others);
        free(others, "unloaded to make room").await;
        self.measure();
    }

    fn measure(&self) {
        table::MODELS_RESIDENT.set(self.lock().residency.residents() as f64);
    }

    /// The voice, and what memory it takes.
    async fn load_and_warm_up(&self, name: &str) -> Result<(Voice, u64), ModelError> {
        let entry = self.known(name).await?;
        // Never closed, so the only error there is cannot happen; a load without a permit would be harmless.
        let _permit = Arc::clone(&self.loads).acquire_owned().await.ok();
        let (admitted, alone) = {
            let (mut table, now) = (self.lock(), self.now());
            let admitted = table.residency.admit(name, entry.estimated_bytes, now);
            (admitted, table.residency.is_alone(name))
        };
        let gone = admitted.map_err(|no_room| ModelError::no_room(name, &no_room))?;
        evicted(&gone);
        free(gone, "unloaded to make room").await;
        let before = memory::resident();
        let source = Arc::clone(&self.source);
        let load = {
            let name = name.to_owned();
            move || {
                let voice = source.load(&name)?;
                warm_up(&*voice)?;
                Ok(voice)
            }
        };
        let failed = |reason: String| ModelError::Load {
            name: name.to_owned(),
            reason,
        };
        let voice = tokio::task::spawn_blocking(load)
            .await
            .map_err(|error| failed(format!("its adapter crashed: {error}")))?
            .map_err(|error: TtsError| failed(error.to_string()))?;
        let alone = alone && self.lock().residency.is_alone(name);
        let grown = before.zip(memory::resident()).filter(|_| alone);
        let bytes = memory::taken(
            voice.voice().resident_bytes,
            grown.map(|(before, after)| after.saturating_sub(before)),
            entry.estimated_bytes,
        );
        Ok((voice, bytes))
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn evicted(gone: &Gone<Voice>) {
    table::MODEL_EVICTIONS.add(gone.len() as u64);
}

/// Drops voices. Freeing hundreds of megabytes is no work for the reactor.
async fn free(gone: Gone<Voice>, why: &'static str) {
    if gone.is_empty() {
        return;
    }
    for (voice, _) in &gone {
        tracing::info!(voice, "{why}");
    }
    drop(tokio::task::spawn_blocking(move || drop(gone)).await);
}

fn warm_up(voice: &dyn Synthesizer) -> Result<(), TtsError> {
    let speech = voice.begin(&Settings::default())?;
    let mut frames = FrameStream::new(speech, voice.voice().sample_rate)?;
    let stop = StopFlag::default();
    frames.say(WARM_UP_TEXT)?;
    for _ in 0..WARM_UP_FRAMES {
        if frames.next(&stop)?.is_none() {
            break;
        }
    }
    Ok(())
}

impl VoiceLease {
    /// The voice as it is now: after a reload, the new one.
    pub(crate) fn voice(&self) -> Voice {
        let table = self.manager.lock();
        match table.residency.resident(&self.name) {
            Some(voice) => Arc::clone(voice),
            // A lease is handed out when the voice is resident, and what is pinned is not removed.
            None => unreachable!("a leased voice is resident"),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for VoiceLease {
    fn drop(&mut self) {
        let now = self.manager.now();
        self.manager.lock().residency.unpin(&self.name, now);
    }
}
