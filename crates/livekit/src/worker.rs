//! A worker that a LiveKit server dispatches rooms to.
//!
//! It registers over a WebSocket, tells how busy it is, answers offers, and runs what is assigned to it. The jobs
//! have connections of their own: they go on when the worker's is lost, and the worker registers again.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_protocol::server_message::Message as FromServer;
use livekit_protocol::worker_message::Message as ToServer;
use livekit_protocol::{
    JobStatus, JobType, ParticipantPermission, RegisterWorkerRequest, ServerMessage,
    UpdateJobStatus, WorkerMessage, WorkerPing,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::credentials::Credentials;
use crate::dispatch::Dispatch;
use crate::error::ConnectError;
use crate::room::unix_ms;
use crate::socket::{Broken, Socket, Wire, address};

/// How often the server is told how busy we are, even if nothing has changed.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked at whether something has.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const PING_EVERY: Duration = Duration::from_secs(10);
/// A server that is silent for so long has gone: three pings.
const PATIENCE: Duration = Duration::from_secs(30);
/// The registration must be answered within.
const REGISTER: Duration = Duration::from_secs(10);
/// Pauses between two attempts to register: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Where to register, and as what.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// `wss://host`.
    pub server: String,
    /// The project's keys.
    pub credentials: Credentials,
    /// Name to dispatch by; empty takes every new room.
    pub agent_name: String,
}

/// A room that was dispatched to us.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// Name of the room.
    pub room: String,
    /// Our identity in it.
    pub identity: String,
    /// Token to join it with.
    pub token: String,
    /// Server to join it at, where that is another one.
    pub server: Option<String>,
    /// What whoever dispatched it says.
    pub metadata: String,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// As it should.
    Done,
    /// It could not be done, and why.
    Failed(String),
}

/// What runs a worker's jobs.
pub trait JobRunner: Send + Sync + 'static {
    /// Room for one job; dropped, it is free again.
    type Slot: Send + 'static;

    /// Reserves room for a job, if there is any.
    fn reserve(&self) -> Option<Self::Slot>;

    /// Share of the room that is taken, 0 to 1.
    fn load(&self) -> f32;

    /// Runs a job to its end; it ends early when `stop` is cancelled.
    fn run(
        &self,
        slot: Self::Slot,
        job: Job,
        stop: CancellationToken,
    ) -> impl Future<Output = JobEnd> + Send;
}

/// A worker, to be [`run`](Self::run).
pub struct AgentWorker<R: JobRunner> {
    config: WorkerConfig,
    runner: Arc<R>,
    started: Instant,
    dispatch: Dispatch<R::Slot>,
    jobs: JoinSet<(String, JobEnd)>,
    stops: HashMap<String, CancellationToken>,
}

type WorkerWire = Wire<WorkerMessage, ServerMessage>;

impl<R: JobRunner> AgentWorker<R> {
    /// A worker that is not registered yet.
    #[must_use]
    pub fn new(config: WorkerConfig, runner: Arc<R>) -> Self {
        Self {
            config,
            runner,
            started: Instant::now(),
            dispatch: Dispatch::new(),
            jobs: JoinSet::new(),
            stops: HashMap::new(),
        }
    }

    /// Takes jobs until `drain` is cancelled, then returns when the last has ended. Registers again whenever the
    /// connection is lost.
    ///
    /// # Errors
    /// [`ConnectError`] that trying again does not mend, such as a wrong key.
    pub async fn run(mut self, drain: CancellationToken) -> Result<(), ConnectError> {
        let mut pause = PAUSES.0;
        loop {
            let reason = match self.register().await {
                Ok((wire, worker)) => {
                    tracing::info!(
                        worker,
                        server = self.config.server,
                        agent = self.config.agent_name,
                        "rooms of LiveKit are taken"
                    );
                    pause = PAUSES.0;
                    match self.serve(wire, &drain).await {
                        Some(broken) => broken.to_string(),
                        None => return Ok(()),
                    }
                }
                Err(error) if error.is_passing() => error.to_string(),
                Err(error) => return Err(error),
            };
            self.dispatch.disconnected();
            tracing::warn!(
                reason,
                again_in_ms = pause.as_millis(),
                "no rooms of LiveKit are dispatched to us"
            );
            let again = tokio::time::sleep(pause);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    () = &mut again => break,
                    Some(ended) = self.jobs.join_next() => {
                        let _ = self.ended(ended);
                    }
                    () = drain.cancelled(), if !self.dispatch.is_draining() => self.dispatch.drain(),
                }
                if self.dispatch.is_draining() && self.dispatch.is_idle() {
                    return Ok(());
                }
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn register(&self) -> Result<(WorkerWire, String), ConnectError> {
        let token = self
            .config
            .credentials
            .worker_token()
            .map_err(|error| ConnectError::Token(error.to_string()))?;
        let url = address(&self.config.server, "/agent?protocol=1")?;
        let mut wire: WorkerWire = Socket::connect(&url, &token, None).await?.wire();
        let sent = wire.send(worker_message(ToServer::Register(RegisterWorkerRequest {
            r#type: JobType::JtRoom.into(),
            agent_name: self.config.agent_name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            ping_interval: u32::try_from(PING_EVERY.as_secs()).unwrap_or(10),
            allowed_permissions: Some(ParticipantPermission {
                can_subscribe: true,
                can_publish: true,
                can_publish_data: true,
                can_update_metadata: true,
                ..ParticipantPermission::default()
            }),
            ..RegisterWorkerRequest::default()
        })));
        if !sent {
            return Err(ConnectError::Closed("it takes nothing".into()));
        }
        let deadline = Instant::now() + REGISTER;
        loop {
            match tokio::time::timeout_at(deadline.into(), wire.receive()).await {
                Ok(Ok(message)) => {
                    if let Some(FromServer::Register(registered)) = message.message {
                        return Ok((wire, registered.worker_id));
                    }
                }
                Ok(Err(Broken(reason))) => return Err(ConnectError::Closed(reason)),
                Err(_) => {
                    return Err(ConnectError::Closed(
                        "it did not answer the registration".into(),
                    ));
                }
            }
        }
    }

    /// Serves a registration until it breaks, or, drained, until the last job has ended.
    async fn serve(&mut self, mut wire: WorkerWire, drain: &CancellationToken) -> Option<Broken> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told: Option<(Instant, f32, bool)> = None;
        let (mut pinged, mut heard) = (Instant::now(), Instant::now());
        loop {
            if drain.is_cancelled() && !self.dispatch.is_draining() {
                tracing::info!(
                    jobs = self.dispatch.jobs(),
                    "no more rooms of LiveKit are taken; those that run are finished"
                );
                self.dispatch.drain();
            }
            let now = Instant::now();
            let load = self.runner.load();
            let state = (load, self.dispatch.is_draining());
            let stale = told.is_none_or(|(at, load, draining)| {
                now >= at + STATUS_EVERY || (load, draining) != state
            });
            if stale {
                told = Some((now, state.0, state.1));
                wire.send(worker_message(ToServer::UpdateWorker(
                    self.dispatch.status(load),
                )));
            }
            if self.dispatch.is_draining() && self.dispatch.is_idle() {
                return None;
            }
            tokio::select! {
                message = wire.receive() => match message {
                    Ok(message) => {
                        heard = Instant::now();
                        if let Some(message) = message.message {
                            self.told(message, &wire);
                        }
                    }
                    Err(broken) => return Some(broken),
                },
                Some(ended) = self.jobs.join_next() => {
                    if let Some(update) = self.ended(ended) {
                        wire.send(worker_message(ToServer::UpdateJob(update)));
                    }
                }
                _ = look.tick() => {
                    self.dispatch.expire(self.started.elapsed());
                    if now >= pinged + PING_EVERY {
                        pinged = now;
                        wire.send(worker_message(ToServer::Ping(WorkerPing { timestamp: unix_ms() })));
                    }
                    if now >= heard + PATIENCE {
                        return Some(Broken("the server is silent".into()));
                    }
                }
                () = drain.cancelled(), if !self.dispatch.is_draining() => {}
            }
        }
    }

    fn told(&mut self, message: FromServer, wire: &WorkerWire) {
        match message {
            FromServer::Availability(request) => {
                let Some(job) = request.job else {
                    return;
                };
                let slot = self.runner.reserve();
                let room = job.room.map(|room| room.name).unwrap_or_default();
                let answer = self
                    .dispatch
                    .offered(self.started.elapsed(), &job.id, &room, slot);
                tracing::debug!(
                    job = job.id,
                    available = answer.available,
                    "a job is offered"
                );
                wire.send(worker_message(ToServer::Availability(answer)));
            }
            FromServer::Assignment(assignment) => {
                let Some(job) = assignment.job else {
                    return;
                };
                let room = job.room.map(|room| room.name).unwrap_or_default();
                let Some(slot) = self.dispatch.assigned(&job.id, &room) else {
                    tracing::warn!(
                        job = job.id,
                        "a job was assigned that was not accepted, or not any more"
                    );
                    wire.send(update(&job.id, JobStatus::JsFailed, "it was not accepted"));
                    return;
                };
                let identity = job
                    .state
                    .map(|state| state.participant_identity)
                    .filter(|identity| !identity.is_empty());
                let accepted = Job {
                    identity: identity.unwrap_or_else(|| format!("agent-{}", job.id)),
                    room,
                    token: assignment.token,
                    server: assignment.url.filter(|url| !url.is_empty()),
                    metadata: job.metadata,
                    id: job.id,
                };
                tracing::info!(
                    job = accepted.id,
                    room = accepted.room,
                    "a room is dispatched to us"
                );
                wire.send(update(&accepted.id, JobStatus::JsRunning, ""));
                let stop = CancellationToken::new();
                self.stops.insert(accepted.id.clone(), stop.clone());
                let runner = Arc::clone(&self.runner);
                self.jobs.spawn(async move {
                    let id = accepted.id.clone();
                    (id, runner.run(slot, accepted, stop).await)
                });
            }
            FromServer::Termination(termination) => {
                if let Some(stop) = self.stops.get(&termination.job_id) {
                    stop.cancel();
                }
            }
            _ => {}
        }
    }

    fn ended(
        &mut self,
        ended: Result<(String, JobEnd), tokio::task::JoinError>,
    ) -> Option<UpdateJobStatus> {
        let (id, end) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "a LiveKit job broke");
                return None;
            }
        };
        self.dispatch.ended(&id);
        self.stops.remove(&id);
        let (status, error) = match end {
            JobEnd::Done => (JobStatus::JsSuccess, String::new()),
            JobEnd::Failed(error) => (JobStatus::JsFailed, error),
        };
        tracing::info!(job = id, ?status, error, "a LiveKit job ends");
        Some(UpdateJobStatus {
            job_id: id,
            status: status.into(),
            error,
        })
    }
}

fn worker_message(message: ToServer) -> WorkerMessage {
    WorkerMessage {
        message: Some(message),
    }
}

fn update(job: &str, status: JobStatus, error: &str) -> WorkerMessage {
    worker_message(ToServer::UpdateJob(UpdateJobStatus {
        job_id: job.to_owned(),
        status: status.into(),
        error: error.to_owned(),
    }))
}
