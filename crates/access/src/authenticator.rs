//! Whether a request is admitted, by what it presents.

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

/// Who was admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// Name of the key; `None`: none is needed.
    pub key: Option<String>,
    /// Settings that a client secret has for its sessions.
    pub session: Option<Map<String, Value>>,
}

/// Why a request is not admitted.
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
pub struct Authenticator {
    keys: Vec<Key>,
    signer: Signer,
}

impl Authenticator {
    /// One that accepts these keys. Without any, it admits anybody.
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

    /// Whether anybody is admitted.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    /// Judges what was presented, at a time in seconds of Unix time.
    ///
    /// # Errors
    /// [`Refused`]. A client secret that is not accepted is refused where no key is needed too, so that a client
    /// behaves there as it will where one is.
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
            // Made when no key was needed.
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

    fn with_key() -> Authenticator {
        let key = Key::new("ada", ADA, Limits::default()).unwrap();
        Authenticator::new(vec![key], Signer::random([1; 32]))
    }

    fn without_keys() -> Authenticator {
        with_key().with_keys(Vec::new())
    }

    fn secret_of(authenticator: &Authenticator, key: Option<&str>) -> String {
        let secret = ClientSecret {
            key: key.map(str::to_owned),
            expires_at: NOW + 60,
            id: 1,
            session: Map::new(),
        };
        authenticator.issue(&secret).unwrap()
    }

    #[test]
    fn a_key_opens_everything() {
        for scope in [Scope::Session, Scope::Everything] {
            let admitted = with_key().admit(Some(ADA), scope, NOW).unwrap();
            assert_eq!(
                (admitted.key.as_deref(), admitted.session),
                (Some("ada"), None)
            );
            assert_eq!(with_key().admit(None, scope, NOW), Err(Refused::NoKey));
            let wrong = with_key().admit(Some("none"), scope, NOW);
            assert_eq!(wrong, Err(Refused::WrongKey));
        }
    }

    #[test]
    fn a_client_secret_opens_sessions_alone_in_its_keys_name() {
        let secret = secret_of(&with_key(), Some("ada"));
        let admitted = with_key()
            .admit(Some(&secret), Scope::Session, NOW)
            .unwrap();
        assert_eq!(admitted.key.as_deref(), Some("ada"));
        assert_eq!(admitted.session, Some(Map::new()));
        let refused = with_key().admit(Some(&secret), Scope::Everything, NOW);
        assert_eq!(refused, Err(Refused::NotForThis));
    }

    #[test]
    fn where_no_key_is_needed_any_key_is_good_and_a_bad_client_secret_is_not() {
        assert!(without_keys().admit(None, Scope::Everything, NOW).is_ok());
        assert!(
            without_keys()
                .admit(Some("none"), Scope::Everything, NOW)
                .is_ok()
        );
        assert!(
            without_keys()
                .admit(Some("ek_x"), Scope::Session, NOW)
                .is_err()
        );
        let secret = secret_of(&without_keys(), None);
        assert!(
            without_keys()
                .admit(Some(&secret), Scope::Session, NOW)
                .is_ok()
        );
        let late = without_keys().admit(Some(&secret), Scope::Session, NOW + 60);
        assert_eq!(late, Err(SecretRefused::Expired.into()));
    }

    #[test]
    fn a_client_secret_made_without_a_key_is_worth_nothing_once_one_is_needed() {
        let secret = secret_of(&without_keys(), None);
        assert!(
            with_key()
                .admit(Some(&secret), Scope::Session, NOW)
                .is_err()
        );
    }
}
