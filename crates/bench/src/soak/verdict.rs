//! What must hold over the whole time. Pure: figures in, verdicts out.

use super::samples::{Sample, mean};
use super::talker::Notes;
use crate::report::percentile;

/// Growth that counts as flat: a share of what there was, ...
const GROWTH: f64 = 0.05;
/// ... or so much for each session and minute, MB: what was said is kept as long as the session lasts.
const GROWTH_MB: f64 = 1.5;
/// And at least this, MB: allocators round.
const GROWTH_LEAST: f64 = 20.0;
/// Open files and threads may be so many more at the end.
const FURTHER: f64 = 4.0;
/// The second half may be slower than the first by this factor, and this much, ms.
const SLOWER: (f64, f64) = (1.5, 250.0);
/// A client that had no answer for so long at the end is stuck, seconds.
const STUCK: f64 = 60.0;

/// Whether something held.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What was asked for.
    pub what: &'static str,
    /// As figures.
    pub wanted: String,
    /// What was found.
    pub found: String,
    /// Whether it held.
    pub held: bool,
}

/// What was measured in all.
pub struct Measured<'a> {
    /// Of each client.
    pub notes: &'a [Notes],
    /// Clients whose session ended before its time, and why.
    pub lost: &'a [String],
    /// Of the server's process.
    pub samples: &'a [Sample],
    /// Underruns that the server counted.
    pub server_underruns: Option<f64>,
    /// Replies whose sound was another client's, and replies whose sound was looked at.
    pub crossed_sound: (usize, usize),
    /// How long it lasted, seconds.
    pub seconds: f64,
}

/// Judges a soak.
pub fn judge(measured: &Measured<'_>) -> Vec<Verdict> {
    let notes = measured.notes;
    let clients = notes.len();
    let answered: usize = notes.iter().map(|n| n.answered).sum();
    let unanswered: usize = notes.iter().map(|n| n.unanswered.len()).sum();
    let stuck = notes
        .iter()
        .filter(|n| measured.seconds - n.last_answer > STUCK.min(measured.seconds * 0.8))
        .count();
    let gaps: Vec<f64> = all(notes, |n| &n.underruns);
    let crossed: usize = notes.iter().map(|n| n.crossed.len()).sum();
    let errors: usize = notes.iter().map(|n| n.errors.len()).sum();
    let verdict = |what, wanted: &str, found: String, held| Verdict {
        what,
        wanted: wanted.to_owned(),
        found,
        held,
    };
    let underruns = measured.server_underruns.unwrap_or(0.0);
    vec![
        verdict(
            "sessions that lasted, without an error",
            "all",
            format!(
                "{} of {clients}, {errors} errors",
                clients - measured.lost.len()
            ),
            measured.lost.is_empty() && errors == 0 && clients > 0,
        ),
        verdict(
            "no deadlock: every client is answered to the end",
            "all",
            format!(
                "{} of {clients}; {answered} questions answered, {unanswered} not",
                clients - stuck
            ),
            stuck == 0 && unanswered * 20 <= answered,
        ),
        verdict(
            "silence in the midst of a reply (at the clients; by the server's count)",
            "0; 0",
            format!("{}{}; {underruns:.0}", gaps.len(), longest(&gaps)),
            gaps.is_empty() && underruns == 0.0,
        ),
        verdict(
            "words, sound and questions of another session",
            "0",
            format!(
                "{} ({} replies listened to)",
                crossed + measured.crossed_sound.0,
                measured.crossed_sound.1
            ),
            crossed + measured.crossed_sound.0 == 0,
        ),
        grown(measured),
        further("open files", measured.samples, |sample| sample.files),
        further("threads", measured.samples, |sample| sample.threads),
        steady("first audio", notes, |n| &n.first_audio, measured.seconds),
        steady("barge-in", notes, |n| &n.barge_in, measured.seconds),
    ]
}

fn longest(gaps: &[f64]) -> String {
    match gaps.is_empty() {
        true => String::new(),
        false => format!(", the longest of {:.0} ms", percentile(gaps, 1.0)),
    }
}

/// A measure of all clients.
pub fn all(notes: &[Notes], of: fn(&Notes) -> &Vec<(f64, f64)>) -> Vec<f64> {
    notes.iter().flat_map(of).map(|(_, value)| *value).collect()
}

/// After a third of the time models, caches and threads are there.
fn grown(measured: &Measured<'_>) -> Verdict {
    let of = |part| mean(measured.samples, part, |sample| sample.megabytes);
    let (before, after) = (of((0.33, 0.5)), of((0.85, 1.0)));
    let minutes = measured.seconds / 60.0;
    let allowed = (before * GROWTH)
        .max(GROWTH_MB * measured.notes.len() as f64 * minutes)
        .max(GROWTH_LEAST);
    Verdict {
        what: "memory is flat (mean of the last part, less that of the middle)",
        wanted: format!("≤ {allowed:.0} MB"),
        found: format!("{:+.1} MB, from {before:.0}", after - before),
        held: after > 0.0 && after - before <= allowed,
    }
}

fn further(what: &'static str, samples: &[Sample], of: fn(&Sample) -> f64) -> Verdict {
    let (before, after) = (
        mean(samples, (0.33, 0.5), of),
        mean(samples, (0.85, 1.0), of),
    );
    Verdict {
        what,
        wanted: format!("≤ {FURTHER:+.0}"),
        found: format!("{:+.1}, from {before:.0}", after - before),
        held: after > 0.0 && after - before <= FURTHER,
    }
}

fn steady(
    what: &'static str,
    notes: &[Notes],
    of: fn(&Notes) -> &Vec<(f64, f64)>,
    seconds: f64,
) -> Verdict {
    let part = |second: bool| -> Vec<f64> {
        let points = notes.iter().flat_map(of);
        let within = points.filter(|(at, _)| (*at >= seconds / 2.0) == second);
        within.map(|(_, value)| *value).collect()
    };
    let (first, second) = (part(false), part(true));
    let whole = all(notes, of);
    let (before, after) = (percentile(&first, 0.95), percentile(&second, 0.95));
    // Of a handful, the 95th percentile is the worst.
    let enough = first.len() >= 5 && second.len() >= 5;
    Verdict {
        what,
        wanted: format!(
            "p95 of the second half ≤ {} × the first's + {:.0} ms",
            SLOWER.0, SLOWER.1
        ),
        found: format!(
            "p50 {:.0}, p95 {:.0} ms of {} (halves: {before:.0}, {after:.0})",
            percentile(&whole, 0.5),
            percentile(&whole, 0.95),
            whole.len()
        ),
        held: !enough || after <= before * SLOWER.0 + SLOWER.1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> (Vec<Notes>, Vec<Sample>) {
        let times = |value: f64| (1..60).map(|n| (f64::from(n) * 10.0, value)).collect();
        let notes = Notes {
            first_audio: times(1_000.0),
            barge_in: times(120.0),
            answered: 60,
            last_answer: 590.0,
            ..Notes::default()
        };
        let samples = (0..600)
            .map(|at| Sample {
                at: f64::from(at),
                megabytes: 1_300.0,
                files: 40.0,
                threads: 30.0,
                ..Sample::default()
            })
            .collect();
        (vec![notes; 3], samples)
    }

    fn failing(notes: &[Notes], lost: &[String], samples: &[Sample]) -> Vec<&'static str> {
        let measured = Measured {
            notes,
            lost,
            samples,
            server_underruns: Some(0.0),
            crossed_sound: (0, 6),
            seconds: 600.0,
        };
        let verdicts = judge(&measured).into_iter();
        verdicts.filter(|v| !v.held).map(|v| v.what).collect()
    }

    #[test]
    fn a_soak_in_which_all_went_well_holds_and_each_fault_is_found_alone() {
        let (notes, samples) = good();
        assert!(failing(&notes, &[], &samples).is_empty());
        let one = |fault: fn(&mut Notes)| {
            let mut notes = notes.clone();
            fault(&mut notes[1]);
            failing(&notes, &[], &samples)
        };
        assert!(one(|n| n.last_answer = 400.0)[0].contains("deadlock"));
        assert!(one(|n| n.underruns.push((5.0, 60.0)))[0].contains("midst"));
        assert!(one(|n| n.crossed.push("x".to_owned()))[0].contains("another session"));
        assert!(one(|n| n.errors.push("x".to_owned()))[0].contains("without an error"));
        let slower = one(|n| {
            for (at, value) in &mut n.first_audio {
                *value *= if *at > 300.0 { 3.0 } else { 1.0 };
            }
        });
        assert_eq!(slower, ["first audio"]);
        assert_eq!(failing(&notes, &["gone".to_owned()], &samples).len(), 1);
    }

    #[test]
    fn what_grows_with_time_is_found() {
        let (notes, mut samples) = good();
        for sample in &mut samples {
            sample.megabytes += sample.at;
            sample.files += sample.at / 50.0;
        }
        let found = failing(&notes, &[], &samples);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("memory") && found[1] == "open files");
        assert!(failing(&notes, &[], &[]).len() >= 3, "nothing was measured");
    }
}
