//! The folder of voicepacks: finding, listing, checking and removing.

use std::io::Read;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use sha2::{Digest, Sha256};

use crate::catalogue::Catalogue;
use crate::error::VoicepackError;
use crate::metadata::{FileRecord, METADATA_FILE, Metadata};

/// All voicepacks of this machine: one folder each.
#[derive(Debug, Clone)]
pub struct VoicepackStore {
    root: PathBuf,
}

/// A model on disk.
#[derive(Debug, Clone)]
pub struct Voicepack {
    /// Its name, which is its folder's.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// What it says about itself.
    pub metadata: Metadata,
}

/// A folder's name, and the voicepack in it or what is wrong with it.
pub type Listed = (String, Result<Voicepack, VoicepackError>);

/// What [`VoicepackStore::verify`] found of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedFile {
    /// Path inside the folder.
    pub name: String,
    /// What is the matter with it, if anything.
    pub state: FileState,
}

/// The state of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// The hash is right.
    Sound,
    /// It is there (and of the right size where one is known), but no hash is known.
    Unchecked,
    /// Not there.
    Missing,
    /// Another size.
    WrongSize {
        /// Bytes it should have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// The right size, other content.
    WrongHash {
        /// sha256 it should have.
        expected: String,
        /// sha256 it has.
        found: String,
    },
}

impl FileState {
    /// Whether the file can be used.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Sound | Self::Unchecked)
    }
}

impl VoicepackStore {
    /// The store of this user: `$DUOLOGUE_DATA_DIR/voicepacks`, else `duologue/voicepacks` in the
    /// XDG data folder. It need not exist yet.
    ///
    /// # Errors
    /// [`VoicepackError::NoHome`].
    pub fn open_default() -> Result<Self, VoicepackError> {
        Ok(Self::open(data_dir()?.join("voicepacks")))
    }

    /// A store in a folder of the caller's choice, which need not exist yet.
    pub fn open(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder that holds the voicepacks' folders.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a voicepack, there or not.
    ///
    /// # Errors
    /// [`VoicepackError::InvalidName`].
    pub fn dir(&self, name: &str) -> Result<PathBuf, VoicepackError> {
        check_name(name)?;
        Ok(self.root.join(name))
    }

    /// A voicepack with all its files there (sizes are compared, hashes are not: see
    /// [`VoicepackStore::verify`]). A folder without `metadata.yaml` that bears the name of a
    /// catalogue model takes that model's description, so that files can be brought by hand.
    ///
    /// # Errors
    /// Not there, not whole, or not described; each says what to do.
    pub fn find(&self, name: &str) -> Result<Voicepack, VoicepackError> {
        let pack = self.describe(name)?;
        for record in &pack.metadata.files {
            let path = pack.file(&record.name);
            let found = std::fs::metadata(&path).ok().filter(|m| m.is_file());
            let whole = found.is_some_and(|m| record.size.is_none_or(|size| size == m.len()));
            if !whole {
                return Err(VoicepackError::MissingFile {
                    name: name.to_owned(),
                    path,
                });
            }
        }
        Ok(pack)
    }

    /// Every voicepack there is, by name; a folder that is broken comes with its error.
    ///
    /// # Errors
    /// The store's folder cannot be read. A store that does not exist yet is empty.
    pub fn list(&self) -> Result<Vec<Listed>, VoicepackError> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(VoicepackError::io("read", &self.root)(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(VoicepackError::io("read", &self.root))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && check_name(&name).is_ok() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names
            .into_iter()
            .map(|name| {
                let pack = self.find(&name);
                (name, pack)
            })
            .collect())
    }

    /// Reads every byte of a voicepack's files and compares sizes and hashes. Blocks; call it off
    /// the reactor. `on_bytes` hears how many bytes of which file were read just now.
    ///
    /// # Errors
    /// Not there, not described, or a file that cannot be read.
    pub fn verify(
        &self,
        name: &str,
        mut on_bytes: impl FnMut(&str, u64),
    ) -> Result<Vec<CheckedFile>, VoicepackError> {
        let pack = self.describe(name)?;
        let mut checked = Vec::new();
        for record in &pack.metadata.files {
            let state = check_on_disk(&pack.file(&record.name), record, |n| {
                on_bytes(&record.name, n);
                true
            })?;
            checked.push(CheckedFile {
                name: record.name.clone(),
                state,
            });
        }
        Ok(checked)
    }

    /// Removes a voicepack and what an unfinished download of it left; says how many bytes that
    /// freed.
    ///
    /// # Errors
    /// Nothing of that name, or the file system refused.
    pub fn remove(&self, name: &str) -> Result<u64, VoicepackError> {
        let dir = self.dir(name)?;
        let staging = self.staging_dir(name);
        if !dir.is_dir() && !staging.is_dir() {
            return Err(self.not_found(name));
        }
        let mut freed = 0;
        // Moved aside first, so that nobody meets a half-removed model.
        let doomed = self.root.join(format!(".{name}.removed"));
        if doomed.exists() {
            std::fs::remove_dir_all(&doomed).map_err(VoicepackError::io("remove", &doomed))?;
        }
        for path in [dir, staging] {
            if path.is_dir() {
                freed += folder_size(&path);
                std::fs::rename(&path, &doomed).map_err(VoicepackError::io("move", &path))?;
                std::fs::remove_dir_all(&doomed).map_err(VoicepackError::io("remove", &doomed))?;
            }
        }
        Ok(freed)
    }

    /// Where a download of `name` is put together before it takes its place.
    pub(crate) fn staging_dir(&self, name: &str) -> PathBuf {
        self.root.join(format!(".{name}.partial"))
    }

    /// The folder and its description, whole or not.
    pub(crate) fn describe(&self, name: &str) -> Result<Voicepack, VoicepackError> {
        let dir = self.dir(name)?;
        if !dir.is_dir() {
            return Err(self.not_found(name));
        }
        let file = dir.join(METADATA_FILE);
        let metadata = if file.is_file() {
            Metadata::read(&file)?
        } else {
            match Catalogue::builtin()?.get(name) {
                Ok(entry) => entry.metadata(),
                Err(_) => {
                    return Err(VoicepackError::NoMetadata {
                        name: name.to_owned(),
                        dir,
                    });
                }
            }
        };
        Ok(Voicepack {
            name: name.to_owned(),
            dir,
            metadata,
        })
    }

    fn not_found(&self, name: &str) -> VoicepackError {
        let known = Catalogue::builtin().is_ok_and(|c| c.get(name).is_ok());
        VoicepackError::NotFound {
            name: name.to_owned(),
            root: self.root.clone(),
            hint: if known {
                format!("run `duologue models pull {name}`")
            } else {
                "see `duologue models list` for the names there are".into()
            },
        }
    }
}

impl Voicepack {
    /// The path of one of its files.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        name.split('/')
            .fold(self.dir.clone(), |dir, part| dir.join(part))
    }

    /// Bytes on disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        folder_size(&self.dir)
    }
}

/// Compares a file with what is known of it. `on_bytes` hears of progress and returns whether to
/// go on; when told to stop, the file counts as unchecked.
pub(crate) fn check_on_disk(
    path: &Path,
    record: &FileRecord,
    on_bytes: impl FnMut(u64) -> bool,
) -> Result<FileState, VoicepackError> {
    let found = match std::fs::metadata(path) {
        Ok(m) if m.is_file() => m.len(),
        Ok(_) => return Ok(FileState::Missing),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(FileState::Missing),
        Err(e) => return Err(VoicepackError::io("read", path)(e)),
    };
    if let Some(expected) = record.size
        && expected != found
    {
        return Ok(FileState::WrongSize { expected, found });
    }
    let Some(expected) = &record.sha256 else {
        return Ok(FileState::Unchecked);
    };
    let Some(hasher) = hash_file(path, on_bytes)? else {
        return Ok(FileState::Unchecked);
    };
    let found = hex(hasher);
    Ok(if &found == expected {
        FileState::Sound
    } else {
        FileState::WrongHash {
            expected: expected.clone(),
            found,
        }
    })
}

/// The running hash of a whole file; None when `on_bytes` said to stop.
pub(crate) fn hash_file(
    path: &Path,
    mut on_bytes: impl FnMut(u64) -> bool,
) -> Result<Option<Sha256>, VoicepackError> {
    let mut file = std::fs::File::open(path).map_err(VoicepackError::io("read", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file
            .read(&mut buffer)
            .map_err(VoicepackError::io("read", path))?;
        if n == 0 {
            return Ok(Some(hasher));
        }
        hasher.update(&buffer[..n]);
        if !on_bytes(n as u64) {
            return Ok(None);
        }
    }
}

pub(crate) fn hex(hasher: Sha256) -> String {
    hasher
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

pub(crate) fn check_name(name: &str) -> Result<(), VoicepackError> {
    let fits = name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if fits {
        Ok(())
    } else {
        Err(VoicepackError::InvalidName(name.to_owned()))
    }
}

/// Where this machine keeps what is Duologue's: `$DUOLOGUE_DATA_DIR`, else `duologue` in the XDG data folder.
///
/// # Errors
/// [`VoicepackError::NoHome`].
pub fn data_dir() -> Result<PathBuf, VoicepackError> {
    match std::env::var_os("DUOLOGUE_DATA_DIR") {
        Some(dir) if !dir.is_empty() => Ok(dir.into()),
        _ => Ok(etcetera::choose_base_strategy()
            .map_err(|_| VoicepackError::NoHome)?
            .data_dir()
            .join("duologue")),
    }
}

/// `duologue` in the XDG configuration folder.
pub(crate) fn config_dir() -> Option<PathBuf> {
    Some(
        etcetera::choose_base_strategy()
            .ok()?
            .config_dir()
            .join("duologue"),
    )
}

fn folder_size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => folder_size(&e.path()),
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn store_with(name: &str, content: &[u8]) -> (tempfile::TempDir, VoicepackStore) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("a.bin"), content).unwrap();
        let sha256 = hex(Sha256::new_with_prefix(b"hello"));
        std::fs::write(
            dir.join(METADATA_FILE),
            format!("kind: tts\nfamily: tone\nlicense: MIT\nfiles:\n  - {{name: a.bin, size: 5, sha256: {sha256}}}\n"),
        )
        .unwrap();
        let store = VoicepackStore::open(root.path());
        (root, store)
    }

    fn state(store: &VoicepackStore) -> FileState {
        store.verify("p", |_, _| {}).unwrap().remove(0).state
    }

    #[test]
    fn a_sound_voicepack_is_found_listed_and_verified() {
        let (_root, store) = store_with("p", b"hello");
        assert_eq!(store.find("p").unwrap().metadata.family, "tone");
        assert_eq!(state(&store), FileState::Sound);
        let list = store.list().unwrap();
        assert_eq!(list.len(), 1);
        assert!(list[0].1.is_ok());
    }

    #[test]
    fn changed_bytes_of_the_same_size_fail_verification() {
        let (_root, store) = store_with("p", b"hallo");
        assert!(matches!(state(&store), FileState::WrongHash { .. }));
    }

    #[test]
    fn a_cut_file_is_not_found_as_a_model() {
        let (_root, store) = store_with("p", b"hel");
        assert!(matches!(
            state(&store),
            FileState::WrongSize {
                expected: 5,
                found: 3
            }
        ));
        let e = store.find("p").unwrap_err().to_string();
        assert!(e.contains("models pull p"), "{e}");
    }

    #[test]
    fn removing_frees_the_folder_and_its_unfinished_download() {
        let (root, store) = store_with("p", b"hello");
        std::fs::create_dir(store.staging_dir("p")).unwrap();
        std::fs::write(store.staging_dir("p").join("x.part"), b"12345678").unwrap();
        assert!(store.remove("p").unwrap() > 13);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(matches!(
            store.remove("p"),
            Err(VoicepackError::NotFound { .. })
        ));
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let store = VoicepackStore::open("/nowhere");
        for name in ["../x", "a/b", "", ".hidden", "a b", "-x"] {
            assert!(
                matches!(store.find(name), Err(VoicepackError::InvalidName(_))),
                "{name}"
            );
        }
    }

    #[test]
    fn a_model_that_is_not_there_is_told_with_the_command_that_brings_it() {
        let root = tempfile::tempdir().unwrap();
        let store = VoicepackStore::open(root.path());
        let e = store.find("whisper-base").unwrap_err().to_string();
        assert!(e.contains("duologue models pull whisper-base"), "{e}");
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn files_brought_by_hand_need_no_description_when_the_catalogue_has_one() {
        let root = tempfile::tempdir().unwrap();
        let store = VoicepackStore::open(root.path());
        let dir = root.path().join("silero-vad");
        std::fs::create_dir(&dir).unwrap();
        let entry = Catalogue::builtin()
            .unwrap()
            .get("silero-vad")
            .unwrap()
            .clone();
        let file = std::fs::File::create(dir.join(&entry.files[0].name)).unwrap();
        file.set_len(entry.files[0].size.unwrap()).unwrap();
        assert_eq!(
            store.find("silero-vad").unwrap().metadata.family,
            entry.family
        );
    }
}
