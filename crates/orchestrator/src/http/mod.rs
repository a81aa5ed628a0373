//! The HTTP face: the page, the OpenAI-compatible endpoints, health.

mod access;
mod client_secrets;
mod error;
mod health;
mod models;
mod page;
mod speech;
mod transcriptions;
mod transports;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use duologue_access::Scope;

use crate::Orchestrator;
use access::{Guard, ask_for_key, look_at_page};

pub use access::AccessControl;
pub(crate) use access::{Caller, SessionPlace};
pub(crate) use error::ApiError;
pub(crate) use transcriptions::read as read_transcription_form;

/// Largest sound file that may be sent for transcription, bytes; as in the API that is followed.
const UPLOAD_LIMIT: usize = 25 * 1024 * 1024;
/// Largest request where nothing else is said, bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// All routes of the server, behind its access control. `private` are routes that the process has beside them, which
/// take a key too.
pub fn router(
    orchestrator: Arc<Orchestrator>,
    access: Arc<AccessControl>,
    private: Router,
) -> Router {
    let behind = |scope| {
        let access = Arc::clone(&access);
        from_fn_with_state(Guard { access, scope }, ask_for_key)
    };
    let sessions = Router::new()
        .route("/v1/realtime", get(crate::websocket::connect))
        .route("/v1/realtime/transports", get(transports::list))
        .merge(crate::webrtc::routes())
        .route_layer(behind(Scope::Session));
    let speech = post(speech::speak).layer(DefaultBodyLimit::max(speech::BODY_LIMIT));
    let transcriptions =
        post(transcriptions::transcribe).layer(DefaultBodyLimit::max(UPLOAD_LIMIT + 64 * 1024));
    let client_secrets =
        post(client_secrets::create).layer(DefaultBodyLimit::max(client_secrets::BODY_LIMIT));
    let everything = Router::new()
        .route("/v1/realtime/client_secrets", client_secrets)
        .merge(crate::livekit::routes())
        .route("/v1/audio/speech", speech)
        .route("/v1/audio/transcriptions", transcriptions)
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::one))
        .with_state(Arc::clone(&orchestrator))
        .merge(private)
        .route_layer(behind(Scope::Everything));
    let health = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .with_state(Arc::clone(&orchestrator));
    Router::new()
        .merge(sessions)
        .with_state(orchestrator)
        .merge(everything)
        .fallback(page::file)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(access, look_at_page))
        // Probes call it by whatever name and have no key.
        .merge(health)
}
