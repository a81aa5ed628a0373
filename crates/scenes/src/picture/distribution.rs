//! A measure over all scenes: how many values lie where, and the aim.

use std::fmt::Write as _;

use super::{STYLE, escaped};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 216.0;
const LEFT: f64 = 16.0;
/// Where the highest bar ends; the lines' names stand above it.
const TOP: f64 = 84.0;
const BOTTOM: f64 = 184.0;
/// Where the first of the lines' names stands.
const NAMES: f64 = 52.0;
const BINS: usize = 40;

/// Draws the values, milliseconds. `aim` is the line below which the p95 (or, with `of_median`, the median) should lie.
#[must_use]
pub fn distribution(title: &str, values: &[f64], aim: Option<f64>, of_median: bool) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let part = |part: f64| {
        let last = sorted.len().saturating_sub(1) as f64;
        sorted
            .get((last * part).round() as usize)
            .copied()
            .unwrap_or(0.0)
    };
    let (middle, most) = (part(0.5), part(0.95));
    let largest = sorted.last().copied().unwrap_or(1.0);
    let end = round_up(largest.max(aim.unwrap_or(0.0) * 1.2).max(1.0));
    let x = |value: f64| LEFT + (WIDTH - 2.0 * LEFT) * (value / end).clamp(0.0, 1.0);
    let mut bins = [0_usize; BINS];
    for value in &sorted {
        let bin = (value / end * BINS as f64) as usize;
        bins[bin.min(BINS - 1)] += 1;
    }
    let highest = bins.iter().copied().max().unwrap_or(1).max(1) as f64;
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\
         <style>{STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>\
         <text x=\"{LEFT}\" y=\"19\" font-weight=\"600\">{}</text>\
         <text x=\"{LEFT}\" y=\"35\" class=\"soft small\">{}</text>",
        escaped(title),
        match sorted.is_empty() {
            true => "no values".to_owned(),
            false => format!(
                "{} values, median {middle:.0} ms, p95 {most:.0} ms",
                sorted.len()
            ),
        }
    );
    let wide = (WIDTH - 2.0 * LEFT) / BINS as f64;
    for (at, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
        let high = (BOTTOM - TOP) * *count as f64 / highest;
        let _ = write!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{high:.1}\" rx=\"1.5\" fill=\"var(--reply)\" opacity=\".8\"><title>{count}</title></rect>",
            LEFT + wide * at as f64 + 0.5,
            BOTTOM - high,
            wide - 1.0
        );
    }
    let _ = write!(
        out,
        "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>",
        WIDTH - LEFT
    );
    for quarter in 0..=4 {
        let value = end * f64::from(quarter) / 4.0;
        let anchor = ["start", "middle", "middle", "middle", "end"][quarter as usize];
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"{anchor}\" class=\"soft small\">{value:.0} ms</text>",
            x(value),
            BOTTOM + 16.0
        );
    }
    let mut line = |value: f64, colour: &str, label: &str, y: f64| {
        let at = x(value);
        let (anchor, shift) = if at > WIDTH * 0.75 {
            ("end", -4.0)
        } else {
            ("start", 4.0)
        };
        let _ = write!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.0}\" y2=\"{BOTTOM}\" stroke=\"var({colour})\" stroke-width=\"1.5\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"{anchor}\" class=\"small\" style=\"fill:var({colour})\">{label}</text>",
            y - 9.0,
            at + shift,
            y
        );
    };
    if !sorted.is_empty() {
        line(middle, "--soft", "median", NAMES);
        line(most, "--soft", "p95", NAMES + 12.0);
    }
    if let Some(aim) = aim {
        let reached = if of_median { middle } else { most } <= aim;
        let what = if of_median {
            "aim for the median"
        } else {
            "aim for the p95"
        };
        line(
            aim,
            if reached { "--good" } else { "--cut" },
            what,
            NAMES + 24.0,
        );
    }
    out.push_str("</svg>\n");
    out
}

/// The next round number.
fn round_up(value: f64) -> f64 {
    let step = 10_f64.powf(value.log10().floor()) / 2.0;
    (value / step).ceil() * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, expected) in [
            (1.0, 1.0),
            (103.0, 150.0),
            (480.0, 500.0),
            (1_010.0, 1_500.0),
        ] {
            assert_eq!(round_up(value), expected);
        }
    }
}
