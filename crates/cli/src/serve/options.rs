//! What `duologue serve` may be told.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use duologue_orchestrator::IceServer;
use duologue_vad::EchoCancellation;

use super::access::AccessOptions;
use super::tls::TlsOptions;
use crate::admin::AdminOptions;
use crate::engines::DetectorChoice;
use crate::livekit::LiveKitOptions;
use crate::route::RoutingOptions;
use crate::size;
use crate::traces::TraceOptions;
use crate::worker_tls::ReachOptions;

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is
    On,
    /// It is not
    Off,
}

/// When the echo is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EchoSwitch {
    /// Once it is found
    Auto,
    /// Always
    On,
    /// Never
    Off,
}

impl From<EchoSwitch> for EchoCancellation {
    fn from(switch: EchoSwitch) -> Self {
        match switch {
            EchoSwitch::Auto => Self::Auto,
            EchoSwitch::On => Self::On,
            EchoSwitch::Off => Self::Off,
        }
    }
}

/// The options, which are the keys of the configuration file too (`max-sessions: 8`). A flag counts before the
/// environment, that before the file, that before the default.
#[derive(Args)]
#[command(
    after_help = "Options can also stand in a YAML file, by their long names: see configs/serve.yaml."
)]
pub struct ServeCommand {
    /// Configuration file
    #[arg(long, env = "DUOLOGUE_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Address to listen on. Other machines are let in with an API key (see Access below). Browsers give a page the
    /// microphone only on localhost or over HTTPS (see TLS below)
    #[arg(
        long,
        env = "DUOLOGUE_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDR"
    )]
    pub(super) listen: SocketAddr,

    /// Sessions at once; one more is refused with when to try again
    #[arg(long, env = "DUOLOGUE_MAX_SESSIONS", default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) max_sessions: u16,

    /// Refuse a session with which this process would take more of the processor than that, of all cores together; 0:
    /// take any. A server without sessions always takes one
    #[arg(
        long,
        env = "DUOLOGUE_MAX_CPU_PERCENT",
        default_value_t = 90,
        value_name = "PERCENT",
        value_parser = clap::value_parser!(u8).range(0..=100),
        help_heading = "Resources"
    )]
    pub(super) max_cpu_percent: u8,

    /// The same for what all programs of the machine take together (Linux); 0: do not look at others
    #[arg(
        long,
        env = "DUOLOGUE_MAX_MACHINE_PERCENT",
        default_value_t = 90,
        value_name = "PERCENT",
        value_parser = clap::value_parser!(u8).range(0..=100),
        help_heading = "Resources"
    )]
    pub(super) max_machine_percent: u8,

    /// Refuse sessions while timers or the voice detector are late by so much (the 95th percentile of 10 s), or
    /// recognition by five times as much; 0: take them all the same
    #[arg(
        long,
        env = "DUOLOGUE_MAX_LAG_MS",
        default_value_t = 150,
        value_name = "MS",
        help_heading = "Resources"
    )]
    pub(super) max_lag_ms: u32,

    /// Take no WebRTC calls; WebSockets only
    #[arg(long, env = "DUOLOGUE_NO_WEBRTC", help_heading = "WebRTC")]
    pub(super) no_webrtc: bool,

    /// UDP port of all WebRTC calls; left out, it has the number of the address to listen on. A port with another
    /// number takes calls over TCP too, from networks that block UDP
    #[arg(
        long,
        env = "DUOLOGUE_WEBRTC_PORT",
        value_name = "PORT",
        help_heading = "WebRTC"
    )]
    pub(super) webrtc_port: Option<u16>,

    /// Addresses by which WebRTC clients reach this machine through a NAT or out of a container, separated by commas
    #[arg(
        long,
        env = "DUOLOGUE_PUBLIC_ADDRESS",
        value_name = "IP",
        value_delimiter = ',',
        help_heading = "WebRTC"
    )]
    pub(super) public_address: Vec<IpAddr>,

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
    pub(super) ice_server: Vec<IceServer>,

    #[command(flatten)]
    pub(super) access: AccessOptions,

    #[command(flatten)]
    pub(super) tls: TlsOptions,

    #[command(flatten)]
    pub(super) livekit: LiveKitOptions,

    /// What the assistant is told to be; `@FILE` reads it from a file
    #[arg(long, env = "DUOLOGUE_INSTRUCTIONS", value_name = "TEXT")]
    pub(super) instructions: Option<String>,

    /// Language the user speaks, such as `en`; found out by itself where the model knows several
    #[arg(long, env = "DUOLOGUE_LANGUAGE", value_name = "CODE")]
    pub(super) language: Option<String>,

    /// Voice: a voicepack's name, `voicepack:speaker`, or `tone`
    #[arg(
        long,
        env = "DUOLOGUE_VOICE",
        default_value = "piper-en_US-joe-medium",
        value_name = "NAME",
        help_heading = "Models"
    )]
    pub(super) voice: String,

    /// A TTS worker elsewhere, such as `http://10.0.0.5:50051`; several times, or separated by commas: sessions are
    /// shared among them. Without it, and without a registry, one runs in this process
    #[arg(
        long,
        env = "DUOLOGUE_WORKER",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Workers"
    )]
    pub(super) worker: Vec<String>,

    /// Registry where TTS workers announce themselves, such as `redis://10.0.0.2:6379` or
    /// `redis://:PASSWORD@HOST:PORT/DB`
    #[arg(
        long,
        env = "DUOLOGUE_REGISTRY",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Workers"
    )]
    pub(super) registry: Option<String>,

    #[command(flatten)]
    pub(super) reach: ReachOptions,

    #[command(flatten)]
    pub(super) routing: RoutingOptions,

    #[command(flatten)]
    pub(super) traces: TraceOptions,

    #[command(flatten)]
    pub(super) admin: AdminOptions,

    /// Speech recognizer: the name of a Whisper voicepack
    #[arg(
        long,
        env = "DUOLOGUE_ASR",
        default_value = "whisper-base",
        value_name = "NAME",
        help_heading = "Models"
    )]
    pub(super) asr: String,

    /// Speech recognizer elsewhere: the address of an OpenAI-compatible API, such as `http://10.0.0.5:8000/v1`; its
    /// model is named by --asr. Its key is read from DUOLOGUE_ASR_API_KEY
    #[arg(
        long,
        env = "DUOLOGUE_ASR_URL",
        value_name = "URL",
        help_heading = "Models"
    )]
    pub(super) asr_url: Option<String>,

    /// Voice detector: silero, or light:0 (lenient) to light:3 (strict)
    #[arg(
        long,
        env = "DUOLOGUE_VAD",
        default_value = "silero",
        value_name = "KIND",
        help_heading = "Models"
    )]
    pub(super) vad: DetectorChoice,

    /// Judge the end of a turn by silence alone, without the end-of-turn model
    #[arg(long, env = "DUOLOGUE_NO_END_OF_TURN", help_heading = "Models")]
    pub(super) no_end_of_turn: bool,

    /// Language model in this process: the name of a GGUF voicepack
    #[arg(
        long,
        env = "DUOLOGUE_LLM",
        default_value = "qwen2.5-coder-0.5b-instruct",
        value_name = "NAME",
        help_heading = "Models"
    )]
    pub(super) llm: String,

    /// Language model elsewhere: the address of an OpenAI-compatible API, such as `http://127.0.0.1:11434/v1`.
    /// Its key is read from DUOLOGUE_LLM_API_KEY or OPENAI_API_KEY
    #[arg(
        long,
        env = "DUOLOGUE_LLM_URL",
        value_name = "URL",
        requires = "llm_model",
        help_heading = "Models"
    )]
    pub(super) llm_url: Option<String>,

    /// The model's name at that address
    #[arg(
        long,
        env = "DUOLOGUE_LLM_MODEL",
        value_name = "NAME",
        help_heading = "Models"
    )]
    pub(super) llm_model: Option<String>,

    /// Do not fetch models that are missing; say which and stop
    #[arg(long, env = "DUOLOGUE_NO_PULL", help_heading = "Models")]
    pub(super) no_pull: bool,

    /// Threads for one transcription; 0 takes the machine's cores, at most 4
    #[arg(
        long,
        env = "DUOLOGUE_ASR_THREADS",
        default_value_t = 0,
        value_name = "N",
        help_heading = "Resources"
    )]
    pub(super) asr_threads: usize,

    /// Threads of the language model; 0 takes one less than there are physical cores, but both of two
    #[arg(
        long,
        env = "DUOLOGUE_LLM_THREADS",
        default_value_t = 0,
        value_name = "N",
        help_heading = "Resources"
    )]
    pub(super) llm_threads: u32,

    /// Threads that listen to what people say as it comes in (voice detection, noise, echo), for all sessions; 0
    /// takes the machine's cores
    #[arg(
        long,
        env = "DUOLOGUE_EAR_THREADS",
        default_value_t = 0,
        value_name = "N",
        help_heading = "Resources"
    )]
    pub(super) ear_threads: usize,

    /// Transcriptions and end-of-turn judgements at once
    #[arg(
        long,
        env = "DUOLOGUE_MIND_THREADS",
        default_value_t = 2,
        value_name = "N",
        help_heading = "Resources"
    )]
    pub(super) mind_threads: usize,

    /// Leave unheard what does not stand out of the noise of the place
    #[arg(
        long,
        env = "DUOLOGUE_NOISE_GATE",
        value_enum,
        default_value = "on",
        value_name = "WHEN",
        help_heading = "Hearing"
    )]
    pub(super) noise_gate: Switch,

    /// How much harder it is to be taken for speech while the assistant speaks; 1 is no harder
    #[arg(long, env = "DUOLOGUE_SPEAKING_THRESHOLD_SCALE", default_value_t = 2.0, value_name = "F", value_parser = factor, help_heading = "Hearing")]
    pub(super) speaking_threshold_scale: f32,

    /// Take the assistant's own voice out of what is heard: auto does once an echo is found. Browsers and telephones
    /// do so themselves; a session can ask for it with `session.duologue.echo_cancellation`
    #[arg(
        long,
        env = "DUOLOGUE_ECHO_CANCELLATION",
        value_enum,
        default_value = "auto",
        value_name = "WHEN",
        help_heading = "Hearing"
    )]
    pub(super) echo_cancellation: EchoSwitch,

    /// Milliseconds between two partial transcripts while a user speaks; 0 makes them only to judge interruptions
    #[arg(
        long,
        env = "DUOLOGUE_PARTIALS_MS",
        default_value_t = 0,
        value_name = "MS",
        help_heading = "Conversation"
    )]
    pub(super) partials_ms: u64,

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
    pub(crate) speculation: Switch,

    /// Seconds of silence from both sides that end a session; 0: never
    #[arg(
        long,
        env = "DUOLOGUE_IDLE_TIMEOUT",
        default_value_t = 300,
        value_name = "S",
        help_heading = "Conversation"
    )]
    pub(super) idle_timeout: u64,

    /// Longest session in seconds; 0: no limit
    #[arg(
        long,
        env = "DUOLOGUE_MAX_DURATION",
        default_value_t = 0,
        value_name = "S",
        help_heading = "Conversation"
    )]
    pub(super) max_duration: u64,

    /// Turns a session answers before it ends; 0: no limit. The last answer is said to its end
    #[arg(
        long,
        env = "DUOLOGUE_MAX_TURNS",
        default_value_t = 0,
        value_name = "N",
        help_heading = "Conversation"
    )]
    pub(super) max_turns: u32,

    /// Spoken before a session ends by one of these limits; without it, it ends silently
    #[arg(
        long,
        env = "DUOLOGUE_GOODBYE",
        value_name = "TEXT",
        help_heading = "Conversation"
    )]
    pub(super) goodbye: Option<String>,

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
    pub(super) history_tokens: u32,

    /// Seconds that sessions are given to end by themselves on SIGTERM, while no more are taken. Ctrl-C ends them at
    /// once
    #[arg(
        long,
        env = "DUOLOGUE_DRAIN_TIMEOUT",
        default_value_t = 60,
        value_name = "S",
        help_heading = "Survival"
    )]
    pub(super) drain_timeout: u64,

    /// Keep what was said in each session here, so that a client that lost its connection, or its server, goes on with
    /// it: `redis://HOST:PORT` for all servers that name it, `memory` for this process. Text only, no sound. Off unless
    /// named
    #[arg(
        long,
        env = "DUOLOGUE_JOURNAL",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Survival"
    )]
    pub(super) journal: Option<String>,

    /// Seconds for which it is kept after it last changed
    #[arg(
        long,
        env = "DUOLOGUE_JOURNAL_KEEP",
        default_value_t = 3_600,
        value_name = "S",
        value_parser = clap::value_parser!(u64).range(60..=30 * 24 * 3_600),
        help_heading = "Survival"
    )]
    pub(super) journal_keep: u64,

    /// Keep every session in this folder: what was said, what was done, and the sound of both sides. Off unless
    /// named. Clients are told
    #[arg(
        long,
        env = "DUOLOGUE_RECORD",
        value_name = "DIR",
        help_heading = "Recording"
    )]
    pub(super) record: Option<PathBuf>,

    /// Days after which a recording is deleted; without it, never
    #[arg(
        long,
        env = "DUOLOGUE_RECORD_KEEP",
        value_name = "DAYS",
        value_parser = clap::value_parser!(u32).range(1..=3_650),
        requires = "record",
        help_heading = "Recording"
    )]
    pub(super) record_keep: Option<u32>,

    /// What all recordings may take, such as 50GB; beyond, the oldest are deleted. 0: no limit
    #[arg(
        long,
        env = "DUOLOGUE_RECORD_LIMIT",
        value_name = "SIZE",
        default_value = "0",
        value_parser = size::parse,
        help_heading = "Recording"
    )]
    pub(super) record_limit: u64,
}

fn factor(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(factor) if (0.1..=100.0).contains(&factor) => Ok(factor),
        _ => Err(format!(
            "{text:?} is not a factor: use a number from 0.1 to 100"
        )),
    }
}
