//! `duologue`: talk to a machine that talks back.

mod admin;
mod config;
mod cpu;
mod engines;
mod health;
mod livekit;
mod logging;
mod machine;
mod metrics;
mod models;
mod replay;
mod route;
mod say;
mod secret;
mod serve;
mod signals;
mod size;
#[cfg(feature = "sound-card")]
mod sound_card;
mod talk;
mod top;
mod traces;
mod transcribe;
mod worker;
mod worker_tls;

use std::process::ExitCode;

use clap::{FromArgMatches, Parser, Subcommand};

use config::{Setting, Unread};

/// Talk to a machine that talks back: a self-hosted, full-duplex speech-to-speech server.
///
/// Without a command it serves: it fetches the default models if they are not here, and prints an address to
/// open in a browser.
#[derive(Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    logging: logging::LogOptions,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve conversations over WebSocket and HTTP, with a page to talk to
    Serve(Box<serve::ServeCommand>),
    /// Serve voices to orchestrators over gRPC (duologue.tts.v1)
    Worker(Box<worker::WorkerCommand>),
    Talk(talk::TalkCommand),
    Say(say::SayCommand),
    Transcribe(transcribe::TranscribeCommand),
    #[cfg(feature = "bench")]
    Bench(duologue_bench::BenchCommand),
    Models(models::ModelsCommand),
    Route(Box<route::RouteCommand>),
    Health(health::HealthCommand),
    Replay(replay::ReplayCommand),
    Config(config::ConfigCommand),
    Top(top::TopCommand),
}

fn main() -> ExitCode {
    if let Err(message) = cpu::check() {
        eprintln!("duologue: {message}");
        return ExitCode::FAILURE;
    }
    let read = match config::read(std::env::args_os().collect()) {
        Ok(read) => read,
        Err(Unread::File(error)) => return fail(&error),
        Err(Unread::Arguments(error)) => error.exit(),
    };
    let cli = Cli::from_arg_matches(&read.matches).unwrap_or_else(|error| error.exit());
    let Some(command) = cli.command else {
        return fail(&anyhow::anyhow!("no command was given"));
    };
    if matches!(command, Command::Serve(_)) {
        cpu::wait_asleep();
    }
    if let Command::Worker(worker) = &command
        && let Err(error) = worker.pin()
    {
        return fail(&error);
    }
    cli.logging.start();
    for setting in read.settings.iter().filter(|setting| setting.is_exposed()) {
        tracing::warn!(
            option = setting.name,
            "a password on the command line can be read by every user of this machine; use the environment or a file"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(&anyhow::Error::new(error).context("cannot start the async runtime"));
        }
    };
    let outcome = runtime.block_on(run(command, read.settings));
    // Work on other threads that nobody waits for any more must not hold the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn run(command: Command, settings: Vec<Setting>) -> anyhow::Result<()> {
    match command {
        Command::Serve(command) => command.run(settings).await,
        Command::Worker(command) => command.run().await,
        Command::Talk(command) => command.run().await,
        Command::Say(command) => command.run().await,
        Command::Transcribe(command) => command.run().await,
        #[cfg(feature = "bench")]
        Command::Bench(command) => command.run(secret::secret(secret::API_KEY)?).await,
        Command::Models(command) => command.run().await,
        Command::Route(command) => command.run().await,
        Command::Health(command) => command.run().await,
        Command::Replay(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::Top(command) => command.run().await,
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("duologue: {error:#}");
    ExitCode::FAILURE
}
