//! The two voices of a connection: the user's, out of str0m's packets, and ours, into them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use duologue_audio::Frame;
use duologue_audio::opus::{OpusError, OpusOptions};
use str0m::Rtc;
use str0m::media::Mid;
use str0m::rtp::{RtpPacket, RtpWrite, Ssrc};
use str0m::stats::MediaEgressStats;

use crate::arrival::micros;
use crate::{JitterBuffer, JitterConfig, JitterStatistics, MediaPacket, OutputDelay, VoiceTrack};

/// Frames that wait for their time; more are dropped. Half a second.
const MAX_FRAMES: usize = 25;
/// A pull that is so late means that this machine stood still: what was missed is not made up for.
const STOOD_STILL: Duration = Duration::from_millis(500);
const FRAME: Duration = Duration::from_millis(20);

/// The user's voice: 20 ms frames, in step with our clock.
pub struct VoiceIn {
    started: Instant,
    jitter: JitterBuffer,
    heard: Option<Ssrc>,
    next_pull: Option<Instant>,
}

impl VoiceIn {
    /// Silence since `started`, from which its clock runs.
    ///
    /// # Errors
    /// [`OpusError`]: there is no decoder.
    pub fn new(started: Instant) -> Result<Self, OpusError> {
        Ok(Self {
            started,
            jitter: JitterBuffer::new(JitterConfig::default())?,
            heard: None,
            next_pull: None,
        })
    }

    /// Takes a packet.
    pub fn packet(&mut self, now: Instant, packet: RtpPacket) {
        if packet.payload.is_empty() {
            return;
        }
        if self.heard != Some(packet.header.ssrc) {
            if self.heard.is_some() {
                self.jitter.restart();
            }
            self.heard = Some(packet.header.ssrc);
        }
        let at = packet.timestamp.saturating_duration_since(self.started);
        self.jitter.push(
            at,
            MediaPacket {
                sequence: *packet.seq_no,
                timestamp: packet.time.numer(),
                payload: packet.payload,
            },
        );
        // In step with the packets, so that one that is punctual waits no longer than it has to.
        self.next_pull
            .get_or_insert(now + JitterConfig::default().min_delay);
    }

    /// The frames that are due.
    pub fn due(&mut self, now: Instant) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(at) = self.next_pull.filter(|at| *at <= now) {
            let late = now.saturating_duration_since(at);
            self.next_pull = Some(if late > STOOD_STILL { now } else { at } + FRAME);
            frames.extend(
                self.jitter
                    .pull(now.saturating_duration_since(self.started)),
            );
        }
        frames
    }

    /// When the next frame is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.next_pull
    }

    /// Another stream follows: of another track, or of another connection.
    pub fn restart(&mut self) {
        if self.heard.take().is_some() {
            self.jitter.restart();
        }
    }

    /// What its packets went through.
    #[must_use]
    pub fn statistics(&self) -> JitterStatistics {
        self.jitter.statistics()
    }
}

/// Our voice: frames wait for their time, and packets keep the stream alive while nothing is said.
pub struct VoiceOut {
    started: Instant,
    track: VoiceTrack,
    frames: VecDeque<Frame>,
    sequence: u64,
    timestamp_base: u32,
    delay: OutputDelay,
    told_delay: Duration,
}

impl VoiceOut {
    /// Silence since `started`, from which its clock runs.
    ///
    /// # Errors
    /// [`OpusError`]: there is no encoder.
    pub fn new(started: Instant) -> Result<Self, OpusError> {
        Ok(Self {
            started,
            track: VoiceTrack::new(OpusOptions::default())?,
            frames: VecDeque::new(),
            sequence: u64::from(rand::random::<u16>() >> 1),
            timestamp_base: rand::random(),
            delay: OutputDelay::default(),
            told_delay: Duration::ZERO,
        })
    }

    /// Says a frame: at once, or 20 ms after the last. With half a second waiting it is dropped.
    pub fn say(&mut self, frame: Frame) {
        if self.frames.len() < MAX_FRAMES {
            self.frames.push_back(frame);
        }
    }

    /// Drops the frames that wait for their time.
    pub fn flush(&mut self) {
        self.frames.clear();
    }

    /// Gives `rtc` one packet that is due, on the media line `voice`; without one it is dropped. `false`: none is
    /// due.
    pub fn send_next(&mut self, now: Instant, rtc: &mut Rtc, voice: Option<Mid>) -> bool {
        let at = now.saturating_duration_since(self.started);
        let packet = match self.frames.front() {
            Some(frame) if self.track.ready_at() <= at => {
                let packet = self.track.say(at, frame).map(Some);
                self.frames.pop_front();
                packet
            }
            Some(_) => return false,
            None => self.track.rest(at),
        };
        let packet = match packet {
            Ok(Some(packet)) => packet,
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(%error, "a frame was not encoded");
                return true;
            }
        };
        let Some((mid, pt)) =
            voice.and_then(|mid| Some((mid, rtc.media(mid)?.remote_pts().first().copied()?)))
        else {
            return true;
        };
        let mut api = rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(mid, None) else {
            return true;
        };
        let timestamp = self.timestamp_base.wrapping_add(packet.timestamp as u32);
        let write = RtpWrite::new(pt, self.sequence.into(), timestamp, now, packet.payload)
            .marker(packet.marker);
        stream.write_rtp(write);
        self.sequence += 1;
        true
    }

    /// When the next packet is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let at = match self.frames.is_empty() {
            true => self.track.deadline()?,
            false => self.track.ready_at(),
        };
        Some(self.started + at)
    }

    /// What the other side reported of our voice; gives the delay to the listener's ear where it is another than was
    /// told last.
    pub fn reported(&mut self, stats: &MediaEgressStats) -> Option<Duration> {
        if let Some(loss) = stats.loss
            && let Err(error) = self.track.report_loss(loss)
        {
            tracing::warn!(%error, "error correction was not set");
        }
        if let Some(remote) = &stats.remote {
            let jitter = Duration::from_micros(micros(remote.jitter.into()) as u64);
            self.delay.report(stats.rtt, jitter);
        }
        let delay = self.delay.estimate();
        let changed = delay.abs_diff(self.told_delay) > Duration::from_millis(10);
        changed.then(|| {
            self.told_delay = delay;
            delay
        })
    }
}
