//! Packets through a network that is not perfect, and what a jitter buffer makes of them, in virtual time.

use std::time::Duration;

use duologue_audio::opus::{OpusEncoder, OpusOptions};
use duologue_audio::{FRAME_SAMPLES, Frame};
use duologue_netem::Link;
pub use duologue_netem::Weather;
use duologue_rtc::{JitterBuffer, JitterConfig, JitterStatistics, MediaPacket};

pub const FRAME: Duration = Duration::from_millis(20);

/// What came out.
pub struct Heard {
    pub samples: Vec<i16>,
    pub end: JitterStatistics,
    /// Statistics each second.
    pub seconds: Vec<JitterStatistics>,
}

/// One packet every 20 ms, heard through a jitter buffer for as long as there are packets.
pub fn through(weather: Weather, seed: u64, packets: &[Option<MediaPacket>]) -> Heard {
    drifting(weather, 0.0, seed, packets)
}

/// The same by a sender's clock that is fast by so many millionths.
pub fn drifting(
    weather: Weather,
    drift_ppm: f64,
    seed: u64,
    packets: &[Option<MediaPacket>],
) -> Heard {
    let mut link = Link::new(weather, seed);
    let mut deliveries: Vec<(Duration, MediaPacket)> = Vec::new();
    for (n, packet) in packets.iter().enumerate() {
        let Some(packet) = packet else { continue };
        let sent = Duration::from_secs_f64(1.0 + n as f64 * 0.02 / (1.0 + drift_ppm / 1e6));
        let arrivals = link.pass(sent).into_iter().flatten();
        deliveries.extend(arrivals.map(|at| (at, packet.clone())));
    }
    deliveries.sort_by_key(|(at, _)| *at);
    let mut buffer = JitterBuffer::new(JitterConfig::default()).expect("a decoder");
    let mut heard = Heard {
        samples: Vec::new(),
        end: buffer.statistics(),
        seconds: Vec::new(),
    };
    let mut deliveries = deliveries.into_iter().peekable();
    for tick in 0..packets.len() as u32 {
        // Not in step with the sender's packets.
        let now = Duration::from_millis(1_007) + FRAME * tick;
        while let Some((at, packet)) = deliveries.next_if(|(at, _)| *at <= now) {
            buffer.push(at, packet);
        }
        if let Some(frame) = buffer.pull(now) {
            heard.samples.extend(frame.0);
        }
        heard.end = buffer.statistics();
        if tick % 50 == 49 {
            heard.seconds.push(heard.end);
        }
    }
    heard
}

/// Sound as packets, one a frame, with copies for error correction.
pub fn encoded(samples: &[i16]) -> Vec<Option<MediaPacket>> {
    let mut encoder = OpusEncoder::new(OpusOptions {
        expected_loss: 20,
        ..OpusOptions::default()
    })
    .expect("options in range");
    samples
        .as_chunks::<FRAME_SAMPLES>()
        .0
        .iter()
        .enumerate()
        .map(|(n, samples)| {
            Some(MediaPacket {
                sequence: 7_000 + n as u64,
                timestamp: 90_000 + (n * FRAME_SAMPLES) as u64,
                payload: encoder.encode(&Frame(*samples)).expect("a frame").into(),
            })
        })
        .collect()
}

/// The packets of one second again and again, for a sound that repeats every second.
pub fn repeated(second: &[Option<MediaPacket>], seconds: usize) -> Vec<Option<MediaPacket>> {
    (0..seconds * 50)
        .map(|n| {
            let packet = second[n % 50].clone()?;
            Some(MediaPacket {
                sequence: 7_000 + n as u64,
                timestamp: 90_000 + (n * FRAME_SAMPLES) as u64,
                ..packet
            })
        })
        .collect()
}

/// A tone that repeats every second.
pub fn tone(hz: u32, seconds: usize) -> Vec<i16> {
    (0..seconds * 48_000)
        .map(|n| {
            let turn = (n as u64 * u64::from(hz) % 48_000) as f32 / 48_000.0;
            (8_000.0 * (std::f32::consts::TAU * turn).sin()) as i16
        })
        .collect()
}

/// Recorded speech, 48 kHz.
pub fn speech(name: &str) -> Vec<i16> {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/speech")
        .join(name);
    let recording = duologue_audio::decode_file(&file).expect("recorded speech");
    let samples = duologue_audio::resample(&recording.samples, recording.sample_rate, 48_000)
        .expect("a common rate");
    duologue_audio::pcm::f32_to_i16(&samples)
}
