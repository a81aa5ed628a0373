//! `duologue route`: why a request goes where it goes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use duologue_orchestrator::fleet::{Mode, Wanted};
use duologue_orchestrator::routing::{Policies, Policy, explain};
use duologue_orchestrator::voice::VoiceChoice;
use duologue_registry::{RedisRegistry, Registry, Snapshot, SnapshotFile};

/// Longest wait for a registry.
const PATIENCE: Duration = Duration::from_secs(5);

/// How workers are chosen; options of several commands.
#[derive(Debug, Args)]
pub struct RoutingOptions {
    /// File of routing policies; configs/routing.yaml shows all there is to set. `default`, `edge` and `lora` are
    /// there without one
    #[arg(
        long,
        env = "DUOLOGUE_ROUTING",
        value_name = "FILE",
        help_heading = "Workers"
    )]
    routing: Option<PathBuf>,

    /// Routing policy by which a worker is chosen
    #[arg(
        long,
        env = "DUOLOGUE_POLICY",
        default_value = "default",
        value_name = "NAME",
        help_heading = "Workers"
    )]
    policy: String,
}

impl RoutingOptions {
    /// The policy that is asked for.
    ///
    /// # Errors
    /// A file that is none, or that has no such policy.
    pub fn policy(&self) -> anyhow::Result<Policy> {
        let policies = match &self.routing {
            None => Policies::default(),
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                Policies::read(&text).with_context(|| format!("in {}", file.display()))?
            }
        };
        Ok(policies.get(&self.policy)?.clone())
    }
}

/// Ask how workers are chosen.
#[derive(Debug, Args)]
pub struct RouteCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Explain(Explain),
}

/// Say which worker would speak now, and why: what was found of every worker, filter by filter.
#[derive(Debug, Args)]
struct Explain {
    /// Registry of the workers, such as redis://10.0.0.2:6379
    #[arg(
        long,
        env = "DUOLOGUE_REGISTRY",
        hide_env_values = true,
        value_name = "URL",
        required_unless_present = "snapshot"
    )]
    registry: Option<String>,

    /// Workers as --save wrote them, instead of those of a registry; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,

    /// Write the workers to a file, to ask about them later
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    /// Voice that is wanted; empty: the worker's own
    #[arg(long, default_value = "", value_name = "NAME")]
    voice: String,

    /// Language to be spoken, such as `en` or `de-AT`
    #[arg(long, value_name = "TAG")]
    language: Option<String>,

    /// What the voice is wanted for
    #[arg(long, value_enum, default_value = "session")]
    mode: ModeChoice,

    /// Session that asks: equals are shared out by it
    #[arg(long, default_value = "explain", value_name = "ID")]
    session: String,

    /// Worker that spoke for the session last
    #[arg(long, value_name = "WORKER")]
    last_worker: Option<String>,

    /// Worker that has failed the session; may be given more than once
    #[arg(long, value_name = "WORKER")]
    avoid: Vec<String>,

    #[command(flatten)]
    routing: RoutingOptions,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeChoice {
    /// A conversation
    Session,
    /// A text of its own
    Text,
}

impl RouteCommand {
    /// Explains.
    ///
    /// # Errors
    /// Workers or policies that cannot be read.
    pub async fn run(self) -> anyhow::Result<()> {
        let Action::Explain(explain) = self.action;
        explain.run().await
    }
}

impl Explain {
    async fn run(self) -> anyhow::Result<()> {
        let policy = self.routing.policy()?;
        let snapshot = self.workers().await?;
        if let Some(file) = &self.save {
            let text = serde_json::to_string_pretty(&snapshot.to_file())?;
            std::fs::write(file, text)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let mode = match self.mode {
            ModeChoice::Session => Mode::Session,
            ModeChoice::Text => Mode::Text,
        };
        let wanted = Wanted {
            language: self.language.clone(),
            last_worker: self.last_worker.clone(),
            avoid: self.avoid.clone(),
            ..Wanted::new(&self.session, VoiceChoice::parse(&self.voice, 1.0), mode)
        };
        let explanation = explain(&wanted, &snapshot.workers, &policy);
        if self.json {
            println!("{}", serde_json::to_string_pretty(&explanation)?);
        } else {
            let age = snapshot.age().as_secs_f32();
            println!("{} workers, known {age:.1} s ago", snapshot.workers.len());
            print!("{explanation}");
        }
        Ok(())
    }

    async fn workers(&self) -> anyhow::Result<Snapshot> {
        if let Some(file) = &self.snapshot {
            let text = if file.as_os_str() == "-" {
                std::io::read_to_string(std::io::stdin())
            } else {
                std::fs::read_to_string(file)
            };
            let text = text.with_context(|| format!("cannot read {}", file.display()))?;
            let file: SnapshotFile = serde_json::from_str(&text)
                .with_context(|| format!("{} holds no workers", file.display()))?;
            return Ok(file.into());
        }
        let Some(url) = &self.registry else {
            bail!("name a registry with --registry, or a file with --snapshot");
        };
        let registry = RedisRegistry::open(url)?;
        registry.connected(PATIENCE).await?;
        let snapshot = Snapshot::clone(&registry.watch().borrow());
        Ok(snapshot)
    }
}
