//! Developer tasks, as `cargo xtask …`.
//!
//! Newcomers run this first, so it needs nothing but Rust: no dependencies, no native libraries.
//! It finds what the build needs, installs what is missing with the system's package manager or
//! says exactly what to install, and tells how long things take.

mod cuda;
mod deny;
mod docker;
mod fuzz;
mod go;
mod native;
mod packages;
mod runner;
mod server;
mod smoke;
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use runner::Runner;
use smoke::Program;

const HELP: &str = "\
Usage: cargo xtask <task> [arguments]

  run [arguments]    set up, build in release, fetch models, serve; arguments go to `duologue serve`
  talk [arguments]   the same with microphone and loudspeaker; arguments go to `duologue talk`
  test               set up, then every test: Rust, whole system, browser
  smoke [--compile]  the composed stack of deploy/, brought up and talked to; part of `test`. --compile: with the
                     program compiled inside its image (10 to 20 minutes), not the one that is built here
  lint               format, clippy, docs, licenses and advisories
  ci                 test, then lint, with a table of times
  bench [arguments]  set up, build in release; arguments go to `duologue bench`
  fuzz [target] [--minutes N]
                     feed the fuzz targets wrong inputs, each for N minutes (5)
  cuda [--all]       build for NVIDIA GPUs into target/cuda (docs/cuda.md); further arguments go to cargo
  doctor             say what the build needs and whether it is here; install nothing

`run`, `talk`, `test`, `ci`, `bench` and `fuzz` install missing system packages (with sudo where needed).
Set DUOLOGUE_NO_INSTALL=1 to be told instead.
";

/// What a task may fail with: words for a person.
pub(crate) type Outcome<T = ()> = Result<T, String>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let mut runner = Runner::new(root());
    let outcome = match (task.as_str(), rest.as_slice()) {
        ("run", _) => run(&mut runner, &rest),
        ("talk", _) => talk(&mut runner, &rest),
        ("bench", _) => bench(&mut runner, &rest),
        ("fuzz", _) => fuzz::run(&mut runner, &rest),
        ("cuda", _) => cuda::build(&mut runner, &rest),
        ("test", []) => tests::all(&mut runner),
        ("smoke", []) => smoke(&mut runner, Program::Built),
        ("smoke", [flag]) if flag == "--compile" => smoke(&mut runner, Program::Compiled),
        ("smoke", _) => Err("`smoke` takes --compile or nothing".to_owned()),
        ("lint", []) => lint(&mut runner),
        ("ci", []) => {
            let tests = tests::all(&mut runner);
            all_of([tests, lint(&mut runner)])
        }
        ("doctor", []) => native::doctor(),
        ("help" | "--help" | "-h", _) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        ("", _) => Err(format!("name a task\n\n{HELP}")),
        ("test" | "lint" | "ci" | "doctor", _) => Err(format!("`{task}` takes no arguments")),
        _ => Err(format!("no task `{task}`\n\n{HELP}")),
    };
    if matches!(task.as_str(), "test" | "smoke" | "lint" | "ci" | "fuzz") {
        runner.print_table();
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("\nerror: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

fn run(runner: &mut Runner, arguments: &[String]) -> Outcome {
    native::set_up()?;
    build(runner, &[])?;
    runner.replace(
        runner.binary(),
        &[&["serve".to_owned()], arguments].concat(),
        &[],
    )
}

fn talk(runner: &mut Runner, arguments: &[String]) -> Outcome {
    native::set_up_sound_card()?;
    build(runner, &["--features", "duologue/sound-card"])?;
    runner.replace(
        runner.binary(),
        &[&["talk".to_owned()], arguments].concat(),
        &[],
    )
}

fn bench(runner: &mut Runner, arguments: &[String]) -> Outcome {
    native::set_up()?;
    build(runner, &[])?;
    let requirements = runner.root().join("bench/requirements.txt");
    // What measures a server alone needs no peer.
    let peers = arguments
        .iter()
        .any(|argument| argument == "tts" || argument == "asr")
        && !arguments.iter().any(|argument| argument == "--alone");
    let python = if peers {
        tests::python(runner, &requirements, "bench-venv")?
    } else {
        PathBuf::new()
    };
    let mut pull = runner.command(runner.binary());
    runner.step("models", pull.args(["models", "pull"]))?;
    let env = [("DUOLOGUE_BENCH_PYTHON", python.as_os_str())];
    runner.replace(
        runner.binary(),
        &[&["bench".to_owned()], arguments].concat(),
        if peers { &env } else { &[] },
    )
}

fn smoke(runner: &mut Runner, program: Program) -> Outcome {
    native::set_up()?;
    build(runner, &[])?;
    let mut pull = runner.command(runner.binary());
    pull.args(["models", "pull"]);
    runner.step("models", &mut pull)?;
    let mut pull = runner.command(runner.binary());
    pull.args(["models", "pull"]).args(tests::FURTHER_MODELS);
    runner.step("models for tests", &mut pull)?;
    smoke::alone(runner, program)
}

/// Builds the program just as plain `cargo run --release` does, so that either finds the other's
/// work done.
fn build(runner: &mut Runner, further: &[&str]) -> Outcome {
    if !runner.binary().is_file() {
        println!(
            "Building duologue. The first time this compiles llama.cpp and CTranslate2 and takes \
             10 to 20 minutes on two cores, less on more; later builds take seconds."
        );
    }
    runner.cargo("build", &[&["build", "--release"], further].concat(), &[])
}

/// Runs all checks. One that fails does not keep the later ones from running.
fn lint(runner: &mut Runner) -> Outcome {
    native::set_up_sound_card()?;
    let format = runner.cargo("format", &["fmt", "--all", "--check"], &[]);
    let clippy = runner.cargo(
        "clippy",
        &[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--features",
            "duologue/sound-card,duologue/csm",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    );
    let docs = runner.cargo(
        "docs",
        &[
            "doc",
            "--release",
            "--no-deps",
            "--workspace",
            "--features",
            "duologue/sound-card,duologue/csm",
        ],
        &[("RUSTDOCFLAGS", "-D warnings")],
    );
    all_of([format, clippy, docs, deny::check(runner)])
}

/// Well only if all went well; else all that went wrong.
pub(crate) fn all_of(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
    let failed: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed.join("\n  "))
    }
}
