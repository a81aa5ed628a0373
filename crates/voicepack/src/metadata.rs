//! What a voicepack says about itself: `metadata.yaml` beside its files.
//!
//! `pull` writes it from the catalogue; a folder made by hand brings its own. Reading is strict: a
//! misspelt field would otherwise be a setting that silently does nothing.

use std::fmt;
use std::path::Path;

use serde::Deserialize;

use crate::error::{ParseError, VoicepackError};
use crate::yaml;

/// The name of the file in a voicepack's folder.
pub const METADATA_FILE: &str = "metadata.yaml";

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Text to speech.
    Tts,
    /// Speech to text.
    Asr,
    /// Voice activity detection.
    Vad,
    /// End-of-turn detection.
    Turn,
    /// Language model.
    Llm,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tts => "tts",
            Self::Asr => "asr",
            Self::Vad => "vad",
            Self::Turn => "turn",
            Self::Llm => "llm",
        })
    }
}

/// One file of a voicepack.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Path inside the folder, with `/`.
    pub name: String,
    /// Size in bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// Lower-case hex.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// The content of `metadata.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// What the model is for.
    pub kind: Kind,
    /// Which adapter reads it: `piper`, `whisper`, `silero`, `smart-turn`, `gguf`, ...
    pub family: String,
    /// For an adapter: the name of the voicepack that it is used with.
    #[serde(default)]
    pub base: Option<String>,
    /// One sentence for people.
    #[serde(default)]
    pub description: String,
    /// BCP 47 tags; empty for a model that does not depend on the language.
    #[serde(default)]
    pub languages: Vec<String>,
    /// Hz; what a voice gives or a listener takes. None where it means nothing.
    #[serde(default)]
    pub sample_rate: Option<u32>,
    /// `cpu_ok`, `expressive`, `lora`, `domain:medical`, ...
    #[serde(default)]
    pub tags: Vec<String>,
    /// SPDX expression, or the licence's own name.
    pub license: String,
    /// Files that must be there; those with a sha256 are checked by `verify`.
    #[serde(default)]
    pub files: Vec<FileRecord>,
}

impl Metadata {
    /// Reads the text of a `metadata.yaml`; `file` is named in errors.
    ///
    /// # Errors
    /// A line and a field that YAML or the format does not allow.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ParseError> {
        let metadata: Self = yaml::parse(text, file)?;
        metadata.check().map_err(|(field, problem)| ParseError {
            file: file.to_owned(),
            line: line_of(text, field.split(['[', '.']).next().unwrap_or_default()),
            field,
            problem,
        })?;
        Ok(metadata)
    }

    /// Reads a `metadata.yaml`.
    ///
    /// # Errors
    /// An unreadable file, or the errors of [`Metadata::parse`].
    pub fn read(file: &Path) -> Result<Self, VoicepackError> {
        let text = std::fs::read_to_string(file).map_err(VoicepackError::io("read", file))?;
        Ok(Self::parse(&text, file)?)
    }

    /// Whether it carries the tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|t| t == tag)
    }

    /// The text of a `metadata.yaml` that reads back to `self`.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let list = |items: &[String]| {
            let items: Vec<_> = items.iter().map(|s| yaml::quote(s)).collect();
            format!("[{}]", items.join(", "))
        };
        let mut out = format!(
            "kind: {}\nfamily: {}\n",
            self.kind,
            yaml::quote(&self.family)
        );
        if let Some(base) = &self.base {
            out += &format!("base: {}\n", yaml::quote(base));
        }
        if !self.description.is_empty() {
            out += &format!("description: {}\n", yaml::quote(&self.description));
        }
        out += &format!("languages: {}\n", list(&self.languages));
        if let Some(rate) = self.sample_rate {
            out += &format!("sample_rate: {rate}\n");
        }
        out += &format!("tags: {}\n", list(&self.tags));
        out += &format!("license: {}\n", yaml::quote(&self.license));
        if !self.files.is_empty() {
            out += "files:\n";
        }
        for file in &self.files {
            out += &format!("  - name: {}\n", yaml::quote(&file.name));
            if let Some(size) = file.size {
                out += &format!("    size: {size}\n");
            }
            if let Some(sha256) = &file.sha256 {
                out += &format!("    sha256: {}\n", yaml::quote(sha256));
            }
        }
        out
    }

    /// The rules that types do not carry: field and problem of the first one broken.
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        let fail = |field: String, problem: &str| Err((field, problem.to_owned()));
        if self.family.trim().is_empty() {
            return fail("family".into(), "must not be empty");
        }
        if self.license.trim().is_empty() {
            return fail(
                "license".into(),
                "must not be empty (write `unknown` if it is not known)",
            );
        }
        if let Some(rate) = self.sample_rate
            && !(8_000..=192_000).contains(&rate)
        {
            return fail("sample_rate".into(), "must be between 8000 and 192000 Hz");
        }
        for (i, tag) in self.tags.iter().enumerate() {
            if tag.is_empty() || tag.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return fail(format!("tags[{i}]"), "a tag is one word");
            }
        }
        for (i, language) in self.languages.iter().enumerate() {
            let fits = !language.is_empty()
                && language.split('-').all(|p| {
                    (1..=8).contains(&p.len()) && p.chars().all(|c| c.is_ascii_alphanumeric())
                });
            if !fits {
                return fail(
                    format!("languages[{i}]"),
                    "not a language tag such as `en` or `en-US`",
                );
            }
        }
        for (i, file) in self.files.iter().enumerate() {
            check_file(file, &format!("files[{i}]"))?;
            if self.files[..i].iter().any(|f| f.name == file.name) {
                return fail(format!("files[{i}].name"), "is listed twice");
            }
        }
        Ok(())
    }
}

/// A file's name must stay inside its folder; a hash must be one.
pub(crate) fn check_file(file: &FileRecord, field: &str) -> Result<(), (String, String)> {
    let inside = !file.name.is_empty()
        && !file.name.contains(['\\', ':', '\0'])
        && file
            .name
            .split('/')
            .all(|p| !p.is_empty() && p != "." && p != "..");
    if !inside {
        return Err((
            format!("{field}.name"),
            format!(
                "`{}` is not a path inside the voicepack's folder",
                file.name
            ),
        ));
    }
    if file.name == METADATA_FILE {
        return Err((format!("{field}.name"), "is the description itself".into()));
    }
    if let Some(sha256) = &file.sha256
        && !(sha256.len() == 64
            && sha256
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    {
        return Err((
            format!("{field}.sha256"),
            "must be 64 lower-case hex digits".into(),
        ));
    }
    Ok(())
}

/// The line (from 1) where a top-level key stands.
fn line_of(text: &str, key: &str) -> Option<u64> {
    let at = text.lines().position(|l| {
        l.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with(':'))
    })?;
    Some(at as u64 + 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &str = "kind: tts\nfamily: piper\nlanguages: [en-US]\nsample_rate: 22050\ntags: [cpu_ok]\nlicense: CC0-1.0\nfiles:\n  - name: a.onnx\n    size: 12\n";

    fn error(text: &str) -> ParseError {
        Metadata::parse(text, Path::new("joe/metadata.yaml")).unwrap_err()
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let mut metadata = Metadata::parse(GOOD, Path::new("m")).unwrap();
        metadata.base = Some("another-voice".into());
        metadata.description = "A \"voice\": with # and\nmore, \u{e9}\u{1f600}".into();
        metadata.files[0].sha256 = Some("0".repeat(64));
        let again = Metadata::parse(&metadata.to_yaml(), Path::new("m")).unwrap();
        assert_eq!(again, metadata);
    }

    #[test]
    fn an_unknown_field_is_told_with_file_line_and_name() {
        let e = error(&GOOD.replace("tags:", "tgas:"));
        assert_eq!(e.line, Some(5), "{e}");
        let text = e.to_string();
        assert!(text.starts_with("joe/metadata.yaml:5"), "{text}");
        assert!(text.contains("tgas"), "{text}");
    }

    #[test]
    fn a_wrong_type_deep_inside_is_told_with_its_path_and_line() {
        let e = error(&GOOD.replace("size: 12", "size: twelve"));
        assert_eq!(
            (e.line, e.field.as_str()),
            (Some(9), "files[0].size"),
            "{e}"
        );
    }

    #[test]
    fn a_missing_field_is_named() {
        let e = error(&GOOD.replace("license: CC0-1.0\n", ""));
        assert!(e.to_string().contains("license"), "{e}");
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_their_line() {
        let e = error(&GOOD.replace("22050", "22"));
        assert_eq!((e.line, e.field.as_str()), (Some(4), "sample_rate"), "{e}");
        let e = error(&GOOD.replace("en-US", "\"english please\""));
        assert_eq!((e.line, e.field.as_str()), (Some(3), "languages[0]"), "{e}");
    }

    #[test]
    fn a_file_outside_the_folder_is_refused() {
        for name in [
            "../x",
            "/etc/passwd",
            "a//b",
            "..",
            "C:\\x",
            "metadata.yaml",
        ] {
            let e = error(&GOOD.replace("a.onnx", &yaml::quote(name)));
            assert_eq!(e.field, "files[0].name", "{name}: {e}");
        }
    }
}
