//! A call's two halves joined: the peer, which knows WebRTC, and the driver, which knows the conversation.

use std::sync::Arc;
use std::time::Duration;

use duologue_audio::Frame;
use duologue_rtc::{Peer, PeerCommand, PeerHandler};
use duologue_session::{EndReason, ReplyId};
use serde_json::Value;
use tokio::sync::mpsc;

use super::CallHandle;
use crate::Orchestrator;
use crate::driver::Driver;
use crate::realtime::parse;
use crate::traffic::Traffic;
use crate::transport::{Backlog, Inbound, Outbound};

/// Events and frames that may wait for the session. Sound is dropped before events are; a client that fills it
/// with events is cut off.
const INBOUND: usize = 256;
/// Of those, places kept for events.
const FOR_EVENTS: usize = 64;
/// What may wait for the peer, which takes it at once; then the session ends.
pub(super) const OUTBOUND: usize = 1_024;
/// How far ahead the driver may run: the peer paces frames to the millisecond, the driver need not.
const LEAD: Duration = Duration::from_millis(60);

/// Runs a call to its end, in tasks of its own.
pub(super) fn start(
    orchestrator: Arc<Orchestrator>,
    id: String,
    key: Option<Arc<str>>,
    peer: Peer,
    driver: Driver<PeerOutbound>,
    commands: mpsc::Receiver<PeerCommand>,
    handle: mpsc::WeakSender<PeerCommand>,
) {
    let (to_session, from_client) = mpsc::channel(INBOUND);
    let Some(webrtc) = orchestrator.webrtc() else {
        return;
    };
    webrtc.calls().insert(
        id.clone(),
        CallHandle {
            key,
            commands: handle,
            session: to_session.downgrade(),
        },
    );
    let handler = Handler {
        to_session,
        dropped: 0,
        traffic: driver.traffic(),
    };
    tokio::spawn(async move {
        let connection = tokio::spawn(peer.run(handler, commands));
        let seat = driver.run(from_client).await;
        // What was queued is still sent.
        let ended = connection.await;
        drop(seat);
        if let Some(webrtc) = orchestrator.webrtc() {
            webrtc.calls().remove(&id);
        }
        match ended {
            Ok((end, heard)) => tracing::info!(%id, ?end, ?heard, "call ends"),
            Err(error) => tracing::error!(%id, %error, "a call's connection was lost"),
        }
    });
}

/// Tells the driver what the peer has. When the peer ends, it is dropped, which the driver takes for a client that
/// has gone.
struct Handler {
    to_session: mpsc::Sender<Inbound>,
    dropped: u64,
    traffic: Arc<Traffic>,
}

impl Handler {
    fn tell(&mut self, inbound: Inbound) {
        if self.to_session.try_send(inbound).is_err() {
            tracing::debug!("the session does not take what its client's connection tells");
        }
    }
}

impl PeerHandler for Handler {
    fn connected(&mut self) {
        self.tell(Inbound::Back);
    }

    fn disconnected(&mut self) {
        self.tell(Inbound::Lost);
    }

    fn sound(&mut self, frame: Frame) {
        if self.to_session.capacity() > FOR_EVENTS {
            self.tell(Inbound::Sound(frame.to_f32().to_vec()));
        } else {
            if self.dropped == 0 {
                tracing::warn!(
                    "the session does not keep up with its client's sound; some is dropped"
                );
            }
            self.dropped += 1;
        }
    }

    fn message(&mut self, text: &str) -> bool {
        let inbound = match parse(text) {
            Ok((event, id)) => Inbound::Event(event, id),
            Err(error) => Inbound::Malformed(error),
        };
        !matches!(
            self.to_session.try_send(inbound),
            Err(mpsc::error::TrySendError::Full(_))
        )
    }

    fn output_delay(&mut self, delay: Duration) {
        self.tell(Inbound::OutputDelay(delay));
    }

    fn received(&mut self, bytes: usize) {
        self.traffic.receive(bytes);
    }

    fn sent(&mut self, bytes: usize) {
        self.traffic.send(bytes);
    }
}

/// The driver's way to the peer.
pub(super) struct PeerOutbound {
    pub to_peer: mpsc::Sender<PeerCommand>,
}

impl PeerOutbound {
    fn send(&self, command: PeerCommand) -> Result<(), Backlog> {
        match self.to_peer.try_send(command) {
            // A closed queue belongs to a peer that has ended, which the driver is told.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Backlog),
        }
    }
}

impl Outbound for PeerOutbound {
    fn transport(&self) -> &'static str {
        "webrtc"
    }

    fn event(&mut self, event: &Value) -> Result<(), Backlog> {
        self.send(PeerCommand::Message(event.to_string()))
    }

    fn sound(&mut self, _reply: ReplyId, frames: &[Frame]) -> Result<bool, Backlog> {
        for frame in frames {
            self.send(PeerCommand::Say(Box::new(*frame)))?;
        }
        Ok(true)
    }

    fn lead(&self) -> Option<Duration> {
        Some(LEAD)
    }

    fn flush(&mut self) {
        let _ = self.send(PeerCommand::Flush);
    }

    fn close(&mut self, _reason: EndReason) {
        let _ = self.send(PeerCommand::Close);
    }
}
