//! How many threads compute: two hardware threads of one core share its arithmetic units and only get in each
//! other's way.

use std::collections::HashSet;
use std::path::Path;

/// Physical cores that this process may use, at least 1.
pub(super) fn physical_cores() -> u32 {
    // Counts what cgroups and affinity allow.
    let logical = std::thread::available_parallelism().map_or(1, |n| n.get());
    let cores = cores_in(Path::new("/sys/devices/system/cpu")).unwrap_or(logical);
    u32::try_from(cores.min(logical).max(1)).unwrap_or(1)
}

/// Distinct sets of sibling threads in Linux's view of the processors; `None` elsewhere.
fn cores_in(root: &Path) -> Option<usize> {
    let mut siblings = HashSet::new();
    for entry in std::fs::read_dir(root).ok()? {
        let path = entry.ok()?.path().join("topology/thread_siblings_list");
        if let Ok(list) = std::fs::read_to_string(path) {
            siblings.insert(list.trim().to_owned());
        }
    }
    (!siblings.is_empty()).then_some(siblings.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_at_least_one_core_and_no_more_than_threads() {
        let logical = std::thread::available_parallelism().map_or(1, |n| n.get());
        assert!((1..=logical).contains(&(physical_cores() as usize)));
    }

    #[test]
    fn a_machine_that_does_not_tell_is_not_guessed() {
        assert_eq!(cores_in(Path::new("/nonexistent")), None);
    }
}
