//! The report's folder: a page, a picture of every scene, a picture of every measure.

use std::path::Path;

use anyhow::Context;
use duologue_scenes::measure::Figures;
use duologue_scenes::picture::{Page, PageRow, PageScene, distribution, page, timeline};

use super::{Outcome, table};
use crate::report::Report;

/// A measure's title, values, aim in milliseconds, and whether the aim is for the median.
type Measure = (&'static str, fn(&Figures) -> &Vec<f64>, Option<f64>, bool);

const MEASURES: [(&str, Measure); 7] = [
    (
        "onset-to-silence",
        (
            "Speech onset over a reply to silence at the client",
            |f| &f.onset_to_silence,
            Some(200.0),
            false,
        ),
    ),
    (
        "edge-to-silence",
        (
            "Voice detector's edge to the last audible frame",
            |f| &f.edge_to_silence,
            Some(50.0),
            false,
        ),
    ),
    (
        "onset-to-commit",
        (
            "Speech onset to the reply given up",
            |f| &f.onset_to_commit,
            None,
            false,
        ),
    ),
    (
        "time-to-resume",
        (
            "Suspicion taken back to the reply audible again",
            |f| &f.time_to_resume,
            Some(300.0),
            false,
        ),
    ),
    (
        "hushed",
        ("A reply held for nothing", |f| &f.hushed, None, false),
    ),
    (
        "wait",
        (
            "True end of a turn to held for over",
            |f| &f.waits,
            Some(300.0),
            true,
        ),
    ),
    (
        "answer",
        (
            "True end of a turn to the reply audible",
            |f| &f.answers,
            None,
            false,
        ),
    ),
];

/// Writes it all.
///
/// # Errors
/// A file that cannot be written.
pub fn write(dir: &Path, outcomes: &[Outcome], report: &Report) -> anyhow::Result<()> {
    let scenes_dir = dir.join("scenes");
    std::fs::create_dir_all(&scenes_dir)
        .with_context(|| format!("cannot make the folder {}", scenes_dir.display()))?;
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let all = table::total(outcomes);
    let mut distributions = Vec::new();
    for (name, (title, values, aim, of_median)) in MEASURES {
        let file = format!("{name}.svg");
        put(&file, &distribution(title, values(&all), aim, of_median))?;
        distributions.push(file);
    }
    let mut scenes = Vec::new();
    for outcome in outcomes {
        let picture = format!("scenes/{}.svg", outcome.scene.name.replace('/', "-"));
        put(
            &picture,
            &timeline(&outcome.scene, &outcome.trace, &outcome.verdicts),
        )?;
        scenes.push(PageScene {
            name: outcome.scene.name.clone(),
            kind: outcome.scene.kind.name().to_owned(),
            picture,
            passed: outcome.passed(),
            wrong: outcome.wrong(),
        });
    }
    let rows: Vec<PageRow> = report
        .rows()
        .iter()
        .map(|cells| PageRow {
            cells: cells.clone(),
        })
        .collect();
    put(
        "index.html",
        &page(&Page {
            title: "Turn-taking",
            columns: report.columns(),
            rows: &rows,
            remarks: report.remarks(),
            heading: "Distributions",
            figures: &distributions,
            scenes: &scenes,
        }),
    )
}
