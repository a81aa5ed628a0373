//! `duologue health`: whether a server or a worker is well, for health checks in containers that have no other client.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use duologue_orchestrator::voice::Reach;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::worker_tls::ReachOptions;

/// Ask a server, or with --worker a TTS worker, whether it takes sessions; ends with 1 if it does not
#[derive(Debug, Args)]
pub struct HealthCommand {
    /// Address of the server. Whether its certificate is for that address is not looked at
    #[arg(default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,

    /// Ask this TTS worker instead, such as 127.0.0.1:50051
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["url", "alive"])]
    worker: Option<String>,

    #[command(flatten)]
    reach: ReachOptions,

    /// Ask only whether the process lives: it may be full, or about to stop
    #[arg(long)]
    alive: bool,

    /// Seconds to wait for the answer
    #[arg(long, default_value_t = 5, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

impl HealthCommand {
    /// Asks once, and prints the answer.
    ///
    /// # Errors
    /// Where nobody answers in time, or not well.
    pub async fn run(self) -> anyhow::Result<()> {
        let patience = Duration::from_secs(self.timeout);
        let reach = self.reach.reach()?;
        let (asked, answer) = match &self.worker {
            Some(address) => {
                let asked = worker(address, &reach);
                (address, tokio::time::timeout(patience, asked).await)
            }
            None => {
                let asked = server(&self.url, self.alive);
                (&self.url, tokio::time::timeout(patience, asked).await)
            }
        };
        let answer =
            answer.with_context(|| format!("{asked} does not answer within {patience:?}"))??;
        println!("{answer}");
        Ok(())
    }
}

async fn server(url: &str, alive: bool) -> anyhow::Result<String> {
    let path = if alive { "/healthz" } else { "/readyz" };
    let url = format!("{}{path}", url.trim_end_matches('/'));
    // Asked from beside the server, by an address that its certificate need not name; nothing secret is sent.
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_danger_accept_invalid_certs(true)
        .build()
        .context("cannot set up the HTTP client")?;
    let answer = client.get(&url).send().await;
    let answer = answer.with_context(|| format!("cannot reach {url}"))?;
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    match text.trim() {
        text if status.is_success() => Ok(text.to_owned()),
        "" => bail!("{url} answers {status}"),
        text => bail!("{url} answers {status}: {text}"),
    }
}

async fn worker(address: &str, reach: &Reach) -> anyhow::Result<String> {
    let url = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let channel = reach.to(&url).context("--worker")?.connect().await;
    let channel = channel.with_context(|| format!("cannot reach a worker at {url}"))?;
    let service = String::new();
    let answer = HealthClient::new(channel)
        .check(HealthCheckRequest { service })
        .await
        .with_context(|| format!("the worker at {url} does not tell its health"))?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok("ready".to_owned()),
        status => bail!(
            "the worker at {url} takes no sessions: {}",
            status.as_str_name()
        ),
    }
}
