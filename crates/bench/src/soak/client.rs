//! A [`Talker`] on a WebSocket.

use std::time::{Duration, Instant};

use anyhow::Context;
use duologue_client::{BLOCK_TIME, connect};
use tokio::sync::watch;

use super::talker::{Notes, Talker};

/// Longest wait for the server to take its leave, once the time is over.
const FAREWELL: Duration = Duration::from_secs(5);

/// Talks until it is told that the time is over. What was noted, and why it ended before, if it did.
pub async fn talk(
    url: String,
    prompt: String,
    mut talker: Talker,
    started: Instant,
    over: watch::Receiver<bool>,
) -> (Notes, anyhow::Result<()>) {
    let ended = hold(&url, &prompt, &mut talker, started, over).await;
    (talker.into_notes(), ended)
}

async fn hold(
    url: &str,
    prompt: &str,
    talker: &mut Talker,
    started: Instant,
    mut over: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (mut speaker, mut listener) = connect(url, None).await?;
    speaker.send(&talker.session(prompt)).await?;
    let mut clock = tokio::time::interval(BLOCK_TIME);
    loop {
        tokio::select! {
            // Whoever could tell may be gone: then it is over too.
            _ = over.changed() => break,
            _ = clock.tick() => {
                let (spoken, report) = talker.tick(started.elapsed().as_secs_f64());
                if let Some(report) = report {
                    speaker.send(&report).await?;
                }
                speaker.send_sound(&spoken).await?;
            }
            event = listener.next() => {
                let event = event?.context("the server closed the connection")?;
                talker.told(started.elapsed().as_secs_f64(), &event)?;
            }
        }
    }
    speaker.close().await;
    // Until it has, the session is there, and counts among the next step's.
    let gone = async { while let Ok(Some(_)) = listener.next().await {} };
    let _ = tokio::time::timeout(FAREWELL, gone).await;
    Ok(())
}
