//! The report's folder: the measures over time, on one page.

use std::path::Path;

use anyhow::Context;
use duologue_scenes::picture::{Page, PageRow, Series, over_time, page};

use super::samples::Sample;
use super::talker::Notes;
use super::{Report, Soaked, verdict};
use crate::report::percentile;

/// Jitter is drawn as the 95th percentile of so many seconds.
const WINDOW: f64 = 10.0;

/// Writes it all.
///
/// # Errors
/// A file that cannot be written.
pub fn write(folder: &Path, soaked: &Soaked, report: &Report) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let mut figures = Vec::new();
    let mut draw = |name: &str, title: &str, unit: &str, series: &[Series], limit| {
        let file = format!("{name}.svg");
        put(
            &file,
            &over_time(title, unit, soaked.seconds, series, limit),
        )?;
        figures.push(file);
        anyhow::Ok(())
    };
    let line = |name: &str, of: fn(&Sample) -> f64| Series {
        name: name.to_owned(),
        points: soaked.samples.iter().map(|s| (s.at, of(s))).collect(),
        apart: false,
    };
    let points = |name: &str, of: fn(&Notes) -> &Vec<(f64, f64)>| Series {
        name: name.to_owned(),
        points: soaked.notes.iter().flat_map(of).copied().collect(),
        apart: true,
    };
    draw(
        "memory",
        "Memory of the server",
        "MB",
        &[line("resident", |s| s.megabytes)],
        None,
    )?;
    draw(
        "first-audio",
        "From the last sound of a question to the first of its answer, at the clients",
        "ms",
        &[points("each answer", |n| &n.first_audio)],
        Some(2_000.0),
    )?;
    draw(
        "barge-in",
        "From the first sound over a reply to its last, at the clients",
        "ms",
        &[points("each interruption", |n| &n.barge_in)],
        Some(200.0),
    )?;
    draw(
        "jitter",
        "Jitter of the sound",
        "ms",
        &[jitter(soaked)],
        None,
    )?;
    draw(
        "underruns",
        "Silence in the midst of replies, at the clients",
        "ms",
        &[points("each gap", |n| &n.underruns)],
        None,
    )?;
    draw(
        "held",
        "Threads and open files of the server",
        "",
        &[
            line("threads", |s| s.threads),
            line("files and sockets", |s| s.files),
        ],
        None,
    )?;
    draw(
        "load",
        "Cores that the server takes, and the machine's load average",
        "",
        &[line("cores", |s| s.cores), line("load average", |s| s.load)],
        None,
    )?;
    let rows = report.rows().iter().map(|cells| PageRow {
        cells: cells.clone(),
    });
    put(
        "index.html",
        &page(&Page {
            title: "Soak",
            columns: report.columns(),
            rows: &rows.collect::<Vec<_>>(),
            remarks: report.remarks(),
            heading: "Over time",
            figures: &figures,
            scenes: &[],
        }),
    )
}

fn jitter(soaked: &Soaked) -> Series {
    let windows = (soaked.seconds / WINDOW).ceil() as usize;
    let of = |window: usize| {
        let (from, to) = (window as f64 * WINDOW, (window + 1) as f64 * WINDOW);
        let all = soaked.notes.iter().flat_map(|notes| &notes.jitter);
        let within = all.filter(|(at, _)| (from..to).contains(at));
        let values: Vec<f64> = within.map(|(_, value)| *value).collect();
        (!values.is_empty()).then(|| (from + WINDOW / 2.0, percentile(&values, 0.95)))
    };
    let whole = verdict::all(&soaked.notes, |notes| &notes.jitter);
    Series {
        name: format!(
            "p95 of {WINDOW:.0} s; of all {:.1} ms",
            percentile(&whole, 0.95)
        ),
        points: (0..windows).filter_map(of).collect(),
        apart: false,
    }
}
