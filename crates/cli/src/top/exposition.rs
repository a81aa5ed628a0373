//! What a server shows at `/metrics`, read back.
//!
//! The format is Prometheus' text exposition; of it, what our own server writes: a sample a line, labels in quotes.

use std::collections::BTreeMap;

/// All samples of a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page(BTreeMap<String, Vec<Sample>>);

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    labels: Vec<(String, String)>,
    value: f64,
}

impl Sample {
    fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn is(&self, wanted: Option<(&str, &str)>) -> bool {
        wanted.is_none_or(|(name, value)| self.label(name) == Some(value))
    }
}

/// How often values came up to each bound; the last bound is infinite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution(Vec<(f64, f64)>);

impl Page {
    /// Reads a page. Lines that are no samples are passed over.
    pub fn read(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, sample)) = sample(line) {
                page.0.entry(name.to_owned()).or_default().push(sample);
            }
        }
        page
    }

    /// Whether there is such a metric at all.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The sum over the series of a name, all or those with a label's value.
    pub fn sum(&self, name: &str, of: Option<(&str, &str)>) -> f64 {
        let samples = self.0.get(name).into_iter().flatten();
        let wanted = samples.filter(|sample| sample.is(of));
        // The sum of nothing would be -0.
        wanted.fold(0.0, |sum, sample| sum + sample.value)
    }

    /// A histogram, all of it or the series with a label's value.
    pub fn distribution(&self, name: &str, of: Option<(&str, &str)>) -> Distribution {
        let buckets = self.0.get(&format!("{name}_bucket")).into_iter().flatten();
        let mut counts: Vec<(f64, f64)> = Vec::new();
        for sample in buckets.filter(|sample| sample.is(of)) {
            let Some(bound) = sample.label("le").and_then(|bound| bound.parse().ok()) else {
                continue;
            };
            match counts.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += sample.value,
                None => counts.push((bound, sample.value)),
            }
        }
        counts.sort_by(|a, b| a.0.total_cmp(&b.0));
        Distribution(counts)
    }
}

impl Distribution {
    /// What came since `before`. A server that was started anew has it all come since.
    pub fn since(&self, before: &Self) -> Self {
        let known = |bound: f64| {
            let found = before.0.iter().find(|(known, _)| *known == bound);
            found.map_or(0.0, |(_, count)| *count)
        };
        let fresh: Vec<(f64, f64)> = self
            .0
            .iter()
            .map(|(bound, count)| (*bound, count - known(*bound)))
            .collect();
        if fresh.iter().any(|(_, count)| *count < 0.0) {
            return self.clone();
        }
        Self(fresh)
    }

    /// How many values.
    pub fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The value below which that share lies, as Prometheus' `histogram_quantile` has it: evenly spread in a bucket,
    /// and in the last one its lower bound.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let all = self.count();
        if all <= 0.0 {
            return None;
        }
        let rank = share * all;
        let mut below = (0.0, 0.0);
        for &(bound, count) in &self.0 {
            if count >= rank {
                if bound.is_infinite() {
                    return Some(below.0);
                }
                let inside = count - below.1;
                let part = if inside > 0.0 {
                    (rank - below.1) / inside
                } else {
                    1.0
                };
                return Some(below.0 + (bound - below.0) * part);
            }
            below = (bound, count);
        }
        None
    }
}

fn sample(line: &str) -> Option<(&str, Sample)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, labels) = match series.split_once('{') {
        None => (series, Vec::new()),
        Some((name, labels)) => (name, read_labels(labels.strip_suffix('}')?)?),
    };
    Some((name, Sample { labels, value }))
}

fn read_labels(text: &str) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"")?;
        // The values of our labels are words; a quote in one would be escaped.
        let (value, after) = after.split_once('"')?;
        labels.push((name.to_owned(), value.to_owned()));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some(labels)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP duologue_turns_total Messages of users.\n\
        # TYPE duologue_turns_total counter\n\
        duologue_turns_total 12\n\
        duologue_sessions{transport=\"websocket\"} 2\n\
        duologue_sessions{transport=\"webrtc\"} 1\n\
        duologue_wait_seconds_bucket{pool=\"ear\",le=\"0.1\"} 5\n\
        duologue_wait_seconds_bucket{pool=\"ear\",le=\"0.2\"} 10\n\
        duologue_wait_seconds_bucket{pool=\"ear\",le=\"+Inf\"} 10\n\
        duologue_wait_seconds_bucket{pool=\"mind\",le=\"0.1\"} 0\n\
        duologue_wait_seconds_bucket{pool=\"mind\",le=\"0.2\"} 0\n\
        duologue_wait_seconds_bucket{pool=\"mind\",le=\"+Inf\"} 4\n\
        nonsense\n";

    #[test]
    fn samples_are_added_up_by_label() {
        let page = Page::read(PAGE);
        assert_eq!(page.sum("duologue_turns_total", None), 12.0);
        assert_eq!(page.sum("duologue_sessions", None), 3.0);
        let webrtc = Some(("transport", "webrtc"));
        assert_eq!(page.sum("duologue_sessions", webrtc), 1.0);
        assert_eq!(page.sum("duologue_nothing", None).to_string(), "0");
        assert!(page.has("duologue_turns_total") && !page.has("nonsense"));
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let page = Page::read(PAGE);
        let ear = page.distribution("duologue_wait_seconds", Some(("pool", "ear")));
        assert_eq!(ear.count(), 10.0);
        assert_eq!(ear.quantile(0.25), Some(0.05));
        assert!((ear.quantile(0.9).unwrap() - 0.18).abs() < 1e-9);
        let mind = page.distribution("duologue_wait_seconds", Some(("pool", "mind")));
        assert_eq!(mind.quantile(0.5), Some(0.2));
        let both = page.distribution("duologue_wait_seconds", None);
        assert_eq!(both.count(), 14.0);
        assert_eq!(Distribution::default().quantile(0.5), None);
    }

    #[test]
    fn what_came_since_is_the_difference_unless_the_server_began_anew() {
        let now = Distribution(vec![(0.1, 4.0), (f64::INFINITY, 6.0)]);
        let before = Distribution(vec![(0.1, 3.0), (f64::INFINITY, 3.0)]);
        assert_eq!(now.since(&before).count(), 3.0);
        assert_eq!(before.since(&now), before);
        assert_eq!(now.since(&Distribution::default()), now);
    }
}
