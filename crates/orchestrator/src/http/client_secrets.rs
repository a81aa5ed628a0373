//! `POST /v1/realtime/client_secrets`: a token for a browser or an app, which holds sessions with it for a while.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use duologue_access::{ClientSecret, SecretRefused};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::ApiError;
use super::access::{Caller, unix_time};
use crate::Orchestrator;
use crate::realtime::{Dialect, apply_update};

/// Largest request, bytes: more settings than fit are told as such.
pub(super) const BODY_LIMIT: usize = 256 * 1024;
/// Seconds that a client secret is good for: the least, the usual, the most.
const SECONDS: (u64, u64, u64) = (10, 600, 7_200);

#[derive(Default, Deserialize)]
pub(super) struct Request {
    #[serde(default)]
    expires_after: Option<ExpiresAfter>,
    #[serde(default)]
    session: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct ExpiresAfter {
    #[serde(default)]
    anchor: Option<String>,
    #[serde(default)]
    seconds: Option<u64>,
}

pub(super) async fn create(
    State(orchestrator): State<Arc<Orchestrator>>,
    Extension(caller): Extension<Caller>,
    request: Result<Json<Request>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let request = match request {
        Ok(Json(request)) => request,
        // All of it may be left out.
        Err(JsonRejection::MissingJsonContentType(_)) => Request::default(),
        Err(error) => return Err(ApiError::rejected(error.status(), error.body_text())),
    };
    let after = request.expires_after.as_ref();
    if let Some(anchor) = after.and_then(|after| after.anchor.as_deref())
        && anchor != "created_at"
    {
        let message = format!("{anchor:?} is no anchor: use \"created_at\"");
        return Err(ApiError::invalid("expires_after.anchor", message));
    }
    let (least, usual, most) = SECONDS;
    let seconds = after.and_then(|after| after.seconds).unwrap_or(usual);
    if !(least..=most).contains(&seconds) {
        let message = format!("{seconds} is out of range: {least} to {most} seconds");
        return Err(ApiError::invalid("expires_after.seconds", message));
    }
    let session = request.session.unwrap_or_default();
    let settings = orchestrator.session_settings(session.get("model").and_then(Value::as_str));
    let settings = apply_update(
        &settings,
        &Value::Object(session.clone()),
        &orchestrator.voice_names(),
    )
    .map_err(|error| ApiError::invalid("session", error.message))?;
    let expires_at = unix_time() + seconds;
    let id = rand::random();
    let secret = ClientSecret {
        key: None,
        expires_at,
        id,
        session,
    };
    let value = caller.issue(secret).map_err(|refused| match refused {
        SecretRefused::TooLong { .. } => ApiError::invalid("session", refused.to_string()),
        _ => ApiError::from(duologue_access::Refused::from(refused)),
    })?;
    let mut session = settings.to_json(&format!("sess_{id:016x}"), Dialect::Ga);
    session["expires_at"] = json!(0);
    Ok(Json(
        json!({"value": value, "expires_at": expires_at, "session": session}),
    ))
}
