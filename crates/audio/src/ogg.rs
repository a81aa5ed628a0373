//! Ogg Opus as a stream: speech for HTTP clients, playable while it comes.
//!
//! RFC 3533 (pages), RFC 7845 (Opus in them). Every packet gets a page of its
//! own, so that a frame can be heard as soon as it is made; it costs 28 bytes a
//! frame.

use crate::opus::{OpusEncoder, OpusError, OpusOptions};
use crate::{FRAME_SAMPLES, Frame};

const FIRST_PAGE: u8 = 2;
const LAST_PAGE: u8 = 4;

/// Encodes frames into an Ogg Opus stream.
pub struct OggOpusStream {
    encoder: OpusEncoder,
    serial: u32,
    page: u32,
    pre_skip: u16,
    /// Samples given.
    pushed: u64,
    /// Samples in the packets so far, the pre-skip included.
    encoded: u64,
    /// The last packet, held back because only the last page is marked so.
    held: Option<Vec<u8>>,
    started: bool,
}

impl OggOpusStream {
    /// A stream. `serial` tells it from others that are joined to it; any
    /// number will do.
    pub fn new(options: OpusOptions, serial: u32) -> Result<OggOpusStream, OpusError> {
        let encoder = OpusEncoder::new(options)?;
        let pre_skip = encoder.lookahead() as u16;
        Ok(OggOpusStream {
            encoder,
            serial,
            page: 0,
            pre_skip,
            pushed: 0,
            encoded: 0,
            held: None,
            started: false,
        })
    }

    /// The bytes to send for a frame; the first brings the headers. They hold
    /// the frame before this one: a player is never more than 20 ms behind.
    pub fn push(&mut self, frame: &Frame) -> Result<Vec<u8>, OpusError> {
        let mut bytes = Vec::with_capacity(256);
        self.start(&mut bytes);
        self.pushed += FRAME_SAMPLES as u64;
        self.encode(frame, &mut bytes)?;
        Ok(bytes)
    }

    /// The last bytes. They tell the exact length, so that nothing of the
    /// codec's delay is heard.
    pub fn finish(mut self) -> Result<Vec<u8>, OpusError> {
        let mut bytes = Vec::new();
        self.start(&mut bytes);
        let end = self.pushed + u64::from(self.pre_skip);
        while self.encoded < end || self.held.is_none() {
            self.encode(&Frame::SILENCE, &mut bytes)?;
        }
        let last = self.held.take().unwrap_or_default();
        self.write_page(&last, end, LAST_PAGE, &mut bytes);
        Ok(bytes)
    }

    fn start(&mut self, bytes: &mut Vec<u8>) {
        if self.started {
            return;
        }
        self.started = true;
        let mut head = Vec::from(*b"OpusHead");
        head.extend([1, 1]); // version, channels
        head.extend(self.pre_skip.to_le_bytes());
        head.extend(48_000u32.to_le_bytes()); // rate of the input
        head.extend([0, 0, 0]); // gain, channel mapping
        self.write_page(&head, 0, FIRST_PAGE, bytes);
        let vendor = b"Duologue";
        let mut tags = Vec::from(*b"OpusTags");
        tags.extend((vendor.len() as u32).to_le_bytes());
        tags.extend(vendor);
        tags.extend(0u32.to_le_bytes());
        self.write_page(&tags, 0, 0, bytes);
    }

    fn encode(&mut self, frame: &Frame, bytes: &mut Vec<u8>) -> Result<(), OpusError> {
        let packet = self.encoder.encode(frame)?;
        if let Some(held) = self.held.replace(packet) {
            self.write_page(&held, self.encoded, 0, bytes);
        }
        self.encoded += FRAME_SAMPLES as u64;
        Ok(())
    }

    fn write_page(&mut self, packet: &[u8], granule: u64, flags: u8, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.extend(b"OggS");
        bytes.extend([0, flags]);
        bytes.extend(granule.to_le_bytes());
        bytes.extend(self.serial.to_le_bytes());
        bytes.extend(self.page.to_le_bytes());
        bytes.extend([0; 4]); // checksum, below
        // A packet's length in steps of 255; fewer than 255 ends it.
        bytes.push((packet.len() / 255 + 1) as u8);
        bytes.extend(std::iter::repeat_n(255, packet.len() / 255));
        bytes.push((packet.len() % 255) as u8);
        bytes.extend(packet);
        let checksum = crc(&bytes[start..]);
        bytes[start + 22..start + 26].copy_from_slice(&checksum.to_le_bytes());
        self.page += 1;
    }
}

/// Ogg's checksum: CRC-32 with polynomial 0x04c11db7, not reflected, from zero.
fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| match crc >> 31 {
            1 => crc << 1 ^ 0x04c1_1db7,
            _ => crc << 1,
        })
    })
}
