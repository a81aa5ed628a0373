//! Deletes recordings that are older than the operator wants to keep them.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{EVENTS_FILE, SESSION_FILE};

/// What [`prune`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Recordings deleted.
    pub deleted: usize,
    /// Recordings that are old enough and could not be.
    pub failed: usize,
}

/// Deletes the recordings in a folder that nothing was written to for `keep`. Touches only what is a recording.
///
/// # Errors
/// When the folder cannot be read. One that is not there holds nothing.
pub fn prune(folder: &Path, keep: Duration, now: SystemTime) -> io::Result<Pruned> {
    let mut pruned = Pruned::default();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(pruned),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let ours = entry.file_name().to_string_lossy().starts_with("sess_")
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !ours {
            continue;
        }
        // The events are written to as long as the session lasts.
        let written = [EVENTS_FILE, SESSION_FILE]
            .into_iter()
            .filter_map(|name| entry.path().join(name).metadata().ok()?.modified().ok())
            .max();
        let old = written
            .and_then(|at| now.duration_since(at).ok())
            .is_some_and(|age| age > keep);
        if old {
            match std::fs::remove_dir_all(entry.path()) {
                Ok(()) => pruned.deleted += 1,
                Err(error) => {
                    tracing::warn!(%error, recording = %entry.path().display(), "an old recording was not deleted");
                    pruned.failed += 1;
                }
            }
        }
    }
    Ok(pruned)
}
