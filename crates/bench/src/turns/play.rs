//! Plays one scene over a WebSocket, in real time. What is said and when is the performer's; here are only the
//! connection and the clock.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use duologue_client::{BLOCK_TIME, Listener, Speaker, connect};
use duologue_scenes::{Library, Performer, Scene, Trace};
use serde_json::Value;
use tokio::time::MissedTickBehavior;

use super::endpoint;

/// How long a server may take for an answer that needs no thought.
const ANSWER: Duration = Duration::from_secs(10);

/// Plays a scene to its end.
///
/// # Errors
/// A clip that cannot be read, or a connection that breaks.
pub async fn play(url: &str, scene: &Scene, library: &Library) -> anyhow::Result<Trace> {
    let mut performer =
        Performer::new(scene, library).with_context(|| format!("in scene {}", scene.name))?;
    let (mut speaker, mut listener) = connect(url, None).await?;
    wait_for(&mut listener, "session.created").await?;
    let settings = performer.session(&endpoint::instructions(&scene.name));
    speaker.send(&settings).await?;
    wait_for(&mut listener, "session.updated").await?;

    let started = Instant::now();
    let mut clock = tokio::time::interval(BLOCK_TIME);
    // A block that is late is made up for: the sound as a whole keeps the time.
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut late = 0.0_f64;
    while !performer.is_over() {
        tokio::select! {
            // What has come was there before the block is due.
            biased;
            event = listener.next() => {
                let Some(event) = event? else { break };
                let at = started.elapsed().as_secs_f64();
                for answer in told(&mut performer, at, &event)? {
                    speaker.send(&answer).await?;
                }
            }
            _ = clock.tick() => {
                late = late.max(started.elapsed().as_secs_f64() - performer.now());
                let sending = performer.tick();
                for event in &sending.events {
                    speaker.send(event).await?;
                }
                speaker.send_sound(&sending.sound).await?;
            }
        }
    }
    ask_for_history(&mut performer, &mut speaker, &mut listener, started).await?;
    speaker.close().await;
    Ok(performer.finish(late))
}

fn told(performer: &mut Performer<'_>, at: f64, event: &Value) -> anyhow::Result<Vec<Value>> {
    performer.event(at, event).map_err(anyhow::Error::msg)
}

/// What the server holds for said, reply by reply.
async fn ask_for_history(
    performer: &mut Performer<'_>,
    speaker: &mut Speaker,
    listener: &mut Listener,
    started: Instant,
) -> anyhow::Result<()> {
    for question in performer.questions() {
        // The session may have ended by itself; then what it said of each reply when it was over counts.
        if speaker.send(&question).await.is_err() {
            return Ok(());
        }
        let answered = async {
            while let Some(event) = listener.next().await? {
                let at = started.elapsed().as_secs_f64();
                told(performer, at, &event)?;
                let what = event["type"].as_str().unwrap_or_default();
                if what == "conversation.item.retrieved"
                    || event["error"]["code"] == "item_not_found"
                {
                    break;
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(ANSWER, answered)
            .await
            .context("the server does not say what its history is")??;
    }
    Ok(())
}

async fn wait_for(listener: &mut Listener, kind: &str) -> anyhow::Result<()> {
    let waiting = async {
        while let Some(event) = listener.next().await? {
            match event["type"].as_str().unwrap_or_default() {
                "error" => bail!("the server says: {}", event["error"]["message"]),
                came if came == kind => return Ok(()),
                _ => {}
            }
        }
        bail!("the server closed the connection before {kind}")
    };
    tokio::time::timeout(ANSWER, waiting)
        .await
        .with_context(|| format!("the server sent no {kind}"))?
}
