//! A scene in time: what the user said, what else sounded, what the server made of it, what was played, and the
//! words.

use std::fmt::Write as _;

use super::{STYLE, escaped};
use crate::check::Verdict;
use crate::trace::{Happening, Trace};
use crate::{BLOCK_SECONDS, RATE, Scene};

const LEFT: f64 = 96.0;
const RIGHT: f64 = 24.0;
const WIDTH: f64 = 1_180.0;
/// Heights of the rows, and where they begin.
const USER: (f64, f64) = (58.0, 54.0);
const NOISE: (f64, f64) = (118.0, 34.0);
const STATES: (f64, f64) = (160.0, 16.0);
const REPLY: (f64, f64) = (184.0, 64.0);
const WORDS: f64 = 262.0;
const MARKS: f64 = 312.0;
/// The softest level that is drawn, dBFS.
const FLOOR: f32 = -60.0;
/// Words above each other where they are close.
const LANES: usize = 3;

/// Draws a scene.
#[must_use]
pub fn timeline(scene: &Scene, trace: &Trace, verdicts: &[Verdict]) -> String {
    let seconds = trace.seconds().max(1.0);
    let x = |at: f64| LEFT + (WIDTH - LEFT - RIGHT) * (at / seconds).clamp(0.0, 1.0);
    let marks = happenings(trace, &x);
    let below = MARKS + 14.0 * marks.1 as f64 + 14.0;
    let height = below + 16.0 * verdicts.len() as f64 + 14.0;
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\">\
         <style>{STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>\
         <text x=\"12\" y=\"20\" font-size=\"14\" font-weight=\"600\">{}</text>\
         <text x=\"12\" y=\"37\" class=\"soft\">{}</text>",
        escaped(&scene.name),
        escaped(&scene.about),
    );
    grid(&mut out, seconds, below, &x);
    for (label, (top, height)) in [
        ("user", USER),
        ("other sound", NOISE),
        ("state", STATES),
        ("played", REPLY),
    ] {
        let _ = write!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\" class=\"soft\">{label}</text>",
            LEFT - 8.0,
            top + height / 2.0 + 4.0
        );
    }
    let _ = write!(
        out,
        "<text x=\"{:.0}\" y=\"{WORDS:.0}\" text-anchor=\"end\" class=\"soft\">words</text>",
        LEFT - 8.0
    );
    let _ = write!(
        out,
        "<text x=\"{:.0}\" y=\"{MARKS:.0}\" text-anchor=\"end\" class=\"soft\">events</text>",
        LEFT - 8.0
    );
    let levels = |of: fn(&crate::Block) -> f32| trace.blocks.iter().map(of).collect::<Vec<_>>();
    wave(
        &mut out,
        &levels(|block| block.user),
        USER,
        "var(--user)",
        &x,
    );
    wave(
        &mut out,
        &levels(|block| block.noise),
        NOISE,
        "var(--noise)",
        &x,
    );
    wave(
        &mut out,
        &levels(|block| block.echo),
        NOISE,
        "var(--echo)",
        &x,
    );
    wave(
        &mut out,
        &levels(|block| block.played),
        REPLY,
        "var(--reply)",
        &x,
    );
    states(&mut out, trace, seconds, &x);
    for step in &trace.steps {
        let (at, end) = (x(step.onset()), x(step.end()));
        let _ = write!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.0}\" y2=\"{:.0}\" stroke=\"var(--user)\" stroke-dasharray=\"2 2\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\" class=\"small\">{}</text>",
            USER.0 - 10.0,
            REPLY.0 + REPLY.1,
            at + 3.0,
            USER.0 - 2.0,
            escaped(&step.label),
        );
        if step.is_speech {
            let _ = write!(
                out,
                "<line x1=\"{end:.1}\" x2=\"{end:.1}\" y1=\"{:.0}\" y2=\"{:.0}\" stroke=\"var(--user)\" opacity=\".5\"/>",
                USER.0,
                USER.0 + USER.1
            );
        }
    }
    words(&mut out, trace, &x);
    out.push_str(&marks.0);
    for (at, verdict) in verdicts.iter().enumerate() {
        let (class, sign) = if verdict.passed {
            ("good", "✓")
        } else {
            ("cut", "✗")
        };
        let _ = write!(
            out,
            "<text x=\"12\" y=\"{:.0}\"><tspan class=\"{class}\">{sign}</tspan> {}<tspan class=\"soft\">: {}</tspan></text>",
            below + 14.0 + 16.0 * at as f64,
            escaped(&verdict.what),
            escaped(&verdict.found),
        );
    }
    out.push_str("</svg>\n");
    out
}

fn grid(out: &mut String, seconds: f64, bottom: f64, x: &impl Fn(f64) -> f64) {
    for second in 0..=seconds as u32 {
        let at = x(f64::from(second));
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"46\" y2=\"{:.0}\"/>\
             <text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\" class=\"soft small\">{second} s</text>",
            bottom - 12.0,
            bottom - 2.0
        );
    }
}

/// A level over time, as high as it is loud, on both sides of the middle.
fn wave(
    out: &mut String,
    levels: &[f32],
    (top, height): (f64, f64),
    colour: &str,
    x: &impl Fn(f64) -> f64,
) {
    if levels.iter().all(|level| *level <= FLOOR) {
        return;
    }
    let middle = top + height / 2.0;
    let half = |level: f32| f64::from(((level - FLOOR) / -FLOOR).clamp(0.0, 1.0)) * height / 2.0;
    let (mut above, mut below) = (String::new(), Vec::new());
    for (at, level) in levels.iter().enumerate() {
        let at = x((at as f64 + 0.5) * BLOCK_SECONDS);
        let high = half(*level).max(0.3);
        let _ = write!(above, "{at:.1},{:.1} ", middle - high);
        below.push(format!("{at:.1},{:.1}", middle + high));
    }
    below.reverse();
    let _ = write!(
        out,
        "<polygon points=\"{above}{}\" fill=\"{colour}\" opacity=\".85\"/>",
        below.join(" ")
    );
}

fn states(out: &mut String, trace: &Trace, seconds: f64, x: &impl Fn(f64) -> f64) {
    let (top, height) = STATES;
    for (at, (from, state)) in trace.states.iter().enumerate() {
        let to = trace.states.get(at + 1).map_or(seconds, |(to, _)| *to);
        let (colour, label) = match state.as_str() {
            "listening" => ("--listening", "listening"),
            "thinking" => ("--thinking", "thinking"),
            "speaking" => ("--speaking", "speaking"),
            "barged_in" => ("--barged", "barged in"),
            _ => ("--waiting", "waiting"),
        };
        let (left, width) = (x(*from), x(to) - x(*from));
        let _ = write!(
            out,
            "<rect x=\"{left:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{height}\" fill=\"var({colour})\"><title>{label} from {from:.2} s</title></rect>",
            width.max(0.8)
        );
        if width > 7.0 * label.len() as f64 {
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" class=\"small\">{label}</text>",
                left + 4.0,
                top + height - 4.0
            );
        }
    }
}

/// The words where the client played them; those that it never played at the end, in red.
fn words(out: &mut String, trace: &Trace, x: &impl Fn(f64) -> f64) {
    let mut ends = [f64::NEG_INFINITY; LANES];
    for reply in &trace.replies {
        let mut last = reply.audible_at.unwrap_or(0.0);
        for word in &reply.words {
            let heard = reply.heard_at(word.until.min(reply.played.max(word.after)));
            let was_played = reply.played + u64::from(RATE) / 50 >= word.until;
            let at = heard.unwrap_or(last).max(last);
            last = at;
            let left = x(at);
            let width = 6.2 * word.text.chars().count() as f64;
            let lane = (0..LANES)
                .find(|lane| ends[*lane] + 4.0 <= left)
                .unwrap_or(LANES - 1);
            let left = left.max(ends[lane] + 4.0);
            ends[lane] = left + width;
            let class = if was_played { "" } else { " class=\"cut\"" };
            let _ = write!(
                out,
                "<text x=\"{left:.1}\" y=\"{:.0}\"{class}>{}</text>",
                WORDS + 15.0 * lane as f64,
                escaped(&word.text)
            );
        }
    }
}

/// What happened, each in the first lane that is free; and how many lanes that took.
fn happenings(trace: &Trace, x: &impl Fn(f64) -> f64) -> (String, usize) {
    let mut out = String::new();
    let mut ends: Vec<f64> = Vec::new();
    let mut marks: Vec<(f64, String, &str)> = trace
        .happenings
        .iter()
        .filter(|(_, what)| !matches!(what, Happening::Thinking))
        .map(|(at, what)| {
            let colour = match what {
                Happening::Interruption | Happening::Error | Happening::Cancelled => "--cut",
                Happening::Speech | Happening::TurnOver | Happening::Turn => "--user",
                Happening::Reply | Happening::Completion => "--reply",
                Happening::Retraction | Happening::Resumed => "--good",
                _ => "--soft",
            };
            let why = trace
                .evidence
                .iter()
                .find(|(when, _)| (when - at).abs() < 1e-6)
                .and_then(|(_, why)| why.split_once(": "))
                .map_or(String::new(), |(_, why)| format!(" ({why})"));
            (*at, format!("{}{why}", what.name()), colour)
        })
        .collect();
    marks.extend(
        trace
            .edges
            .iter()
            .map(|at| (*at, "edge".to_owned(), "--soft")),
    );
    marks.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (at, label, colour) in marks {
        let left = x(at);
        let width = 6.0 * label.chars().count() as f64 + 8.0;
        let lane = match ends.iter().position(|end| end + 3.0 <= left) {
            Some(lane) => lane,
            None => {
                ends.push(0.0);
                ends.len() - 1
            }
        };
        ends[lane] = left + width;
        let y = MARKS + 14.0 * lane as f64;
        let _ = write!(
            out,
            "<line x1=\"{left:.1}\" x2=\"{left:.1}\" y1=\"{:.0}\" y2=\"{:.1}\" stroke=\"var({colour})\" opacity=\".45\"/>\
             <circle cx=\"{left:.1}\" cy=\"{:.1}\" r=\"2.6\" fill=\"var({colour})\"/>\
             <text x=\"{:.1}\" y=\"{y:.1}\" class=\"small\">{}<title>{at:.3} s</title></text>",
            STATES.0,
            y - 4.0,
            y - 4.0,
            left + 5.0,
            escaped(&label)
        );
    }
    (out, ends.len())
}
