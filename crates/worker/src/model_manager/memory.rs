//! What memory a voice takes.

/// Memory of this process, bytes; `None` where the system does not tell it.
pub(super) fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1_024)
}

/// What a voice takes, bytes: what its adapter counts, or by how much the process has `grown` while nothing else
/// happened in it, whichever is more, for memory that was free already does not show as growth. Of a voice whose
/// adapter counts nothing it is what was `estimated`.
pub(super) fn taken(counted: u64, grown: Option<u64>, estimated: u64) -> u64 {
    match counted {
        0 => estimated,
        counted => counted.max(grown.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_counts_before_what_was_thought() {
        assert_eq!(taken(60_000_000, Some(90_000_000), 50_000_000), 90_000_000);
        assert_eq!(taken(60_000_000, Some(10_000_000), 50_000_000), 60_000_000);
        assert_eq!(taken(60_000_000, None, 80_000_000), 60_000_000);
        assert_eq!(taken(0, Some(90_000_000), 5), 5);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_is_written_to_shows() {
        let before = resident().unwrap_or(0);
        let held = std::hint::black_box(vec![1u8; 64_000_000]);
        let after = resident().unwrap_or(0);
        assert!(
            before > 0 && after > before + 32_000_000,
            "{before} {after}"
        );
        drop(held);
    }
}
