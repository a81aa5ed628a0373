//! What is logged, and how. Never what people say: that takes the configuration's word.

use std::io::IsTerminal;
use std::sync::OnceLock;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, reload};

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
        default_value = "info,llama-cpp-2=warn",
        value_name = "FILTER",
        help_heading = "Logs"
    )]
    log: String,

    /// How log lines are written
    #[arg(long, global = true, env = "DUOLOGUE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Pretty, help_heading = "Logs")]
    log_format: LogFormat,
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
            EnvFilter::new("info,llama-cpp-2=warn")
        });
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        match self.log_format {
            LogFormat::Pretty => {
                let lines = lines.with_target(false).with_filter_reloading();
                keep(lines.reload_handle());
                lines.init();
            }
            LogFormat::Json => {
                let lines = lines.json().with_filter_reloading();
                keep(lines.reload_handle());
                lines.init();
            }
        }
    }
}

fn keep<S: 'static>(handle: reload::Handle<EnvFilter, S>) {
    let change = move |filter| handle.reload(filter).map_err(anyhow::Error::new);
    let _ = CHANGE.set(Box::new(change));
}
