//! Deletes recordings that are older than the operator wants to keep them, or more than there is room for.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{EVENTS_FILE, SESSION_FILE};

/// A recording that was written to in this time is of a session that runs: it does not go for want of room.
const RUNNING: Duration = Duration::from_secs(60);

/// How long recordings are kept, and how many. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Age at which one is deleted.
    pub age: Option<Duration>,
    /// Bytes that all may take together; beyond, the oldest go.
    pub bytes: Option<u64>,
}

/// What [`prune`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Recordings deleted.
    pub deleted: usize,
    /// Recordings that were to go and could not be deleted.
    pub failed: usize,
}

/// A recording on the disk.
#[derive(Clone, Debug)]
struct Kept {
    path: PathBuf,
    /// How long nothing was written to it.
    age: Duration,
    bytes: u64,
}

/// Deletes the recordings in a folder that are not to be kept. Touches only what is a recording.
///
/// # Errors
/// When the folder cannot be read. One that is not there holds nothing.
pub fn prune(folder: &Path, retention: Retention, now: SystemTime) -> io::Result<Pruned> {
    let mut pruned = Pruned::default();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(pruned),
        entries => entries?,
    };
    let mut recordings = Vec::new();
    for entry in entries {
        let entry = entry?;
        let ours = entry.file_name().to_string_lossy().starts_with("sess_")
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if ours {
            recordings.extend(look_at(entry.path(), now));
        }
    }
    for path in surplus(recordings, retention) {
        match std::fs::remove_dir_all(&path) {
            Ok(()) => pruned.deleted += 1,
            Err(error) => {
                tracing::warn!(%error, recording = %path.display(), "an old recording was not deleted");
                pruned.failed += 1;
            }
        }
    }
    Ok(pruned)
}

fn look_at(path: PathBuf, now: SystemTime) -> Option<Kept> {
    // The events are written to as long as the session lasts.
    let written = [EVENTS_FILE, SESSION_FILE]
        .into_iter()
        .filter_map(|name| path.join(name).metadata().ok()?.modified().ok())
        .max()?;
    let files = std::fs::read_dir(&path).ok()?;
    let sizes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
    Some(Kept {
        bytes: sizes.sum(),
        age: now.duration_since(written).unwrap_or_default(),
        path,
    })
}

/// Those that are not to be kept: first what is too old, then the oldest until the rest takes no more than it may.
fn surplus(mut recordings: Vec<Kept>, retention: Retention) -> Vec<PathBuf> {
    recordings.sort_by_key(|recording| std::cmp::Reverse(recording.age));
    let mut bytes: u64 = recordings.iter().map(|recording| recording.bytes).sum();
    let mut gone = Vec::new();
    for recording in recordings {
        let too_old = retention.age.is_some_and(|age| recording.age > age);
        let too_much = retention.bytes.is_some_and(|most| bytes > most);
        if too_old || too_much && recording.age > RUNNING {
            bytes -= recording.bytes;
            gone.push(recording.path);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str, hours: u64, bytes: u64) -> Kept {
        Kept {
            path: name.into(),
            age: Duration::from_secs(hours * 3_600),
            bytes,
        }
    }

    fn gone(recordings: &[Kept], hours: Option<u64>, bytes: Option<u64>) -> Vec<String> {
        let retention = Retention {
            age: hours.map(|hours| Duration::from_secs(hours * 3_600)),
            bytes,
        };
        let gone = surplus(recordings.to_vec(), retention);
        gone.iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn the_oldest_go_until_the_rest_has_room() {
        let all = [
            kept("b", 2, 40),
            kept("c", 1, 40),
            kept("a", 3, 40),
            kept("now", 0, 40),
        ];
        assert!(gone(&all, None, None).is_empty());
        assert!(gone(&all, None, Some(160)).is_empty());
        assert_eq!(gone(&all, None, Some(159)), ["a"]);
        assert_eq!(gone(&all, None, Some(80)), ["a", "b"]);
        // What is being recorded stays, whatever it takes.
        assert_eq!(gone(&all, None, Some(0)), ["a", "b", "c"]);
    }

    #[test]
    fn what_goes_for_its_age_makes_room_for_the_others() {
        let all = [kept("a", 30, 100), kept("b", 3, 50), kept("c", 2, 50)];
        assert_eq!(gone(&all, Some(24), None), ["a"]);
        assert_eq!(gone(&all, Some(24), Some(100)), ["a"]);
        assert_eq!(gone(&all, Some(24), Some(60)), ["a", "b"]);
    }
}
