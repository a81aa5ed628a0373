//! The three kinds of metrics.

use std::time::Duration;

/// What a metric is called and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// `duologue_…`, in Prometheus' style: with its unit, and `_total` where it only grows.
    pub name: &'static str,
    /// A sentence for people.
    pub help: &'static str,
    /// The label it is told apart by, and its values.
    pub label: Option<(&'static str, &'static str)>,
    /// What it is.
    pub kind: Kind,
}

impl Metric {
    fn label_name(&self) -> &'static str {
        self.label.map_or("kind", |(name, _)| name)
    }
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, by the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// Counts.
#[derive(Clone, Copy, Debug)]
pub struct Counter(pub(crate) Metric);

/// Shows a present value.
#[derive(Clone, Copy, Debug)]
pub struct Gauge(pub(crate) Metric);

/// Shows how values are distributed.
#[derive(Clone, Copy, Debug)]
pub struct Histogram(pub(crate) Metric);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        metrics::counter!(self.0.name).increment(more);
    }

    /// What it has come to, where somebody else counts.
    pub fn reach(&self, total: u64) {
        metrics::counter!(self.0.name).absolute(total);
    }

    /// One more of a kind.
    pub fn count_for(&self, value: &'static str) {
        self.add_for(value, 1);
    }

    /// So many more of a kind.
    pub fn add_for(&self, value: &'static str, more: u64) {
        metrics::counter!(self.0.name, self.0.label_name() => value).increment(more);
    }
}

impl Gauge {
    /// What it is now.
    pub fn set(&self, value: f64) {
        metrics::gauge!(self.0.name).set(value);
    }

    /// What it is now, of a kind.
    pub fn set_for(&self, value: &'static str, now: f64) {
        metrics::gauge!(self.0.name, self.0.label_name() => value).set(now);
    }

    /// One more, until what is returned is dropped.
    #[must_use]
    pub fn hold(&self) -> Held {
        Held::new(metrics::gauge!(self.0.name))
    }

    /// One more of a kind, until what is returned is dropped.
    #[must_use]
    pub fn hold_for(&self, value: &'static str) -> Held {
        Held::new(metrics::gauge!(self.0.name, self.0.label_name() => value))
    }
}

/// One that a [`Gauge`] counts.
pub struct Held(metrics::Gauge);

impl Held {
    fn new(gauge: metrics::Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Histogram {
    /// A time.
    pub fn record(&self, time: Duration) {
        self.record_value(time.as_secs_f64());
    }

    /// A value in the metric's unit.
    pub fn record_value(&self, value: f64) {
        metrics::histogram!(self.0.name).record(value);
    }

    /// A time, of a kind.
    pub fn record_for(&self, value: &'static str, time: Duration) {
        metrics::histogram!(self.0.name, self.0.label_name() => value).record(time.as_secs_f64());
    }
}
