//! Where the process spends its CPU time, for some seconds from now.

use axum::extract::Query;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use duologue_profile::{ProfileError, record};
use serde::Deserialize;

use super::{length, senseless, ten};

/// What is asked for.
#[derive(Deserialize)]
pub struct Asked {
    #[serde(default = "ten")]
    seconds: f64,
    #[serde(default)]
    format: Format,
}

/// How it is written.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// pprof's protobuf message.
    #[default]
    Pprof,
    /// A line for each stack.
    Folded,
    /// A flame graph.
    Svg,
}

/// Records, and gives the profile when the time is over. Who goes away meanwhile ends it.
pub async fn profile(Query(asked): Query<Asked>) -> Response {
    let Some(length) = length(asked.seconds) else {
        return senseless();
    };
    let recording = match record() {
        Ok(recording) => recording,
        Err(error) => return refused(&error),
    };
    tokio::time::sleep(length).await;
    // Names are read from the program's file: not on the reactor.
    let made = tokio::task::spawn_blocking(move || {
        let profile = recording.finish()?;
        Ok::<_, ProfileError>(match asked.format {
            Format::Pprof => profile.to_pprof(),
            Format::Folded => profile.to_folded().into_bytes(),
            Format::Svg => profile.to_svg().into_bytes(),
        })
    });
    let body = match made.await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return refused(&error),
        Err(_) => return refused(&ProfileError::Lost),
    };
    match asked.format {
        Format::Pprof => {
            let kept = "attachment; filename=duologue-cpu.pb";
            let headers = [
                (CONTENT_TYPE, "application/octet-stream"),
                (CONTENT_DISPOSITION, kept),
            ];
            (headers, body).into_response()
        }
        Format::Folded => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response(),
        Format::Svg => ([(CONTENT_TYPE, "image/svg+xml")], body).into_response(),
    }
}

fn refused(error: &ProfileError) -> Response {
    let status = match error {
        ProfileError::Busy => StatusCode::CONFLICT,
        ProfileError::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ProfileError::Refused { .. } | ProfileError::Lost => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let why = std::error::Error::source(error).map(|source| format!(": {source}"));
    (status, format!("{error}{}\n", why.unwrap_or_default())).into_response()
}

#[cfg(all(
    test,
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::hint::black_box;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::admin::AdminOptions;

    #[inline(never)]
    fn a_function_that_works_hard(seed: u64) -> u64 {
        (0..10_000).fold(seed, |value, n| black_box(value.rotate_left(3) ^ n))
    }

    #[tokio::test]
    async fn the_profile_of_a_busy_process_names_its_function_and_one_is_taken_at_a_time() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let options = AdminOptions {
            admin_listen: Some(format!("127.0.0.1:{port}").parse().unwrap()),
        };
        options.serve(None, axum::Router::new()).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let worker = std::thread::Builder::new()
            .name("hard-worker".to_owned())
            .spawn(move || {
                let mut value = 1;
                while !told.load(Ordering::Relaxed) {
                    value = a_function_that_works_hard(value);
                }
                value
            })
            .unwrap();
        let get = async |query: &str| {
            let url = format!("http://127.0.0.1:{port}/debug/profile{query}");
            let answer = reqwest::get(url).await.unwrap();
            (answer.status().as_u16(), answer.bytes().await.unwrap())
        };
        let held = duologue_profile::record().unwrap();
        let (status, why) = get("?seconds=0.1").await;
        assert_eq!(status, 409, "one at a time");
        assert!(String::from_utf8_lossy(&why).contains("already"));
        held.finish().unwrap();
        let (status, folded) = get("?seconds=1&format=folded").await;
        assert_eq!(status, 200);
        let folded = String::from_utf8_lossy(&folded);
        assert!(folded.contains("[hard-worker];"), "{folded}");
        assert!(folded.contains("a_function_that_works_hard"), "{folded}");
        let (status, pprof) = get("?seconds=0.5").await;
        assert_eq!(status, 200);
        let name = b"a_function_that_works_hard";
        assert!(pprof.windows(name.len()).any(|part| part == name));
        let (status, svg) = get("?seconds=0.5&format=svg").await;
        assert_eq!(status, 200);
        assert!(String::from_utf8_lossy(&svg).contains("a_function_that_works_hard"));
        for wrong in ["?seconds=0", "?seconds=x", "?format=png", "?seconds=1000"] {
            assert_eq!(get(wrong).await.0, 400, "{wrong}");
        }
        stop.store(true, Ordering::Relaxed);
        worker.join().unwrap();
    }
}
