//! Running steps: told before, timed, and summed up in a table.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;

/// Runs steps in the workspace's folder and remembers how each went.
pub(crate) struct Runner {
    root: PathBuf,
    steps: Vec<Step>,
}

struct Step {
    name: String,
    took: Duration,
    result: &'static str,
}

impl Runner {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            steps: Vec::new(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo builds.
    pub(crate) fn target(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) if !dir.is_empty() => self.root.join(dir),
            _ => self.root.join("target"),
        }
    }

    /// The built program.
    pub(crate) fn binary(&self) -> PathBuf {
        let name = format!("duologue{}", std::env::consts::EXE_SUFFIX);
        self.target().join("release").join(name)
    }

    /// A command that starts in the workspace's folder.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// A step of cargo.
    pub(crate) fn cargo(
        &mut self,
        name: &str,
        arguments: &[&str],
        env: &[(&str, &str)],
    ) -> Outcome {
        // Inside `cargo run` this is the cargo that started us.
        let mut command = self.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(arguments).envs(env.iter().copied());
        self.step(name, &mut command)
    }

    /// A step that is one command.
    pub(crate) fn step(&mut self, name: &str, command: &mut Command) -> Outcome {
        let shown = shown(command);
        self.timed(name, |_| {
            println!("    {shown}");
            status(command)
        })
    }

    /// A step of any kind.
    pub(crate) fn timed(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        println!("\n==> {name}");
        let start = Instant::now();
        let outcome = work(self);
        self.steps.push(Step {
            name: name.to_owned(),
            took: start.elapsed(),
            result: if outcome.is_ok() { "ok" } else { "FAILED" },
        });
        outcome.map_err(|e| format!("{name}: {e}"))
    }

    /// Notes a step that was not done, for the table.
    pub(crate) fn skipped(&mut self, name: &str) {
        self.steps.push(Step {
            name: name.to_owned(),
            took: Duration::ZERO,
            result: "NOT CHECKED",
        });
    }

    /// Becomes another program (on Unix), so that signals and the exit status are its own.
    pub(crate) fn replace(
        &self,
        program: PathBuf,
        arguments: &[String],
        env: &[(&str, &OsStr)],
    ) -> Outcome {
        let mut command = Command::new(program);
        command.args(arguments).envs(env.iter().copied());
        println!("\n==> {}", shown(&command));
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            let e = command.exec();
            Err(format!("cannot start {}: {e}", shown(&command)))
        }
        #[cfg(not(unix))]
        status(&mut command)
    }

    /// How long each step took.
    pub(crate) fn print_table(&self) {
        if self.steps.is_empty() {
            return;
        }
        let width = self.steps.iter().map(|s| s.name.len()).max().unwrap_or(0);
        println!("\n{:width$}  {:>8}  result", "step", "time");
        for step in &self.steps {
            let time = clock(step.took);
            println!("{:width$}  {time:>8}  {}", step.name, step.result);
        }
        let total = clock(self.steps.iter().map(|s| s.took).sum());
        println!("{:width$}  {total:>8}", "total");
    }
}

/// Runs a command to its end.
pub(crate) fn status(command: &mut Command) -> Outcome {
    let shown = shown(command);
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{shown}` ended with {status}")),
        Err(e) => Err(format!("cannot start `{shown}`: {e}")),
    }
}

/// What a command prints, if it can be started and ends well.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

/// The path of a program, as the shell would find it.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
        .find(|file| file.is_file())
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{}:{:02} min", seconds / 60, seconds % 60)
    }
}
