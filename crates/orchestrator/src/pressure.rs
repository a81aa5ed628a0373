//! Whether one more session would break the promises that are made to those there are.
//!
//! How many sessions a machine holds depends on the machine, the models and what people do, so it is measured while
//! they run: how much of the processor this process and all others take, and how long what is due waits. Shares of the
//! processor tell beforehand, since one more session takes about as much as each of those there are; waits tell when
//! it is too late already, for whatever reason. An empty server takes anybody: a session that is too slow is better than
//! none.
//!
//! Pure: figures and times in, a decision out.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Figures are of the last so much time.
const WINDOW: Duration = Duration::from_secs(10);
/// So many values are too few to judge a wait by.
const FEW: usize = 20;
/// Values that are held of each wait; of more, the oldest go.
const MOST: usize = 4_096;
/// What a session is taken for that has not been measured yet, cores: hearing alone.
const UNMEASURED: f64 = 0.05;
/// Recognition and the end of a turn may wait so many times longer than what is due every 20 ms.
const PATIENT: u32 = 5;

/// What is not to be passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PressureLimits {
    /// Share of the cores it may use that this process may take, 0 to 1; `None`: any.
    pub cpu: Option<f64>,
    /// Share of the machine's cores that all programs together may take; `None`: any.
    pub machine: Option<f64>,
    /// How late timers and the voice detector may be (p95); recognition, five times as much. `None`: as late as they
    /// are.
    pub lag: Option<Duration>,
}

impl Default for PressureLimits {
    /// 90% and 90%, 150 ms.
    fn default() -> Self {
        Self {
            cpu: Some(0.9),
            machine: Some(0.9),
            lag: Some(Duration::from_millis(150)),
        }
    }
}

/// Something that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A timer of the async runtime.
    Timer,
    /// A voice detector, for its thread.
    Ear,
    /// A recognizer or the end-of-turn model, for a thread.
    Mind,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// With one more session this process would take this share of the cores.
    Cpu(f64),
    /// With one more session all programs together would take this share of the machine's cores.
    Machine(f64),
    /// Something is so late.
    Late(Wait, Duration),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(share) => write!(
                f,
                "with one more session it would take {:.0}% of the processor",
                share * 100.0
            ),
            Self::Machine(share) => write!(
                f,
                "with one more session the processor would be {:.0}% busy, other programs included",
                share * 100.0
            ),
            Self::Late(wait, late) => {
                let what = match wait {
                    Wait::Timer => "timers are",
                    Wait::Ear => "hearing is",
                    Wait::Mind => "recognition is",
                };
                write!(f, "{what} {} ms late", late.as_millis())
            }
        }
    }
}

/// Measures a server. Times are by one clock, from any beginning.
#[derive(Debug)]
pub struct Pressure {
    limits: PressureLimits,
    cores: f64,
    waits: [VecDeque<(Duration, Duration)>; 3],
    /// Processor time so far.
    cpu: VecDeque<(Duration, Duration)>,
    /// The same of all other programs, and the machine's cores.
    others: VecDeque<(Duration, Duration)>,
    machine_cores: f64,
    /// When sessions were let in that are not measured yet.
    fresh: VecDeque<Duration>,
}

impl Pressure {
    /// For a process that may use so many cores.
    #[must_use]
    pub fn new(limits: PressureLimits, cores: usize) -> Self {
        Self {
            limits,
            cores: cores.max(1) as f64,
            waits: Default::default(),
            cpu: VecDeque::new(),
            others: VecDeque::new(),
            machine_cores: cores.max(1) as f64,
            fresh: VecDeque::new(),
        }
    }

    /// Something waited so long.
    pub fn waited(&mut self, at: Duration, what: Wait, waited: Duration) {
        let waits = &mut self.waits[what as usize];
        forget(waits, at, |(at, _)| *at);
        if waits.len() >= MOST {
            waits.pop_front();
        }
        waits.push_back((at, waited));
    }

    /// This process has taken so much processor time since it began.
    pub fn used(&mut self, at: Duration, cpu: Duration) {
        forget(&mut self.cpu, at, |(at, _)| *at);
        self.cpu.push_back((at, cpu));
    }

    /// All other programs have taken so much processor time so far of a machine with so many cores.
    pub fn others_used(&mut self, at: Duration, cpu: Duration, cores: usize) {
        self.machine_cores = cores.max(1) as f64;
        forget(&mut self.others, at, |(at, _)| *at);
        self.others.push_back((at, cpu));
    }

    /// A session was let in.
    pub fn admitted(&mut self, at: Duration) {
        forget(&mut self.fresh, at, |at| *at);
        self.fresh.push_back(at);
    }

    /// Why one more session is not to be let in, with so many running, if it is not.
    pub fn refusal(&mut self, at: Duration, running: usize) -> Option<Reason> {
        forget(&mut self.fresh, at, |at| *at);
        // What could not be measured for a while is not known, whatever it was.
        forget(&mut self.cpu, at, |(at, _)| *at);
        forget(&mut self.others, at, |(at, _)| *at);
        if running == 0 {
            return None;
        }
        let own = self.cores_with_one_more(running);
        let share = own / self.cores;
        if self.limits.cpu.is_some_and(|limit| share > limit) {
            return Some(Reason::Cpu(share));
        }
        let share = (own + rate(&self.others)) / self.machine_cores;
        if self.limits.machine.is_some_and(|limit| share > limit) {
            return Some(Reason::Machine(share));
        }
        let limit = self.limits.lag?;
        for (wait, limit) in [
            (Wait::Timer, limit),
            (Wait::Ear, limit),
            (Wait::Mind, limit * PATIENT),
        ] {
            let late = self.late(at, wait);
            if late > limit {
                return Some(Reason::Late(wait, late));
            }
        }
        None
    }

    /// The cores that this process would take with one more session. Those that were let in within the
    /// window are in the measured time for a part of it only, or not at all.
    fn cores_with_one_more(&self, running: usize) -> f64 {
        let busy = rate(&self.cpu);
        let fresh = self.fresh.len().min(running);
        let measured = running - fresh;
        let each = match measured {
            0 => UNMEASURED,
            measured => (busy / measured as f64).max(UNMEASURED),
        };
        let expected = match measured {
            0 => busy.max(each * fresh as f64),
            _ => busy + each * fresh as f64,
        };
        expected + each
    }

    /// The 95th percentile of a wait; zero where too little waited.
    fn late(&self, at: Duration, wait: Wait) -> Duration {
        let mut waits: Vec<Duration> = self.waits[wait as usize]
            .iter()
            .filter(|(when, _)| at.saturating_sub(*when) <= WINDOW)
            .map(|(_, waited)| *waited)
            .collect();
        if waits.len() < FEW {
            return Duration::ZERO;
        }
        let rank = waits.len() * 95 / 100;
        *waits.select_nth_unstable(rank).1
    }
}

/// Cores that were taken in the mean, of what was taken until when.
fn rate(taken: &VecDeque<(Duration, Duration)>) -> f64 {
    match (taken.front(), taken.back()) {
        (Some((from, before)), Some((to, after))) if to > from => {
            after.saturating_sub(*before).div_duration_f64(*to - *from)
        }
        _ => 0.0,
    }
}

/// Drops what is older than the window.
fn forget<T>(values: &mut VecDeque<T>, at: Duration, when: fn(&T) -> Duration) {
    while values
        .front()
        .is_some_and(|value| at.saturating_sub(when(value)) > WINDOW)
    {
        values.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORES: usize = 2;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A server that takes so many cores for a minute, and whose waits are all so long.
    fn busy(cores: f64, late: Duration) -> Pressure {
        let mut pressure = Pressure::new(PressureLimits::default(), CORES);
        for tenth in 0..600 {
            let at = ms(tenth * 100);
            pressure.used(at, at.mul_f64(cores));
            for wait in [Wait::Timer, Wait::Ear, Wait::Mind] {
                pressure.waited(at, wait, late);
            }
        }
        pressure
    }

    #[test]
    fn one_more_is_let_in_as_long_as_it_fits_and_no_longer() {
        // Each of three takes 0.4 cores; of two cores 1.8 may be taken.
        assert_eq!(busy(1.2, ms(1)).refusal(secs(60), 3), None);
        let refused = busy(1.6, ms(1)).refusal(secs(60), 4);
        assert!(
            matches!(refused, Some(Reason::Cpu(share)) if (share - 1.0).abs() < 0.01),
            "{refused:?}"
        );
    }

    #[test]
    fn what_other_programs_take_is_not_there_for_one_more() {
        // Each of three takes 0.4 of two cores.
        let with_others = |cores: f64, of: usize| {
            let mut pressure = busy(1.2, ms(1));
            for second in 0..60 {
                let at = secs(second);
                pressure.others_used(at, secs(9_000) + at.mul_f64(cores), of);
            }
            pressure
        };
        let refusal = |cores, of| with_others(cores, of).refusal(secs(60), 3);
        assert_eq!(refusal(0.15, 2), None);
        let refused = refusal(0.3, 2);
        assert!(
            matches!(refused, Some(Reason::Machine(share)) if (share - 0.95).abs() < 0.01),
            "{refused:?}"
        );
        // On a machine of eight, of which this process may use two, there is room beside them.
        assert_eq!(refusal(3.0, 8), None);
        assert!(refusal(6.1, 8).is_some());
        // What cannot be measured any longer keeps nobody out.
        assert_eq!(with_others(0.8, 2).refusal(secs(80), 3), None);
    }

    #[test]
    fn those_who_came_just_now_count_before_they_are_measured() {
        let mut pressure = busy(0.8, ms(1));
        // Two run, with 0.4 cores each.
        assert_eq!(pressure.refusal(secs(60), 2), None);
        pressure.admitted(secs(60));
        assert_eq!(pressure.refusal(secs(60), 3), None);
        pressure.admitted(secs(60));
        assert!(pressure.refusal(secs(60), 4).is_some());
        // They turned out to take next to nothing.
        for second in 61..80 {
            pressure.used(
                secs(second),
                secs(60).mul_f64(0.8) + (secs(second) - secs(60)).mul_f64(0.9),
            );
        }
        assert_eq!(pressure.refusal(secs(80), 4), None);
    }

    #[test]
    fn a_server_without_sessions_takes_one_however_slow_it_is() {
        assert_eq!(busy(2.0, secs(3)).refusal(secs(60), 0), None);
        assert!(busy(2.0, secs(3)).refusal(secs(60), 1).is_some());
    }

    #[test]
    fn what_is_late_keeps_others_out_until_it_is_no_longer() {
        let mut pressure = busy(0.1, ms(200));
        let refused = pressure.refusal(secs(60), 1);
        assert_eq!(refused, Some(Reason::Late(Wait::Timer, ms(200))));
        assert_eq!(
            pressure.refusal(secs(75), 1),
            None,
            "nothing was late of late"
        );
        let mut recognition = Pressure::new(PressureLimits::default(), CORES);
        for tenth in 0..100 {
            recognition.waited(ms(tenth * 100), Wait::Mind, ms(700));
        }
        assert_eq!(recognition.refusal(secs(10), 1), None, "it may wait longer");
        for tenth in 100..200 {
            recognition.waited(ms(tenth * 100), Wait::Mind, ms(800));
        }
        let refused = recognition.refusal(secs(20), 1);
        assert_eq!(refused, Some(Reason::Late(Wait::Mind, ms(800))));
    }

    #[test]
    fn a_moment_of_lateness_is_forgiven() {
        let mut pressure = busy(0.1, ms(1));
        for _ in 0..4 {
            pressure.waited(secs(60), Wait::Timer, secs(2));
        }
        assert_eq!(pressure.refusal(secs(60), 1), None);
    }

    #[test]
    fn limits_can_be_set_and_taken_away() {
        let with = |limits| Pressure {
            limits,
            ..busy(1.7, ms(500))
        };
        let none = PressureLimits {
            cpu: None,
            machine: None,
            lag: None,
        };
        assert_eq!(with(none).refusal(secs(60), 2), None);
        let higher = PressureLimits {
            cpu: Some(2.0),
            machine: Some(2.0),
            lag: Some(ms(600)),
        };
        assert_eq!(with(higher).refusal(secs(60), 2), None);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut pressure = Pressure::new(PressureLimits::default(), CORES);
        for n in 0..100_000 {
            pressure.waited(Duration::from_micros(n), Wait::Ear, ms(1));
        }
        assert_eq!(pressure.waits[Wait::Ear as usize].len(), MOST);
    }
}
