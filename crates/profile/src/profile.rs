//! A profile that was recorded, and its forms.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::{flame_graph, pprof};

/// Where the process spent its CPU time.
#[derive(Clone, Debug)]
pub struct Profile {
    stacks: Vec<Stack>,
    period: Duration,
    began: SystemTime,
    lasted: Duration,
    lost: u64,
}

/// A thread's calls, and how often they were seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The thread's name in brackets, then functions, the outermost first.
    pub frames: Vec<Arc<str>>,
    /// Samples in which it was so.
    pub samples: u64,
}

impl Profile {
    /// A profile of these stacks, one sample after each `period` of CPU time; `lost` more had no room.
    #[must_use]
    pub fn new(
        stacks: Vec<Stack>,
        period: Duration,
        began: SystemTime,
        lasted: Duration,
        lost: u64,
    ) -> Self {
        Self {
            stacks,
            period,
            began,
            lasted,
            lost,
        }
    }

    /// The stacks, each once.
    #[must_use]
    pub fn stacks(&self) -> &[Stack] {
        &self.stacks
    }

    /// Samples that are in it.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.samples).sum()
    }

    /// CPU time between two samples.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> SystemTime {
        self.began
    }

    /// How long it took, by the wall.
    #[must_use]
    pub fn lasted(&self) -> Duration {
        self.lasted
    }

    /// Samples for which there was no room.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// As pprof's protobuf message `Profile`, not compressed: for `go tool pprof`, Speedscope and others.
    #[must_use]
    pub fn to_pprof(&self) -> Vec<u8> {
        pprof::encode(self)
    }

    /// A line for each stack: its frames, outermost first, with semicolons between them, and its count.
    #[must_use]
    pub fn to_folded(&self) -> String {
        let mut lines = String::new();
        for stack in &self.stacks {
            // Types of Rust have semicolons too: `[u8; 4]`.
            let frames: Vec<String> = stack.frames.iter().map(|f| f.replace(';', ":")).collect();
            // Writing to a string does not fail.
            let _ = writeln!(lines, "{} {}", frames.join(";"), stack.samples);
        }
        lines
    }

    /// A flame graph, as SVG: outermost frames at the bottom, each as wide as its share of the time.
    #[must_use]
    pub fn to_svg(&self) -> String {
        flame_graph::draw(self)
    }
}

#[cfg(test)]
pub(crate) fn example() -> Profile {
    let stack = |frames: &[&str], samples| Stack {
        frames: frames.iter().map(|frame| Arc::from(*frame)).collect(),
        samples,
    };
    let stacks = vec![
        stack(&["[ear-0]", "main", "duologue_vad::hear"], 30),
        stack(&["[ear-0]", "main", "take<[u8; 4]>", "memcpy"], 10),
        stack(&["[mind-0]", "main", "duologue_asr::think"], 60),
    ];
    let began = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
    Profile::new(
        stacks,
        Duration::from_millis(10),
        began,
        Duration::from_secs(2),
        3,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stack_is_a_line_with_one_separator_between_frames() {
        let folded = example().to_folded();
        let lines: Vec<&str> = folded.lines().collect();
        assert_eq!(lines[0], "[ear-0];main;duologue_vad::hear 30");
        assert_eq!(lines[1], "[ear-0];main;take<[u8: 4]>;memcpy 10");
        assert_eq!(lines.len(), 3);
    }
}
