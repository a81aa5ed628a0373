//! Opus as voices are sent with it: 48 kHz mono, a packet for every
//! [`Frame`].
//!
//! RFC 6716. Loss is met twice: forward error correction puts a coarse copy of
//! a packet into the next one, and what stays lost is concealed.

use crate::{FRAME_SAMPLES, Frame, SAMPLE_RATE};

/// Longest packet that Opus allows: 120 ms.
const MAX_PACKET_SAMPLES: usize = 5760;
/// More than any 20 ms mono packet needs (RFC 6716: 1275 bytes a frame).
const MAX_PACKET_BYTES: usize = 1500;

/// What the codec refused.
#[derive(Debug, thiserror::Error)]
pub enum OpusError {
    /// The options are out of range.
    #[error("Opus does not take these options (bitrate {bitrate} bit/s, complexity {complexity})")]
    Options {
        /// Bits a second asked for.
        bitrate: u32,
        /// Complexity asked for.
        complexity: u8,
    },
    /// A frame could not be encoded.
    #[error("Opus could not encode a frame: {0}")]
    Encode(String),
    /// A packet is not Opus, or is damaged.
    #[error("not a valid Opus packet: {0}")]
    Packet(String),
}

/// How speech is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusOptions {
    /// Bits a second, 6000 to 510000. Speech is good from 24000.
    pub bitrate: u32,
    /// 0 (cheapest) to 10 (best).
    pub complexity: u8,
    /// Put a coarse copy of each frame into the next packet.
    pub fec: bool,
    /// Percentage of packets expected to be lost, 0 to 100; how much is spent
    /// on `fec`.
    pub expected_loss: u8,
    /// Send next to nothing in silence.
    pub dtx: bool,
}

impl Default for OpusOptions {
    /// 32 kbit/s, complexity 5, error correction for 10% loss, no DTX.
    fn default() -> OpusOptions {
        OpusOptions {
            bitrate: 32_000,
            complexity: 5,
            fec: true,
            expected_loss: 10,
            dtx: false,
        }
    }
}

/// Encodes frames, one packet each.
pub struct OpusEncoder {
    inner: ropus::Encoder,
    packet: [u8; MAX_PACKET_BYTES],
}

impl OpusEncoder {
    /// An encoder for speech.
    pub fn new(options: OpusOptions) -> Result<OpusEncoder, OpusError> {
        let refused = OpusError::Options {
            bitrate: options.bitrate,
            complexity: options.complexity,
        };
        if !(6_000..=510_000).contains(&options.bitrate) {
            return Err(refused);
        }
        let fec = match options.fec {
            true => ropus::InbandFec::Enabled,
            false => ropus::InbandFec::Disabled,
        };
        ropus::Encoder::builder(SAMPLE_RATE, ropus::Channels::Mono, ropus::Application::Voip)
            .bitrate(ropus::Bitrate::Bits(options.bitrate))
            .complexity(options.complexity)
            .signal(ropus::Signal::Voice)
            .inband_fec(fec)
            .packet_loss_perc(options.expected_loss.min(100))
            .dtx(options.dtx)
            .build()
            .map(|inner| OpusEncoder {
                inner,
                packet: [0; MAX_PACKET_BYTES],
            })
            .map_err(|_| refused)
    }

    /// The packet of a frame. With DTX, a packet of one or two bytes need not
    /// be sent.
    pub fn encode(&mut self, frame: &Frame) -> Result<Vec<u8>, OpusError> {
        let length = self
            .inner
            .encode(&frame.0, &mut self.packet)
            .map_err(|error| OpusError::Encode(error.to_string()))?;
        Ok(self.packet[..length].to_vec())
    }

    /// Spends on error correction what this percentage of lost packets needs,
    /// 0 to 100, from the next frame on.
    pub fn set_expected_loss(&mut self, percent: u8) -> Result<(), OpusError> {
        self.inner
            .set_packet_loss_perc(percent.min(100))
            .map_err(|error| OpusError::Encode(error.to_string()))
    }

    /// Samples at 48 kHz that the decoder's output lags the encoder's input:
    /// the pre-skip of RFC 7845.
    pub fn lookahead(&self) -> u32 {
        self.inner.lookahead()
    }
}

/// Decodes a stream of packets to 48 kHz mono; a stereo packet comes out mixed.
pub struct OpusDecoder {
    inner: ropus::Decoder,
    samples: Box<[i16; MAX_PACKET_SAMPLES]>,
    /// Samples of the last packet, the length of one that is lost after it.
    last: usize,
}

impl OpusDecoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Result<OpusDecoder, OpusError> {
        let inner = ropus::Decoder::new(SAMPLE_RATE, ropus::Channels::Mono)
            .map_err(|error| OpusError::Packet(error.to_string()))?;
        Ok(OpusDecoder {
            inner,
            samples: Box::new([0; MAX_PACKET_SAMPLES]),
            last: FRAME_SAMPLES,
        })
    }

    /// The samples of a packet, 2.5 to 120 ms of them.
    pub fn decode(&mut self, packet: &[u8]) -> Result<&[i16], OpusError> {
        if packet.is_empty() {
            return Err(OpusError::Packet("it is empty".to_owned()));
        }
        self.run(packet, MAX_PACKET_SAMPLES, ropus::DecodeMode::Normal)
    }

    /// The packet lost just before `next`, from the copy that `next` may carry;
    /// concealed where it carries none. Decode `next` itself afterwards.
    pub fn recover(&mut self, next: &[u8]) -> Result<&[i16], OpusError> {
        self.run(next, self.last, ropus::DecodeMode::Fec)
    }

    /// Something plausible in place of a lost packet, as long as the last one.
    pub fn conceal(&mut self) -> Result<&[i16], OpusError> {
        self.run(&[], self.last, ropus::DecodeMode::Normal)
    }

    fn run(
        &mut self,
        packet: &[u8],
        room: usize,
        mode: ropus::DecodeMode,
    ) -> Result<&[i16], OpusError> {
        let count = self
            .inner
            .decode(packet, &mut self.samples[..room], mode)
            .map_err(|error| OpusError::Packet(error.to_string()))?;
        self.last = count;
        Ok(&self.samples[..count])
    }
}
