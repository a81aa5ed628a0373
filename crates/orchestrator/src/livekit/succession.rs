//! Rooms whose server died: another goes on with them.
//!
//! LiveKit's server dispatches a room once, and not again when its agent is gone. So whoever talks in a room says so
//! in the journal, a few times a second, and a server that shares the journal takes over a room of which that was not
//! said for a while. It joins under the identity of the one before: should that one be alive after all, LiveKit sends
//! it away, and there are never two.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::LiveKitConfig;
use crate::Orchestrator;
use crate::journal::{Journal, hash};

/// A room may be taken over when nobody said for so long that it is looked after.
const LEASE: Duration = Duration::from_millis(1_200);
/// How often that is said.
const SAY_EVERY: Duration = Duration::from_millis(300);
/// How often it is looked for rooms that nobody looks after.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Who has taken a room over has so long to be in it.
const ARRIVAL: Duration = Duration::from_secs(15);

/// A conversation in a room, as whoever goes on with it needs to know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct HeldRoom {
    /// The room's name.
    pub room: String,
    /// Its own id, which is another one when a room of that name is opened anew.
    pub sid: String,
    /// The agent's identity.
    pub agent: String,
    /// Whom it talks with.
    pub participant: String,
}

/// The rooms of all servers that share a journal, a LiveKit server and a name to dispatch by.
pub(super) struct Succession {
    journal: Arc<dyn Journal>,
    group: String,
}

impl Succession {
    /// `None`: nothing is kept of conversations, so nobody could go on with one.
    pub fn new(orchestrator: &Orchestrator, config: &LiveKitConfig) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            journal: Arc::clone(orchestrator.journal()?),
            group: hash(&[&config.server, &config.agent_name]),
        }))
    }

    /// Looks after a room from now on.
    pub fn hold(self: &Arc<Self>, room: &HeldRoom) -> Holding {
        let (succession, written) = (Arc::clone(self), written(room));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let saying = tokio::spawn(async move {
            let mut say = tokio::time::interval(SAY_EVERY);
            say.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    _ = say.tick() => {}
                }
                succession.say(&written, LEASE).await;
            }
        });
        Holding {
            succession: Arc::clone(self),
            room: room.clone(),
            stop,
            saying,
        }
    }

    /// Somebody should take the room over, now.
    pub async fn give_up(&self, room: &HeldRoom) {
        self.say(&written(room), Duration::ZERO).await;
    }

    /// The conversation is over.
    pub async fn leave(&self, room: &HeldRoom) {
        let left = self.journal.leave_room(&self.group, &written(room)).await;
        let _ =
            left.inspect_err(|error| tracing::debug!(%error, "that a room was left is not known"));
    }

    /// A room that nobody looks after any more; whoever asked is now expected in it.
    pub async fn next(&self) -> Option<HeldRoom> {
        // That the journal is away is told where conversations are written.
        let taken = self.journal.take_room(&self.group, ARRIVAL).await.ok()??;
        match serde_json::from_str(&taken) {
            Ok(room) => Some(room),
            Err(error) => {
                tracing::warn!(%error, "a room in the journal is not understood");
                let _ = self.journal.leave_room(&self.group, &taken).await;
                None
            }
        }
    }

    async fn say(&self, written: &str, lease: Duration) {
        let said = self.journal.hold_room(&self.group, written, lease).await;
        let _ =
            said.inspect_err(|error| tracing::debug!(%error, "that a room is held is not known"));
    }
}

fn written(room: &HeldRoom) -> String {
    serde_json::json!(room).to_string()
}

/// A room that is looked after.
pub(super) struct Holding {
    succession: Arc<Succession>,
    room: HeldRoom,
    stop: CancellationToken,
    saying: JoinHandle<()>,
}

impl Holding {
    /// Looks after it no more. `over`: nor should anybody else.
    pub async fn end(self, over: bool) {
        self.stop.cancel();
        let _ = self.saying.await;
        match over {
            true => self.succession.leave(&self.room).await,
            false => self.succession.give_up(&self.room).await,
        }
    }
}
