//! What holds for every registry, tried with the one in memory and with a real Redis.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use duologue_registry::{
    MemoryRegistry, RedisRegistry, Registry, RegistryError, SlotKey, Snapshot, WorkerRecord,
    announce,
};
use support::RedisServer;
use tokio::sync::watch;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);
/// Short enough to wait for its end.
const SHORT: Duration = Duration::from_millis(800);
/// What is waited for at most.
const PATIENCE: Duration = Duration::from_secs(20);

fn record(name: &str) -> WorkerRecord {
    WorkerRecord {
        name: name.into(),
        address: format!("http://{name}:50051"),
        ..WorkerRecord::default()
    }
}

fn slot(worker: &str, holder: &str) -> SlotKey {
    SlotKey {
        worker: worker.into(),
        holder: holder.into(),
    }
}

async fn until(
    registry: &dyn Registry,
    what: &str,
    is_so: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let mut watch = registry.watch();
    let found = tokio::time::timeout(PATIENCE, watch.wait_for(|snapshot| is_so(snapshot))).await;
    Arc::clone(&found.unwrap_or_else(|_| panic!("never: {what}")).unwrap())
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot
        .workers
        .iter()
        .map(|worker| &*worker.record.name)
        .collect()
}

async fn what_is_announced_is_seen_until_it_is_withdrawn(registry: &dyn Registry) {
    let mut a = record("a");
    registry.announce(&record("b"), LONG).await.unwrap();
    registry.announce(&a, LONG).await.unwrap();
    let seen = until(registry, "both", |now| now.workers.len() == 2).await;
    assert_eq!(names(&seen), ["a", "b"]);
    a.live.queue_depth = 7;
    a.voices.push(duologue_registry::VoiceRecord {
        name: "tone".into(),
        resident: true,
        ..Default::default()
    });
    registry.announce(&a, LONG).await.unwrap();
    let seen = until(registry, "a change", |now| {
        now.worker("a")
            .is_some_and(|a| a.record.live.queue_depth == 7)
    })
    .await;
    assert_eq!(*seen.worker("a").unwrap().record, a);
    registry.withdraw("a").await.unwrap();
    registry.withdraw("nobody").await.unwrap();
    until(registry, "a gone", |now| names(now) == ["b"]).await;
}

async fn a_worker_is_gone_when_its_lease_ends(registry: &dyn Registry) {
    registry.announce(&record("dead"), SHORT).await.unwrap();
    let seen = |now: &Snapshot| now.worker("dead").is_some();
    until(registry, "the one that will die", seen).await;
    until(registry, "its end", |now| !seen(now)).await;
}

async fn a_name_belongs_to_one_address_while_its_lease_runs(registry: &dyn Registry) {
    registry.announce(&record("twin"), SHORT).await.unwrap();
    until(registry, "the first", |now| now.worker("twin").is_some()).await;
    let other = WorkerRecord {
        address: "http://elsewhere:50051".into(),
        ..record("twin")
    };
    let refused = registry.announce(&other, SHORT).await;
    assert_eq!(
        refused,
        Err(RegistryError::NameTaken {
            name: "twin".into()
        })
    );
    until(registry, "the end of the first", |now| {
        now.worker("twin").is_none()
    })
    .await;
    registry.announce(&other, LONG).await.unwrap();
    let seen = until(registry, "the second", |now| now.worker("twin").is_some()).await;
    assert_eq!(seen.worker("twin").unwrap().record.address, other.address);
    registry.withdraw("twin").await.unwrap();
}

async fn a_slot_is_given_to_no_more_than_there_is_room_for(registry: Arc<dyn Registry>) {
    let asking = (0..40).map(|n| {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move {
            let slot = slot("busy", &format!("s{n}"));
            registry.take_slot(&slot, 5, LONG).await.unwrap()
        })
    });
    let mut granted = 0;
    for asked in asking.collect::<Vec<_>>() {
        let answer = asked.await.unwrap();
        assert!(answer.taken <= 5, "{answer:?}");
        granted += usize::from(answer.granted);
    }
    assert_eq!(granted, 5);
}

async fn a_slot_comes_back_when_it_is_given_back_or_lapses(registry: &dyn Registry) {
    registry.announce(&record("w"), LONG).await.unwrap();
    let (one, two, three) = (slot("w", "1"), slot("w", "2"), slot("w", "3"));
    assert!(registry.take_slot(&one, 1, LONG).await.unwrap().granted);
    let again = registry.take_slot(&one, 1, LONG).await.unwrap();
    assert!(again.granted && again.taken == 1, "{again:?}");
    let full = registry.take_slot(&two, 1, LONG).await.unwrap();
    assert!(!full.granted && full.taken == 1, "{full:?}");
    until(registry, "one taken", |now| {
        now.worker("w").is_some_and(|w| w.taken == 1)
    })
    .await;
    registry.give_back(&one).await.unwrap();
    registry.give_back(&one).await.unwrap();
    assert!(registry.take_slot(&two, 1, SHORT).await.unwrap().granted);
    tokio::time::sleep(SHORT + Duration::from_millis(50)).await;
    assert!(registry.take_slot(&three, 1, LONG).await.unwrap().granted);
    // The second's session runs: it is counted although there is no room.
    registry.renew_slots(&[two], LONG).await.unwrap();
    until(registry, "two taken", |now| {
        now.worker("w").is_some_and(|w| w.taken == 2)
    })
    .await;
    registry.withdraw("w").await.unwrap();
}

async fn a_lock_has_one_holder_and_opens_by_itself(registry: &dyn Registry) {
    assert!(registry.lock("load", "a", LONG).await.unwrap());
    assert!(registry.lock("load", "a", LONG).await.unwrap());
    assert!(!registry.lock("load", "b", LONG).await.unwrap());
    assert!(registry.lock("another", "b", LONG).await.unwrap());
    registry.unlock("load", "b").await.unwrap();
    assert!(!registry.lock("load", "b", LONG).await.unwrap());
    registry.unlock("load", "a").await.unwrap();
    assert!(registry.lock("load", "b", SHORT).await.unwrap());
    tokio::time::sleep(SHORT + Duration::from_millis(50)).await;
    assert!(registry.lock("load", "a", LONG).await.unwrap());
}

async fn an_announcement_renews_itself_and_tells_what_changes(registry: Arc<dyn Registry>) {
    let (records, watched) = watch::channel(record("alive"));
    let announcement = announce(Arc::clone(&registry), watched, SHORT);
    until(&*registry, "it", |now| now.worker("alive").is_some()).await;
    tokio::time::sleep(SHORT * 3).await;
    assert!(registry.watch().borrow().worker("alive").is_some());
    records.send_modify(|record| record.draining = true);
    until(&*registry, "that it drains", |now| {
        now.worker("alive")
            .is_some_and(|alive| alive.record.draining)
    })
    .await;
    announcement.withdraw().await;
    until(&*registry, "its end", |now| now.worker("alive").is_none()).await;
}

async fn conform(registry: Arc<dyn Registry>) {
    what_is_announced_is_seen_until_it_is_withdrawn(&*registry).await;
    a_worker_is_gone_when_its_lease_ends(&*registry).await;
    a_name_belongs_to_one_address_while_its_lease_runs(&*registry).await;
    a_slot_is_given_to_no_more_than_there_is_room_for(Arc::clone(&registry)).await;
    a_slot_comes_back_when_it_is_given_back_or_lapses(&*registry).await;
    a_lock_has_one_holder_and_opens_by_itself(&*registry).await;
    an_announcement_renews_itself_and_tells_what_changes(registry).await;
}

/// Virtual time: the waits cost nothing.
#[tokio::test(start_paused = true)]
async fn the_registry_in_memory_conforms() {
    conform(Arc::new(MemoryRegistry::new())).await;
}

#[tokio::test]
async fn the_registry_in_redis_conforms() {
    let server = RedisServer::start();
    let registry = RedisRegistry::open(&server.url()).unwrap();
    registry.connected(PATIENCE).await.unwrap();
    conform(Arc::new(registry)).await;
}

#[tokio::test]
async fn two_handles_on_one_redis_see_the_same_workers_and_share_slots_and_locks() {
    let server = RedisServer::start();
    let [a, b] = [0, 1].map(|_| RedisRegistry::open(&server.url()).unwrap());
    a.connected(PATIENCE).await.unwrap();
    b.connected(PATIENCE).await.unwrap();
    a.announce(&record("w"), LONG).await.unwrap();
    until(&b, "the other's worker", |now| now.worker("w").is_some()).await;
    assert!(a.take_slot(&slot("w", "a"), 1, LONG).await.unwrap().granted);
    assert!(!b.take_slot(&slot("w", "b"), 1, LONG).await.unwrap().granted);
    assert!(a.lock("load", "a", LONG).await.unwrap());
    assert!(!b.lock("load", "b", LONG).await.unwrap());
    until(&b, "the slot", |now| {
        now.worker("w").is_some_and(|w| w.taken == 1)
    })
    .await;
}

#[tokio::test]
async fn redis_gone_and_back_empty_takes_no_worker_away() {
    let mut server = RedisServer::start();
    let registry = Arc::new(RedisRegistry::open(&server.url()).unwrap());
    registry.connected(PATIENCE).await.unwrap();
    // A lease that would have ended while Redis was away.
    let lease = Duration::from_millis(1_500);
    let (_records, watched) = watch::channel(record("w"));
    let _announcement = announce(registry.clone(), watched, lease);
    until(&*registry, "the worker", |now| now.worker("w").is_some()).await;
    let seen = Arc::clone(&registry.watch().borrow());
    server.kill();
    until(&*registry, "that it is away", |now| !now.current).await;
    let refused = registry.take_slot(&slot("w", "s"), 1, LONG).await;
    assert!(
        matches!(refused, Err(RegistryError::Away { .. })),
        "{refused:?}"
    );
    tokio::time::sleep(lease).await;
    let known = Arc::clone(&registry.watch().borrow());
    assert!(!known.current && known.age() >= lease);
    assert_eq!(names(&known), names(&seen));
    server.start_again();
    let back = until(&*registry, "that it is back", |now| now.current).await;
    assert_eq!(names(&back), ["w"]);
    // Announced anew, it outlives what was kept for it.
    tokio::time::sleep(lease * 2).await;
    assert_eq!(names(&registry.watch().borrow()), ["w"]);
    assert!(
        registry
            .take_slot(&slot("w", "s"), 1, LONG)
            .await
            .unwrap()
            .granted
    );
}
