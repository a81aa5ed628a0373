//! Packets as a network delivers them, made into a steady stream of 20 ms frames.
//!
//! The listener here is a recognizer, not an ear: what comes late is worth more than punctuality. So a network
//! that stalls makes the sound wait (up to [`JitterConfig::max_delay`]) rather than lose what comes after, and
//! the wait is made up for by taking out periods of the voice, or pauses. What is known to be lost, because
//! something later is there when it is due, is recovered from the copy in the next packet, else concealed.
//!
//! The delay that is kept is a quantile of how late packets were in the last seconds ([`crate::arrival`]). A
//! sender's clock that runs faster or slower than ours shows as a delay that grows or falls, and is met with the
//! same small steps. A pause of the sender (DTX) is a hole in the timestamps without one in the sequence.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use duologue_audio::opus::{OpusDecoder, OpusError};
use duologue_audio::{FRAME_SAMPLES, Frame};

use crate::RTP_CLOCK;
use crate::arrival::{Arrival, micros};
use crate::stretch;

/// Largest packet taken; Opus makes none of more than 1,275 bytes for 20 ms.
const MAX_PAYLOAD: usize = 1_500;
/// Opus' packets of no more bytes are DTX.
const DTX_PAYLOAD: usize = 2;
/// A hole that is longer is not filled: the sender has begun anew, or was away.
const MAX_HOLE: u64 = 2 * RTP_CLOCK;
/// The delay may be this much longer than wanted before it is shortened.
const SLACK_ABOVE_US: i64 = 15_000;
/// Packets are needed at the beginning of a frame, so a step may bring the next one's time forward by a frame, or
/// not at all. Only one that has so much time to spare may lose it, ...
const TO_SPARE_US: i64 = 22_000;
/// ... and one that lacks so much is given it. Between them must be more than a frame, or it would swing for ever.
const LACKING_US: i64 = 3_000;
/// A delay that is longer than wanted by more is shortened as fast as the sound allows.
const MUCH_US: i64 = 100_000;
/// What is made up for sound that is missing is heard for so many samples (100 ms), ...
const MADE_UP: u64 = 4_800;
/// ... and faded to silence in as many; what comes after is faded in over 5 ms.
const FADE_IN: usize = 240;
/// Otherwise one step in so much time.
const STEP_EVERY: Duration = Duration::from_millis(100);
/// How alike two periods must be to be made one: usually, and where there is much to make up for.
const ALIKE: (f32, f32) = (0.85, 0.5);
/// Share of lost packets from which it is worth waiting for the next one, which has the copy.
const WORTH_WAITING: f32 = 0.01;

/// An RTP packet with its numbers extended beyond their wrap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaPacket {
    /// Extended sequence number.
    pub sequence: u64,
    /// Extended timestamp, 48 kHz.
    pub timestamp: u64,
    /// One Opus packet.
    pub payload: Arc<[u8]>,
}

/// Bounds of a [`JitterBuffer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JitterConfig {
    /// Least delay that is kept, from a packet's punctual arrival to its playing.
    pub min_delay: Duration,
    /// Most; sound that stalls for longer is a pause.
    pub max_delay: Duration,
    /// Packets that are held; one more pushes the oldest out.
    pub max_packets: usize,
}

impl Default for JitterConfig {
    /// 10 to 500 ms, 100 packets: two seconds, at most 150 kB.
    fn default() -> Self {
        Self {
            min_delay: Duration::from_millis(10),
            max_delay: Duration::from_millis(500),
            max_packets: 100,
        }
    }
}

/// What a [`JitterBuffer`] met and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JitterStatistics {
    /// Packets taken, duplicates and late ones among them.
    pub received: u64,
    /// Packets that had come before.
    pub duplicates: u64,
    /// Packets that came after their place had been filled.
    pub late: u64,
    /// Packets that were pushed out because too many were held.
    pub overflowed: u64,
    /// Packets that were no Opus, or too large.
    pub damaged: u64,
    /// Packets whose place came and that were not there.
    pub lost: u64,
    /// Of those, recovered from the copy in the next packet.
    pub recovered: u64,
    /// Samples made up for lost packets.
    pub concealed: u64,
    /// Samples made up while nothing came; what came after was played later.
    pub stalled: u64,
    /// Samples of comfort noise in the sender's pauses.
    pub comfort: u64,
    /// Samples put in to lengthen the delay.
    pub inserted: u64,
    /// Samples taken out to shorten it.
    pub removed: u64,
    /// Times that the sender's clock or sequence jumped.
    pub resyncs: u64,
    /// Frames given.
    pub frames: u64,
    /// How much later than its packet's punctual arrival the last frame was played.
    pub delay: Duration,
    /// Delay that is aimed at.
    pub target: Duration,
    /// Interarrival jitter of RFC 3550.
    pub jitter: Duration,
}

/// Buffers one stream. Times are by the caller's clock, from any beginning.
pub struct JitterBuffer {
    config: JitterConfig,
    decoder: OpusDecoder,
    arrival: Arrival,
    packets: BTreeMap<u64, MediaPacket>,
    /// Decoded and not yet given.
    decoded: Vec<i16>,
    /// Timestamp after all that was decoded; `None` until the first packet is due.
    next: Option<u64>,
    last_sequence: Option<u64>,
    /// Samples of the last packet.
    last_length: u64,
    /// The sender has paused.
    paused: bool,
    /// Samples made up since the last that was sent.
    made_up: u64,
    last_step: Option<Duration>,
    /// Share of lost packets, of the last few hundred.
    loss: f32,
    statistics: JitterStatistics,
}

impl JitterBuffer {
    /// A buffer at the start of a stream.
    ///
    /// # Errors
    /// [`OpusError`]: there is no decoder.
    pub fn new(config: JitterConfig) -> Result<Self, OpusError> {
        Ok(Self {
            config,
            decoder: OpusDecoder::new()?,
            arrival: Arrival::new(),
            packets: BTreeMap::new(),
            decoded: Vec::with_capacity(4 * FRAME_SAMPLES),
            next: None,
            last_sequence: None,
            last_length: FRAME_SAMPLES as u64,
            paused: false,
            made_up: 0,
            last_step: None,
            loss: 0.0,
            statistics: JitterStatistics::default(),
        })
    }

    /// Takes a packet that came at that time.
    pub fn push(&mut self, at: Duration, packet: MediaPacket) {
        self.statistics.received += 1;
        if packet.payload.is_empty() || packet.payload.len() > MAX_PAYLOAD {
            self.statistics.damaged += 1;
            return;
        }
        if self.packets.contains_key(&packet.sequence)
            || self.last_sequence == Some(packet.sequence)
        {
            self.statistics.duplicates += 1;
            return;
        }
        if !self.arrival.note(at, packet.timestamp) {
            self.resync();
        }
        if self
            .last_sequence
            .is_some_and(|last| packet.sequence < last)
        {
            self.statistics.late += 1;
            return;
        }
        self.packets.insert(packet.sequence, packet);
        while self.packets.len() > self.config.max_packets {
            self.packets.pop_first();
            self.statistics.overflowed += 1;
        }
    }

    /// The next 20 ms. To be called every 20 ms; `None` until the first packet has come and waited its time.
    /// From then on there always is a frame, until the sender's clock jumps: then it is as at the beginning.
    pub fn pull(&mut self, at: Duration) -> Option<Frame> {
        let next = match self.next {
            Some(next) => next,
            None => {
                let first = self.packets.values().next()?.timestamp;
                if self.delay_us(at, first)? < self.target_us() {
                    return None;
                }
                self.next = Some(first);
                first
            }
        };
        self.adapt(at, next);
        self.statistics.delay = self.played_after(at);
        while self.decoded.len() < FRAME_SAMPLES {
            self.decode_more(at);
        }
        self.statistics.frames += 1;
        let mut frame = Frame::SILENCE;
        for (to, from) in frame.0.iter_mut().zip(self.decoded.drain(..FRAME_SAMPLES)) {
            *to = from;
        }
        Some(frame)
    }

    /// Another stream begins, with numbers of its own.
    pub fn restart(&mut self) {
        self.resync();
        self.arrival = Arrival::new();
    }

    /// What it met and did so far.
    #[must_use]
    pub fn statistics(&self) -> JitterStatistics {
        JitterStatistics {
            target: Duration::from_micros(self.target_us() as u64),
            jitter: self.arrival.jitter(),
            ..self.statistics
        }
    }

    fn played_after(&self, at: Duration) -> Duration {
        let delay = self.next.and_then(|next| self.delay_us(at, next));
        Duration::from_micros(delay.unwrap_or(0).max(0) as u64)
    }

    /// How much later than punctually the next sample would be played, were it played now.
    fn delay_us(&self, at: Duration, next: u64) -> Option<i64> {
        let first = micros(next) - micros(self.decoded.len() as u64);
        Some(at.as_micros() as i64 - self.arrival.base()? - first)
    }

    fn target_us(&self) -> i64 {
        let mut target = self.arrival.target().max(self.config.min_delay);
        if self.loss > WORTH_WAITING {
            target += Duration::from_micros(micros(self.last_length) as u64);
        }
        target.min(self.config.max_delay).as_micros() as i64
    }

    /// Takes a step towards the delay that is wanted, if it is time for one.
    fn adapt(&mut self, at: Duration, next: u64) {
        let Some(delay) = self.delay_us(at, next) else {
            return;
        };
        let excess = delay - self.target_us();
        // The next packet need not be there before what is decoded runs out.
        let rest = self.decoded.len() % FRAME_SAMPLES;
        let spare = excess - micros(rest as u64);
        let much = excess > MUCH_US;
        let rested = self
            .last_step
            .is_none_or(|last| at.saturating_sub(last) >= STEP_EVERY);
        if excess > SLACK_ABOVE_US && (rested || much) {
            while self.decoded.len() < stretch::ENOUGH && self.follows() {
                self.decode_more(at);
            }
            let alike = if much { ALIKE.1 } else { ALIKE.0 };
            let longest = if spare > TO_SPARE_US {
                usize::MAX
            } else {
                rest
            };
            let removed = stretch::shorten(&mut self.decoded, longest, alike);
            if removed > 0 {
                self.statistics.removed += removed as u64;
                self.last_step = Some(at);
            }
        } else if spare < -LACKING_US && rested {
            if self.decoded.len() < FRAME_SAMPLES && self.follows() {
                self.decode_more(at);
            }
            let inserted = stretch::lengthen(&mut self.decoded, ALIKE.0);
            if inserted > 0 {
                self.statistics.inserted += inserted as u64;
                self.last_step = Some(at);
            }
        }
    }

    /// Whether the packet that comes next is there.
    fn follows(&self) -> bool {
        self.packets
            .values()
            .next()
            .is_some_and(|packet| Some(packet.timestamp) <= self.next)
    }

    /// Decodes the next packet, or fills its place. Adds at least a sample.
    fn decode_more(&mut self, at: Duration) {
        let next = self.next.unwrap_or_default();
        let Some(packet) = self.packets.values().next() else {
            return self.wait_on(at, next);
        };
        if packet.timestamp > next.saturating_add(MAX_HOLE)
            || packet.timestamp.saturating_add(MAX_HOLE) < next
        {
            self.statistics.resyncs += 1;
            self.next = Some(packet.timestamp);
            return self.decode_first();
        }
        if packet.timestamp <= next {
            return self.decode_first();
        }
        let hole = packet.timestamp - next;
        let in_sequence = self
            .last_sequence
            .is_none_or(|last| packet.sequence == last + 1);
        let fill = if in_sequence {
            let behind = self.delay_us(at, next).unwrap_or(0) - self.target_us();
            let skip = (behind.max(0) as u64 * RTP_CLOCK / 1_000_000).min(hole);
            // The pause is where a delay can be made up for without a trace.
            if skip == hole {
                self.next = Some(packet.timestamp);
                return self.decode_first();
            }
            self.next = Some(next + skip);
            self.conceal(hole - skip, |statistics, samples| {
                statistics.comfort += samples
            })
        } else if hole <= self.last_length {
            self.recover(hole)
        } else {
            self.conceal(hole - self.last_length, |statistics, samples| {
                statistics.concealed += samples;
            })
        };
        if let Some(next) = &mut self.next {
            *next += fill;
        }
    }

    /// Decodes the packet that is held first.
    fn decode_first(&mut self) {
        let Some((_, packet)) = self.packets.pop_first() else {
            return;
        };
        if let Some(last) = self.last_sequence {
            let lost = packet.sequence.saturating_sub(last + 1);
            self.statistics.lost += lost;
            for _ in 0..lost.min(100) {
                self.loss += (1.0 - self.loss) / 256.0;
            }
        }
        self.loss -= self.loss / 256.0;
        self.last_sequence = Some(packet.sequence);
        self.paused = packet.payload.len() <= DTX_PAYLOAD;
        match self.decoder.decode(&packet.payload) {
            Ok(samples) => {
                self.last_length = samples.len() as u64;
                let begin = self.decoded.len();
                self.decoded.extend_from_slice(samples);
                if self.made_up > MADE_UP {
                    fade(&mut self.decoded[begin..], |n| n as f32 / FADE_IN as f32);
                }
                self.made_up = 0;
                self.next = Some(packet.timestamp + self.last_length);
            }
            Err(_) => {
                self.statistics.damaged += 1;
                let length = self.conceal(self.last_length, |statistics, samples| {
                    statistics.concealed += samples;
                });
                self.next = Some(packet.timestamp + length);
            }
        }
    }

    /// Nothing has come: a pause of the sender's, or a stall of the network's.
    fn wait_on(&mut self, at: Duration, next: u64) {
        let delay = self.delay_us(at, next).unwrap_or(0);
        let waits = !self.paused && delay < self.config.max_delay.as_micros() as i64;
        let paused = self.paused;
        let filled = self.conceal(self.last_length, |statistics, samples| {
            if paused {
                statistics.comfort += samples;
            } else {
                statistics.stalled += samples;
            }
        });
        if !waits {
            self.next = Some(next + filled);
        }
    }

    /// The lost packet's copy in the one that follows it; `samples` are needed.
    fn recover(&mut self, samples: u64) -> u64 {
        let copy = self
            .packets
            .values()
            .next()
            .and_then(|packet| self.decoder.recover(&packet.payload).ok());
        match copy {
            Some(copy) => {
                let length = copy.len().min(samples as usize);
                self.decoded.extend_from_slice(&copy[..length]);
                self.statistics.recovered += 1;
                length as u64
            }
            None => self.conceal(samples, |statistics, samples| {
                statistics.concealed += samples
            }),
        }
    }

    /// At most `most` samples that the decoder makes up; at least one. Gives how many.
    fn conceal(&mut self, most: u64, count: impl FnOnce(&mut JitterStatistics, u64)) -> u64 {
        let most = most.clamp(1, FRAME_SAMPLES as u64 * 6) as usize;
        let begin = self.decoded.len();
        let length = match self.decoder.conceal() {
            Ok(samples) if !samples.is_empty() => {
                let length = samples.len().min(most);
                self.decoded.extend_from_slice(&samples[..length]);
                length
            }
            _ => {
                let length = most.min(FRAME_SAMPLES);
                self.decoded.resize(self.decoded.len() + length, 0);
                length
            }
        };
        // A pause has the sender's own background, which stays; else it is silence after a while.
        if !self.paused {
            let before = self.made_up;
            fade(&mut self.decoded[begin..], |n| {
                2.0 - (before + n as u64) as f32 / MADE_UP as f32
            });
            self.made_up += length as u64;
        }
        count(&mut self.statistics, length as u64);
        length as u64
    }

    fn resync(&mut self) {
        self.statistics.resyncs += 1;
        self.packets.clear();
        self.last_sequence = None;
        // The next packet is where the sound goes on.
        self.next = None;
        self.decoded.clear();
    }
}

fn fade(samples: &mut [i16], gain: impl Fn(usize) -> f32) {
    for (n, sample) in samples.iter_mut().enumerate() {
        *sample = (f32::from(*sample) * gain(n).clamp(0.0, 1.0)) as i16;
    }
}
