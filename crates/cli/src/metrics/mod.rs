//! `/metrics`, for Prometheus.

mod process;

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use duologue_metrics::Exposition;
use tokio::net::TcpListener;

/// How often room is made for what was recorded.
const TIDIED_EVERY: Duration = Duration::from_secs(5);

/// Begins to measure.
///
/// # Errors
/// Where the process measures already.
pub fn start() -> anyhow::Result<Exposition> {
    let exposition = Exposition::install()?;
    let tidied = exposition.clone();
    tokio::spawn(async move {
        let mut times = tokio::time::interval(TIDIED_EVERY);
        loop {
            times.tick().await;
            tidied.tidy();
            process::measure();
        }
    });
    Ok(exposition)
}

/// The route that shows what is measured.
pub fn routes<S: Clone + Send + Sync + 'static>(exposition: Exposition) -> Router<S> {
    let page = move || {
        let text = exposition.render();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
    };
    Router::new().route("/metrics", get(page))
}

/// Shows what is measured at an address of its own.
///
/// # Errors
/// Where that cannot be listened on.
pub async fn serve(address: &str, exposition: Exposition) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot show metrics at {address}; choose another address with --metrics-listen")
    })?;
    let router = routes(exposition);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "metrics are shown no more");
        }
    });
    Ok(())
}
