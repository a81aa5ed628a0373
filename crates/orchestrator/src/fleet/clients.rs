//! Connections to workers, by name: made when one is first spoken to.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use duologue_registry::{Snapshot, WorkerRecord};

use crate::voice::{Reach, VoiceClient, VoiceError};

/// Longest wait for a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How often a quiet connection is tried, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(5);

pub(super) struct Clients {
    /// How connections are made.
    reach: Reach,
    /// Connections that were there before their workers were registered.
    given: HashMap<String, VoiceClient>,
    /// Connections that were made, with the address they are to.
    made: Mutex<HashMap<String, (String, VoiceClient)>>,
}

impl Clients {
    pub(super) fn new(given: HashMap<String, VoiceClient>, reach: Reach) -> Self {
        Self {
            reach,
            given,
            made: Mutex::default(),
        }
    }

    /// Those that were there before.
    pub(super) fn given(&self) -> impl Iterator<Item = (&String, &VoiceClient)> {
        self.given.iter()
    }

    /// The connection to a worker; it is made anew where the worker has moved.
    pub(super) fn of(&self, worker: &WorkerRecord) -> Result<VoiceClient, VoiceError> {
        if let Some(client) = self.given.get(&worker.name) {
            return Ok(client.clone());
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, client)) = made.get(&worker.name)
            && *address == worker.address
        {
            return Ok(client.clone());
        }
        let endpoint = self.reach.to(&worker.address).map_err(|error| {
            VoiceError::Worker(format!("{} is announced wrongly: {error}", worker.name))
        })?;
        let channel = endpoint
            .connect_timeout(CONNECT_DEADLINE)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .connect_lazy();
        let client = VoiceClient::new(channel);
        let entry = (worker.address.clone(), client.clone());
        made.insert(worker.name.clone(), entry);
        Ok(client)
    }

    /// Forgets those that are no workers any more; their sessions keep their connections.
    pub(super) fn keep(&self, snapshot: &Snapshot) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|name, _| snapshot.worker(name).is_some());
    }
}
