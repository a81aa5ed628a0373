//! What ran when, on which thread and for which conversation, for a few seconds of a running process, as a Chrome
//! trace: a JSON file that `chrome://tracing`, Perfetto and Speedscope open.
//!
//! While nobody records, a [`Slice`] costs one look at a flag.
//!
//! The format is the "Trace Event Format" of Chromium's trace viewer; of it, complete events (`X`) and names (`M`).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

/// Most slices of one recording: ten sessions make some hundred a second. Later ones are left out, and counted.
const MOST: usize = 200_000;
/// The two groups of tracks.
const THREADS: u32 = 1;
const CONVERSATIONS: u32 = 2;

static RECORDS: AtomicBool = AtomicBool::new(false);
static RECORD: Mutex<Option<Record>> = Mutex::new(None);

#[derive(Default)]
struct Record {
    slices: Vec<Happened>,
    left_out: u64,
    threads: BTreeMap<u64, String>,
    conversations: BTreeMap<String, u64>,
}

struct Happened {
    group: u32,
    track: u64,
    name: &'static str,
    from: SystemTime,
    lasted: Duration,
}

/// Work on this thread, from its making to its drop.
#[must_use]
pub struct Slice(Option<(&'static str, SystemTime)>);

/// Something begins on this thread.
pub fn slice(name: &'static str) -> Slice {
    Slice(
        RECORDS
            .load(Ordering::Relaxed)
            .then(|| (name, SystemTime::now())),
    )
}

impl Drop for Slice {
    fn drop(&mut self) {
        let Some((name, from)) = self.0.take() else {
            return;
        };
        let lasted = from.elapsed().unwrap_or_default();
        let track = thread_number();
        if let Some(record) = lock().as_mut() {
            record.threads.entry(track).or_insert_with(thread_name);
            record.add(THREADS, track, name, from, lasted);
        }
    }
}

/// Something of a conversation took from then until then.
pub fn step(conversation: &str, name: &'static str, from: SystemTime, until: SystemTime) {
    if !RECORDS.load(Ordering::Relaxed) {
        return;
    }
    if let Some(record) = lock().as_mut() {
        let next = record.conversations.len() as u64;
        let track = match record.conversations.get(conversation) {
            Some(track) => *track,
            None => {
                record.conversations.insert(conversation.to_owned(), next);
                next
            }
        };
        let lasted = until.duration_since(from).unwrap_or_default();
        record.add(CONVERSATIONS, track, name, from, lasted);
    }
}

/// A recording that runs; dropped, it is thrown away.
pub struct Recording(());

/// Somebody records already.
#[derive(Debug, thiserror::Error)]
#[error("a trace is being recorded already; wait for its end")]
pub struct Busy;

/// Begins to record.
///
/// # Errors
/// [`Busy`].
pub fn record() -> Result<Recording, Busy> {
    let mut record = lock();
    if record.is_some() {
        return Err(Busy);
    }
    *record = Some(Record::default());
    RECORDS.store(true, Ordering::Relaxed);
    Ok(Recording(()))
}

impl Recording {
    /// Ends it, and gives the Chrome trace.
    #[must_use]
    pub fn finish(self) -> String {
        RECORDS.store(false, Ordering::Relaxed);
        let record = lock().take().unwrap_or_default();
        record.chrome_trace().to_string()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        RECORDS.store(false, Ordering::Relaxed);
        *lock() = None;
    }
}

impl Record {
    fn add(
        &mut self,
        group: u32,
        track: u64,
        name: &'static str,
        from: SystemTime,
        lasted: Duration,
    ) {
        if self.slices.len() >= MOST {
            self.left_out += 1;
            return;
        }
        self.slices.push(Happened {
            group,
            track,
            name,
            from,
            lasted,
        });
    }

    fn chrome_trace(mut self) -> Value {
        // Those that hold others come before them.
        self.slices
            .sort_by_key(|slice| (slice.from, std::cmp::Reverse(slice.lasted)));
        let start = self
            .slices
            .first()
            .map_or(SystemTime::UNIX_EPOCH, |slice| slice.from);
        let named = |group: u32, track: u64, what: &str, name: &str| json!({"ph": "M", "pid": group, "tid": track, "name": what, "args": {"name": name}});
        let mut events = vec![
            named(THREADS, 0, "process_name", "threads"),
            named(CONVERSATIONS, 0, "process_name", "conversations"),
        ];
        for (track, name) in &self.threads {
            events.push(named(THREADS, *track, "thread_name", name));
        }
        for (name, track) in &self.conversations {
            events.push(named(CONVERSATIONS, *track, "thread_name", name));
        }
        let micros = |time: Duration| time.as_nanos() as f64 / 1_000.0;
        events.extend(self.slices.iter().map(|slice| {
            let at = slice.from.duration_since(start).unwrap_or_default();
            json!({
                "ph": "X", "pid": slice.group, "tid": slice.track, "name": slice.name,
                "ts": micros(at), "dur": micros(slice.lasted),
            })
        }));
        json!({"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"left_out": self.left_out}})
    }
}

fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

fn thread_name() -> String {
    let thread = std::thread::current();
    thread.name().unwrap_or("unnamed").to_owned()
}

fn lock() -> MutexGuard<'static, Option<Record>> {
    RECORD.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_has_what_ran_meanwhile_and_nothing_else() {
        drop(slice("before"));
        let recording = record().unwrap();
        assert!(record().is_err());
        let outer = slice("outer");
        std::thread::Builder::new()
            .name("helper".into())
            .spawn(|| drop(slice("inner")))
            .unwrap()
            .join()
            .unwrap();
        drop(outer);
        let from = SystemTime::now();
        step("abc", "turn", from, from + Duration::from_millis(5));
        step("abc", "first", from, from + Duration::from_millis(2));
        let trace: Value = serde_json::from_str(&recording.finish()).unwrap();
        drop(slice("after"));
        let events = trace["traceEvents"].as_array().unwrap();
        let of = |kind: &str| -> Vec<&Value> {
            events.iter().filter(|event| event["ph"] == kind).collect()
        };
        let names: Vec<_> = of("X").iter().map(|event| event["name"].clone()).collect();
        assert_eq!(names, ["outer", "inner", "turn", "first"]);
        let turn = of("X")[2];
        assert_eq!(turn["dur"], 5_000.0);
        assert_eq!(turn["pid"], CONVERSATIONS);
        assert!(
            of("M")
                .iter()
                .any(|event| event["args"]["name"] == "helper")
        );
        assert_eq!(trace["otherData"]["left_out"], 0);
        // A recording that is dropped makes room for the next.
        drop(record().unwrap());
        drop(record().unwrap());
    }
}
