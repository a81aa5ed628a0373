#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio_util::task::TaskTracker;

use super::*;

fn key() -> ConversationKey {
    ConversationKey::of_token(&ResumeToken::random())
}

fn record(words: &[&str]) -> Record {
    let item =
        |(number, text): (usize, &&str)| Item::message(&*format!("i{number}"), Role::User, *text);
    let items = words.iter().enumerate().map(item).collect();
    Record::new(items, json!({"instructions": "Be brief."}), false)
}

/// What every journal does.
async fn keeps_and_hands_over(journal: impl Journal) {
    let (mine, other) = (key(), key());
    assert_eq!(journal.take(&mine).await.unwrap(), None);
    assert_eq!(journal.write(&mine, 1, "a").await.unwrap(), Written::Kept);
    assert_eq!(journal.write(&mine, 1, "b").await.unwrap(), Written::Kept);
    assert_eq!(journal.take(&other).await.unwrap(), None);
    let taken = |epoch, record: &str| {
        Some(Taken {
            epoch,
            record: record.to_owned(),
        })
    };
    assert_eq!(journal.take(&mine).await.unwrap(), taken(2, "b"));
    // Whoever had it before writes in vain.
    let late = journal.write(&mine, 1, "old").await.unwrap();
    assert_eq!(late, Written::Superseded);
    assert_eq!(journal.write(&mine, 2, "c").await.unwrap(), Written::Kept);
    assert_eq!(journal.take(&mine).await.unwrap(), taken(3, "c"));
    assert_eq!(journal.take(&mine).await.unwrap(), taken(4, "c"));
}

#[tokio::test]
async fn memory_keeps_conversations_and_hands_them_over_once() {
    keeps_and_hands_over(MemoryJournal::new(Duration::from_secs(60))).await;
}

#[tokio::test(start_paused = true)]
async fn memory_forgets_what_is_too_old() {
    let journal = MemoryJournal::new(Duration::from_secs(60));
    let key = key();
    journal.write(&key, 1, "a").await.unwrap();
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(journal.take(&key).await.unwrap().is_some());
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(journal.take(&key).await.unwrap(), None);
}

/// A `redis-server` of the test's own; killed when dropped.
struct RedisServer {
    process: std::process::Child,
    url: String,
}

impl RedisServer {
    fn start(port: u16) -> Self {
        let process = std::process::Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .current_dir(std::env::temp_dir())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("redis-server is needed: `cargo xtask test` installs it");
        Self {
            process,
            url: format!("redis://127.0.0.1:{port}"),
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Waits until the journal answers: nothing tells when a server has begun to listen.
async fn answers(journal: &RedisJournal) {
    for _ in 0..200 {
        if journal.take(&key()).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("redis-server does not answer");
}

#[tokio::test]
async fn redis_keeps_conversations_hands_them_over_and_forgets_them_in_time() {
    let redis = RedisServer::start(free_port());
    let journal = RedisJournal::open(&redis.url, Duration::from_secs(60)).unwrap();
    answers(&journal).await;
    keeps_and_hands_over(journal).await;
    let brief = RedisJournal::open(&redis.url, Duration::from_millis(300)).unwrap();
    let key = key();
    brief.write(&key, 1, "a").await.unwrap();
    assert!(brief.take(&key).await.unwrap().is_some());
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(brief.take(&key).await.unwrap(), None);
}

#[tokio::test]
async fn a_room_whose_lease_has_run_out_is_taken_over_by_one_and_no_more() {
    let redis = RedisServer::start(free_port());
    let journal = || RedisJournal::open(&redis.url, Duration::from_secs(60)).unwrap();
    let (holder, one, other) = (journal(), journal(), journal());
    answers(&holder).await;
    let (brief, long) = (Duration::from_millis(300), Duration::from_secs(60));
    holder.hold_room("all", "parlour", long).await.unwrap();
    holder
        .hold_room("others", "study", Duration::ZERO)
        .await
        .unwrap();
    // Nobody looked before, so that holders are given time first.
    for _ in 0..25 {
        assert_eq!(one.take_room("all", long).await.unwrap(), None);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    holder.hold_room("all", "parlour", brief).await.unwrap();
    assert_eq!(one.take_room("all", long).await.unwrap(), None);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let taken = [
        one.take_room("all", brief).await.unwrap(),
        other.take_room("all", brief).await.unwrap(),
    ];
    assert_eq!(taken, [Some("parlour".to_owned()), None]);
    // Who took it and did not come loses it, too.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let again = other.take_room("all", brief).await.unwrap();
    assert_eq!(again.as_deref(), Some("parlour"));
    other.leave_room("all", "parlour").await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(one.take_room("all", long).await.unwrap(), None);
}

#[tokio::test]
async fn what_was_not_written_while_redis_was_away_is_written_when_it_is_back() {
    let port = free_port();
    let redis = RedisServer::start(port);
    let journal = Arc::new(RedisJournal::open(&redis.url, Duration::from_secs(60)).unwrap());
    answers(&journal).await;
    let key = key();
    let mut writer = JournalWriter::begin(
        &TaskTracker::new(),
        Arc::clone(&journal) as Arc<dyn Journal>,
        key.clone(),
        1,
    );
    writer.record(Duration::ZERO, record(&["one"]));
    drop(redis);
    writer.record(Duration::from_secs(1), record(&["one", "two"]));
    let gone = journal.take(&key).await;
    assert!(matches!(gone, Err(JournalError::Away { .. })), "{gone:?}");
    let _redis = RedisServer::start(port);
    answers(&journal).await;
    for _ in 0..200 {
        if let Ok(Some(taken)) = journal.take(&key).await {
            assert_eq!(Record::from_json(&taken.record).unwrap().items.len(), 2);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it was not written");
}

/// A journal that is away when it is told so.
#[derive(Default)]
struct Moody {
    away: AtomicBool,
    tried: AtomicUsize,
    written: Mutex<Vec<String>>,
}

#[async_trait]
impl Journal for Arc<Moody> {
    async fn write(
        &self,
        _: &ConversationKey,
        _: u64,
        record: &str,
    ) -> Result<Written, JournalError> {
        self.tried.fetch_add(1, Ordering::Relaxed);
        if self.away.load(Ordering::Relaxed) {
            return Err(JournalError::Away {
                address: "here".into(),
                why: "away".into(),
            });
        }
        self.written.lock().unwrap().push(record.to_owned());
        Ok(Written::Kept)
    }

    async fn take(&self, _: &ConversationKey) -> Result<Option<Taken>, JournalError> {
        Ok(None)
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_minute_without_a_journal_a_sessions_last_record_is_written_before_its_writer_ends()
{
    let moody = Arc::new(Moody::default());
    let writers = TaskTracker::new();
    moody.away.store(true, Ordering::Relaxed);
    let mut writer = JournalWriter::begin(&writers, Arc::new(Arc::clone(&moody)), key(), 1);
    let mut words = Vec::new();
    for second in 0..60 {
        words.push("word");
        writer.change();
        writer.record(Duration::from_secs(second), record(&words));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(
        moody.tried.load(Ordering::Relaxed) < 40,
        "it is tried too often"
    );
    moody.away.store(false, Ordering::Relaxed);
    // It is over meanwhile.
    drop(writer);
    writers.close();
    writers.wait().await;
    let written = moody.written.lock().unwrap().clone();
    assert_eq!(written.len(), 1);
    assert_eq!(Record::from_json(&written[0]).unwrap().items.len(), 60);
}

#[tokio::test(start_paused = true)]
async fn what_has_not_changed_is_not_written_again() {
    let moody = Arc::new(Moody::default());
    let mut writer =
        JournalWriter::begin(&TaskTracker::new(), Arc::new(Arc::clone(&moody)), key(), 1);
    assert_eq!(writer.due(), Some(Duration::ZERO));
    for _ in 0..3 {
        writer.record(Duration::from_secs(1), record(&["a"]));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(moody.tried.load(Ordering::Relaxed), 1);
    // But now and then, so that it is not forgotten while somebody is silent.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(moody.tried.load(Ordering::Relaxed), 4);
    assert_eq!(writer.due(), None);
    writer.change();
    assert_eq!(writer.due(), Some(Duration::from_millis(1_250)));
}

#[test]
fn a_long_conversation_loses_its_beginning_not_its_end() {
    let long = "x".repeat(20_000);
    let words = vec![long.as_str(); 30];
    let json = record(&words).to_json().unwrap();
    assert!(json.len() <= RECORD_LIMIT);
    let kept = Record::from_json(&json).unwrap();
    assert!(kept.items.len() > 5);
    assert_eq!(kept.items.last().unwrap().id.0, "i29");
}

#[test]
fn what_the_operator_said_is_kept_when_a_conversation_is_too_long() {
    let long = "x".repeat(20_000);
    let mut whole = record(&vec![long.as_str(); 30]);
    whole.items[2] = Item::message("rules", Role::System, "Sell tulips.");
    let kept = Record::from_json(&whole.to_json().unwrap()).unwrap();
    assert_eq!(kept.items[0].id.0, "rules");
    assert_eq!(kept.items.last().unwrap().id.0, "i29");
    assert!(kept.items.len() < 15);
}

#[test]
fn a_token_is_read_back_and_shown_to_no_log() {
    let token = ResumeToken::random();
    assert_eq!(ResumeToken::parse(token.as_str()), Some(token.clone()));
    assert!(!format!("{token:?}").contains(token.as_str()));
    assert!(
        !ConversationKey::of_token(&token)
            .as_str()
            .contains(token.as_str())
    );
    for bad in ["", "x", "sess_0123456789ab", &"G".repeat(32)] {
        assert_eq!(ResumeToken::parse(bad), None, "{bad}");
    }
}

#[test]
fn another_room_another_person_is_another_conversation() {
    let keys = [
        ConversationKey::of_room("s", "room", "RM_1", "ada"),
        ConversationKey::of_room("s", "room", "RM_2", "ada"),
        ConversationKey::of_room("s", "room", "RM_1", "bob"),
        ConversationKey::of_room("s", "roomRM_1", "", "ada"),
    ];
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(key));
    }
}
