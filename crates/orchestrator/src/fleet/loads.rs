//! Voices that are loaded in the background: one load of a voice in the whole fleet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use duologue_registry::Registry;
use tokio::sync::watch;
use tokio::time::Instant;

use super::view::View;
use crate::routing::Load;
use crate::voice::{VoiceClient, VoiceError};

/// How long the lock of a process that has died keeps others from loading. Renewed three times as often.
const LEASE: Duration = Duration::from_secs(10);
/// How long a loaded voice may take to be told of.
const TOLD: Duration = Duration::from_secs(5);
/// A load that failed, or that another process does, is not tried again before.
const PAUSE: Duration = Duration::from_secs(15);

pub(super) struct Loads {
    registry: Arc<dyn Registry>,
    view: Arc<View>,
    process: String,
    running: Mutex<HashMap<String, Running>>,
    /// Has workers asked what they have loaded, where they do not tell of it themselves.
    soon: Option<watch::Sender<()>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Running {
    /// By this process, or by another.
    Loading,
    /// In vain; not before.
    Failed(Instant),
}

impl Loads {
    pub(super) fn new(
        registry: Arc<dyn Registry>,
        view: Arc<View>,
        process: &str,
        soon: Option<watch::Sender<()>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            view,
            process: process.to_owned(),
            running: Mutex::default(),
            soon,
        })
    }

    fn set(&self, voice: &str, running: Option<Running>) {
        let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running {
            Some(running) => all.insert(voice.to_owned(), running),
            None => all.remove(voice),
        };
        drop(all);
        self.view.stir();
    }

    /// Whether a load of this voice has just failed.
    pub(super) fn has_failed(&self, voice: &str) -> bool {
        let all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(all.get(voice), Some(Running::Failed(until)) if Instant::now() < *until)
    }

    /// Has a voice loaded, unless that is being done or has just failed.
    pub(super) fn begin(self: &Arc<Self>, load: &Load, client: VoiceClient) {
        {
            let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            match all.get(&load.voice) {
                Some(Running::Loading) => return,
                Some(Running::Failed(until)) if Instant::now() < *until => return,
                _ => all.insert(load.voice.clone(), Running::Loading),
            };
        }
        let (loads, load) = (Arc::clone(self), load.clone());
        tokio::spawn(async move {
            let failed = loads.run(&load, &client).await.err();
            if let Some(error) = &failed {
                tracing::warn!(voice = load.voice, worker = load.worker.name, %error, "a voice was not loaded");
            }
            let until = failed.map(|_| Running::Failed(Instant::now() + PAUSE));
            loads.set(&load.voice, until);
        });
    }

    async fn run(&self, load: &Load, client: &VoiceClient) -> Result<(), VoiceError> {
        let lock = format!("load:{}", load.voice);
        let ours = self.registry.lock(&lock, &self.process, LEASE).await;
        if matches!(ours, Ok(false)) {
            // Another process has it loaded; it is looked at again when that should be done.
            self.told(&load.voice, PAUSE).await;
            return Ok(());
        }
        tracing::info!(
            voice = load.voice,
            worker = load.worker.name,
            "a voice is loaded in the background"
        );
        let loaded = {
            let loading = client.load(&load.voice);
            tokio::pin!(loading);
            let mut renewal = tokio::time::interval(LEASE / 3);
            loop {
                tokio::select! {
                    loaded = &mut loading => break loaded,
                    _ = renewal.tick() => {
                        // Away: others cannot take it either.
                        let _ = self.registry.lock(&lock, &self.process, LEASE).await;
                    }
                }
            }
        };
        if loaded.is_ok() {
            if let Some(soon) = &self.soon {
                soon.send_replace(());
            }
            // Nobody else should begin before everybody knows.
            self.told(&load.voice, TOLD).await;
        }
        if let Err(error) = self.registry.unlock(&lock, &self.process).await {
            tracing::debug!(%error, lock, "a lock opens by itself");
        }
        loaded
    }

    /// Waits until the voice is known to be in some worker's memory, or for `patience`.
    async fn told(&self, voice: &str, patience: Duration) {
        let mut changes = self.view.changes();
        let known =
            async { while !self.view.is_resident(voice) && changes.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(patience, known).await;
    }
}
