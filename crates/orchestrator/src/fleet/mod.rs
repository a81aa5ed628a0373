//! The voice workers, as one thing to ask for a voice.
//!
//! Who speaks asks [`Fleet::acquire`] for a worker and is leased one with a slot on it. The slot is a value: dropped,
//! it is free again. Which worker it is, [`routing`](crate::routing) decides; what is here asks it, takes the slot in
//! the registry, waits where there is no room, and has voices loaded.

mod clients;
mod loads;
mod probe;
mod queue;
mod slot;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use duologue_registry::{MemoryRegistry, Registry, Snapshot, VoiceRecord};
use duologue_rpc::Model;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::routing::{Because, Decision, Policy, Route};
use crate::voice::{Reach, VoiceChoice, VoiceClient, VoiceError, VoiceSession};
use clients::Clients;
use loads::Loads;
use queue::{Place, Queue};
use slot::Slots;
use view::View;

pub use slot::Slot;

/// Workers that [`Fleet::open`] tries before it gives up.
const ATTEMPTS: usize = 3;
/// Times that others may be quicker before a decision waits for news.
const RACES: usize = 8;
/// Longest wait for a load that nothing stands in for; then the session that is opened waits for it.
const COLD_PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for a worker on a list to say what it is.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// What a voice is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A conversation: sound is wanted while it is made, for many utterances.
    Session,
    /// A text of its own: nobody waits for it in real time.
    Text,
}

/// What is asked of the fleet.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Voice to speak with.
    pub voice: VoiceChoice,
    /// What for.
    pub mode: Mode,
    /// Language to be spoken, as a BCP 47 tag; `None`: any.
    pub language: Option<String>,
    /// Session that asks, for logs and tie-breakers.
    pub session: String,
    /// Worker that spoke for this session last; of two that are equal otherwise, it is taken.
    pub last_worker: Option<String>,
    /// Workers that must not be taken, because they have just failed this session.
    pub avoid: Vec<String>,
}

impl Wanted {
    /// A voice for a session, with no history.
    #[must_use]
    pub fn new(session: &str, voice: VoiceChoice, mode: Mode) -> Self {
        Self {
            voice,
            mode,
            language: None,
            session: session.to_owned(),
            last_worker: None,
            avoid: Vec::new(),
        }
    }
}

/// A worker that has room for one more, and the room.
pub struct Leased {
    /// The worker.
    pub client: VoiceClient,
    /// Its name, unique in the fleet.
    pub worker: String,
    /// Voice to speak with: what was wanted, or what stands in for it.
    pub voice: VoiceChoice,
    /// Voice that was wanted.
    pub wanted: VoiceChoice,
    /// The room; dropped, it is given back.
    pub slot: Slot,
}

impl Leased {
    /// Opens a session in the room that was leased. `lead` is how far frames may run ahead of real time.
    ///
    /// # Errors
    /// As [`VoiceClient::open`].
    pub async fn open(
        self,
        session_id: String,
        lead: Duration,
    ) -> Result<VoiceSession, VoiceError> {
        let session = self.client.open(session_id, self.voice, lead).await?;
        Ok(session.on(self.worker, self.slot, self.wanted))
    }
}

/// The voice workers. Clones are handles on the same fleet.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

struct Inner {
    policy: RwLock<Arc<Policy>>,
    view: Arc<View>,
    clients: Arc<Clients>,
    slots: Arc<Slots>,
    loads: Arc<Loads>,
    queue: Arc<Queue>,
    list: Option<List>,
    /// Ends the fleet's tasks with it.
    stop: CancellationToken,
    _stop: DropGuard,
}

/// Workers that announce themselves nowhere.
struct List {
    /// Where what they say is written down.
    registry: MemoryRegistry,
    /// Has them asked at once.
    soon: watch::Sender<()>,
}

impl Fleet {
    /// A fleet of workers that are known beforehand, by their names. Until they are [asked](Fleet::asked), each is
    /// taken to have any voice. Must be called within a Tokio runtime.
    #[must_use]
    pub fn of(workers: impl IntoIterator<Item = (String, VoiceClient)>) -> Self {
        Self::listed(workers, Policy::default())
    }

    /// As [`Fleet::of`], with a policy.
    #[must_use]
    pub fn listed(
        workers: impl IntoIterator<Item = (String, VoiceClient)>,
        policy: Policy,
    ) -> Self {
        let given: HashMap<String, VoiceClient> = workers.into_iter().collect();
        let registry = MemoryRegistry::new();
        for name in given.keys() {
            if let Err(error) = registry.put(&probe::unlisted(name), probe::LEASE) {
                tracing::warn!(worker = name, %error, "left out");
            }
        }
        let list = List {
            registry: registry.clone(),
            soon: watch::Sender::new(()),
        };
        Self::new(
            Arc::new(registry),
            policy,
            given,
            Some(list),
            Reach::default(),
        )
    }

    /// A fleet of the workers in a registry. Must be called within a Tokio runtime.
    #[must_use]
    pub fn registered(registry: Arc<dyn Registry>, policy: Policy) -> Self {
        Self::reached(registry, policy, Reach::default())
    }

    /// As [`Fleet::registered`], with workers that are connected to in a certain way.
    #[must_use]
    pub fn reached(registry: Arc<dyn Registry>, policy: Policy, reach: Reach) -> Self {
        Self::new(registry, policy, HashMap::new(), None, reach)
    }

    fn new(
        registry: Arc<dyn Registry>,
        policy: Policy,
        given: HashMap<String, VoiceClient>,
        list: Option<List>,
        reach: Reach,
    ) -> Self {
        let mut snapshots = registry.watch();
        let view = Arc::new(View::new(&snapshots.borrow_and_update()));
        let clients = Arc::new(Clients::new(given, reach));
        let (slots, returned) = Slots::new(Arc::clone(&registry), Arc::clone(&view));
        let soon = list.as_ref().map(|list| list.soon.clone());
        let loads = Loads::new(registry, Arc::clone(&view), slots.process(), soon);
        let stop = CancellationToken::new();
        let following = {
            let (view, clients) = (Arc::clone(&view), Arc::clone(&clients));
            view::follow(snapshots, move |snapshot: &Snapshot| {
                view.replace(snapshot);
                clients.keep(snapshot);
            })
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(following));
        tokio::spawn(slot::keep(Arc::downgrade(&slots), returned));
        let inner = Inner {
            policy: RwLock::new(Arc::new(policy)),
            view,
            clients,
            slots,
            loads,
            queue: Arc::default(),
            list,
            _stop: stop.clone().drop_guard(),
            stop,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Asks the workers of a list what they are, and goes on asking. One that does not answer is asked on, and left
    /// out until it does; if none answers, all stay as they are.
    pub async fn asked(self) -> Self {
        let Some(List { registry, soon }) = &self.inner.list else {
            return self;
        };
        let workers: Vec<(&String, &VoiceClient)> = self.inner.clients.given().collect();
        let asking = workers.iter().map(|(name, client)| async move {
            tokio::time::timeout(FIRST_ANSWER, probe::ask(registry, name, client)).await
        });
        let answered: Vec<bool> = join_all(asking)
            .await
            .into_iter()
            .map(|answer| matches!(answer, Ok(Ok(()))))
            .collect();
        let any = answered.contains(&true);
        for ((name, client), answered) in workers.into_iter().zip(answered) {
            if any && !answered {
                tracing::warn!(worker = name, "the worker does not answer; it is asked on");
                let _ = registry.withdraw(name).await;
            }
            let asking = probe::go_on(
                registry.clone(),
                name.clone(),
                client.clone(),
                soon.subscribe(),
            );
            tokio::spawn(self.inner.stop.clone().run_until_cancelled_owned(asking));
        }
        // What they said is seen at once.
        self.inner.view.replace(&registry.watch().borrow());
        self
    }

    /// Follows another policy from now on.
    pub fn follow(&self, policy: Policy) {
        let mut current = self
            .inner
            .policy
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(policy);
    }

    /// Leases a worker that can speak as is wanted. Where none has room, one is waited for, as long as the policy says.
    ///
    /// # Errors
    /// [`VoiceError::Full`] when there is no room, with when to ask again; [`VoiceError::UnknownVoice`] when no worker
    /// has the voice, nor one that may stand in.
    pub async fn acquire(&self, wanted: &Wanted) -> Result<Leased, VoiceError> {
        let inner = &*self.inner;
        let started = Instant::now();
        let policy = inner.policy();
        let queue = policy.queue;
        let give_up = started + Duration::from_millis(queue.wait_ms);
        // Who is in the middle of a sentence cannot wait for a load.
        let stand_in = match wanted.avoid.is_empty() {
            true => started + policy.load_patience(),
            false => started,
        };
        let mut changes = inner.view.changes();
        let mut place: Option<Place> = None;
        let mut races = 0;
        loop {
            changes.mark_unchanged();
            let may_try = match &place {
                Some(place) => place.is_first(),
                None => inner.queue.is_clear(wanted),
            };
            let found = match may_try {
                true => inner.decide(wanted, stand_in, started + COLD_PATIENCE),
                false => Found::Busy,
            };
            let patience = match found {
                Found::Reserved(route) => match inner.take(wanted, route).await? {
                    Some(leased) => return Ok(leased),
                    None if races < RACES => {
                        races += 1;
                        continue;
                    }
                    None => None,
                },
                Found::Loading(patience) => Some(patience),
                Found::Busy => None,
                Found::Nobody if !wanted.avoid.is_empty() || inner.is_unknown(wanted) => {
                    // Who was away may be back: whoever asks again in a moment finds it.
                    self.ask_now();
                    return Err(inner.refusal(wanted));
                }
                Found::Nobody => None,
            };
            if let Some(patience) = patience {
                // Whether the load or the patience ends first, it is decided anew.
                let _ = tokio::time::timeout_at(patience, changes.changed()).await;
                continue;
            }
            if place.is_none() {
                match inner.queue.enter(wanted, queue.length, &inner.view) {
                    Some(entered) => place = Some(entered),
                    None => return Err(inner.refusal(wanted)),
                }
            }
            let news = tokio::time::timeout_at(give_up, changes.changed()).await;
            if news.is_err() {
                return Err(inner.refusal(wanted));
            }
        }
    }

    /// Leases a worker and opens a session on it; one that is full or cannot be reached is passed over for another.
    ///
    /// # Errors
    /// The last worker's, when none takes the session; any [`VoiceError`] but [`VoiceError::BadText`].
    pub async fn open(
        &self,
        mut wanted: Wanted,
        session_id: String,
        lead: Duration,
    ) -> Result<VoiceSession, VoiceError> {
        let mut failed = None;
        for _ in 0..ATTEMPTS {
            let leased = match self.acquire(&wanted).await {
                Ok(leased) => leased,
                Err(error) => return Err(failed.unwrap_or(error)),
            };
            let worker = leased.worker.clone();
            match leased.open(session_id.clone(), lead).await {
                Ok(session) => {
                    self.note_loaded(&session.choice().voice);
                    return Ok(session);
                }
                Err(error @ (VoiceError::Busy(_) | VoiceError::Worker(_))) => {
                    tracing::warn!(%worker, %error, session = wanted.session, "a worker is passed over");
                    wanted.avoid.push(worker);
                    failed = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(|| VoiceError::Worker("no worker was tried".into())))
    }

    /// Whether a voice is in some worker's memory, so that it speaks at once.
    #[must_use]
    pub fn is_resident(&self, voice: &str) -> bool {
        self.inner.view.is_resident(voice)
    }

    /// The workers as they are known now, with what of them is taken.
    #[must_use]
    pub fn workers(&self) -> Vec<duologue_registry::WorkerState> {
        self.inner.view.workers()
    }

    /// The voices that workers have told of, each once.
    #[must_use]
    pub fn voices(&self) -> Vec<VoiceRecord> {
        duologue_registry::voices(&self.inner.view.workers())
    }

    /// The voices of all workers, each once.
    ///
    /// # Errors
    /// [`VoiceError::Worker`] when there is no worker, or none that was never asked answers.
    pub async fn models(&self) -> Result<Vec<Model>, VoiceError> {
        let workers = self.inner.view.workers();
        let mut failed = workers.is_empty().then(|| {
            VoiceError::Worker("there is none now; start one with `duologue worker`".into())
        });
        let mut voices = Vec::new();
        for state in workers {
            let record = &state.record;
            if !record.unlisted {
                let models = record.voices.iter().cloned().map(Model::from);
                models.for_each(|model| merge(&mut voices, model));
                continue;
            }
            match self.inner.clients.of(record) {
                Ok(client) => match client.models().await {
                    Ok(models) => models
                        .into_iter()
                        .for_each(|model| merge(&mut voices, model)),
                    Err(error) => failed = Some(error),
                },
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if voices.is_empty() => Err(error),
            _ => Ok(voices),
        }
    }

    /// A voice has been spoken with, so it is in memory; who announces itself nowhere is asked.
    fn note_loaded(&self, voice: &str) {
        if !self.is_resident(voice) {
            self.ask_now();
        }
    }

    /// Has the workers of a list asked at once what they are.
    fn ask_now(&self) {
        if let Some(list) = &self.inner.list {
            list.soon.send_replace(());
        }
    }
}

/// What came of looking for a worker.
enum Found {
    /// One that is counted on already.
    Reserved(Route),
    /// The voice is being loaded, and is waited for until then.
    Loading(Instant),
    /// None with room.
    Busy,
    /// None at all.
    Nobody,
}

impl Inner {
    fn policy(&self) -> Arc<Policy> {
        let policy = self.policy.read();
        Arc::clone(&policy.unwrap_or_else(PoisonError::into_inner))
    }

    /// Decides. A voice that is being loaded is waited for until `stand_in` where another can stand in, and else until
    /// `cold`.
    fn decide(&self, wanted: &Wanted, stand_in: Instant, cold: Instant) -> Found {
        let now = Instant::now();
        let waits_until = |route: &Route| {
            let load = route.load.as_ref()?;
            let until = match route.because {
                Because::Cold => cold,
                _ => stand_in,
            };
            (now < until && !self.loads.has_failed(&load.voice)).then_some(until)
        };
        let reserve = |route: &Route| waits_until(route).is_none();
        match self.view.decide(wanted, &self.policy(), reserve) {
            Decision::Speak(route) => {
                if let Some(load) = &route.load {
                    match self.clients.of(&load.worker) {
                        Ok(client) => self.loads.begin(load, client),
                        Err(error) => tracing::warn!(%error, "a voice cannot be loaded"),
                    }
                }
                match waits_until(&route) {
                    Some(until) => Found::Loading(until),
                    None => Found::Reserved(route),
                }
            }
            Decision::Busy { .. } => Found::Busy,
            Decision::Nobody => Found::Nobody,
        }
    }

    /// Takes the slot that was reserved; `None`: others were quicker.
    async fn take(&self, wanted: &Wanted, route: Route) -> Result<Option<Leased>, VoiceError> {
        let taken = self.slots.take(&route).await;
        let Some(slot) = taken.map_err(|error| VoiceError::Worker(error.to_string()))? else {
            return Ok(None);
        };
        let mut voice = wanted.voice.clone();
        if route.voice != voice.voice {
            tracing::info!(
                session = wanted.session, wanted = voice.voice, voice = route.voice,
                worker = route.worker.name, because = ?route.because, "another voice stands in"
            );
            voice.speaker = None;
            voice.voice = route.voice;
        }
        Ok(Some(Leased {
            client: self.clients.of(&route.worker)?,
            worker: route.worker.name.clone(),
            voice,
            wanted: wanted.voice.clone(),
            slot,
        }))
    }

    fn is_unknown(&self, wanted: &Wanted) -> bool {
        let workers = self.view.workers();
        !workers.is_empty() && !self.view.knows(&wanted.voice.voice)
    }

    fn refusal(&self, wanted: &Wanted) -> VoiceError {
        let voice = &wanted.voice.voice;
        let workers = self.view.workers();
        let retry_after = Duration::from_secs(self.policy().queue.retry_after_s.into());
        if !workers.is_empty() && !self.view.knows(voice) {
            let known = duologue_registry::voices(&workers);
            let known: Vec<&str> = known.iter().map(|voice| &*voice.name).collect();
            return VoiceError::UnknownVoice(format!(
                "no worker has a voice {voice:?}; there are {}",
                known.join(", ")
            ));
        }
        let why = match workers.len() {
            0 => "there is no voice worker now".to_owned(),
            1 => "the voice worker has no room, or is not for this".to_owned(),
            n => format!("none of {n} voice workers has room and is for this"),
        };
        VoiceError::Full { why, retry_after }
    }
}

/// Adds what one worker knows of a voice to what others know.
fn merge(voices: &mut Vec<Model>, model: Model) {
    match voices.iter_mut().find(|voice| voice.name == model.name) {
        None => voices.push(model),
        Some(voice) => {
            voice.resident |= model.resident;
            voice.is_default |= model.is_default;
            voice.sessions += model.sessions;
            voice.resident_bytes += model.resident_bytes;
            if voice.speakers.is_empty() {
                voice.speakers = model.speakers;
            }
        }
    }
}

#[cfg(test)]
mod tests;
