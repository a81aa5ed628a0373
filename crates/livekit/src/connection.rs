//! One of the two peer connections that a participant has: str0m, its sockets, and the negotiation.
//!
//! LiveKit negotiates the publisher (we offer) and the subscriber (the server offers) apart. Each has a UDP socket
//! for every address of this machine; the server is reached from whichever can.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use duologue_rtc::{Setup, local_addresses, read_datagrams};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcError};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::ConnectError;

/// Datagrams that may wait for the room; more are lost, as networks lose them.
const INBOX: usize = 512;

/// A datagram of the network's.
pub(crate) struct Datagram {
    source: SocketAddr,
    destination: SocketAddr,
    bytes: Vec<u8>,
    at: Instant,
}

/// What a connection has, or when to ask again.
// One at a time, on the stack.
#[expect(clippy::large_enum_variant)]
pub(crate) enum Polled {
    Event(Event),
    Until(Instant),
}

pub(crate) struct Connection {
    pub rtc: Rtc,
    sockets: Vec<(SocketAddr, Arc<UdpSocket>)>,
    datagrams: mpsc::Receiver<Datagram>,
    _readers: DropGuard,
    pending: Option<SdpPendingOffer>,
    /// Candidates that came before the description they belong to.
    early: Vec<Candidate>,
    described: bool,
}

impl Connection {
    pub async fn open(setup: &Setup) -> Result<Self, ConnectError> {
        let mut rtc = setup.config().build(Instant::now());
        let (inbox, datagrams) = mpsc::channel(INBOX);
        let stop = CancellationToken::new();
        let mut sockets = Vec::new();
        for address in local_addresses().map_err(|error| ConnectError::Media(error.to_string()))? {
            let Ok(socket) = UdpSocket::bind((address, 0)).await else {
                continue;
            };
            let Ok(local) = socket.local_addr() else {
                continue;
            };
            if let Ok(candidate) = Candidate::host(local, Protocol::Udp) {
                rtc.add_local_candidate(candidate);
            }
            let socket = Arc::new(socket);
            let inbox = inbox.clone();
            let reading = read_datagrams(Arc::clone(&socket), move |source, bytes, at| {
                let _ = inbox.try_send(Datagram {
                    source,
                    destination: local,
                    bytes,
                    at,
                });
            });
            tokio::spawn(stop.clone().run_until_cancelled_owned(reading));
            sockets.push((local, socket));
        }
        if sockets.is_empty() {
            return Err(ConnectError::Media("no UDP socket could be opened".into()));
        }
        Ok(Self {
            rtc,
            sockets,
            datagrams,
            _readers: stop.drop_guard(),
            pending: None,
            early: Vec::new(),
            described: false,
        })
    }

    /// Adds our voice and the two data channels, and gives the offer.
    pub fn offer_voice(&mut self, stream: &str, track: &str) -> Option<(Offered, String)> {
        let mut changes = self.rtc.sdp_api();
        let voice = changes.add_media(
            MediaKind::Audio,
            Direction::SendOnly,
            Some(stream.into()),
            Some(track.into()),
            None,
        );
        let reliable = changes.add_channel_with_config(ChannelConfig {
            label: "_reliable".into(),
            ..ChannelConfig::default()
        });
        // The server counts the connection as made once both are open.
        changes.add_channel_with_config(ChannelConfig {
            label: "_lossy".into(),
            ordered: false,
            reliability: Reliability::MaxRetransmits { retransmits: 0 },
            ..ChannelConfig::default()
        });
        let (offer, pending) = changes.apply()?;
        self.pending = Some(pending);
        Some((Offered { voice, reliable }, offer.to_sdp_string()))
    }

    /// An offer that begins ICE anew.
    pub fn offer_restart(&mut self) -> Option<String> {
        let mut changes = self.rtc.sdp_api();
        changes.ice_restart(true);
        let (offer, pending) = changes.apply()?;
        self.pending = Some(pending);
        Some(offer.to_sdp_string())
    }

    /// Takes the answer to our offer.
    pub fn accept_answer(&mut self, sdp: &str) -> Result<(), String> {
        let Some(pending) = self.pending.take() else {
            return Err("there was no offer of ours".into());
        };
        let answer = SdpAnswer::from_sdp_string(sdp).map_err(|error| error.to_string())?;
        self.rtc
            .sdp_api()
            .accept_answer(pending, answer)
            .map_err(|error| error.to_string())?;
        self.add_early();
        Ok(())
    }

    /// Accepts an offer of the server's and gives the answer.
    pub fn accept_offer(&mut self, sdp: &str) -> Result<String, String> {
        let offer = SdpOffer::from_sdp_string(sdp).map_err(|error| error.to_string())?;
        let answer = self
            .rtc
            .sdp_api()
            .accept_offer(offer)
            .map_err(|error| error.to_string())?;
        self.add_early();
        Ok(answer.to_sdp_string())
    }

    fn add_early(&mut self) {
        self.described = true;
        for candidate in self.early.drain(..) {
            self.rtc.add_remote_candidate(candidate);
        }
    }

    /// Takes a candidate of the server's, an `RTCIceCandidateInit` in JSON. What we cannot use is left out.
    pub fn add_candidate(&mut self, init: &str) {
        let Some(candidate) = candidate_of(init) else {
            return;
        };
        if self.described {
            self.rtc.add_remote_candidate(candidate);
        } else if self.early.len() < 64 {
            self.early.push(candidate);
        }
    }

    /// Sends what is to be sent and gives the next event, or until when there is none.
    pub fn poll(&mut self, now: Instant) -> Result<Polled, RtcError> {
        let mut turned = 0;
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) if at <= now && turned < 4 && self.rtc.is_alive() => {
                    turned += 1;
                    self.rtc.handle_input(Input::Timeout(now))?;
                }
                Output::Timeout(at) => {
                    return Ok(Polled::Until(at.max(now + Duration::from_millis(1))));
                }
                Output::Transmit(transmit) => {
                    let from = self
                        .sockets
                        .iter()
                        .find(|(local, _)| *local == transmit.source);
                    if let Some(Err(error)) = from.map(|(_, socket)| {
                        socket.try_send_to(&transmit.contents, transmit.destination)
                    }) {
                        tracing::trace!(%error, to = %transmit.destination, "a datagram was not sent");
                    }
                }
                Output::Event(event) => return Ok(Polled::Event(event)),
            }
        }
    }

    /// The next datagram. Safe to drop.
    pub async fn datagram(&mut self) -> Option<Datagram> {
        self.datagrams.recv().await
    }

    pub fn receive(&mut self, datagram: &Datagram) -> Result<(), RtcError> {
        let received = Receive::new(
            Protocol::Udp,
            datagram.source,
            datagram.destination,
            &datagram.bytes,
        );
        // What is no packet of any protocol is dropped.
        match received {
            Ok(received) => self.rtc.handle_input(Input::Receive(datagram.at, received)),
            Err(_) => Ok(()),
        }
    }
}

/// What an offer of our voice has in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered {
    pub voice: Mid,
    pub reliable: ChannelId,
}

/// The candidate of an `RTCIceCandidateInit` in JSON, if it is one that we can use.
pub(crate) fn candidate_of(init: &str) -> Option<Candidate> {
    let init: serde_json::Value = serde_json::from_str(init).ok()?;
    Candidate::from_sdp_string(init.get("candidate")?.as_str()?).ok()
}

/// The LiveKit track (`TR_...`) of each media line of the server's offer.
pub(crate) fn tracks_of(sdp: &str) -> Vec<(String, String)> {
    let mut tracks = Vec::new();
    for section in sdp.split("\nm=").skip(1) {
        let value = |name: &str| {
            section
                .lines()
                .find_map(|line| line.trim_end().strip_prefix(name))
                .map(str::to_owned)
        };
        // `PA_x|TR_y track-id`: the stream names participant and track, older servers put it in the track's id.
        let msid = value("a=msid:").unwrap_or_default();
        let track = msid
            .split([' ', '|'])
            .find(|part| part.starts_with("TR_"))
            .map(str::to_owned);
        let sends = section
            .lines()
            .any(|line| matches!(line.trim_end(), "a=sendonly" | "a=sendrecv"));
        if let (Some(mid), Some(track), true) = (value("a=mid:"), track, sends) {
            tracks.push((mid, track));
        }
    }
    tracks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tracks_of_an_offer_are_found_by_their_lines() {
        let sdp = "v=0\r\ns=-\r\n\
            m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\na=sendrecv\r\n\
            m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=msid:PA_ada|TR_one TR_one\r\na=sendonly\r\n\
            m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:2\r\na=msid:PA_bob TR_two\r\na=sendonly\r\n\
            m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:3\r\na=msid:PA_eve|TR_three TR_three\r\na=inactive\r\n";
        let pair = |mid: &str, track: &str| (mid.to_owned(), track.to_owned());
        assert_eq!(tracks_of(sdp), [pair("1", "TR_one"), pair("2", "TR_two")]);
        assert_eq!(tracks_of(""), []);
    }
}
