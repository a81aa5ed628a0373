//! `/v1/models`: what answers, speaks and listens here.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::ApiError;
use crate::Orchestrator;

pub(super) async fn list(
    State(orchestrator): State<Arc<Orchestrator>>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(
        json!({"object": "list", "data": all(&orchestrator).await?}),
    ))
}

pub(super) async fn one(
    State(orchestrator): State<Arc<Orchestrator>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let found = all(&orchestrator)
        .await?
        .into_iter()
        .find(|model| model["id"] == id.as_str());
    found.map(Json).ok_or_else(|| {
        ApiError::not_found(
            "model_not_found",
            format!("there is no model {id:?} here; GET /v1/models lists them"),
        )
    })
}

async fn all(orchestrator: &Orchestrator) -> Result<Vec<Value>, ApiError> {
    let engines = orchestrator.engines();
    let chat = engines.chat.info();
    let asr = engines.recognizer.info();
    let mut models = vec![
        model(
            &chat.name,
            json!({"kind": "llm", "name": chat.name, "location": chat.location, "default": true}),
        ),
        model(
            &asr.name,
            json!({"kind": "asr", "name": asr.name, "languages": asr.languages, "default": true}),
        ),
    ];
    for voice in engines.fleet.models().await? {
        let speakers: Vec<Value> = voice
            .speakers
            .iter()
            .map(|speaker| json!({"id": format!("{}:{speaker}", voice.name), "name": speaker, "languages": voice.languages}))
            .collect();
        let mut about = json!({
            "kind": "tts", "name": voice.name, "family": voice.family, "languages": voice.languages,
            "tags": voice.tags, "default": voice.is_default, "resident": voice.resident,
        });
        if !speakers.is_empty() {
            about["voices"] = Value::Array(speakers);
        }
        models.push(model(&voice.name, about));
    }
    Ok(models)
}

fn model(id: &str, about: Value) -> Value {
    json!({"id": id, "object": "model", "created": 0, "owned_by": "duologue", "duologue": about})
}
