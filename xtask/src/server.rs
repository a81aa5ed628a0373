//! A server for the whole-system tests.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::runner::Runner;

/// Loading and warming up models on a slow, busy machine.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// A running `duologue serve`; stopped when dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Starts it on a free port and waits until it is ready.
    pub(crate) fn start(runner: &Runner) -> Outcome<Self> {
        let log = runner.target().join("test-artifacts/server.log");
        let folder = log.parent().unwrap_or(&log);
        std::fs::create_dir_all(folder)
            .map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
        let out = File::create(&log).map_err(|e| format!("cannot write {}: {e}", log.display()))?;
        let both = out.try_clone().map_err(|e| e.to_string())?;
        // Freed again at once: a race with other programs is possible and would be told as one.
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .map_err(|e| format!("no free port: {e}"))?;
        println!("    http://{address}, its log in {}", log.display());
        let child = runner
            .command(runner.binary())
            .args(["serve", "--listen", &address.to_string()])
            // A port of its own, so that calls over TCP are tested too.
            .args(["--webrtc-port", "0"])
            // The machine may be busy with other things; which sessions are refused then is a test of its own.
            .env("DUOLOGUE_MAX_CPU_PERCENT", "0")
            .env("DUOLOGUE_MAX_MACHINE_PERCENT", "0")
            .env("DUOLOGUE_MAX_LAG_MS", "0")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(both)
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", runner.binary().display()))?;
        let mut server = Self {
            child,
            address,
            log,
        };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Outcome {
        let start = Instant::now();
        while start.elapsed() < READY_WITHIN {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!(
                    "the server ended with {status}:\n{}",
                    self.log_tail()
                ));
            }
            if self.answers("/readyz") {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Err(format!(
            "the server was not ready within {} s:\n{}",
            READY_WITHIN.as_secs(),
            self.log_tail()
        ))
    }

    /// Whether a GET of the path is answered with 200.
    fn answers(&self, path: &str) -> bool {
        let get = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                self.address
            )?;
            let mut head = [0; 12];
            stream.read_exact(&mut head)?;
            Ok(head.ends_with(b" 200"))
        };
        get().unwrap_or(false)
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Tells a test command where server and program are, and where its files may go.
    pub(crate) fn tell(&self, runner: &Runner, command: &mut Command) {
        command
            .env("DUOLOGUE_URL", format!("http://{}", self.address))
            .env("DUOLOGUE_BIN", runner.binary())
            .env("DUOLOGUE_ARTIFACTS", runner.target().join("test-artifacts"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody left to tell of a failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
