//! `duologue worker`: a TTS worker on a socket.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use duologue_voicepack::VoicepackStore;
use duologue_worker::{Worker, WorkerConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serve voices to orchestrators over gRPC (duologue.tts.v1).
#[derive(Debug, clap::Args)]
pub struct WorkerCommand {
    /// Address to listen on, such as 127.0.0.1:50051; port 0 takes a free one.
    #[arg(long, env = "DUOLOGUE_WORKER_LISTEN", value_name = "ADDR")]
    listen: Option<String>,

    /// Configuration file; configs/worker.yaml shows all options.
    #[arg(long, env = "DUOLOGUE_WORKER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Voice for sessions that name none.
    #[arg(long, value_name = "VOICE")]
    default_voice: Option<String>,

    /// Further voices to load before the worker is ready; may be given more than once.
    #[arg(long, value_name = "VOICE", value_delimiter = ',')]
    preload: Vec<String>,

    /// Sessions at once.
    #[arg(long, value_name = "N")]
    max_sessions: Option<usize>,

    /// What the worker calls itself.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Folder that holds the voicepacks, instead of the one where `duologue models` puts them.
    #[arg(long, value_name = "DIR")]
    voicepacks: Option<PathBuf>,
}

impl WorkerCommand {
    /// Serves until SIGINT or SIGTERM, then lets running utterances finish.
    ///
    /// # Errors
    /// When the configuration cannot be read, a voice does not load or the address cannot be listened on.
    pub async fn run(self) -> anyhow::Result<()> {
        let store = match &self.voicepacks {
            Some(dir) => VoicepackStore::open(dir),
            None => VoicepackStore::open_default()?,
        };
        let config = self.config()?;
        let listen = config.listen.clone();
        let listener = TcpListener::bind(&listen).await.with_context(|| {
            format!("cannot listen on {listen}: is the address this machine's and the port free?")
        })?;
        let address = listener.local_addr()?;
        tracing::info!("loading voices");
        let worker = Worker::start(config, store).await?;
        tracing::info!(%address, "ready");
        let shutdown = CancellationToken::new();
        let signal = tokio::spawn(on_signal(shutdown.clone()));
        let served = worker.serve(listener, shutdown).await;
        signal.abort();
        Ok(served?)
    }

    /// The file's settings, and over them the flags'.
    fn config(&self) -> anyhow::Result<WorkerConfig> {
        let mut config = match &self.config {
            Some(path) => read(path)?,
            None => WorkerConfig::default(),
        };
        if let Some(listen) = &self.listen {
            config.listen.clone_from(listen);
        }
        if let Some(voice) = &self.default_voice {
            config.default_voice = Some(voice.clone());
        }
        config.preload.extend(self.preload.iter().cloned());
        if let Some(n) = self.max_sessions {
            config.max_sessions = n;
        }
        if let Some(name) = &self.name {
            config.name.clone_from(name);
        }
        Ok(config)
    }
}

fn read(path: &Path) -> anyhow::Result<WorkerConfig> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    serde_saphyr::from_str(&text)
        .with_context(|| format!("the configuration {} is not valid", path.display()))
}

/// Cancels `shutdown` at the first SIGINT or SIGTERM.
async fn on_signal(shutdown: CancellationToken) {
    if let Err(error) = asked_to_stop().await {
        tracing::warn!(%error, "signals cannot be watched; stop the worker by killing it");
        return;
    }
    tracing::info!("stopping: letting running utterances finish");
    shutdown.cancel();
}

#[cfg(unix)]
async fn asked_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn asked_to_stop() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
