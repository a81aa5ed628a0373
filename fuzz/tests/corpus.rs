//! The targets on stable Rust, in seconds: the kept corpus, and mutations of it, the same ones each time.
//!
//! `DUOLOGUE_FUZZ_SECONDS` goes on for so long in each target, with new inputs each time; `DUOLOGUE_FUZZ_SEED`
//! chooses which. A failure names the file that its input was written to.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use duologue_fuzz::mutate::Mutator;
use duologue_fuzz::{TARGETS, Target};

/// Mutations of each target where no time is given.
const MUTATIONS: u64 = 3_000;
/// Of targets that take milliseconds for each.
const OF_SLOW_ONES: u64 = 150;
const SLOW: &[&str] = &["spoken_text", "worker_calls"];
/// Panics, with the names of their threads: what panics in a thread of a worker's is told to nobody else.
static PANICS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());
static LISTENING: Once = Once::new();

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = root().join("corpus").join(target.name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs a target on an input. What it panics with, and where the input is.
fn run(target: &Target, input: &[u8]) {
    let before = PANICS.lock().unwrap().len();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    // Not those of other targets, which run beside this one in threads of their names.
    let ours = |thread: &str| thread == target.name || !TESTED.contains(&thread);
    let panics: Vec<String> = PANICS.lock().unwrap()[before..]
        .iter()
        .filter(|(thread, _)| ours(thread))
        .map(|(thread, panic)| format!("{thread}: {panic}"))
        .collect();
    if outcome.is_ok() && panics.is_empty() {
        return;
    }
    let mut hash = DefaultHasher::new();
    input.hash(&mut hash);
    let file = std::env::temp_dir().join(format!("{}-{:016x}", target.name, hash.finish()));
    std::fs::write(&file, input).unwrap();
    panic!(
        "{} fails on {} ({} bytes): {}",
        target.name,
        file.display(),
        input.len(),
        panics.join("\n")
    );
}

fn fuzz(name: &str) {
    LISTENING.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            PANICS.lock().unwrap().push((thread, info.to_string()));
            told(info);
        }));
    });
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = corpus(target);
    for input in &corpus {
        run(target, input);
    }
    let mut mutator = Mutator::new(&corpus, number("DUOLOGUE_FUZZ_SEED").unwrap_or(1));
    let time = number("DUOLOGUE_FUZZ_SECONDS").map(Duration::from_secs);
    let (begun, mut runs) = (Instant::now(), 0);
    let most = if SLOW.contains(&name) {
        OF_SLOW_ONES
    } else {
        MUTATIONS
    };
    while time.map_or(runs < most, |time| begun.elapsed() < time) {
        run(target, &mutator.next_input());
        runs += 1;
    }
    println!(
        "{name}: {} files, {runs} mutations in {:.1} s",
        corpus.len(),
        begun.elapsed().as_secs_f64()
    );
}

macro_rules! targets {
    ($($name:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                fuzz(stringify!($name));
            }
        )*
    };
}

targets! {
    realtime_event
    call_request
    transcription_request
    audio_file
    input_sound
    opus_packets
    rtp_stream
    datagram
    livekit_message
    worker_calls
    spoken_text
    voicepack_metadata
    policies_and_scenes
    model_header
    endpoint_stream
    package_index
    stored_record
}

#[test]
fn every_target_is_tested_and_has_a_program_a_corpus_and_a_line_in_the_documentation() {
    let names: BTreeSet<String> = TARGETS.iter().map(|t| t.name.to_owned()).collect();
    let listed = |folder: &str| -> BTreeSet<String> {
        std::fs::read_dir(root().join(folder))
            .unwrap()
            .map(|entry| Path::new(&entry.unwrap().file_name()).with_extension(""))
            .map(|name| name.display().to_string())
            .collect()
    };
    assert_eq!(names, TESTED.iter().map(|n| (*n).to_owned()).collect());
    assert_eq!(names, listed("fuzz_targets"));
    assert_eq!(names, listed("corpus"));
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let page = std::fs::read_to_string(root().join("../docs/fuzzing.md")).unwrap();
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)));
        let line = format!("| `{}` | {} |", target.name, target.about);
        assert!(page.contains(&line), "docs/fuzzing.md lacks {line}");
    }
}
