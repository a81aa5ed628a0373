//! The HTTP side of calls: offers, hang-ups, and where STUN and TURN servers are.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::{
    DefaultBodyLimit, Extension, FromRequest, Multipart, Path, Query, Request, State,
};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use duologue_rtc::{OfferError, PeerCommand};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::call::{self, OUTBOUND, PeerOutbound};
use super::{CallHandle, WebRtc};
use crate::Orchestrator;
use crate::driver::Driver;
use crate::http::{ApiError, Caller};
use crate::orchestrator::Which;
use crate::realtime::Dialect;
use crate::transport::Inbound;

/// Largest request, bytes: an offer is some 5 kB, instructions may be long.
const BODY_LIMIT: usize = 1024 * 1024;

/// The routes of calls.
pub(crate) fn routes() -> Router<Arc<Orchestrator>> {
    Router::new()
        .route("/v1/realtime/calls", post(create))
        .route("/v1/realtime/calls/{id}", post(negotiate).delete(hang_up))
        .route("/v1/realtime/calls/{id}/hangup", post(hang_up))
        .route("/v1/realtime/ice_servers", get(ice_servers))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

#[derive(Deserialize)]
struct Parameters {
    model: Option<String>,
    /// Goes on with a conversation.
    duologue_resume: Option<String>,
}

async fn create(
    State(orchestrator): State<Arc<Orchestrator>>,
    Query(parameters): Query<Parameters>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let webrtc = enabled(&orchestrator)?;
    let (offer, session) = read(request).await?;
    // What a client secret says comes first, and what its holder says is set over it.
    let bound = caller.session();
    let model = [&session, &bound]
        .into_iter()
        .find_map(|session| session.as_ref()?.get("model")?.as_str())
        .or(parameters.model.as_deref());
    let which = Which::said(parameters.duologue_resume.as_deref())?;
    let place = caller.begin_session()?;
    let peer = webrtc.port.accept(&offer)?;
    let mut admission = orchestrator.admit(model, which).await?;
    admission.place = Some(place);
    let id = format!("rtc_{}", admission.seed);
    let (to_peer, commands) = mpsc::channel(OUTBOUND);
    let handle = to_peer.downgrade();
    let mut driver = Driver::new(
        &orchestrator,
        admission,
        Dialect::Ga,
        PeerOutbound { to_peer },
    );
    for session in [&bound, &session].into_iter().flatten() {
        driver
            .preset(session)
            .map_err(|error| ApiError::invalid("session", error.message))?;
    }
    let answer = peer.answer().to_owned();
    let location = format!("/v1/realtime/calls/{id}");
    call::start(
        Arc::clone(&orchestrator),
        id,
        caller.key().cloned(),
        peer,
        driver,
        commands,
        handle,
    );
    let headers = [
        (header::CONTENT_TYPE, "application/sdp".to_owned()),
        (header::LOCATION, location),
    ];
    Ok((StatusCode::CREATED, headers, answer).into_response())
}

/// Another offer for a call that is there, such as one of an ICE restart.
async fn negotiate(
    State(orchestrator): State<Arc<Orchestrator>>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let call = find(enabled(&orchestrator)?, &id, &caller)?;
    let (offer, _) = read(request).await?;
    let (reply, answer) = oneshot::channel();
    let commands = call.commands.upgrade().ok_or_else(|| unknown(&id))?;
    commands
        .send(PeerCommand::Negotiate(offer, reply))
        .await
        .map_err(|_| unknown(&id))?;
    drop(commands);
    let answer = answer.await.map_err(|_| unknown(&id))??;
    Ok(([(header::CONTENT_TYPE, "application/sdp")], answer).into_response())
}

async fn hang_up(
    State(orchestrator): State<Arc<Orchestrator>>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<StatusCode, ApiError> {
    let call = find(enabled(&orchestrator)?, &id, &caller)?;
    let session = call.session.upgrade().ok_or_else(|| unknown(&id))?;
    session
        .send(Inbound::Gone)
        .await
        .map_err(|_| unknown(&id))?;
    Ok(StatusCode::OK)
}

async fn ice_servers(
    State(orchestrator): State<Arc<Orchestrator>>,
) -> Result<Json<Value>, ApiError> {
    let webrtc = enabled(&orchestrator)?;
    Ok(Json(json!({"ice_servers": webrtc.ice_servers})))
}

fn enabled(orchestrator: &Orchestrator) -> Result<&WebRtc, ApiError> {
    orchestrator.webrtc().ok_or_else(|| {
        ApiError::not_found(
            "webrtc_off",
            "this server does not take WebRTC calls (--no-webrtc); connect a WebSocket to /v1/realtime",
        )
    })
}

/// A call of the same key. Those of others are not known to it.
fn find(webrtc: &WebRtc, id: &str, caller: &Caller) -> Result<CallHandle, ApiError> {
    let call = webrtc.calls().get(id).cloned();
    call.filter(|call| call.key.as_ref() == caller.key())
        .ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(
        "call_not_found",
        format!("there is no call {id:?}; it may have ended"),
    )
}

/// The offer, and the session's settings where the client sent them.
pub(crate) async fn read(request: Request) -> Result<(String, Option<Value>), ApiError> {
    let kind = content_type(request.headers());
    match kind.as_str() {
        "application/sdp" | "text/plain" | "" => {
            let body = Bytes::from_request(request, &())
                .await
                .map_err(|error| ApiError::rejected(error.status(), error.body_text()))?;
            Ok((text(&body, "sdp")?, None))
        }
        "multipart/form-data" => {
            let mut form = Multipart::from_request(request, &())
                .await
                .map_err(|error| ApiError::invalid(None, error.body_text()))?;
            let (mut offer, mut session) = (None, None);
            while let Some(field) = form.next_field().await.map_err(bad_form)? {
                match field.name() {
                    Some("sdp") => {
                        offer = Some(text(&field.bytes().await.map_err(bad_form)?, "sdp")?)
                    }
                    Some("session") => {
                        let bytes = field.bytes().await.map_err(bad_form)?;
                        session = Some(serde_json::from_slice(&bytes).map_err(|error| {
                            ApiError::invalid("session", format!("session is not JSON: {error}"))
                        })?);
                    }
                    _ => {}
                }
            }
            let offer = offer.ok_or_else(|| {
                ApiError::invalid("sdp", "the form has no field sdp with the offer in it")
            })?;
            Ok((offer, session))
        }
        other => Err(ApiError {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ..ApiError::invalid(
                None,
                format!(
                    "an offer is sent as application/sdp or multipart/form-data, not as {other}"
                ),
            )
        }),
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

fn text(bytes: &[u8], param: &'static str) -> Result<String, ApiError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.trim().is_empty() => Ok(text.to_owned()),
        Ok(_) => Err(ApiError::invalid(param, "the offer is empty")),
        Err(_) => Err(ApiError::invalid(param, "the offer is no text")),
    }
}

fn bad_form(error: MultipartError) -> ApiError {
    ApiError::rejected(
        error.status(),
        format!("the form cannot be read: {}", error.body_text()),
    )
}

impl From<OfferError> for ApiError {
    fn from(error: OfferError) -> Self {
        match error {
            OfferError::Sdp(_) | OfferError::NoAudio | OfferError::Rejected(_) => Self {
                code: "invalid_offer",
                ..Self::invalid("sdp", error.to_string())
            },
            OfferError::Ended => Self::not_found("call_not_found", error.to_string()),
            OfferError::Codec(_) => Self::server(error.to_string()),
        }
    }
}
