//! Errors of the HTTP endpoints, in the body that OpenAI clients read.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::inference::PoolError;
use crate::voice::VoiceError;

/// A request that cannot be served.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    /// `None`: told by the status.
    pub kind: Option<&'static str>,
    pub code: &'static str,
    pub message: String,
    pub param: Option<&'static str>,
    /// Seconds after which trying again makes sense.
    pub retry_after: Option<u32>,
}

impl ApiError {
    /// The client's mistake.
    pub fn invalid(param: impl Into<Option<&'static str>>, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: None,
            code: "invalid_value",
            message: message.into(),
            param: param.into(),
            retry_after: None,
        }
    }

    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            kind: None,
            code,
            message: message.into(),
            param: None,
            retry_after: None,
        }
    }

    /// A body that could not be read.
    pub fn rejected(status: StatusCode, message: impl Into<String>) -> Self {
        let code = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            _ => "invalid_value",
        };
        Self {
            status,
            code,
            ..Self::invalid(None, message)
        }
    }

    /// Who asks may not do this.
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            code,
            ..Self::invalid(None, message)
        }
    }

    /// Our fault.
    pub fn server(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: None,
            code: "server_error",
            message: message.into(),
            param: None,
            retry_after: None,
        }
    }

    /// No room now.
    pub fn full(message: impl Into<String>, retry_after: u32) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: None,
            code: "server_full",
            message: message.into(),
            param: None,
            retry_after: Some(retry_after),
        }
    }
}

impl From<PoolError> for ApiError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Full { .. } => Self::full(error.to_string(), 2),
            PoolError::Lost { .. } => Self::server(error.to_string()),
        }
    }
}

impl From<VoiceError> for ApiError {
    fn from(error: VoiceError) -> Self {
        match error {
            VoiceError::Busy(_) => Self::full(error.to_string(), 2),
            VoiceError::Full { retry_after, .. } => {
                let seconds = retry_after.as_secs_f32().ceil() as u32;
                Self::full(error.to_string(), seconds.max(1))
            }
            VoiceError::UnknownVoice(message) => Self {
                code: "voice_not_found",
                ..Self::invalid("voice", message)
            },
            VoiceError::BadText(message) => Self::invalid("input", message),
            VoiceError::Worker(_) | VoiceError::SessionLost(_) => Self {
                status: StatusCode::BAD_GATEWAY,
                ..Self::server(error.to_string())
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let kind = self.kind.unwrap_or(if self.status.is_client_error() {
            "invalid_request_error"
        } else {
            "server_error"
        });
        let body = json!({"error": {"type": kind, "code": self.code, "message": self.message, "param": self.param}});
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
