//! The processor, seen to before the work begins: whether it can run this program, and that its threads do not
//! wait for each other by running in circles.

/// What the program was compiled for where it was compiled for more than the architecture's minimum.
///
/// # Errors
/// What is missing and what to do.
#[cfg(target_arch = "x86_64")]
pub fn check() -> Result<(), String> {
    if cfg!(target_feature = "avx2") && !has_avx2_and_fma() {
        return Err(
            "this program was built for processors with AVX2 and FMA (x86-64-v3: Intel from 2013, AMD from 2015), \
             and this one has not both. Build it here for what it has: \
             RUSTFLAGS=\"-C target-cpu=native\" cargo build --release"
                .into(),
        );
    }
    Ok(())
}

/// Other architectures are built for their minimum.
#[cfg(not(target_arch = "x86_64"))]
pub fn check() -> Result<(), String> {
    Ok(())
}

/// Asks the processor itself: `is_x86_feature_detected!` answers yes at compile time for what was compiled for.
#[cfg(target_arch = "x86_64")]
fn has_avx2_and_fma() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let highest = __cpuid(0).eax;
    highest >= 7 && __cpuid_count(7, 0).ebx & (1 << 5) != 0 && __cpuid(1).ecx & (1 << 12) != 0
}

/// How often a thread of the language model looks for the others before it sleeps, as GNU OpenMP counts: some
/// microseconds.
#[cfg(all(feature = "llama", unix))]
const SPINS: &str = "1000";

/// Has the language model's threads sleep while they wait for each other. They meet hundreds of times a word, and by
/// default run in circles until all are there: when another program wants a core, the one that waits takes it from
/// the one that is waited for, and a reply takes several times as long.
///
/// OpenMP reads the setting when the program is loaded, so the program is loaded once more. Who has set it in the
/// environment is left alone.
pub fn wait_asleep() {
    #[cfg(all(feature = "llama", unix))]
    {
        use std::os::unix::process::CommandExt;
        let set = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"];
        if set.iter().any(|name| std::env::var_os(name).is_some()) {
            return;
        }
        let mut arguments = std::env::args_os();
        let (Some(name), Ok(program)) = (arguments.next(), std::env::current_exe()) else {
            return;
        };
        // It returns only if it failed, and then all works as it is, only slower on a busy machine.
        let _ = std::process::Command::new(program)
            .arg0(name)
            .args(arguments)
            .env("GOMP_SPINCOUNT", SPINS)
            .exec();
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    #[test]
    fn a_processor_that_runs_this_test_is_told_to_be_good_enough() {
        assert_eq!(super::check(), Ok(()));
        // The kernel's own list says the same.
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if !flags.is_empty() {
            let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
            assert_eq!(super::has_avx2_and_fma(), has("avx2") && has("fma"));
        }
    }
}
