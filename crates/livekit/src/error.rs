//! Why a LiveKit server was not reached or does not let us in.

use std::time::Duration;

use duologue_rtc::NoCertificate;

/// Clocks that differ by more are told of where a token was refused.
const SKEW: Duration = Duration::from_secs(10);

/// Why there is no connection to a LiveKit server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Not a LiveKit server's address.
    #[error("{0:?} is no LiveKit server's address; write it as wss://host or ws://host:7880")]
    Address(String),
    /// Nobody answers there.
    #[error(
        "cannot reach the LiveKit server at {address}: {reason}; is it running, and is the address right?"
    )]
    Unreachable {
        /// Without its query.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The server does not know the API key.
    #[error(
        "the LiveKit server does not know the API key {0:?}; set LIVEKIT_API_KEY to one of its keys"
    )]
    UnknownKey(String),
    /// The key is known, the secret is another.
    #[error(
        "the LiveKit server does not take our signature: LIVEKIT_API_SECRET is not the secret of LIVEKIT_API_KEY"
    )]
    WrongSecret,
    /// The clocks differ, so that a token is not valid yet, or no longer.
    #[error("the LiveKit server's clock is {} s {} ours, so it refuses our token; set both clocks by NTP", skew_s.unsigned_abs(), if *skew_s < 0 { "behind" } else { "ahead of" })]
    ClockSkew {
        /// Server's clock less ours, seconds.
        skew_s: i64,
    },
    /// The token has expired.
    #[error("the LiveKit token has expired")]
    Expired,
    /// The token does not allow it.
    #[error("the LiveKit server refuses: {0}; the token lacks a permission")]
    Forbidden(String),
    /// The room has as many participants as it may have, or closes.
    #[error("the LiveKit room {0:?} did not let us in: it is full (max_participants) or closing")]
    RoomFull(String),
    /// The room does not exist and the server does not make it by itself.
    #[error(
        "the LiveKit server has no room {0:?} and does not make rooms by themselves (room.auto_create)"
    )]
    NoSuchRoom(String),
    /// The server has no such service: it is too old, or something else listens there.
    #[error("what answers at {0} is no LiveKit server, or too old a one")]
    NotLiveKit(String),
    /// It answered something else.
    #[error("the LiveKit server answered {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// It let us in and closed the connection again.
    #[error("the LiveKit server closed the connection: {0}")]
    Closed(String),
    /// No token could be made.
    #[error("{0}")]
    Token(String),
    /// This machine lacks something: a network address, a codec.
    #[error("cannot open a connection for media: {0}")]
    Media(String),
}

impl ConnectError {
    /// What an HTTP answer in place of a WebSocket means. `skew`: server's clock less ours, where it told.
    pub(crate) fn from_answer(
        address: &str,
        room: Option<&str>,
        status: u16,
        body: &str,
        skew: Option<i64>,
    ) -> Self {
        let room = room.unwrap_or_default();
        let says = |words: &[&str]| words.iter().any(|word| body.contains(word));
        if status == 401 || status == 403 {
            if let Some((_, key)) = body.split_once("invalid API key: ") {
                return Self::UnknownKey(key.trim().to_owned());
            }
            let dated = says(&["not valid yet", "expired", "nbf", "exp)"]);
            if dated && let Some(skew_s) = skew.filter(|skew| skew.unsigned_abs() >= SKEW.as_secs())
            {
                return Self::ClockSkew { skew_s };
            }
            if says(&["expired", "exp)"]) {
                return Self::Expired;
            }
            if dated {
                return Self::ClockSkew {
                    skew_s: skew.unwrap_or(0),
                };
            }
            // The server repeats the token; nobody else should.
            if says(&["invalid token", "invalid authorization token"]) {
                return Self::WrongSecret;
            }
            return Self::Forbidden(without_token(body));
        }
        match status {
            404 if says(&["room"]) => Self::NoSuchRoom(room.to_owned()),
            404 | 405 | 426 => Self::NotLiveKit(address.to_owned()),
            _ if says(&["max participants", "exceeded its max"]) => Self::RoomFull(room.to_owned()),
            _ => Self::Refused {
                status,
                message: without_token(body),
            },
        }
    }

    /// Whether trying again with the same keys can help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Closed(_) | Self::RoomFull(_) | Self::Media(_) => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }
}

/// The first 200 characters, without words that could be a token.
fn without_token(body: &str) -> String {
    let kept: Vec<&str> = body
        .split_whitespace()
        .filter(|word| !word.starts_with("eyJ"))
        .collect();
    kept.join(" ").chars().take(200).collect()
}

impl From<NoCertificate> for ConnectError {
    fn from(error: NoCertificate) -> Self {
        Self::Media(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str, skew: Option<i64>) -> ConnectError {
        ConnectError::from_answer("ws://here", Some("hall"), status, body, skew)
    }

    #[test]
    fn what_the_server_says_of_keys_and_clocks_is_told_apart() {
        assert_eq!(
            answer(401, "invalid API key: nobody", None),
            ConnectError::UnknownKey("nobody".into())
        );
        let signature = "invalid token: eyJhbGciOi.eyJ2.x, error: go-jose/go-jose: error in cryptographic primitive";
        assert_eq!(answer(401, signature, Some(0)), ConnectError::WrongSecret);
        let early = "invalid token: eyJh.b.c, error: go-jose/go-jose/jwt: validation failed, token not valid yet (nbf)";
        assert_eq!(
            answer(401, early, Some(-600)),
            ConnectError::ClockSkew { skew_s: -600 }
        );
        let late = "invalid token: eyJh.b.c, error: go-jose/go-jose/jwt: validation failed, token is expired (exp)";
        assert_eq!(
            answer(401, late, Some(90_000)),
            ConnectError::ClockSkew { skew_s: 90_000 }
        );
        assert_eq!(answer(401, late, Some(1)), ConnectError::Expired);
        assert_eq!(
            answer(401, "permissions denied", None),
            ConnectError::Forbidden("permissions denied".into())
        );
    }

    #[test]
    fn a_full_room_and_another_server_are_named() {
        let full = answer(500, "room has exceeded its max participants", None);
        assert_eq!(full, ConnectError::RoomFull("hall".into()));
        assert!(full.to_string().contains("hall"));
        assert_eq!(
            answer(404, "404 page not found", None),
            ConnectError::NotLiveKit("ws://here".into())
        );
        assert_eq!(
            answer(404, "requested room does not exist", None),
            ConnectError::NoSuchRoom("hall".into())
        );
    }

    #[test]
    fn a_token_is_never_repeated() {
        let error = answer(400, "cannot read eyJhbGciOiJIUzI1NiJ9.eyJ.sig, sorry", None);
        assert!(!error.to_string().contains("eyJ"), "{error}");
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert!(answer(503, "", None).is_passing());
        assert!(!ConnectError::WrongSecret.is_passing());
        assert!(!answer(400, "", None).is_passing());
    }
}
