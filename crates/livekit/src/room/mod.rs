//! A participant in a room: one voice out, one voice in, messages both ways.
//!
//! One task owns it ([`Room::run`]). It tells a [`RoomHandler`], which must not wait, and takes [`RoomCommand`]s.
//! A connection that is lost is resumed, or made anew, while the handler keeps what it has.

mod link;
mod running;

use std::time::{Duration, Instant};

use duologue_audio::Frame;
use duologue_audio::opus::OpusError;
use duologue_rtc::{JitterStatistics, Setup, VoiceIn, VoiceOut};
use livekit_protocol::RoomMovedResponse;
use tokio::sync::mpsc;

use crate::audience::Audience;
use crate::credentials::Credentials;
use crate::error::ConnectError;
use crate::packets::{Inbox, Received};
use crate::recovery::Recovery;
use crate::text_stream::TextStream;

use link::Link;
pub(crate) use link::unix_ms;

/// How to get into a room.
#[derive(Clone, Debug)]
pub struct Access {
    /// Sign our own tokens, where the server gave none or it has run out.
    pub credentials: Credentials,
    /// Token that the server gave with a job.
    pub token: Option<String>,
}

/// Which room, and as whom.
#[derive(Clone, Debug)]
pub struct RoomConfig {
    /// `wss://host`.
    pub server: String,
    /// Name of the room.
    pub room: String,
    /// Our identity in it.
    pub identity: String,
    /// Keys.
    pub access: Access,
    /// Identity of whom to hear; `None`: the first person who is there.
    pub participant: Option<String>,
    /// For how long to try to come back after a loss.
    pub patience: Duration,
}

/// What a participant is told to do.
// Nearly all of them are frames.
#[expect(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum RoomCommand {
    /// Says a frame: at once, or 20 ms after the last.
    Say(Frame),
    /// Drops the frames that wait for their time.
    Flush,
    /// Sends a message to whom we hear, under a topic.
    Message {
        /// What it is for.
        topic: &'static str,
        /// Its text.
        text: String,
    },
    /// Begins a text stream to all.
    OpenText(TextStream),
    /// Adds to it.
    WriteText {
        /// The stream's.
        id: String,
        /// What is added.
        text: String,
    },
    /// Ends it.
    CloseText {
        /// The stream's.
        id: String,
        /// Added to its attributes.
        attributes: Vec<(String, String)>,
    },
    /// Sets some of our attributes.
    Attributes(Vec<(String, String)>),
    /// Sends what is queued and leaves.
    Close,
}

/// What happens in a room.
// Nearly all of them are frames.
#[expect(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum RoomEvent {
    /// Whom we hear is there, for the first time or again.
    Joined {
        /// Its identity.
        identity: String,
    },
    /// We hear each other, for the first time or again.
    Connected,
    /// Whom we hear has hung up.
    Left,
    /// We do not: the connection was lost, ours or the other's. May pass.
    Disconnected,
    /// 20 ms of the other's sound.
    Sound(Frame),
    /// A message or text stream of the other's.
    Message(Received),
    /// Our voice was muted by a moderator, or is heard again.
    Muted(bool),
    /// A new estimate of how long after it was sent a frame is heard.
    OutputDelay(Duration),
}

/// Where a room's events go. No call may wait.
pub trait RoomHandler: Send {
    /// Takes an event. `false`: no more can be taken, and we leave.
    fn handle(&mut self, event: RoomEvent) -> bool;
}

/// Why [`Room::run`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomEnd {
    /// It was told to.
    Closed,
    /// The server sent us away, such as with the end of the room.
    Removed(String),
    /// The connection was lost and did not come back; the last reason.
    Lost(String),
    /// The handler took no more, or nobody takes what we send.
    Overrun,
}

/// A participant, to be [`run`](Self::run).
pub struct Room {
    config: RoomConfig,
    token: String,
    started: Instant,
    link: Option<Link>,
    audience: Audience,
    inbox: Inbox,
    recovery: Recovery,
    voice_in: VoiceIn,
    voice_out: VoiceOut,
}

impl Room {
    /// Joins.
    ///
    /// # Errors
    /// [`ConnectError`]: which of the many reasons it is.
    pub async fn join(config: RoomConfig) -> Result<Self, ConnectError> {
        let setup = Setup::new()?;
        let token = match &config.access.token {
            Some(token) => token.clone(),
            None => fresh_token(&config)?,
        };
        let link = Link::join(&config, &token, &setup).await?;
        let started = Instant::now();
        let codec = |error: OpusError| ConnectError::Media(error.to_string());
        Ok(Self {
            audience: Audience::new(config.participant.clone()),
            recovery: Recovery::new(config.patience),
            config,
            token,
            started,
            link: Some(link),
            inbox: Inbox::default(),
            voice_in: VoiceIn::new(started).map_err(codec)?,
            voice_out: VoiceOut::new(started).map_err(codec)?,
        })
    }

    /// Its name, and the server's id of it, which is another one when a room of that name is opened anew; empty where
    /// the server did not say.
    #[must_use]
    pub fn id(&self) -> (&str, &str) {
        let joined = self.link.as_ref().and_then(|link| link.join.as_ref());
        let room = joined.and_then(|join| join.room.as_ref());
        (&self.config.room, room.map_or("", |room| &room.sid))
    }

    /// Our identity in it.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.config.identity
    }

    /// Takes part until it is told to leave, is sent away, or cannot come back.
    pub async fn run(
        self,
        mut handler: impl RoomHandler,
        mut commands: mpsc::Receiver<RoomCommand>,
    ) -> (RoomEnd, JitterStatistics) {
        running::run(self, &mut handler, &mut commands).await
    }
}

fn fresh_token(config: &RoomConfig) -> Result<String, ConnectError> {
    config
        .access
        .credentials
        .agent_token(&config.room, &config.identity)
        .map_err(|error| ConnectError::Token(error.to_string()))
}

/// We were moved: from now on we come back to the other room, with the token that lets us in there.
fn follow(config: &mut RoomConfig, token: &mut String, moved: &RoomMovedResponse) {
    if !moved.token.is_empty() {
        token.clone_from(&moved.token);
    }
    if let Some(room) = &moved.room {
        config.room.clone_from(&room.name);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Credentials;

    #[test]
    fn who_was_moved_comes_back_to_the_other_room() {
        let mut config = RoomConfig {
            server: "wss://livekit.example".into(),
            room: "first".into(),
            identity: "agent".into(),
            access: Access {
                credentials: Credentials::new("key", "a-secret-of-more-than-32-characters")
                    .unwrap(),
                token: None,
            },
            participant: None,
            patience: Duration::from_secs(60),
        };
        let mut token = "of the first".to_owned();
        let moved = RoomMovedResponse {
            room: Some(livekit_protocol::Room {
                name: "second".into(),
                ..livekit_protocol::Room::default()
            }),
            token: "of the second".into(),
            ..RoomMovedResponse::default()
        };
        follow(&mut config, &mut token, &moved);
        assert_eq!(
            (config.room.as_str(), token.as_str()),
            ("second", "of the second")
        );
        follow(&mut config, &mut token, &RoomMovedResponse::default());
        assert_eq!(
            (config.room.as_str(), token.as_str()),
            ("second", "of the second")
        );
    }
}
