//! Pictures: a timeline of a scene, a distribution of a measure, and a page that has them all. SVG and HTML, light
//! and dark by the reader's settings, made of nothing but text.

mod distribution;
mod page;
mod series;
mod timeline;

pub use distribution::distribution;
pub use page::{Page, PageRow, PageScene, page};
pub use series::{Series, over_time};
pub use timeline::timeline;

/// Text that may stand in SVG and HTML.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// Colours, as custom properties, for light and for dark.
pub(crate) const STYLE: &str = "
svg{--ink:#1d2733;--soft:#6b7785;--line:#d9dee5;--paper:#ffffff;--user:#c2410c;--noise:#94a3b8;--echo:#a855f7;
--reply:#1d4ed8;--cut:#dc2626;--good:#15803d;--listening:#fed7aa;--thinking:#fde68a;--speaking:#bfdbfe;
--barged:#fecaca;--waiting:#eef1f5;font:12px system-ui,sans-serif}
@media(prefers-color-scheme:dark){svg{--ink:#e6ebf2;--soft:#93a1b2;--line:#344152;--paper:#131a23;--user:#fb923c;
--noise:#64748b;--echo:#c084fc;--reply:#60a5fa;--cut:#f87171;--good:#4ade80;--listening:#7c2d12;--thinking:#713f12;
--speaking:#1e3a8a;--barged:#7f1d1d;--waiting:#1f2937}}
text{fill:var(--ink)}.soft{fill:var(--soft)}.small{font-size:10.5px}.grid{stroke:var(--line)}
.cut{fill:var(--cut)}.good{fill:var(--good)}";
