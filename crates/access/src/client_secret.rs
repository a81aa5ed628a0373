//! Client secrets: short-lived tokens that a key's owner gives to browsers and apps, so that the key stays at home.
//!
//! A client secret holds all there is to know of it (the key it was made with, when it ends, the settings of its
//! sessions) and is signed, so that no server keeps any: every server that has the same keys and the same signing
//! secret accepts it. The key's hash is in what is signed: when the key is replaced or taken away, its client secrets
//! end with it.
//!
//! `ek_` payload `.` tag: both base64url; the payload is JSON, the tag HMAC-SHA256 (RFC 2104). It is signed, not
//! encrypted: whoever has it can read its settings, as its sessions tell them anyway.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use crate::keys::Key;

/// What client secrets begin with.
pub const CLIENT_SECRET: &str = "ek_";
/// Longest one that is read: it travels in a header.
const LONGEST: usize = 16 * 1024;
/// Most bytes of settings in one.
const SETTINGS: usize = 8 * 1024;
/// Shortest signing secret, in characters.
const SHORTEST_SIGNER: usize = 32;
/// Set before what is signed, so that no other use of the same secret can be taken for it.
const PURPOSE: &[u8] = b"duologue client secret 1\0";

/// What a client secret says.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientSecret {
    /// Name of the key it was made with; `None`: no key was needed.
    pub key: Option<String>,
    /// When it ends, in seconds of Unix time. Sessions that run then go on.
    pub expires_at: u64,
    /// A number of its own, so that no two are the same.
    pub id: u64,
    /// Settings of its sessions, as in a `session.update`.
    pub session: Map<String, Value>,
}

/// Why a client secret is not accepted, or not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefused {
    /// It is none, or was changed, or made elsewhere, or its key is gone.
    #[error(
        "this client secret is not one of this server's, or its key is no more; ask for a new one at /v1/realtime/client_secrets"
    )]
    Unknown,
    /// Its time is over.
    #[error("this client secret has expired; ask for a new one at /v1/realtime/client_secrets")]
    Expired,
    /// Its settings are too long.
    #[error(
        "session takes {bytes} bytes, and a client secret holds at most {SETTINGS}: set the rest by session.update"
    )]
    TooLong {
        /// How long they are.
        bytes: usize,
    },
}

/// Signs client secrets.
#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

/// The signing secret can be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the signing secret has {0} characters, and at least {SHORTEST_SIGNER} are needed; make one with `openssl rand -hex 32`"
)]
pub struct SignerError(usize);

impl Signer {
    /// With a secret that servers share.
    ///
    /// # Errors
    /// One that is shorter than 32 characters.
    pub fn shared(secret: &str) -> Result<Self, SignerError> {
        match secret.len() {
            short if short < SHORTEST_SIGNER => Err(SignerError(short)),
            _ => Ok(Self::of(secret.as_bytes())),
        }
    }

    /// With random bytes, for this process alone.
    #[must_use]
    pub fn random(bytes: [u8; 32]) -> Self {
        Self::of(&bytes)
    }

    fn of(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("an HMAC takes keys of any length"))
    }

    /// Makes a client secret. `key` is the key of that name.
    ///
    /// # Errors
    /// [`SecretRefused::TooLong`].
    pub fn sign(&self, secret: &ClientSecret, key: Option<&Key>) -> Result<String, SecretRefused> {
        let session = Value::Object(secret.session.clone());
        let bytes = session.to_string().len();
        if bytes > SETTINGS {
            return Err(SecretRefused::TooLong { bytes });
        }
        let payload = json!({
            "key": secret.key,
            "exp": secret.expires_at,
            "id": format!("{:016x}", secret.id),
            "session": session,
        });
        let payload = URL_SAFE_NO_PAD.encode(payload.to_string());
        let tag = self.over(&payload, key).finalize().into_bytes();
        let tag = URL_SAFE_NO_PAD.encode(tag);
        Ok(format!("{CLIENT_SECRET}{payload}.{tag}"))
    }

    /// Reads a client secret, at a time in seconds of Unix time.
    ///
    /// # Errors
    /// [`SecretRefused::Unknown`] or [`SecretRefused::Expired`].
    pub fn verify(
        &self,
        text: &str,
        keys: &[Key],
        now: u64,
    ) -> Result<ClientSecret, SecretRefused> {
        let (secret, payload, tag) = parse(text).ok_or(SecretRefused::Unknown)?;
        // Nothing it says is believed before its tag is known to be ours.
        let key = match &secret.key {
            None => None,
            Some(name) => {
                let key = keys.iter().find(|key| key.name == *name);
                Some(key.ok_or(SecretRefused::Unknown)?)
            }
        };
        self.over(payload, key)
            .verify_slice(&tag)
            .map_err(|_| SecretRefused::Unknown)?;
        if secret.expires_at <= now {
            return Err(SecretRefused::Expired);
        }
        Ok(secret)
    }

    fn over(&self, payload: &str, key: Option<&Key>) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(PURPOSE);
        // Of one length, so that nothing can be moved between the parts.
        mac.update(key.map_or(&[0; 32], Key::digest));
        mac.update(payload.as_bytes());
        mac
    }
}

/// What it says, what of it is signed, and the tag.
fn parse(text: &str) -> Option<(ClientSecret, &str, Vec<u8>)> {
    if text.len() > LONGEST {
        return None;
    }
    let (payload, tag) = text.strip_prefix(CLIENT_SECRET)?.split_once('.')?;
    let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
    let said: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let key = match &said["key"] {
        Value::Null => None,
        Value::String(name) => Some(name.clone()),
        _ => return None,
    };
    let secret = ClientSecret {
        key,
        expires_at: said["exp"].as_u64()?,
        id: u64::from_str_radix(said["id"].as_str()?, 16).ok()?,
        session: said["session"].as_object()?.clone(),
    };
    Some((secret, payload, tag))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn key(name: &str, text: &str) -> Key {
        Key::new(name, text, Limits::default()).unwrap()
    }

    fn ada() -> Key {
        key("ada", "ada-0123456789abcdef")
    }

    fn signer() -> Signer {
        Signer::shared("a secret that all servers of the fleet share").unwrap()
    }

    fn secret() -> ClientSecret {
        ClientSecret {
            key: Some("ada".to_owned()),
            expires_at: NOW + 600,
            id: 7,
            session: json!({"instructions": "Sell tulips."})
                .as_object()
                .unwrap()
                .clone(),
        }
    }

    #[test]
    fn it_says_to_every_server_with_the_same_secret_what_it_was_made_with() {
        let text = signer().sign(&secret(), Some(&ada())).unwrap();
        assert!(text.starts_with("ek_"));
        let elsewhere = signer();
        let keys = [key("bob", "bob-0123456789abcdef"), ada()];
        assert_eq!(elsewhere.verify(&text, &keys, NOW), Ok(secret()));
        let other = Signer::random([7; 32]);
        assert_eq!(other.verify(&text, &keys, NOW), Err(SecretRefused::Unknown));
    }

    #[test]
    fn it_can_travel_as_a_websockets_subprotocol() {
        let text = signer().sign(&secret(), Some(&ada())).unwrap();
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert!(text.bytes().all(token), "{text}");
    }

    #[test]
    fn it_ends_at_its_time_and_with_its_key() {
        let text = signer().sign(&secret(), Some(&ada())).unwrap();
        let verify = |keys: &[Key], now| signer().verify(&text, keys, now);
        assert!(verify(&[ada()], NOW + 599).is_ok());
        assert_eq!(verify(&[ada()], NOW + 600), Err(SecretRefused::Expired));
        assert_eq!(verify(&[], NOW), Err(SecretRefused::Unknown));
        let replaced = key("ada", "ada-fedcba9876543210");
        assert_eq!(verify(&[replaced], NOW), Err(SecretRefused::Unknown));
    }

    #[test]
    fn one_made_without_a_key_is_not_taken_for_one_of_a_key_and_the_other_way_round() {
        let open = ClientSecret {
            key: None,
            ..secret()
        };
        let text = signer().sign(&open, None).unwrap();
        assert_eq!(signer().verify(&text, &[], NOW), Ok(open.clone()));
        let forged = signer().sign(&open, Some(&ada())).unwrap();
        assert_eq!(
            signer().verify(&forged, &[ada()], NOW),
            Err(SecretRefused::Unknown)
        );
    }

    #[test]
    fn settings_that_a_header_cannot_carry_are_refused_when_it_is_made() {
        let mut long = secret();
        long.session
            .insert("instructions".into(), json!("x".repeat(9_000)));
        let refused = signer().sign(&long, Some(&ada()));
        assert!(matches!(refused, Err(SecretRefused::TooLong { bytes }) if bytes > 9_000));
        long.session
            .insert("instructions".into(), json!("\u{1F337}".repeat(2_000)));
        let text = signer().sign(&long, Some(&ada())).unwrap();
        assert!(text.len() < LONGEST);
        assert!(signer().verify(&text, &[ada()], NOW).is_ok());
    }

    #[test]
    fn a_signing_secret_that_can_be_guessed_is_refused() {
        assert_eq!(Signer::shared("swordfish").unwrap_err(), SignerError(9));
        assert!(!format!("{:?}", signer()).contains("fleet"));
    }

    proptest! {
        #[test]
        fn one_that_was_changed_anywhere_is_refused(at in 0_usize..400, with in "[A-Za-z0-9_.-]") {
            let text = signer().sign(&secret(), Some(&ada())).unwrap();
            let at = at % text.len();
            let mut changed = text.clone();
            changed.replace_range(at..=at, &with);
            prop_assume!(changed != text);
            prop_assert!(signer().verify(&changed, &[ada()], NOW).is_err());
        }

        #[test]
        fn whatever_comes_is_read_without_harm(text in "(ek_)?[ -~]{0,200}") {
            prop_assert!(signer().verify(&text, &[ada()], NOW).is_err());
        }
    }
}
