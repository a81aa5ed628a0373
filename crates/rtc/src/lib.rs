//! WebRTC without libwebrtc: what turns packets into sound and sound into packets, and peers that share one port.
//!
//! The parts that decide hold no clock and do no I/O, so that they are tested in virtual time: [`JitterBuffer`]
//! makes a steady stream of frames out of packets as a network delivers them, [`VoiceTrack`] makes packets out of
//! a reply's frames and keeps the RTP clock going through silence, [`OutputDelay`] guesses from receiver reports
//! how long after sending a frame is heard. [`VoiceIn`] and [`VoiceOut`] join them to str0m's packets, for direct
//! calls ([`Peer`]) and for whoever else holds a str0m connection. ICE, DTLS, SRTP and SCTP are str0m's, which is sans-IO too.

mod arrival;
#[doc(hidden)]
pub mod fuzzing;
mod jitter_buffer;
mod output_delay;
mod peer;
mod port;
mod setup;
mod stretch;
mod voice;
mod voice_track;
mod whereabouts;

pub use jitter_buffer::{JitterBuffer, JitterConfig, JitterStatistics, MediaPacket};
pub use output_delay::OutputDelay;
pub use peer::{OfferError, Offering, Peer, PeerCommand, PeerEnd, PeerHandler};
pub use port::{Port, PortConfig, PortError};
pub use setup::{NoCertificate, Setup, local_addresses, read_datagrams};
pub use voice::{VoiceIn, VoiceOut};
pub use voice_track::{TrackPacket, VoiceTrack};

/// RTP clock of Opus, Hz (RFC 7587, section 4.1).
pub const RTP_CLOCK: u64 = 48_000;
