//! A server of its own for a bench: the same program, in a process of its own.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use duologue_client::connect;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;

use super::process::Process;
use super::program::program;

/// Models may have to be loaded.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running server; ended when dropped.
pub struct Server {
    child: Child,
    /// Where conversations are held.
    pub url: String,
}

impl Server {
    /// Starts one with these options and waits until it takes sessions.
    ///
    /// # Errors
    /// A server that does not start, or ends.
    pub async fn start(options: &[String]) -> anyhow::Result<Self> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut child = program()?
            .args(["--log", "warn", "serve", "--listen", &address.to_string()])
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start a server")?;
        let url = format!("ws://{address}/v1/realtime");
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Ok((mut speaker, _)) = connect(&url, None).await {
                speaker.close().await;
                return Ok(Self { child, url });
            }
            if let Some(status) = child.try_wait()? {
                bail!("the server ended with {status}; its messages are above");
            }
            // Nothing tells a client that a port has begun to listen.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("the server was not ready within {} s", PATIENCE.as_secs())
    }

    /// The server's process, while it runs.
    pub fn process(&self) -> Option<Process> {
        self.child.id().map(Process::of)
    }

    /// The most memory that it ever held, bytes.
    pub fn peak_memory(&self) -> Option<u64> {
        self.process()?.peak_bytes().ok()
    }

    /// `host:port` of its HTTP.
    pub fn address(&self) -> &str {
        let rest = self.url.trim_start_matches("ws://");
        rest.split('/').next().unwrap_or(rest)
    }

    /// A metric, if it is there; of one with labels, the sum.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(self.address()).await.ok()?;
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address()
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut page = Vec::new();
        stream.read_to_end(&mut page).await.ok()?;
        let page = String::from_utf8_lossy(&page);
        let of_it = page.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        let values: Vec<f64> = of_it
            .filter_map(|line| line.rsplit(' ').next()?.trim().parse().ok())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Ends it.
    ///
    /// # Errors
    /// A process that cannot be ended.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot end the server")
    }
}
