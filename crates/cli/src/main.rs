//! `duologue`: talk to a machine that talks back.

mod bench;
mod config_file;
mod cpu;
mod engines;
mod livekit;
mod logging;
mod machine;
mod metrics;
mod models;
mod realtime;
mod replay;
mod route;
mod say;
mod serve;
mod size;
#[cfg(feature = "sound-card")]
mod sound_card;
mod talk;
mod transcribe;
mod worker;

use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

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
    Bench(bench::BenchCommand),
    Models(models::ModelsCommand),
    Route(Box<route::RouteCommand>),
    Replay(replay::ReplayCommand),
}

fn main() -> ExitCode {
    if let Err(message) = cpu::check() {
        eprintln!("duologue: {message}");
        return ExitCode::FAILURE;
    }
    let command = match config_file::configured(Cli::command()) {
        Ok(command) => command,
        Err(error) => return fail(&error),
    };
    let cli = match command
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches))
    {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if matches!(cli.command, None | Some(Command::Serve(_))) {
        cpu::wait_asleep();
    }
    if let Some(Command::Worker(worker)) = &cli.command
        && let Err(error) = worker.pin()
    {
        return fail(&error);
    }
    cli.logging.start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(&anyhow::Error::new(error).context("cannot start the async runtime"));
        }
    };
    let outcome = runtime.block_on(run(cli.command));
    // Work on other threads that nobody waits for any more must not hold the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn run(command: Option<Command>) -> anyhow::Result<()> {
    match command {
        Some(Command::Serve(command)) => command.run().await,
        Some(Command::Worker(command)) => command.run().await,
        Some(Command::Talk(command)) => command.run().await,
        Some(Command::Say(command)) => command.run().await,
        Some(Command::Transcribe(command)) => command.run().await,
        Some(Command::Bench(command)) => command.run().await,
        Some(Command::Models(command)) => command.run().await,
        Some(Command::Route(command)) => command.run().await,
        Some(Command::Replay(command)) => command.run(),
        None => default_serve()?.run().await,
    }
}

/// `duologue` alone: `duologue serve` with nothing but the environment and the configuration file.
fn default_serve() -> anyhow::Result<serve::ServeCommand> {
    let command = serve::ServeCommand::augment_args(clap::Command::new("duologue"));
    let command = config_file::configured_by_environment(command)?;
    let matches = command
        .try_get_matches_from(["duologue"])
        .unwrap_or_else(|error| error.exit());
    Ok(serve::ServeCommand::from_arg_matches(&matches)?)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("duologue: {error:#}");
    ExitCode::FAILURE
}
