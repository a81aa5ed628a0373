//! A profile as a picture: each frame a bar on top of its caller, as wide as its share of the samples. After Brendan
//! Gregg, "The Flame Graph" (Communications of the ACM 59(6), 2016).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Profile;

const WIDTH: f64 = 1_200.0;
const MARGIN: f64 = 10.0;
const HEAD: f64 = 44.0;
const ROW: f64 = 17.0;
/// Narrower bars are left out.
const NARROWEST: f64 = 0.3;
/// Width of a letter of the bars' font.
const LETTER: f64 = 6.6;

/// A function, as it was called by those below it.
#[derive(Default)]
struct Bar<'p> {
    samples: u64,
    inner: BTreeMap<&'p str, Bar<'p>>,
}

impl Bar<'_> {
    fn depth(&self) -> usize {
        let inner = self.inner.values().map(Bar::depth);
        1 + inner.max().unwrap_or(0)
    }
}

pub fn draw(profile: &Profile) -> String {
    let mut all = Bar::default();
    for stack in profile.stacks() {
        all.samples += stack.samples;
        let mut bar = &mut all;
        for frame in &stack.frames {
            bar = bar.inner.entry(frame).or_default();
            bar.samples += stack.samples;
        }
    }
    let depth = all.depth();
    let height = HEAD + depth as f64 * ROW + MARGIN;
    let cpu = profile.period().as_secs_f64() * all.samples as f64;
    let mut title = format!(
        "{cpu:.1} s of CPU time in {:.1} s: {} samples",
        profile.lasted().as_secs_f64(),
        all.samples
    );
    if profile.lost() > 0 {
        // Writing to a string does not fail, here as below.
        let _ = write!(title, ", {} more were lost", profile.lost());
    }
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <style>text {{ font: 11px monospace; fill: #1d1d1d }} .own {{ fill: #f4a261 }} .other {{ fill: #e9d8a6 }} \
         .thread {{ fill: #b8c4cc }} rect {{ stroke: #fffdf7; stroke-width: 0.6 }} g:hover rect {{ fill: #ff7f50 }}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fffdf7\"/>\n\
         <text x=\"{MARGIN}\" y=\"20\" style=\"font-size: 14px\">{title}</text>\n\
         <text x=\"{MARGIN}\" y=\"36\">grey: threads; orange: Duologue; yellow: libraries. Point at a bar for its name.</text>\n"
    );
    let place = Place {
        left: MARGIN,
        bottom: height - MARGIN,
        wide: (WIDTH - 2.0 * MARGIN) / all.samples.max(1) as f64,
        all: all.samples.max(1),
    };
    bars(&mut svg, &all, &place, true);
    svg.push_str("</svg>\n");
    svg
}

struct Place {
    left: f64,
    bottom: f64,
    /// Of a sample.
    wide: f64,
    all: u64,
}

/// Draws what `bar` calls, on top of it; the lowest are threads.
fn bars(svg: &mut String, bar: &Bar, place: &Place, lowest: bool) {
    let mut left = place.left;
    for (name, inner) in &bar.inner {
        let width = inner.samples as f64 * place.wide;
        if width >= NARROWEST {
            let top = place.bottom - ROW;
            let share = 100.0 * inner.samples as f64 / place.all as f64;
            let class = match name {
                _ if lowest => "thread",
                name if name.contains("duologue") => "own",
                _ => "other",
            };
            let letters = ((width - 6.0) / LETTER).max(0.0) as usize;
            let _ = write!(
                svg,
                "<g><title>{} ({} samples, {share:.1}%)</title><rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" \
                 width=\"{width:.1}\" height=\"{ROW}\" rx=\"1\"/>",
                escaped(name),
                inner.samples
            );
            if letters >= 3 {
                let text = escaped(&shortened(name, letters));
                let (x, y) = (left + 3.0, top + 12.5);
                let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
            }
            svg.push_str("</g>\n");
            let above = Place {
                left,
                bottom: top,
                ..*place
            };
            bars(svg, inner, &above, false);
        }
        left += width;
    }
}

/// As many letters of it as there is room for; of a path, its end says more than its beginning.
fn shortened(name: &str, letters: usize) -> String {
    let short = match name.split_once('<') {
        None => name.rsplit("::").next().unwrap_or(name),
        Some(_) => name,
    };
    let fits = |text: &str| text.chars().count() <= letters;
    match (fits(name), fits(short)) {
        (true, _) => name.to_owned(),
        (false, true) => short.to_owned(),
        (false, false) => short.chars().take(letters - 1).chain(['…']).collect(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::example;

    #[test]
    fn a_bar_is_as_wide_as_its_share_and_stands_on_its_caller() {
        let svg = example().to_svg();
        let bar = |name: &str| {
            let line = svg
                .lines()
                .find(|line| line.contains(&format!("<title>{name} ")));
            let line = line.unwrap_or_default();
            let number = |what: &str| -> f64 {
                let from = line
                    .find(&format!(" {what}=\""))
                    .map_or(0, |at| at + what.len() + 3);
                let text: String = line[from..].chars().take_while(|c| *c != '"').collect();
                text.parse().unwrap_or(f64::NAN)
            };
            (number("x"), number("y"), number("width"))
        };
        let (hear, think) = (bar("duologue_vad::hear"), bar("duologue_asr::think"));
        assert!((think.2 - 2.0 * hear.2).abs() < 0.2, "{hear:?} {think:?}");
        assert!((think.2 - 0.6 * 1_180.0).abs() < 0.2, "{think:?}");
        assert!((hear.1 - think.1).abs() < 0.1, "both are called by main");
        let take = bar("take&lt;[u8; 4]&gt;");
        assert!((bar("memcpy").1 - (take.1 - ROW)).abs() < 0.1);
        assert!(svg.contains("100 samples, 3 more were lost"));
        assert!(!svg.contains("<[u8"), "names are escaped");
    }

    #[test]
    fn a_name_without_room_keeps_its_last_part() {
        assert_eq!(shortened("a::b::compute", 40), "a::b::compute");
        assert_eq!(shortened("a::b::compute", 8), "compute");
        assert_eq!(shortened("a::b::compute", 4), "com…");
    }
}
