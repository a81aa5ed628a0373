//! Where a turn's time went, from the user's last sample to the first that is sent back.

use std::time::Duration;

use serde_json::{Value, json};

/// Steps of a turn, in the order in which they are usually reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The turn was decided to be over.
    EndOfTurn,
    /// Its final transcript was there.
    Transcript,
    /// The model had written the first clause.
    FirstClause,
    /// The voice had made its first frame.
    FirstAudio,
    /// That frame was handed to the transport.
    Sent,
}

impl Step {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfTurn => "end_of_turn",
            Self::Transcript => "transcript",
            Self::FirstClause => "first_clause",
            Self::FirstAudio => "first_audio",
            Self::Sent => "sent",
        }
    }
}

/// One turn's figures, from the user's last sample on.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    turn: u64,
    /// When steps were reached, in that order.
    pub steps: Vec<(Step, Duration)>,
    /// When the first sound was sent.
    pub voice_to_voice: Duration,
}

impl Figures {
    /// As clients are told.
    pub fn to_json(&self) -> Value {
        let ms = |after: &Duration| (after.as_micros() as f64 / 100.0).round() / 10.0;
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|(step, after)| json!({"name": step.name(), "ms": ms(after)}))
            .collect();
        json!({"turn": self.turn, "steps": steps, "voice_to_voice_ms": ms(&self.voice_to_voice)})
    }
}

/// Times one turn.
#[derive(Debug, Default)]
pub struct TurnTimer {
    turn: u64,
    since: Option<Duration>,
    reached: Vec<(Step, Duration)>,
    told: bool,
}

impl TurnTimer {
    /// The user fell silent, or asked for a reply: the clock runs from here, unless a reply is already being
    /// heard.
    pub fn start(&mut self, since: Duration) {
        self.since = Some(since);
        self.reached.clear();
        self.told = false;
    }

    /// A step was reached; later ones of the same kind do not count.
    pub fn reach(&mut self, step: Step, at: Duration) {
        if self.since.is_some() && !self.reached.iter().any(|(known, _)| *known == step) {
            self.reached.push((step, at));
        }
    }

    /// The turn's figures, once, when its first sound has been sent.
    pub fn finish(&mut self) -> Option<Figures> {
        let since = self.since?;
        let &(_, sent) = self.reached.iter().find(|(step, _)| *step == Step::Sent)?;
        if std::mem::replace(&mut self.told, true) {
            return None;
        }
        self.turn += 1;
        self.reached.sort_by_key(|(_, at)| *at);
        let after = |at: Duration| at.saturating_sub(since);
        Some(Figures {
            turn: self.turn,
            steps: self
                .reached
                .iter()
                .map(|(step, at)| (*step, after(*at)))
                .collect(),
            voice_to_voice: after(sent),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn steps_are_told_once_in_the_order_they_were_reached() {
        let mut timer = TurnTimer::default();
        timer.start(ms(1_000));
        timer.reach(Step::EndOfTurn, ms(1_300));
        timer.reach(Step::Transcript, ms(1_250));
        timer.reach(Step::FirstClause, ms(1_500));
        timer.reach(Step::FirstClause, ms(1_900));
        assert_eq!(timer.finish(), None);
        timer.reach(Step::Sent, ms(1_600));
        let told = timer.finish().unwrap().to_json();
        assert_eq!(told["voice_to_voice_ms"], 600.0);
        let names: Vec<_> = told["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| &step["name"])
            .collect();
        assert_eq!(names, ["transcript", "end_of_turn", "first_clause", "sent"]);
        assert_eq!(timer.finish(), None);
    }

    #[test]
    fn a_pause_in_the_middle_of_a_turn_starts_the_clock_anew() {
        let mut timer = TurnTimer::default();
        timer.start(ms(1_000));
        timer.reach(Step::Transcript, ms(1_200));
        timer.start(ms(3_000));
        timer.reach(Step::Sent, ms(3_500));
        assert_eq!(timer.finish().unwrap().steps, [(Step::Sent, ms(500))]);
    }
}
