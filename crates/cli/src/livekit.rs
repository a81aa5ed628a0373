//! The LiveKit options of `serve`.

use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use duologue_livekit::Credentials;
use duologue_orchestrator::{LiveKitConfig, Orchestrator, serve_livekit};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::secret::secret;

/// A LiveKit server to talk at.
#[derive(Args)]
#[command(next_help_heading = "LiveKit")]
pub struct LiveKitOptions {
    /// LiveKit server to talk at, such as `wss://my.livekit.cloud`: it dispatches rooms to this server. Its keys are
    /// read from LIVEKIT_API_KEY and LIVEKIT_API_SECRET
    #[arg(long, env = "DUOLOGUE_LIVEKIT", value_name = "URL")]
    livekit: Option<String>,

    /// The same server's address for browsers, where it is another one
    #[arg(
        long,
        env = "DUOLOGUE_LIVEKIT_PUBLIC_URL",
        value_name = "URL",
        requires = "livekit"
    )]
    livekit_public_url: Option<String>,

    /// Join this room and no other, instead of being dispatched to rooms
    #[arg(
        long,
        env = "DUOLOGUE_LIVEKIT_ROOM",
        value_name = "NAME",
        requires = "livekit"
    )]
    livekit_room: Option<String>,

    /// Identity of the participant to talk with; left out, it is the first person in the room
    #[arg(
        long,
        env = "DUOLOGUE_LIVEKIT_PARTICIPANT",
        value_name = "IDENTITY",
        requires = "livekit"
    )]
    livekit_participant: Option<String>,

    /// Name under which rooms ask for this agent; empty: every new room gets it
    #[arg(
        long,
        env = "DUOLOGUE_LIVEKIT_AGENT",
        value_name = "NAME",
        default_value = "",
        conflicts_with = "livekit_room"
    )]
    livekit_agent: String,
}

/// Talking at a LiveKit server, under way.
pub struct LiveKit {
    drain: CancellationToken,
    task: JoinHandle<()>,
}

impl LiveKitOptions {
    /// The configuration that the options and the environment make.
    ///
    /// # Errors
    /// A server without keys.
    pub fn config(&self) -> anyhow::Result<Option<LiveKitConfig>> {
        let Some(server) = &self.livekit else {
            return Ok(None);
        };
        let key = secret("LIVEKIT_API_KEY")?.unwrap_or_default();
        let credentials =
            Credentials::new(&key, &secret("LIVEKIT_API_SECRET")?.unwrap_or_default())
                .context("--livekit needs keys")?;
        Ok(Some(LiveKitConfig {
            server: server.clone(),
            public_server: self.livekit_public_url.clone(),
            credentials,
            room: self.livekit_room.clone(),
            participant: self.livekit_participant.clone(),
            agent_name: self.livekit_agent.clone(),
        }))
    }

    /// Begins to talk. What cannot be mended is told by the [`Failure`].
    pub fn start(
        &self,
        config: LiveKitConfig,
        orchestrator: Arc<Orchestrator>,
    ) -> (LiveKit, Failure) {
        let drain = CancellationToken::new();
        let (failed, failure) = tokio::sync::oneshot::channel();
        let serving = serve_livekit(orchestrator, config, drain.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = serving.await {
                let _ = failed.send(error);
            }
        });
        (LiveKit { drain, task }, Failure(failure))
    }
}

/// Why LiveKit cannot be talked at, should that come.
pub struct Failure(tokio::sync::oneshot::Receiver<duologue_livekit::ConnectError>);

impl Failure {
    /// Waits for it, for ever where nothing fails.
    ///
    /// # Errors
    /// Always.
    pub async fn told(self) -> anyhow::Result<()> {
        match self.0.await {
            Ok(error) => bail!(error),
            Err(_) => std::future::pending().await,
        }
    }
}

impl LiveKit {
    /// Takes no more rooms, and waits for the conversations that are under way.
    pub async fn drain(self) {
        self.drain.cancel();
        // One that failed has no conversations.
        let _ = self.task.await;
    }
}
