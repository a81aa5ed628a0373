//! `duologue top`: a running server, watched in a terminal.

mod exposition;
mod screen;
mod view;

use std::collections::VecDeque;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use duologue_orchestrator::status::ServerStatus;
use reqwest::StatusCode;

use crate::secret::{API_KEY, secret};
use exposition::Page;
use screen::Screen;
use view::View;

/// What latencies are of.
const PERIOD: Duration = Duration::from_secs(60);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Watch a running server: its sessions and their states, latencies, workers.
///
/// Latencies are those of the last minute. Prints once and ends where the output is no terminal. A key that the server
/// wants is read from DUOLOGUE_API_KEY.
#[derive(Debug, Args)]
pub struct TopCommand {
    /// Address of the server, or the one of its --admin-listen, which tells of each session; a worker's
    /// --metrics-listen shows the worker
    #[arg(env = "DUOLOGUE_SERVER", default_value = "http://127.0.0.1:8080")]
    server: String,

    /// Print once and end; latencies are those since the server began
    #[arg(long)]
    once: bool,

    /// Seconds between two looks
    #[arg(long, default_value_t = 1.0, value_name = "S", value_parser = seconds)]
    interval: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.2..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("{text:?}: use a number from 0.2 to 60")),
    }
}

impl TopCommand {
    /// Watches until it is told to stop.
    ///
    /// # Errors
    /// A server that does not answer at first; later, that is shown.
    pub async fn run(self) -> anyhow::Result<()> {
        let server = Server::new(&self.server)?;
        let first = server.look().await?;
        if self.once || !std::io::stdout().is_terminal() {
            let view = View::new(&server.address, &first.page, None, first.status.as_ref());
            print!("{}", view.plain());
            return Ok(());
        }
        let mut screen = Screen::open()?;
        let mut looks = VecDeque::from([first]);
        let mut trouble = None;
        loop {
            if let Some(now) = looks.back() {
                let before = looks.front().filter(|_| looks.len() > 1);
                let before = before.map(|before| (&before.page, now.at - before.at));
                let view = View::new(&server.address, &now.page, before, now.status.as_ref());
                screen.draw(&view, trouble.as_deref())?;
            }
            let next = async {
                tokio::time::sleep(Duration::from_secs_f64(self.interval)).await;
                server.look().await
            };
            let look = tokio::select! {
                look = next => look,
                left = tokio::signal::ctrl_c() => return Ok(left?),
            };
            match look {
                Ok(look) => {
                    trouble = None;
                    looks.push_back(look);
                }
                Err(error) => trouble = Some(format!("{error:#}")),
            }
            while looks
                .front()
                .is_some_and(|look| look.at.elapsed() > PERIOD && looks.len() > 2)
            {
                looks.pop_front();
            }
        }
    }
}

/// What a server told at a time.
struct Look {
    at: Instant,
    page: Page,
    status: Option<ServerStatus>,
}

struct Server {
    client: reqwest::Client,
    address: String,
    key: Option<String>,
}

impl Server {
    fn new(address: &str) -> anyhow::Result<Self> {
        let address = address.trim_end_matches('/');
        let address = match address.contains("://") {
            true => address.to_owned(),
            false => format!("http://{address}"),
        };
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        let key = secret(API_KEY)?;
        Ok(Self {
            client,
            address,
            key,
        })
    }

    async fn look(&self) -> anyhow::Result<Look> {
        let page = self
            .get("metrics")
            .await?
            .with_context(|| format!("{} has no /metrics", self.address))?;
        // The server's own address has its page there, and says so.
        let status = self.get("status").await?;
        let status = status.and_then(|text| serde_json::from_str(&text).ok());
        Ok(Look {
            at: Instant::now(),
            page: Page::read(&page),
            status,
        })
    }

    /// A page's text, if there is such a page.
    async fn get(&self, path: &str) -> anyhow::Result<Option<String>> {
        let url = format!("{}/{path}", self.address);
        let mut request = self.client.get(&url);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let answer = request
            .send()
            .await
            .with_context(|| format!("nobody answers at {}; is the server there?", self.address))?;
        match answer.status() {
            StatusCode::OK => Ok(Some(answer.text().await?)),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                bail!("{url} wants a key: put it into DUOLOGUE_API_KEY")
            }
            status => bail!("{url} answers {status}"),
        }
    }
}
