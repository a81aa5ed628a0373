//! Media and data of both connections: what they have to give, what goes into them, and when to look again.

use std::time::{Duration, Instant};

use str0m::channel::ChannelId;
use str0m::{Event, IceConnectionState};

use super::Running;
use crate::connection::Polled;
use crate::room::link::Link;
use crate::room::{RoomEvent, RoomHandler};

impl<H: RoomHandler> Running<'_, H> {
    /// Takes all that the two connections have to give, and gives when to wake.
    pub(super) fn drain(&mut self, now: Instant) -> Instant {
        let mut wake = now + Duration::from_secs(1);
        loop {
            match self.poll(now, &mut wake) {
                Ok(false) => break,
                Ok(true) => {}
                Err(reason) => {
                    self.broken(&reason);
                    break;
                }
            }
        }
        let up = self
            .room
            .link
            .as_ref()
            .is_some_and(|link| link.publisher_up);
        [
            self.room.voice_in.deadline(),
            up.then(|| self.room.voice_out.deadline()).flatten(),
            self.room.link.as_ref().and_then(Link::ping_deadline),
            self.next_try.map(|(_, at)| at),
            self.media_by,
            self.closing
                .map(|by| by.min(now + Duration::from_millis(20))),
        ]
        .into_iter()
        .flatten()
        .fold(wake, Instant::min)
        .max(now + Duration::from_millis(1))
    }

    /// One round: voice and packets into the publisher, events out of both. `false`: nothing is left.
    fn poll(&mut self, now: Instant, wake: &mut Instant) -> Result<bool, String> {
        let Some(link) = &mut self.room.link else {
            return Ok(false);
        };
        let mut events = Vec::new();
        loop {
            match link
                .publisher
                .poll(now)
                .map_err(|error| error.to_string())?
            {
                Polled::Event(event) => events.push((true, event)),
                Polled::Until(at) => {
                    *wake = at.min(*wake);
                    break;
                }
            }
        }
        loop {
            match link
                .subscriber
                .poll(now)
                .map_err(|error| error.to_string())?
            {
                Polled::Event(event) => events.push((false, event)),
                Polled::Until(at) => {
                    *wake = at.min(*wake);
                    break;
                }
            }
        }
        if !link.publisher.rtc.is_alive() || !link.subscriber.rtc.is_alive() {
            return Err("the server closed the media connection".into());
        }
        let sent = match (link.publisher_up, link.offered) {
            (true, Some(offered)) => {
                // One at a time, for what it makes is to be taken before the next.
                self.room
                    .voice_out
                    .send_next(now, &mut link.publisher.rtc, Some(offered.voice))
                    || link.send_packet()
            }
            _ => false,
        };
        let more = sent || !events.is_empty();
        for (publisher, event) in events {
            self.happened(now, publisher, event);
        }
        Ok(more)
    }

    fn happened(&mut self, now: Instant, publisher: bool, event: Event) {
        let Some(link) = &mut self.room.link else {
            return;
        };
        match event {
            Event::Connected => link.media_is(publisher, true),
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                let was = if publisher {
                    link.publisher_up
                } else {
                    link.subscriber_up
                };
                link.media_is(publisher, false);
                if was {
                    self.lost(None, "no media comes through any more");
                }
            }
            Event::IceConnectionStateChange(state) if state.is_connected() => {
                let connected = match publisher {
                    true => link.publisher.rtc.is_connected(),
                    false => link.subscriber.rtc.is_connected(),
                };
                if connected {
                    link.media_is(publisher, true);
                }
            }
            Event::ChannelOpen(id, label) => {
                tracing::debug!(publisher, %label, "a data channel opened");
                link.channel_is(publisher, id, true);
            }
            Event::ChannelClose(id) => link.channel_is(publisher, id, false),
            Event::ChannelData(data) => {
                let received = self.room.inbox.receive(&data.data);
                // Only whom we hear is listened to.
                if let Some(received) = received
                    && Some(received.from.as_str()) == self.room.audience.identity()
                {
                    self.tell(RoomEvent::Message(received));
                }
            }
            Event::RtpPacket(packet) if !publisher => {
                let mid = link
                    .subscriber
                    .rtc
                    .direct_api()
                    .stream_rx(&packet.header.ssrc)
                    .map(|stream| stream.mid());
                let track = mid.and_then(|mid| link.track_of(mid));
                if track.is_some() && track == self.room.audience.microphone() {
                    self.room.voice_in.packet(now, packet);
                }
            }
            Event::MediaEgressStats(stats) if publisher => {
                if let Some(delay) = self.room.voice_out.reported(&stats) {
                    self.tell(RoomEvent::OutputDelay(delay));
                }
            }
            _ => {}
        }
    }
}

impl Link {
    fn media_is(&mut self, publisher: bool, up: bool) {
        tracing::debug!(publisher, up, "media");
        *(if publisher {
            &mut self.publisher_up
        } else {
            &mut self.subscriber_up
        }) = up;
    }

    fn channel_is(&mut self, publisher: bool, id: ChannelId, open: bool) {
        if publisher && self.offered.is_some_and(|offered| offered.reliable == id) {
            self.channel_open = open;
        }
    }
}
