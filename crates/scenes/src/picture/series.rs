//! Measures over time: one chart each, all over the same minutes.

use std::fmt::Write as _;

use super::{STYLE, escaped};

const WIDTH: f64 = 1_180.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 162.0;
/// Colours of the lines, in order.
const COLOURS: &[&str] = &["--reply", "--user", "--echo", "--good"];

/// A line of a chart, or points of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// When (seconds) and how much.
    pub points: Vec<(f64, f64)>,
    /// Each point is an event of its own: they are not joined.
    pub apart: bool,
}

/// Draws a chart of the first `seconds`. `limit` is what should not be passed.
#[must_use]
pub fn over_time(
    title: &str,
    unit: &str,
    seconds: f64,
    series: &[Series],
    limit: Option<f64>,
) -> String {
    let seconds = seconds.max(1.0);
    let values = series.iter().flat_map(|one| &one.points);
    let most = values.map(|(_, value)| *value).fold(0.0, f64::max);
    let end = round_up((most * 1.05).max(limit.unwrap_or(0.0) * 1.1));
    let x = |at: f64| LEFT + (WIDTH - LEFT - RIGHT) * (at / seconds).clamp(0.0, 1.0);
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * (value / end).clamp(0.0, 1.0);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\
         <style>{STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>\
         <text x=\"12\" y=\"19\" font-weight=\"600\">{}</text>",
        escaped(title)
    );
    for part in 0..=2 {
        let value = end * f64::from(part) / 2.0;
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" class=\"soft small\">{} {}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(value) + 3.5,
            number(value),
            escaped(unit),
            at = y(value),
        );
    }
    for tick in 0..=10 {
        let at = seconds * f64::from(tick) / 10.0;
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\" class=\"soft small\">{}</text>",
            x(at),
            BOTTOM + 16.0,
            clock(at)
        );
    }
    if let Some(limit) = limit {
        let colour = if most > limit { "--cut" } else { "--good" };
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"var({colour})\" stroke-dasharray=\"5 4\"/>",
            WIDTH - RIGHT,
            at = y(limit)
        );
    }
    let mut legend = LEFT;
    for (one, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let _ = write!(
            out,
            "<text x=\"{legend:.0}\" y=\"36\" class=\"small\" style=\"fill:var({colour})\">{}</text>",
            escaped(&one.name)
        );
        legend += 24.0 + 6.2 * one.name.chars().count() as f64;
        if one.apart {
            for (at, value) in &one.points {
                let _ = write!(
                    out,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.2\" fill=\"var({colour})\" opacity=\".7\"/>",
                    x(*at),
                    y(*value)
                );
            }
            continue;
        }
        let line: Vec<String> = one
            .points
            .iter()
            .map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value)))
            .collect();
        let _ = write!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"var({colour})\" stroke-width=\"1.5\"/>",
            line.join(" ")
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Minutes and seconds.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn number(value: f64) -> String {
    match value.fract() == 0.0 {
        true => format!("{value:.0}"),
        false => format!("{value:.1}"),
    }
}

/// The next value whose half is a round number too.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let step = 10_f64.powf(value.log10().floor()) / 5.0;
    (value / step).ceil() * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_points_lie_within_the_chart_and_names_cannot_break_it() {
        let series = [
            Series {
                name: "a<b".to_owned(),
                points: vec![(0.0, 0.0), (30.0, 480.0), (90.0, 10.0)],
                apart: false,
            },
            Series {
                name: "c".to_owned(),
                points: vec![(60.0, 200.0)],
                apart: true,
            },
        ];
        let svg = over_time("t", "MB", 60.0, &series, Some(100.0));
        assert!(svg.contains("a&lt;b") && svg.contains("--cut"), "{svg}");
        assert!(
            svg.contains(&format!("points=\"{LEFT:.1},{BOTTOM:.1} ")),
            "{svg}"
        );
        assert_eq!(svg.matches("<circle").count(), 1);
        let empty = over_time("t", "", 0.0, &[], None);
        assert!(empty.starts_with("<svg") && !empty.contains("NaN"));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, expected) in [(0.0, 1.0), (480.0, 480.0), (481.0, 500.0), (0.13, 0.14)] {
            assert!((round_up(value) - expected).abs() < 1e-9, "{value}");
        }
    }
}
