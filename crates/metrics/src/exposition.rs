//! The page that Prometheus reads.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::metric::Kind;
use crate::table::ALL;

/// Why nothing is measured.
#[derive(Debug, thiserror::Error)]
pub enum NotInstalled {
    /// Another recorder is there already.
    #[error("metrics are recorded already in this process")]
    Twice,
    /// The table has a histogram without buckets.
    #[error("the table of metrics is wrong: {0}")]
    Table(String),
}

/// Everything that was measured in this process. Clones show the same.
#[derive(Clone)]
pub struct Exposition(PrometheusHandle);

impl Exposition {
    /// Begins to record, for the whole process.
    ///
    /// # Errors
    /// Where it was begun before.
    pub fn install() -> Result<Self, NotInstalled> {
        let wrong = |error: BuildError| NotInstalled::Table(error.to_string());
        let mut builder = PrometheusBuilder::new();
        for metric in ALL {
            if let Kind::Histogram(buckets) = metric.kind {
                let matcher = Matcher::Full(metric.name.to_owned());
                builder = builder
                    .set_buckets_for_metric(matcher, buckets)
                    .map_err(wrong)?;
            }
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| NotInstalled::Twice)?;
        for metric in ALL {
            match metric.kind {
                Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
                Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                Kind::Histogram(_) => metrics::describe_histogram!(metric.name, metric.help),
            }
            // A rate needs a zero to begin from.
            if metric.kind == Kind::Counter && metric.label.is_none() {
                metrics::counter!(metric.name).increment(0);
            }
        }
        Ok(Self(handle))
    }

    /// The page, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Makes room; to be called every few seconds, for what is recorded between two renderings is kept one by one.
    pub fn tidy(&self) {
        self.0.run_upkeep();
    }
}
