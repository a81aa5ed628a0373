//! Sound files of others, as mono samples.
//!
//! WAV, FLAC, MP3, Ogg Vorbis and Ogg Opus. What a file claims about its length
//! is believed only to tell that it was cut short: memory grows with the sound
//! that is really there, up to [`MAX_SECONDS`]. That is a lot: a few kB of FLAC
//! are hours of silence. What strangers send is held to less with
//! [`decode_bytes_within`].

use std::fs::File;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use crate::SAMPLE_RATE;
use crate::resample::{ResampleError, resample};

/// Longest recording that is decoded: 4 hours.
pub const MAX_SECONDS: u32 = 4 * 3600;

/// Why a file could not be turned into sound.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no sound in it.
    #[error("the file holds no sound: it is empty, or has only a header")]
    Empty,
    /// It is in no known format.
    #[error("not a sound file that can be read: give WAV, FLAC, MP3, Ogg Vorbis or Ogg Opus")]
    Unrecognised,
    /// The container is known but what is in it is not.
    #[error("the sound is encoded in a way that is not supported ({0}): convert it to WAV or FLAC")]
    Unsupported(String),
    /// It ends before it should.
    #[error(
        "the file is cut short: it should last {declared:.1} s but ends after {decoded:.1} s. \
         Copy or record it again"
    )]
    Truncated {
        /// Seconds that the header promises.
        declared: f64,
        /// Seconds that are there.
        decoded: f64,
    },
    /// It is damaged.
    #[error("the file is damaged after {seconds:.1} s of sound: {reason}")]
    Damaged {
        /// Seconds decoded before the damage.
        seconds: f64,
        /// What was found.
        reason: String,
    },
    /// It lasts longer than is taken, or has more samples than so much sound at
    /// 48 kHz.
    #[error(
        "the sound lasts more than {} minutes, or has too many samples a second: cut it into \
         shorter files, or take a lower sample rate",
        seconds / 60
    )]
    TooLong {
        /// What is taken.
        seconds: u32,
    },
}

/// Decoded mono sound.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// Samples, nominally in -1.0..=1.0: the mean of the channels.
    pub samples: Vec<f32>,
    /// Samples a second.
    pub sample_rate: u32,
}

impl Recording {
    /// Its duration.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.sample_rate)
    }

    /// The same sound at another rate in Hz.
    pub fn at_rate(self, rate: u32) -> Result<Recording, ResampleError> {
        if rate == self.sample_rate {
            return Ok(self);
        }
        Ok(Recording {
            samples: resample(&self.samples, self.sample_rate, rate)?,
            sample_rate: rate,
        })
    }
}

/// Decodes a file on disk. Blocks while it reads.
pub fn decode_file(path: &Path) -> Result<Recording, DecodeError> {
    let opened = |source| DecodeError::Open {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(opened)?;
    let metadata = file.metadata().map_err(opened)?;
    if metadata.is_dir() {
        return Err(opened(io::ErrorKind::IsADirectory.into()));
    }
    if metadata.len() == 0 {
        return Err(DecodeError::Empty);
    }
    decode(Box::new(file), MAX_SECONDS)
}

/// Decodes a file in memory.
pub fn decode_bytes(bytes: Vec<u8>) -> Result<Recording, DecodeError> {
    decode_bytes_within(bytes, MAX_SECONDS)
}

/// Decodes a file in memory that has at most so many seconds of sound, and as
/// many samples as those have at 48 kHz: 192 kB a second.
pub fn decode_bytes_within(bytes: Vec<u8>, seconds: u32) -> Result<Recording, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    decode(Box::new(Cursor::new(bytes)), seconds)
}

fn decode(source: Box<dyn MediaSource>, longest: u32) -> Result<Recording, DecodeError> {
    let stream = MediaSourceStream::new(source, Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(
            &Hint::new(),
            stream,
            FormatOptions::default(),
            MetadataOptions::default(),
        )
        .map_err(|error| match error {
            SymphoniaError::Unsupported(what) if what.contains("codec") => {
                DecodeError::Unsupported(what.to_owned())
            }
            _ => DecodeError::Unrecognised,
        })?;
    let track = format
        .default_track(TrackType::Audio)
        .ok_or(DecodeError::Unrecognised)?;
    let (id, declared) = (track.id, track.num_frames);
    let params = track
        .codec_params
        .as_ref()
        .and_then(|params| params.audio())
        .ok_or(DecodeError::Unrecognised)?
        .clone();
    let mut codec = Codec::new(&params)?;
    let mut samples = Vec::new();
    let mut rate = params.sample_rate.unwrap_or(0);
    let seconds = |samples: &Vec<f32>, rate: u32| samples.len() as f64 / f64::from(rate.max(1));
    loop {
        let packet = match next_packet(&mut *format) {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            Err(reason) => {
                return Err(DecodeError::Damaged {
                    seconds: seconds(&samples, rate),
                    reason,
                });
            }
        };
        if packet.track_id != id {
            continue;
        }
        rate = match codec.decode(&packet, &mut samples) {
            Ok(packet_rate) => packet_rate,
            Err(reason) => {
                return Err(DecodeError::Damaged {
                    seconds: seconds(&samples, rate),
                    reason,
                });
            }
        };
        // A file at a rate that nothing needs is no longer for it.
        let most = u64::from(longest) * u64::from(rate.min(SAMPLE_RATE));
        if samples.len() as u64 > most {
            return Err(DecodeError::TooLong { seconds: longest });
        }
    }
    if let Some(declared) = declared.filter(|&frames| !is_unknown_length(frames, &params)) {
        // A codec's last block may be a little short of what is declared.
        if declared > samples.len() as u64 + u64::from(rate / 10) {
            return Err(DecodeError::Truncated {
                declared: declared as f64 / f64::from(rate.max(1)),
                decoded: seconds(&samples, rate),
            });
        }
    }
    if samples.is_empty() || rate == 0 {
        return Err(DecodeError::Empty);
    }
    Ok(Recording {
        samples,
        sample_rate: rate,
    })
}

/// The next packet; `None` at the end, also one that comes too early.
fn next_packet(format: &mut dyn FormatReader) -> Result<Option<Packet>, String> {
    match format.next_packet() {
        Ok(packet) => Ok(packet),
        Err(SymphoniaError::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(None)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a header's length is a writer's way to say that it did not know:
/// streams write a data size of (nearly) 2 or 4 GiB.
fn is_unknown_length(frames: u64, params: &AudioCodecParameters) -> bool {
    let channels = params.channels.as_ref().map_or(1, |c| c.count() as u64);
    let bytes = u64::from(params.bits_per_sample.unwrap_or(16)).div_ceil(8);
    frames.saturating_mul(channels * bytes) >= 0x7fff_0000
}

/// Symphonia's decoders, and Opus, which it can only take out of its container.
enum Codec {
    Symphonia {
        decoder: Box<dyn AudioDecoder>,
        interleaved: Vec<f32>,
    },
    Opus {
        decoder: Box<ropus::Decoder>,
        channels: usize,
        block: Vec<f32>,
        /// Frames still to leave out at the start (RFC 7845, pre-skip).
        skip: usize,
    },
}

impl Codec {
    fn new(params: &AudioCodecParameters) -> Result<Codec, DecodeError> {
        if params.codec != CODEC_ID_OPUS {
            let decoder = symphonia::default::get_codecs()
                .make_audio_decoder(params, &AudioDecoderOptions::default())
                .map_err(|error| DecodeError::Unsupported(error.to_string()))?;
            return Ok(Codec::Symphonia {
                decoder,
                interleaved: Vec::new(),
            });
        }
        let (layout, channels) = match params.channels.as_ref().map(|c| c.count()) {
            Some(1) => (ropus::Channels::Mono, 1),
            Some(2) => (ropus::Channels::Stereo, 2),
            other => {
                let what = format!("Opus with {} channels", other.unwrap_or(0));
                return Err(DecodeError::Unsupported(what));
            }
        };
        let mut decoder = ropus::Decoder::new(48_000, layout)
            .map_err(|error| DecodeError::Unsupported(error.to_string()))?;
        // The identification header: "OpusHead", version, channels, then these.
        let head = params.extra_data.as_deref().unwrap_or_default();
        let field = |at: usize| match head.get(at..at + 2) {
            Some(&[low, high]) => u16::from_le_bytes([low, high]),
            _ => 0,
        };
        decoder
            .set_gain(i32::from(field(16) as i16))
            .map_err(|error| DecodeError::Unsupported(error.to_string()))?;
        let block = vec![0.0; decoder.max_frame_samples_per_channel() * channels];
        Ok(Codec::Opus {
            decoder: Box::new(decoder),
            channels,
            block,
            skip: usize::from(field(10)),
        })
    }

    /// Appends a packet's sound as mono; its rate.
    fn decode(&mut self, packet: &Packet, samples: &mut Vec<f32>) -> Result<u32, String> {
        match self {
            Codec::Symphonia {
                decoder,
                interleaved,
            } => {
                let audio = match decoder.decode(packet) {
                    Ok(audio) => audio,
                    Err(error) => return Err(error.to_string()),
                };
                interleaved.resize(audio.samples_interleaved(), 0.0);
                audio.copy_to_slice_interleaved(&mut interleaved[..]);
                let rate = audio.spec().rate();
                downmix(interleaved, audio.spec().channels().count(), samples);
                Ok(rate)
            }
            Codec::Opus {
                decoder,
                channels,
                block,
                skip,
            } => {
                let count = decoder
                    .decode_float(&packet.data, block, ropus::DecodeMode::Normal)
                    .map_err(|error| error.to_string())?;
                let end = count.saturating_sub(packet.trim_end.get() as usize);
                let start = (*skip).min(end);
                *skip -= start;
                downmix(
                    &block[start * *channels..end * *channels],
                    *channels,
                    samples,
                );
                Ok(48_000)
            }
        }
    }
}

/// Samples beyond are no sound: 24 dB over full scale, which float files may have.
const LOUDEST: f32 = 16.0;

/// A sample as it may be counted with: float files hold whatever they like.
fn sane(sample: f32) -> f32 {
    if sample.is_finite() {
        sample.clamp(-LOUDEST, LOUDEST)
    } else {
        0.0
    }
}

/// Appends the mean of the channels.
fn downmix(interleaved: &[f32], channels: usize, mono: &mut Vec<f32>) {
    match channels {
        1 => mono.extend(interleaved.iter().copied().map(sane)),
        0 => {}
        _ => mono.extend(
            interleaved
                .chunks_exact(channels)
                .map(|frame| frame.iter().copied().map(sane).sum::<f32>() / channels as f32),
        ),
    }
}
