//! The same decision, with what was found of every worker.

use std::fmt;

use duologue_registry::WorkerState;
use serde::Serialize;

use super::decide::{Because, Decision, Entry, Judge, Out, route};
use super::policy::Policy;
use super::price;
use crate::fleet::Wanted;

/// A decision and its reasons. `Display` is for people, serialization for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Where to speak; `None`: nowhere now.
    pub worker: Option<String>,
    /// Voice to speak with.
    pub voice: Option<String>,
    /// Why there.
    pub because: Option<Because>,
    /// Worker that is to load the wanted voice in the background.
    pub load_on: Option<String>,
    /// Workers that would do, had they room.
    pub busy: usize,
    /// Every worker, for the wanted voice: the best first, then those that are out.
    pub candidates: Vec<Candidate>,
    /// Every worker, for the voices that may stand in; empty where none is needed.
    pub stand_ins: Vec<Candidate>,
}

/// A worker, and what was found of it.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Its name.
    pub worker: String,
    /// Voice that it would speak with.
    pub voice: Option<String>,
    /// Why it does not come into question.
    pub out: Option<String>,
    /// What speaks for it, most important first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferences: Option<Preferences>,
}

/// What decides between those that come into question, most important first.
#[derive(Clone, Debug, Serialize)]
pub struct Preferences {
    /// The voice is in its memory.
    pub resident: bool,
    /// Tags of the policy that it lacks.
    pub missing_tags: usize,
    /// What its sessions take of its speed beyond half of it, this one included, percent.
    pub strain_percent: f64,
    /// Share of its slots that is taken, with this session and with what waits, percent.
    pub share_percent: f64,
    /// Slots that are taken.
    pub taken: u32,
    /// Slots that there is room for; `None`: unlimited.
    pub room: Option<u32>,
    /// Utterances that wait there.
    pub queue_depth: u32,
    /// Median time to first sound, ms; 0: not measured.
    pub first_audio_p50_ms: f32,
    /// It spoke for this session last.
    pub last: bool,
}

/// Decides as [`route`] does, and says why.
#[must_use]
pub fn explain(wanted: &Wanted, workers: &[WorkerState], policy: &Policy) -> Explanation {
    let judge = Judge { wanted, policy };
    let of = judge.described(workers);
    let decision = route(wanted, workers, policy);
    let needs_stand_in = !matches!(
        &decision,
        Decision::Speak(route) if route.because == Because::Resident
    );
    let mut explanation = Explanation {
        worker: None,
        voice: None,
        because: None,
        load_on: None,
        busy: 0,
        candidates: judge.all(workers, |worker| judge.as_wanted(worker)),
        stand_ins: if needs_stand_in {
            judge.all(workers, |worker| judge.in_place(worker, of))
        } else {
            Vec::new()
        },
    };
    match decision {
        Decision::Speak(route) => {
            explanation.worker = Some(route.worker.name.clone());
            explanation.voice = Some(route.voice);
            explanation.because = Some(route.because);
            explanation.load_on = route.load.map(|load| load.worker.name.clone());
        }
        Decision::Busy { suited } => explanation.busy = suited,
        Decision::Nobody => {}
    }
    explanation
}

impl<'a> Judge<'a> {
    fn all(
        &self,
        workers: &'a [WorkerState],
        judge: impl Fn(&'a WorkerState) -> Result<Entry<'a>, Out<'a>>,
    ) -> Vec<Candidate> {
        let mut fit = Vec::new();
        let mut out = Vec::new();
        for worker in workers {
            match judge(worker) {
                Ok(entry) => fit.push(entry),
                Err(why) => out.push(Candidate {
                    worker: worker.record.name.clone(),
                    voice: None,
                    out: Some(self.words(why, worker)),
                    preferences: None,
                }),
            }
        }
        fit.sort_by(|a, b| self.compare(a, b));
        let fit = fit.iter().map(|entry| self.candidate(entry));
        fit.chain(out).collect()
    }

    fn candidate(&self, entry: &Entry<'_>) -> Candidate {
        let record = &entry.worker.record;
        Candidate {
            worker: record.name.clone(),
            voice: Some(entry.voice.to_owned()),
            out: None,
            preferences: Some(Preferences {
                resident: entry.resident,
                missing_tags: entry.merit.missing_tags,
                strain_percent: entry.merit.load.strain as f64 / 1e4,
                share_percent: entry.merit.load.share as f64 / 1e4,
                taken: entry.worker.taken,
                room: Some(entry.room).filter(|room| *room != u32::MAX),
                queue_depth: record.live.queue_depth,
                first_audio_p50_ms: record.live.first_audio_p50_ms,
                last: !entry.merit.not_last,
            }),
        }
    }

    fn words(&self, why: Out<'_>, worker: &WorkerState) -> String {
        let voice = &self.wanted.voice.voice;
        match why {
            Out::Avoided => "it has just failed this session".into(),
            Out::Draining => "it drains: no new sessions".into(),
            Out::NoVoice => format!("it has no voice {voice:?} on its disk"),
            Out::OtherLanguage => match &self.wanted.language {
                Some(language) => format!("its voice does not speak {language}"),
                None => "none of its voices speaks the language of the wanted one".into(),
            },
            Out::Lacks(what) => format!("it lacks {what:?}, which is required"),
            Out::NotResident => "no voice that may stand in is in its memory".into(),
            Out::NoFallback => "it has no voice that may stand in".into(),
            Out::Full => {
                let room = price::room(&worker.record.live, self.wanted.mode);
                format!("all it has room for is taken: {} of {room}", worker.taken)
            }
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because = |because| match because {
            Because::Resident => "it is the best that has the voice in memory",
            Because::Cold => "it is the best, and loads the voice first",
            Because::StandsInWhileLoading => "this voice stands in while the wanted one is loaded",
            Because::StandsInWhileBusy => {
                "this voice stands in: no worker with the wanted one has room"
            }
            Because::StandsInForGood => "this voice stands in: no worker has the wanted one",
        };
        match (&self.worker, &self.voice, self.because) {
            (Some(worker), Some(voice), Some(why)) => {
                writeln!(f, "{worker} speaks with {voice}: {}", because(why))?;
            }
            _ if self.busy > 0 => writeln!(
                f,
                "Nobody speaks now: {} would do, and none has room. It is waited for",
                self.busy
            )?,
            _ => writeln!(f, "Nobody speaks: no worker would do")?,
        }
        let stands_in = self.because == Some(Because::StandsInWhileLoading);
        if let Some(worker) = self.load_on.as_ref().filter(|_| stands_in) {
            writeln!(f, "{worker} loads the wanted voice, for the next turn")?;
        }
        section(f, "For the wanted voice, the best first", &self.candidates)?;
        section(f, "For a voice that stands in", &self.stand_ins)
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, candidates: &[Candidate]) -> fmt::Result {
    if candidates.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}:")?;
    let width = candidates.iter().map(|c| c.worker.len()).max().unwrap_or(0);
    for candidate in candidates {
        write!(f, "  {:width$}  ", candidate.worker)?;
        match (&candidate.out, &candidate.preferences) {
            (Some(out), _) => writeln!(f, "out: {out}")?,
            (None, Some(p)) => {
                let voice = candidate.voice.as_deref().unwrap_or_default();
                let place = if p.resident { "in memory" } else { "on disk" };
                write!(f, "{voice} {place}; ")?;
                if p.strain_percent > 0.0 {
                    write!(f, "strained by {:.0}%; ", p.strain_percent)?;
                }
                write!(f, "share {:.1}% (", p.share_percent)?;
                match p.room {
                    Some(room) => write!(f, "{} of {room} taken", p.taken)?,
                    None => write!(f, "{} taken", p.taken)?,
                }
                write!(f, ", {} wait); ", p.queue_depth)?;
                match p.first_audio_p50_ms {
                    ms if ms > 0.0 => write!(f, "first audio {ms:.0} ms")?,
                    _ => write!(f, "first audio not measured")?,
                }
                if p.missing_tags > 0 {
                    write!(f, "; lacks {} preferred tags", p.missing_tags)?;
                }
                if p.last {
                    write!(f, "; spoke last")?;
                }
                writeln!(f)?;
            }
            (None, None) => writeln!(f)?,
        }
    }
    Ok(())
}
