//! How a pull tells what it is doing, without knowing how that is shown.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Hears what a pull does. Called from several tasks at once, often; it must not block.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);
}

/// For callers that do not care.
impl Progress for () {
    fn event(&self, _: &Event) {}
}

/// What a step does with its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Coming over the network.
    Download,
    /// Being unpacked from what was downloaded, joined and checked.
    Unpack,
    /// Being read back from disk and checked.
    Check,
}

/// What happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// Another process fetches this model; waiting until it is done.
    WaitingForOther {
        /// The model.
        model: String,
    },
    /// The hub does not answer; said once in a run, and its files are then taken from elsewhere.
    HubUnreachable {
        /// Its address.
        hub: String,
        /// Why.
        reason: String,
    },
    /// A step over many bytes begins. `id` is unique in the run.
    Started {
        /// Names the step in later events.
        id: u64,
        /// The model.
        model: String,
        /// The file it is about.
        label: String,
        /// What is done.
        step: Step,
        /// Bytes there already from an earlier run.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// More bytes of a step are done.
    Advanced {
        /// The step.
        id: u64,
        /// Bytes done in all.
        done: u64,
    },
    /// A step is over, well or not.
    Ended {
        /// The step.
        id: u64,
    },
    /// A transfer broke and is taken up again.
    Retrying {
        /// The model.
        model: String,
        /// The file.
        label: String,
        /// What broke.
        reason: String,
    },
    /// A source is given up; the next one, if any, is tried.
    SourceFailed {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// The source, in words.
        source: String,
        /// Why.
        reason: String,
        /// Whether there is another to try.
        more: bool,
    },
    /// The model is whole, checked and in its place.
    Placed {
        /// The model.
        model: String,
        /// Its folder.
        dir: PathBuf,
        /// Bytes of its files.
        bytes: u64,
    },
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// One step's events; says `Ended` when dropped, so that a cancelled step leaves no dead bar.
pub(crate) struct Track {
    id: u64,
    done: AtomicU64,
    progress: Arc<dyn Progress>,
}

impl Track {
    pub(crate) fn start(
        progress: &Arc<dyn Progress>,
        model: &str,
        label: &str,
        step: Step,
        done: u64,
        total: Option<u64>,
    ) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        progress.event(&Event::Started {
            id,
            model: model.to_owned(),
            label: label.to_owned(),
            step,
            done,
            total,
        });
        Self {
            id,
            done: AtomicU64::new(done),
            progress: Arc::clone(progress),
        }
    }

    pub(crate) fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.progress.event(&Event::Advanced { id: self.id, done });
    }

    pub(crate) fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.progress.event(&Event::Advanced { id: self.id, done });
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        self.progress.event(&Event::Ended { id: self.id });
    }
}
