//! `/healthz`: the process lives. `/readyz`: it takes sessions.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::Orchestrator;

pub(super) async fn alive() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(State(orchestrator): State<Arc<Orchestrator>>) -> (StatusCode, String) {
    if orchestrator.shutdown().is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".into());
    }
    if orchestrator.is_draining() {
        let body = "draining: no more sessions are taken\n";
        return (StatusCode::SERVICE_UNAVAILABLE, body.into());
    }
    if orchestrator.free_slots() == 0 {
        let limit = orchestrator.config().max_sessions;
        let body = format!("full: all {limit} sessions are taken\n");
        return (StatusCode::SERVICE_UNAVAILABLE, body);
    }
    if let Some(reason) = orchestrator.pressed() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("busy: {reason}\n"));
    }
    match orchestrator.engines().fleet.models().await {
        Ok(_) => (StatusCode::OK, "ready\n".into()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}
