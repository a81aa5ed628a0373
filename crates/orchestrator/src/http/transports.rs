//! `GET /v1/realtime/transports`: the ways to talk with this server, the best first. The page tries them in this order.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use serde_json::{Value, json};

use super::Caller;
use crate::Orchestrator;

pub(super) async fn list(
    State(orchestrator): State<Arc<Orchestrator>>,
    Extension(caller): Extension<Caller>,
) -> Json<Value> {
    let mut transports = Vec::new();
    // A room that was named is for those who were asked to it; other rooms are made for who comes. A client secret is
    // for none: its settings do not reach there.
    let rooms = orchestrator
        .livekit()
        .is_some_and(|livekit| livekit.room.is_none());
    if rooms && caller.session().is_none() {
        transports.push("livekit");
    }
    if orchestrator.webrtc().is_some() {
        transports.push("webrtc");
    }
    transports.push("websocket");
    Json(json!({ "transports": transports }))
}
