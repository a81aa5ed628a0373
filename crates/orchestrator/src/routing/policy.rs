//! What an operator wants of routing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Any voice, in a policy's fallbacks.
pub(super) const ANY: &str = "*";

/// How workers are chosen. A file may leave out any field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Capabilities (`streaming`, `zero_shot`, `lora`, `cpu_ok`, `emotive`) or tags, of the worker or of the voice,
    /// that there must be. A conversation requires `streaming` anyway.
    pub require: Vec<String>,
    /// Tags, of the worker or of the voice, of which more are better.
    pub prefer_tags: Vec<String>,
    /// Whether a worker that has the voice in memory is better than one that has to load it.
    pub prefer_resident: bool,
    /// Voices that may stand in where the wanted one cannot speak now, the nearest first; `*` is any that is not
    /// tagged `test`. They must speak the language of the wanted one.
    pub fallbacks: Vec<String>,
    /// How long a voice that is being loaded is waited for before another stands in, ms.
    pub load_patience_ms: u64,
    /// What happens when no worker has room.
    pub queue: QueuePolicy,
}

/// What happens when no worker has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueuePolicy {
    /// How many may wait for room; one more is refused at once.
    pub length: usize,
    /// How long one waits before it is refused, ms.
    pub wait_ms: u64,
    /// When the refused are told to ask again, s.
    pub retry_after_s: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            require: Vec::new(),
            prefer_tags: Vec::new(),
            prefer_resident: true,
            fallbacks: vec![ANY.into()],
            load_patience_ms: 1_500,
            queue: QueuePolicy::default(),
        }
    }
}

impl Default for QueuePolicy {
    fn default() -> Self {
        Self {
            length: 64,
            wait_ms: 2_000,
            retry_after_s: 5,
        }
    }
}

impl Policy {
    /// For machines without a GPU: voices that are quick enough on a CPU.
    #[must_use]
    pub fn edge() -> Self {
        Self {
            require: vec!["cpu_ok".into()],
            prefer_tags: vec!["edge".into()],
            ..Self::default()
        }
    }

    /// For voices that are adapters on a base voice; no other may stand in.
    #[must_use]
    pub fn lora() -> Self {
        Self {
            require: vec!["lora".into()],
            fallbacks: Vec::new(),
            ..Self::default()
        }
    }

    pub(crate) fn load_patience(&self) -> Duration {
        Duration::from_millis(self.load_patience_ms)
    }

    /// Where a voice stands among those that may stand in: the smaller, the nearer.
    pub(super) fn fallback_rank(&self, voice: &str, is_test: bool) -> Option<usize> {
        let named = self.fallbacks.iter().position(|name| name == voice);
        let any = || self.fallbacks.iter().position(|name| name == ANY);
        named.or_else(|| if is_test { None } else { any() })
    }
}

/// Policies by name: `default`, `edge` and `lora`, and those of a file, which may replace them.
#[derive(Clone, Debug)]
pub struct Policies(BTreeMap<String, Policy>);

/// Why policies cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file is not what it should be.
    #[error("not a file of routing policies: {0}")]
    File(String),
    /// There is no such policy.
    #[error("there is no routing policy {name:?}; there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    policies: BTreeMap<String, Policy>,
}

impl Default for Policies {
    fn default() -> Self {
        Self(BTreeMap::from([
            ("default".to_owned(), Policy::default()),
            ("edge".to_owned(), Policy::edge()),
            ("lora".to_owned(), Policy::lora()),
        ]))
    }
}

impl Policies {
    /// Reads a file's policies, and those that are built in.
    ///
    /// # Errors
    /// [`PolicyError::File`], with where in the file.
    pub fn read(yaml: &str) -> Result<Self, PolicyError> {
        let file: File =
            serde_saphyr::from_str(yaml).map_err(|error| PolicyError::File(error.to_string()))?;
        let mut policies = Self::default();
        policies.0.extend(file.policies);
        Ok(policies)
    }

    /// The policy of that name.
    ///
    /// # Errors
    /// [`PolicyError::Unknown`].
    pub fn get(&self, name: &str) -> Result<&Policy, PolicyError> {
        self.0.get(name).ok_or_else(|| PolicyError::Unknown {
            name: name.to_owned(),
            known: self.0.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }
}
