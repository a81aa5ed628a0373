//! `duologue bench soak`, in short: two conversations for a minute, on one server.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

#[test]
fn conversations_at_once_stay_apart_and_whole_and_cost_the_same_at_the_end() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/speech");
    let folder = tempfile::tempdir().unwrap();
    let bench = Command::new(env!("CARGO_BIN_EXE_duologue"))
        .args(["--log", "error", "bench", "soak"])
        .args(["--sessions", "2", "--minutes", "0.8", "--corpus"])
        .arg(&corpus)
        .arg("--report")
        .arg(folder.path())
        // How fast and how evenly is not a test's to judge: the machine may be busy with others.
        .args(["--lenient", "--json"])
        .arg(folder.path().join("soak.json"))
        .args([
            "--",
            "--voice",
            "tone",
            "--vad",
            "light:2",
            "--no-end-of-turn",
        ])
        .args(["--asr", "whisper-tiny.en", "--no-webrtc"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&bench.stdout);
    let errors = String::from_utf8_lossy(&bench.stderr);
    assert!(bench.status.success(), "{told}\n{errors}");
    let figures = std::fs::read(folder.path().join("soak.json")).unwrap();
    let figures: serde_json::Value = serde_json::from_slice(&figures).unwrap();
    let answered = figures["figures"]["answered"].as_array().unwrap();
    assert_eq!(answered.len(), 2);
    assert!(answered.iter().all(|n| n.as_u64() > Some(1)), "{told}");
    for verdict in figures["figures"]["verdicts"].as_array().unwrap() {
        let what = verdict["what"].as_str().unwrap();
        let of_speed = ["first audio", "barge-in", "silence in the midst"];
        if !of_speed.iter().any(|begin| what.starts_with(begin)) {
            assert_eq!(verdict["held"], true, "{verdict}");
        }
    }
    for picture in [
        "index.html",
        "memory.svg",
        "first-audio.svg",
        "barge-in.svg",
    ] {
        let drawn = std::fs::read_to_string(folder.path().join(picture)).unwrap();
        assert!(
            drawn.contains("<svg") || drawn.contains("<table>"),
            "{picture}"
        );
    }
}
