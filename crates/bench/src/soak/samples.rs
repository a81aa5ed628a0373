//! What the server's process holds, second by second.

use std::time::{Duration, Instant};

use crate::process::Process;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// What it held at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Seconds since the beginning.
    pub at: f64,
    /// Memory, MB.
    pub megabytes: f64,
    /// Processor time since the sample before, in cores.
    pub cores: f64,
    /// Open files and sockets.
    pub files: f64,
    /// Threads.
    pub threads: f64,
    /// The machine's load average over a minute.
    pub load: f64,
}

/// Looks until it is dropped, or the process is gone; gives what it saw so far through `seen`.
pub async fn watch(process: Process, started: Instant, seen: &mut Vec<Sample>) {
    let mut looks = tokio::time::interval(EVERY);
    let mut before: Option<(Instant, f64)> = None;
    loop {
        looks.tick().await;
        let Ok(sample) = look(&process, started, &mut before) else {
            return;
        };
        seen.push(sample);
    }
}

fn look(
    process: &Process,
    started: Instant,
    before: &mut Option<(Instant, f64)>,
) -> anyhow::Result<Sample> {
    let (now, busy) = (Instant::now(), process.cpu_seconds()?);
    let cores = before.map_or(0.0, |(at, was)| {
        (busy - was).max(0.0) / now.duration_since(at).as_secs_f64().max(0.001)
    });
    *before = Some((now, busy));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    Ok(Sample {
        at: now.duration_since(started).as_secs_f64(),
        megabytes: process.resident_bytes()? as f64 / 1e6,
        cores,
        files: process.open_files()? as f64,
        threads: process.threads()? as f64,
        load: load
            .split_whitespace()
            .next()
            .and_then(|first| first.parse().ok())
            .unwrap_or(0.0),
    })
}

/// The mean of a measure over a part of the time, from and to shares of it.
pub fn mean(samples: &[Sample], part: (f64, f64), of: fn(&Sample) -> f64) -> f64 {
    let end = samples.last().map_or(0.0, |last| last.at);
    let within = |sample: &&Sample| sample.at >= part.0 * end && sample.at <= part.1 * end;
    let values: Vec<f64> = samples.iter().filter(within).map(of).collect();
    match values.len() {
        0 => 0.0,
        count => values.iter().sum::<f64>() / count as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_the_part_that_is_asked_for() {
        let samples: Vec<Sample> = (0..=10)
            .map(|at| Sample {
                at: f64::from(at),
                megabytes: f64::from(at),
                ..Sample::default()
            })
            .collect();
        let mean = |from, to| mean(&samples, (from, to), |sample| sample.megabytes);
        assert_eq!((mean(0.0, 1.0), mean(0.8, 1.0)), (5.0, 9.0));
        assert_eq!(super::mean(&[], (0.0, 1.0), |sample| sample.files), 0.0);
    }
}
