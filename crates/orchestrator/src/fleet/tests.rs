#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use duologue_registry::{
    Capabilities, Granted, LiveFigures, RegistryError, SlotKey, VoiceRecord, WorkerRecord,
};
use duologue_rpc::tts_worker_server::{TtsWorker, TtsWorkerServer};
use duologue_rpc::{
    AudioFrame, ControlRequest, ControlResponse, EndSessionRequest, EndSessionResponse,
    GetCapabilitiesRequest, GetCapabilitiesResponse, ListModelsRequest, ListModelsResponse,
    LoadModelRequest, LoadModelResponse, StartSessionRequest, StartSessionResponse, TextChunk,
    UnloadModelRequest, UnloadModelResponse,
};
use tokio::sync::watch;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::routing::QueuePolicy;

const LONG: Duration = Duration::from_secs(3_600);

fn fleet(names: &[&str]) -> Fleet {
    let nowhere = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    Fleet::of(
        names
            .iter()
            .map(|name| ((*name).to_owned(), VoiceClient::new(nowhere.clone()))),
    )
}

fn wanted() -> Wanted {
    Wanted::new("s", VoiceChoice::parse("tone", 1.0), Mode::Session)
}

fn voice(name: &str, resident: bool) -> VoiceRecord {
    VoiceRecord {
        name: name.into(),
        resident,
        ..VoiceRecord::default()
    }
}

fn worker(name: &str, slots: u32, voices: Vec<VoiceRecord>) -> WorkerRecord {
    WorkerRecord {
        name: name.into(),
        address: "http://127.0.0.1:1".into(),
        capabilities: Capabilities {
            streaming: true,
            ..Capabilities::default()
        },
        voices,
        live: LiveFigures {
            slots,
            ..LiveFigures::default()
        },
        ..WorkerRecord::default()
    }
}

#[tokio::test]
async fn sessions_go_where_the_fewest_are_and_a_dropped_slot_counts_no_more() {
    let fleet = fleet(&["a", "b"]);
    let first = fleet.acquire(&wanted()).await.unwrap();
    let second = fleet.acquire(&wanted()).await.unwrap();
    assert_ne!(first.worker, second.worker);
    let third = fleet.acquire(&wanted()).await.unwrap();
    let busier = third.worker.clone();
    drop((first, third));
    assert_eq!(fleet.acquire(&wanted()).await.unwrap().worker, busier);
}

#[tokio::test]
async fn the_last_worker_is_kept_among_equals_and_an_avoided_one_is_never_taken() {
    let fleet = fleet(&["a", "b"]);
    for name in ["a", "b"] {
        let again = Wanted {
            last_worker: Some(name.into()),
            ..wanted()
        };
        assert_eq!(fleet.acquire(&again).await.unwrap().worker, name);
        let avoiding = Wanted {
            avoid: vec![name.into()],
            ..again
        };
        assert_ne!(fleet.acquire(&avoiding).await.unwrap().worker, name);
    }
    let nobody = Wanted {
        avoid: vec!["a".into(), "b".into()],
        ..wanted()
    };
    let refused = fleet.acquire(&nobody).await.err().unwrap();
    assert!(matches!(refused, VoiceError::Full { .. }), "{refused}");
}

#[tokio::test]
async fn an_open_session_that_no_worker_takes_says_why_and_holds_no_slot() {
    let fleet = fleet(&["a", "b"]);
    let lead = Duration::from_secs(1);
    let failed = fleet.open(wanted(), "s-1".into(), lead).await.err();
    assert!(matches!(failed, Some(VoiceError::Worker(_))), "{failed:?}");
    assert!(fleet.workers().iter().all(|state| state.taken == 0));
}

/// One worker with room for one.
fn narrow(length: usize) -> (MemoryRegistry, Fleet) {
    let registry = MemoryRegistry::new();
    let record = worker("a", 1, vec![voice("tone", true)]);
    registry.put(&record, LONG).unwrap();
    let policy = Policy {
        queue: QueuePolicy {
            length,
            wait_ms: 2_000,
            retry_after_s: 7,
        },
        ..Policy::default()
    };
    let fleet = Fleet::registered(Arc::new(registry.clone()), policy);
    (registry, fleet)
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_waits_in_line_and_beyond_the_queue_is_refused_with_when_to_retry() {
    let (_registry, fleet) = narrow(2);
    let held = fleet.acquire(&wanted()).await.unwrap();
    let (told, mut order) = tokio::sync::mpsc::channel(4);
    for name in ["first", "second"] {
        let (fleet, told) = (fleet.clone(), told.clone());
        tokio::spawn(async move {
            let leased = fleet.acquire(&wanted()).await.unwrap();
            told.send(name).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(leased);
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let since = Instant::now();
    let refused = fleet.acquire(&wanted()).await.err().unwrap();
    assert_eq!(since.elapsed(), Duration::ZERO);
    let VoiceError::Full { retry_after, .. } = refused else {
        panic!("{refused}");
    };
    assert_eq!(retry_after, Duration::from_secs(7));
    drop(held);
    assert_eq!(order.recv().await, Some("first"));
    assert_eq!(order.recv().await, Some("second"));
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_refused_in_time_and_a_new_worker_ends_the_wait() {
    let (registry, fleet) = narrow(2);
    let _held = fleet.acquire(&wanted()).await.unwrap();
    let since = Instant::now();
    let refused = fleet.acquire(&wanted()).await.err().unwrap();
    assert!(matches!(refused, VoiceError::Full { .. }), "{refused}");
    assert_eq!(since.elapsed(), Duration::from_secs(2));
    let waiting = tokio::spawn({
        let fleet = fleet.clone();
        async move { fleet.acquire(&wanted()).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let record = worker("b", 1, vec![voice("tone", true)]);
    registry.put(&record, LONG).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().worker, "b");
}

#[tokio::test(start_paused = true)]
async fn slots_of_two_orchestrators_are_taken_from_the_same_room() {
    let registry = MemoryRegistry::new();
    let record = worker("a", 5, vec![voice("tone", true)]);
    registry.put(&record, LONG).unwrap();
    let mut leased = Vec::new();
    let mut refused = 0;
    let fleets = [0, 1].map(|_| Fleet::registered(Arc::new(registry.clone()), Policy::default()));
    for turn in 0..8 {
        match fleets[turn % 2].acquire(&wanted()).await {
            Ok(lease) => leased.push(lease),
            Err(VoiceError::Full { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((leased.len(), refused), (5, 3));
    // They are renewed for as long as they are held, and come back when they are not.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(registry.watch().borrow().worker("a").unwrap().taken, 5);
    leased.clear();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(registry.watch().borrow().worker("a").unwrap().taken, 0);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_voice_is_refused_at_once_with_what_there_is_and_another_stands_in_for_a_lost_one()
 {
    let (registry, fleet) = narrow(2);
    let mut eve = wanted();
    eve.voice = VoiceChoice::parse("eve", 1.0);
    eve.mode = Mode::Text;
    let refused = fleet.acquire(&eve).await.err().unwrap().to_string();
    assert!(
        refused.contains("eve") && refused.contains("tone"),
        "{refused}"
    );
    let lost = Wanted {
        mode: Mode::Session,
        ..eve
    };
    let leased = fleet.acquire(&lost).await.unwrap();
    assert_eq!(
        (&*leased.voice.voice, &*leased.wanted.voice),
        ("tone", "eve")
    );
    drop(registry);
}

/// A registry that can be away.
struct Flaky {
    memory: MemoryRegistry,
    is_away: AtomicBool,
}

impl Flaky {
    fn check(&self) -> Result<(), RegistryError> {
        match self.is_away.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(RegistryError::Away {
                address: "test".into(),
                why: "it is away".into(),
            }),
        }
    }
}

#[async_trait]
impl Registry for Flaky {
    async fn announce(&self, record: &WorkerRecord, lease: Duration) -> Result<(), RegistryError> {
        self.check()?;
        self.memory.announce(record, lease).await
    }
    async fn withdraw(&self, name: &str) -> Result<(), RegistryError> {
        self.check()?;
        self.memory.withdraw(name).await
    }
    fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.memory.watch()
    }
    async fn take_slot(
        &self,
        slot: &SlotKey,
        room: u32,
        lease: Duration,
    ) -> Result<Granted, RegistryError> {
        self.check()?;
        self.memory.take_slot(slot, room, lease).await
    }
    async fn renew_slots(&self, slots: &[SlotKey], lease: Duration) -> Result<(), RegistryError> {
        self.check()?;
        self.memory.renew_slots(slots, lease).await
    }
    async fn give_back(&self, slot: &SlotKey) -> Result<(), RegistryError> {
        self.check()?;
        self.memory.give_back(slot).await
    }
    async fn lock(&self, name: &str, holder: &str, lease: Duration) -> Result<bool, RegistryError> {
        self.check()?;
        self.memory.lock(name, holder, lease).await
    }
    async fn unlock(&self, name: &str, holder: &str) -> Result<(), RegistryError> {
        self.check()?;
        self.memory.unlock(name, holder).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_away_stops_nobody_and_is_told_when_it_is_back() {
    let memory = MemoryRegistry::new();
    let record = worker("a", 3, vec![voice("tone", true)]);
    memory.put(&record, LONG).unwrap();
    let registry = Arc::new(Flaky {
        memory: memory.clone(),
        is_away: AtomicBool::new(true),
    });
    let fleet = Fleet::registered(registry.clone(), Policy::default());
    let mut leased = Vec::new();
    for _ in 0..3 {
        leased.push(fleet.acquire(&wanted()).await.unwrap());
    }
    let full = fleet.acquire(&wanted()).await.err().unwrap();
    assert!(matches!(full, VoiceError::Full { .. }), "{full}");
    leased.pop();
    leased.push(fleet.acquire(&wanted()).await.unwrap());
    assert_eq!(memory.watch().borrow().worker("a").unwrap().taken, 0);
    registry.is_away.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(memory.watch().borrow().worker("a").unwrap().taken, 3);
}

/// A worker that only loads voices, and tells the registry when it has.
struct Loader {
    registry: MemoryRegistry,
    record: std::sync::Mutex<WorkerRecord>,
    loads: Arc<AtomicUsize>,
    may_finish: Arc<tokio::sync::Semaphore>,
}

#[tonic::async_trait]
impl TtsWorker for Loader {
    type SynthesizeStream = tokio_stream::Empty<Result<AudioFrame, Status>>;

    async fn load_model(
        &self,
        request: Request<LoadModelRequest>,
    ) -> Result<Response<LoadModelResponse>, Status> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.may_finish.acquire().await.unwrap().forget();
        let name = request.into_inner().name;
        let mut record = self.record.lock().unwrap();
        let voices = &mut record.voices;
        voices
            .iter_mut()
            .find(|voice| voice.name == name)
            .unwrap()
            .resident = true;
        self.registry.put(&record, LONG).unwrap();
        Ok(Response::new(LoadModelResponse { model: None }))
    }
    async fn start_session(
        &self,
        _: Request<StartSessionRequest>,
    ) -> Result<Response<StartSessionResponse>, Status> {
        Ok(Response::new(StartSessionResponse::default()))
    }
    async fn synthesize(
        &self,
        _: Request<Streaming<TextChunk>>,
    ) -> Result<Response<Self::SynthesizeStream>, Status> {
        Err(Status::unimplemented("it only loads"))
    }
    async fn control(
        &self,
        _: Request<ControlRequest>,
    ) -> Result<Response<ControlResponse>, Status> {
        Err(Status::unimplemented("it only loads"))
    }
    async fn end_session(
        &self,
        _: Request<EndSessionRequest>,
    ) -> Result<Response<EndSessionResponse>, Status> {
        Ok(Response::new(EndSessionResponse {}))
    }
    async fn list_models(
        &self,
        _: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        Err(Status::unimplemented("it only loads"))
    }
    async fn unload_model(
        &self,
        _: Request<UnloadModelRequest>,
    ) -> Result<Response<UnloadModelResponse>, Status> {
        Err(Status::unimplemented("it only loads"))
    }
    async fn get_capabilities(
        &self,
        _: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<GetCapabilitiesResponse>, Status> {
        Err(Status::unimplemented("it only loads"))
    }
}

/// A registered worker that counts its loads and finishes them when it may.
async fn loader(
    name: &str,
    registry: &MemoryRegistry,
    loads: &Arc<AtomicUsize>,
    may_finish: &Arc<tokio::sync::Semaphore>,
) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let record = WorkerRecord {
        address: format!("http://{address}"),
        ..worker(name, 4, vec![voice("amy", false), voice("joe", true)])
    };
    registry.put(&record, LONG).unwrap();
    let worker = TtsWorkerServer::new(Loader {
        registry: registry.clone(),
        record: std::sync::Mutex::new(record),
        loads: Arc::clone(loads),
        may_finish: Arc::clone(may_finish),
    });
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(
        Server::builder()
            .add_service(worker)
            .serve_with_incoming(incoming),
    );
}

#[tokio::test]
async fn a_voice_in_no_memory_is_loaded_once_in_the_fleet_and_speaks_from_then_on() {
    let registry = MemoryRegistry::new();
    let loads = Arc::new(AtomicUsize::new(0));
    let may_finish = Arc::new(tokio::sync::Semaphore::new(0));
    for name in ["a", "b"] {
        loader(name, &registry, &loads, &may_finish).await;
    }
    let impatient = Policy {
        load_patience_ms: 0,
        ..Policy::default()
    };
    let fleets = [0, 1].map(|_| Fleet::registered(Arc::new(registry.clone()), impatient.clone()));
    let amy = Wanted::new("s", VoiceChoice::parse("amy", 1.0), Mode::Session);
    for n in 0..6 {
        let leased = fleets[n % 2].acquire(&amy).await.unwrap();
        assert_eq!(leased.voice.voice, "joe");
        assert_eq!(leased.wanted.voice, "amy");
    }
    // The load has begun, and nobody else begins one.
    while loads.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // One who is patient has the voice as soon as it is there.
    let patient = Policy {
        load_patience_ms: 60_000,
        ..Policy::default()
    };
    let patient = Fleet::registered(Arc::new(registry.clone()), patient);
    let waiting = tokio::spawn({
        let amy = amy.clone();
        async move { patient.acquire(&amy).await.map(|leased| leased.voice.voice) }
    });
    // And nothing stands in for a text of its own.
    let reading = tokio::spawn({
        let (fleet, text) = (
            fleets[1].clone(),
            Wanted {
                mode: Mode::Text,
                ..amy.clone()
            },
        );
        async move { fleet.acquire(&text).await.map(|leased| leased.voice.voice) }
    });
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished() && !reading.is_finished());
    may_finish.add_permits(10);
    assert_eq!(waiting.await.unwrap().unwrap(), "amy");
    assert_eq!(reading.await.unwrap().unwrap(), "amy");
    for fleet in &fleets {
        while !fleet.is_resident("amy") {
            tokio::task::yield_now().await;
        }
        assert_eq!(fleet.acquire(&amy).await.unwrap().voice.voice, "amy");
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}
