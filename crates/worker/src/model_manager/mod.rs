//! Loads voices, keeps them, and lets go of them.
//!
//! A voice is loaded, then warmed up by speaking a little, then handed out, so that nobody's first sentence
//! pays for cold caches. Loads run on the blocking pool, at most `max_parallel_loads` at once, and one load
//! serves all who ask. A load goes on when whoever asked for it has gone: somebody else may be waiting.
//!
//! What may be done to which voice is decided in [`residency`]; this drives it. Voices stay until they are
//! unloaded by hand: eviction of idle ones, a cap on residents and a check of memory are not there yet.

mod residency;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duologue_tts::{FrameStream, Settings, StopFlag, Synthesizer, TtsError};
use tokio::sync::{Semaphore, watch};

use crate::voices::{VoiceEntry, VoiceSource};
use residency::{Busy, Need, Residency};

/// Text that warms a voice up, and how much of its sound is computed: about 300 ms.
const WARM_UP_TEXT: &str = "This is a voice.";
const WARM_UP_FRAMES: usize = 15;

/// Why a voice cannot be had or let go.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelError {
    /// No voice of that name.
    #[error("no voice {name:?} on this worker; it has {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The voice is there and does not load.
    #[error("voice {name} cannot be loaded: {reason}")]
    Load {
        /// The voice.
        name: String,
        /// What its adapter said.
        reason: String,
    },
    /// The load takes too long; it goes on.
    #[error("voice {name} is still loading after {seconds} s; try again later")]
    Slow {
        /// The voice.
        name: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Sessions use it.
    #[error("voice {name} is used by {sessions} session(s); end them first")]
    InUse {
        /// The voice.
        name: String,
        /// How many.
        sessions: usize,
    },
    /// It is being loaded.
    #[error("voice {name} is being loaded; unload it when that is done")]
    Loading {
        /// The voice.
        name: String,
    },
    /// The list of voices could not be read.
    #[error("the voices cannot be listed: {0}")]
    List(String),
}

type Voice = Arc<dyn Synthesizer>;
type Outcome = Option<Result<(), ModelError>>;

/// The voices of a worker.
pub(crate) struct ModelManager {
    source: Arc<dyn VoiceSource>,
    table: Mutex<Table>,
    loads: Arc<Semaphore>,
    load_timeout: Duration,
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
    pub(crate) sessions: usize,
}

impl ModelManager {
    pub(crate) fn new(
        source: Arc<dyn VoiceSource>,
        max_parallel_loads: usize,
        load_timeout: Duration,
    ) -> Arc<Self> {
        Arc::new(ModelManager {
            source,
            table: Mutex::new(Table {
                residency: Residency::new(),
                under_way: HashMap::new(),
            }),
            loads: Arc::new(Semaphore::new(max_parallel_loads)),
            load_timeout,
        })
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
                tracing::info!(voice = name, "unloaded");
                // Freeing hundreds of megabytes is no work for the reactor.
                drop(tokio::task::spawn_blocking(move || drop(voice)).await);
                Ok(())
            }
            Ok(None) => self.known(&name).await,
            Err(Busy::Pinned(sessions)) => Err(ModelError::InUse { name, sessions }),
            Err(Busy::Loading) => Err(ModelError::Loading { name }),
        }
    }

    /// All voices, by name.
    pub(crate) async fn list(&self) -> Result<Vec<VoiceState>, ModelError> {
        let entries = self.entries().await?;
        let table = self.lock();
        let state = |entry: VoiceEntry| VoiceState {
            resident: table
                .residency
                .resident(&entry.name)
                .map(|voice| voice.voice().clone()),
            sessions: table.residency.pins(&entry.name),
            entry,
        };
        Ok(entries.into_iter().map(state).collect())
    }

    async fn entries(&self) -> Result<Vec<VoiceEntry>, ModelError> {
        let source = Arc::clone(&self.source);
        tokio::task::spawn_blocking(move || source.list())
            .await
            .map_err(|error| ModelError::List(error.to_string()))?
            .map_err(|error| ModelError::List(error.to_string()))
    }

    async fn known(&self, name: &str) -> Result<(), ModelError> {
        let entries = self.entries().await?;
        if entries.iter().any(|entry| entry.name == name) {
            return Ok(());
        }
        let known: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
        Err(ModelError::Unknown {
            name: name.to_owned(),
            known: known.join(", "),
        })
    }

    async fn load(self: &Arc<Self>, name: &str, again: bool) -> Result<(), ModelError> {
        let outcome = {
            let mut table = self.lock();
            let need = if again {
                table.residency.renew(name)
            } else {
                table.residency.need(name)
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
        let loaded = self.load_and_warm_up(&name).await;
        let (result, old) = {
            let mut table = self.lock();
            table.under_way.remove(&name);
            let old = table.residency.resident(&name).cloned();
            match loaded {
                Ok(voice) => {
                    table.residency.loaded(&name, voice);
                    (Ok(()), old)
                }
                Err(error) => {
                    table.residency.failed(&name);
                    (Err(error), None)
                }
            }
        };
        match &result {
            Ok(()) => tracing::info!(voice = name, "loaded and warmed up"),
            Err(error) => tracing::warn!(voice = name, %error, "not loaded"),
        }
        tell.send_replace(Some(result));
        drop(tokio::task::spawn_blocking(move || drop(old)).await);
    }

    async fn load_and_warm_up(&self, name: &str) -> Result<Voice, ModelError> {
        self.known(name).await?;
        // Never closed, so the only error there is cannot happen; a load without a permit would be harmless.
        let _permit = Arc::clone(&self.loads).acquire_owned().await.ok();
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
        tokio::task::spawn_blocking(load)
            .await
            .map_err(|error| failed(format!("its adapter crashed: {error}")))?
            .map_err(|error: TtsError| failed(error.to_string()))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        self.manager.lock().residency.unpin(&self.name);
    }
}
