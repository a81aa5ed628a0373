//! A recording as it lies on disk.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use duologue_orchestrator::recording::{EVENTS_FILE, SESSION_FILE, SessionFile};
use duologue_session::{Entry, RECORDING_FORMAT};

/// One recorded session.
pub struct Recorded {
    pub folder: PathBuf,
    pub about: SessionFile,
    pub entries: Vec<Entry>,
}

impl Recorded {
    /// Reads a folder. Of a recording that was cut off, the last line may be missing or half written.
    /// `events_only`: actions that this version does not know are left out.
    pub fn read(folder: &Path, events_only: bool) -> anyhow::Result<Self> {
        let path = folder.join(SESSION_FILE);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let format: serde_json::Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is not JSON", path.display()))?;
        if format["format"] != RECORDING_FORMAT {
            bail!(
                "{} is of format {}; this version reads format {RECORDING_FORMAT}",
                path.display(),
                format["format"]
            );
        }
        let about: SessionFile = serde_json::from_str(&text)
            .with_context(|| format!("{} is no recording's description", path.display()))?;
        let path = folder.join(EVENTS_FILE);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let whole = text.ends_with('\n') || text.is_empty();
        let lines: Vec<&str> = text.lines().collect();
        let mut entries = Vec::with_capacity(lines.len());
        for (number, line) in lines.iter().enumerate() {
            match serde_json::from_str(line) {
                Ok(entry) => entries.push(entry),
                Err(_) if number + 1 == lines.len() && !whole => {}
                Err(_) if events_only && is_action(line) => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("{}, line {}", path.display(), number + 1));
                }
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            about,
            entries,
        })
    }

    /// The recordings that a path means: itself, or those in it, by name.
    pub fn folders(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
        if path.join(SESSION_FILE).is_file() {
            return Ok(vec![path.to_owned()]);
        }
        let mut folders = Vec::new();
        let entries = std::fs::read_dir(path)
            .with_context(|| format!("cannot read the folder {}", path.display()))?;
        for entry in entries {
            let folder = entry?.path();
            if folder.join(SESSION_FILE).is_file() {
                folders.push(folder);
            }
        }
        folders.sort();
        if folders.is_empty() {
            bail!(
                "there is no recording in {}: neither a {SESSION_FILE} nor folders that have one",
                path.display()
            );
        }
        Ok(folders)
    }

    /// Replaces the events and actions on disk.
    pub fn write_entries(&self, entries: &[Entry]) -> anyhow::Result<()> {
        let mut text = String::new();
        for entry in entries {
            text.push_str(&serde_json::to_string(entry)?);
            text.push('\n');
        }
        let path = self.folder.join(EVENTS_FILE);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn is_action(line: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line.get("action").is_some())
}
