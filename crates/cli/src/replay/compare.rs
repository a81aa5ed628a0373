//! Sessions side by side: figures in a table, then the moments in which they differ.

use std::fmt::Write as _;
use std::time::Duration;

use duologue_session::{Moment, Tally};

/// Moments this far apart can be the same one.
const SAME: Duration = Duration::from_millis(1_500);

/// A table with a column for each tally.
pub fn table(columns: &[(&str, &Tally)]) -> String {
    let count = |pick: fn(&Tally) -> usize| -> Vec<String> {
        columns.iter().map(|(_, t)| pick(t).to_string()).collect()
    };
    let times = |pick: fn(&Tally) -> &Vec<Duration>| -> Vec<String> {
        columns.iter().map(|(_, t)| spread(pick(t))).collect()
    };
    let rows = [
        ("turns", count(|t| t.turns)),
        ("sounds without words", count(|t| t.discarded)),
        ("turns cut off too early", count(|t| t.cut_offs)),
        ("replies that sounded", count(|t| t.replies)),
        ("speech over a reply", count(|t| t.suspicions)),
        ("  was an interruption", count(|t| t.interruptions)),
        ("  was none", count(|t| t.retractions)),
        ("replies begun early", count(|t| t.speculations)),
        ("  for nothing", count(|t| t.speculations_dropped)),
        ("wait for the end of a turn", times(|t| &t.waits)),
        ("end of speech to reply", times(|t| &t.answers)),
        ("until speech was judged", times(|t| &t.verdicts)),
        ("held for nothing", times(|t| &t.silenced)),
    ];
    let width = |n: usize| {
        rows.iter()
            .map(|(_, cells)| cells[n].len())
            .chain([columns[n].0.len()])
            .max()
            .unwrap_or(0)
    };
    let mut out = format!("{:<28}", "");
    for (n, (name, _)) in columns.iter().enumerate() {
        let _ = write!(out, "  {name:>width$}", width = width(n)); // writing to a String cannot fail
    }
    out.push('\n');
    for (name, cells) in &rows {
        let _ = write!(out, "{name:<28}");
        for (n, cell) in cells.iter().enumerate() {
            let _ = write!(out, "  {cell:>width$}", width = width(n));
        }
        out.push('\n');
    }
    out
}

/// Median and longest.
fn spread(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(median), Some(most)) => {
            format!("{} ms (at most {})", median.as_millis(), most.as_millis())
        }
        _ => "-".to_owned(),
    }
}

/// The moments that only one of two sessions has.
pub fn differences(before: &[Moment], after: &[Moment]) -> String {
    let mut left: Vec<&Moment> = after.iter().collect();
    let mut lines: Vec<(Duration, char, &str)> = Vec::new();
    for moment in before {
        let same = left
            .iter()
            .position(|other| other.what == moment.what && other.at.abs_diff(moment.at) <= SAME);
        match same {
            Some(at) => {
                left.remove(at);
            }
            None => lines.push((moment.at, '-', &moment.what)),
        }
    }
    lines.extend(
        left.iter()
            .map(|moment| (moment.at, '+', moment.what.as_str())),
    );
    lines.sort_by_key(|(at, sign, _)| (*at, *sign == '+'));
    lines
        .iter()
        .map(|(at, sign, what)| format!("{sign} {:>9.3} s  {what}\n", at.as_secs_f64()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(ms: u64, what: &str) -> Moment {
        Moment {
            at: Duration::from_millis(ms),
            what: what.into(),
        }
    }

    #[test]
    fn only_what_differs_is_listed_in_order() {
        let before = [moment(1_000, "a"), moment(2_000, "b"), moment(9_000, "c")];
        let after = [moment(1_200, "a"), moment(5_000, "c"), moment(2_500, "d")];
        assert_eq!(
            differences(&before, &after),
            "-     2.000 s  b\n+     2.500 s  d\n+     5.000 s  c\n-     9.000 s  c\n"
        );
    }

    #[test]
    fn a_table_has_a_column_for_each() {
        let tally = Tally {
            turns: 3,
            waits: [300, 900, 250].map(Duration::from_millis).to_vec(),
            ..Tally::default()
        };
        let table = table(&[("recorded", &tally), ("changed", &Tally::default())]);
        assert!(table.contains("recorded"), "{table}");
        assert!(table.contains("300 ms (at most 900)"), "{table}");
        assert_eq!(table.lines().count(), 14);
    }
}
