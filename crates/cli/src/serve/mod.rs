//! `duologue serve`: the server, with everything in one process unless told otherwise.

mod access;
mod connections;
mod options;
mod reload;
mod tls;

use std::io::IsTerminal as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::serve::ListenerExt as _;
use duologue_asr::{Recognizer, Remote, RemoteConfig};
use duologue_llm::EndpointConfig;
use duologue_orchestrator::fleet::Fleet;
use duologue_orchestrator::inference::InferencePool;
use duologue_orchestrator::journal::{Journal, MemoryJournal, RedisJournal};
use duologue_orchestrator::pressure::PressureLimits;
use duologue_orchestrator::recording::{self, RecordingConfig, Retention};
use duologue_orchestrator::routing::Policy;
use duologue_orchestrator::voice::{Reach, VoiceClient};
use duologue_orchestrator::{Engines, Orchestrator, OrchestratorConfig, WebRtc};
use duologue_registry::{RedisRegistry, Registry};
use duologue_rtc::{Port, PortConfig};
use duologue_session::{Limits, Speculation};
use duologue_voicepack::{Bytes, VoicepackStore};
use duologue_worker::{Worker, WorkerConfig};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::config::Setting;
use crate::engines::{self, DetectorChoice, SILERO, SMART_TURN};
use crate::livekit::LiveKit;
use crate::secret::secret;
use crate::signals::{Hangups, Stop, Stops};
use crate::{metrics, models};

use reload::Reloading;

pub use options::{ServeCommand, Switch};
pub use reload::RELOADED;

/// Longest wait for a registry at the start. Later, it may be away.
const REGISTRY_DEADLINE: Duration = Duration::from_secs(10);
/// A registry that is just being filled is given so long.
const FIRST_WORKER: Duration = Duration::from_secs(10);
/// How long the link is good for that is shown at the start.
const VISIT: Duration = Duration::from_secs(2 * 3_600);
/// A day.
const DAY: Duration = Duration::from_secs(24 * 3_600);

impl ServeCommand {
    /// Reads the files that the options name, and starts nothing; tells what it needs beside them.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> anyhow::Result<Vec<String>> {
        let needs = self.access.check_alone(self.listen.ip())?;
        self.tls.check()?;
        self.routing.policy()?;
        self.orchestrator_config()?;
        let reach = self.reach.reach()?;
        for url in &self.worker {
            reach.to(url).context("--worker")?;
        }
        Ok(needs.into_iter().collect())
    }

    /// Serves until it is told to stop. `settings` are its options as they are in force.
    ///
    /// # Errors
    /// What could not be loaded, bound or reached.
    pub async fn run(self, settings: Vec<Setting>) -> anyhow::Result<()> {
        // First of all: what comes while models are loaded counts.
        let (stops, hangups) = (Stops::watch(), Hangups::watch());
        let traces = self.traces.start("duologue")?;
        let served = self.serve(settings, stops, hangups).await;
        traces.finish().await;
        served
    }

    async fn serve(
        self,
        settings: Vec<Setting>,
        mut stops: Stops,
        hangups: Hangups,
    ) -> anyhow::Result<()> {
        let access = Arc::new(self.access.control(self.listen.ip())?);
        // Bound first: models take a while, and a taken port should not be found out after it.
        let listener = TcpListener::bind(self.listen).await.with_context(|| {
            format!(
                "cannot listen on {}; choose another address with --listen",
                self.listen
            )
        })?;
        let address = listener.local_addr()?;
        let tls = self.tls.open(address.ip(), &self.public_address)?;
        // From the start, so that the loads of models are in it.
        let metrics = metrics::start()?;
        let private = match &self.access.metrics_listen {
            Some(listen) => {
                metrics::serve(listen, metrics.clone()).await?;
                axum::Router::new()
            }
            None => metrics::routes(metrics.clone()),
        };
        let webrtc = self.webrtc(address).await?;
        let livekit = self.livekit.config()?;
        let journal = self.journal()?;
        let store = VoicepackStore::open_default()?;
        tracing::info!("loading models");
        let loaded = async {
            self.have_models(&store).await?;
            self.load(&store).await
        };
        let (engines, worker) = tokio::select! {
            biased;
            stop = stops.next() => {
                tracing::info!(?stop, "stopped before its models were loaded");
                return Ok(());
            }
            loaded = loaded => loaded?,
        };
        let shutdown = CancellationToken::new();
        let config = self.orchestrator_config()?;
        if let Some(recording) = &config.recording {
            start_recording(recording, &shutdown)?;
        }
        let orchestrator = Orchestrator::new(engines, config, shutdown.clone())
            .await?
            .with_webrtc(webrtc)
            .with_livekit(livekit.clone())
            .with_journal(journal);
        let orchestrator = Arc::new(orchestrator);
        let told = Arc::clone(&orchestrator);
        let status = axum::routing::get(move || async move { axum::Json(told.status()) });
        let admin = metrics::routes(metrics).route("/status", status);
        self.admin.serve(None, admin).await?;
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
            "\nDuologue is ready. Open {}://{} and talk.\n{}",
            if tls.is_some() { "https" } else { "http" },
            browsable(address),
            tls.as_ref()
                .and_then(|tls| tls.notice(address))
                .unwrap_or_default()
        );
        // Shown to whoever sits there; other outputs are kept.
        if std::io::stdout().is_terminal()
            && let Some(secret) = access.for_a_visitor(VISIT)
        {
            let scheme = if tls.is_some() { "https" } else { "http" };
            let own = browsable(address);
            println!("With the key in it, for two hours: {scheme}://{own}/#key={secret}\n");
        }
        let patience = Duration::from_secs(self.drain_timeout);
        let stopping = Arc::clone(&orchestrator);
        tokio::spawn(stop_on_signal(stops, stopping, livekit, patience));
        tokio::spawn({
            let orchestrator = Arc::clone(&orchestrator);
            async move { orchestrator.measure().await }
        });
        let certificate = Arc::new(Notify::new());
        let mut reloading = Reloading {
            settings,
            listen: address.ip(),
            access: Arc::clone(&access),
            orchestrator: Arc::clone(&orchestrator),
            certificate: Arc::clone(&certificate),
        };
        tokio::spawn(hangups.reload(shutdown.clone(), move || reloading.reload()));
        let sessions = Arc::clone(&orchestrator);
        let router = duologue_orchestrator::router(orchestrator, access, private);
        let stop = shutdown.clone();
        let most = connections::most(connections::raise_limit(), self.max_sessions.into());
        // Frames are small and due at once: none waits for another to share its packet.
        let serving = async {
            match tls {
                Some(tls) => {
                    let listener =
                        tls.listen(listener, certificate, stop.clone())?
                            .tap_io(|stream| {
                                let _ = stream.get_ref().0.set_nodelay(true);
                            });
                    connections::serve(listener, router, most, stop).await;
                }
                None => {
                    let listener = listener.tap_io(|stream| {
                        let _ = stream.set_nodelay(true);
                    });
                    connections::serve(listener, router, most, stop).await;
                }
            }
            // A connection that has become a session is none of HTTP's any more.
            sessions.all_sessions_over().await;
            sessions.all_written_down().await;
            anyhow::Ok(())
        };
        let deadline = async {
            shutdown.cancelled().await;
            tokio::time::sleep(Duration::from_secs(15)).await;
        };
        tokio::select! {
            served = serving => served.context("the server failed")?,
            () = deadline => tracing::warn!("some clients, or the journal, did not take the last of it in time"),
            failed = failed => return failed.context("--livekit"),
        }
        if let Some(worker) = worker {
            worker.drain().await;
        }
        Ok(())
    }

    /// Where sessions are kept for those who come back.
    fn journal(&self) -> anyhow::Result<Option<Arc<dyn Journal>>> {
        let keep = Duration::from_secs(self.journal_keep);
        let journal: Arc<dyn Journal> = match self.journal.as_deref() {
            None | Some("") => return Ok(None),
            Some("memory") => Arc::new(MemoryJournal::new(keep)),
            Some(url) => Arc::new(RedisJournal::open(url, keep).context("--journal")?),
        };
        tracing::info!(kept = ?keep, "what is said is kept for those who come back");
        Ok(Some(journal))
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
        let mut wanted = Vec::new();
        if self.asr_url.is_none() {
            wanted.push(self.asr.clone());
        }
        if self.worker.is_empty() && self.registry.is_none() && self.voice != "tone" {
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
            (Some(url), Some(model)) => (model, Some(endpoint_config(url, model)?)),
            _ => (&self.llm, None),
        };
        let llm_config = engines::llm_config(store, llm_name, endpoint, self.llm_threads)?;
        let (voice, recognizer, chat, detector, end_of_turn) = tokio::try_join!(
            self.fleet(store),
            async {
                match &self.asr_url {
                    Some(url) => remote_recognizer(url, &self.asr),
                    None => engines::recognizer(store, &self.asr, asr_options).await,
                }
            },
            engines::chat(llm_name, llm_config),
            engines::detector(store, self.vad),
            async {
                if self.no_end_of_turn {
                    return Ok(None);
                }
                // Many minds may wait for a recognizer elsewhere; more threads than cores only get in each other's way.
                let threads = self.mind_threads.clamp(1, cores());
                engines::end_of_turn(store, threads).await.map(Some)
            },
        )?;
        let (fleet, worker) = voice;
        let waiting = usize::from(self.max_sessions) * 4;
        let engines = Engines {
            recognizer,
            chat,
            fleet,
            detector,
            end_of_turn,
            ear: InferencePool::new("ear", self.ear_threads(), waiting),
            mind: InferencePool::new("mind", self.mind_threads.max(1), waiting),
        };
        Ok((engines, worker))
    }

    /// A session's sound is listened to in its order whatever their number; with fewer than there are cores, they
    /// are all taken long before the machine is.
    fn ear_threads(&self) -> usize {
        match self.ear_threads {
            0 => cores(),
            threads => threads,
        }
    }

    /// The voice workers: those elsewhere, or one of our own behind the same interface.
    async fn fleet(&self, store: &VoicepackStore) -> anyhow::Result<(Fleet, Option<Worker>)> {
        let policy = self.routing.policy()?;
        let reach = self.reach.reach()?;
        match (&self.registry, self.worker.is_empty()) {
            (Some(_), false) => {
                bail!("--worker and --registry are two ways to name the TTS workers: use one")
            }
            (Some(url), true) => return Ok((registered(url, policy, reach).await?, None)),
            (None, false) => return Ok((remote(&self.worker, policy, &reach).await?, None)),
            (None, true) => {}
        }
        let config = WorkerConfig {
            default_voice: Some(self.voice.split(':').next().unwrap_or_default().to_owned()),
            // Beside the sessions there are requests for single texts.
            max_sessions: usize::from(self.max_sessions) * 2,
            ..WorkerConfig::default()
        };
        let worker = Worker::start(config, store.clone()).await?;
        let client = VoiceClient::new(worker.channel());
        let fleet = Fleet::listed([("in-process".to_owned(), client)], policy);
        Ok((fleet.asked().await, Some(worker)))
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
                keep: Retention {
                    age: self.record_keep.map(|days| DAY * days),
                    bytes: (self.record_limit > 0).then_some(self.record_limit),
                },
            }),
            pressure: PressureLimits {
                cpu: share(self.max_cpu_percent),
                machine: share(self.max_machine_percent),
                lag: (self.max_lag_ms > 0).then(|| Duration::from_millis(self.max_lag_ms.into())),
            },
            ..OrchestratorConfig::default()
        };
        config.hearing.cleaner.echo = self.echo_cancellation.into();
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

/// Cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A limit in percent as a share; 0 is none.
fn share(percent: u8) -> Option<f64> {
    (percent > 0).then(|| f64::from(percent) / 100.0)
}

/// Says loudly that sessions are kept, and deletes what is not to be kept, now and then.
fn start_recording(config: &RecordingConfig, shutdown: &CancellationToken) -> anyhow::Result<()> {
    recording::check(&config.folder).with_context(|| {
        format!(
            "cannot keep recordings in {}; choose another folder with --record",
            config.folder.display()
        )
    })?;
    let keep = config.keep;
    let age = keep
        .age
        .map(|age| format!("for {} days", age.as_secs() / DAY.as_secs()));
    let size = keep
        .bytes
        .map(|bytes| format!("as far as {} hold them", Bytes(bytes)));
    let kept = match (age, size) {
        (None, None) => "for ever".to_owned(),
        (age, size) => age.into_iter().chain(size).collect::<Vec<_>>().join(", "),
    };
    let folder = config.folder.display();
    println!(
        "\nRECORDING IS ON: every session's words and sound are kept in {folder}, {kept}.\n\
         Tell the people who talk to this server; their clients are told."
    );
    tracing::warn!(%folder, %kept, "recording is on: words and sound of every session are kept");
    // A full disk comes sooner than old age.
    let every = match (keep.age, keep.bytes) {
        (None, None) => return Ok(()),
        (_, None) => Duration::from_secs(3_600),
        (_, Some(_)) => Duration::from_secs(60),
    };
    let (folder, shutdown) = (config.folder.clone(), shutdown.clone());
    tokio::spawn(async move {
        let mut looks = tokio::time::interval(every);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
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

/// The workers in a registry. That there are none yet is no error: they come and go.
async fn registered(url: &str, policy: Policy, reach: Reach) -> anyhow::Result<Fleet> {
    let registry = RedisRegistry::open(url)?;
    registry
        .connected(REGISTRY_DEADLINE)
        .await
        .context("--registry")?;
    let mut snapshots = registry.watch();
    let fleet = Fleet::reached(Arc::new(registry), policy, reach);
    let first = snapshots.wait_for(|snapshot| !snapshot.workers.is_empty());
    if tokio::time::timeout(FIRST_WORKER, first).await.is_err() {
        tracing::warn!("no TTS worker is registered yet; nobody can speak until one is");
    }
    Ok(fleet)
}

/// Workers at `urls`. One that cannot be reached now is tried again when it is needed, unless it is the only one.
async fn remote(urls: &[String], policy: Policy, reach: &Reach) -> anyhow::Result<Fleet> {
    let mut workers = Vec::new();
    let mut failure = None;
    let mut reached = false;
    for url in urls {
        let endpoint = reach
            .to(url)
            .context("--worker")?
            .connect_timeout(Duration::from_secs(5));
        let client = match introduced(url, &endpoint).await {
            Ok(client) => {
                reached = true;
                client
            }
            Err(error) => {
                tracing::warn!("{error:#}");
                failure = Some(error);
                VoiceClient::new(endpoint.connect_lazy())
            }
        };
        workers.push((url.clone(), client));
    }
    match failure {
        Some(error) if !reached => Err(error),
        _ => Ok(Fleet::listed(workers, policy).asked().await),
    }
}

/// A worker that answers. Over TLS 1.3 a connection is there before the worker has looked at our certificate.
async fn introduced(url: &str, endpoint: &Endpoint) -> anyhow::Result<VoiceClient> {
    let channel = endpoint.connect().await.with_context(|| {
        format!(
            "cannot reach the TTS worker at {url}; start one there with `duologue worker --listen ADDR`"
        )
    })?;
    let client = VoiceClient::new(channel);
    client.capabilities().await.with_context(|| {
        let hint = match url.starts_with("https:") {
            true => ": it may not take the certificate of --worker-cert",
            false => "",
        };
        format!("the TTS worker at {url} does not answer{hint}")
    })?;
    Ok(client)
}

fn remote_recognizer(url: &str, model: &str) -> anyhow::Result<Arc<dyn Recognizer>> {
    let remote = Remote::new(RemoteConfig {
        url: url.to_owned(),
        model: model.to_owned(),
        api_key: secret("DUOLOGUE_ASR_API_KEY")?,
    });
    Ok(Arc::new(remote.context("--asr-url")?))
}

fn endpoint_config(url: &str, model: &str) -> anyhow::Result<EndpointConfig> {
    let api_key = match secret("DUOLOGUE_LLM_API_KEY")? {
        None => secret("OPENAI_API_KEY")?,
        key => key,
    };
    Ok(EndpointConfig {
        url: url.to_owned(),
        model: model.to_owned(),
        api_key,
        ..EndpointConfig::default()
    })
}

/// An address that a browser on this machine can open.
fn browsable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() || address.ip().is_loopback() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}

async fn stop_on_signal(
    mut stops: Stops,
    orchestrator: Arc<Orchestrator>,
    livekit: Option<LiveKit>,
    patience: Duration,
) {
    if stops.next().await == Stop::Terminate {
        // Whoever sends SIGTERM has time, and another server for new conversations.
        orchestrator.drain();
        tracing::info!(
            ?patience,
            "stopping: no more sessions are taken, and those that run are let end; once more stops at once"
        );
        let over = async {
            if let Some(livekit) = livekit {
                livekit.drain().await;
            }
            orchestrator.all_sessions_over().await;
        };
        tokio::select! {
            ended = tokio::time::timeout(patience, over) => if ended.is_err() {
                tracing::warn!(after = ?patience, "sessions are cut off");
            },
            _ = stops.next() => {}
        }
    }
    tracing::info!("stopping: sessions are ended; once more stops at once");
    orchestrator.shutdown().cancel();
    std::process::exit(stops.next().await.exit_code());
}
