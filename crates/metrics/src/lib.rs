//! What is measured while Duologue runs, and how Prometheus reads it.
//!
//! Every metric is a constant in [`table`], with its help, its unit and its label: who records one names the
//! constant, so that none is misspelt, and `docs/metrics.md` is printed from the same table. Label values are
//! `'static`: nothing that a client writes becomes a label, and the number of series is bounded.
//!
//! Before an [`Exposition`] is installed, recording does nothing and costs next to nothing.

mod exposition;
mod metric;
pub mod table;
pub mod timeline;

pub use exposition::{Exposition, NotInstalled};
pub use metric::{Counter, Gauge, Held, Histogram, Kind, Metric};
