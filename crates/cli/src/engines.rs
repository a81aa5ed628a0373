//! Loads the models that a command needs, saying how long each took.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use duologue_asr::Recognizer;
use duologue_llm::{ChatModel, EmbeddedConfig, EndpointConfig, LlmConfig};
use duologue_orchestrator::Detector;
use duologue_vad::{Aggressiveness, EndOfTurn, SileroModel};
use duologue_voicepack::VoicepackStore;

/// The voice detector that `silero` names.
pub const SILERO: &str = "silero-vad";
/// By how much recognizer and language model give way: a third of the time where there is not enough of it.
#[cfg(target_os = "linux")]
const GIVES_WAY: i32 = 5;
/// The end-of-turn model.
pub const SMART_TURN: &str = "smart-turn-v3.2";

/// Which voice detector listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectorChoice {
    /// Silero.
    Silero,
    /// The light one.
    Light(Aggressiveness),
}

impl std::str::FromStr for DetectorChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = match text {
            "silero" => return Ok(Self::Silero),
            "light" => Some(2),
            text => text
                .strip_prefix("light:")
                .and_then(|level| level.parse().ok()),
        };
        level
            .and_then(Aggressiveness::from_level)
            .map(Self::Light)
            .ok_or_else(|| {
                format!("{text:?} is not a voice detector: use silero, or light:0 to light:3")
            })
    }
}

/// Loads the voice detector.
pub async fn detector(store: &VoicepackStore, choice: DetectorChoice) -> anyhow::Result<Detector> {
    match choice {
        DetectorChoice::Light(level) => Ok(Detector::Light(level)),
        DetectorChoice::Silero => {
            let file = store.find(SILERO)?.file("silero_vad.onnx");
            let model = load(SILERO, move || Ok(SileroModel::load(&file)?)).await?;
            Ok(Detector::Silero(Arc::new(model)))
        }
    }
}

/// Loads the end-of-turn model.
pub async fn end_of_turn(store: &VoicepackStore, threads: usize) -> anyhow::Result<EndOfTurn> {
    let file = store.find(SMART_TURN)?.file("smart-turn-v3.2-cpu.onnx");
    load(SMART_TURN, move || Ok(EndOfTurn::load(&file, threads)?)).await
}

/// Loads a speech recognizer.
pub async fn recognizer(
    store: &VoicepackStore,
    name: &str,
    options: duologue_asr::LoadOptions,
) -> anyhow::Result<Arc<dyn Recognizer>> {
    let pack = store.find(name)?;
    load(
        name,
        giving_way("asr", move || Ok(duologue_asr::load(&pack, &options)?)),
    )
    .await
}

/// Where the language model is.
pub fn llm_config(
    store: &VoicepackStore,
    name: &str,
    endpoint: Option<EndpointConfig>,
    threads: u32,
) -> anyhow::Result<LlmConfig> {
    Ok(match endpoint {
        Some(endpoint) => LlmConfig::Endpoint(endpoint),
        None => LlmConfig::Embedded(EmbeddedConfig {
            path: store.find(name)?.dir,
            name: name.to_owned(),
            threads: writing_threads(threads),
            ..EmbeddedConfig::default()
        }),
    })
}

/// A model leaves one core to the rest by default. On a machine with two it is given both: a reply's first words
/// are waited for, and hardly anything else is computed meanwhile.
fn writing_threads(asked: u32) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match asked {
        0 if cores == 2 => 2,
        asked => asked,
    }
}

/// Loads the language model, or makes ready to ask an endpoint.
pub async fn chat(name: &str, config: LlmConfig) -> anyhow::Result<Arc<dyn ChatModel>> {
    load(
        name,
        giving_way("llm", move || Ok(duologue_llm::load(&config)?)),
    )
    .await
}

/// Loads a model whose own threads give way to those that hear and speak: where all cores are busy, a word over a
/// reply has to be noticed, and the reply's sound made, before anything else is computed. Those that a library of C++
/// starts bear `name` in profiles.
fn giving_way<T: Send>(
    name: &'static str,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> impl FnOnce() -> anyhow::Result<T> + Send {
    move || {
        // Threads inherit from the one that starts them, and what has given way cannot take it back.
        std::thread::scope(|scope| {
            let lower = std::thread::Builder::new()
                .name(name.to_owned())
                .spawn_scoped(scope, || {
                    give_way();
                    work()
                })
                .context("no thread can be had to load a model")?;
            lower
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Lowers the calling thread's priority. Elsewhere than on Linux it would be the whole process's.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(GIVES_WAY) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

/// Loads something away from the reactor.
async fn load<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let started = Instant::now();
    let loaded = tokio::task::spawn_blocking(work)
        .await
        .with_context(|| format!("loading {name} broke off"))??;
    tracing::info!(
        model = name,
        seconds = format!("{:.1}", started.elapsed().as_secs_f32()),
        "loaded"
    );
    Ok(loaded)
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_a_model_that_gives_way_have_a_lower_priority_and_nobody_else_has() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let threads = giving_way("lower", move || {
            let started = std::thread::spawn(own);
            Ok((own(), started.join().unwrap()))
        });
        let lower = (before + GIVES_WAY).min(19);
        assert_eq!(threads().unwrap(), (lower, lower));
        assert_eq!(own(), before);
    }
}
