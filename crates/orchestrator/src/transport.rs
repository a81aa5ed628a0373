//! What a session needs of a connection, whatever carries it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use duologue_audio::Frame;
use duologue_session::{EndReason, ReplyId};
use serde_json::Value;

use crate::playback::Sound;
use crate::realtime::{ClientEvent, EventError};

/// What comes from a client.
#[derive(Debug)]
pub enum Inbound {
    /// An event, and its `event_id`.
    Event(ClientEvent, Option<String>),
    /// An event that could not be read.
    Malformed(EventError),
    /// Sound that did not come in an event: mono at 48 kHz, -1 to 1.
    Sound(Vec<f32>),
    /// The client is not heard of; it may come back.
    Lost,
    /// The client is back.
    Back,
    /// How long after it was sent a frame is held to be heard.
    OutputDelay(Duration),
    /// The client has gone.
    Gone,
}

/// Where a session's events and sound go. No call waits.
pub trait Outbound: Send {
    /// Its name, for metrics: `websocket`, `webrtc` or `livekit`.
    fn transport(&self) -> &'static str;

    /// Sends an event.
    ///
    /// # Errors
    /// [`Backlog`]: the client does not take what is sent.
    fn event(&mut self, event: &Value) -> Result<(), Backlog>;

    /// Sends an event that carries sound of a reply, by a transport whose sound goes in events.
    ///
    /// # Errors
    /// [`Backlog`].
    fn sound_event(&mut self, event: &Value, _sound: Sound) -> Result<(), Backlog> {
        self.event(event)
    }

    /// Sends frames of a reply beside the events. `false`: this transport carries sound in events.
    ///
    /// # Errors
    /// [`Backlog`].
    fn sound(&mut self, reply: ReplyId, frames: &[Frame]) -> Result<bool, Backlog>;

    /// How far ahead of the listener frames are wanted, by a transport that carries them beside the events and
    /// paces them itself. `None`: sound goes in events, with the configured lead.
    fn lead(&self) -> Option<Duration> {
        None
    }

    /// Drops the frames that wait for their time: the reply is held or stopped.
    fn flush(&mut self) {}

    /// The session is over; what was sent may still be delivered.
    fn close(&mut self, reason: EndReason);
}

/// Bytes that wait for a client. A queue that is bounded by its length alone holds as much as its longest messages
/// make it, and how long they are is the client's choice: its own settings and items are told back to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    /// Counts a message that is to be queued.
    ///
    /// # Errors
    /// [`Backlog`]: with what waits already it is more than `limit`. One message alone is never too long.
    pub fn add(&self, bytes: usize, limit: usize) -> Result<(), Backlog> {
        let fits = |waiting: usize| {
            let all = waiting.saturating_add(bytes);
            (waiting == 0 || all <= limit).then_some(all)
        };
        let added = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        added.map(drop).map_err(|_| Backlog)
    }

    /// It has left, or was not queued after all.
    pub fn take(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The client does not take what is sent, and no more is kept for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client reads too slowly: its queue is full")]
pub struct Backlog;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_by_its_bytes_and_a_long_message_alone_passes() {
        let waiting = Waiting::default();
        assert_eq!(waiting.add(500, 100), Ok(()));
        assert_eq!(waiting.add(1, 100), Err(Backlog));
        waiting.take(500);
        assert_eq!(waiting.add(60, 100), Ok(()));
        assert_eq!(waiting.add(60, 100), Err(Backlog));
        assert_eq!(waiting.add(40, 100), Ok(()));
        waiting.take(60);
        assert_eq!(waiting.add(60, 100), Ok(()));
    }
}
