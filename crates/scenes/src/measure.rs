//! Figures of a scene, and of many together. Times are milliseconds by the client's clock.

use crate::BLOCK_SECONDS;
use crate::check::{WordErrors, word_errors};
use crate::scene::{Act, Kind, Scene, unnamed};
use crate::trace::{Happening, Trace};

/// What one scene adds to the figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// From the onset of speech that interrupts to the end of the last block that could be heard.
    pub onset_to_silence: Vec<f64>,
    /// From the voice detector's edge, as the server tells it, to the end of the last block that could be heard.
    pub edge_to_silence: Vec<f64>,
    /// Interruptions that should have been, and those that came too late or never.
    pub wanted: usize,
    /// See above.
    pub missed: usize,
    /// From the onset of speech that interrupts until the reply was given up.
    pub onset_to_commit: Vec<f64>,
    /// Replies cut off by what was no interruption.
    pub false_interruptions: usize,
    /// Times that a reply was held for nothing.
    pub held_for_nothing: usize,
    /// Milliseconds for which a reply was held for nothing.
    pub hushed: Vec<f64>,
    /// Messages of the user's that nobody said.
    pub false_turns: usize,
    /// From the server's taking back of a suspicion to the next block that could be heard.
    pub time_to_resume: Vec<f64>,
    /// Questions that the user wrote, and those that no reply was ever heard to.
    pub written: usize,
    /// See above.
    pub unanswered: usize,
    /// Turns of the user's whose end is known.
    pub turns: usize,
    /// Of those, held for over before their end.
    pub cut_offs: usize,
    /// Of those, answered so that it could be heard before their end.
    pub cut_off_audibly: usize,
    /// From a turn's true end until it was held for over.
    pub waits: Vec<f64>,
    /// From a turn's true end until the reply could be heard.
    pub answers: Vec<f64>,
    /// Words of replies, where the client reports what it played.
    pub words: usize,
    /// Wrong ones of them in the history.
    pub word_errors: WordErrors,
    /// Words of replies, where the server estimates what was played.
    pub estimated_words: usize,
    /// Wrong ones of them in the history.
    pub estimated_word_errors: WordErrors,
}

/// Measures a scene.
#[must_use]
pub fn figures(scene: &Scene, trace: &Trace) -> Figures {
    let mut figures = Figures::default();
    interruptions(scene, trace, &mut figures);
    for step in trace
        .steps
        .iter()
        .filter(|step| is_written(scene, &step.name))
    {
        figures.written += 1;
        let answer = trace.first_from(Happening::Reply, step.at);
        figures.unanswered += usize::from(answer.is_none());
    }
    if scene.kind.is_harmless() {
        harmless(scene, trace, &mut figures);
    }
    for edge in &trace.edges {
        figures
            .edge_to_silence
            .extend(silence_after(trace, *edge).map(|end| ms(end - edge)));
    }
    for retraction in &trace.retractions {
        if is_audible_around(trace, retraction - 6.0, *retraction)
            && let Some(at) = next_audible(trace, *retraction)
        {
            figures.time_to_resume.push(ms(at - retraction));
        }
    }
    turns(scene, trace, &mut figures);
    for reply in &trace.replies {
        let errors = word_errors(reply, 0);
        let (words, sum) = match scene.client.reports {
            true => (&mut figures.words, &mut figures.word_errors),
            false => (
                &mut figures.estimated_words,
                &mut figures.estimated_word_errors,
            ),
        };
        *words += reply.words.len();
        sum.unheard += errors.unheard;
        sum.missing += errors.missing;
    }
    figures
}

fn is_written(scene: &Scene, name: &str) -> bool {
    scene.script.iter().enumerate().any(|(at, step)| {
        let own = step.name.clone().unwrap_or_else(|| unnamed(at));
        own == name && matches!(step.act(), Act::Type(_))
    })
}

fn ms(seconds: f64) -> f64 {
    (seconds * 1_000.0).max(0.0)
}

fn interruptions(scene: &Scene, trace: &Trace, figures: &mut Figures) {
    for expected in &scene.expect {
        let step = expected.since.step().and_then(|name| trace.step(name));
        let Some(step) =
            step.filter(|step| expected.event == Happening::Interruption && step.is_speech)
        else {
            continue;
        };
        let onset = step.onset();
        figures.wanted += 1;
        let committed = trace
            .first_from(Happening::Interruption, onset)
            .map(|at| at - onset)
            .filter(|after| after * 1_000.0 <= expected.within_ms as f64);
        match committed {
            Some(after) => {
                figures.onset_to_commit.push(ms(after));
                figures
                    .onset_to_silence
                    .extend(silence_after(trace, onset).map(|end| ms(end - onset)));
            }
            None => figures.missed += 1,
        }
    }
}

/// The end of the last block that could be heard before the sound was stopped, if it was being played at a time.
fn silence_after(trace: &Trace, from: f64) -> Option<f64> {
    let first = (from / BLOCK_SECONDS) as usize;
    if !is_audible_around(trace, from - 0.5, from + 0.1) {
        return None;
    }
    let blocks = trace.blocks.get(first..)?;
    // The sound was stopped where nothing was taken from what waits.
    let stopped = blocks.iter().position(|block| !block.playing)?;
    let last = blocks[..stopped]
        .iter()
        .rposition(|block| block.is_audible());
    Some(last.map_or(from, |last| (first + last + 1) as f64 * BLOCK_SECONDS))
}

fn is_audible_around(trace: &Trace, from: f64, to: f64) -> bool {
    let at = |seconds: f64| ((seconds / BLOCK_SECONDS).max(0.0) as usize).min(trace.blocks.len());
    trace.blocks[at(from)..at(to)]
        .iter()
        .any(|block| block.is_audible())
}

fn next_audible(trace: &Trace, from: f64) -> Option<f64> {
    let first = (from / BLOCK_SECONDS).ceil().max(0.0) as usize;
    let at = trace
        .blocks
        .get(first..)?
        .iter()
        .position(|block| block.is_audible())?;
    Some((first + at) as f64 * BLOCK_SECONDS)
}

fn harmless(scene: &Scene, trace: &Trace, figures: &mut Figures) {
    let happened = |what| trace.count(what, 0.0, f64::INFINITY);
    figures.false_interruptions = happened(Happening::Interruption);
    figures.held_for_nothing = happened(Happening::Held);
    if scene.kind != Kind::Backchannel {
        let said = trace.steps.iter().filter(|step| step.is_speech).count();
        figures.false_turns = happened(Happening::Turn).saturating_sub(said);
    }
    let mut held = None;
    for (at, what) in &trace.happenings {
        match what {
            Happening::Held => {
                held.get_or_insert(*at);
            }
            Happening::Resumed | Happening::Interruption => {
                figures
                    .hushed
                    .extend(held.take().map(|since| ms(at - since)));
            }
            _ => {}
        }
    }
}

fn turns(scene: &Scene, trace: &Trace, figures: &mut Figures) {
    for expected in &scene.expect {
        let step = expected.since.step().and_then(|name| trace.step(name));
        let Some(step) = step.filter(|step| expected.event == Happening::Reply && step.is_speech)
        else {
            continue;
        };
        let (onset, end) = (step.onset(), step.end());
        figures.turns += 1;
        figures.cut_offs += usize::from(trace.count(Happening::TurnOver, onset, end) > 0);
        figures.cut_off_audibly += usize::from(trace.count(Happening::Reply, onset + 0.3, end) > 0);
        let wait = trace.first_from(Happening::TurnOver, end);
        figures.waits.extend(wait.map(|at| ms(at - end)));
        let answer = trace.first_from(Happening::Reply, end);
        figures.answers.extend(answer.map(|at| ms(at - end)));
    }
}

impl Figures {
    /// Adds another scene's.
    pub fn add(&mut self, other: &Self) {
        let more = [
            (&mut self.onset_to_silence, &other.onset_to_silence),
            (&mut self.edge_to_silence, &other.edge_to_silence),
            (&mut self.onset_to_commit, &other.onset_to_commit),
            (&mut self.hushed, &other.hushed),
            (&mut self.time_to_resume, &other.time_to_resume),
            (&mut self.waits, &other.waits),
            (&mut self.answers, &other.answers),
        ];
        for (ours, theirs) in more {
            ours.extend(theirs);
        }
        let sums = [
            (&mut self.wanted, other.wanted),
            (&mut self.missed, other.missed),
            (&mut self.false_interruptions, other.false_interruptions),
            (&mut self.held_for_nothing, other.held_for_nothing),
            (&mut self.false_turns, other.false_turns),
            (&mut self.written, other.written),
            (&mut self.unanswered, other.unanswered),
            (&mut self.turns, other.turns),
            (&mut self.cut_offs, other.cut_offs),
            (&mut self.cut_off_audibly, other.cut_off_audibly),
            (&mut self.words, other.words),
            (&mut self.word_errors.unheard, other.word_errors.unheard),
            (&mut self.word_errors.missing, other.word_errors.missing),
            (&mut self.estimated_words, other.estimated_words),
            (
                &mut self.estimated_word_errors.unheard,
                other.estimated_word_errors.unheard,
            ),
            (
                &mut self.estimated_word_errors.missing,
                other.estimated_word_errors.missing,
            ),
        ];
        for (ours, theirs) in sums {
            *ours += theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Block, StepTrace};

    fn block(playing: bool) -> Block {
        Block {
            user: f32::NEG_INFINITY,
            noise: f32::NEG_INFINITY,
            echo: f32::NEG_INFINITY,
            played: if playing { -20.0 } else { f32::NEG_INFINITY },
            playing,
        }
    }

    #[test]
    fn an_interruption_is_measured_from_its_onset_to_the_last_block_that_was_heard() {
        let scene = &crate::parse(
            "x",
            "about: x\nkind: interruption\nreplies: [{text: One two.}]\nscript: [{at: 1, say: a.flac, name: cut}]\n\
             expect: [{event: interruption, since: cut, within_ms: 1500}, {event: reply, since: end of cut, within_ms: 900}]",
        )
        .unwrap()[0];
        let mut trace = Trace::default();
        trace.blocks.extend((0..60).map(|_| block(true)));
        trace.blocks.extend((0..100).map(|_| block(false)));
        trace.steps.push(StepTrace {
            name: "cut".into(),
            label: "a".into(),
            is_speech: true,
            spans: vec![(1.0, 1.4), (2.0, 2.5)],
            at: 1.0,
        });
        trace.edges.push(1.15);
        trace.happenings = vec![
            (1.17, Happening::Held),
            (1.8, Happening::Interruption),
            (1.9, Happening::TurnOver),
            (2.8, Happening::TurnOver),
            (3.0, Happening::Reply),
        ];
        let found = figures(scene, &trace);
        assert_eq!((found.wanted, found.missed), (1, 0));
        assert!(
            (found.onset_to_silence[0] - 200.0).abs() < 1e-6,
            "{found:?}"
        );
        assert!((found.edge_to_silence[0] - 50.0).abs() < 1e-6, "{found:?}");
        assert_eq!(
            (found.turns, found.cut_offs, found.cut_off_audibly),
            (1, 1, 0)
        );
        assert!((found.waits[0] - 300.0).abs() < 1e-6);
    }
}
