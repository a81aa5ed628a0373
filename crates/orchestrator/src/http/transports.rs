//! `GET /v1/realtime/transports`: the ways to talk with this server, the best first. The page tries them in this order.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::Orchestrator;

pub(super) async fn list(State(orchestrator): State<Arc<Orchestrator>>) -> Json<Value> {
    let mut transports = Vec::new();
    // A room that was named is for those who were asked to it; other rooms are made for who comes.
    if orchestrator
        .livekit()
        .is_some_and(|livekit| livekit.room.is_none())
    {
        transports.push("livekit");
    }
    if orchestrator.webrtc().is_some() {
        transports.push("webrtc");
    }
    transports.push("websocket");
    Json(json!({ "transports": transports }))
}
