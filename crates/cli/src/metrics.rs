//! `/metrics`, for Prometheus.

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use duologue_metrics::Exposition;
use tokio::net::TcpListener;

/// How often room is made for what was recorded.
const TIDIED_EVERY: Duration = Duration::from_secs(5);

/// Begins to measure; the route that shows it.
///
/// # Errors
/// Where the process measures already.
pub fn start<S: Clone + Send + Sync + 'static>() -> anyhow::Result<Router<S>> {
    let exposition = Exposition::install()?;
    let tidied = exposition.clone();
    tokio::spawn(async move {
        let mut times = tokio::time::interval(TIDIED_EVERY);
        loop {
            times.tick().await;
            tidied.tidy();
        }
    });
    let page = move || {
        let text = exposition.render();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
    };
    Ok(Router::new().route("/metrics", get(page)))
}

/// Measures, and shows it at an address of its own.
///
/// # Errors
/// Where that cannot be listened on.
pub async fn serve(address: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot show metrics at {address}; choose another address with --metrics-listen")
    })?;
    let router = start()?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "metrics are shown no more");
        }
    });
    Ok(())
}
