//! API keys: of each its name, its SHA-256 and its limits. The keys themselves are not kept.

use std::fmt;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::CLIENT_SECRET;
use crate::limits::Limits;

/// Shortest key, in characters. It must not be guessed, so it is to be random.
const SHORTEST: usize = 16;
/// Longest key and longest name.
const LONGEST: usize = 256;

/// A key that is accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// What it is called in logs: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// What whoever has it may take.
    pub limits: Limits,
    digest: [u8; 32],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.name)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Why keys cannot be used. None of them shows a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Not YAML.
    #[error("it is not YAML{}; write a line `name: key` for each key", at(*.line))]
    Syntax {
        /// Where, from 1.
        line: Option<u64>,
    },
    /// No mapping.
    #[error("it holds no keys; write a line `name: key` for each key")]
    NoKeys,
    /// A name that is none. It is not shown: it may be a key that stands in the wrong place.
    #[error(
        "key {number} has no proper name: use 1 to {LONGEST} letters, digits, dots, dashes and underscores, as in `name: key`"
    )]
    Name {
        /// Which, from 1.
        number: usize,
    },
    /// What is said of a key cannot be.
    #[error("the key {name:?} {why}")]
    Entry {
        /// The key's name.
        name: String,
        /// What is wrong, and what to do.
        why: String,
    },
}

fn at(line: Option<u64>) -> String {
    line.map(|line| format!(" (line {line})"))
        .unwrap_or_default()
}

impl Key {
    /// A key with a name.
    ///
    /// # Errors
    /// [`KeysError::Entry`] for one that is too short or has characters that a WebSocket's subprotocol cannot carry.
    pub fn new(name: &str, key: &str, limits: Limits) -> Result<Self, KeysError> {
        let wrong = |why: &str| KeysError::Entry {
            name: name.to_owned(),
            why: why.to_owned(),
        };
        if key.len() < SHORTEST {
            return Err(wrong(
                "is shorter than 16 characters, which can be guessed; make one with `openssl rand -hex 32`",
            ));
        }
        if key.len() > LONGEST {
            return Err(wrong("is longer than 256 characters"));
        }
        let carried = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !key.bytes().all(carried) {
            return Err(wrong(
                "has other characters than letters, digits and !#$%&'*+-.^_`|~, which browsers' WebSockets cannot carry",
            ));
        }
        if key.starts_with(CLIENT_SECRET) {
            return Err(wrong("begins with ek_, as client secrets do"));
        }
        Ok(Self {
            name: name.to_owned(),
            limits,
            digest: Sha256::digest(key).into(),
        })
    }

    /// The key's SHA-256.
    pub(crate) fn digest(&self) -> &[u8] {
        &self.digest
    }
}

/// The key that was presented, if it is one of these. All are compared, each in constant time, so that how long it
/// takes tells nothing of them.
pub(crate) fn find<'k>(keys: &'k [Key], presented: &str) -> Option<&'k Key> {
    let digest: [u8; 32] = Sha256::digest(presented).into();
    let (mut found, mut index) = (Choice::from(0), 0_u32);
    for (number, key) in (0_u32..).zip(keys) {
        let same = digest.ct_eq(&key.digest);
        index.conditional_assign(&number, same);
        found |= same;
    }
    bool::from(found)
        .then(|| keys.get(index as usize))
        .flatten()
}

/// Reads a file of keys: YAML, a line `name: key` for each, or `name:` with the fields `key` (or `sha256`, its hash),
/// `max-sessions`, `requests-per-minute` and `bytes-per-minute`. What a key does not say of its limits is as in
/// `standard`; 0 is no limit.
///
/// # Errors
/// [`KeysError`], which shows no key.
pub fn read_keys(text: &str, standard: Limits) -> Result<Vec<Key>, KeysError> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let file: Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        // Its text may quote the file.
        KeysError::Syntax {
            line: error.location().map(|location| location.line()),
        }
    })?;
    let Value::Object(entries) = file else {
        return Err(KeysError::NoKeys);
    };
    if entries.is_empty() {
        return Err(KeysError::NoKeys);
    }
    let mut keys: Vec<Key> = Vec::new();
    for (number, (name, entry)) in (1..).zip(&entries) {
        if !is_name(name) {
            return Err(KeysError::Name { number });
        }
        let key = match entry {
            Value::String(key) => Key::new(name, key, standard)?,
            Value::Object(fields) => from_fields(name, fields, standard)?,
            // A key of digits alone, which YAML takes for a number.
            Value::Number(_) => {
                return Err(KeysError::Entry {
                    name: name.clone(),
                    why: "reads as a number: put it in quotes".to_owned(),
                });
            }
            _ => {
                return Err(KeysError::Entry {
                    name: name.clone(),
                    why: "is neither text nor fields".to_owned(),
                });
            }
        };
        if let Some(same) = keys.iter().find(|other| other.digest == key.digest) {
            return Err(KeysError::Entry {
                name: name.clone(),
                why: format!("is the same as {:?}: each needs its own", same.name),
            });
        }
        keys.push(key);
    }
    Ok(keys)
}

fn is_name(name: &str) -> bool {
    (1..=LONGEST).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn from_fields(
    name: &str,
    fields: &Map<String, Value>,
    standard: Limits,
) -> Result<Key, KeysError> {
    const FIELDS: &str = "key, sha256, max-sessions, requests-per-minute and bytes-per-minute";
    let wrong = |why: String| KeysError::Entry {
        name: name.to_owned(),
        why,
    };
    let mut limits = standard;
    let mut digest = None;
    for (field, value) in fields {
        let number = || {
            value
                .as_u64()
                .ok_or_else(|| wrong(format!("has a {field} that is not a whole number")))
        };
        match field.as_str() {
            "key" | "sha256" if digest.is_some() => {
                return Err(wrong("has both key and sha256: one is enough".to_owned()));
            }
            "key" => {
                let key = value.as_str().ok_or_else(|| {
                    wrong("has a key that is not text: put it in quotes".to_owned())
                })?;
                digest = Some(Key::new(name, key, limits)?.digest);
            }
            "sha256" => {
                let bytes = value.as_str().and_then(from_hex).ok_or_else(|| {
                    wrong("has a sha256 that is not 64 hexadecimal digits".to_owned())
                })?;
                digest = Some(bytes);
            }
            "max-sessions" => {
                let most = u32::try_from(number()?)
                    .map_err(|_| wrong("has a max-sessions that is too large".to_owned()))?;
                limits.sessions = (most > 0).then_some(most);
            }
            "requests-per-minute" => {
                let most = number()?;
                limits.requests_per_minute = (most > 0).then_some(most);
            }
            "bytes-per-minute" => {
                let most = number()?;
                limits.bytes_per_minute = (most > 0).then_some(most);
            }
            // It may be a key in the wrong place, so only what could be a field is shown.
            other if other.len() <= 24 && is_name(other) => {
                return Err(wrong(format!(
                    "has a field {other:?} that is not known; there are {FIELDS}"
                )));
            }
            _ => {
                return Err(wrong(format!(
                    "has a field that is not known; there are {FIELDS}"
                )));
            }
        }
    }
    let digest = digest.ok_or_else(|| wrong("has neither key nor sha256".to_owned()))?;
    Ok(Key {
        name: name.to_owned(),
        limits,
        digest,
    })
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ADA: &str = "ada-0123456789abcdef";
    const BOB: &str = "bob-0123456789abcdef";

    fn read(text: &str) -> Result<Vec<Key>, KeysError> {
        read_keys(text, Limits::default())
    }

    #[test]
    fn a_line_is_a_key_and_fields_say_more_of_one() {
        let standard = Limits {
            sessions: Some(2),
            requests_per_minute: Some(60),
            bytes_per_minute: None,
        };
        let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let text = format!(
            "# of the office\nada: {ADA}\nkiosk:\n  key: {BOB}\n  max-sessions: 1\n  requests-per-minute: 0\n  \
             bytes-per-minute: 5000000\nhashed: {{sha256: {hash}}}\n"
        );
        let keys = read_keys(&text, standard).unwrap();
        assert_eq!(find(&keys, ADA).unwrap().name, "ada");
        assert_eq!(find(&keys, ADA).unwrap().limits, standard);
        let kiosk = find(&keys, BOB).unwrap();
        let own = Limits {
            sessions: Some(1),
            requests_per_minute: None,
            bytes_per_minute: Some(5_000_000),
        };
        assert_eq!((kiosk.name.as_str(), kiosk.limits), ("kiosk", own));
        // The hash of "test".
        assert_eq!(find(&keys, "test").unwrap().name, "hashed");
        for wrong in [
            "",
            "ada",
            &ADA[1..],
            &format!("{ADA} "),
            &ADA.to_uppercase(),
        ] {
            assert!(find(&keys, wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_telling_a_key() {
        let secret = "s3cret-s3cret-s3cret-s3cret";
        let cases = [
            (format!("{secret}\n"), "holds no keys"),
            (String::new(), "holds no keys"),
            ("[]".to_owned(), "holds no keys"),
            (format!("- {secret}\n"), "holds no keys"),
            (
                format!("ada: {secret}\nada: {secret}x\n"),
                "not YAML (line 2)",
            ),
            (format!("ada: [{secret}\n"), "not YAML"),
            (
                format!("ada: {secret}\nbob: {secret}\n"),
                "is the same as \"ada\"",
            ),
            ("ada: short".to_owned(), "shorter than 16"),
            (format!("ada: {}", "x".repeat(300)), "longer than 256"),
            ("ada: 12345678901234567890".to_owned(), "quotes"),
            (format!("ada: \"{secret} {secret}\""), "other characters"),
            (format!("ada: {secret}/=="), "other characters"),
            (format!("ada: ek_{secret}"), "begins with ek_"),
            (format!("a b: {secret}"), "key 1 has no proper name"),
            (format!("{secret}!: x"), "key 1 has no proper name"),
            (format!("ada: [{secret}]"), "neither text nor fields"),
            (
                format!("ada: {{key: {secret}, sha256: {secret}}}"),
                "both key and sha256",
            ),
            (
                format!("ada: {{sha256: {secret}}}"),
                "64 hexadecimal digits",
            ),
            (
                "ada: {max-sessions: 1}".to_owned(),
                "neither key nor sha256",
            ),
            (
                format!("ada: {{key: {secret}, max-sessions: many}}"),
                "whole number",
            ),
            (
                format!("ada: {{key: {secret}, sessions: 1}}"),
                "there are key, sha256, max-sessions",
            ),
            (format!("ada: {{{secret}: 1}}"), "a field that is not known"),
        ];
        for (text, told) in cases {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
            assert!(!error.contains(secret), "{error}");
        }
    }

    #[test]
    fn a_key_shows_neither_itself_nor_its_hash() {
        let key = Key::new("ada", ADA, Limits::default()).unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains("ada") && shown.len() < 160, "{shown}");
        assert!(!shown.contains(ADA) && !shown.contains("digest"), "{shown}");
    }
}
