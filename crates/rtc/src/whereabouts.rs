//! Where a client is now, when its network has changed under it.
//!
//! A NAT that forgets a client, or a telephone that changes networks, makes the client's packets come from another
//! address. Its own checks find out nothing, since they are answered; ICE on our side holds on to the old address for
//! as long as it may still answer, which is 15 s. So the address that media come from is followed: only packets that
//! SRTP has authenticated, and taken for no replay, count, so that nobody else can draw the reply to himself
//! (RFC 7983's demultiplexing leaves STUN alone, which goes where ICE sends it).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::net::Protocol;

/// Media must not have come from the old address for so long. Packets overtake each other.
const SILENT: Duration = Duration::from_millis(150);
/// Addresses that a client had before are remembered up to here.
const MAX_FORMER: usize = 8;

/// A way between a client and us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub protocol: Protocol,
    /// The client's address.
    pub remote: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
}

/// Follows one client.
#[derive(Debug, Default)]
pub(crate) struct Whereabouts {
    current: Option<(Way, Instant)>,
    former: Vec<SocketAddr>,
}

impl Whereabouts {
    /// Authentic media came this way. `true`: the client has moved.
    pub fn heard(&mut self, at: Instant, way: Way) -> bool {
        match &mut self.current {
            Some((current, last)) if *current == way => {
                *last = at;
                false
            }
            Some((_, last)) if at.saturating_duration_since(*last) < SILENT => false,
            current => {
                let before = current.replace((way, at));
                self.former.retain(|former| *former != way.remote);
                let Some((before, _)) = before else {
                    return false;
                };
                if before.remote == way.remote {
                    return false;
                }
                if self.former.len() >= MAX_FORMER {
                    self.former.remove(0);
                }
                self.former.push(before.remote);
                true
            }
        }
    }

    /// The way for a packet that is meant for an address that the client has left; `None`: as it is meant.
    pub fn instead_of(&self, to: SocketAddr, bytes: &[u8]) -> Option<Way> {
        // STUN is told by its first byte.
        let stun = bytes.first().is_none_or(|first| *first <= 3);
        let (way, _) = self.current.filter(|_| !stun)?;
        self.former.contains(&to).then_some(way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDIA: [u8; 1] = [0x80];
    const CHECK: [u8; 1] = [0];

    fn way(port: u16) -> Way {
        Way {
            protocol: Protocol::Udp,
            remote: ([192, 0, 2, 7], port).into(),
            local: ([192, 0, 2, 1], 8080).into(),
        }
    }

    #[test]
    fn media_go_where_media_come_from_and_checks_go_where_they_are_meant() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut client = Whereabouts::default();
        assert!(!client.heard(ms(0), way(1)));
        assert_eq!(client.instead_of(way(1).remote, &MEDIA), None);
        assert!(client.heard(ms(400), way(2)));
        assert_eq!(client.instead_of(way(1).remote, &MEDIA), Some(way(2)));
        assert_eq!(client.instead_of(way(1).remote, &CHECK), None);
        assert_eq!(client.instead_of(way(2).remote, &MEDIA), None);
        // Somebody that the client never was is not affected.
        assert_eq!(client.instead_of(way(3).remote, &MEDIA), None);
        assert!(client.heard(ms(900), way(1)), "and back");
        assert_eq!(client.instead_of(way(1).remote, &MEDIA), None);
        assert_eq!(client.instead_of(way(2).remote, &MEDIA), Some(way(1)));
    }

    #[test]
    fn a_late_packet_by_the_old_way_moves_nobody() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut client = Whereabouts::default();
        client.heard(ms(0), way(1));
        client.heard(ms(200), way(2));
        assert!(!client.heard(ms(210), way(1)));
        assert_eq!(client.instead_of(way(1).remote, &MEDIA), Some(way(2)));
    }

    #[test]
    fn who_moves_on_and_on_is_followed_and_not_remembered_for_ever() {
        let start = Instant::now();
        let mut client = Whereabouts::default();
        for port in 1..100u16 {
            client.heard(start + Duration::from_secs(u64::from(port)), way(port));
        }
        assert_eq!(client.former.len(), MAX_FORMER);
        assert_eq!(client.instead_of(way(98).remote, &MEDIA), Some(way(99)));
    }
}
