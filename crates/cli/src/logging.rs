//! What is logged, and how. Never what people say: that takes the configuration's word.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

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
            LogFormat::Pretty => lines.with_target(false).init(),
            LogFormat::Json => lines.json().init(),
        }
    }
}
