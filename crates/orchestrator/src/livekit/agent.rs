//! One conversation in a room: it waits for somebody, holds a session with them, and leaves.

use std::sync::Arc;

use duologue_livekit::{Room, RoomEnd, RoomEvent, RoomHandler};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::conventions::{CHAT, Conventions, EVENTS};
use super::outbound::{OUTBOUND, RoomOutbound};
use super::succession::{HeldRoom, Succession};
use crate::Orchestrator;
use crate::driver::Driver;
use crate::journal::ConversationKey;
use crate::orchestrator::Which;
use crate::realtime::{ClientEvent, Dialect, NewItem, ReplyRequest, parse};
use crate::transport::Inbound;

/// Events and frames that may wait for the session. Sound is dropped before events are; a participant that fills
/// it with events is left.
const INBOUND: usize = 256;
/// Of those, places kept for events.
const FOR_EVENTS: usize = 64;

/// What a conversation in a room needs.
pub(super) struct Conversation {
    pub orchestrator: Arc<Orchestrator>,
    /// The LiveKit server, as part of the conversation's name.
    pub server: String,
    /// Room for a session, where it was reserved; else it is waited for.
    pub slot: Option<OwnedSemaphorePermit>,
    /// Settings, as in a `session.update`.
    pub settings: Option<Value>,
    /// Where others find it if we die.
    pub succession: Option<Arc<Succession>>,
    /// Another's that we go on with.
    pub taken: Option<HeldRoom>,
    /// Ends the wait for somebody.
    pub stop_waiting: CancellationToken,
    /// Ends the conversation.
    pub stop: CancellationToken,
}

impl Conversation {
    /// Waits for somebody, talks, leaves. The error is for people.
    pub async fn hold(self, room: Room) -> Result<RoomEnd, String> {
        let (to_room, commands) = mpsc::channel(OUTBOUND);
        let (to_session, from_room) = mpsc::channel(INBOUND);
        let (joined, somebody) = oneshot::channel();
        let session = to_session.downgrade();
        let handler = Handler {
            to_session,
            joined: Some(joined),
            dropped: 0,
        };
        let (name, sid) = room.id();
        let (name, sid) = (name.to_owned(), sid.to_owned());
        let agent = room.identity().to_owned();
        let room = tokio::spawn(room.run(handler, commands));
        let shutdown = self.orchestrator.shutdown().clone();
        let there = tokio::select! {
            there = somebody => there.ok(),
            () = self.stop_waiting.cancelled() => None,
            () = self.stop.cancelled() => None,
            () = shutdown.cancelled() => None,
        };
        let mut failure = None;
        let mut holding = None;
        let mut seat = None;
        if let (None, Some(taken), Some(succession)) = (&there, &self.taken, &self.succession) {
            succession.leave(taken).await;
        }
        if let Some(identity) = there {
            tracing::info!(identity, "somebody is in the LiveKit room");
            let which = Which::Room(ConversationKey::of_room(
                &self.server,
                &name,
                &sid,
                &identity,
            ));
            let admission = match self.slot {
                Some(slot) => self.orchestrator.admit_reserved(slot, None, which).await,
                None => self.orchestrator.admit_when_free(which).await,
            };
            match admission {
                Ok(admission) => {
                    holding = self.succession.as_ref().map(|succession| {
                        succession.hold(&HeldRoom {
                            room: name,
                            sid,
                            agent,
                            participant: identity,
                        })
                    });
                    let outbound = RoomOutbound {
                        to_room: to_room.clone(),
                        conventions: Conventions::default(),
                    };
                    let mut driver =
                        Driver::new(&self.orchestrator, admission, Dialect::Ga, outbound);
                    if let Some(Err(error)) = self
                        .settings
                        .as_ref()
                        .map(|settings| driver.preset(settings))
                    {
                        tracing::warn!(
                            error = error.message,
                            "the job's session settings are left out"
                        );
                    }
                    let ending = async {
                        self.stop.cancelled().await;
                        if let Some(session) = session.upgrade() {
                            let _ = session.send(Inbound::Gone).await;
                        }
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        ended = driver.run(from_room) => seat = Some(ended),
                        () = ending => {}
                    }
                }
                Err(error) => failure = Some(error.message),
            }
        }
        // The room leaves once nobody can tell it anything any more.
        drop(to_room);
        let (end, heard) = room
            .await
            .map_err(|error| format!("the room was lost: {error}"))?;
        tracing::info!(?end, ?heard, "out of the LiveKit room");
        if let Some(holding) = holding {
            let over = !shutdown.is_cancelled() && !matches!(end, RoomEnd::Lost(_));
            holding.end(over).await;
        }
        drop(seat);
        match failure {
            Some(failure) => Err(failure),
            None => Ok(end),
        }
    }
}

/// Leaves a room in which there is nothing to do.
pub(super) async fn leave(room: Room) {
    let (_, commands) = mpsc::channel(1);
    let _ = room.run(Deaf, commands).await;
}

struct Deaf;

impl RoomHandler for Deaf {
    fn handle(&mut self, _: RoomEvent) -> bool {
        true
    }
}

/// Tells the session what the room has. When the room ends, it is dropped, which the session takes for a client
/// that has gone.
struct Handler {
    to_session: mpsc::Sender<Inbound>,
    joined: Option<oneshot::Sender<String>>,
    dropped: u64,
}

impl Handler {
    /// `false`: the session does not take it.
    fn tell(&mut self, inbound: Inbound) -> bool {
        !matches!(
            self.to_session.try_send(inbound),
            Err(mpsc::error::TrySendError::Full(_))
        )
    }

    fn tell_all<const N: usize>(&mut self, events: [ClientEvent; N]) -> bool {
        events
            .into_iter()
            .all(|event| self.tell(Inbound::Event(event, None)))
    }
}

impl RoomHandler for Handler {
    fn handle(&mut self, event: RoomEvent) -> bool {
        match event {
            RoomEvent::Joined { identity } => {
                if let Some(joined) = self.joined.take() {
                    let _ = joined.send(identity);
                }
                true
            }
            RoomEvent::Connected => self.tell(Inbound::Back),
            RoomEvent::Disconnected => self.tell(Inbound::Lost),
            RoomEvent::Left => self.tell(Inbound::Gone),
            RoomEvent::Sound(frame) => {
                // Nobody listens yet, or not fast enough.
                if self.joined.is_none() && self.to_session.capacity() > FOR_EVENTS {
                    self.tell(Inbound::Sound(frame.to_f32().to_vec()));
                } else {
                    if self.dropped == 0 {
                        tracing::warn!(
                            "the session does not keep up with the room's sound; some is dropped"
                        );
                    }
                    self.dropped += 1;
                }
                true
            }
            RoomEvent::Message(received) => match received.topic.as_str() {
                EVENTS => self.tell(match parse(&received.text) {
                    Ok((event, id)) => Inbound::Event(event, id),
                    Err(error) => Inbound::Malformed(error),
                }),
                CHAT => {
                    let item = NewItem::Message {
                        id: None,
                        role: "user".into(),
                        text: received.text,
                    };
                    self.tell_all([
                        ClientEvent::ClearOutput,
                        ClientEvent::CreateItem {
                            previous: None,
                            item,
                        },
                        ClientEvent::CreateReply(ReplyRequest::default()),
                    ])
                }
                _ => true,
            },
            RoomEvent::Muted(true) => self.tell_all([ClientEvent::Pause]),
            RoomEvent::Muted(false) => self.tell_all([ClientEvent::Resume]),
            RoomEvent::OutputDelay(delay) => self.tell(Inbound::OutputDelay(delay)),
        }
    }
}
