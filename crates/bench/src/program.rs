//! Programs of a bench's own, each a process on the loopback: servers and workers, which are this very program once
//! more, and Redis.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// What has a server ask its clients for a key. One of a bench's own listens on the loopback, to that bench alone.
const KEYS: [&str; 3] = [
    "DUOLOGUE_API_KEY",
    "DUOLOGUE_API_KEY_FILE",
    "DUOLOGUE_API_KEYS",
];
/// Models may have to be loaded.
const PATIENCE: Duration = Duration::from_secs(120);
/// Nothing tells that a port has begun to listen.
const LOOK: Duration = Duration::from_millis(50);

/// The program, to be given its arguments. What is started of it is killed when it is dropped.
///
/// # Errors
/// A program that cannot tell where it is.
pub fn program() -> anyhow::Result<Command> {
    let mut program = Command::new(std::env::current_exe().context("where is this program?")?);
    program
        // Nobody is refused for what the bench itself does to the machine.
        .env("DUOLOGUE_MAX_CPU_PERCENT", "0")
        .env("DUOLOGUE_MAX_MACHINE_PERCENT", "0")
        .env("DUOLOGUE_MAX_LAG_MS", "0")
        .kill_on_drop(true);
    for name in KEYS {
        program.env_remove(name);
    }
    Ok(program)
}

/// How to know that it is ready.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Worker,
    Server,
    Redis,
}

/// A program on an address of its own, which it keeps when it is started again. Killed when dropped.
pub struct Program {
    kind: Kind,
    address: SocketAddr,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Program {
    /// A TTS worker with the test voice.
    pub async fn worker() -> anyhow::Result<Self> {
        let address = free()?;
        let at = address.to_string();
        // Sessions of servers that were killed hold their places for a while.
        let arguments = [
            "--log",
            "error",
            "worker",
            "--listen",
            &at,
            "--default-voice",
            "tone",
            "--max-sessions",
            "1000",
        ];
        Self::new(Kind::Worker, address, arguments.map(str::to_owned).to_vec()).await
    }

    /// A server with these options.
    pub async fn server(options: &[String]) -> anyhow::Result<Self> {
        let address = free()?;
        let at = address.to_string();
        let mut arguments = ["--log", "error", "serve", "--no-webrtc", "--listen", &at]
            .map(str::to_owned)
            .to_vec();
        arguments.extend_from_slice(options);
        Self::new(Kind::Server, address, arguments).await
    }

    /// A Redis that keeps nothing on the disk.
    pub async fn redis() -> anyhow::Result<Self> {
        let address = free()?;
        let port = address.port().to_string();
        let arguments = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        Self::new(Kind::Redis, address, arguments.map(str::to_owned).to_vec()).await
    }

    async fn new(kind: Kind, address: SocketAddr, arguments: Vec<String>) -> anyhow::Result<Self> {
        let mut process = Self {
            kind,
            address,
            arguments,
            child: None,
        };
        process.start().await?;
        Ok(process)
    }

    /// Starts it (again) and waits until it is ready.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let (name, mut command) = match self.kind {
            Kind::Redis => ("redis-server", Command::new("redis-server")),
            Kind::Worker => ("a worker", program()?),
            Kind::Server => ("a server", program()?),
        };
        let child = command
            .args(&self.arguments)
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}; is it installed?"))?;
        self.child = Some(child);
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().transpose())
            {
                bail!("{name} ended with {}; its messages are above", status?);
            }
            if self.is_ready().await {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("{name} was not ready within {} s", PATIENCE.as_secs())
    }

    async fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address).await else {
            return false;
        };
        if self.kind != Kind::Server {
            return true;
        }
        let request = "GET /readyz HTTP/1.0\r\n\r\n";
        let mut answer = [0; 12];
        let asked = async {
            stream.write_all(request.as_bytes()).await?;
            stream.read_exact(&mut answer).await
        };
        asked.await.is_ok() && answer.ends_with(b"200")
    }

    /// `http://host:port`, `redis://host:port`.
    pub fn url(&self) -> String {
        let scheme = match self.kind {
            Kind::Redis => "redis",
            Kind::Worker | Kind::Server => "http",
        };
        format!("{scheme}://{}", self.address)
    }

    /// Kills it at once.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.context("cannot kill a process")?;
        }
        Ok(())
    }

    /// Stops it in the middle of whatever it does; its connections stay.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal("STOP")
    }

    /// Asks it to end, and waits until it has. Whether it ended well.
    pub async fn terminate(&mut self) -> anyhow::Result<bool> {
        self.signal("TERM")?;
        match self.child.take() {
            Some(mut child) => Ok(child.wait().await?.success()),
            None => Ok(true),
        }
    }

    fn signal(&self, name: &str) -> anyhow::Result<()> {
        let id = self.child.as_ref().and_then(Child::id);
        let id = id.context("the process has ended by itself")?;
        // The shell's own `kill` is everywhere.
        let sent = std::process::Command::new("sh")
            .args(["-c", &format!("kill -{name} {id}")])
            .status()?;
        match sent.success() {
            true => Ok(()),
            false => bail!("cannot send SIG{name} to process {id}"),
        }
    }
}

/// Where ports are looked for: below those that systems give to connections, so that none is taken while its program
/// is being started again.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// An address that nobody has, another one each time.
fn free() -> anyhow::Result<SocketAddr> {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    // Benches that run at once begin at places of their own.
    let first = (std::process::id() % 97) as u16 * 120;
    for _ in PORTS {
        let step = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (first.wrapping_add(step)) % (PORTS.end - PORTS.start);
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port from {} to {} is free", PORTS.start, PORTS.end)
}
