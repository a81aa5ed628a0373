//! What the process costs its machine, as Linux tells it; elsewhere nothing is measured.

use duologue_metrics::table;

/// Ticks of `/proc` in a second, on every architecture that Linux has for programs like this one.
#[cfg(target_os = "linux")]
const TICKS: u64 = 100;

/// Looks once. Reads two small files that the kernel makes up, and a folder.
pub fn measure() {
    #[cfg(target_os = "linux")]
    {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}"));
        if let Some(bytes) = read("status").ok().as_deref().and_then(resident) {
            table::PROCESS_MEMORY.set(bytes as f64);
        }
        if let Some(used) = read("stat").ok().as_deref().and_then(cpu_ticks) {
            table::PROCESS_CPU.reach(used / TICKS);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            table::PROCESS_FILES.set(files.count() as f64);
        }
    }
}

/// Bytes in RAM, from `/proc/self/status`.
#[cfg(any(target_os = "linux", test))]
fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

/// Time in user and kernel mode, in clock ticks, from `/proc/self/stat`.
#[cfg(any(target_os = "linux", test))]
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The program's name, in parentheses, may hold anything. After it, fields 14 and 15 are counted from 3.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut times = rest.split(' ').skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_are_read_from_what_the_kernel_writes() {
        let status = "Name:\tduologue\nVmHWM:\t  200 kB\nVmRSS:\t  100 kB\n";
        assert_eq!(resident(status), Some(102_400));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 80 0 1 0 250 50 0 0 20 0 9 0 100 1 2";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(resident(""), None);
        assert_eq!(cpu_ticks(""), None);
    }
}
