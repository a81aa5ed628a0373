//! What a server is doing now, session by session and worker by worker, for who operates it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use duologue_registry::WorkerState;
use duologue_session::{Counters, State};
use serde::{Deserialize, Serialize};

use crate::Orchestrator;
use crate::realtime::names;
use crate::traffic::Traffic;

/// What a server is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Version of its software.
    pub version: String,
    /// It takes no more sessions.
    pub draining: bool,
    /// Sessions that may still begin.
    pub free_slots: usize,
    /// Open sessions, the oldest first.
    pub sessions: Vec<SessionStatus>,
    /// The voice workers that it knows.
    pub workers: Vec<WorkerStatus>,
}

/// An open session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// As log lines and traces have it.
    pub id: String,
    /// `websocket`, `webrtc` or `livekit`.
    pub transport: String,
    /// `listening`, `thinking`, `speaking`, ...
    pub state: String,
    /// Seconds since it began.
    pub seconds: f64,
    /// Seconds since it came into this state.
    pub in_state_seconds: f64,
    /// User turns that became messages.
    pub turns: u64,
    /// Replies that were given up for the user.
    pub interruptions: u64,
    /// Suspicions of one that were taken back.
    pub retractions: u64,
    /// Gaps in the sound of replies.
    pub underruns: u64,
    /// Of the last turn: from the user's last sound to the first that was sent back, milliseconds.
    pub voice_to_voice_ms: Option<f64>,
    /// Name of the worker that speaks.
    pub worker: String,
    /// Bytes that came from the client; 0 in a LiveKit room, where they are not counted.
    pub received_bytes: u64,
    /// Bytes that went to it.
    pub sent_bytes: u64,
}

/// A voice worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// Where it answers.
    pub address: String,
    /// It takes no new sessions.
    pub draining: bool,
    /// Sessions that are leased on it.
    pub taken: u32,
    /// Sessions that it takes at most; 0: it has not said.
    pub slots: u32,
    /// Voices in its memory.
    pub resident: Vec<String>,
    /// 95th percentile of its time to first sound, milliseconds; 0: not measured yet.
    pub first_audio_p95_ms: f32,
    /// Seconds of its time that a second of speech takes; 0: not measured yet.
    pub real_time_factor: f32,
}

impl From<WorkerState> for WorkerStatus {
    fn from(state: WorkerState) -> Self {
        let record = &state.record;
        let resident = record.voices.iter().filter(|voice| voice.resident);
        Self {
            name: record.name.clone(),
            address: record.address.clone(),
            draining: record.draining,
            taken: state.taken,
            slots: record.live.slots,
            resident: resident.map(|voice| voice.name.clone()).collect(),
            first_audio_p95_ms: record.live.first_audio_p95_ms,
            real_time_factor: record.live.real_time_factor,
        }
    }
}

impl Orchestrator {
    /// What it is doing now.
    #[must_use]
    pub fn status(&self) -> ServerStatus {
        ServerStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            draining: self.is_draining(),
            free_slots: self.free_slots(),
            sessions: self.board().sessions(),
            workers: self
                .engines()
                .fleet
                .workers()
                .into_iter()
                .map(WorkerStatus::from)
                .collect(),
        }
    }
}

/// Where sessions write down what they are doing.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<BTreeMap<u64, Arc<Entry>>>);

#[derive(Debug)]
struct Entry {
    began: Instant,
    traffic: Arc<Traffic>,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    status: SessionStatus,
    state_since: Instant,
}

/// A session's place on the board, which is empty again once this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    board: Arc<Board>,
    number: u64,
    entry: Arc<Entry>,
}

impl Board {
    /// A session begins.
    pub fn enter(
        self: &Arc<Self>,
        id: &str,
        transport: &'static str,
        traffic: Arc<Traffic>,
    ) -> Place {
        let began = Instant::now();
        let status = SessionStatus {
            id: id.to_owned(),
            transport: transport.to_owned(),
            state: names::state(State::WaitingForInput).to_owned(),
            ..SessionStatus::default()
        };
        let entry = Arc::new(Entry {
            began,
            traffic,
            written: Mutex::new(Written {
                status,
                state_since: began,
            }),
        });
        let mut entries = lock(&self.0);
        let number = entries.last_key_value().map_or(0, |(last, _)| last + 1);
        entries.insert(number, Arc::clone(&entry));
        Place {
            board: Arc::clone(self),
            number,
            entry,
        }
    }

    fn sessions(&self) -> Vec<SessionStatus> {
        // Not held while each is looked at: sessions write without waiting for who reads.
        let entries: Vec<Arc<Entry>> = lock(&self.0).values().cloned().collect();
        entries.iter().map(|entry| entry.status()).collect()
    }
}

impl Entry {
    fn status(&self) -> SessionStatus {
        let (received_bytes, sent_bytes) = self.traffic.so_far();
        let written = lock(&self.written);
        SessionStatus {
            seconds: self.began.elapsed().as_secs_f64(),
            in_state_seconds: written.state_since.elapsed().as_secs_f64(),
            received_bytes,
            sent_bytes,
            underruns: self.traffic.underruns(),
            ..written.status.clone()
        }
    }
}

impl Place {
    /// The session's state has changed.
    pub fn state(&self, state: State, counters: Counters, worker: Option<&str>) {
        let mut written = lock(&self.entry.written);
        written.state_since = Instant::now();
        let status = &mut written.status;
        names::state(state).clone_into(&mut status.state);
        status.turns = counters.turns;
        status.interruptions = counters.interruptions;
        status.retractions = counters.retractions;
        if let Some(worker) = worker {
            worker.clone_into(&mut status.worker);
        }
    }

    /// A turn was answered so soon.
    pub fn answered(&self, voice_to_voice: std::time::Duration) {
        let ms = voice_to_voice.as_secs_f64() * 1_000.0;
        lock(&self.entry.written).status.voice_to_voice_ms = Some(ms);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.board.0).remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_on_the_board_for_as_long_as_it_lives() {
        let board = Arc::new(Board::default());
        let traffic = Arc::new(Traffic::new("websocket"));
        let first = board.enter("a", "websocket", Arc::clone(&traffic));
        let second = board.enter("b", "webrtc", Arc::new(Traffic::new("webrtc")));
        traffic.receive(100);
        traffic.late();
        let counters = Counters {
            turns: 3,
            ..Counters::default()
        };
        first.state(State::Speaking, counters, Some("kitchen"));
        first.answered(std::time::Duration::from_millis(480));
        let sessions = board.sessions();
        assert_eq!(sessions.len(), 2);
        let told = &sessions[0];
        assert_eq!((told.id.as_str(), told.state.as_str()), ("a", "speaking"));
        assert_eq!((told.turns, told.underruns), (3, 1));
        assert_eq!((told.received_bytes, told.sent_bytes), (100, 0));
        assert_eq!(told.voice_to_voice_ms, Some(480.0));
        assert_eq!(told.worker, "kitchen");
        drop(first);
        assert_eq!(board.sessions()[0].id, "b");
        drop(second);
        assert!(board.sessions().is_empty());
    }
}
