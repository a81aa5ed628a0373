//! A LiveKit project's key and secret, and the tokens made with them.

use std::fmt;
use std::time::Duration;

use livekit_protocol::{RoomAgentDispatch, RoomConfiguration};
use livekit_token::{AccessToken, AccessTokenError, VideoGrants};

/// How long a user's token may be used to join; who is in a room stays.
const USER_TOKEN: Duration = Duration::from_secs(15 * 60);
/// An agent's token, which also lets it come back.
const AGENT_TOKEN: Duration = Duration::from_secs(6 * 3_600);

/// A LiveKit project's API key and secret. The secret is not shown in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    key: String,
    secret: String,
}

/// Why no token can be made.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// One of the two is missing.
    #[error(
        "the LiveKit API {0} is empty; LIVEKIT_API_KEY and LIVEKIT_API_SECRET must be those of the LiveKit server"
    )]
    Empty(&'static str),
    /// The token library refused.
    #[error("no LiveKit token could be made: {0}")]
    Token(#[from] AccessTokenError),
}

impl Credentials {
    /// A key and its secret.
    ///
    /// # Errors
    /// [`CredentialsError::Empty`].
    pub fn new(key: &str, secret: &str) -> Result<Self, CredentialsError> {
        if key.is_empty() {
            return Err(CredentialsError::Empty("key"));
        }
        if secret.is_empty() {
            return Err(CredentialsError::Empty("secret"));
        }
        Ok(Self {
            key: key.into(),
            secret: secret.into(),
        })
    }

    /// A token for a user of this server's page: joins one room, speaks, listens, sends data. Good for 15 minutes.
    /// The room asks for an agent by name, unless that is empty: then it gets one that takes every room.
    ///
    /// # Errors
    /// [`CredentialsError::Token`].
    pub fn user_token(
        &self,
        room: &str,
        identity: &str,
        name: &str,
        agent: &str,
    ) -> Result<String, CredentialsError> {
        let grants = VideoGrants {
            room_join: true,
            room: room.into(),
            can_publish: Some(true),
            can_publish_sources: vec!["microphone".into()],
            can_subscribe: Some(true),
            can_publish_data: Some(true),
            ..VideoGrants::default()
        };
        let mut token = AccessToken::with_api_key(&self.key, &self.secret)
            .with_identity(identity)
            .with_name(name)
            .with_grants(grants)
            .with_ttl(USER_TOKEN);
        if !agent.is_empty() {
            token = token.with_room_config(RoomConfiguration {
                agents: vec![RoomAgentDispatch {
                    agent_name: agent.to_owned(),
                    ..RoomAgentDispatch::default()
                }],
                ..RoomConfiguration::default()
            });
        }
        Ok(token.to_jwt()?)
    }

    /// A token for an agent in one room.
    ///
    /// # Errors
    /// [`CredentialsError::Token`].
    pub fn agent_token(&self, room: &str, identity: &str) -> Result<String, CredentialsError> {
        let grants = VideoGrants {
            room_join: true,
            room: room.into(),
            can_publish: Some(true),
            can_subscribe: Some(true),
            can_publish_data: Some(true),
            can_update_own_metadata: Some(true),
            agent: true,
            ..VideoGrants::default()
        };
        let token = AccessToken::with_api_key(&self.key, &self.secret)
            .with_identity(identity)
            .with_kind("agent")
            .with_grants(grants)
            .with_ttl(AGENT_TOKEN);
        Ok(token.to_jwt()?)
    }

    /// A token for a worker that rooms are dispatched to.
    ///
    /// # Errors
    /// [`CredentialsError::Token`].
    pub fn worker_token(&self) -> Result<String, CredentialsError> {
        let grants = VideoGrants {
            agent: true,
            ..VideoGrants::default()
        };
        let token = AccessToken::with_api_key(&self.key, &self.secret).with_grants(grants);
        Ok(token.to_jwt()?)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use livekit_token::Claims;

    #[test]
    fn a_user_may_speak_in_one_room_and_not_pass_for_an_agent() {
        let credentials = Credentials::new("key", "secret-of-more-than-32-characters").unwrap();
        let token = credentials.user_token("hall", "ada", "Ada", "").unwrap();
        let claims = Claims::from_unverified(&token).unwrap();
        assert_eq!((claims.iss.as_str(), claims.sub.as_str()), ("key", "ada"));
        assert_eq!(claims.video.room, "hall");
        assert!(claims.video.room_join && !claims.video.agent && !claims.video.room_admin);
        assert_eq!(claims.kind, "");
        assert!(!claims.video.can_update_own_metadata());
        assert_eq!(claims.exp - claims.nbf, 900);
    }

    #[test]
    fn a_users_room_asks_for_the_agent_that_was_named() {
        let credentials = Credentials::new("key", "secret-of-more-than-32-characters").unwrap();
        let token = credentials.user_token("hall", "ada", "Ada", "duo").unwrap();
        let config = Claims::from_unverified(&token)
            .unwrap()
            .room_config
            .unwrap();
        assert_eq!(config.agents[0].agent_name, "duo");
    }

    #[test]
    fn an_agent_is_of_that_kind_and_may_tell_its_state() {
        let credentials = Credentials::new("key", "secret-of-more-than-32-characters").unwrap();
        let token = credentials.agent_token("hall", "agent-1").unwrap();
        let claims = Claims::from_unverified(&token).unwrap();
        assert_eq!(claims.kind, "agent");
        assert!(claims.video.agent && claims.video.can_update_own_metadata());
    }

    #[test]
    fn the_secret_is_not_shown_and_may_not_be_empty() {
        let credentials = Credentials::new("key", "hush").unwrap();
        assert!(!format!("{credentials:?}").contains("hush"));
        assert!(Credentials::new("key", "").is_err());
        assert!(Credentials::new("", "hush").is_err());
    }
}
