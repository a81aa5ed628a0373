//! Fuzzing: the targets of `fuzz/`, each for some minutes, by cargo-fuzz where there is a nightly compiler, else by the
//! seeded mutator of their tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::runner::{Runner, output, shown, status};

/// Minutes for each target where none are given.
const MINUTES: u32 = 5;
/// Longest that one input may take, seconds.
const TIMEOUT: u32 = 25;
/// Most memory that a target may take, MiB.
const MEMORY: u32 = 3_072;
/// Longest input, bytes.
const LONGEST: u32 = 65_536;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// All, where none is named.
    target: Option<String>,
    minutes: u32,
}

/// Runs `cargo xtask fuzz [TARGET] [--minutes N]`.
pub(crate) fn run(runner: &mut Runner, arguments: &[String]) -> Outcome {
    let asked = read(arguments)?;
    let all = targets(runner)?;
    let targets = match &asked.target {
        None => all,
        Some(one) if all.contains(one) => vec![one.clone()],
        Some(one) => {
            return Err(format!(
                "no fuzz target is called {one}; there are {}",
                all.join(", ")
            ));
        }
    };
    crate::native::set_up()?;
    let outcomes = match cargo_fuzz(runner)? {
        true => {
            let made = build(runner)?;
            let mut outcomes = Vec::new();
            for target in &targets {
                outcomes.push(with_libfuzzer(runner, &made, target, asked.minutes));
            }
            outcomes
        }
        false => vec![with_mutator(runner, &targets, asked.minutes)],
    };
    crate::all_of(outcomes)
}

fn read(arguments: &[String]) -> Outcome<Asked> {
    let mut asked = Asked {
        target: None,
        minutes: MINUTES,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--minutes" {
            let minutes = rest.next().and_then(|n| n.parse().ok());
            asked.minutes = minutes
                .filter(|minutes| *minutes > 0)
                .ok_or("--minutes wants a number of minutes, at least 1")?;
        } else if argument.starts_with('-') || asked.target.is_some() {
            return Err(format!(
                "`{argument}` is not understood: cargo xtask fuzz [TARGET] [--minutes N]"
            ));
        } else {
            asked.target = Some(argument.clone());
        }
    }
    Ok(asked)
}

/// The names of all targets: those of their programs.
fn targets(runner: &Runner) -> Outcome<Vec<String>> {
    let folder = runner.root().join("fuzz/fuzz_targets");
    let entries =
        std::fs::read_dir(&folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Whether cargo-fuzz can be had. It is installed where a nightly compiler is there for it.
fn cargo_fuzz(runner: &Runner) -> Outcome<bool> {
    let nightly = output(Command::new("cargo").args(["+nightly", "--version"])).is_some();
    if !nightly {
        println!(
            "There is no nightly compiler (`rustup toolchain install nightly`), so coverage is not measured: inputs \
             are made by the mutator of the tests."
        );
        return Ok(false);
    }
    if output(Command::new("cargo").args(["fuzz", "--version"])).is_some() {
        return Ok(true);
    }
    let install = "cargo install cargo-fuzz --locked";
    if std::env::var_os("DUOLOGUE_NO_INSTALL").is_some() {
        return Err(format!("cargo-fuzz is missing: {install}"));
    }
    let mut command = runner.command("cargo");
    status(command.args(["install", "cargo-fuzz", "--locked"]))?;
    Ok(true)
}

/// Where their programs are built: with the sanitizers' flags, beside what is built without.
fn folder(runner: &Runner) -> PathBuf {
    runner.target().join("fuzz")
}

fn build(runner: &mut Runner) -> Outcome<PathBuf> {
    let folder = folder(runner);
    let mut command = runner.command("cargo");
    command.args(["+nightly", "fuzz", "build", "--features", "libfuzzer"]);
    command.arg("--target-dir").arg(&folder);
    runner.step("fuzz targets", &mut command)?;
    Ok(folder)
}

fn with_libfuzzer(runner: &mut Runner, made: &Path, target: &str, minutes: u32) -> Outcome {
    // What is found goes into the target folder; the corpus in the repository is only read.
    let found = folder(runner).join("corpus").join(target);
    std::fs::create_dir_all(&found).map_err(|e| format!("cannot make {}: {e}", found.display()))?;
    let failures = folder(runner).join("failures").join(target);
    // Of this run alone: they are named by what they hold, and what is found again would not be seen.
    let _ = std::fs::remove_dir_all(&failures);
    std::fs::create_dir_all(&failures)
        .map_err(|e| format!("cannot make {}: {e}", failures.display()))?;
    let mut command = runner.command("cargo");
    command.args(["+nightly", "fuzz", "run", "--features", "libfuzzer"]);
    command.arg("--target-dir").arg(made).arg(target);
    command.arg(&found).arg(format!("fuzz/corpus/{target}"));
    command.arg("--").args([
        format!("-max_total_time={}", minutes * 60),
        format!("-timeout={TIMEOUT}"),
        format!("-rss_limit_mb={MEMORY}"),
        format!("-max_len={LONGEST}"),
        // What fails does so in a process of its own, and the others go on: one finding does not hide the next.
        "-fork=1".to_owned(),
        "-ignore_crashes=1".to_owned(),
        "-ignore_timeouts=1".to_owned(),
        "-ignore_ooms=1".to_owned(),
        // A folder, as the slash at the end says.
        format!("-artifact_prefix={}/", failures.display()),
    ]);
    runner.timed(&format!("fuzz {target}"), |_| {
        println!("    {}", shown(&command));
        // Its exit status is that of the last of its processes, which says little.
        let ended = status(&mut command);
        let found = failed(&failures);
        match found.first() {
            None => ended,
            Some(first) => Err(format!(
                "{} inputs failed, in {}; `cargo +nightly fuzz run --features libfuzzer {target} {}` shows how",
                found.len(),
                failures.display(),
                first.display()
            )),
        }
    })
}

/// The inputs in a folder that failed. What was only slow is kept there too.
fn failed(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let fails = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| !name.starts_with("slow-unit-"))
    };
    entries.map(|entry| entry.path()).filter(fails).collect()
}

fn with_mutator(runner: &mut Runner, targets: &[String], minutes: u32) -> Outcome {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| since.as_secs());
    let seconds = (u64::from(minutes) * 60).to_string();
    let mut arguments = vec![
        "test",
        "--release",
        "-p",
        "duologue-fuzz",
        "--test",
        "corpus",
    ];
    arguments.extend(["--", "--nocapture", "--exact"]);
    arguments.extend(targets.iter().map(String::as_str));
    let env = [
        ("DUOLOGUE_FUZZ_SECONDS", seconds.as_str()),
        ("DUOLOGUE_FUZZ_SEED", &seed.to_string()),
    ];
    runner.cargo("fuzz", &arguments, &env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_and_its_time_are_read_in_any_order() {
        let read = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            read(&words)
        };
        let asked = |target: Option<&str>, minutes| {
            Ok(Asked {
                target: target.map(str::to_owned),
                minutes,
            })
        };
        assert_eq!(read(""), asked(None, MINUTES));
        assert_eq!(read("audio_file --minutes 2"), asked(Some("audio_file"), 2));
        assert_eq!(read("--minutes 2 audio_file"), asked(Some("audio_file"), 2));
        for wrong in ["--minutes", "--minutes x", "--minutes 0", "a b", "--fast"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
