//! Sound in every way that it comes.

use std::sync::Arc;
use std::time::Duration;

use duologue_audio::opus::OpusDecoder;
use duologue_audio::{FRAME_SAMPLES, decode_bytes};
use duologue_orchestrator::realtime::{AudioEncoding, InputDecoder};
use duologue_rtc::{JitterBuffer, JitterConfig, MediaPacket};

use crate::pieces::pieces;

/// A whole file.
pub fn audio_file(data: &[u8]) {
    let Ok(recording) = decode_bytes(data.to_vec()) else {
        return;
    };
    assert!(recording.sample_rate > 0 && !recording.samples.is_empty());
    assert!(
        recording.samples.iter().all(|sample| sample.is_finite()),
        "samples that are no numbers"
    );
    // As it goes on to the recognizer; what lasts long takes long.
    if recording.seconds() < 60.0
        && let Ok(heard) = recording.at_rate(16_000)
    {
        assert!(heard.samples.iter().all(|sample| sample.is_finite()));
    }
}

/// The first byte names the encoding; the rest comes in pieces, which must make no difference.
pub fn input_sound(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let encoding = match kind % 3 {
        0 => AudioEncoding::Pcm16,
        1 => AudioEncoding::G711Ulaw,
        _ => AudioEncoding::G711Alaw,
    };
    let (Ok(mut whole), Ok(mut cut)) = (InputDecoder::new(encoding), InputDecoder::new(encoding))
    else {
        panic!("{encoding:?} cannot be read");
    };
    let (mut bytes, mut parts) = (Vec::new(), Vec::new());
    for piece in pieces(rest) {
        bytes.extend_from_slice(piece);
        parts.extend(cut.decode(piece.to_vec()));
    }
    assert_eq!(whole.decode(bytes), parts);
}

/// Packets of one stream; the first byte of each says how it comes.
pub fn opus_packets(data: &[u8]) {
    let Ok(mut decoder) = OpusDecoder::new() else {
        panic!("there is no decoder");
    };
    for piece in pieces(data) {
        let Some((how, packet)) = piece.split_first() else {
            continue;
        };
        let decoded = match how % 4 {
            0 | 1 => decoder.decode(packet),
            2 => decoder.recover(packet),
            _ => decoder.conceal(),
        };
        if let Ok(samples) = decoded {
            assert!(samples.len() <= 5_760);
        }
    }
}

/// Packets of one stream: when each comes, its place and its time, relative to the one before.
pub fn rtp_stream(data: &[u8]) {
    let Ok(mut buffer) = JitterBuffer::new(JitterConfig::default()) else {
        panic!("there is no decoder");
    };
    let (mut now, mut pulled) = (Duration::ZERO, Duration::ZERO);
    let (mut sequence, mut timestamp) = (1_u64 << 32, 1_u64 << 40);
    let (mut began, mut resyncs) = (false, 0);
    for piece in pieces(data).take(500) {
        let Some((&[wait, step, jump, scale], payload)) = piece.split_first_chunk::<4>() else {
            continue;
        };
        now += Duration::from_millis(wait.into());
        sequence = sequence.saturating_add_signed(i64::from(step.cast_signed()));
        let jump = (i64::from(jump.cast_signed()) * 480) << (scale % 16);
        timestamp = timestamp.saturating_add_signed(jump);
        buffer.push(
            now,
            MediaPacket {
                sequence,
                timestamp,
                payload: Arc::from(payload),
            },
        );
        if buffer.statistics().resyncs > resyncs {
            // Another stream, as far as the buffer knows.
            (resyncs, began) = (buffer.statistics().resyncs, false);
        }
        while pulled <= now {
            let frame = buffer.pull(pulled);
            assert!(
                frame.is_some() || !began,
                "a stream that has begun has frames"
            );
            began |= frame.is_some();
            pulled += Duration::from_millis(20);
        }
    }
    let statistics = buffer.statistics();
    assert!(statistics.duplicates + statistics.late + statistics.damaged <= statistics.received);
    assert!(statistics.frames * 20 <= pulled.as_millis() as u64);
    const { assert!(FRAME_SAMPLES == 960) };
}
