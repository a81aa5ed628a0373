//! One page with the table, the distributions and every scene.

use std::fmt::Write as _;

use super::escaped;

/// A row of the table.
#[derive(Clone, Debug)]
pub struct PageRow {
    /// Its cells.
    pub cells: Vec<String>,
}

/// A scene on the page.
#[derive(Clone, Debug)]
pub struct PageScene {
    /// Its name.
    pub name: String,
    /// Its kind's name.
    pub kind: String,
    /// The file of its picture, relative to the page.
    pub picture: String,
    /// All that was asked for came to pass.
    pub passed: bool,
    /// What did not.
    pub wrong: String,
}

const PAGE_STYLE: &str = "
:root{color-scheme:light dark;--ink:#1d2733;--soft:#6b7785;--line:#d9dee5;--paper:#fff;--good:#15803d;--cut:#dc2626}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf2;--soft:#93a1b2;--line:#344152;--paper:#131a23;--good:#4ade80;--cut:#f87171}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1220px;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;font-size:14px}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:500}.soft{color:var(--soft)}.good{color:var(--good)}.cut{color:var(--cut)}
.figures{display:flex;flex-wrap:wrap;gap:1rem}.figures img{max-width:100%}
details{border-bottom:1px solid var(--line);padding:.25rem 0}summary{cursor:pointer}details img{width:100%;height:auto}
label{margin-right:1rem}";

const SCRIPT: &str = "
const kind=document.querySelector('#kind'),failed=document.querySelector('#failed');
const show=()=>document.querySelectorAll('details').forEach(d=>{d.hidden=(kind.value&&d.dataset.kind!==kind.value)||(failed.checked&&d.dataset.passed==='true')});
kind.onchange=failed.onchange=show;
document.querySelectorAll('details').forEach(d=>d.ontoggle=()=>{if(d.open&&!d.querySelector('img')){const i=new Image();i.src=d.dataset.picture;i.alt=d.dataset.name;d.append(i)}});";

/// What is on the page.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// What was measured.
    pub title: &'a str,
    /// The table's columns.
    pub columns: &'a [&'a str],
    /// The table's rows.
    pub rows: &'a [PageRow],
    /// Lines below the table.
    pub remarks: &'a [String],
    /// What the figures are.
    pub heading: &'a str,
    /// Pictures of measures: files, relative to the page.
    pub figures: &'a [String],
    /// Scenes, if any were played.
    pub scenes: &'a [PageScene],
}

/// Makes the page.
#[must_use]
pub fn page(page: &Page<'_>) -> String {
    let title = escaped(page.title);
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{PAGE_STYLE}</style><h1>{title}</h1><table><tr>"
    );
    let Page {
        columns,
        rows,
        remarks,
        scenes,
        ..
    } = page;
    for column in *columns {
        let _ = write!(out, "<th>{}</th>", escaped(column));
    }
    out.push_str("</tr>");
    for row in *rows {
        out.push_str("<tr>");
        for cell in &row.cells {
            let _ = write!(out, "<td>{}</td>", escaped(cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>");
    for remark in *remarks {
        let _ = write!(out, "<p class=\"soft\">{}</p>", escaped(remark));
    }
    let _ = write!(
        out,
        "<h2>{}</h2><div class=\"figures\">",
        escaped(page.heading)
    );
    for file in page.figures {
        let _ = write!(out, "<img src=\"{}\" alt=\"\">", escaped(file));
    }
    out.push_str("</div>");
    if scenes.is_empty() {
        out.push_str("</html>\n");
        return out;
    }
    out.push_str(
        "<h2>Scenes</h2><p><label>Kind <select id=\"kind\"><option value=\"\">all</option>",
    );
    let mut kinds: Vec<&str> = scenes.iter().map(|scene| scene.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let _ = write!(out, "<option>{}</option>", escaped(kind));
    }
    out.push_str("</select></label><label><input type=\"checkbox\" id=\"failed\"> only those that failed</label></p>");
    for scene in *scenes {
        let (class, sign) = if scene.passed {
            ("good", "✓")
        } else {
            ("cut", "✗")
        };
        let _ = writeln!(
            out,
            "<details data-kind=\"{}\" data-passed=\"{}\" data-picture=\"{}\" data-name=\"{}\"><summary><span class=\"{class}\">{sign}</span> {} \
             <span class=\"soft\">{}</span></summary></details>",
            escaped(&scene.kind),
            scene.passed,
            escaped(&scene.picture),
            escaped(&scene.name),
            escaped(&scene.name),
            escaped(&scene.wrong),
        );
    }
    let _ = writeln!(out, "<script>{SCRIPT}</script></html>");
    out
}
