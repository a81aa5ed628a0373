//! Private parsers of what strangers send, for the fuzz targets. No part of the interface.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::CONTENT_TYPE;
use futures_util::FutureExt;
use serde_json::Value;

/// Bytes of a body that come at a time, so that what is cut in two is seen too.
const AT_A_TIME: usize = 61;

/// The body of a request for a call: its offer, and its session if there is one.
#[must_use]
pub fn call_request(content_type: &str, body: &[u8]) -> Option<(String, Option<Value>)> {
    let request = request(content_type, body)?;
    // All of the body is there, so nothing waits.
    crate::webrtc::read_request(request).now_or_never()?.ok()
}

/// The body of a request for a transcription. Whether it could be read.
pub fn transcription_request(content_type: &str, body: &[u8]) -> Option<bool> {
    let request = request(content_type, body)?;
    let read = async {
        let form = Multipart::from_request(request, &()).await;
        crate::http::read_transcription_form(form).await.is_ok()
    };
    read.now_or_never()
}

fn request(content_type: &str, body: &[u8]) -> Option<Request> {
    let pieces: Vec<Result<Bytes, std::io::Error>> = body
        .chunks(AT_A_TIME)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    Request::builder()
        .method("POST")
        .header(CONTENT_TYPE, content_type)
        .body(Body::from_stream(futures_util::stream::iter(pieces)))
        .ok()
}
