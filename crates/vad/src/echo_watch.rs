//! Is there an echo at all? Most clients cancel it themselves, and a canceller without an echo costs time and
//! takes the first words of whoever speaks over a reply for one.
//!
//! So the canceller runs beside the sound at first, and nobody hears what it leaves. There is an echo when it
//! finds a delay, or takes out of the sound what was played. The delay comes first, after half a second of speech,
//! and can be a mistake: then it is on trial, and what is left is listened to until a few seconds have shown
//! whether it takes anything out. When nothing is found the canceller is given up.
//!
//! Pure: it is told what the canceller says, 10 ms at a time.

use crate::EchoStatistics;

/// Steps of 10 ms in a second.
const SECOND: u32 = 100;
/// Played sound after which nothing is expected any more: twice of what an echo takes to be found.
const PATIENCE: u32 = 8 * SECOND;
/// Played sound within which a delay has to prove itself.
const TRIAL: u32 = 4 * SECOND;
/// What a canceller takes out, in dB, when there is an echo: without one, and somebody speaking
/// over the reply, it stayed below 2.5 with all of 29 recordings tried.
const SURE_DB: f32 = 3.0;
/// What it takes out when a delay was right.
const LIKELY_DB: f32 = 1.0;
/// Mean square of sound that is played and can be heard: -50 dBFS.
const AUDIBLE: f32 = 1e-5;
/// How far back it is looked whether all that is heard is the echo.
const SPAN: f32 = 20.0;
/// What is left of sound that is nothing but an echo: less than a twentieth of its energy.
const REST: f32 = 0.05;

/// Decides whether a canceller's work is listened to.
#[derive(Debug, Default)]
pub(crate) struct EchoWatch {
    stage: Stage,
    /// Steps with played sound in this stage.
    active: u32,
    /// The delay that a canceller names before it knows one.
    unknown: Option<u32>,
    /// A delay was on trial and proved wrong.
    mistaken: bool,
    /// Energy heard and left, fading.
    heard: f32,
    left: f32,
    told: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Looking,
    Trial,
    Found,
    GivenUp,
}

impl EchoWatch {
    /// Takes in 10 ms: the mean squares of what was played, heard and left, and what the canceller knows.
    pub fn step(&mut self, played: f32, heard: f32, left: f32, known: &EchoStatistics) {
        let unknown = *self.unknown.get_or_insert(known.delay_ms.unwrap_or(0));
        self.heard += (heard - self.heard) / SPAN;
        self.left += (left - self.left) / SPAN;
        if played < AUDIBLE {
            return;
        }
        self.active += 1;
        let enhancement = known.enhancement_db.unwrap_or(0.0);
        let next = match self.stage {
            Stage::Looking | Stage::Trial if enhancement >= SURE_DB => Stage::Found,
            Stage::Looking if !self.mistaken && known.delay_ms.is_some_and(|ms| ms != unknown) => {
                Stage::Trial
            }
            Stage::Looking if self.active >= PATIENCE => Stage::GivenUp,
            Stage::Trial if self.active >= TRIAL => {
                self.mistaken = enhancement < LIKELY_DB;
                if self.mistaken {
                    Stage::Looking
                } else {
                    Stage::Found
                }
            }
            stage => stage,
        };
        if next != self.stage {
            self.stage = next;
            self.active = 0;
        }
    }

    /// What the canceller leaves is to be listened to.
    pub fn is_found(&self) -> bool {
        matches!(self.stage, Stage::Trial | Stage::Found)
    }

    /// The canceller is of no use.
    pub fn is_given_up(&self) -> bool {
        self.stage == Stage::GivenUp
    }

    /// Whether the echo has just been found, and all that is heard at the moment is that echo. Tells it once.
    pub fn just_heard(&mut self) -> bool {
        let now = self.is_found()
            && !self.told
            && self.heard > AUDIBLE / 10.0
            && self.left < REST * self.heard;
        self.told |= now;
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(delay_ms: u32, enhancement: f32) -> EchoStatistics {
        EchoStatistics {
            delay_ms: Some(delay_ms),
            return_loss_db: None,
            enhancement_db: Some(enhancement),
        }
    }

    fn seconds(watch: &mut EchoWatch, seconds: u32, known: EchoStatistics) {
        for _ in 0..seconds * SECOND {
            watch.step(0.01, 0.001, 0.000_01, &known);
        }
    }

    #[test]
    fn without_an_echo_the_canceller_is_given_up_after_a_while_of_played_sound() {
        let mut watch = EchoWatch::default();
        for _ in 0..100 * SECOND {
            watch.step(0.0, 0.001, 0.001, &known(12, 0.0));
        }
        assert!(!watch.is_given_up(), "nothing was played");
        seconds(&mut watch, 7, known(12, 0.5));
        assert!(!watch.is_found() && !watch.is_given_up());
        seconds(&mut watch, 2, known(12, 0.5));
        assert!(watch.is_given_up());
    }

    #[test]
    fn a_delay_is_on_trial_until_the_echo_is_taken_out() {
        let mut watch = EchoWatch::default();
        seconds(&mut watch, 1, known(12, 0.0));
        seconds(&mut watch, 1, known(148, 0.0));
        assert!(watch.is_found());
        seconds(&mut watch, 1, known(148, 8.0));
        seconds(&mut watch, 60, known(148, 0.0));
        assert!(watch.is_found(), "what was found stays");
    }

    #[test]
    fn a_wrong_delay_is_listened_to_for_a_few_seconds_and_not_again() {
        let mut watch = EchoWatch::default();
        seconds(&mut watch, 1, known(12, 0.0));
        seconds(&mut watch, 3, known(340, 0.2));
        assert!(watch.is_found());
        seconds(&mut watch, 2, known(340, 0.2));
        assert!(!watch.is_found());
        seconds(&mut watch, 2, known(60, 0.2));
        assert!(!watch.is_found());
        seconds(&mut watch, 1, known(60, 4.0));
        assert!(watch.is_found(), "but what is taken out counts");
    }

    #[test]
    fn that_all_is_echo_is_told_once_and_not_while_somebody_speaks() {
        let mut watch = EchoWatch::default();
        seconds(&mut watch, 1, known(12, 0.0));
        assert!(!watch.just_heard());
        for _ in 0..SECOND {
            watch.step(0.01, 0.01, 0.005, &known(148, 5.0));
            assert!(!watch.just_heard());
        }
        seconds(&mut watch, 1, known(148, 5.0));
        assert!(watch.just_heard());
        assert!(!watch.just_heard());
    }
}
