//! What is logged, and how. Never what people say: that takes the configuration's word.

use std::io::IsTerminal;
use std::sync::OnceLock;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// What is logged unless it is said otherwise.
const DEFAULT: &str = "info,llama-cpp-2=warn";

/// Puts another filter in the place of the one that is in force.
static CHANGE: OnceLock<Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>> =
    OnceLock::new();

/// Logs as these options say from now on. How lines are written stays.
///
/// # Errors
/// What is no filter.
pub fn change(options: &LogOptions) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(&options.log).with_context(|| format!("--log {:?}", options.log))?;
    match CHANGE.get() {
        Some(change) => change(filter),
        None => Ok(()),
    }
}

/// Options of every command.
#[derive(Args)]
pub struct LogOptions {
    /// What to log: error, warn, info, debug, trace, or a list such as `info,duologue_orchestrator=debug`
    #[arg(
        long,
        global = true,
        env = "DUOLOGUE_LOG",
        default_value = DEFAULT,
        value_name = "FILTER",
        help_heading = "Logs"
    )]
    log: String,

    /// How log lines are written
    #[arg(long, global = true, env = "DUOLOGUE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Pretty, help_heading = "Logs")]
    log_format: LogFormat,

    /// Log what people and the assistant say, too, and what libraries log at `trace`. Sound is never logged
    #[arg(
        long,
        global = true,
        env = "DUOLOGUE_LOG_CONTENT",
        help_heading = "Logs"
    )]
    log_content: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people
    Pretty,
    /// One JSON object a line
    Json,
}

impl LogOptions {
    /// Logs to standard error from now on.
    pub fn start(&self) {
        let filter = EnvFilter::try_new(&self.log).unwrap_or_else(|error| {
            eprintln!("duologue: --log {:?}: {error}; using the default", self.log);
            EnvFilter::new(DEFAULT)
        });
        let content = self.log_content;
        let discreet = filter_fn(move |line| content || is_discreet(line));
        let lines = fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let lines = match self.log_format {
            LogFormat::Pretty => lines.with_target(false).boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        let (filter, handle) = reload::Layer::<_, Registry>::new(filter);
        let change = move |filter| handle.reload(filter).map_err(anyhow::Error::new);
        let _ = CHANGE.set(Box::new(change));
        tracing_subscriber::registry()
            .with(lines.with_filter(filter.and(discreet)))
            .init();
    }
}

/// Whether a line holds nothing of what people say. Libraries write whole messages at `trace`, and what they write
/// there nobody here has read.
fn is_discreet(line: &Metadata<'_>) -> bool {
    let (target, level) = (line.target(), line.level());
    match target.split("::").next() {
        Some("duologue") if target == "duologue::content" => false,
        Some(root) => root.starts_with("duologue") || *level <= Level::DEBUG,
        None => true,
    }
}
