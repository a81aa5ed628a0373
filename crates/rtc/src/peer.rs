//! One client's connection: ICE, DTLS and SRTP by str0m, one voice each way, one data channel.
//!
//! One task owns it. It hands what comes to a [`PeerHandler`], which must not wait, and takes [`PeerCommand`]s.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use duologue_audio::Frame;
use duologue_audio::opus::OpusError;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::Receive;
use str0m::{Event, IceConnectionState, IceCreds, Input, Output, Rtc, RtcError};
use tokio::sync::{mpsc, oneshot};

use crate::port::{Datagram, Membership, Port};
use crate::whereabouts::{Way, Whereabouts};
use crate::{JitterStatistics, VoiceIn, VoiceOut};

/// A client that has not connected by then has gone.
const CONNECT: Duration = Duration::from_secs(20);
/// A client of which nothing at all came for so long is not there. Browsers check the way every 2.5 s, and send
/// sound or reports besides; ICE itself takes three times as long to find out.
const SILENCE: Duration = Duration::from_secs(6);
/// What is queued is given so long to leave before the connection is closed.
const FAREWELL: Duration = Duration::from_secs(2);
/// Messages that wait for the data channel; one more closes the connection.
const MAX_MESSAGES: usize = 1_024;
/// Bytes of them; one alone may have more.
const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
const FRAME: Duration = Duration::from_millis(20);

/// What is wrong with an offer.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// It is not SDP.
    #[error("this is not SDP: {0}")]
    Sdp(String),
    /// It has no Opus audio that we could send and hear.
    #[error(
        "the offer has no audio line with Opus; add a microphone track or an audio transceiver before the offer is made"
    )]
    NoAudio,
    /// It cannot be accepted.
    #[error("the offer cannot be accepted: {0}")]
    Rejected(String),
    /// There is no codec.
    #[error(transparent)]
    Codec(#[from] OpusError),
    /// The connection has ended.
    #[error("the call has ended")]
    Ended,
}

/// Where a peer's news go. No call may wait.
pub trait PeerHandler: Send {
    /// The connection is there, for the first time or again.
    fn connected(&mut self);
    /// The client is not heard of; it may come back.
    fn disconnected(&mut self);
    /// 20 ms of the client's sound.
    fn sound(&mut self, frame: Frame);
    /// A text message of the data channel. `false`: no more can be taken, and the connection ends.
    fn message(&mut self, text: &str) -> bool;
    /// A new estimate of how long after it was sent a frame is heard.
    fn output_delay(&mut self, delay: Duration);
    /// A datagram of this size came. For who counts them.
    fn received(&mut self, _bytes: usize) {}
    /// A datagram of this size went.
    fn sent(&mut self, _bytes: usize) {}
}

/// What a peer is told to do.
#[derive(Debug)]
pub enum PeerCommand {
    /// Sends a text message on the data channel, once there is one.
    Message(String),
    /// Says a frame: at once, or 20 ms after the last.
    Say(Box<Frame>),
    /// Drops the frames that wait for their time.
    Flush,
    /// Accepts another offer, such as one of an ICE restart; its answer goes back.
    Negotiate(String, oneshot::Sender<Result<String, OfferError>>),
    /// Sends what is queued and closes.
    Close,
}

/// A client's connection, to be [`run`](Self::run).
pub struct Peer {
    rtc: Rtc,
    membership: Membership,
    datagrams: mpsc::Receiver<Datagram>,
    answer: String,
    started: Instant,
    /// The client's.
    voice_in: VoiceIn,
    /// Ours, and the media line it goes on.
    voice_out: VoiceOut,
    audio: Option<Mid>,
    channel: Option<ChannelId>,
    messages: VecDeque<String>,
    message_bytes: usize,
    last_heard: Instant,
    /// How the last datagram came, and where media say that the client is.
    came: Option<Way>,
    whereabouts: Whereabouts,
    ice_lost: bool,
    /// As the handler was told.
    connected: bool,
    ever_connected: bool,
    closing: Option<Instant>,
}

/// A peer that has made an offer and waits for the answer.
pub struct Offering {
    peer: Peer,
    offer: String,
    pending: SdpPendingOffer,
}

impl Offering {
    /// The SDP offer.
    #[must_use]
    pub fn offer(&self) -> &str {
        &self.offer
    }

    /// The other side has answered.
    ///
    /// # Errors
    /// [`OfferError`]: the answer cannot be read or does not fit the offer.
    pub fn answered(mut self, answer: &str) -> Result<Peer, OfferError> {
        let answer = SdpAnswer::from_sdp_string(answer)
            .map_err(|error| OfferError::Sdp(error.to_string()))?;
        self.peer
            .rtc
            .sdp_api()
            .accept_answer(self.pending, answer)
            .map_err(|error| OfferError::Rejected(error.to_string()))?;
        Ok(self.peer)
    }
}

/// Why [`Peer::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEnd {
    /// It was told to.
    Closed,
    /// The client closed.
    Gone,
    /// The client never connected.
    NeverConnected,
    /// The client floods us, or does not take what is sent.
    Overrun,
    /// The connection broke.
    Failed,
}

impl Peer {
    /// The peer that answers an offer.
    pub(crate) fn answering(port: &Port, offer: &str) -> Result<Self, OfferError> {
        let offer = parse(offer)?;
        let mut peer = Self::build(port)?;
        peer.answer = peer
            .rtc
            .sdp_api()
            .accept_offer(offer)
            .map_err(|error| OfferError::Rejected(error.to_string()))?
            .to_sdp_string();
        Ok(peer)
    }

    /// The peer that calls another, and its offer.
    pub(crate) fn offering(port: &Port, channel: &str) -> Result<Offering, OfferError> {
        let mut peer = Self::build(port)?;
        let mut api = peer.rtc.sdp_api();
        let audio = api.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
        api.add_channel(channel.to_owned());
        let (offer, pending) = api
            .apply()
            .ok_or_else(|| OfferError::Rejected("there is nothing to offer".into()))?;
        peer.audio = Some(audio);
        Ok(Offering {
            peer,
            offer: offer.to_sdp_string(),
            pending,
        })
    }

    fn build(port: &Port) -> Result<Self, OfferError> {
        let credentials = IceCreds {
            ufrag: format!("{:016x}", rand::random::<u64>()),
            pass: format!("{:032x}", rand::random::<u128>()),
        };
        let shared = port.shared();
        let config = shared
            .setup
            .config()
            .set_local_ice_credentials(credentials.clone());
        let started = Instant::now();
        let mut rtc = config.build(started);
        for candidate in &shared.candidates {
            rtc.add_local_candidate(candidate.clone());
        }
        let (membership, datagrams) = port.enter(&credentials.ufrag);
        Ok(Self {
            rtc,
            membership,
            datagrams,
            answer: String::new(),
            started,
            voice_in: VoiceIn::new(started)?,
            voice_out: VoiceOut::new(started)?,
            audio: None,
            channel: None,
            messages: VecDeque::new(),
            message_bytes: 0,
            last_heard: started,
            came: None,
            whereabouts: Whereabouts::default(),
            ice_lost: false,
            connected: false,
            ever_connected: false,
            closing: None,
        })
    }

    /// The SDP answer; empty where this side made the offer.
    #[must_use]
    pub fn answer(&self) -> &str {
        &self.answer
    }

    /// Holds the connection to its end.
    pub async fn run(
        mut self,
        mut handler: impl PeerHandler,
        mut commands: mpsc::Receiver<PeerCommand>,
    ) -> (PeerEnd, JitterStatistics) {
        let end = match self.hold(&mut handler, &mut commands).await {
            Ok(end) => end,
            Err(error) => {
                tracing::debug!(%error, "a WebRTC connection broke");
                PeerEnd::Failed
            }
        };
        (end, self.voice_in.statistics())
    }

    async fn hold(
        &mut self,
        handler: &mut impl PeerHandler,
        commands: &mut mpsc::Receiver<PeerCommand>,
    ) -> Result<PeerEnd, RtcError> {
        loop {
            let now = Instant::now();
            if !self.advance(now, handler)? {
                return Ok(PeerEnd::Overrun);
            }
            let Some(wake) = self.drain(now, handler)? else {
                return Ok(PeerEnd::Overrun);
            };
            self.tell_presence(now, handler);
            if !self.rtc.is_alive() {
                return Ok(match self.closing {
                    Some(_) => PeerEnd::Closed,
                    None => PeerEnd::Gone,
                });
            }
            let connect_by = self.started + CONNECT;
            if !self.ever_connected && now >= connect_by {
                return Ok(PeerEnd::NeverConnected);
            }
            if let Some(by) = self.closing
                && (now >= by || self.all_sent())
            {
                self.rtc.close()?;
                self.drain(now, handler)?;
                return Ok(PeerEnd::Closed);
            }
            let wake = [
                Some(wake),
                self.voice_in.deadline(),
                self.connected.then(|| self.voice_out.deadline()).flatten(),
                self.connected.then_some(self.last_heard + SILENCE),
                (!self.ever_connected).then_some(connect_by),
                self.closing.map(|by| by.min(now + FRAME)),
            ]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(wake);
            tokio::select! {
                datagram = self.datagrams.recv() => {
                    let Some(datagram) = datagram else {
                        return Ok(PeerEnd::Failed);
                    };
                    handler.received(datagram.bytes.len());
                    self.receive(&datagram)?;
                }
                command = commands.recv(), if self.closing.is_none() => {
                    if !self.command(command.unwrap_or(PeerCommand::Close)) {
                        return Ok(PeerEnd::Overrun);
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// Tells whether the client is there, where that has changed.
    fn tell_presence(&mut self, now: Instant, handler: &mut impl PeerHandler) {
        let silent = now.saturating_duration_since(self.last_heard) >= SILENCE;
        let present = self.ever_connected && !self.ice_lost && !silent;
        if present != self.connected {
            self.connected = present;
            if present {
                handler.connected();
            } else {
                handler.disconnected();
            }
        }
    }

    fn receive(&mut self, datagram: &Datagram) -> Result<(), RtcError> {
        self.last_heard = datagram.at;
        self.came = Some(Way {
            protocol: datagram.protocol,
            remote: datagram.source,
            local: datagram.destination,
        });
        let received = Receive::new(
            datagram.protocol,
            datagram.source,
            datagram.destination,
            &datagram.bytes,
        );
        // What is no packet of any protocol is dropped.
        if let Ok(received) = received {
            self.rtc
                .handle_input(Input::Receive(datagram.at, received))?;
        }
        Ok(())
    }

    fn command(&mut self, command: PeerCommand) -> bool {
        match command {
            PeerCommand::Message(text) => {
                self.message_bytes += text.len();
                self.messages.push_back(text);
                while self.messages.len() > MAX_MESSAGES
                    || (self.messages.len() > 1 && self.message_bytes > MAX_MESSAGE_BYTES)
                {
                    if self.ever_connected && self.channel.is_some() {
                        return false;
                    }
                    // A client without a data channel has no use for them.
                    self.drop_message();
                }
            }
            PeerCommand::Say(frame) => self.voice_out.say(*frame),
            PeerCommand::Flush => self.voice_out.flush(),
            PeerCommand::Negotiate(offer, reply) => {
                let _ = reply.send(self.negotiate(&offer));
            }
            PeerCommand::Close => self.closing = Some(Instant::now() + FAREWELL),
        }
        true
    }

    fn negotiate(&mut self, offer: &str) -> Result<String, OfferError> {
        let offer = parse(offer)?;
        let answer = self
            .rtc
            .sdp_api()
            .accept_offer(offer)
            .map_err(|error| OfferError::Rejected(error.to_string()))?
            .to_sdp_string();
        // After an ICE restart checks come under another name.
        let fragment = answer
            .lines()
            .find_map(|line| line.strip_prefix("a=ice-ufrag:"));
        if let Some(fragment) = fragment {
            self.membership.also_known_as(fragment.trim());
        }
        Ok(answer)
    }

    /// Does what is due. `false`: the handler takes no more.
    fn advance(&mut self, now: Instant, handler: &mut impl PeerHandler) -> Result<bool, RtcError> {
        for frame in self.voice_in.due(now) {
            handler.sound(frame);
        }
        if !self.connected {
            // What is said to nobody is not kept for later.
            self.voice_out.flush();
            return Ok(true);
        }
        while self.voice_out.send_next(now, &mut self.rtc, self.audio) {
            if self.drain(now, handler)?.is_none() {
                return Ok(false);
            }
        }
        while let Some(text) = self.messages.front()
            && let Some(mut channel) = self.channel.and_then(|id| self.rtc.channel(id))
        {
            match channel.write(false, text.as_bytes()) {
                Ok(true) => {}
                Ok(false) => break,
                // Longer than the client takes, for one.
                Err(error) => {
                    tracing::warn!(%error, bytes = text.len(), "a message was not sent to the client");
                }
            }
            self.drop_message();
            if self.drain(now, handler)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Drops the oldest message that waits.
    fn drop_message(&mut self) {
        if let Some(text) = self.messages.pop_front() {
            self.message_bytes -= text.len();
        }
    }

    /// Takes all that str0m has to give. `None`: the handler takes no more.
    fn drain(
        &mut self,
        now: Instant,
        handler: &mut impl PeerHandler,
    ) -> Result<Option<Instant>, RtcError> {
        let mut turned = 0;
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) if at <= now && turned < 4 && self.rtc.is_alive() => {
                    turned += 1;
                    self.rtc.handle_input(Input::Timeout(now))?;
                }
                Output::Timeout(at) => return Ok(Some(at.max(now + Duration::from_millis(1)))),
                Output::Transmit(transmit) => {
                    let bytes: &[u8] = &transmit.contents;
                    let meant = Way {
                        protocol: transmit.proto,
                        remote: transmit.destination,
                        local: transmit.source,
                    };
                    let way = self.whereabouts.instead_of(meant.remote, bytes);
                    let way = way.unwrap_or(meant);
                    handler.sent(bytes.len());
                    self.membership
                        .send(way.protocol, way.local, way.remote, bytes);
                }
                Output::Event(event) => {
                    if !self.happened(now, event, handler) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn happened(&mut self, now: Instant, event: Event, handler: &mut impl PeerHandler) -> bool {
        match event {
            Event::IceConnectionStateChange(state) => {
                self.ice_lost = state == IceConnectionState::Disconnected;
            }
            Event::Connected => self.ever_connected = true,
            Event::MediaAdded(media) if media.kind == MediaKind::Audio && self.audio.is_none() => {
                self.audio = Some(media.mid);
            }
            Event::RtpPacket(packet) => {
                // It came with the datagram that was taken last, and SRTP vouches for it.
                if let Some(way) = self.came
                    && self.whereabouts.heard(now, way)
                {
                    tracing::info!(to = %way.remote, "a client's address has changed");
                }
                self.voice_in.packet(now, packet);
            }
            Event::ChannelOpen(id, label) => {
                tracing::debug!(%label, "a data channel opened");
                self.channel = Some(id);
            }
            Event::ChannelClose(id) if self.channel == Some(id) => self.channel = None,
            Event::ChannelData(data) if Some(data.id) == self.channel => {
                return match std::str::from_utf8(&data.data) {
                    Ok(text) => handler.message(text),
                    Err(_) => handler.message("(bytes that are no text)"),
                };
            }
            Event::MediaEgressStats(stats) => {
                if let Some(delay) = self.voice_out.reported(&stats) {
                    handler.output_delay(delay);
                }
            }
            _ => {}
        }
        true
    }

    fn all_sent(&mut self) -> bool {
        let Some(mut channel) = self.channel.and_then(|id| self.rtc.channel(id)) else {
            return true;
        };
        self.messages.is_empty() && channel.buffered_amount() == 0
    }
}

/// Reads an offer and sees to it that there is a voice in it.
fn parse(offer: &str) -> Result<SdpOffer, OfferError> {
    let audio = offer.lines().any(|line| line.starts_with("m=audio "));
    let opus = offer.lines().any(|line| {
        line.strip_prefix("a=rtpmap:")
            .is_some_and(|map| map.to_ascii_lowercase().contains(" opus/48000"))
    });
    let parsed =
        SdpOffer::from_sdp_string(offer).map_err(|error| OfferError::Sdp(error.to_string()))?;
    if !audio || !opus {
        return Err(OfferError::NoAudio);
    }
    Ok(parsed)
}
