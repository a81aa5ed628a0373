//! A reply's frames as Opus packets of one RTP stream.
//!
//! Frames are paced by whoever calls; here each becomes a packet at once. The RTP clock is the wall's: it goes on
//! through silence, so that a receiver takes a pause for a pause (RFC 7587, section 4.2). When frames stop, the
//! last sample is faded out and some packets of silence follow, so that what a receiver makes up in their stead
//! is silence and not the last vowel; then a packet of one byte every 400 ms (Opus' DTX) keeps the stream alive.

use std::time::Duration;

use duologue_audio::opus::{OpusEncoder, OpusError, OpusOptions};
use duologue_audio::{FRAME_SAMPLES, Frame, SAMPLE_RATE};

use crate::RTP_CLOCK;

/// A frame's length.
const FRAME: Duration = Duration::from_millis(20);
/// A frame that is late by so much leaves a gap.
const PATIENCE: Duration = Duration::from_millis(15);
/// Packets of silence after the last frame.
const TAIL: u32 = 8;
/// Time between two packets while nothing is said.
const KEEP_ALIVE: Duration = Duration::from_millis(400);
/// Samples over which a sound that is cut off fades: 5 ms.
const FADE: usize = 240;
/// Most that error correction is set for.
const MOST_LOSS: f32 = 30.0;

/// A packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackPacket {
    /// RTP timestamp at 48 kHz, from 0 at the track's start, extended; the lower 32 bits are sent.
    pub timestamp: u64,
    /// First packet after a pause (RFC 3551, section 4.1).
    pub marker: bool,
    /// One Opus packet of 20 ms.
    pub payload: Vec<u8>,
}

/// Encodes one voice. Times are since the track's start, by one clock.
pub struct VoiceTrack {
    encoder: OpusEncoder,
    /// Timestamp of the next packet that follows the last without a pause.
    next: u64,
    /// When it is due.
    due: Duration,
    /// Packets since the last frame; `None`: nothing was ever said.
    silent: Option<u32>,
    last_sample: i16,
    /// First byte of the last packet, which tells a decoder its mode.
    toc: u8,
    loss_percent: f32,
    bytes: u64,
}

impl VoiceTrack {
    /// A track at the start of its stream. Error correction is set for 5% loss until a report says otherwise.
    ///
    /// # Errors
    /// [`OpusError`]: the options are out of range.
    pub fn new(options: OpusOptions) -> Result<Self, OpusError> {
        let loss_percent = 5.0;
        Ok(Self {
            encoder: OpusEncoder::new(OpusOptions {
                fec: true,
                expected_loss: loss_percent as u8,
                dtx: false,
                ..options
            })?,
            next: 0,
            due: Duration::ZERO,
            silent: None,
            last_sample: 0,
            toc: 0,
            loss_percent,
            bytes: 0,
        })
    }

    /// The packet of a frame that is said now.
    ///
    /// # Errors
    /// [`OpusError::Encode`].
    pub fn say(&mut self, at: Duration, frame: &Frame) -> Result<TrackPacket, OpusError> {
        let marker = self.silent != Some(0);
        if marker {
            // The clock went on while nothing was said, in whole frames.
            let now = at.as_micros() as u64 * RTP_CLOCK / 1_000_000;
            self.next = self.next.max(now - now % FRAME_SAMPLES as u64);
            self.due = at;
        }
        self.silent = Some(0);
        self.last_sample = frame.0[FRAME_SAMPLES - 1];
        self.packet(frame, marker)
    }

    /// When the next frame may be said: 20 ms after the last, at once after a pause.
    #[must_use]
    pub fn ready_at(&self) -> Duration {
        match self.silent {
            Some(0) => self.due,
            _ => Duration::ZERO,
        }
    }

    /// When [`rest`](Self::rest) has something to send, unless a frame is said before.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        Some(match self.silent? {
            0 => self.due + PATIENCE,
            packets if packets <= TAIL => self.due,
            _ => self.due + KEEP_ALIVE - FRAME,
        })
    }

    /// The packet that is due where nothing is said.
    ///
    /// # Errors
    /// [`OpusError::Encode`].
    pub fn rest(&mut self, at: Duration) -> Result<Option<TrackPacket>, OpusError> {
        let Some(packets) = self.silent.filter(|_| self.deadline() <= Some(at)) else {
            return Ok(None);
        };
        self.silent = Some(packets.saturating_add(1));
        if packets < TAIL {
            let mut frame = Frame::SILENCE;
            if packets == 0 {
                for (n, sample) in frame.0[..FADE].iter_mut().enumerate() {
                    *sample =
                        (i32::from(self.last_sample) * (FADE - n) as i32 / FADE as i32) as i16;
                }
            }
            return self.packet(&frame, false).map(Some);
        }
        if packets > TAIL {
            self.next += (KEEP_ALIVE - FRAME).as_millis() as u64 * RTP_CLOCK / 1_000;
            self.due += KEEP_ALIVE - FRAME;
        }
        let payload = vec![self.toc];
        Ok(Some(self.stamped(payload, false)))
    }

    /// A receiver reported this share of lost packets, 0 to 1: error correction is set for it.
    ///
    /// # Errors
    /// [`OpusError::Encode`].
    pub fn report_loss(&mut self, fraction: f32) -> Result<(), OpusError> {
        let percent = (fraction * 100.0).clamp(0.0, MOST_LOSS);
        // Up at once, down slowly: loss comes in bursts.
        self.loss_percent = percent.max(self.loss_percent * 0.7 + percent * 0.3);
        self.encoder
            .set_expected_loss(self.loss_percent.round() as u8)
    }

    /// Loss that error correction is set for, percent.
    #[must_use]
    pub fn expected_loss(&self) -> u8 {
        self.loss_percent.round() as u8
    }

    /// Bytes of payload so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn packet(&mut self, frame: &Frame, marker: bool) -> Result<TrackPacket, OpusError> {
        let payload = self.encoder.encode(frame)?;
        self.toc = payload.first().copied().unwrap_or(self.toc);
        Ok(self.stamped(payload, marker))
    }

    fn stamped(&mut self, payload: Vec<u8>, marker: bool) -> TrackPacket {
        let timestamp = self.next;
        self.next += FRAME_SAMPLES as u64;
        self.due += FRAME;
        self.bytes += payload.len() as u64;
        TrackPacket {
            timestamp,
            marker,
            payload,
        }
    }
}

const _: () = assert!(SAMPLE_RATE as u64 == RTP_CLOCK);
