//! STUN and TURN servers, as the configuration names them and as browsers want them.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A STUN or TURN server that clients may use, an `RTCIceServer`. Its password is not shown in logs.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct IceServer {
    urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

/// A server's name that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no ICE server; write it as stun:HOST:PORT or as turn:USER:PASSWORD@HOST:PORT, with ?transport=tcp after it if need be"
)]
pub struct IceServerError(String);

impl FromStr for IceServer {
    type Err = IceServerError;

    fn from_str(text: &str) -> Result<Self, IceServerError> {
        let bad = || {
            // The password of one that is nearly right is not repeated.
            let shown = text.rsplit_once('@').map_or(text, |(_, host)| host);
            IceServerError(shown.to_owned())
        };
        let (scheme, rest) = text.split_once(':').ok_or_else(bad)?;
        let (login, host) = match rest.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, rest),
        };
        if host.is_empty() || host.contains(['/', ' ']) {
            return Err(bad());
        }
        let (username, credential) = match (scheme, login) {
            ("stun" | "stuns", None) => (None, None),
            ("turn" | "turns", Some(login)) => {
                let (user, password) = login.split_once(':').ok_or_else(bad)?;
                (Some(user.to_owned()), Some(password.to_owned()))
            }
            _ => return Err(bad()),
        };
        Ok(Self {
            urls: vec![format!("{scheme}:{host}")],
            username,
            credential,
        })
    }
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IceServer").field(&self.urls).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_browsers_want_them() {
        let stun: IceServer = "stun:stun.example.org:3478".parse().unwrap();
        assert_eq!(
            serde_json::to_value(stun).unwrap(),
            serde_json::json!({"urls": ["stun:stun.example.org:3478"]})
        );
        let turn: IceServer = "turn:ann:p@ss:word@turn.example.org:3478?transport=tcp"
            .parse()
            .unwrap();
        assert_eq!(
            serde_json::to_value(&turn).unwrap(),
            serde_json::json!({
                "urls": ["turn:turn.example.org:3478?transport=tcp"],
                "username": "ann", "credential": "p@ss:word",
            })
        );
        assert!(!format!("{turn:?}").contains("word"));
    }

    #[test]
    fn what_cannot_be_read_is_told_without_its_password() {
        for bad in [
            "",
            "stun:",
            "example.org",
            "turn:example.org",
            "http://example.org",
            "stun:a:b@example.org",
            "turn:secret@example.org:3478",
        ] {
            let error = bad.parse::<IceServer>().unwrap_err().to_string();
            assert!(error.contains("turn:USER:PASSWORD@HOST:PORT"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
