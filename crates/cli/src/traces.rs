//! Traces to an OpenTelemetry collector: what is exported, where to, and how much of it.
//!
//! The spans themselves are made where things happen; here it is decided whether anybody gets them. Without a
//! collector they cost next to nothing.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

/// Longest wait, at the end, for a collector to take what is left.
const FLUSH: Duration = Duration::from_secs(3);
/// The specification's names of the collector's address, the more specific one first.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Which traces go where. What is left out is taken from OpenTelemetry's own variables.
#[derive(Debug, Args)]
pub struct TraceOptions {
    /// OpenTelemetry collector that gets a trace of every turn, by OTLP over gRPC: http://127.0.0.1:4317. Left out, it
    /// is OTEL_EXPORTER_OTLP_ENDPOINT; without that nothing is traced
    #[arg(
        long,
        env = "DUOLOGUE_OTLP_ENDPOINT",
        value_name = "URL",
        help_heading = "Observation"
    )]
    otlp_endpoint: Option<String>,

    /// Share of the turns that are traced, 0 to 1. Left out, it is what OTEL_TRACES_SAMPLER says, or all. A worker
    /// does as the server whose turn it is
    #[arg(
        long,
        env = "DUOLOGUE_TRACE_RATIO",
        value_name = "SHARE",
        value_parser = share,
        help_heading = "Observation"
    )]
    trace_ratio: Option<f64>,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("{text:?} is not a share: use a number from 0 to 1")),
    }
}

/// Traces that are being exported, if they are.
pub struct Traces(Option<SdkTracerProvider>);

impl TraceOptions {
    /// Begins to export, as `service`, for the whole process. To be called on the async runtime, which carries the
    /// connection.
    ///
    /// # Errors
    /// Where the collector's address is none. That it does not answer is no error: it may come.
    pub fn start(&self, service: &'static str) -> anyhow::Result<Traces> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = self.otlp_endpoint.clone().filter(|url| !url.is_empty());
        let endpoint = named.or_else(|| ENDPOINTS.into_iter().find_map(variable));
        let off = variable("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"));
        let Some(endpoint) = endpoint.filter(|_| !off) else {
            return Ok(Traces(None));
        };
        if !endpoint.starts_with("http://") {
            bail!(
                "--otlp-endpoint {endpoint:?}: write it as http://HOST:4317 (OTLP over gRPC, without TLS). Where the \
                 collector is elsewhere, run one beside this process that passes traces on"
            );
        }
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&endpoint)
            .build()
            .with_context(|| format!("--otlp-endpoint {endpoint:?}"))?;
        let mut resource = Resource::builder()
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if variable("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(service);
        }
        let mut provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build());
        if let Some(share) = self.trace_ratio {
            let sampler = Sampler::TraceIdRatioBased(share);
            provider = provider.with_sampler(Sampler::ParentBased(Box::new(sampler)));
        }
        let provider = provider.build();
        global::set_tracer_provider(provider.clone());
        tracing::info!(endpoint, share = self.trace_ratio, "turns are traced");
        Ok(Traces(Some(provider)))
    }
}

impl Traces {
    /// Sends what is left.
    pub async fn finish(self) {
        let Some(provider) = self.0 else { return };
        // It waits, and its connection lives on this runtime.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH));
        match ended.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last traces were not sent"),
            Err(error) => tracing::warn!(%error, "the last traces were not sent"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_between_none_and_all() {
        assert_eq!(share("0.25"), Ok(0.25));
        for bad in ["-0.1", "1.1", "NaN", "half"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_collector_that_cannot_be_spoken_to_is_named() {
        let options = TraceOptions {
            otlp_endpoint: Some("collector:4317".into()),
            trace_ratio: None,
        };
        let error = options.start("duologue").err().unwrap().to_string();
        assert!(error.contains("collector:4317"), "{error}");
    }
}
