//! The model file: found, and looked at before llama.cpp does, whose own word for everything wrong is null.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::LlmError;

/// The GGUF file that `path` means: itself, or the one in that folder.
pub(super) fn find(path: &Path) -> Result<PathBuf, LlmError> {
    let bad = |reason: String| LlmError::Load {
        path: path.display().to_string(),
        reason,
    };
    if path.as_os_str().is_empty() {
        return Err(LlmError::Config(
            "no file is named for the embedded language model: set `path`".to_owned(),
        ));
    }
    let metadata = std::fs::metadata(path).map_err(|error| {
        bad(format!(
            "{error}; run `duologue models pull`, or correct the path"
        ))
    })?;
    if !metadata.is_dir() {
        return Ok(path.to_owned());
    }
    let entries = std::fs::read_dir(path).map_err(|error| bad(error.to_string()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            file.extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
        })
        .collect();
    files.sort();
    // A model in parts is opened by its first; the others belong to it.
    let parts = files.iter().all(|file| name(file).contains("-of-"));
    match files.as_slice() {
        [] => Err(bad(
            "there is no .gguf file in that folder; run `duologue models pull`".to_owned(),
        )),
        [first, more @ ..] if more.is_empty() || parts => Ok(first.clone()),
        _ => Err(bad(
            "there are several .gguf files in that folder; name one".to_owned(),
        )),
    }
}

/// The file's name without its extension.
pub(super) fn name(path: &Path) -> String {
    path.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// That the file can be read and begins as GGUF does.
pub(super) fn check(path: &Path) -> Result<(), LlmError> {
    let bad = |reason: String| LlmError::Load {
        path: path.display().to_string(),
        reason,
    };
    let mut magic = [0u8; 4];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut magic))
        .map_err(|error| bad(format!("cannot read it: {error}")))?;
    if &magic != b"GGUF" {
        return Err(bad(
            "it is not a GGUF file; language models of other formats do not run here".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn folder(test: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("duologue-llm-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_missing_file_is_told_with_what_to_do() {
        let error = find(Path::new("/nonexistent/x.gguf"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nonexistent/x.gguf") && error.contains("duologue models pull"),
            "{error}"
        );
    }

    #[test]
    fn the_file_in_a_folder_is_found_unless_there_are_several() {
        let dir = folder("find");
        assert!(find(&dir).unwrap_err().to_string().contains("no .gguf"));
        std::fs::write(dir.join("a.gguf"), "GGUF").unwrap();
        assert_eq!(find(&dir).unwrap(), dir.join("a.gguf"));
        std::fs::write(dir.join("b.gguf"), "GGUF").unwrap();
        assert!(find(&dir).unwrap_err().to_string().contains("several"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn another_format_is_told() {
        let dir = folder("magic");
        let file = dir.join("a.gguf");
        std::fs::write(&file, "PK\u{3}\u{4}").unwrap();
        assert!(check(&file).unwrap_err().to_string().contains("not a GGUF"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
