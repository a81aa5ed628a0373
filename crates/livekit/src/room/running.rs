//! Taking part in a room: the loop that owns everything.

mod media;
mod returning;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use duologue_rtc::JitterStatistics;
use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_response::Message as Response;
use tokio::sync::mpsc;

use super::link::{Link, Told, leaving, unix_ms};
use super::{Room, RoomCommand, RoomEnd, RoomEvent, RoomHandler, follow};
use crate::audience::Change;
use crate::connection::Datagram;
use crate::error::ConnectError;
use crate::packets;
use crate::recovery::Attempt;
use crate::text_stream::{chunks, trailer};
use returning::{Back, Trying};

/// What is queued is given so long to leave before we do.
const FAREWELL: Duration = Duration::from_secs(2);
/// Media that is not there so long after the signalling is not coming.
const MEDIA: Duration = Duration::from_secs(15);
/// Text streams that may be open at once.
const MAX_STREAMS: usize = 64;
/// Attribute that names the track whose words a transcription has.
const TRACK: &str = "lk.transcribed_track_id";

/// Where a datagram is for, or a message from.
// One at a time, on the stack.
#[expect(clippy::large_enum_variant)]
enum Came {
    Signal(Result<Response, String>),
    Publisher(Datagram),
    Subscriber(Datagram),
    Command(RoomCommand),
    Back(Result<Back, ConnectError>),
    Time,
}

struct Running<'a, H> {
    room: Room,
    handler: &'a mut H,
    trying: Option<Trying>,
    /// When to try next, and what.
    next_try: Option<(Attempt, Instant)>,
    /// When media must be there.
    media_by: Option<Instant>,
    /// We told that we hear each other.
    told_connected: bool,
    muted: bool,
    attributes: HashMap<String, String>,
    /// Next chunk of each open text stream, and whether it is the user's.
    streams: HashMap<String, (u64, bool)>,
    messages: u64,
    last_reason: String,
    closing: Option<Instant>,
    end: Option<RoomEnd>,
}

pub(super) async fn run(
    room: Room,
    handler: &mut impl RoomHandler,
    commands: &mut mpsc::Receiver<RoomCommand>,
) -> (RoomEnd, JitterStatistics) {
    let mut running = Running {
        media_by: Some(Instant::now() + MEDIA),
        room,
        handler,
        trying: None,
        next_try: None,
        told_connected: false,
        muted: false,
        attributes: HashMap::new(),
        streams: HashMap::new(),
        messages: 0,
        last_reason: String::new(),
        closing: None,
        end: None,
    };
    running.joined();
    let end = running.hold(commands).await;
    if let Some(link) = &mut running.room.link {
        link.leave();
        link.publisher.rtc.disconnect();
        link.subscriber.rtc.disconnect();
    }
    (end, running.room.voice_in.statistics())
}

impl<H: RoomHandler> Running<'_, H> {
    async fn hold(&mut self, commands: &mut mpsc::Receiver<RoomCommand>) -> RoomEnd {
        loop {
            let now = Instant::now();
            self.advance(now);
            let wake = self.drain(now);
            self.tell_presence();
            if let Some(by) = self.closing
                && (now >= by || self.room.link.as_mut().is_none_or(Link::all_sent))
            {
                return RoomEnd::Closed;
            }
            if let Some(end) = self.end.take() {
                return end;
            }
            let came = self.next(commands, wake).await;
            self.take(came);
        }
    }

    async fn next(&mut self, commands: &mut mpsc::Receiver<RoomCommand>, wake: Instant) -> Came {
        let open = self.closing.is_none();
        let (wire, publisher, subscriber) = match &mut self.room.link {
            Some(link) => (
                link.wire.as_mut(),
                Some(&mut link.publisher),
                Some(&mut link.subscriber),
            ),
            None => (None, None, None),
        };
        let signal = async {
            match wire {
                Some(wire) => loop {
                    match wire.receive().await {
                        Ok(message) => {
                            if let Some(message) = message.message {
                                return Ok(message);
                            }
                        }
                        Err(broken) => return Err(broken.to_string()),
                    }
                },
                None => std::future::pending().await,
            }
        };
        let published = async {
            match publisher {
                Some(connection) => connection.datagram().await,
                None => std::future::pending().await,
            }
        };
        let subscribed = async {
            match subscriber {
                Some(connection) => connection.datagram().await,
                None => std::future::pending().await,
            }
        };
        let trying = &mut self.trying;
        let back = async {
            match trying {
                Some(trying) => trying.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = signal => Came::Signal(message),
            Some(datagram) = published => Came::Publisher(datagram),
            Some(datagram) = subscribed => Came::Subscriber(datagram),
            command = commands.recv(), if open => Came::Command(command.unwrap_or(RoomCommand::Close)),
            back = back => Came::Back(back),
            () = tokio::time::sleep_until(wake.into()) => Came::Time,
        }
    }

    fn take(&mut self, came: Came) {
        match came {
            Came::Signal(Ok(message)) => self.told(message),
            Came::Signal(Err(reason)) => {
                if let Some(link) = &mut self.room.link {
                    link.wire = None;
                }
                self.lost(None, &reason);
            }
            Came::Publisher(datagram) => {
                let link = self.room.link.as_mut();
                if let Some(Err(error)) = link.map(|link| link.publisher.receive(&datagram)) {
                    self.broken(&error.to_string());
                }
            }
            Came::Subscriber(datagram) => {
                let link = self.room.link.as_mut();
                if let Some(Err(error)) = link.map(|link| link.subscriber.receive(&datagram)) {
                    self.broken(&error.to_string());
                }
            }
            Came::Command(command) => self.command(command),
            Came::Back(back) => {
                self.trying = None;
                self.back(back);
            }
            Came::Time => {}
        }
    }

    /// We are in the room, for the first time or anew.
    fn joined(&mut self) {
        let Some(link) = &mut self.room.link else {
            return;
        };
        let Some(join) = link.join.take() else {
            return;
        };
        let ours = join.participant.map(|us| us.identity).unwrap_or_default();
        if !self.attributes.is_empty() {
            link.set_attributes(self.attributes.clone().into_iter().collect());
        }
        let changes = self.room.audience.joined(&ours, &join.other_participants);
        self.changed(changes);
    }

    fn changed(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Joined { identity } => self.tell(RoomEvent::Joined { identity }),
                Change::Left { meant: true } => self.tell(RoomEvent::Left),
                // Told by `tell_presence`.
                Change::Left { meant: false } => tracing::info!("the user is lost"),
                Change::Subscribe(sid) => {
                    self.room.voice_in.restart();
                    if let Some(link) = &mut self.room.link {
                        link.subscribe(&sid, true);
                    }
                }
                Change::Unsubscribe(sid) => {
                    if let Some(link) = &mut self.room.link {
                        link.subscribe(&sid, false);
                    }
                }
                Change::Muted(muted) => tracing::debug!(muted, "the user's microphone"),
            }
        }
    }

    fn told(&mut self, message: Response) {
        let Some(link) = &mut self.room.link else {
            return;
        };
        match link.told(message) {
            Told::Nothing => {}
            Told::Participants(infos) => {
                let changes = self.room.audience.update(&infos);
                self.changed(changes);
            }
            Told::Moved(moved) => {
                follow(&mut self.room.config, &mut self.room.token, &moved);
                tracing::info!(
                    room = self.room.config.room,
                    "moved to another LiveKit room"
                );
                let ours = self.room.config.identity.clone();
                let others = &moved.other_participants;
                let changes = self.room.audience.joined(&ours, others);
                self.changed(changes);
            }
            Told::Token(token) => self.room.token = token,
            Told::Muted(muted) => {
                self.muted = muted;
                self.room.voice_out.flush();
                self.tell(RoomEvent::Muted(muted));
            }
            Told::Leave(leave) => {
                // Older servers know no actions.
                let action = match leave.action() {
                    Action::Disconnect if leave.can_reconnect => Action::Reconnect,
                    Action::Disconnect if leave.reason() == DisconnectReason::ServerShutdown => {
                        Action::Reconnect
                    }
                    action => action,
                };
                link.wire = None;
                self.lost(Some(action), &leaving(&leave));
            }
            Told::Broken(reason) => self.broken(&reason),
        }
    }

    fn tell(&mut self, event: RoomEvent) {
        if !self.handler.handle(event) {
            self.end.get_or_insert(RoomEnd::Overrun);
        }
    }

    /// Tells whether we hear each other where that has changed.
    fn tell_presence(&mut self) {
        let up = self
            .room
            .link
            .as_ref()
            .is_some_and(|link| link.publisher_up && link.channel_open);
        let connected = up && self.room.audience.is_present();
        if connected != self.told_connected {
            self.told_connected = connected;
            self.tell(if connected {
                RoomEvent::Connected
            } else {
                RoomEvent::Disconnected
            });
        }
    }

    fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.room.started)
    }

    fn command(&mut self, command: RoomCommand) {
        let link = self.room.link.as_mut();
        let taken = match command {
            RoomCommand::Say(frame) => {
                if !self.muted {
                    self.room.voice_out.say(frame);
                }
                true
            }
            RoomCommand::Flush => {
                self.room.voice_out.flush();
                true
            }
            RoomCommand::Message { topic, text } => {
                self.messages += 1;
                let to = self.room.audience.identity();
                link.is_none_or(|link| {
                    link.queue(packets::message(topic, &text, to, unix_ms(), self.messages))
                })
            }
            RoomCommand::OpenText(mut stream) => {
                if self.streams.len() >= MAX_STREAMS {
                    self.streams.clear();
                }
                self.streams.insert(stream.id.clone(), (0, stream.of_user));
                let track = match stream.of_user {
                    true => self.room.audience.microphone().map(str::to_owned),
                    false => link
                        .as_ref()
                        .and_then(|link| Some(link.track.as_ref()?.sid.clone())),
                };
                stream
                    .attributes
                    .extend(track.map(|sid| (TRACK.to_owned(), sid)));
                let of = stream
                    .of_user
                    .then(|| self.room.audience.identity())
                    .flatten();
                link.is_none_or(|link| link.queue_value(stream.header(unix_ms(), None), of))
            }
            RoomCommand::WriteText { id, text } => {
                let Some((next, of_user)) = self.streams.get_mut(&id) else {
                    return;
                };
                let of = of_user.then(|| self.room.audience.identity()).flatten();
                let values = chunks(&id, *next, &text);
                *next += values.len() as u64;
                link.is_none_or(|link| values.into_iter().all(|value| link.queue_value(value, of)))
            }
            RoomCommand::CloseText { id, attributes } => {
                let Some((_, of_user)) = self.streams.remove(&id) else {
                    return;
                };
                let of = of_user.then(|| self.room.audience.identity()).flatten();
                link.is_none_or(|link| link.queue_value(trailer(&id, &attributes), of))
            }
            RoomCommand::Attributes(attributes) => {
                self.attributes.extend(attributes.iter().cloned());
                if let Some(link) = link {
                    link.set_attributes(attributes);
                }
                true
            }
            RoomCommand::Close => {
                self.closing = Some(Instant::now() + FAREWELL);
                true
            }
        };
        if !taken {
            self.end.get_or_insert(RoomEnd::Overrun);
        }
    }

    /// Does what is due.
    fn advance(&mut self, now: Instant) {
        for frame in self.room.voice_in.due(now) {
            self.tell(RoomEvent::Sound(frame));
        }
        if let Some((attempt, _)) = self.next_try.take_if(|(_, at)| *at <= now) {
            self.try_back(attempt);
        }
        let up = self
            .room
            .link
            .as_ref()
            .is_some_and(|link| link.publisher_up);
        if !up {
            // What is said to nobody is not kept for later.
            self.room.voice_out.flush();
        }
        if self.media_by.is_some_and(|by| by <= now) {
            self.media_by = None;
            if !up {
                self.broken("no media came through within 15 s; is the server's UDP port open?");
                return;
            }
        }
        if self.room.link.as_mut().is_some_and(|link| !link.ping(now)) {
            if let Some(link) = &mut self.room.link {
                link.wire = None;
            }
            self.lost(None, "the server is silent");
        }
    }
}
