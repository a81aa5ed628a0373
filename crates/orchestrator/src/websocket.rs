//! `GET /v1/realtime`: a session over a WebSocket, sound and all in JSON events.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use duologue_audio::Frame;
use duologue_metrics::table;
use duologue_session::{EndReason, ReplyId};
use futures_util::stream::SplitStream;
use futures_util::{Sink, SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::Orchestrator;
use crate::driver::Driver;
use crate::http::{ApiError, Caller};
use crate::orchestrator::{Admission, Which};
use crate::playback::{Listener, Sound};
use crate::realtime::{Dialect, EventError, apply_update, parse};
use crate::traffic::Traffic;
use crate::transport::{Backlog, Inbound, Outbound, Waiting};

/// Largest message taken, bytes.
const MESSAGE_LIMIT: usize = 15 * 1024 * 1024;
/// Client events that may wait for the session; then the client's TCP connection waits.
const INBOUND: usize = 64;
/// Server events that may wait for the client; then the session ends. Twenty seconds of speech.
const OUTBOUND: usize = 1_024;
/// And bytes of them: twenty seconds of speech have 1.3 MB in base64.
const OUTBOUND_BYTES: usize = 8 * 1024 * 1024;
/// Between two pings.
const PING_EVERY: Duration = Duration::from_secs(10);
/// A client of which nothing at all has come for so long, not even the answers to our pings, has gone without a word:
/// its network ended, or its machine.
const SILENCE: Duration = Duration::from_secs(32);
/// Unread bytes of a client that has stopped reading are given this long, then the connection is cut.
const SEND_DEADLINE: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
pub(crate) struct Parameters {
    model: Option<String>,
    /// Goes on with a conversation.
    duologue_resume: Option<String>,
}

pub(crate) async fn connect(
    State(orchestrator): State<Arc<Orchestrator>>,
    Query(parameters): Query<Parameters>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let dialect = dialect(&headers);
    // Asked first, so that a page can learn of a full server: browsers hide a refused upgrade's answer.
    let preset = caller.session();
    let admission = match admit(&orchestrator, &parameters, &caller, preset.as_ref()).await {
        Ok(admission) => admission,
        Err(error) => return error.into_response(),
    };
    match upgrade {
        Ok(upgrade) => upgrade
            .max_message_size(MESSAGE_LIMIT)
            .max_frame_size(MESSAGE_LIMIT)
            .protocols(["realtime"])
            .on_upgrade(move |socket| async move {
                let (sink, stream) = socket.split();
                let (to_session, from_client) = mpsc::channel(INBOUND);
                let (to_client, from_session) = mpsc::channel(OUTBOUND);
                let waiting = Waiting::default();
                let mut driver = Driver::new(
                    &orchestrator,
                    admission,
                    dialect,
                    SocketOutbound {
                        to_client,
                        waiting: waiting.clone(),
                    },
                );
                if let Some(Err(error)) = preset.map(|session| driver.preset(&session)) {
                    tracing::warn!(%error, "settings of a client secret are not taken any more");
                }
                let reading = tokio::spawn(read(stream, to_session, caller, driver.traffic()));
                let writing = tokio::spawn(write(sink, from_session, waiting, driver.traffic()));
                let seat = driver.run(from_client).await;
                // What was queued is still sent; then the writer closes the socket, which ends the reader.
                let _ = writing.await;
                reading.abort();
                drop(seat);
            }),
        Err(_) => ApiError {
            status: StatusCode::UPGRADE_REQUIRED,
            code: "upgrade_required",
            ..ApiError::invalid(None, "there is room; connect with a WebSocket to talk")
        }
        .into_response(),
    }
}

/// Finds room for a session, and looks whether it can be had as its client secret says.
async fn admit(
    orchestrator: &Orchestrator,
    parameters: &Parameters,
    caller: &Caller,
    preset: Option<&Value>,
) -> Result<Admission, ApiError> {
    let which = Which::said(parameters.duologue_resume.as_deref())?;
    let place = caller.begin_session()?;
    let bound = preset.and_then(|session| session["model"].as_str());
    let model = bound.or(parameters.model.as_deref());
    if let Some(session) = preset {
        let settings = orchestrator.session_settings(model);
        apply_update(&settings, session, &orchestrator.voice_names())
            .map_err(|error| ApiError::invalid("session", error.message))?;
    }
    let mut admission = orchestrator.admit(model, which).await?;
    admission.place = Some(place);
    Ok(admission)
}

fn dialect(headers: &HeaderMap) -> Dialect {
    let names = |header: &str| -> Cow<'_, str> {
        headers.get(header).map_or(Cow::Borrowed(""), |value| {
            String::from_utf8_lossy(value.as_bytes())
        })
    };
    let beta = names("openai-beta").contains("realtime=v1")
        || names("sec-websocket-protocol").contains("openai-beta.realtime-v1");
    if beta { Dialect::Beta } else { Dialect::Ga }
}

async fn read(
    mut stream: SplitStream<WebSocket>,
    to_session: mpsc::Sender<Inbound>,
    caller: Caller,
    traffic: Arc<Traffic>,
) {
    let mut dropping = false;
    loop {
        let Ok(message) = tokio::time::timeout(SILENCE, stream.next()).await else {
            tracing::debug!("a client has gone without a word");
            let _ = to_session.send(Inbound::Gone).await;
            return;
        };
        if let Some(Ok(message)) = &message
            && let Some(bytes) = size(message)
        {
            traffic.receive(bytes);
            let limited = caller.received(bytes);
            // Told once, until there is room again.
            let told = std::mem::replace(&mut dropping, limited.is_err());
            match limited {
                Ok(()) => {}
                Err(_) if told => continue,
                Err(limited) => {
                    table::REQUESTS_REFUSED.count_for(limited.of());
                    let error = EventError::invalid(
                        "rate_limit_exceeded",
                        None,
                        format!("{limited}; events until then are dropped"),
                    );
                    if to_session.send(Inbound::Malformed(error)).await.is_err() {
                        return;
                    }
                    continue;
                }
            }
        }
        let inbound = match message {
            Some(Ok(Message::Text(text))) => match parse(&text) {
                Ok((event, id)) => Inbound::Event(event, id),
                Err(error) => Inbound::Malformed(error),
            },
            Some(Ok(Message::Binary(_))) => Inbound::Malformed(EventError::invalid(
                "invalid_json",
                None,
                "events are JSON in text messages; sound goes in input_audio_buffer.append",
            )),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Close(_))) | None => Inbound::Gone,
            Some(Err(error)) => {
                tracing::debug!(%error, "a client's connection broke");
                Inbound::Gone
            }
        };
        let gone = matches!(inbound, Inbound::Gone);
        if to_session.send(inbound).await.is_err() || gone {
            return;
        }
    }
}

/// Of what counts as sent by the client.
fn size(message: &Message) -> Option<usize> {
    match message {
        Message::Text(text) => Some(text.len()),
        Message::Binary(bytes) => Some(bytes.len()),
        _ => None,
    }
}

/// Sends what the session has queued, and watches that a reply's sound leaves in time: however it was held up, by its
/// voice, by this machine or by a client that does not read, a listener hears the gap.
async fn write(
    mut sink: impl Sink<Message> + Unpin,
    mut from_session: mpsc::Receiver<Queued>,
    waiting: Waiting,
    traffic: Arc<Traffic>,
) {
    let began = Instant::now();
    let mut listener = Listener::default();
    let mut pings = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let queued = tokio::select! {
            queued = from_session.recv() => queued,
            _ = pings.tick() => Some(Message::Ping(Bytes::new()).into()),
        };
        let Some(Queued { message, sound }) = queued else {
            break;
        };
        let bytes = counted(&message);
        traffic.send(size(&message).unwrap_or(0));
        match tokio::time::timeout(SEND_DEADLINE, sink.send(message)).await {
            Ok(Ok(())) => waiting.take(bytes),
            Ok(Err(_)) | Err(_) => return,
        }
        let gap = sound.and_then(|sound| listener.hears(began.elapsed(), sound));
        if gap.is_some() {
            traffic.late();
        }
    }
    let _ = tokio::time::timeout(SEND_DEADLINE, sink.close()).await;
}

/// Bytes of a message as they count among those that wait.
fn counted(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        _ => 0,
    }
}

/// A message for the client.
struct Queued {
    message: Message,
    /// The reply's sound in it.
    sound: Option<Sound>,
}

impl From<Message> for Queued {
    fn from(message: Message) -> Self {
        Self {
            message,
            sound: None,
        }
    }
}

struct SocketOutbound {
    to_client: mpsc::Sender<Queued>,
    waiting: Waiting,
}

impl SocketOutbound {
    fn queue(&self, event: &Value, sound: Option<Sound>) -> Result<(), Backlog> {
        let message = Message::Text(event.to_string().into());
        let bytes = counted(&message);
        self.waiting.add(bytes, OUTBOUND_BYTES)?;
        let sent = self.to_client.try_send(Queued { message, sound });
        if sent.is_err() {
            self.waiting.take(bytes);
        }
        match sent {
            // A closed queue belongs to a client that has gone, which the reader tells.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Backlog),
        }
    }
}

impl Outbound for SocketOutbound {
    fn transport(&self) -> &'static str {
        "websocket"
    }

    fn event(&mut self, event: &Value) -> Result<(), Backlog> {
        self.queue(event, None)
    }

    fn sound_event(&mut self, event: &Value, sound: Sound) -> Result<(), Backlog> {
        self.queue(event, Some(sound))
    }

    fn sound(&mut self, _reply: ReplyId, _frames: &[Frame]) -> Result<bool, Backlog> {
        Ok(false)
    }

    fn close(&mut self, reason: EndReason) {
        let (code, text) = match reason {
            EndReason::ClientClosed | EndReason::TransportLost => (1000, "bye"),
            EndReason::IdleTimeout => (1000, "nobody spoke for a long time"),
            EndReason::MaxDuration => (1000, "the session reached its longest duration"),
            EndReason::MaxTurns => (1000, "the session reached its most turns"),
            EndReason::Shutdown => (1001, "the server is shutting down"),
            EndReason::Overrun => (1011, "the session fell behind"),
        };
        let frame = CloseFrame {
            code,
            reason: Utf8Bytes::from_static(text),
        };
        let _ = self.to_client.try_send(Message::Close(Some(frame)).into());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A client that takes each message at once, but for one, which takes a second; the gaps that are counted.
    async fn written(slow: Option<usize>, reports: bool) -> u64 {
        let (to_client, from_session) = mpsc::channel(OUTBOUND);
        let waiting = Waiting::default();
        let mut outbound = SocketOutbound {
            to_client,
            waiting: waiting.clone(),
        };
        let traffic = Arc::new(Traffic::new("websocket"));
        if reports {
            traffic.reports();
        }
        let mut taken = 0;
        let sink = futures_util::sink::unfold((), move |(), _: Message| {
            taken += 1;
            let slow = slow == Some(taken);
            async move {
                if slow {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok::<(), std::convert::Infallible>(())
            }
        });
        let writing = tokio::spawn(write(
            Box::pin(sink),
            from_session,
            waiting,
            Arc::clone(&traffic),
        ));
        // A reply of two seconds, 200 ms ahead of its listener.
        for frame in 0..100_u32 {
            let sound = Sound {
                length: Duration::from_millis(20),
                begins: frame == 0,
            };
            outbound.sound_event(&Value::Null, sound).unwrap();
            outbound.event(&Value::Null).unwrap();
            if frame >= 10 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        drop(outbound);
        writing.await.unwrap();
        traffic.underruns()
    }

    #[tokio::test(start_paused = true)]
    async fn sound_that_is_held_up_on_its_way_out_is_a_gap_unless_the_client_tells_itself() {
        assert_eq!(written(None, false).await, 0);
        assert_eq!(written(Some(60), false).await, 1);
        assert_eq!(written(Some(60), true).await, 0);
    }
}
