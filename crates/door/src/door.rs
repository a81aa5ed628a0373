//! Whether a request may come in, by what it presents.

use serde_json::{Map, Value};

use crate::client_secret::{CLIENT_SECRET, ClientSecret, SecretRefused, Signer};
use crate::keys::{self, Key};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To hold a session: a key or a client secret is needed.
    Session,
    /// Anything else: a key is needed.
    Everything,
}

/// Who came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// Name of the key; `None`: none is needed.
    pub key: Option<String>,
    /// Settings that a client secret has for its sessions.
    pub session: Option<Map<String, Value>>,
}

/// Why a request does not come in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has no key.
    #[error("this server asks for an API key: send it as `Authorization: Bearer KEY`")]
    NoKey,
    /// It has a key that is none of ours.
    #[error("this API key is not one of this server's")]
    WrongKey,
    /// It has a client secret that is not accepted.
    #[error(transparent)]
    ClientSecret(#[from] SecretRefused),
    /// It has a client secret, and a key is needed.
    #[error("a client secret is for sessions alone; this takes an API key")]
    NotForThis,
}

/// The keys that are accepted, and the signer of client secrets.
#[derive(Clone, Debug)]
pub struct Door {
    keys: Vec<Key>,
    signer: Signer,
}

impl Door {
    /// A door to which these are the keys. Without any, it is open.
    #[must_use]
    pub fn new(keys: Vec<Key>, signer: Signer) -> Self {
        Self { keys, signer }
    }

    /// The same with other keys.
    #[must_use]
    pub fn with_keys(&self, keys: Vec<Key>) -> Self {
        Self::new(keys, self.signer.clone())
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Whether anybody may come in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    /// Judges what was presented, at a time in seconds of Unix time.
    ///
    /// # Errors
    /// [`Refused`]. A client secret that is not accepted is refused at an open door too, so that a client behaves there
    /// as it will at a locked one.
    pub fn admit(
        &self,
        presented: Option<&str>,
        scope: Scope,
        now: u64,
    ) -> Result<Admitted, Refused> {
        if let Some(text) = presented
            && text.starts_with(CLIENT_SECRET)
        {
            let secret = self.signer.verify(text, &self.keys, now)?;
            // Made when the door was open.
            if secret.key.is_none() && !self.is_open() {
                return Err(SecretRefused::Unknown.into());
            }
            if scope != Scope::Session {
                return Err(Refused::NotForThis);
            }
            return Ok(Admitted {
                key: secret.key,
                session: Some(secret.session),
            });
        }
        if self.is_open() {
            return Ok(Admitted {
                key: None,
                session: None,
            });
        }
        let presented = presented.ok_or(Refused::NoKey)?;
        let key = keys::find(&self.keys, presented).ok_or(Refused::WrongKey)?;
        Ok(Admitted {
            key: Some(key.name.clone()),
            session: None,
        })
    }

    /// Makes a client secret for the owner of a key.
    ///
    /// # Errors
    /// [`SecretRefused`]: its settings are too long, or the key has gone meanwhile.
    pub fn issue(&self, secret: &ClientSecret) -> Result<String, SecretRefused> {
        let key = match &secret.key {
            None => None,
            Some(name) => {
                let key = self.keys.iter().find(|key| key.name == *name);
                Some(key.ok_or(SecretRefused::Unknown)?)
            }
        };
        self.signer.sign(secret, key)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    const ADA: &str = "ada-0123456789abcdef";
    const NOW: u64 = 1_800_000_000;

    fn locked() -> Door {
        let key = Key::new("ada", ADA, Limits::default()).unwrap();
        Door::new(vec![key], Signer::random([1; 32]))
    }

    fn open() -> Door {
        locked().with_keys(Vec::new())
    }

    fn secret_of(door: &Door, key: Option<&str>) -> String {
        let secret = ClientSecret {
            key: key.map(str::to_owned),
            expires_at: NOW + 60,
            id: 1,
            session: Map::new(),
        };
        door.issue(&secret).unwrap()
    }

    #[test]
    fn a_key_opens_everything() {
        for scope in [Scope::Session, Scope::Everything] {
            let admitted = locked().admit(Some(ADA), scope, NOW).unwrap();
            assert_eq!(
                (admitted.key.as_deref(), admitted.session),
                (Some("ada"), None)
            );
            assert_eq!(locked().admit(None, scope, NOW), Err(Refused::NoKey));
            let wrong = locked().admit(Some("none"), scope, NOW);
            assert_eq!(wrong, Err(Refused::WrongKey));
        }
    }

    #[test]
    fn a_client_secret_opens_sessions_alone_in_its_keys_name() {
        let secret = secret_of(&locked(), Some("ada"));
        let admitted = locked().admit(Some(&secret), Scope::Session, NOW).unwrap();
        assert_eq!(admitted.key.as_deref(), Some("ada"));
        assert_eq!(admitted.session, Some(Map::new()));
        let refused = locked().admit(Some(&secret), Scope::Everything, NOW);
        assert_eq!(refused, Err(Refused::NotForThis));
    }

    #[test]
    fn at_an_open_door_any_key_is_good_and_a_bad_client_secret_is_not() {
        assert!(open().admit(None, Scope::Everything, NOW).is_ok());
        assert!(open().admit(Some("none"), Scope::Everything, NOW).is_ok());
        assert!(open().admit(Some("ek_x"), Scope::Session, NOW).is_err());
        let secret = secret_of(&open(), None);
        assert!(open().admit(Some(&secret), Scope::Session, NOW).is_ok());
        let late = open().admit(Some(&secret), Scope::Session, NOW + 60);
        assert_eq!(late, Err(SecretRefused::Expired.into()));
    }

    #[test]
    fn a_client_secret_of_an_open_door_is_worth_nothing_once_it_is_locked() {
        let secret = secret_of(&open(), None);
        assert!(locked().admit(Some(&secret), Scope::Session, NOW).is_err());
    }
}
