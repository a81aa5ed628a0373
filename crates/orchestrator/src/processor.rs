//! How much of the processor is taken: by this process, and by all programs of the machine.

use std::time::Duration;

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Processor time that this process has taken so far.
pub(crate) fn own_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::try_from(time).ok()
    }
    #[cfg(not(unix))]
    None
}

/// What all programs of a machine have taken since it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MachineTime {
    /// Of all cores together.
    pub(crate) busy: Duration,
    pub(crate) cores: usize,
}

/// Reads it, where the system tells (Linux). It takes a millisecond where there are many cores: not on the reactor.
pub(crate) fn machine_time() -> Option<MachineTime> {
    #[cfg(target_os = "linux")]
    {
        read(&std::fs::read_to_string("/proc/stat").ok()?)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Reads `/proc/stat`, which counts in hundredths of a second whatever the kernel's clock (`USER_HZ`, proc_stat(5)).
/// What a hypervisor keeps for others counts as taken: it is not there to be had.
#[cfg(any(target_os = "linux", test))]
fn read(stat: &str) -> Option<MachineTime> {
    const HUNDREDTH_MS: u64 = 10;
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<u64> = line
        .split_whitespace()
        .map_while(|time| time.parse().ok())
        .collect();
    let [
        user,
        nice,
        system,
        _idle,
        _waits,
        interrupts,
        soft,
        stolen,
        ..,
    ] = times[..]
    else {
        return None;
    };
    let busy = [user, nice, system, interrupts, soft, stolen]
        .into_iter()
        .fold(0, u64::saturating_add);
    let is_core = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    Some(MachineTime {
        busy: Duration::from_millis(busy.saturating_mul(HUNDREDTH_MS)),
        cores: stat.lines().filter(is_core).count().max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_is_busy_with_is_read_from_what_its_kernel_counts() {
        let stat = "cpu  100 20 30 4000 500 6 7 8 90 9\ncpu0 50 10 15 2000 250 3 3 4 45 4\n\
                    cpu1 50 10 15 2000 250 3 4 4 45 5\nintr 114930548 113199788 3 0 5 263\nctxt 1990473\n";
        let read_time = read(stat);
        assert_eq!(
            read_time,
            Some(MachineTime {
                busy: Duration::from_millis(1_710),
                cores: 2
            })
        );
        for nothing in ["", "cpu  1 2 3\n", "cpu  a b c d e f g h\n", "processor 0"] {
            assert_eq!(read(nothing), None, "{nothing:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_tells() {
        let time = machine_time();
        assert!(time.is_some_and(|time| time.cores >= 1), "{time:?}");
    }
}
