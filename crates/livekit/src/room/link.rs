//! One connection to a room: the signalling, and the two peer connections that it negotiates.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use duologue_rtc::Setup;
use livekit_protocol::data_packet::Value;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::{
    AddTrackRequest, DataPacket, DisconnectReason, JoinResponse, LeaveRequest, Ping,
    RoomMovedResponse, SessionDescription, SignalRequest, SignalResponse, SignalTarget, SyncState,
    TrackInfo, TrackPublishedResponse, TrackSource, TrackType, UpdateParticipantMetadata,
    UpdateSubscription,
};
use prost::Message as _;
use str0m::media::Mid;

use super::RoomConfig;
use crate::connection::{Connection, Offered, tracks_of};
use crate::error::ConnectError;
use crate::packets::packet;
use crate::socket::{Broken, Socket, Wire, address};

/// Protocol of the messages that we understand.
const PROTOCOL: u32 = 17;
/// A server that says nothing at first for so long has gone.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// Packets that wait for the data channel.
const MAX_PACKETS: usize = 2_048;
/// A server that names no other interval is pinged so often, ...
const PING_EVERY: Duration = Duration::from_secs(5);
/// ... and has gone when it is silent for so long.
const PING_PATIENCE: Duration = Duration::from_secs(15);

/// The signalling, in a task of its own.
pub(super) type SignalWire = Wire<SignalRequest, SignalResponse>;

pub(super) struct Link {
    /// `None` while it is being made again.
    pub wire: Option<SignalWire>,
    pub publisher: Connection,
    pub subscriber: Connection,
    /// What the server told on joining; taken once.
    pub join: Option<JoinResponse>,
    pub sid: String,
    /// Name of our track before the server gave it one.
    cid: String,
    pub track: Option<TrackInfo>,
    pub offered: Option<Offered>,
    pub channel_open: bool,
    pub publisher_up: bool,
    pub subscriber_up: bool,
    /// Tracks by the subscriber's media lines.
    tracks: HashMap<Mid, String>,
    answer: Option<SessionDescription>,
    packets: VecDeque<Vec<u8>>,
    sequence: u32,
    ping_every: Duration,
    ping_patience: Duration,
    next_ping: Instant,
    last_heard: Instant,
    rtt_ms: i64,
}

/// What follows from a message.
pub(super) enum Told {
    Nothing,
    Participants(Vec<livekit_protocol::ParticipantInfo>),
    /// We are in another room now.
    Moved(Box<RoomMovedResponse>),
    Token(String),
    Muted(bool),
    Leave(LeaveRequest),
    /// Negotiation failed; the connection is of no use.
    Broken(String),
}

/// Connects the signalling and gives the server's first message.
pub(super) async fn signal(
    config: &RoomConfig,
    token: &str,
    resume: Option<&str>,
) -> Result<(SignalWire, Response), ConnectError> {
    let mut query = format!(
        "/rtc?protocol={PROTOCOL}&version={}&auto_subscribe=0&disable_ice_lite=1",
        env!("CARGO_PKG_VERSION")
    );
    if let Some(sid) = resume {
        query.push_str(&format!("&reconnect=1&sid={sid}"));
    }
    let url = address(&config.server, &query)?;
    let mut wire: SignalWire = Socket::connect(&url, token, Some(&config.room))
        .await?
        .wire();
    let deadline = Instant::now() + FIRST_ANSWER;
    loop {
        match tokio::time::timeout_at(deadline.into(), wire.receive()).await {
            Ok(Ok(message)) => {
                if let Some(first) = message.message {
                    return Ok((wire, first));
                }
            }
            Ok(Err(Broken(reason))) => return Err(ConnectError::Closed(reason)),
            Err(_) => return Err(ConnectError::Closed("it said nothing".into())),
        }
    }
}

/// Why the server sends us away, for people.
pub(super) fn leaving(leave: &LeaveRequest) -> String {
    match leave.reason() {
        DisconnectReason::DuplicateIdentity => "another participant joined with our identity",
        DisconnectReason::ServerShutdown => "the server shuts down",
        DisconnectReason::ParticipantRemoved => "we were removed from the room",
        DisconnectReason::RoomDeleted => "the room was deleted",
        DisconnectReason::RoomClosed => "everybody has left and the room was closed",
        DisconnectReason::StateMismatch => "the server does not know us any more",
        DisconnectReason::JoinFailure => "the room did not let us in",
        DisconnectReason::SignalClose => "the signalling was closed",
        DisconnectReason::ConnectionTimeout => "the connection timed out",
        DisconnectReason::MediaFailure => "no media came through",
        DisconnectReason::ClientInitiated => "we left",
        other => return other.as_str_name().to_lowercase(),
    }
    .to_owned()
}

impl Link {
    /// Joins the room as a new participant.
    pub async fn join(
        config: &RoomConfig,
        token: &str,
        setup: &Setup,
    ) -> Result<Self, ConnectError> {
        let (wire, first) = signal(config, token, None).await?;
        let join = match first {
            Response::Join(join) => join,
            // The server says no more than that.
            Response::Leave(leave) if leave.reason() == DisconnectReason::JoinFailure => {
                return Err(ConnectError::RoomFull(config.room.clone()));
            }
            Response::Leave(leave) => return Err(ConnectError::Closed(leaving(&leave))),
            _ => return Err(ConnectError::NotLiveKit(config.server.clone())),
        };
        let publisher = Connection::open(setup).await?;
        let subscriber = Connection::open(setup).await?;
        let seconds = |seconds: i32| {
            u64::try_from(seconds)
                .ok()
                .filter(|s| *s > 0)
                .map(Duration::from_secs)
        };
        let now = Instant::now();
        let ping_every = seconds(join.ping_interval).unwrap_or(PING_EVERY);
        let mut link = Self {
            wire: Some(wire),
            publisher,
            subscriber,
            sid: join
                .participant
                .as_ref()
                .map(|us| us.sid.clone())
                .unwrap_or_default(),
            ping_every,
            ping_patience: seconds(join.ping_timeout).unwrap_or(PING_PATIENCE),
            next_ping: now + ping_every,
            join: Some(join),
            cid: format!("voice-{:016x}", rand::random::<u64>()),
            track: None,
            offered: None,
            channel_open: false,
            publisher_up: false,
            subscriber_up: false,
            tracks: HashMap::new(),
            answer: None,
            packets: VecDeque::new(),
            sequence: 0,
            last_heard: now,
            rtt_ms: 0,
        };
        link.request(Request::AddTrack(AddTrackRequest {
            cid: link.cid.clone(),
            name: "voice".into(),
            r#type: TrackType::Audio.into(),
            source: TrackSource::Microphone.into(),
            // RED makes browsers' jitter buffers grow.
            disable_red: true,
            ..AddTrackRequest::default()
        }));
        Ok(link)
    }

    /// The signalling is back: tells the server what we have, and begins the publisher's media anew.
    pub fn resumed(&mut self, wire: SignalWire, microphone: Option<&str>) {
        self.wire = Some(wire);
        self.last_heard = Instant::now();
        self.next_ping = self.last_heard + self.ping_every;
        let publish_tracks = self.track.clone().map(|track| TrackPublishedResponse {
            cid: self.cid.clone(),
            track: Some(track),
        });
        self.request(Request::SyncState(SyncState {
            answer: self.answer.clone(),
            subscription: Some(UpdateSubscription {
                track_sids: microphone.map(str::to_owned).into_iter().collect(),
                subscribe: true,
                ..UpdateSubscription::default()
            }),
            publish_tracks: publish_tracks.into_iter().collect(),
            ..SyncState::default()
        }));
        if self.offered.is_some()
            && let Some(sdp) = self.publisher.offer_restart()
        {
            self.request(Request::Offer(description("offer", sdp)));
        }
    }

    fn request(&mut self, message: Request) {
        let request = SignalRequest {
            message: Some(message),
        };
        // A wire that takes nothing breaks by itself, and is then told of.
        if let Some(wire) = &self.wire
            && !wire.send(request)
        {
            tracing::debug!("the LiveKit server takes no messages");
        }
    }

    pub fn subscribe(&mut self, sid: &str, subscribe: bool) {
        self.request(Request::Subscription(UpdateSubscription {
            track_sids: vec![sid.to_owned()],
            subscribe,
            ..UpdateSubscription::default()
        }));
    }

    pub fn set_attributes(&mut self, attributes: Vec<(String, String)>) {
        self.request(Request::UpdateMetadata(UpdateParticipantMetadata {
            attributes: attributes.into_iter().collect(),
            ..UpdateParticipantMetadata::default()
        }));
    }

    pub fn leave(&mut self) {
        self.request(Request::Leave(LeaveRequest {
            reason: DisconnectReason::ClientInitiated.into(),
            action: Action::Disconnect.into(),
            ..LeaveRequest::default()
        }));
        // Dropped, it closes once that has left.
        self.wire = None;
    }

    /// Pings when it is time. `false`: the server has been silent for too long.
    pub fn ping(&mut self, now: Instant) -> bool {
        if self.wire.is_none() {
            return true;
        }
        if now >= self.next_ping {
            self.next_ping = now + self.ping_every;
            self.request(Request::PingReq(Ping {
                timestamp: unix_ms(),
                rtt: self.rtt_ms,
            }));
        }
        now < self.last_heard + self.ping_patience
    }

    pub fn ping_deadline(&self) -> Option<Instant> {
        self.wire.as_ref()?;
        Some(self.next_ping.min(self.last_heard + self.ping_patience))
    }

    /// Takes a message of the server's.
    pub fn told(&mut self, message: Response) -> Told {
        self.last_heard = Instant::now();
        match message {
            Response::Offer(offer) => {
                for (mid, track) in tracks_of(&offer.sdp) {
                    self.tracks.insert(Mid::from(mid.as_str()), track);
                }
                match self.subscriber.accept_offer(&offer.sdp) {
                    Ok(sdp) => {
                        let answer = SessionDescription {
                            id: offer.id,
                            ..description("answer", sdp)
                        };
                        self.answer = Some(answer.clone());
                        self.request(Request::Answer(answer));
                    }
                    Err(error) => {
                        return Told::Broken(format!("its offer cannot be accepted: {error}"));
                    }
                }
            }
            Response::Answer(answer) => {
                if let Err(error) = self.publisher.accept_answer(&answer.sdp) {
                    return Told::Broken(format!("its answer cannot be accepted: {error}"));
                }
            }
            Response::Trickle(trickle) => match trickle.target() {
                SignalTarget::Publisher => self.publisher.add_candidate(&trickle.candidate_init),
                SignalTarget::Subscriber => self.subscriber.add_candidate(&trickle.candidate_init),
            },
            Response::TrackPublished(published) if published.cid == self.cid => {
                let sid = published.track.as_ref().map(|track| track.sid.clone());
                tracing::debug!(?sid, "our voice is published");
                self.track = published.track;
                if self.offered.is_none()
                    && let Some((offered, sdp)) = self.publisher.offer_voice("duologue", &self.cid)
                {
                    self.offered = Some(offered);
                    self.request(Request::Offer(description("offer", sdp)));
                }
            }
            Response::Update(update) => return Told::Participants(update.participants),
            Response::RoomMoved(moved) => {
                if let Some(us) = &moved.participant {
                    self.sid.clone_from(&us.sid);
                }
                return Told::Moved(Box::new(moved));
            }
            Response::RefreshToken(token) => return Told::Token(token),
            Response::Mute(mute)
                if self
                    .track
                    .as_ref()
                    .is_some_and(|track| track.sid == mute.sid) =>
            {
                return Told::Muted(mute.muted);
            }
            Response::PongResp(pong) => {
                self.rtt_ms = (unix_ms() - pong.last_ping_timestamp).max(0);
            }
            Response::Leave(leave) => return Told::Leave(leave),
            Response::SubscriptionResponse(refused) => {
                tracing::warn!(track = refused.track_sid, reason = ?refused.err(), "the user's microphone cannot be heard");
            }
            Response::RequestResponse(answer) if answer.reason != 0 => {
                tracing::warn!(reason = ?answer.reason(), message = answer.message, "the LiveKit server refused a request");
            }
            _ => {}
        }
        Told::Nothing
    }

    /// The track whose packets come on a media line.
    pub fn track_of(&self, mid: Mid) -> Option<&str> {
        self.tracks.get(&mid).map(String::as_str)
    }

    /// Queues packets for the data channel. `false`: nobody takes what we send.
    pub fn queue(&mut self, packets: Vec<DataPacket>) -> bool {
        for mut packet in packets {
            if self.packets.len() >= MAX_PACKETS {
                if self.channel_open && self.publisher_up {
                    return false;
                }
                // What nobody could get is not kept for ever.
                self.packets.pop_front();
            }
            self.sequence += 1;
            packet.sequence = self.sequence;
            packet.participant_sid.clone_from(&self.sid);
            self.packets.push_back(packet.encode_to_vec());
        }
        true
    }

    /// Queues one packet; `of`: who said it, where that is not us.
    pub fn queue_value(&mut self, value: Value, of: Option<&str>) -> bool {
        self.queue(vec![packet(value, None, of)])
    }

    /// Hands the next packet to the data channel. `false`: there is none, or no room for it.
    pub fn send_packet(&mut self) -> bool {
        let (Some(bytes), Some(offered), true) =
            (self.packets.front(), self.offered, self.channel_open)
        else {
            return false;
        };
        let Some(mut channel) = self.publisher.rtc.channel(offered.reliable) else {
            return false;
        };
        match channel.write(true, bytes) {
            Ok(true) => {
                self.packets.pop_front();
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::warn!(%error, "a data packet was not sent");
                self.packets.pop_front();
                true
            }
        }
    }

    pub fn all_sent(&mut self) -> bool {
        let buffered = self
            .offered
            .and_then(|offered| self.publisher.rtc.channel(offered.reliable))
            .map_or(0, |mut channel| channel.buffered_amount());
        !self.channel_open || (self.packets.is_empty() && buffered == 0)
    }
}

fn description(kind: &str, sdp: String) -> SessionDescription {
    SessionDescription {
        r#type: kind.into(),
        sdp,
        ..SessionDescription::default()
    }
}

pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
