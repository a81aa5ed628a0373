//! A process that looks at itself.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use duologue_profile::{Profile, ProfileError, Recording, record};

/// There is one profile at a time in a process, and tests run beside each other.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[inline(never)]
fn innermost_of_the_work(seed: u64) -> u64 {
    let mut value = seed;
    for _ in 0..20_000 {
        value = black_box(value.wrapping_mul(6_364_136_223_846_793_005).rotate_left(7));
    }
    value
}

#[inline(never)]
fn outer_part_of_the_work(seed: u64) -> u64 {
    black_box(innermost_of_the_work(black_box(seed))) + 1
}

/// Works on a thread of that name until there are so many samples.
fn worked(name: &str, samples: u64, work: fn(u64) -> u64) -> Profile {
    let recording = begun();
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let worker = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let mut value = 1;
            while !told.load(Ordering::Relaxed) {
                value = black_box(work(black_box(value)));
            }
        })
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while recording.samples() < samples && Instant::now() < deadline {
        std::thread::yield_now();
    }
    stop.store(true, Ordering::Relaxed);
    worker.join().unwrap();
    recording.finish().unwrap()
}

/// The one before may still be ending: dropped ones end by themselves.
fn begun() -> Recording {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match record() {
            Ok(recording) => return recording,
            Err(ProfileError::Busy) if Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_function_that_works_is_found_under_its_thread_and_its_caller() {
    let _alone = alone();
    let profile = worked("busy-one", 60, outer_part_of_the_work);
    let of_it: Vec<_> = profile
        .stacks()
        .iter()
        .filter(|stack| &*stack.frames[0] == "[busy-one]")
        .collect();
    let (mut inside, mut all) = (0, 0);
    for stack in &of_it {
        all += stack.samples;
        let place = |part: &str| stack.frames.iter().position(|frame| frame.contains(part));
        let (outer, inner) = (place("outer_part"), place("innermost"));
        if let (Some(outer), Some(inner)) = (outer, inner) {
            assert!(0 < outer && outer < inner, "{:?}", stack.frames);
            inside += stack.samples;
        }
    }
    assert!(all >= 10, "{profile:?}");
    assert!(inside * 10 >= all * 8, "{inside} of {all}: {of_it:?}");
    let whole = |frames: &[Arc<str>]| !frames.iter().any(|frame| frame.contains("cut off"));
    assert!(of_it.iter().any(|stack| whole(&stack.frames)), "{of_it:?}");
    assert!(profile.to_folded().contains("innermost_of_the_work"));
    assert!(profile.to_svg().contains("innermost_of_the_work"));
}

#[test]
fn work_that_allocates_and_throws_away_all_the_time_is_not_disturbed() {
    fn allocates(seed: u64) -> u64 {
        let texts: Vec<String> = (0..200).map(|n| format!("{n} {seed}")).collect();
        let caught = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(seed)));
        black_box(texts).len() as u64 + u64::from(caught.is_err())
    }
    let _alone = alone();
    let profile = worked("allocates", 150, allocates);
    assert!(profile.samples() >= 100, "{profile:?}");
}

#[test]
fn one_is_recorded_at_a_time_and_a_dropped_one_makes_room() {
    let _alone = alone();
    let first = begun();
    assert!(matches!(record(), Err(ProfileError::Busy)));
    drop(first);
    let second = begun();
    assert!(second.finish().is_ok());
}
