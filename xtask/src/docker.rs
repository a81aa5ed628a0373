//! A Docker engine for tests: the one that runs, or one of our own, started by hand and stopped again.
//!
//! Ours keeps to itself: images and sockets in folders of its own, no bridge of its own in the system, and nothing
//! changed in its packet filter. So containers reach each other and are reached from here, and reach nothing else.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::packages::{self, Package};
use crate::runner::{Runner, output, which};

/// The engine and what makes a base image where none can be pulled.
const ENGINE: Package = Package {
    apt: "docker.io debootstrap",
    dnf: "",
    pacman: "",
    zypper: "",
    brew: "",
};
/// Starting and stopping on a slow, busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running engine and its client.
pub(crate) struct Engine {
    client: PathBuf,
    own: Option<Daemon>,
}

/// An engine of our own.
struct Daemon {
    process: Child,
    /// Its socket and what it needs while it runs. Elsewhere than its data: sockets must have short paths.
    run: PathBuf,
    data: PathBuf,
}

impl Engine {
    /// An engine; else why there is none.
    pub(crate) fn find(runner: &Runner) -> Result<Self, String> {
        let running = clients().find(|client| answers(&mut Command::new(client)));
        if running.is_some() {
            let client = able_client()?;
            return Ok(Self { client, own: None });
        }
        if !cfg!(target_os = "linux") || !packages::is_root() {
            return Err("no Docker engine runs, and only root on Linux can start one".to_owned());
        }
        if which("dockerd").is_none() || which("debootstrap").is_none() {
            packages::install(&[&ENGINE])?;
        }
        let daemon = Daemon::start(runner)?;
        let client = able_client()?;
        Ok(Self {
            client,
            own: Some(daemon),
        })
    }

    /// A command of the client.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command.args(arguments);
        self.tell(&mut command);
        command
    }

    /// Tells a command which engine it is.
    pub(crate) fn tell(&self, command: &mut Command) {
        command.env("DOCKER_BUILDKIT", "1");
        if let Some(daemon) = &self.own {
            command.env("DOCKER_HOST", daemon.socket());
        }
    }
}

impl Daemon {
    fn start(runner: &Runner) -> Result<Self, String> {
        let run = std::env::temp_dir().join(format!("duologue-docker-{}", std::process::id()));
        let data = runner.target().join("docker");
        let log = runner.target().join("test-artifacts/dockerd.log");
        for folder in [Some(run.as_path()), Some(&data), log.parent()] {
            let folder = folder.unwrap_or(&run);
            std::fs::create_dir_all(folder)
                .map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
        }
        let out = File::create(&log).map_err(|e| format!("cannot write {}: {e}", log.display()))?;
        let both = out.try_clone().map_err(|e| e.to_string())?;
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        println!("    starting dockerd, its log in {}", log.display());
        let process = Command::new("dockerd")
            .arg(format!("--host={}", socket(&run)))
            .arg(flag("data-root", &data))
            .arg(flag("exec-root", &run.join("exec")))
            .arg(flag("pidfile", &run.join("pid")))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--ip-forward=false", "--ip-masq=false"])
            .args(["--log-level=warn"])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(both)
            .spawn()
            .map_err(|e| format!("cannot start dockerd: {e}"))?;
        let mut daemon = Self { process, run, data };
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Ok(Some(status)) = daemon.process.try_wait() {
                let told = std::fs::read_to_string(&log).unwrap_or_default();
                let last = told.lines().last().unwrap_or_default();
                return Err(format!("dockerd ended with {status}: {last}"));
            }
            let ready = clients()
                .any(|client| answers(Command::new(client).env("DOCKER_HOST", daemon.socket())));
            if ready {
                return Ok(daemon);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Err(format!(
            "dockerd does not answer; its log is {}",
            log.display()
        ))
    }

    fn socket(&self) -> String {
        socket(&self.run)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It stops its containers and what it started itself; killed, it would leave them behind.
        let id = self.process.id().to_string();
        let asked = Command::new("kill").args(["-s", "TERM", &id]).status();
        let start = Instant::now();
        while asked.is_ok() && start.elapsed() < PATIENCE {
            if matches!(self.process.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // It may have ended by itself; there is nobody left to tell of a failure.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.run);
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

fn socket(run: &Path) -> String {
    format!("unix://{}", run.join("docker.sock").display())
}

/// The Docker clients that there are. The first in the path may be one that cannot build.
fn clients() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders
        .into_iter()
        .map(|folder| folder.join("docker"))
        .filter(|client| client.is_file())
}

fn answers(client: &mut Command) -> bool {
    output(
        client
            .args(["info", "--format", "{{.ID}}"])
            .stderr(Stdio::null()),
    )
    .is_some_and(|id| !id.is_empty())
}

fn able_client() -> Result<PathBuf, String> {
    clients().find(|client| builds(client)).ok_or_else(|| {
        "no Docker client that can build: install Debian's docker-buildx, or Docker's docker-buildx-plugin"
            .to_owned()
    })
}

/// Whether a client has what the Dockerfile needs: BuildKit, which came with clients of old, and is a plugin since.
fn builds(client: &Path) -> bool {
    let told = output(Command::new(client).arg("--version"));
    match told.as_deref().and_then(major_version) {
        Some(20..23) => true,
        _ => output(
            Command::new(client)
                .args(["buildx", "version"])
                .stderr(Stdio::null()),
        )
        .is_some(),
    }
}

/// `Docker version 20.10.24+dfsg1, build 297e128` as 20.
fn major_version(told: &str) -> Option<u32> {
    let version = told.strip_prefix("Docker version ")?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_version_is_read() {
        let told = "Docker version 20.10.24+dfsg1, build 297e128";
        assert_eq!(major_version(told), Some(20));
        assert_eq!(
            major_version("Docker version 28.2.2, build e6534b4"),
            Some(28)
        );
        assert_eq!(major_version("podman version 4.3.1"), None);
    }
}
