//! Sessions in LiveKit rooms: the server joins one room, or is a worker that rooms are dispatched to.
//!
//! What knows LiveKit is in `duologue-livekit`; here a room and a session are joined, in LiveKit's conventions
//! ([`conventions`]), and the page is given tokens.

mod agent;
mod conventions;
mod endpoint;
mod outbound;
mod succession;

use std::sync::Arc;
use std::time::Duration;

use duologue_livekit::{
    Access, AgentWorker, ConnectError, Credentials, Job, JobEnd, JobRunner, Room, RoomConfig,
    RoomEnd, WorkerConfig,
};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::Orchestrator;
use agent::{Conversation, leave};
use succession::{HeldRoom, LOOK_EVERY, Succession};

pub(crate) use endpoint::routes;

/// For how long to try to come back into a room.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pauses before a room is joined again: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Whoever is not in a room that was taken over has so long to come back.
const ABSENCE: Duration = Duration::from_secs(10);

/// A LiveKit server, and what we are to it.
#[derive(Clone, Debug)]
pub struct LiveKitConfig {
    /// `wss://host`.
    pub server: String,
    /// The same for clients, where they reach it by another address.
    pub public_server: Option<String>,
    /// The project's keys.
    pub credentials: Credentials,
    /// Join this room, rather than be dispatched to rooms.
    pub room: Option<String>,
    /// Identity of whom to hear; `None`: the first person who is there.
    pub participant: Option<String>,
    /// Name to dispatch by; empty takes every new room.
    pub agent_name: String,
}

/// Talks in LiveKit rooms until `drain` is cancelled and the last conversation has ended.
///
/// # Errors
/// [`ConnectError`] that trying again does not mend, such as a wrong key.
pub async fn serve_livekit(
    orchestrator: Arc<Orchestrator>,
    config: LiveKitConfig,
    drain: CancellationToken,
) -> Result<(), ConnectError> {
    match &config.room {
        Some(room) => stay_in_room(&orchestrator, &config, room, drain).await,
        None => {
            let worker = WorkerConfig {
                server: config.server.clone(),
                credentials: config.credentials.clone(),
                agent_name: config.agent_name.clone(),
            };
            let runner = Arc::new(Runner {
                succession: Succession::new(&orchestrator, &config),
                orchestrator,
                config,
            });
            let dispatched = AgentWorker::new(worker, Arc::clone(&runner)).run(drain.clone());
            let ((), ()) = tokio::try_join!(dispatched, async {
                runner.take_over(drain).await;
                Ok(())
            })?;
            Ok(())
        }
    }
}

/// Joins one room again and again: a conversation at a time.
async fn stay_in_room(
    orchestrator: &Arc<Orchestrator>,
    config: &LiveKitConfig,
    room: &str,
    drain: CancellationToken,
) -> Result<(), ConnectError> {
    let mut pause = PAUSES.0;
    while !drain.is_cancelled() {
        let joined = Room::join(RoomConfig {
            server: config.server.clone(),
            room: room.to_owned(),
            identity: format!("agent-{:012x}", rand::random::<u64>() >> 16),
            access: Access {
                credentials: config.credentials.clone(),
                token: None,
            },
            participant: config.participant.clone(),
            patience: PATIENCE,
        })
        .await;
        match joined {
            Ok(joined) => {
                tracing::info!(room, server = config.server, "in a LiveKit room");
                pause = PAUSES.0;
                let conversation = Conversation {
                    orchestrator: Arc::clone(orchestrator),
                    server: config.server.clone(),
                    slot: None,
                    settings: None,
                    succession: None,
                    taken: None,
                    // Nobody is there yet: nothing to finish.
                    stop_waiting: drain.clone(),
                    stop: CancellationToken::new(),
                };
                let end = conversation.hold(joined).await;
                tracing::info!(room, ?end, "out of a LiveKit room");
            }
            Err(error) if error.is_passing() => {
                tracing::error!(%error, again_in_ms = pause.as_millis(), "a LiveKit room was not joined");
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = drain.cancelled() => {}
        }
        pause = (pause * 2).min(PAUSES.1);
    }
    Ok(())
}

struct Runner {
    orchestrator: Arc<Orchestrator>,
    config: LiveKitConfig,
    succession: Option<Arc<Succession>>,
}

impl Runner {
    /// Goes on with conversations whose server died, until `drain` is cancelled and the last of them has ended.
    async fn take_over(self: Arc<Self>, drain: CancellationToken) {
        let Some(succession) = &self.succession else {
            return;
        };
        let mut conversations = JoinSet::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = drain.cancelled() => break,
                _ = look.tick() => {}
                Some(_) = conversations.join_next() => continue,
            }
            if self.orchestrator.free_slots() == 0 || self.orchestrator.pressed().is_some() {
                continue;
            }
            let Some(room) = succession.next().await else {
                continue;
            };
            match self.orchestrator.reserve() {
                Ok(slot) => {
                    conversations.spawn(Arc::clone(&self).go_on(Arc::clone(succession), room, slot))
                }
                Err(_) => {
                    succession.give_up(&room).await;
                    continue;
                }
            };
        }
        while conversations.join_next().await.is_some() {}
    }

    async fn go_on(
        self: Arc<Self>,
        succession: Arc<Succession>,
        taken: HeldRoom,
        slot: OwnedSemaphorePermit,
    ) {
        let room = taken.room.clone();
        tracing::info!(room, "the server of a LiveKit room is gone; going on there");
        let joined = Room::join(RoomConfig {
            server: self.config.server.clone(),
            room: room.clone(),
            identity: taken.agent.clone(),
            access: Access {
                credentials: self.config.credentials.clone(),
                token: None,
            },
            participant: Some(taken.participant.clone()),
            patience: PATIENCE,
        })
        .await;
        let joined = match joined {
            Ok(joined) if joined.id().1 == taken.sid => joined,
            Ok(another) => {
                tracing::info!(room, "that LiveKit room is closed");
                succession.leave(&taken).await;
                return leave(another).await;
            }
            // Whoever is able to is to try when our time is over.
            Err(error) => return tracing::warn!(room, %error, "a LiveKit room was not joined"),
        };
        let stop_waiting = CancellationToken::new();
        let conversation = Conversation {
            orchestrator: Arc::clone(&self.orchestrator),
            server: self.config.server.clone(),
            slot: Some(slot),
            settings: None,
            succession: Some(succession),
            taken: Some(taken),
            stop_waiting: stop_waiting.clone(),
            stop: CancellationToken::new(),
        };
        let impatience = async {
            tokio::time::sleep(ABSENCE).await;
            stop_waiting.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            end = conversation.hold(joined) => tracing::info!(room, ?end, "out of a LiveKit room"),
            () = impatience => {}
        }
    }
}

impl JobRunner for Runner {
    type Slot = OwnedSemaphorePermit;

    fn reserve(&self) -> Option<OwnedSemaphorePermit> {
        self.orchestrator.reserve().ok()
    }

    fn load(&self) -> f32 {
        let most = self.orchestrator.config().max_sessions.max(1);
        1.0 - self.orchestrator.free_slots() as f32 / most as f32
    }

    async fn run(&self, slot: OwnedSemaphorePermit, job: Job, stop: CancellationToken) -> JobEnd {
        let wishes = Wishes::read(&job.metadata);
        let joined = Room::join(RoomConfig {
            server: job.server.unwrap_or_else(|| self.config.server.clone()),
            room: job.room,
            identity: job.identity,
            access: Access {
                credentials: self.config.credentials.clone(),
                token: Some(job.token),
            },
            participant: wishes
                .participant
                .or_else(|| self.config.participant.clone()),
            patience: PATIENCE,
        })
        .await;
        let joined = match joined {
            Ok(joined) => joined,
            Err(error) => return JobEnd::Failed(error.to_string()),
        };
        let conversation = Conversation {
            orchestrator: Arc::clone(&self.orchestrator),
            server: self.config.server.clone(),
            slot: Some(slot),
            settings: wishes.session,
            succession: self.succession.clone(),
            taken: None,
            stop_waiting: stop.clone(),
            stop,
        };
        match conversation.hold(joined).await {
            Ok(RoomEnd::Closed | RoomEnd::Removed(_)) => JobEnd::Done,
            Ok(RoomEnd::Lost(reason)) => JobEnd::Failed(reason),
            Ok(RoomEnd::Overrun) => {
                JobEnd::Failed("the participant takes too little of what is sent".into())
            }
            Err(reason) => JobEnd::Failed(reason),
        }
    }
}

/// What whoever dispatched a job wants, as JSON in its metadata: `session`, as in a `session.update`, and
/// `participant`, whom to hear. Metadata of another kind is somebody else's.
#[derive(Debug, Default, PartialEq)]
struct Wishes {
    session: Option<Value>,
    participant: Option<String>,
}

impl Wishes {
    fn read(metadata: &str) -> Self {
        let Ok(Value::Object(mut metadata)) = serde_json::from_str(metadata) else {
            return Self::default();
        };
        Self {
            session: metadata.remove("session").filter(Value::is_object),
            participant: metadata
                .get("participant")
                .and_then(Value::as_str)
                .map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_metadata_may_hold_settings_and_whom_to_hear() {
        let wishes =
            Wishes::read(r#"{"session": {"instructions": "Be brief."}, "participant": "ada"}"#);
        assert_eq!(wishes.participant.as_deref(), Some("ada"));
        assert_eq!(
            wishes.session,
            Some(serde_json::json!({"instructions": "Be brief."}))
        );
        for other in ["", "hello", "[1]", r#"{"session": 5}"#] {
            assert_eq!(Wishes::read(other), Wishes::default(), "{other}");
        }
    }
}
