//! A session's way into a room.

use std::time::Duration;

use duologue_audio::Frame;
use duologue_livekit::RoomCommand;
use duologue_session::{EndReason, ReplyId};
use serde_json::Value;
use tokio::sync::mpsc;

use super::conventions::{Conventions, EVENTS};
use crate::transport::{Backlog, Outbound};

/// What may wait for the room, which takes it at once; then the session ends.
pub(super) const OUTBOUND: usize = 1_024;
/// How far ahead the driver may run: the room paces frames to the millisecond, the driver need not.
const LEAD: Duration = Duration::from_millis(60);

pub(super) struct RoomOutbound {
    pub to_room: mpsc::Sender<RoomCommand>,
    pub conventions: Conventions,
}

impl RoomOutbound {
    fn send(&self, command: RoomCommand) -> Result<(), Backlog> {
        match self.to_room.try_send(command) {
            // A closed queue belongs to a room that has ended, which the driver is told.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Backlog),
        }
    }
}

impl Outbound for RoomOutbound {
    fn transport(&self) -> &'static str {
        "livekit"
    }

    fn event(&mut self, event: &Value) -> Result<(), Backlog> {
        for command in self.conventions.tell(event) {
            self.send(command)?;
        }
        self.send(RoomCommand::Message {
            topic: EVENTS,
            text: event.to_string(),
        })
    }

    fn sound(&mut self, _reply: ReplyId, frames: &[Frame]) -> Result<bool, Backlog> {
        for frame in frames {
            self.send(RoomCommand::Say(*frame))?;
        }
        Ok(true)
    }

    fn lead(&self) -> Option<Duration> {
        Some(LEAD)
    }

    fn flush(&mut self) {
        let _ = self.send(RoomCommand::Flush);
    }

    fn close(&mut self, _reason: EndReason) {
        let _ = self.send(RoomCommand::Close);
    }
}
