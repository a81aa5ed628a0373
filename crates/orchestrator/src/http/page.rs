//! The page, which travels in the binary.

use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use include_dir::{Dir, include_dir};

use super::ApiError;

static WEB: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../web");

pub(super) async fn file(uri: Uri) -> Response {
    let path = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    let served = WEB.get_file(path).zip(media_type(path));
    let Some((file, media_type)) = served else {
        let message = format!(
            "there is nothing at {}; the page is at /, the API at /v1/realtime",
            uri.path()
        );
        return ApiError::not_found("not_found", message).into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, media_type),
        // The page belongs to this very server: another version may answer the next request.
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Its address may hold a key.
        (header::REFERRER_POLICY, "no-referrer"),
        // Nobody else's page shows it as its own.
        (header::CONTENT_SECURITY_POLICY, "frame-ancestors 'self'"),
    ];
    (StatusCode::OK, headers, file.contents()).into_response()
}

/// `None` for what is in the folder but not part of the page, such as its tests.
fn media_type(path: &str) -> Option<&'static str> {
    if path.starts_with("tests/") {
        return None;
    }
    Some(match path.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webmanifest" => "application/manifest+json",
        _ => return None,
    })
}
