//! `POST /v1/livekit/token`: lets a page into a room with us. It asks and answers as LiveKit's clients expect of a
//! token endpoint.
//!
//! Rooms are named here, never by who asks, so that nobody is let into somebody else's conversation.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Orchestrator;
use crate::http::ApiError;

/// Longest name shown to others.
const NAME_LIMIT: usize = 64;
/// Largest request, bytes.
const BODY_LIMIT: usize = 4 * 1024;

/// The route of tokens.
pub(crate) fn routes() -> Router<Arc<Orchestrator>> {
    let token = post(token).layer(DefaultBodyLimit::max(BODY_LIMIT));
    Router::new().route("/v1/livekit/token", token)
}

#[derive(Default, Deserialize)]
struct Wanted {
    room_name: Option<String>,
    participant_name: Option<String>,
}

async fn token(
    State(orchestrator): State<Arc<Orchestrator>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let Some(livekit) = orchestrator.livekit() else {
        return Err(ApiError::not_found(
            "livekit_off",
            "this server is in no LiveKit room; start it with --livekit wss://host, LIVEKIT_API_KEY and LIVEKIT_API_SECRET",
        ));
    };
    let body = body.map_err(|error| ApiError::rejected(error.status(), error.body_text()))?;
    let wanted: Wanted = if body.is_empty() {
        Wanted::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            ApiError::invalid(None, format!("the request cannot be read: {error}"))
        })?
    };
    let name = wanted.participant_name.unwrap_or_else(|| "User".into());
    if name.chars().count() > NAME_LIMIT {
        let message = format!("a name has at most {NAME_LIMIT} characters");
        return Err(ApiError::invalid("participant_name", message));
    }
    let room = match &livekit.room {
        Some(room) => room.clone(),
        None => format!("duologue-{:016x}", rand::random::<u64>()),
    };
    if wanted
        .room_name
        .is_some_and(|asked| !asked.is_empty() && asked != room)
    {
        return Err(ApiError::invalid(
            "room_name",
            "rooms are named by this server; leave room_name out",
        ));
    }
    let identity = livekit
        .participant
        .clone()
        .unwrap_or_else(|| format!("user-{:016x}", rand::random::<u64>()));
    let token = livekit
        .credentials
        .user_token(&room, &identity, &name, &livekit.agent_name)
        .map_err(|error| ApiError::server(error.to_string()))?;
    let body = json!({
        "server_url": livekit.public_server.as_ref().unwrap_or(&livekit.server),
        "room_name": room,
        "participant_identity": identity,
        "participant_name": name,
        "participant_token": token,
    });
    Ok((StatusCode::CREATED, Json(body)))
}
