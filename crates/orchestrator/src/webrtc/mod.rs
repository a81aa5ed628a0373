//! `POST /v1/realtime/calls`: a session over WebRTC, sound beside the events.
//!
//! The client posts an SDP offer and gets the answer; its voice and ours are Opus tracks, and the events of the
//! WebSocket come and go on its data channel. The parts that know WebRTC are in `duologue-rtc`.

mod call;
mod endpoint;
mod ice_server;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duologue_rtc::{PeerCommand, Port};
use tokio::sync::mpsc;

use crate::transport::Inbound;

pub(crate) use endpoint::{read as read_request, routes};
pub use ice_server::{IceServer, IceServerError};

/// The WebRTC side of a server: its port and its calls.
pub struct WebRtc {
    port: Port,
    ice_servers: Vec<IceServer>,
    calls: Mutex<HashMap<String, CallHandle>>,
}

/// What others may do to a call. It does not keep the call alive.
#[derive(Clone)]
struct CallHandle {
    /// Name of the key it was made with.
    key: Option<Arc<str>>,
    commands: mpsc::WeakSender<PeerCommand>,
    session: mpsc::WeakSender<Inbound>,
}

impl WebRtc {
    /// Takes calls at a port; tells clients of these STUN and TURN servers.
    #[must_use]
    pub fn new(port: Port, ice_servers: Vec<IceServer>) -> Self {
        Self {
            port,
            ice_servers,
            calls: Mutex::default(),
        }
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<String, CallHandle>> {
        // Nothing that can panic is done while it is held.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
