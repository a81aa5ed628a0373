//! `duologue serve`: the server, with everything in one process unless told otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use duologue_llm::EndpointConfig;
use duologue_orchestrator::inference::InferencePool;
use duologue_orchestrator::recording::{self, RecordingConfig};
use duologue_orchestrator::voice::VoiceClient;
use duologue_orchestrator::{Engines, IceServer, Orchestrator, OrchestratorConfig, WebRtc};
use duologue_rtc::{Port, PortConfig};
use duologue_session::{Limits, Speculation};
use duologue_voicepack::VoicepackStore;
use duologue_worker::{Worker, WorkerConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::engines::{self, DetectorChoice, SILERO, SMART_TURN};
use crate::livekit::{LiveKit, LiveKitOptions};
use crate::models;

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is
    On,
    /// It is not
    Off,
}

/// A day.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The options, which are the keys of the configuration file too (`max-sessions: 8`). A flag counts before the
/// environment, that before the file, that before the default.
#[derive(Args)]
#[command(
    after_help = "Options can also stand in a YAML file, by their long names: see configs/serve.yaml."
)]
pub struct ServeCommand {
    /// Configuration file
    #[arg(long, env = "DUOLOGUE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Address to listen on. Browsers give a page the microphone only on localhost or over HTTPS
    #[arg(
        long,
        env = "DUOLOGUE_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDR"
    )]
    listen: SocketAddr,

    /// Sessions at once; one more is refused with when to try again
    #[arg(long, env = "DUOLOGUE_MAX_SESSIONS", default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    max_sessions: u16,

    /// Take no WebRTC calls; WebSockets only
    #[arg(long, env = "DUOLOGUE_NO_WEBRTC", help_heading = "WebRTC")]
    no_webrtc: bool,

    /// UDP port of all WebRTC calls; left out, it has the number of the address to listen on. A port with another
    /// number takes calls over TCP too, from networks that block UDP
    #[arg(
        long,
        env = "DUOLOGUE_WEBRTC_PORT",
        value_name = "PORT",
        help_heading = "WebRTC"
    )]
    webrtc_port: Option<u16>,

    /// Addresses by which WebRTC clients reach this machine through a NAT or out of a container, separated by commas
    #[arg(
        long,
        env = "DUOLOGUE_PUBLIC_ADDRESS",
        value_name = "IP",
        value_delimiter = ',',
        help_heading = "WebRTC"
    )]
    public_address: Vec<IpAddr>,

    /// STUN and TURN servers that clients are told of, separated by commas: stun:HOST:PORT,
    /// turn:USER:PASSWORD@HOST:PORT
    #[arg(
        long,
        env = "DUOLOGUE_ICE_SERVER",
        value_name = "SERVER",
        value_delimiter = ',',
        hide_env_values = true,
        help_heading = "WebRTC"
    )]
    ice_server: Vec<IceServer>,

    #[command(flatten)]
    livekit: LiveKitOptions,

    /// What the assistant is told to be; `@FILE` reads it from a file
    #[arg(long, env = "DUOLOGUE_INSTRUCTIONS", value_name = "TEXT")]
    instructions: Option<String>,

    /// Language the user speaks, such as `en`; found out by itself where the model knows several
    #[arg(long, env = "DUOLOGUE_LANGUAGE", value_name = "CODE")]
    language: Option<String>,

    /// Voice: a voicepack's name, `voicepack:speaker`, or `tone`
    #[arg(
        long,
        env = "DUOLOGUE_VOICE",
        default_value = "piper-en_US-joe-medium",
        value_name = "NAME",
        help_heading = "Models"
    )]
    voice: String,

    /// A TTS worker elsewhere, such as `http://10.0.0.5:50051`; without it one runs in this process
    #[arg(
        long,
        env = "DUOLOGUE_WORKER",
        value_name = "URL",
        help_heading = "Models"
    )]
    worker: Option<String>,

    /// Speech recognizer: the name of a Whisper voicepack
    #[arg(
        long,
        env = "DUOLOGUE_ASR",
        default_value = "whisper-base",
        value_name = "NAME",
        help_heading = "Models"
    )]
    asr: String,

    /// Voice detector: silero, or light:0 (lenient) to light:3 (strict)
    #[arg(
        long,
        env = "DUOLOGUE_VAD",
        default_value = "silero",
        value_name = "KIND",
        help_heading = "Models"
    )]
    vad: DetectorChoice,

    /// Judge the end of a turn by silence alone, without the end-of-turn model
    #[arg(long, env = "DUOLOGUE_NO_END_OF_TURN", help_heading = "Models")]
    no_end_of_turn: bool,

    /// Language model in this process: the name of a GGUF voicepack
    #[arg(
        long,
        env = "DUOLOGUE_LLM",
        default_value = "qwen2.5-coder-0.5b-instruct",
        value_name = "NAME",
        help_heading = "Models"
    )]
    llm: String,

    /// Language model elsewhere: the address of an OpenAI-compatible API, such as `http://127.0.0.1:11434/v1`.
    /// Its key is read from DUOLOGUE_LLM_API_KEY or OPENAI_API_KEY
    #[arg(
        long,
        env = "DUOLOGUE_LLM_URL",
        value_name = "URL",
        requires = "llm_model",
        help_heading = "Models"
    )]
    llm_url: Option<String>,

    /// The model's name at that address
    #[arg(
        long,
        env = "DUOLOGUE_LLM_MODEL",
        value_name = "NAME",
        help_heading = "Models"
    )]
    llm_model: Option<String>,

    /// Do not fetch models that are missing; say which and stop
    #[arg(long, env = "DUOLOGUE_NO_PULL", help_heading = "Models")]
    no_pull: bool,

    /// Threads for one transcription; 0 takes the machine's cores, at most 4
    #[arg(
        long,
        env = "DUOLOGUE_ASR_THREADS",
        default_value_t = 0,
        value_name = "N",
        help_heading = "Resources"
    )]
    asr_threads: usize,

    /// Threads of the language model; 0 takes one less than there are physical cores, but both of two
    #[arg(
        long,
        env = "DUOLOGUE_LLM_THREADS",
        default_value_t = 0,
        value_name = "N",
        help_heading = "Resources"
    )]
    llm_threads: u32,

    /// Transcriptions and end-of-turn judgements at once
    #[arg(
        long,
        env = "DUOLOGUE_MIND_THREADS",
        default_value_t = 2,
        value_name = "N",
        help_heading = "Resources"
    )]
    mind_threads: usize,

    /// Leave unheard what does not stand out of the noise of the place
    #[arg(
        long,
        env = "DUOLOGUE_NOISE_GATE",
        value_enum,
        default_value = "on",
        value_name = "WHEN",
        help_heading = "Hearing"
    )]
    noise_gate: Switch,

    /// How much harder it is to be taken for speech while the assistant speaks; 1 is no harder
    #[arg(long, env = "DUOLOGUE_SPEAKING_THRESHOLD_SCALE", default_value_t = 2.0, value_name = "F", value_parser = factor, help_heading = "Hearing")]
    speaking_threshold_scale: f32,

    /// Take the assistant's own voice out of what is heard. Browsers and telephones do so themselves; a session can
    /// ask for it with `session.duologue.echo_cancellation`
    #[arg(
        long,
        env = "DUOLOGUE_ECHO_CANCELLATION",
        value_enum,
        default_value = "off",
        value_name = "WHEN",
        help_heading = "Hearing"
    )]
    echo_cancellation: Switch,

    /// Milliseconds between two partial transcripts while a user speaks; 0 makes them only to judge interruptions
    #[arg(
        long,
        env = "DUOLOGUE_PARTIALS_MS",
        default_value_t = 0,
        value_name = "MS",
        help_heading = "Conversation"
    )]
    partials_ms: u64,

    /// Begin a reply as soon as a silence has a transcript, while it is still judged whether the turn is over; if
    /// it was not, the model worked in vain
    #[arg(
        long,
        env = "DUOLOGUE_SPECULATION",
        value_enum,
        default_value = "on",
        value_name = "WHEN",
        help_heading = "Conversation"
    )]
    speculation: Switch,

    /// Seconds of silence from both sides that end a session; 0: never
    #[arg(
        long,
        env = "DUOLOGUE_IDLE_TIMEOUT",
        default_value_t = 300,
        value_name = "S",
        help_heading = "Conversation"
    )]
    idle_timeout: u64,

    /// Longest session in seconds; 0: no limit
    #[arg(
        long,
        env = "DUOLOGUE_MAX_DURATION",
        default_value_t = 0,
        value_name = "S",
        help_heading = "Conversation"
    )]
    max_duration: u64,

    /// Turns a session answers before it ends; 0: no limit. The last answer is said to its end
    #[arg(
        long,
        env = "DUOLOGUE_MAX_TURNS",
        default_value_t = 0,
        value_name = "N",
        help_heading = "Conversation"
    )]
    max_turns: u32,

    /// Spoken before a session ends by one of these limits; without it, it ends silently
    #[arg(
        long,
        env = "DUOLOGUE_GOODBYE",
        value_name = "TEXT",
        help_heading = "Conversation"
    )]
    goodbye: Option<String>,

    /// Tokens of the conversation that the model is given, at four characters a token. Beyond, the oldest is left
    /// out: whole messages, a function call with its output; system messages stay
    #[arg(
        long,
        env = "DUOLOGUE_HISTORY_TOKENS",
        default_value_t = 3_000,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Conversation"
    )]
    history_tokens: u32,

    /// Keep every session in this folder: what was said, what was done, and the sound of both sides. Off unless
    /// named. Clients are told
    #[arg(
        long,
        env = "DUOLOGUE_RECORD",
        value_name = "DIR",
        help_heading = "Recording"
    )]
    record: Option<PathBuf>,

    /// Days after which a recording is deleted; without it, never
    #[arg(
        long,
        env = "DUOLOGUE_RECORD_KEEP",
        value_name = "DAYS",
        value_parser = clap::value_parser!(u32).range(1..=3_650),
        requires = "record",
        help_heading = "Recording"
    )]
    record_keep: Option<u32>,
}

fn factor(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(factor) if (0.1..=100.0).contains(&factor) => Ok(factor),
        _ => Err(format!(
            "{text:?} is not a factor: use a number from 0.1 to 100"
        )),
    }
}

/// Takes the configuration file's values as the defaults of the command line.
///
/// # Errors
/// A file that cannot be read, is not YAML, or has a key that is no option.
pub fn configured(command: clap::Command) -> anyhow::Result<clap::Command> {
    let named = std::env::args()
        .skip_while(|argument| argument != "--config")
        .nth(1)
        .or_else(|| {
            std::env::args()
                .find_map(|argument| argument.strip_prefix("--config=").map(str::to_owned))
        })
        .or_else(|| std::env::var("DUOLOGUE_CONFIG").ok());
    let is_serve = std::env::args()
        .nth(1)
        .is_none_or(|first| first == "serve" || first.starts_with('-'));
    let Some(file) = named.filter(|_| is_serve).map(PathBuf::from) else {
        return Ok(command);
    };
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read the configuration file {}", file.display()))?;
    with_defaults(command, &text, &file)
}

/// `on` and `off` are words here, not truth values.
pub fn yaml() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true }
}

fn with_defaults(command: clap::Command, text: &str, file: &Path) -> anyhow::Result<clap::Command> {
    let values: std::collections::BTreeMap<String, serde_json::Value> =
        serde_saphyr::from_str_with_options(text, yaml())
            .with_context(|| format!("in {}", file.display()))?;
    let top_level = command.find_subcommand("serve").is_none();
    let mut serve = match command.find_subcommand("serve") {
        Some(serve) => serve.clone(),
        None => command.clone(),
    };
    for (key, value) in values {
        let known = serve
            .get_arguments()
            .find(|argument| argument.get_long() == Some(key.as_str()) && key != "config")
            .map(|argument| argument.get_id().clone());
        let Some(id) = known else {
            bail!(
                "{}: {key:?} is not an option; `duologue serve --help` lists them",
                file.display()
            );
        };
        let value = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => text,
            value @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_)) => {
                value.to_string()
            }
            _ => bail!("{}: {key} must be a single value", file.display()),
        };
        serve = serve.mut_arg(id, |argument| argument.default_value(value));
    }
    Ok(if top_level {
        serve
    } else {
        command.mut_subcommand("serve", |_| serve)
    })
}

impl ServeCommand {
    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// What could not be loaded, bound or reached.
    pub async fn run(self) -> anyhow::Result<()> {
        // Bound first: models take a while, and a taken port should not be found out after it.
        let listener = TcpListener::bind(self.listen).await.with_context(|| {
            format!(
                "cannot listen on {}; choose another address with --listen",
                self.listen
            )
        })?;
        let address = listener.local_addr()?;
        let webrtc = self.webrtc(address).await?;
        let livekit = self.livekit.config()?;
        let store = VoicepackStore::open_default()?;
        self.have_models(&store).await?;
        let (engines, worker) = self.load(&store).await?;
        let shutdown = CancellationToken::new();
        let config = self.orchestrator_config()?;
        if let Some(recording) = &config.recording {
            start_recording(recording, &shutdown)?;
        }
        let orchestrator = Orchestrator::new(engines, config, shutdown.clone())
            .await?
            .with_webrtc(webrtc)
            .with_livekit(livekit.clone());
        let orchestrator = Arc::new(orchestrator);
        let (livekit, failure) = livekit
            .map(|config| self.livekit.start(config, Arc::clone(&orchestrator)))
            .unzip();
        let failed = async {
            match failure {
                Some(failure) => failure.told().await,
                None => std::future::pending().await,
            }
        };
        println!(
            "\nDuologue is ready. Open http://{} and talk.\n",
            browsable(address)
        );
        tokio::spawn(stop_on_signal(shutdown.clone(), livekit));
        let router = duologue_orchestrator::router(orchestrator);
        let serving = axum::serve(listener, router)
            .with_graceful_shutdown(shutdown.clone().cancelled_owned());
        let deadline = async {
            shutdown.cancelled().await;
            tokio::time::sleep(Duration::from_secs(15)).await;
        };
        tokio::select! {
            served = serving => served.context("the server failed")?,
            () = deadline => tracing::warn!("some connections did not close in time"),
            failed = failed => return failed.context("--livekit"),
        }
        if let Some(worker) = worker {
            worker.drain().await;
        }
        Ok(())
    }

    async fn webrtc(&self, listen: SocketAddr) -> anyhow::Result<Option<WebRtc>> {
        if self.no_webrtc {
            return Ok(None);
        }
        let port = self.webrtc_port.unwrap_or(listen.port());
        // Firefox takes no loopback address, so a server for this machine alone has its others too: a call needs
        // what only the HTTP answer holds, wherever it comes from.
        let address = match listen.ip() {
            ip if !ip.is_loopback() => ip,
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let config = PortConfig {
            udp_port: port,
            // On the port of HTTP there is no room for TCP calls.
            tcp_port: (port != listen.port() || port == 0).then_some(port),
            address,
            public_addresses: self.public_address.clone(),
        };
        let port = Port::bind(&config)
            .await
            .context("--webrtc-port PORT takes another one, --no-webrtc none")?;
        tracing::info!(addresses = ?port.addresses(), "WebRTC calls are taken");
        Ok(Some(WebRtc::new(port, self.ice_server.clone())))
    }

    async fn have_models(&self, store: &VoicepackStore) -> anyhow::Result<()> {
        let mut wanted = vec![self.asr.clone()];
        if self.worker.is_none() && self.voice != "tone" {
            wanted.push(self.voice.split(':').next().unwrap_or_default().to_owned());
        }
        if self.llm_url.is_none() {
            wanted.push(self.llm.clone());
        }
        if self.vad == DetectorChoice::Silero {
            wanted.push(SILERO.to_owned());
        }
        if !self.no_end_of_turn {
            wanted.push(SMART_TURN.to_owned());
        }
        if self.no_pull {
            let missing: Vec<String> = wanted
                .into_iter()
                .filter(|name| store.find(name).is_err())
                .collect();
            if !missing.is_empty() {
                bail!(
                    "models are missing: run `duologue models pull {}`",
                    missing.join(" ")
                );
            }
            return Ok(());
        }
        models::ensure(&wanted).await
    }

    async fn load(&self, store: &VoicepackStore) -> anyhow::Result<(Engines, Option<Worker>)> {
        let asr_options = duologue_asr::LoadOptions {
            threads: self.asr_threads,
            ..duologue_asr::LoadOptions::default()
        };
        let (llm_name, endpoint) = match (&self.llm_url, &self.llm_model) {
            (Some(url), Some(model)) => (model, Some(endpoint_config(url, model))),
            _ => (&self.llm, None),
        };
        let llm_config = engines::llm_config(store, llm_name, endpoint, self.llm_threads)?;
        let (voice, recognizer, chat, detector, end_of_turn) = tokio::try_join!(
            self.voice(store),
            engines::recognizer(store, &self.asr, asr_options),
            engines::chat(llm_name, llm_config),
            engines::detector(store, self.vad),
            async {
                if self.no_end_of_turn {
                    return Ok(None);
                }
                engines::end_of_turn(store, self.mind_threads.max(1))
                    .await
                    .map(Some)
            },
        )?;
        let (channel, worker) = voice;
        let waiting = usize::from(self.max_sessions) * 4;
        let engines = Engines {
            recognizer,
            chat,
            voice: VoiceClient::new(channel),
            detector,
            end_of_turn,
            ear: InferencePool::new("ear", 1, waiting),
            mind: InferencePool::new("mind", self.mind_threads.max(1), waiting),
        };
        Ok((engines, worker))
    }

    /// The voice worker: one elsewhere, or one of our own behind the same interface.
    async fn voice(&self, store: &VoicepackStore) -> anyhow::Result<(Channel, Option<Worker>)> {
        if let Some(url) = &self.worker {
            let endpoint = Endpoint::from_shared(url.clone())
                .with_context(|| {
                    format!("--worker {url:?} is not an address; write it as http://host:port")
                })?
                .connect_timeout(Duration::from_secs(5));
            let channel = endpoint.connect().await.with_context(|| {
                format!("cannot reach the TTS worker at {url}; start one there with `duologue worker --listen ADDR`")
            })?;
            return Ok((channel, None));
        }
        let config = WorkerConfig {
            default_voice: Some(self.voice.split(':').next().unwrap_or_default().to_owned()),
            // Beside the sessions there are requests for single texts.
            max_sessions: usize::from(self.max_sessions) * 2,
            ..WorkerConfig::default()
        };
        let worker = Worker::start(config, store.clone()).await?;
        Ok((worker.channel(), Some(worker)))
    }

    fn orchestrator_config(&self) -> anyhow::Result<OrchestratorConfig> {
        let seconds = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
        let mut config = OrchestratorConfig {
            max_sessions: self.max_sessions.into(),
            language: self.language.clone(),
            voice: self.voice.clone(),
            speaking_threshold_scale: self.speaking_threshold_scale,
            limits: Limits {
                idle_timeout: seconds(self.idle_timeout),
                max_duration: seconds(self.max_duration),
                max_turns: (self.max_turns > 0).then_some(self.max_turns),
                goodbye: self.goodbye.clone(),
                history_tokens: self.history_tokens as usize,
                ..Limits::default()
            },
            speculation: match self.speculation {
                Switch::On => Speculation::On,
                Switch::Off => Speculation::Off,
            },
            recording: self.record.clone().map(|folder| RecordingConfig {
                folder,
                keep: self.record_keep.map(|days| DAY * days),
            }),
            ..OrchestratorConfig::default()
        };
        config.hearing.cleaner.echo = self.echo_cancellation == Switch::On;
        if self.noise_gate == Switch::Off {
            config.hearing.gate = None;
        }
        config.timing.partials =
            (self.partials_ms > 0).then(|| Duration::from_millis(self.partials_ms));
        match self
            .instructions
            .as_deref()
            .map(|text| (text, text.strip_prefix('@')))
        {
            None => {}
            Some((_, Some(file))) => {
                config.instructions = std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read the instructions in {file}"))?;
            }
            Some((text, None)) => config.instructions = text.to_owned(),
        }
        Ok(config)
    }
}

/// Says loudly that sessions are kept, and deletes what is too old, now and every hour.
fn start_recording(config: &RecordingConfig, shutdown: &CancellationToken) -> anyhow::Result<()> {
    recording::check(&config.folder).with_context(|| {
        format!(
            "cannot keep recordings in {}; choose another folder with --record",
            config.folder.display()
        )
    })?;
    let kept = match config.keep {
        Some(keep) => format!("deleted after {} days", keep.as_secs() / DAY.as_secs()),
        None => "never deleted".to_owned(),
    };
    let folder = config.folder.display();
    println!(
        "\nRECORDING IS ON: every session's words and sound are kept in {folder} ({kept}).\n\
         Tell the people who talk to this server; their clients are told."
    );
    tracing::warn!(%folder, %kept, "recording is on: words and sound of every session are kept");
    let Some(keep) = config.keep else {
        return Ok(());
    };
    let (folder, shutdown) = (config.folder.clone(), shutdown.clone());
    tokio::spawn(async move {
        let mut hours = tokio::time::interval(Duration::from_secs(3_600));
        loop {
            tokio::select! {
                _ = hours.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let folder = folder.clone();
            let pruning = tokio::task::spawn_blocking(move || {
                recording::prune(&folder, keep, std::time::SystemTime::now())
            });
            match pruning.await {
                Ok(Ok(pruned)) if pruned.deleted > 0 => {
                    tracing::info!(deleted = pruned.deleted, "old recordings were deleted");
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "old recordings were not looked for"),
                Err(error) => tracing::warn!(%error, "old recordings were not looked for"),
            }
        }
    });
    Ok(())
}

fn endpoint_config(url: &str, model: &str) -> EndpointConfig {
    let key = |name: &str| std::env::var(name).ok().filter(|key| !key.is_empty());
    EndpointConfig {
        url: url.to_owned(),
        model: model.to_owned(),
        api_key: key("DUOLOGUE_LLM_API_KEY").or_else(|| key("OPENAI_API_KEY")),
        ..EndpointConfig::default()
    }
}

/// An address that a browser on this machine can open.
fn browsable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() || address.ip().is_loopback() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}

async fn stop_on_signal(shutdown: CancellationToken, livekit: Option<LiveKit>) {
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {
            // Whoever sends SIGTERM has time, and another server for new conversations.
            if let Some(livekit) = livekit {
                tracing::info!("stopping: no more LiveKit rooms are taken; Ctrl-C stops at once");
                tokio::select! {
                    () = livekit.drain() => {}
                    _ = tokio::signal::ctrl_c() => {}
                }
            }
        }
    }
    tracing::info!("stopping: sessions are ended; once more stops at once");
    shutdown.cancel();
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::{CommandFactory, FromArgMatches};

    const EXAMPLE: &str = include_str!("../../../configs/serve.yaml");

    fn served(yaml: &str) -> Result<ServeCommand, String> {
        let command = with_defaults(crate::Cli::command(), yaml, Path::new("serve.yaml"))
            .map_err(|error| format!("{error:#}"))?;
        let matches = command
            .try_get_matches_from(["duologue", "serve"])
            .map_err(|error| error.to_string())?;
        let (_, matches) = matches.subcommand().unwrap();
        ServeCommand::from_arg_matches(matches).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_is_accepted_and_names_every_option() {
        served(EXAMPLE).unwrap();
        let command = crate::Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for long in serve.get_arguments().filter_map(clap::Arg::get_long) {
            let named = EXAMPLE.lines().any(|line| {
                line.trim_start_matches("# ")
                    .starts_with(&format!("{long}:"))
            });
            assert!(named || long == "config", "configs/serve.yaml lacks {long}");
        }
    }

    #[test]
    fn what_the_example_leaves_out_may_be_set_as_it_says() {
        let mut all = String::new();
        for line in EXAMPLE.lines() {
            let bare = line.trim_start_matches("# ");
            let key = bare.split(':').next().unwrap_or_default();
            let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            if is_key && bare.contains(": ") && !bare.starts_with("instructions") {
                all.push_str(bare);
                all.push('\n');
            }
        }
        served(&all).unwrap();
    }

    #[test]
    fn on_and_off_are_words_and_mistakes_are_named() {
        let command = served("speculation: off\nnoise-gate: off\n").unwrap();
        assert_eq!(command.speculation, Switch::Off);
        let refused = served("speculation: maybe\n").err().unwrap();
        assert!(refused.contains("maybe"), "{refused}");
        let unknown = served("max-session: 3\n").err().unwrap();
        assert!(unknown.contains("max-session"), "{unknown}");
    }
}
