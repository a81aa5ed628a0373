//! Workers that announce themselves nowhere: they are asked what they are, again and again.

use std::time::Duration;

use duologue_registry::{MemoryRegistry, Registry, WorkerRecord};
use tokio::sync::watch;

use crate::voice::{VoiceClient, VoiceError};

/// A worker on a list is on it for ever.
pub(super) const LEASE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// How often a worker is asked.
const EVERY: Duration = Duration::from_secs(5);
/// How often one that is away is.
const EVERY_WHILE_AWAY: Duration = Duration::from_secs(1);
/// Times that it may not answer before it is taken for gone.
const MISSES: u32 = 2;

/// A worker of which nothing is known but where it is.
pub(super) fn unlisted(name: &str) -> WorkerRecord {
    WorkerRecord {
        name: name.to_owned(),
        unlisted: true,
        ..WorkerRecord::default()
    }
}

/// Asks a worker once, and writes down what it says.
pub(super) async fn ask(
    registry: &MemoryRegistry,
    name: &str,
    client: &VoiceClient,
) -> Result<(), VoiceError> {
    let record = WorkerRecord {
        name: name.to_owned(),
        ..WorkerRecord::from(client.capabilities().await?)
    };
    registry
        .put(&record, LEASE)
        .map_err(|error| VoiceError::Worker(error.to_string()))
}

/// Goes on asking; at once when `soon` says that there may be news.
pub(super) async fn go_on(
    registry: MemoryRegistry,
    name: String,
    client: VoiceClient,
    mut soon: watch::Receiver<()>,
) {
    let mut misses = 0;
    loop {
        let pause = match misses {
            0 => EVERY,
            _ => EVERY_WHILE_AWAY,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = soon.changed() => {}
        }
        match ask(&registry, &name, &client).await {
            Ok(()) => {
                if misses >= MISSES {
                    tracing::info!(worker = name, "the worker is back");
                }
                misses = 0;
            }
            Err(error) => {
                misses += 1;
                if misses == MISSES {
                    tracing::warn!(worker = name, %error, "the worker does not answer; it is asked on");
                    let _ = registry.withdraw(&name).await;
                }
            }
        }
    }
}
