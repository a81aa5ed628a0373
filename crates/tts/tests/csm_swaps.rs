//! Adapters come and go for as long as a worker runs. Alone in its binary: it looks at the memory of the process.
#![cfg(feature = "csm")]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use duologue_tts::{LoadOptions, Settings, StopFlag, load};
use duologue_voicepack::{Voicepack, VoicepackStore};

fn pack(name: &str) -> Voicepack {
    let fixtures: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/csm");
    VoicepackStore::open(fixtures).find(name).unwrap()
}

#[test]
fn ten_thousand_changes_of_adapter_leave_nothing_behind() {
    let voices =
        ["lora-a", "lora-b"].map(|name| load(&pack(name), &LoadOptions::default()).unwrap());
    let stop = StopFlag::default();
    let speak = |n: usize| {
        let mut speech = voices[n % 2].begin(&Settings::default()).unwrap();
        speech.say("Yes.").unwrap();
        speech.next(&stop).unwrap().unwrap()
    };
    let first = [speak(0), speak(1)];
    let before = resident();
    for n in 0..10_000 {
        // Most are begun and dropped, some say their first sound.
        if n % 100 < 2 {
            assert!(speak(n) == first[n % 2]);
        } else {
            drop(voices[n % 2].begin(&Settings::default()).unwrap());
        }
    }
    // And each read from its files anew, as often as a test has time for.
    for n in 0..300 {
        let voice = load(&pack(["lora-a", "lora-b"][n % 2]), &LoadOptions::default()).unwrap();
        let gone = Arc::downgrade(&voice);
        drop(voice);
        assert!(
            gone.upgrade().is_none(),
            "somebody holds an adapter that was let go"
        );
    }
    let grown = resident().saturating_sub(before);
    // A single adapter left behind at each change would be 400 MB, one at each load 12 MB.
    assert!(grown < 8_000_000, "{grown} bytes more than before");
}

/// Memory of this process, bytes; 0 where the system does not tell.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or(0) * 4_096
}
