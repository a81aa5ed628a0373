//! Dashboards, rules and alerts in `deploy/observability` ask for what is measured, and for nothing else.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use duologue_metrics::table::ALL;
use duologue_metrics::{Kind, Metric};

fn files() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders =
        vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/observability")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.extension().and_then(|kind| kind.to_str());
            match kind {
                _ if path.is_dir() => folders.push(path),
                // In JSON quotes are escaped.
                Some("json" | "yml") => {
                    let text = fs::read_to_string(&path).unwrap().replace("\\\"", "\"");
                    files.push((path, text));
                }
                _ => {}
            }
        }
    }
    assert!(files.len() >= 5, "{files:?}");
    files
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | ':')
}

/// Names with `duologue_` in them, each with what follows it.
fn names(text: &str) -> Vec<(&str, &str)> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("duologue_") {
        let begin = rest[..at]
            .rfind(|c| !is_name(c))
            .map_or(0, |place| place + 1);
        let end = rest[at..]
            .find(|c| !is_name(c))
            .map_or(rest.len(), |length| at + length);
        names.push((rest[begin..end].trim_end_matches(':'), &rest[end..]));
        rest = &rest[end..];
    }
    names
}

/// The metric of a series: a histogram has three.
fn metric(series: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| match metric.kind {
        Kind::Histogram(_) => ["_bucket", "_count", "_sum"]
            .iter()
            .any(|end| series.strip_suffix(end) == Some(metric.name)),
        _ => series == metric.name,
    })
}

/// What is wrong with `{label="value",…}` after a metric's name.
fn wrong_labels(metric: &Metric, after: &str) -> Option<String> {
    let matchers = after.strip_prefix('{')?.split('}').next()?;
    for matcher in matchers
        .split(',')
        .map(str::trim)
        .filter(|matcher| !matcher.is_empty())
    {
        let (label, value) = matcher.split_once('=').unwrap();
        let (label, value) = (label.trim_end_matches('!'), value.trim_matches(['~', '"']));
        if matches!(label, "instance" | "job" | "le") {
            continue;
        }
        let known = metric
            .label
            .is_some_and(|(name, values)| name == label && values.contains(&format!("`{value}`")));
        if !known {
            return Some(format!("{} has no {matcher}", metric.name));
        }
    }
    None
}

#[test]
fn what_dashboards_and_rules_ask_for_is_measured() {
    let files = files();
    let recorded: BTreeSet<&str> = files
        .iter()
        .flat_map(|(_, text)| text.lines())
        .filter_map(|line| line.split_once("record: "))
        .map(|(_, name)| name.trim())
        .collect();
    let mut asked = BTreeSet::new();
    for (path, text) in &files {
        for (name, after) in names(text) {
            if name.contains(':') {
                assert!(recorded.contains(name), "{}: {name}", path.display());
                continue;
            }
            let metric = metric(name)
                .unwrap_or_else(|| panic!("{}: {name} is not measured", path.display()));
            asked.insert(metric.name);
            let wrong = wrong_labels(metric, after);
            assert_eq!(wrong, None, "{}", path.display());
        }
    }
    let left_out: Vec<&str> = ALL
        .iter()
        .map(|metric| metric.name)
        .filter(|name| !asked.contains(name))
        .collect();
    assert!(left_out.is_empty(), "nobody looks at {left_out:?}");
}

#[test]
fn a_name_that_is_not_there_would_be_found() {
    let found = names("rate(duologue_turns_total{x=\"y\"}[5m]) / instance:duologue_turns:share");
    assert_eq!(found[0].0, "duologue_turns_total");
    assert_eq!(found[1].0, "instance:duologue_turns:share");
    let turns = metric("duologue_turns_total").unwrap();
    assert!(wrong_labels(turns, found[0].1).is_some());
    assert!(metric("duologue_turn_total").is_none());
    assert!(metric("duologue_voice_to_voice_seconds").is_none());
    assert!(metric("duologue_voice_to_voice_seconds_bucket").is_some());
}
