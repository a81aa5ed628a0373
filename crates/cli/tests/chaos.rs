//! `duologue bench chaos`, in short: processes are killed in the middle of real conversations, and nothing is lost.
#![allow(clippy::unwrap_used)]

use std::process::Command;

fn survives(options: &[&str]) {
    let bench = Command::new(env!("CARGO_BIN_EXE_duologue"))
        .args(["--log", "error", "bench", "chaos", "--strict"])
        .args(options)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&bench.stdout);
    let errors = String::from_utf8_lossy(&bench.stderr);
    assert!(bench.status.success(), "{told}\n{errors}");
}

#[test]
fn conversations_go_on_when_their_worker_is_killed_or_hangs() {
    survives(&[
        "--only",
        "worker",
        "--conversations",
        "4",
        "--at-once",
        "2",
        "--words",
        "12",
    ]);
}

#[test]
fn conversations_go_on_at_another_server_when_theirs_is_killed() {
    survives(&[
        "--only",
        "orchestrator",
        "--conversations",
        "3",
        "--at-once",
        "3",
        "--words",
        "9",
    ]);
}

#[test]
fn conversations_are_whole_after_redis_was_gone_and_their_server_killed() {
    survives(&[
        "--only",
        "redis",
        "--conversations",
        "2",
        "--at-once",
        "2",
        "--redis-away",
        "4",
        "--words",
        "8",
    ]);
}

#[test]
fn conversations_do_not_notice_that_everything_is_restarted() {
    survives(&[
        "--only",
        "rolling",
        "--conversations",
        "4",
        "--at-once",
        "2",
        "--words",
        "6",
    ]);
}
