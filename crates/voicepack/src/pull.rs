//! Fetching models: each either comes whole, checked and in one step, or not at all.
//!
//! A model is put together in a hidden folder beside its place (`.NAME.partial`), which an
//! interrupted run leaves for the next one to go on with. Only one process at a time works on a
//! model; others wait and then find it there.

mod sources;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, future, stream};
use reqwest::Client;
use tokio::sync::{OnceCell, Semaphore};

use crate::catalogue::{CatalogueFile, Entry};
use crate::disk;
use crate::error::VoicepackError;
use crate::metadata::{FileRecord, METADATA_FILE, Metadata};
use crate::net::Network;
use crate::net::download::blocking;
use crate::progress::{Event, Progress, Step, Track};
use crate::store::{FileState, VoicepackStore, check_on_disk};

/// Transfers at once, over all models.
const TRANSFERS: usize = 4;
/// How often a waiting process looks whether the other one is done.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// Fetches models into a store.
pub struct Puller {
    store: VoicepackStore,
    network: Network,
    client: Client,
    no_redirect: Client,
    progress: Arc<dyn Progress>,
    transfers: Semaphore,
    /// Whether the hub answers: asked once.
    hub: OnceCell<Result<(), String>>,
}

/// How a pull ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulled {
    /// It was there, whole (perhaps brought by hand, and checked just now).
    AlreadyThere,
    /// It is there now; bytes of its files.
    Fetched(u64),
}

impl Puller {
    /// A puller into `store` that reaches out as `network` says.
    ///
    /// # Errors
    /// Certificates or a proxy that cannot be used.
    pub fn new(
        store: VoicepackStore,
        network: Network,
        progress: Arc<dyn Progress>,
    ) -> Result<Self, VoicepackError> {
        Ok(Self {
            client: network.client(true)?,
            no_redirect: network.client(false)?,
            store,
            network,
            progress,
            transfers: Semaphore::new(TRANSFERS),
            hub: OnceCell::new(),
        })
    }

    /// Fetches several models at once. One that fails does not stop the others.
    pub async fn pull_all(
        &self,
        entries: &[&Entry],
    ) -> Vec<(String, Result<Pulled, VoicepackError>)> {
        stream::iter(entries)
            .map(|entry| async { (entry.name.clone(), self.pull(entry).await) })
            .buffered(entries.len().max(1))
            .collect()
            .await
    }

    /// Fetches a model, unless it is there. Dropping the future stops at once and keeps what came.
    ///
    /// # Errors
    /// No source gave a file, no room, or the file system refused.
    pub async fn pull(&self, entry: &Entry) -> Result<Pulled, VoicepackError> {
        if self.is_there(entry).await? {
            return Ok(Pulled::AlreadyThere);
        }
        let _lock = self.lock(&entry.name).await?;
        if self.is_there(entry).await? {
            return Ok(Pulled::AlreadyThere);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let _stop = StopOnDrop(Arc::clone(&stop));
        let work = Workplace::new(&self.store, entry, stop)?;

        let missing = self.missing(entry, &work).await?;
        let needed = missing.iter().filter_map(|f| f.size).sum();
        disk::ensure_room(self.store.root(), needed)?;

        let wheels = sources::Wheels::default();
        let fetched = future::try_join_all(
            missing
                .iter()
                .map(|file| sources::fetch(self, &work, &wheels, file)),
        )
        .await;
        wheels.remove_damaged().await?;
        let fetched = fetched?;

        let mut metadata = entry.metadata();
        for (file, (size, sha256)) in missing.iter().zip(fetched) {
            let record = metadata.files.iter_mut().find(|r| r.name == file.name);
            if let Some(record) = record {
                record.size = Some(size);
                record.sha256 = Some(sha256);
            }
        }
        let bytes = metadata.files.iter().filter_map(|f| f.size).sum();
        work.place(metadata).await?;
        self.progress.event(&Event::Placed {
            model: entry.name.clone(),
            dir: self.store.dir(&entry.name)?,
            bytes,
        });
        Ok(if missing.is_empty() {
            Pulled::AlreadyThere
        } else {
            Pulled::Fetched(bytes)
        })
    }

    /// Whether the model is whole and was checked when it came: `metadata.yaml`, written last,
    /// records the hashes, and the sizes are right. [`VoicepackStore::verify`] reads every byte.
    async fn is_there(&self, entry: &Entry) -> Result<bool, VoicepackError> {
        let (store, entry) = (self.store.clone(), entry.clone());
        blocking(move || {
            let described = store.dir(&entry.name)?.join(METADATA_FILE).is_file();
            let Some(pack) = store.find(&entry.name).ok().filter(|_| described) else {
                return Ok(false);
            };
            Ok(entry.files.iter().all(|file| {
                pack.metadata.files.iter().any(|record| {
                    record.name == file.name
                        && file
                            .sha256
                            .as_ref()
                            .is_none_or(|h| Some(h) == record.sha256.as_ref())
                })
            }))
        })
        .await
    }

    /// The files that are neither in place (brought by hand, or from an older catalogue) nor
    /// finished by an earlier run.
    async fn missing<'e>(
        &self,
        entry: &'e Entry,
        work: &Workplace,
    ) -> Result<Vec<&'e CatalogueFile>, VoicepackError> {
        let mut missing = Vec::new();
        for file in &entry.files {
            let in_place = self.is_right(entry, &work.dir, file, work).await?;
            if in_place || self.is_right(entry, &work.files, file, work).await? {
                continue;
            }
            missing.push(file);
        }
        Ok(missing)
    }

    async fn is_right(
        &self,
        entry: &Entry,
        folder: &Path,
        file: &CatalogueFile,
        work: &Workplace,
    ) -> Result<bool, VoicepackError> {
        let path = inside(folder, &file.name);
        if !path.is_file() {
            return Ok(false);
        }
        let track = Track::start(
            &self.progress,
            &entry.name,
            &file.name,
            Step::Check,
            0,
            file.size,
        );
        let (record, stop) = (file.record(), Arc::clone(&work.stop));
        let state = blocking(move || {
            check_on_disk(&path, &record, |n| {
                track.add(n);
                !stop.load(Ordering::Relaxed)
            })
        })
        .await?;
        Ok(state == FileState::Sound || (state == FileState::Unchecked && file.sha256.is_none()))
    }

    /// Waits until no other process works on the model.
    async fn lock(&self, name: &str) -> Result<File, VoicepackError> {
        let folder = self.store.root().join(".locks");
        std::fs::create_dir_all(&folder).map_err(VoicepackError::io("create", &folder))?;
        let path = folder.join(name);
        let file = File::create(&path).map_err(VoicepackError::io("create", &path))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut told, true) {
                        self.progress.event(&Event::WaitingForOther {
                            model: name.to_owned(),
                        });
                    }
                    tokio::time::sleep(LOCK_POLL).await;
                }
                Err(TryLockError::Error(e)) => return Err(VoicepackError::io("lock", &path)(e)),
            }
        }
    }
}

/// The folders of one pull.
pub(crate) struct Workplace {
    model: String,
    /// Where the model will stand.
    dir: PathBuf,
    staging: PathBuf,
    /// Finished, checked files.
    files: PathBuf,
    /// Unfinished downloads, and wheels.
    downloads: PathBuf,
    /// Tells file work that nobody waits for it any more.
    stop: Arc<AtomicBool>,
}

impl Workplace {
    fn new(
        store: &VoicepackStore,
        entry: &Entry,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, VoicepackError> {
        let staging = store.staging_dir(&entry.name);
        let work = Self {
            model: entry.name.clone(),
            dir: store.dir(&entry.name)?,
            files: staging.join("files"),
            downloads: staging.join("downloads"),
            staging,
            stop,
        };
        for folder in [&work.files, &work.downloads] {
            std::fs::create_dir_all(folder).map_err(VoicepackError::io("create", folder))?;
        }
        Ok(work)
    }

    /// Puts the finished files where they belong: a new model by one rename of its folder, a
    /// repaired one file by file with `metadata.yaml` last.
    async fn place(self, mut metadata: Metadata) -> Result<(), VoicepackError> {
        blocking(move || {
            complete_records(&mut metadata, &[&self.files, &self.dir])?;
            let description = self.files.join(METADATA_FILE);
            std::fs::write(&description, metadata.to_yaml())
                .map_err(VoicepackError::io("write", &description))?;
            if self.dir.is_dir() {
                let names = metadata.files.iter().map(|f| f.name.as_str());
                for name in names.chain([METADATA_FILE]) {
                    let (from, to) = (inside(&self.files, name), inside(&self.dir, name));
                    if from.is_file() {
                        if let Some(folder) = to.parent() {
                            std::fs::create_dir_all(folder)
                                .map_err(VoicepackError::io("create", folder))?;
                        }
                        std::fs::rename(&from, &to).map_err(VoicepackError::io("move", &from))?;
                    }
                }
            } else {
                std::fs::rename(&self.files, &self.dir)
                    .map_err(VoicepackError::io("move", &self.files))?;
            }
            std::fs::remove_dir_all(&self.staging)
                .map_err(VoicepackError::io("remove", &self.staging))
        })
        .await
    }
}

/// Fills in sizes of files whose catalogue entry has none and which were there already.
fn complete_records(metadata: &mut Metadata, folders: &[&PathBuf]) -> Result<(), VoicepackError> {
    for FileRecord { name, size, .. } in &mut metadata.files {
        let path = folders
            .iter()
            .map(|f| inside(f, name))
            .find(|p| p.is_file());
        if let (None, Some(path)) = (&size, path) {
            let found = std::fs::metadata(&path).map_err(VoicepackError::io("read", &path))?;
            *size = Some(found.len());
        }
    }
    Ok(())
}

/// The path of a file named with `/`.
fn inside(folder: &Path, name: &str) -> PathBuf {
    name.split('/')
        .fold(folder.to_owned(), |dir, part| dir.join(part))
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
