//! A peer in a Python process of its own: a line of JSON in, a line of JSON out.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

/// Where peers are.
#[derive(Args)]
pub struct PeerOptions {
    /// Python that has the peer installed; `cargo xtask bench` makes one from bench/requirements.txt
    #[arg(long, env = "DUOLOGUE_BENCH_PYTHON", value_name = "FILE")]
    peer_python: Option<PathBuf>,

    /// Measure without the peer
    #[arg(long)]
    alone: bool,
}

impl PeerOptions {
    /// Starts a peer. `None` where it is not wanted.
    ///
    /// # Errors
    /// A peer that does not start.
    pub fn start(&self, script: &str, arguments: &[&str]) -> anyhow::Result<Option<Peer>> {
        if self.alone {
            return Ok(None);
        }
        let Some(python) = &self.peer_python else {
            bail!(
                "there is no peer to measure beside: run this by `cargo xtask bench`, name a Python with --peer-python, or say --alone"
            );
        };
        let mut child = Command::new(python)
            .args(["-c", script])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the peer has no pipes");
        };
        let mut peer = Peer {
            child,
            input: Some(input),
            output: BufReader::new(output),
        };
        peer.read().context("the peer did not start")?;
        Ok(Some(peer))
    }
}

/// A running peer; ended when dropped.
pub struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Gives it a task and waits for the answer.
    ///
    /// # Errors
    /// A peer that ended or answered otherwise than in JSON.
    pub fn ask(&mut self, task: &Value) -> anyhow::Result<Value> {
        let input = self.input.as_mut().context("the peer has ended")?;
        writeln!(input, "{task}")
            .and_then(|()| input.flush())
            .context("the peer has ended")?;
        self.read()
    }

    fn read(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the peer ended; its messages are above");
        }
        serde_json::from_str(&line).with_context(|| format!("the peer said {line:?}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its loop ends with its input.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
