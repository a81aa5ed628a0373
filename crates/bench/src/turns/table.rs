//! The figures of all scenes, with the aims beside them.

use std::collections::BTreeMap;

use duologue_scenes::Kind;
use duologue_scenes::measure::Figures;
use serde_json::{Value, json};

use super::Outcome;
use crate::report::{Report, median, percentile};

/// Joins the figures of scenes.
pub fn total<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Figures {
    let mut sum = Figures::default();
    for outcome in outcomes {
        sum.add(&outcome.figures);
    }
    sum
}

/// How many scenes of each kind there are in which a reply was heard, how many of them had a false interruption, and
/// the figures of all of them. A reply that was never heard cannot be interrupted: it is no success.
fn by_kind(outcomes: &[Outcome]) -> BTreeMap<Kind, (usize, usize, Figures)> {
    let mut kinds: BTreeMap<Kind, (usize, usize, Figures)> = BTreeMap::new();
    for outcome in outcomes {
        let (scenes, falsely, figures) = kinds.entry(outcome.scene.kind).or_default();
        *scenes += usize::from(outcome.trace.heard_reply(1).is_some());
        *falsely += usize::from(outcome.figures.false_interruptions > 0);
        figures.add(&outcome.figures);
    }
    kinds
}

fn share(part: usize, of: usize) -> f64 {
    if of == 0 {
        0.0
    } else {
        part as f64 / of as f64
    }
}

fn percent(part: usize, of: usize) -> String {
    format!("{:.1}% ({part} of {of})", share(part, of) * 100.0)
}

/// The whole report.
pub fn report(
    outcomes: &[Outcome],
    without: &[Outcome],
    parallel: usize,
    serve: &[String],
    remarks: Vec<String>,
) -> Report {
    let mut report = Report::new("turns", &["measure", "aim", "p50", "p95", "n"], Value::Null);
    let all = total(outcomes);
    let mut figures = serde_json::Map::new();
    let mut times = |name: &'static str, what: &str, aim: &str, values: &[f64]| {
        let (middle, most) = (median(values), percentile(values, 0.95));
        figures.insert(
            name.to_owned(),
            json!({"p50_ms": middle, "p95_ms": most, "n": values.len()}),
        );
        let cell = |value: f64| match values.is_empty() {
            true => "-".to_owned(),
            false => format!("{value:.0} ms"),
        };
        report.row(vec![
            what.to_owned(),
            aim.to_owned(),
            cell(middle),
            cell(most),
            values.len().to_string(),
        ]);
    };
    times(
        "onset_to_silence",
        "speech onset over a reply -> silence at the client",
        "p95 <= 200 ms",
        &all.onset_to_silence,
    );
    times(
        "edge_to_silence",
        "voice detector's edge -> last audible frame",
        "p95 <= 50 ms",
        &all.edge_to_silence,
    );
    times(
        "onset_to_commit",
        "speech onset -> reply given up",
        "",
        &all.onset_to_commit,
    );
    times(
        "time_to_resume",
        "suspicion taken back -> reply audible again",
        "p95 <= 300 ms",
        &all.time_to_resume,
    );
    times("hushed", "held for nothing, each time", "", &all.hushed);
    times(
        "wait",
        "true end of a turn -> held for over",
        "p50 <= 300 ms",
        &all.waits,
    );
    times(
        "answer",
        "true end of a turn -> reply audible",
        "",
        &all.answers,
    );
    let mut shares = |name: String, what: String, aim: &str, part: usize, of: usize| {
        figures.insert(
            name,
            json!({"share": share(part, of), "part": part, "of": of}),
        );
        report.row(vec![
            what,
            aim.to_owned(),
            percent(part, of),
            String::new(),
            of.to_string(),
        ]);
    };
    shares(
        "missed".into(),
        "interruptions missed".into(),
        "<= 2%",
        all.missed,
        all.wanted,
    );
    let kinds = by_kind(outcomes);
    let (mut harmless, mut falsely) = (0, 0);
    for (kind, (scenes, wrong, _)) in kinds.iter().filter(|(kind, _)| kind.is_harmless()) {
        harmless += scenes;
        falsely += wrong;
        let what = format!("false interruptions: {}", kind.name());
        shares(
            format!("false_{}", kind.name()),
            what,
            "<= 2%",
            *wrong,
            *scenes,
        );
    }
    shares(
        "false".into(),
        "false interruptions: all".into(),
        "<= 2%",
        falsely,
        harmless,
    );
    shares(
        "cut_offs".into(),
        "turns held for over too soon".into(),
        "<= 10%",
        all.cut_offs,
        all.turns,
    );
    shares(
        "cut_off_audibly".into(),
        "turns answered audibly too soon".into(),
        "",
        all.cut_off_audibly,
        all.turns,
    );
    shares(
        "unanswered".into(),
        "written questions never answered".into(),
        "0",
        all.unanswered,
        all.written,
    );
    shares(
        "false_turns".into(),
        "scenes in which noise became a message".into(),
        "0",
        outcomes
            .iter()
            .filter(|outcome| outcome.figures.false_turns > 0)
            .count(),
        outcomes
            .iter()
            .filter(|outcome| outcome.scene.kind.is_harmless())
            .count(),
    );
    shares(
        "words_wrong".into(),
        format!(
            "words wrong in the history ({} unheard, {} missing)",
            all.word_errors.unheard, all.word_errors.missing
        ),
        "0",
        all.word_errors.total(),
        all.words,
    );
    shares(
        "words_wrong_estimated".into(),
        "the same, where the server has to estimate".into(),
        "",
        all.estimated_word_errors.total(),
        all.estimated_words,
    );
    let failed: Vec<&Outcome> = outcomes
        .iter()
        .filter(|outcome| !outcome.passed())
        .collect();
    shares(
        "scenes_failed".into(),
        "scenes that failed in anything".into(),
        "0",
        failed.len(),
        outcomes.len(),
    );
    if !without.is_empty() {
        let theirs = by_kind(without);
        for (kind, (scenes, wrong, sums)) in kinds.iter().filter(|(kind, _)| kind.is_harmless()) {
            let Some((other_scenes, other_wrong, other)) = theirs.get(kind) else {
                continue;
            };
            report.row(vec![
                format!(
                    "{}: false interruptions, with | without gate and thresholds",
                    kind.name()
                ),
                String::new(),
                percent(*wrong, *scenes),
                percent(*other_wrong, *other_scenes),
                scenes.to_string(),
            ]);
            report.row(vec![
                format!("{}: times held for nothing, with | without", kind.name()),
                String::new(),
                sums.held_for_nothing.to_string(),
                other.held_for_nothing.to_string(),
                scenes.to_string(),
            ]);
        }
        let with_all: Vec<&Outcome> = outcomes
            .iter()
            .filter(|outcome| outcome.scene.kind.is_harmless())
            .collect();
        let sum = |of: &[&Outcome]| total(of.iter().copied());
        let (ours, others) = (sum(&with_all), total(without));
        let wrong = |sum: &Figures| sum.false_interruptions + sum.held_for_nothing + sum.unanswered;
        let fewer = 100.0 * (1.0 - share(wrong(&ours), wrong(&others).max(1)));
        report.remark(format!(
            "With the gate and state-aware thresholds a reply was cut off, held for nothing or kept from coming {} times ({} of them cut off), without them {} times ({}): {fewer:.0}% fewer.",
            wrong(&ours),
            ours.false_interruptions,
            wrong(&others),
            others.false_interruptions,
        ));
        figures.insert(
            "without".into(),
            json!({
                "false_interruptions": others.false_interruptions,
                "held_for_nothing": others.held_for_nothing,
                "with_false_interruptions": ours.false_interruptions,
                "with_held_for_nothing": ours.held_for_nothing,
            "unanswered": others.unanswered,
            "with_unanswered": ours.unanswered,
            }),
        );
    }
    for remark in remarks {
        report.remark(remark);
    }
    let late = outcomes
        .iter()
        .map(|outcome| outcome.trace.late)
        .fold(0.0, f64::max);
    let spoilt = outcomes
        .iter()
        .filter(|outcome| outcome.trace.late > super::TOO_LATE)
        .count();
    let asr = match serve.iter().position(|option| option == "--asr") {
        Some(at) => serve.get(at + 1).map_or("", String::as_str),
        None => "whisper-tiny.en",
    };
    report.remark(format!(
        "{} scenes, {parallel} at once, in real time over WebSockets; {asr}; the language model is scripted and asked over HTTP. \
         The clients' clocks were at most {:.0} ms late.",
        outcomes.len(),
        late * 1_000.0
    ));
    if spoilt > 0 {
        report.remark(format!(
            "In {spoilt} scenes a client's clock was more than {:.0} ms late: the machine was too busy, and times are worse than they are.",
            super::TOO_LATE * 1_000.0
        ));
    }
    let scenes: Vec<Value> = outcomes.iter().map(scene_json).collect();
    figures.insert("scenes".into(), Value::Array(scenes));
    report.set_figures(Value::Object(figures));
    report
}

fn scene_json(outcome: &Outcome) -> Value {
    let verdicts: Vec<Value> = outcome
        .verdicts
        .iter()
        .map(|verdict| json!({"what": verdict.what, "passed": verdict.passed, "found": verdict.found}))
        .collect();
    let figures = &outcome.figures;
    json!({
        "name": outcome.scene.name,
        "kind": outcome.scene.kind.name(),
        "passed": outcome.passed(),
        "seconds": outcome.trace.seconds(),
        "late_ms": outcome.trace.late * 1_000.0,
        "verdicts": verdicts,
        "evidence": outcome.trace.evidence.iter().map(|(at, why)| json!([at, why])).collect::<Vec<_>>(),
        "user": outcome.trace.user_messages,
        "held_for_nothing": figures.held_for_nothing,
        "onset_to_silence_ms": figures.onset_to_silence,
        "edge_to_silence_ms": figures.edge_to_silence,
        "time_to_resume_ms": figures.time_to_resume,
        "wait_ms": figures.waits,
        "cut_offs": figures.cut_offs,
        "cut_off_audibly": figures.cut_off_audibly,
        "answer_ms": figures.answers,
    })
}
