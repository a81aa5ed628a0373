//! The program that measures, once more: servers and workers of a bench's own are the same program, in processes of
//! their own.

use anyhow::Context;
use tokio::process::Command;

/// What has a server ask its clients for a key. One of a bench's own listens on the loopback, to that bench alone.
const KEYS: [&str; 3] = [
    "DUOLOGUE_API_KEY",
    "DUOLOGUE_API_KEY_FILE",
    "DUOLOGUE_API_KEYS",
];

/// The program, to be given its arguments. What is started of it is killed when it is dropped.
///
/// # Errors
/// A program that cannot tell where it is.
pub fn program() -> anyhow::Result<Command> {
    let mut program = Command::new(std::env::current_exe().context("where is this program?")?);
    program
        // Nobody is refused for what the bench itself does to the machine.
        .env("DUOLOGUE_MAX_CPU_PERCENT", "0")
        .env("DUOLOGUE_MAX_LAG_MS", "0")
        .kill_on_drop(true);
    for name in KEYS {
        program.env_remove(name);
    }
    Ok(program)
}
