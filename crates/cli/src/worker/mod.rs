//! `duologue worker`: a TTS worker on a socket.

mod devices;
mod options;
mod supervisor;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::FromArgMatches as _;
use duologue_registry::RedisRegistry;
use duologue_voicepack::VoicepackStore;
use duologue_worker::{Place, Worker};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::logging::{self, LogOptions};
use crate::signals::{Hangups, Stops};
use crate::{config, machine, metrics};

pub use options::WorkerCommand;

impl WorkerCommand {
    /// Binds the process to its device, if it is one of several. Before any thread is started.
    ///
    /// # Errors
    /// Where the system does not do it.
    pub fn pin(&self) -> anyhow::Result<()> {
        self.own_device().map_or(Ok(()), |(_, device)| device.pin())
    }

    /// Serves until SIGINT or SIGTERM, then lets running utterances finish.
    ///
    /// # Errors
    /// When a voice does not load, the address cannot be listened on or the registry's is none.
    pub async fn run(self) -> anyhow::Result<()> {
        // First of all: what comes while voices are loaded counts.
        let (stops, hangups) = (Stops::watch(), Hangups::watch());
        let shutdown = CancellationToken::new();
        tokio::spawn(on_signal(stops, shutdown.clone()));
        tokio::spawn(hangups.reload(shutdown.clone(), reload_log));
        if self.own_device().is_some() {
            tokio::spawn(supervisor::orphaned(shutdown.clone()));
        } else if !self.devices().is_empty() {
            return supervisor::run(self.devices(), self.drain(), shutdown).await;
        }
        let traces = self.traces.start("duologue-worker")?;
        let served = self.serve(shutdown).await;
        traces.finish().await;
        served
    }

    /// Checks what the options say, and starts nothing.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> anyhow::Result<Vec<String>> {
        with_port(&self.listen, None).with_context(|| format!("--listen {:?}", self.listen))?;
        self.tls.config()?;
        Ok(Vec::new())
    }

    async fn serve(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let number = self.own_device().map(|(number, _)| number);
        let tls = self.tls.config()?;
        let store = match self.voicepacks() {
            Some(dir) => VoicepackStore::open(dir),
            None => VoicepackStore::open_default()?,
        };
        let listen = with_port(&self.listen, number)
            .with_context(|| format!("--listen {:?}", self.listen))?;
        // Bound first: voices take a while, and a taken port should not be found out after it.
        let listener = TcpListener::bind(&listen).await.with_context(|| {
            format!("cannot listen on {listen}: is the address this machine's and the port free?")
        })?;
        let address = listener.local_addr()?;
        if self.metrics_listen.is_some() || self.admin.is_on() {
            let exposition = metrics::start()?;
            self.admin
                .serve(number, metrics::routes(exposition.clone()))
                .await?;
            if let Some(listen) = &self.metrics_listen {
                let listen = with_port(listen, number)
                    .with_context(|| format!("--metrics-listen {listen:?}"))?;
                metrics::serve(&listen, exposition).await?;
            }
        }
        let registry = match &self.fleet.registry {
            Some(url) => Some((RedisRegistry::open(url)?, self.place(address, number)?)),
            None => None,
        };
        let name = match (&self.name, number) {
            (Some(name), None) => name.clone(),
            (Some(name), Some(number)) => format!("{name}-{number}"),
            (None, _) => format!("{}:{}", machine::name(), address.port()),
        };
        let config = self.worker_config(name.clone());
        tracing::info!(name, "loading voices");
        let worker = tokio::select! {
            worker = Worker::start(config, store) => worker?,
            () = shutdown.cancelled() => {
                tracing::info!("stopped before its voices were loaded");
                return Ok(());
            }
        };
        if let Some((registry, place)) = registry {
            let lease = Duration::from_secs(self.fleet.lease);
            worker.announce(Arc::new(registry), place, lease).await?;
        }
        say(&format!(
            "Duologue worker {name} is ready at {}://{address}",
            self.tls.scheme()
        ));
        Ok(worker.serve(listener, tls, shutdown).await?)
    }

    /// Where others find the worker that listens on `address`.
    fn place(&self, address: SocketAddr, number: Option<usize>) -> anyhow::Result<Place> {
        let address = match &self.fleet.advertise {
            Some(advertise) => {
                let (scheme, host) = advertise
                    .split_once("://")
                    .unwrap_or((self.tls.scheme(), advertise));
                let host = with_port(host.trim_end_matches('/'), number).with_context(|| {
                    format!("--advertise {advertise:?}: write it as http://HOST:PORT")
                })?;
                format!("{scheme}://{host}")
            }
            None if address.ip().is_unspecified() => bail!(
                "--listen {} is every address of this machine: say with --advertise http://HOST:PORT under which \
                 one orchestrators reach it",
                self.listen
            ),
            None => format!("{}://{address}", self.tls.scheme()),
        };
        let tags = self.fleet.tags.iter().filter(|tag| !tag.is_empty());
        Ok(Place {
            address,
            host: machine::name(),
            tags: tags.cloned().collect(),
        })
    }
}

/// An address with the port of the worker of that number: the first has the one that is given, the next the next.
/// 0 stays: the system chooses.
fn with_port(address: &str, number: Option<usize>) -> anyhow::Result<String> {
    let (host, port) = address
        .rsplit_once(':')
        .with_context(|| format!("{address:?} has no port"))?;
    let port: u16 = port
        .parse()
        .with_context(|| format!("{port:?} is not a port"))?;
    let port = match (port, number) {
        (0, _) | (_, None) => Some(port),
        (port, Some(number)) => u16::try_from(number).ok().and_then(|n| port.checked_add(n)),
    };
    let port = port.context("there are not so many ports after the first")?;
    Ok(format!("{host}:{port}"))
}

/// Prints a line. Who does not want it any more is no reason to stop.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "{line}").and_then(|()| out.flush());
    if let Err(error) = said {
        tracing::debug!(%error, line, "not printed");
    }
}

/// Cancels `shutdown` at the first SIGINT or SIGTERM; the second ends the process.
async fn on_signal(mut stops: Stops, shutdown: CancellationToken) {
    let stop = stops.next().await;
    tracing::info!(
        ?stop,
        "stopping: letting running utterances finish; once more stops at once"
    );
    shutdown.cancel();
    std::process::exit(stops.next().await.exit_code());
}

/// Reads anew what is logged.
fn reload_log() {
    let reloaded = config::read(std::env::args_os().collect())
        .map_err(anyhow::Error::from)
        .and_then(|read| logging::change(&LogOptions::from_arg_matches(&read.matches)?));
    match reloaded {
        Ok(()) => tracing::info!("what is logged is reloaded; all else takes a new start"),
        Err(error) => tracing::error!("nothing is reloaded: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_worker_of_several_has_the_next_port() {
        assert_eq!(
            with_port("127.0.0.1:50051", None).unwrap(),
            "127.0.0.1:50051"
        );
        assert_eq!(with_port("[::1]:50051", Some(2)).unwrap(), "[::1]:50053");
        assert_eq!(with_port("host:0", Some(2)).unwrap(), "host:0");
        for (bad, number) in [("host", None), ("host:port", None), ("host:65535", Some(1))] {
            assert!(with_port(bad, number).is_err(), "{bad}");
        }
    }
}
