//! A handful of scenes through the real server, by the bench that plays them all. How soon things happen is for the
//! bench; here it counts that they happen, and in the right order.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// One of each: a real interruption, a command, a nod, a sound, the client's hand, an answer, a client of its own kind.
const SCENES: [&str; 7] = [
    "interrupt-middle/1.5+asterisk-invalid",
    "interrupt-command/1.5+commands-no",
    "interrupt-stock-client/goforward",
    "backchannel/1.0+right-3+-26",
    "sound/1.0+-20+door",
    "control-pause/2.0",
    "answer-after-reply/asterisk-thank-you",
];

#[test]
fn scenes_come_out_as_they_say_over_a_real_connection() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let figures = std::env::temp_dir().join(format!("scenes-{}.json", std::process::id()));
    let mut bench = Command::new(env!("CARGO_BIN_EXE_duologue"));
    bench
        .current_dir(root)
        .args(["bench", "--json"])
        .arg(&figures)
        .args(["turns", "--parallel", "3"]);
    for scene in SCENES {
        bench.args(["--only", scene]);
    }
    let status = bench.status().unwrap();
    assert!(status.success(), "{status}");
    let report: Value = serde_json::from_slice(&std::fs::read(&figures).unwrap()).unwrap();
    std::fs::remove_file(&figures).unwrap();
    let scenes = report["figures"]["scenes"].as_array().unwrap();
    assert_eq!(scenes.len(), SCENES.len());
    let mut wrong = Vec::new();
    for scene in scenes {
        for verdict in scene["verdicts"].as_array().unwrap() {
            let found = verdict["found"].as_str().unwrap();
            // Late is not wrong here: the machine may be busy.
            if verdict["passed"] != true && !found.starts_with("after") {
                wrong.push(format!("{}: {}: {found}", scene["name"], verdict["what"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
