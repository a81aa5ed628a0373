use std::fmt;
use std::path::{Path, PathBuf};

/// What went wrong with a model on disk or on its way there. Each message says what, where, and
/// what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VoicepackError {
    /// Neither `DUOLOGUE_DATA_DIR` nor a home folder is known.
    #[error(
        "no home folder is known, so there is no place for models: set DUOLOGUE_DATA_DIR to a folder that may be written"
    )]
    NoHome,

    /// A name that could leave the voicepacks folder.
    #[error(
        "`{0}` cannot be the name of a voicepack: use letters, digits, '.', '-' and '_', and start with a letter or a digit"
    )]
    InvalidName(String),

    /// No folder of this name.
    #[error("voicepack `{name}` is not in {}: {hint}", root.display())]
    NotFound {
        /// The name asked for.
        name: String,
        /// The folder that holds the voicepacks.
        root: PathBuf,
        /// What to do about it.
        hint: String,
    },

    /// The folder is there, but one of its files is not.
    #[error("voicepack `{name}` lacks {}: run `duologue models pull {name}`", path.display())]
    MissingFile {
        /// The voicepack.
        name: String,
        /// The file that should be there.
        path: PathBuf,
    },

    /// The folder is not described.
    #[error(
        "{} has no metadata.yaml and the catalogue has no model `{name}`: write one (kind, family, license, languages, sample_rate, tags, files)",
        dir.display()
    )]
    NoMetadata {
        /// The voicepack.
        name: String,
        /// Its folder.
        dir: PathBuf,
    },

    /// The catalogue does not know the model.
    #[error("no model `{name}` in the catalogue; it has: {}", known.join(", "))]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },

    /// A `metadata.yaml` or a catalogue that says something we cannot take.
    #[error(transparent)]
    Parse(#[from] ParseError),

    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },

    /// Not enough room.
    #[error(
        "not enough room in {}: {} more needed, {} free. Free some, or set DUOLOGUE_DATA_DIR to a folder on a larger disk. What was already fetched is kept and resumed",
        path.display(), Bytes(*needed), Bytes(*available)
    )]
    DiskFull {
        /// The folder that is too small.
        path: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes free there.
        available: u64,
    },

    /// None of a file's sources gave the right bytes.
    #[error("{0}")]
    Sources(Box<DeadSources>),

    /// The HTTP client could not be made (bad certificate file, bad proxy).
    #[error("cannot set up downloads: {0}")]
    Client(String),

    /// A worker thread of ours panicked.
    #[error("a background step failed: {0}")]
    Task(String),
}

impl VoicepackError {
    /// Wraps an I/O error with what was tried, on what.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// A YAML file that does not say what it must, and where it does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct ParseError {
    /// The file, or a name for a built-in one.
    pub file: PathBuf,
    /// Line, counted from 1, where known.
    pub line: Option<u64>,
    /// The field as a path (`files[0].size`); empty for the whole document.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl ParseError {
    fn message(&self) -> String {
        let mut out = self.file.display().to_string();
        if let Some(line) = self.line {
            out.push_str(&format!(":{line}"));
        }
        if !self.field.is_empty() && self.field != "." {
            out.push_str(&format!(": field `{}`", self.field));
        }
        format!("{out}: {}", self.problem)
    }
}

/// Why a file could not be had, and how to bring it by hand.
#[derive(Debug)]
pub struct DeadSources {
    /// The model.
    pub model: String,
    /// The file's name in the model's folder.
    pub file: String,
    /// Where the file belongs.
    pub destination: PathBuf,
    /// Its size in bytes, where known.
    pub size: Option<u64>,
    /// Its sha256, where known.
    pub sha256: Option<String>,
    /// Each source tried, in words, and why it failed.
    pub attempts: Vec<(String, String)>,
    /// What a person can do: one line for each source.
    pub by_hand: Vec<String>,
}

impl fmt::Display for DeadSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "none of the sources of `{}` ({}", self.file, self.model)?;
        if let Some(size) = self.size {
            write!(f, ", {}", Bytes(size))?;
        }
        write!(f, ") gave it:")?;
        for (source, reason) in &self.attempts {
            write!(f, "\n  - {source}: {reason}")?;
        }
        write!(f, "\nTo bring it by hand:")?;
        for line in &self.by_hand {
            write!(f, "\n  - {line}")?;
        }
        write!(f, "\nPut it at {}", Path::new(&self.destination).display())?;
        if let Some(sha256) = &self.sha256 {
            write!(f, " (sha256 {sha256})")?;
        }
        write!(
            f,
            "\nand run `duologue models verify {}`. Behind a proxy, set HTTPS_PROXY; for a mirror of the hub, HF_ENDPOINT; for a package index of your own, PIP_INDEX_URL.",
            self.model
        )
    }
}

/// Bytes for people: `491.4 MB`.
#[derive(Debug, Clone, Copy)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{} B", self.0),
            1_000..1_000_000 => write!(f, "{:.1} kB", bytes / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.1} MB", bytes / 1e6),
            _ => write!(f, "{:.2} GB", bytes / 1e9),
        }
    }
}
