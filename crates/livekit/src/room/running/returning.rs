//! The way back: what is tried when a connection is lost, one attempt at a time. When, and for how long, is for
//! [`Recovery`](crate::recovery::Recovery) to say.

use std::time::Instant;

use duologue_rtc::Setup;
use futures_util::future::BoxFuture;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_response::Message as Response;

use super::{MEDIA, Running};
use crate::error::ConnectError;
use crate::recovery::Attempt;
use crate::room::link::{Link, SignalWire, leaving, signal};
use crate::room::{RoomConfig, RoomEnd, RoomHandler, fresh_token};

/// A way back that is being tried.
pub(super) type Trying = BoxFuture<'static, Result<Back, ConnectError>>;

/// Where it led.
pub(super) enum Back {
    Resumed(SignalWire),
    Rejoined(Box<Link>, String),
    /// The server does not know us any more.
    Forgotten(String),
}

impl<H: RoomHandler> Running<'_, H> {
    /// The connection is lost in a way that only joining anew mends.
    pub(super) fn broken(&mut self, reason: &str) {
        self.room.link = None;
        self.lost(Some(Action::Reconnect), reason);
    }

    pub(super) fn lost(&mut self, told: Option<Action>, reason: &str) {
        if self.closing.is_some() {
            self.end.get_or_insert(RoomEnd::Closed);
            return;
        }
        let at = self.since_start(Instant::now());
        let anew = !self.room.recovery.is_under_way();
        self.last_reason = reason.to_owned();
        if !self.room.recovery.lost(at, told) {
            self.end.get_or_insert(RoomEnd::Removed(reason.to_owned()));
            return;
        }
        if anew {
            tracing::warn!(
                reason,
                room = self.room.config.room,
                "the connection to a LiveKit room is lost"
            );
        }
        self.media_by = None;
        self.schedule();
    }

    fn schedule(&mut self) {
        if self.trying.is_some() {
            return;
        }
        let at = self.since_start(Instant::now());
        match self.room.recovery.next(at) {
            Some((attempt, when)) => {
                let attempt = match self.room.link {
                    Some(_) => attempt,
                    None => Attempt::Rejoin,
                };
                self.next_try = Some((attempt, self.room.started + when));
            }
            None if self.room.recovery.is_under_way() => {
                self.end
                    .get_or_insert(RoomEnd::Lost(self.last_reason.clone()));
            }
            None => {}
        }
    }

    pub(super) fn try_back(&mut self, attempt: Attempt) {
        let config = self.room.config.clone();
        let token = self.room.token.clone();
        tracing::debug!(?attempt, "back into a LiveKit room");
        self.trying = Some(match (attempt, &self.room.link) {
            (Attempt::Resume, Some(link)) => {
                let sid = link.sid.clone();
                Box::pin(async move { resume(&config, &token, &sid).await })
            }
            _ => {
                self.room.link = None;
                Box::pin(async move { rejoin(&config, token).await })
            }
        });
    }

    pub(super) fn back(&mut self, back: Result<Back, ConnectError>) {
        match back {
            Ok(Back::Resumed(wire)) => {
                if let Some(link) = &mut self.room.link {
                    link.resumed(wire, self.room.audience.microphone());
                    tracing::info!(
                        room = self.room.config.room,
                        "the LiveKit session is resumed"
                    );
                    self.recovered();
                }
            }
            Ok(Back::Rejoined(link, token)) => {
                self.room.link = Some(*link);
                self.room.token = token;
                self.room.voice_in.restart();
                tracing::info!(
                    room = self.room.config.room,
                    "the LiveKit room is joined anew"
                );
                self.recovered();
                self.joined();
            }
            Ok(Back::Forgotten(reason)) => {
                self.last_reason = reason;
                self.room.recovery.failed(true);
                self.schedule();
            }
            Err(error) => {
                tracing::debug!(%error, "not back yet");
                self.last_reason = error.to_string();
                if !error.is_passing() && error != ConnectError::Expired {
                    self.end
                        .get_or_insert(RoomEnd::Lost(self.last_reason.clone()));
                    return;
                }
                self.room.recovery.failed(false);
                self.schedule();
            }
        }
    }

    fn recovered(&mut self) {
        self.room.recovery.recovered();
        self.media_by = Some(Instant::now() + MEDIA);
    }
}

async fn resume(config: &RoomConfig, token: &str, sid: &str) -> Result<Back, ConnectError> {
    match signal(config, token, Some(sid)).await {
        Ok((wire, Response::Reconnect(_))) => Ok(Back::Resumed(wire)),
        Ok((_, Response::Leave(leave))) => Ok(Back::Forgotten(leaving(&leave))),
        Ok(_) => Ok(Back::Forgotten("the server began a new session".into())),
        // A server that was started again has no such participant.
        Err(
            error @ (ConnectError::Refused { .. }
            | ConnectError::NoSuchRoom(_)
            | ConnectError::Expired),
        ) => Ok(Back::Forgotten(error.to_string())),
        Err(error) => Err(error),
    }
}

async fn rejoin(config: &RoomConfig, token: String) -> Result<Back, ConnectError> {
    let setup = Setup::new()?;
    match Link::join(config, &token, &setup).await {
        Ok(link) => Ok(Back::Rejoined(Box::new(link), token)),
        Err(ConnectError::Expired) => {
            let token = fresh_token(config)?;
            let link = Link::join(config, &token, &setup).await?;
            Ok(Back::Rejoined(Box::new(link), token))
        }
        Err(error) => Err(error),
    }
}
