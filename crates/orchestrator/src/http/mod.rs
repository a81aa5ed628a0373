//! The HTTP face: the page, the OpenAI-compatible endpoints, health.

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
use axum::routing::{get, post};

use crate::Orchestrator;

pub(crate) use error::ApiError;

/// Largest sound file that may be sent for transcription, bytes; as in the API that is followed.
const UPLOAD_LIMIT: usize = 25 * 1024 * 1024;

/// All routes of the server.
pub fn router(orchestrator: Arc<Orchestrator>) -> Router {
    Router::new()
        .route("/v1/realtime", get(crate::websocket::connect))
        .route("/v1/realtime/transports", get(transports::list))
        .merge(crate::webrtc::routes())
        .merge(crate::livekit::routes())
        .route("/v1/audio/speech", post(speech::speak))
        .route("/v1/audio/transcriptions", post(transcriptions::transcribe))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::one))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(page::file)
        .layer(DefaultBodyLimit::max(UPLOAD_LIMIT + 64 * 1024))
        .with_state(orchestrator)
}
