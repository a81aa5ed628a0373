//! Puts a worker together and serves it, over TCP or within the process.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duologue_registry::{Announcement, Registry};
use duologue_rpc::tts_worker_server::TtsWorkerServer;
use duologue_voicepack::VoicepackStore;
use futures_util::future::{join_all, try_join_all};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server, ServerTlsConfig, Uri};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::announce::{self, Place};
use crate::capabilities::Gauge;
use crate::config::WorkerConfig;
use crate::engine::Engine;
use crate::model_manager::{ModelError, ModelManager};
use crate::refusal::Refusal;
use crate::service::{Inner, Service};
use crate::sessions::Sessions;
use crate::voices::{DiskVoices, VoiceSource};

/// What an in-memory connection holds in each direction: a few frames, so that what a pause can no longer
/// hold back is little.
const PIPE_BYTES: usize = 64 * 1024;
/// A connection that answers no ping for this long is dead, and what it was saying is stopped.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// For a registry to hear of the end.
const WITHDRAW_WAIT: Duration = Duration::from_secs(2);
/// For connections to close after the last utterance has ended.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// A running TTS worker. Clones are handles on the same one.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use duologue_rpc::tts_worker_client::TtsWorkerClient;
/// use duologue_worker::{Worker, WorkerConfig};
///
/// let store = duologue_voicepack::VoicepackStore::open_default()?;
/// let worker = Worker::start(WorkerConfig::default(), store).await?;
/// let client = TtsWorkerClient::new(worker.channel());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Worker {
    inner: Arc<Inner>,
    routes: Routes,
    health: HealthReporter,
    /// In a registry.
    announcement: Arc<Mutex<Option<Announcement>>>,
    /// Set when connections are to close.
    closed: CancellationToken,
}

/// Why a worker does not start or serve.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A setting that cannot be.
    #[error("in the worker's configuration: {0}")]
    Config(String),
    /// The default voice or one of the preload list.
    #[error(
        "a voice is to be loaded at start and is not: {0} (`duologue models pull` fetches voices)"
    )]
    Preload(ModelError),
    /// The voices on the disk.
    #[error(transparent)]
    Voices(ModelError),
    /// The service's own descriptors do not decode.
    #[error("gRPC reflection: {0}")]
    Reflection(String),
    /// The certificates to serve with.
    #[error("the certificate, its key or the clients' authority cannot be used")]
    Tls(#[source] tonic::transport::Error),
    /// The listening socket failed.
    #[error("the worker's listener failed")]
    Serve(#[from] tonic::transport::Error),
}

impl Worker {
    /// Loads and warms up the default voice and the preload list from `store`, and is then ready.
    ///
    /// # Errors
    /// [`WorkerError::Config`] or [`WorkerError::Preload`].
    pub async fn start(config: WorkerConfig, store: VoicepackStore) -> Result<Self, WorkerError> {
        let voices = DiskVoices::new(store, &config);
        Self::start_with(config, Arc::new(voices)).await
    }

    /// As [`Worker::start`], with voices from elsewhere.
    ///
    /// # Errors
    /// As [`Worker::start`].
    pub async fn start_with(
        config: WorkerConfig,
        source: Arc<dyn VoiceSource>,
    ) -> Result<Self, WorkerError> {
        config.check()?;
        let models = ModelManager::new(source, &config);
        let at_start = config.default_voice.iter().chain(&config.preload);
        try_join_all(at_start.map(|name| models.ensure(name)))
            .await
            .map_err(WorkerError::Preload)?;
        let inner = Arc::new(Inner {
            sessions: Sessions::new(config.max_sessions),
            engine: Engine::new(config.engine_threads()),
            figures: Arc::new(Gauge::new()),
            models,
            config,
            shutdown: CancellationToken::new(),
        });
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<TtsWorkerServer<Service>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(duologue_rpc::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| WorkerError::Reflection(error.to_string()))?;
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(TtsWorkerServer::new(Service(Arc::clone(&inner))))
            .add_service(health_service)
            .add_service(reflection);
        tokio::spawn(reap(Arc::downgrade(&inner), inner.shutdown.clone()));
        tokio::spawn(ModelManager::evict(
            Arc::downgrade(&inner.models),
            inner.config.evict_interval,
            inner.shutdown.clone(),
        ));
        Ok(Worker {
            inner,
            routes: routes.routes(),
            health,
            announcement: Arc::default(),
            closed: CancellationToken::new(),
        })
    }

    /// A connection to this worker within the process: the same service and the same protocol as over TCP, on
    /// an in-memory pipe. Served until the channel and its clones are dropped or the worker is drained.
    #[must_use]
    pub fn channel(&self) -> Channel {
        // Each is one connection being made; the client waits when the server is behind.
        let (connections, accepted) = mpsc::channel::<io::Result<_>>(4);
        let server = Server::builder()
            .add_routes(self.routes.clone())
            .serve_with_incoming_shutdown(
                ReceiverStream::new(accepted),
                self.closed.clone().cancelled_owned(),
            );
        tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::warn!(%error, "the in-process connection failed");
            }
        });
        let connect = move |_: Uri| {
            let connections = connections.clone();
            async move {
                let (near, far) = tokio::io::duplex(PIPE_BYTES);
                let shut =
                    |_| io::Error::new(io::ErrorKind::BrokenPipe, "the worker has shut down");
                connections.send(Ok(far)).await.map_err(shut)?;
                Ok::<_, io::Error>(TokioIo::new(near))
            }
        };
        Endpoint::from_static("http://worker.in-process")
            .connect_with_connector_lazy(tower::service_fn(connect))
    }

    /// Serves on `listener` until `shutdown`, then as [`Worker::drain`]; over TLS, if it is said how.
    ///
    /// # Errors
    /// [`WorkerError::Serve`] when the listener fails, [`WorkerError::Tls`] before it is used.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Option<ServerTlsConfig>,
        shutdown: CancellationToken,
    ) -> Result<(), WorkerError> {
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).map_err(WorkerError::Tls)?;
        }
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        // Connections stay until the last utterance has ended, so that it can still be paused and stopped.
        let server = server
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_routes(self.routes.clone())
            .serve_with_incoming_shutdown(incoming, self.closed.clone().cancelled_owned());
        let drained = async {
            shutdown.cancelled().await;
            self.drain().await;
            tokio::time::sleep(CLOSE_WAIT).await;
        };
        tokio::select! {
            served = server => Ok(served?),
            // Somebody keeps a connection open, as a health watch does.
            () = drained => Ok(()),
        }
    }

    /// Announces the worker in a registry under a `lease`, which it renews until it is drained or dropped. A
    /// registry that is away is tried again, and nobody waits for it.
    ///
    /// # Errors
    /// [`WorkerError::Voices`].
    pub async fn announce(
        &self,
        registry: Arc<dyn Registry>,
        place: Place,
        lease: Duration,
    ) -> Result<(), WorkerError> {
        let record = announce::first(&self.inner, &place).await?;
        let (records, watched) = watch::channel(record);
        tokio::spawn(announce::keep(Arc::downgrade(&self.inner), place, records));
        let announcement = duologue_registry::announce(registry, watched, lease);
        let mut announced = self.announced();
        *announced = Some(announcement);
        Ok(())
    }

    fn announced(&self) -> MutexGuard<'_, Option<Announcement>> {
        let announced = self.announcement.lock();
        announced.unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more work, lets running utterances finish up to the configured time, ends those that have
    /// not, and closes connections.
    pub async fn drain(&self) {
        self.inner.shutdown.cancel();
        self.health
            .set_not_serving::<TtsWorkerServer<Service>>()
            .await;
        self.health
            .set_service_status("", ServingStatus::NotServing)
            .await;
        let speaking = self.inner.sessions.speaking();
        let all = join_all(speaking.iter().map(|utterance| utterance.ended.cancelled()));
        if tokio::time::timeout(self.inner.config.timeouts.drain, all)
            .await
            .is_err()
        {
            for utterance in &speaking {
                utterance.end(Some(Refusal::ShuttingDown.into()));
            }
        }
        let announcement = self.announced().take();
        if let Some(announcement) = announcement
            && tokio::time::timeout(WITHDRAW_WAIT, announcement.withdraw())
                .await
                .is_err()
        {
            tracing::info!("the registry does not answer: it forgets this worker by itself");
        }
        self.closed.cancel();
    }

    /// Utterances that wait for an engine thread: how far the worker is behind.
    #[must_use]
    pub fn queue_depth(&self) -> usize {
        self.inner.engine.queue_depth()
    }
}

/// Ends sessions that have been idle too long, until the worker is gone.
async fn reap(worker: std::sync::Weak<Inner>, shutdown: CancellationToken) {
    loop {
        let Some(limit) = worker
            .upgrade()
            .map(|worker| worker.config.timeouts.idle_session)
        else {
            return;
        };
        let pause = (limit / 4).clamp(Duration::from_millis(250), Duration::from_secs(30));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
        let Some(worker) = worker.upgrade() else {
            return;
        };
        for session in worker.sessions.reap(Instant::now(), limit) {
            tracing::info!(session, "ended: it said nothing for {} s", limit.as_secs());
        }
    }
}
