//! The orchestrator: it joins people, ears, minds and voices into sessions.
//!
//! Everything that decides is elsewhere and pure: the conversation in `duologue-session`, the pace of frames in
//! [`mouth`], the protocol in [`realtime`]. What is here moves sound and events between them.

mod driver;
pub mod fleet;
#[doc(hidden)]
pub mod fuzzing;
mod http;
pub mod inference;
pub mod journal;
mod livekit;
pub mod mouth;
mod orchestrator;
mod playback;
pub mod pressure;
mod processor;
pub mod realtime;
pub mod recording;
pub mod routing;
pub mod status;
mod traffic;
pub mod transport;
pub mod voice;
mod webrtc;
mod websocket;

pub use driver::{Detector, HearingConfig};
pub use http::{AccessControl, router};
pub use livekit::{LiveKitConfig, serve_livekit};
pub use orchestrator::{Engines, Orchestrator, OrchestratorConfig};
pub use webrtc::{IceServer, IceServerError, WebRtc};
