//! An address for who operates the process, on this machine only: metrics, what goes on, a timeline, a CPU profile.
//!
//! It has no password and tells of the program's insides; so it listens on the loopback and
//! nowhere else, and only where it is asked for. From elsewhere it is reached through `ssh -L`.

mod profile;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::extract::{Query, Request};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use clap::Args;
use duologue_metrics::timeline;
use serde::Deserialize;
use tokio::net::TcpListener;

/// Where who operates the process finds it.
#[derive(Debug, Args)]
pub struct AdminOptions {
    /// Address on this machine for who operates it: /metrics, /status for `duologue top`, a timeline and a CPU profile
    /// on demand (docs/profiling.md). Left out, there is none
    #[arg(
        long,
        env = "DUOLOGUE_ADMIN_LISTEN",
        value_name = "ADDR",
        help_heading = "Observation"
    )]
    admin_listen: Option<SocketAddr>,
}

impl AdminOptions {
    /// Whether there is such an address.
    pub fn is_on(&self) -> bool {
        self.admin_listen.is_some()
    }

    /// Shows these routes there, beside timeline and profile. Of several workers, each has the next port.
    ///
    /// # Errors
    /// An address that is not this machine's alone, or cannot be listened on.
    pub async fn serve(&self, number: Option<usize>, routes: Router) -> anyhow::Result<()> {
        let Some(mut address) = self.admin_listen else {
            return Ok(());
        };
        if let Some(number) = number.and_then(|number| u16::try_from(number).ok())
            && address.port() != 0
        {
            address.set_port(address.port().saturating_add(number));
        }
        if !address.ip().is_loopback() {
            bail!(
                "--admin-listen {address}: this address shows the program's insides without a password, so it must be \
                 of this machine alone, such as 127.0.0.1:{}; from elsewhere use ssh -L",
                address.port()
            );
        }
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!(
                "cannot listen on {address}; choose another address of this machine with --admin-listen"
            )
        })?;
        let router = routes
            .merge(debugging())
            .layer(middleware::from_fn(by_number));
        tracing::info!(address = %listener.local_addr()?, "metrics, status, timelines and profiles are shown");
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!(%error, "metrics, status, timelines and profiles are shown no more");
            }
        });
        Ok(())
    }
}

/// Lets nobody in by a name: a page of somebody else's could have its name lead here.
async fn by_number(headers: HeaderMap, request: Request, next: Next) -> Response {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(is_this_machine) {
        return next.run(request).await;
    }
    let why = "ask by a number (127.0.0.1) or as localhost\n";
    (StatusCode::MISDIRECTED_REQUEST, why).into_response()
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let number = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || number.parse::<IpAddr>().is_ok()
}

fn debugging() -> Router {
    Router::new()
        .route("/debug/timeline", get(timeline))
        .route("/debug/profile", get(profile::profile))
}

#[derive(Deserialize)]
struct Length {
    #[serde(default = "ten")]
    seconds: f64,
}

fn ten() -> f64 {
    10.0
}

/// How long is recorded, if that makes sense.
fn length(seconds: f64) -> Option<Duration> {
    let sensible = (0.1..=120.0).contains(&seconds);
    sensible.then(|| Duration::from_secs_f64(seconds))
}

/// The answer to a length that makes no sense.
fn senseless() -> Response {
    let why = "seconds: a number from 0.1 to 120\n";
    (StatusCode::BAD_REQUEST, why).into_response()
}

async fn timeline(Query(asked): Query<Length>) -> Response {
    let Some(length) = length(asked.seconds) else {
        return senseless();
    };
    let recording = match timeline::record() {
        Ok(recording) => recording,
        Err(busy) => return (StatusCode::CONFLICT, format!("{busy}\n")).into_response(),
    };
    tokio::time::sleep(length).await;
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (
            CONTENT_DISPOSITION,
            "attachment; filename=duologue-trace.json",
        ),
    ];
    (headers, recording.finish()).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_for_by_a_number_of_this_machine_or_as_localhost() {
        for host in [
            "127.0.0.1:9100",
            "localhost",
            "localhost:9100",
            "[::1]:9100",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "evil.example:9100",
            "evil.example",
            "127.0.0.1.evil.example",
            "",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[tokio::test]
    async fn an_address_that_others_reach_is_refused() {
        let options = AdminOptions {
            admin_listen: Some("0.0.0.0:0".parse().unwrap()),
        };
        let error = options
            .serve(None, Router::new())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("127.0.0.1"), "{error}");
    }
}
