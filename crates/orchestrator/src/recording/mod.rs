//! Sessions kept on disk, where the operator asked for it: what the core was told, what it did, and both sides'
//! sound.
//!
//! The session hands its notes to a thread of its own through a bounded queue and never waits. When the disk is
//! too slow for that, or full, the recording stops: what is there stays, the session file says why, the client
//! and the log are told once, and the conversation goes on. `docs/recording.md` describes the files.

mod disk;
mod retention;
mod wave;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use duologue_audio::{Frame, pcm};
use duologue_session::{Action, Beginning, Entry, Event, Happening};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use retention::{Pruned, Retention, prune};

use disk::{Disk, Folder};

/// Notes that may wait for the disk; one more ends the recording. Some twenty seconds of a busy session.
const NOTES: usize = 4_096;
/// Sound that may wait for the disk, bytes; beyond, the recording ends. A client may send a file at once.
const WAITING: usize = 32 * 1024 * 1024;
/// How long the end of a session waits for its recording's.
const CLOSING: Duration = Duration::from_secs(5);

/// Name of the file that describes the session.
pub const SESSION_FILE: &str = "session.json";
/// Name of the file of events and actions, a line each.
pub const EVENTS_FILE: &str = "events.jsonl";
/// Name of the file of the user's sound.
pub const USER_FILE: &str = "user.wav";
/// Name of the file of the assistant's sound.
pub const ASSISTANT_FILE: &str = "assistant.wav";

/// Where sessions are kept, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingConfig {
    /// A folder for each session is made in this one.
    pub folder: PathBuf,
    /// How long recordings are kept, and how many.
    pub keep: Retention,
}

/// Whether sessions can be kept in a folder: makes it if it is not there.
///
/// # Errors
/// When it cannot be made or written to.
pub fn check(folder: &Path) -> std::io::Result<()> {
    disk::check(folder)
}

/// What [`SESSION_FILE`] holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionFile {
    /// The core's side: format, seed, settings.
    #[serde(flatten)]
    pub beginning: Beginning,
    /// The session's own id, as clients saw it.
    pub session: String,
    /// Version of Duologue that recorded it.
    pub version: String,
    /// When it began, milliseconds since 1970 in UTC.
    pub started_unix_ms: u64,
    /// Models that served it, by what they did.
    pub models: std::collections::BTreeMap<String, String>,
    /// How far sound was sent ahead of real time, ms.
    pub lead_ms: u64,
    /// How much harder it was to be taken for speech while a reply was heard.
    pub speaking_threshold_scale: f32,
    /// Samples a second of [`USER_FILE`].
    pub user_rate: u32,
    /// Samples a second of [`ASSISTANT_FILE`].
    pub assistant_rate: u32,
    /// Whether the recording goes to the session's end. `false` also while it goes on, and when the process was
    /// killed.
    pub complete: bool,
    /// Why it does not, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_because: Option<String>,
}

/// Something to write down.
enum Note {
    Entry(Entry),
    /// Samples of the user's, at [`SessionFile::user_rate`], where they lie in the file.
    User(u64, Vec<i16>),
    /// Samples of the assistant's.
    Assistant(u64, Vec<i16>),
}

impl Note {
    fn bytes(&self) -> usize {
        match self {
            Self::Entry(_) => 0,
            Self::User(_, samples) | Self::Assistant(_, samples) => samples.len() * 2,
        }
    }
}

/// What the session and the thread that writes know of each other.
#[derive(Default)]
struct Shared {
    /// Bytes of sound in the queue.
    waiting: AtomicUsize,
    /// Why the recording stopped.
    fault: OnceLock<String>,
}

/// One session's recording. Dropping it ends the recording as it should.
pub(crate) struct Recorder {
    notes: Option<SyncSender<Note>>,
    shared: Arc<Shared>,
    done: Option<oneshot::Receiver<()>>,
    told: bool,
}

impl Recorder {
    /// Begins a recording in a folder of its own.
    pub fn begin(config: &RecordingConfig, about: SessionFile) -> Self {
        let folder = config.folder.join(&about.session);
        Self::on(move || Folder::create(&folder), about)
    }

    fn on<D: Disk + 'static>(
        disk: impl FnOnce() -> std::io::Result<D> + Send + 'static,
        about: SessionFile,
    ) -> Self {
        let (notes, queue) = sync_channel(NOTES);
        let (done, finished) = oneshot::channel();
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || {
                let written = disk().and_then(|disk| writer::write(&disk, about, &queue, &theirs));
                if let Err(error) = written {
                    let _ = theirs.fault.set(format!("cannot write it: {error}"));
                }
                let _ = done.send(()); // nobody may wait for it
            });
        if let Err(error) = thread {
            let _ = shared
                .fault
                .set(format!("cannot start its thread: {error}"));
        }
        Self {
            notes: Some(notes),
            shared,
            done: Some(finished),
            told: false,
        }
    }

    /// The core was told this.
    pub fn event(&mut self, at: Duration, event: &Event) {
        self.note(|| {
            Note::Entry(Entry {
                at,
                what: Happening::Event(event.clone()),
            })
        });
    }

    /// The core gave this to do.
    pub fn action(&mut self, at: Duration, action: &Action) {
        self.note(|| {
            Note::Entry(Entry {
                at,
                what: Happening::Action(action.clone()),
            })
        });
    }

    /// The user's sound, heard from `first` on, a sample's number from the session's start.
    pub fn user(&mut self, first: u64, samples: &[f32]) {
        self.note(|| Note::User(first, samples.iter().map(|s| pcm::to_i16(*s)).collect()));
    }

    /// Frames of the assistant's, sent now: `first` is now as a sample's number.
    pub fn assistant(&mut self, first: u64, frames: &[Frame]) {
        self.note(|| Note::Assistant(first, frames.iter().flat_map(|frame| frame.0).collect()));
    }

    /// Why the recording has stopped, once.
    pub fn newly_stopped(&mut self) -> Option<&str> {
        if self.told {
            return None;
        }
        let why = self.shared.fault.get()?;
        self.told = true;
        Some(why)
    }

    /// Waits until all is on the disk, or for a few seconds.
    pub async fn finish(mut self) {
        self.notes = None;
        if let Some(done) = self.done.take() {
            let _ = tokio::time::timeout(CLOSING, done).await;
        }
    }

    fn note(&mut self, note: impl FnOnce() -> Note) {
        let Some(notes) = self.notes.as_ref() else {
            return;
        };
        if self.shared.fault.get().is_some() {
            self.notes = None;
            return;
        }
        let note = note();
        let bytes = note.bytes();
        let before = self.shared.waiting.fetch_add(bytes, Ordering::Relaxed);
        let full = if before + bytes > WAITING {
            true
        } else {
            // A closed queue has its fault told by the thread.
            matches!(notes.try_send(note), Err(TrySendError::Full(_)))
        };
        if full {
            let _ = self
                .shared
                .fault
                .set("the disk is slower than the conversation".into());
            self.notes = None;
        }
    }
}

#[cfg(test)]
mod tests;
