//! `duologue bench`: how fast, and how right, beside others on the same machine in the same run.
//!
//! Machines are shared and noisy, so a time alone means little: each measurement alternates between Duologue and a
//! peer, and what counts is the ratio.
//!
//! The program mounts [`BenchCommand`] as one of its commands. Benches start the program anew for servers and workers
//! of their own, so they can only be run by one that has `serve` and `worker`.

mod asr;
mod capacity;
mod chaos;
#[cfg(feature = "csm")]
mod csm;
mod ear;
mod fleet;
mod network;
mod peer;
mod process;
mod program;
mod report;
mod server;
mod sessions;
mod soak;
mod transport;
mod tts;
mod turn;
mod turns;
mod worker;

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Measure speech synthesis, recognition, whole turns, and transports; prints a table, and JSON where asked
#[derive(Args)]
pub struct BenchCommand {
    /// Write all figures to this file as JSON
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// First audio and real-time factor of a voice: Piper's beside piper-tts, or CSM's by itself
    Tts(tts::TtsBench),
    /// Time and word error rate of a recognizer, beside faster-whisper
    Asr(asr::AsrBench),
    /// What listening costs: voice detectors, noise gate, echo cancellation
    Ear(ear::EarBench),
    /// From the end of a spoken question to the first sound of the answer, at a real client
    Turn(turn::TurnBench),
    /// What WebRTC and a WebSocket add over the loopback, and what a call costs
    Transport(transport::TransportBench),
    /// What a call keeps of speech over networks that lose, delay and reorder
    Network(network::NetworkBench),
    Turns(turns::TurnsBench),
    Worker(worker::WorkerBench),
    Fleet(fleet::FleetBench),
    Chaos(chaos::ChaosBench),
    Soak(soak::SoakBench),
    Capacity(capacity::CapacityBench),
}

impl BenchCommand {
    /// Measures and prints. `key`: what a server asks for that runs already; those of a bench's own ask for none.
    ///
    /// # Errors
    /// A model, a corpus or a peer that is not there; what has to hold and did not.
    pub async fn run(self, key: Option<String>) -> anyhow::Result<()> {
        let report = match self.what {
            What::Tts(bench) => tokio::task::spawn_blocking(move || bench.run()).await??,
            What::Asr(bench) => tokio::task::spawn_blocking(move || bench.run()).await??,
            What::Ear(bench) => tokio::task::spawn_blocking(move || bench.run()).await??,
            What::Turn(bench) => bench.run(key.as_deref()).await?,
            What::Transport(bench) => bench.run().await?,
            What::Network(bench) => bench.run().await?,
            What::Turns(bench) => bench.run().await?,
            What::Worker(bench) => bench.run().await?,
            What::Fleet(bench) => bench.run().await?,
            What::Chaos(bench) => bench.run().await?,
            What::Soak(bench) => bench.run().await?,
            What::Capacity(bench) => bench.run().await?,
        };
        report.print();
        if let Some(path) = &self.json {
            report.write(path)?;
        }
        report.outcome()
    }
}
