//! Every test: Rust's, then whole-system ones in Python and in a browser against a running server.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::packages::{self, Package};
use crate::runner::{Runner, output, status, which};
use crate::server::Server;
use crate::smoke::{self, Program};
use crate::{Outcome, all_of, go, native};

const PYTHON: Package = Package {
    apt: "python3 python3-venv",
    dnf: "python3",
    pacman: "python",
    zypper: "python3",
    brew: "python",
};
const NODE: Package = Package {
    apt: "nodejs npm",
    dnf: "nodejs npm",
    pacman: "nodejs npm",
    zypper: "nodejs npm",
    brew: "node",
};
const CHROMIUM: Package = Package {
    apt: "chromium",
    dnf: "chromium",
    pacman: "chromium",
    zypper: "chromium",
    brew: "",
};
/// A sound card without hardware: a daemon whose devices ALSA programs use.
const SOUND_SERVER: Package = Package {
    apt: "pulseaudio pulseaudio-utils libasound2-plugins",
    dnf: "pulseaudio pulseaudio-utils alsa-plugins-pulseaudio",
    pacman: "pulseaudio alsa-plugins",
    zypper: "pulseaudio pulseaudio-utils alsa-plugins-pulse",
    brew: "",
};
/// The registry of a fleet, which tests run for real.
const REDIS: Package = Package {
    apt: "redis-server",
    dnf: "redis",
    pacman: "redis",
    zypper: "redis",
    brew: "redis",
};
/// A clock that jumps, for one program.
const FAKETIME: Package = Package {
    apt: "faketime",
    dnf: "libfaketime",
    pacman: "libfaketime",
    zypper: "libfaketime",
    brew: "libfaketime",
};
/// Checks the rules that Prometheus is given.
const PROMETHEUS: Package = Package {
    apt: "prometheus",
    dnf: "golang-github-prometheus",
    pacman: "prometheus",
    zypper: "golang-github-prometheus-prometheus",
    brew: "prometheus",
};
/// Where the browser tests look for a browser.
const BROWSERS: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// Models that only tests use, beside the default set.
pub(crate) const FURTHER_MODELS: &[&str] = &["whisper-tiny.en"];

/// Runs all tests. A suite that fails does not keep the later ones from running.
pub(crate) fn all(runner: &mut Runner) -> Outcome {
    native::set_up_sound_card()?;
    let python = runner.root().join("tests/requirements.txt");
    let node = runner.root().join("tests/package.json");
    let python = python.is_file().then_some(python);
    let node = node.is_file().then_some(node);
    runner.timed("test tools", |_| tools(python.is_some(), node.is_some()))?;
    // Program and tests in one go: dev-dependencies switch on features of shared crates, and apart
    // each of the two would compile its own tokio and all that stands on it.
    runner.cargo(
        "build",
        &[
            "build",
            "--release",
            "--workspace",
            "--bins",
            "--tests",
            "--examples",
            "--features",
            "duologue/sound-card,duologue/csm",
        ],
        &[],
    )?;
    let mut pull = runner.command(runner.binary());
    runner.step("models", pull.args(["models", "pull"]))?;
    let mut pull = runner.command(runner.binary());
    pull.args(["models", "pull"]).args(FURTHER_MODELS);
    runner.step("models for tests", &mut pull)?;

    let mut outcomes = vec![runner.cargo(
        "Rust tests",
        &[
            "test",
            "--release",
            "--workspace",
            "--no-fail-fast",
            "--features",
            "duologue/sound-card,duologue/csm",
        ],
        &[],
    )];
    if python.is_some() || node.is_some() {
        let mut server = None;
        outcomes.push(runner.timed("server", |runner| {
            server = Some(Server::start(runner)?);
            Ok(())
        }));
        if let Some(server) = server {
            // Without them the other tests still run; that one is missing fails the whole.
            let mut others = Vec::new();
            for tool in [go::LIVEKIT, go::CADDY, go::TURN] {
                outcomes.push(runner.timed("servers of others", |runner| {
                    others.push((tool.variable, tool.get(runner)?));
                    Ok(())
                }));
            }
            if let Some(requirements) = &python {
                outcomes.push(pytest(runner, requirements, &server, &others));
            }
            if let Some(package) = &node {
                outcomes.push(browser(runner, package, &server, &others));
            }
            // Its memory and cores are for the next.
            drop(server);
            if let Some(requirements) = &python {
                let python = self::python(runner, requirements, "tests-venv")?;
                outcomes.push(smoke::run(runner, &python, &others, Program::Built));
            }
        }
    }
    all_of(outcomes)
}

fn tools(python: bool, node: bool) -> Outcome {
    let mut missing = Vec::new();
    if which("redis-server").is_none() {
        missing.push(&REDIS);
    }
    if python && !has_venv() {
        missing.push(&PYTHON);
    }
    let sound_server = which("pulseaudio").is_some() && which("pactl").is_some();
    if python && cfg!(target_os = "linux") && !sound_server {
        missing.push(&SOUND_SERVER);
    }
    if python && cfg!(target_os = "linux") && which("faketime").is_none() {
        missing.push(&FAKETIME);
    }
    if node && (which("node").is_none() || which("npm").is_none()) {
        missing.push(&NODE);
    }
    let browser = std::env::var_os("CHROMIUM").is_some_and(|p| Path::new(&p).is_file())
        || BROWSERS.iter().any(|name| which(name).is_some());
    if node && !browser {
        missing.push(&CHROMIUM);
    }
    if !missing.is_empty() {
        packages::install(&missing)?;
    }
    // Not every system has it; a test that needs it says so and is skipped.
    if python
        && which("promtool").is_none()
        && let Err(error) = packages::install(&[&PROMETHEUS])
    {
        println!("promtool is not here, so the rules for Prometheus are not checked: {error}");
    }
    Ok(())
}

fn has_venv() -> bool {
    let mut command = Command::new("python3");
    output(command.args(["-c", "import ensurepip, venv"])).is_some()
}

/// A virtual environment; returns its Python.
pub(crate) fn venv(runner: &Runner, dir: &Path) -> Outcome<PathBuf> {
    let python = dir.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    });
    // A half-made one, or one whose Python has gone, is made anew.
    let works = output(Command::new(&python).args(["-m", "pip", "--version"])).is_some();
    if !works {
        let mut command = runner.command("python3");
        status(command.args(["-m", "venv", "--clear"]).arg(dir))?;
    }
    Ok(python)
}

/// A Python of its own with packages; made once for each state of the list.
pub(crate) fn python(runner: &mut Runner, requirements: &Path, name: &str) -> Outcome<PathBuf> {
    if !has_venv() {
        packages::install(&[&PYTHON])?;
    }
    let dir = runner.target().join(name);
    let mut python = PathBuf::new();
    runner.timed("Python packages", |runner| {
        python = venv(runner, &dir)?;
        unless_same(
            requirements,
            &dir.join("installed-requirements.txt"),
            || {
                let mut pip = Command::new(&python);
                pip.args(["-m", "pip", "install", "--quiet"]);
                pip.args(["--disable-pip-version-check", "-r"]);
                status(pip.arg(requirements))
            },
        )
    })?;
    Ok(python)
}

fn pytest(
    runner: &mut Runner,
    requirements: &Path,
    server: &Server,
    others: &[(&str, PathBuf)],
) -> Outcome {
    let python = python(runner, requirements, "tests-venv")?;
    let mut command = runner.command(&python);
    command.args(["-m", "pytest", "tests"]);
    server.tell(runner, &mut command);
    command.envs(others.iter().map(|(name, path)| (name, path)));
    runner.step("whole-system tests", &mut command)
}

fn browser(
    runner: &mut Runner,
    package: &Path,
    server: &Server,
    others: &[(&str, PathBuf)],
) -> Outcome {
    let tests = package.parent().unwrap_or(package).to_owned();
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let lock = tests.join("package-lock.json");
    let (install, by) = if lock.is_file() {
        ("ci", &lock)
    } else {
        ("install", &tests.join("package.json"))
    };
    runner.timed("npm packages", |_| {
        unless_same(by, &tests.join("node_modules/.installed-from"), || {
            status(
                Command::new(npm)
                    .args([install, "--no-audit", "--no-fund"])
                    .current_dir(&tests),
            )
        })
    })?;
    let mut command = Command::new(npm);
    command.arg("test").current_dir(&tests);
    server.tell(runner, &mut command);
    command.envs(others.iter().map(|(name, path)| (name, path)));
    runner.step("browser tests", &mut command)
}

/// Does the work unless it was last done for the same content of `file`, which `stamp` keeps.
fn unless_same(file: &Path, stamp: &Path, work: impl FnOnce() -> Outcome) -> Outcome {
    let wanted = std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    if std::fs::read(stamp).is_ok_and(|done| done == wanted) {
        return Ok(());
    }
    work()?;
    std::fs::write(stamp, wanted).map_err(|e| format!("cannot write {}: {e}", stamp.display()))
}
