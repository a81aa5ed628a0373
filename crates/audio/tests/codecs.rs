//! Opus, Ogg Opus, G.711 and loudness, heard from outside.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use duologue_audio::loudness::{self, Normaliser, SPEECH_LUFS, SoftLimiter};
use duologue_audio::ogg::OggOpusStream;
use duologue_audio::opus::{OpusDecoder, OpusEncoder, OpusOptions};
use duologue_audio::{FRAME_SAMPLES, Frame, Framer, decode_bytes, decode_file, g711, pcm};
use proptest::prelude::*;

fn speech(name: &str) -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/speech")
        .join(name);
    decode_file(&path).unwrap().at_rate(48_000).unwrap().samples
}

fn frames(samples: &[f32]) -> Vec<Frame> {
    let mut framer = Framer::new();
    framer.push_f32(samples);
    std::iter::from_fn(|| framer.flush()).collect()
}

fn likeness(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter()
            .zip(y)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

mod opus {
    use super::*;

    #[test]
    fn speech_survives_it() {
        let speech = speech("austen-0880.flac");
        let mut encoder = OpusEncoder::new(OpusOptions::default()).unwrap();
        let mut decoder = OpusDecoder::new().unwrap();
        let mut heard = Vec::new();
        for frame in frames(&speech) {
            let packet = encoder.encode(&frame).unwrap();
            let samples = decoder.decode(&packet).unwrap();
            assert_eq!(samples.len(), FRAME_SAMPLES);
            heard.extend_from_slice(samples);
        }
        let heard = &pcm::i16_to_f32(&heard)[encoder.lookahead() as usize..];
        let alike = likeness(heard, &speech[..heard.len().min(speech.len())]);
        // The codec takes the lowest tones off voices, so the waveform differs.
        assert!(alike > 0.7, "{alike:.3}");
    }

    #[test]
    fn a_lost_packet_is_recovered_from_the_next_better_than_concealed() {
        let frames = frames(&speech("austen-0890.flac"));
        let options = OpusOptions {
            expected_loss: 30,
            bitrate: 32_000,
            ..Default::default()
        };
        let mut encoder = OpusEncoder::new(options).unwrap();
        let packets: Vec<_> = frames.iter().map(|f| encoder.encode(f).unwrap()).collect();
        let play = |lose: bool, recover: bool| {
            let mut decoder = OpusDecoder::new().unwrap();
            let mut heard: Vec<i16> = Vec::new();
            for (i, packet) in packets.iter().enumerate() {
                let lost = |i: usize| lose && i % 10 == 9;
                if lost(i) {
                    let copy = match packets.get(i + 1) {
                        Some(next) if recover => decoder.recover(next),
                        _ => decoder.conceal(),
                    };
                    heard.extend(copy.unwrap());
                } else {
                    heard.extend(decoder.decode(packet).unwrap());
                }
            }
            pcm::i16_to_f32(&heard)
        };
        let whole = play(false, false);
        let (recovered, concealed) = (play(true, true), play(true, false));
        assert_eq!(whole.len(), recovered.len());
        assert_eq!(whole.len(), concealed.len());
        let (recovered, concealed) = (likeness(&whole, &recovered), likeness(&whole, &concealed));
        assert!(
            recovered > concealed + 0.01,
            "{recovered:.3} {concealed:.3}"
        );
    }

    #[test]
    fn silence_costs_next_to_nothing_with_dtx() {
        let bytes = |dtx| {
            let options = OpusOptions {
                dtx,
                ..Default::default()
            };
            let mut encoder = OpusEncoder::new(options).unwrap();
            (0..100)
                .map(|_| encoder.encode(&Frame::SILENCE).unwrap().len())
                .sum::<usize>()
        };
        assert!(
            bytes(true) < bytes(false),
            "{} {}",
            bytes(true),
            bytes(false)
        );
        assert!(bytes(true) < 600, "{}", bytes(true));
    }

    #[test]
    fn options_out_of_range_are_refused() {
        for (bitrate, complexity) in [(100, 5), (600_000, 5), (32_000, 11)] {
            assert!(
                OpusEncoder::new(OpusOptions {
                    bitrate,
                    complexity,
                    ..Default::default()
                })
                .is_err()
            );
        }
    }

    proptest! {
        #[test]
        fn packets_of_garbage_do_no_harm(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..10)
        ) {
            let mut decoder = OpusDecoder::new().unwrap();
            for packet in &packets {
                if let Ok(samples) = decoder.decode(packet) {
                    prop_assert!(samples.len() <= 5760);
                }
                let _ = decoder.recover(packet);
            }
            let good = OpusEncoder::new(OpusOptions::default()).unwrap().encode(&Frame::SILENCE).unwrap();
            prop_assert_eq!(decoder.decode(&good).unwrap().len(), FRAME_SAMPLES);
        }
    }
}

mod ogg {
    use super::*;

    fn stream(frames: &[Frame]) -> Vec<u8> {
        let mut stream = OggOpusStream::new(OpusOptions::default(), 77).unwrap();
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.extend(stream.push(frame).unwrap());
        }
        bytes.extend(stream.finish().unwrap());
        bytes
    }

    #[test]
    fn a_stream_decodes_to_exactly_what_was_said() {
        let speech = speech("austen-0880.flac");
        let frames = frames(&speech);
        let recording = decode_bytes(stream(&frames)).unwrap();
        assert_eq!(recording.sample_rate, 48_000);
        assert_eq!(recording.samples.len(), frames.len() * FRAME_SAMPLES);
        let alike = likeness(&recording.samples[..speech.len()], &speech);
        // The codec takes the lowest tones off voices, so the waveform differs.
        assert!(alike > 0.7, "{alike:.3}");
    }

    #[test]
    fn every_length_ends_exactly() {
        for count in 1..6 {
            let frames = vec![Frame([500; FRAME_SAMPLES]); count];
            let recording = decode_bytes(stream(&frames)).unwrap();
            assert_eq!(recording.samples.len(), count * FRAME_SAMPLES);
        }
    }

    #[test]
    fn each_frame_brings_a_page_that_can_be_played() {
        let mut stream = OggOpusStream::new(OpusOptions::default(), 1).unwrap();
        let first = stream.push(&Frame::SILENCE).unwrap();
        assert!(first.starts_with(b"OggS"));
        assert!(first.windows(8).any(|w| w == b"OpusHead"));
        assert!(first.windows(8).any(|w| w == b"OpusTags"));
        let second = stream.push(&Frame::SILENCE).unwrap();
        assert!(second.starts_with(b"OggS"));
        assert!(second.len() > 27);
    }

    #[test]
    fn a_stream_of_nothing_is_still_a_file() {
        let bytes = stream(&[]);
        assert!(bytes.starts_with(b"OggS"));
    }
}

mod telephone {
    use super::*;

    #[test]
    fn known_values_of_the_recommendation() {
        // ITU-T G.711: zero, the smallest steps and the two ends.
        assert_eq!(g711::encode_ulaw(0), 0xff);
        assert_eq!(g711::encode_ulaw(32_767), 0x80);
        assert_eq!(g711::encode_ulaw(-32_768), 0x00);
        assert_eq!(g711::decode_ulaw(0xff), 0);
        assert_eq!(g711::decode_ulaw(0x80), 32_124);
        assert_eq!(g711::decode_ulaw(0x00), -32_124);
        assert_eq!(g711::encode_alaw(0), 0xd5);
        assert_eq!(g711::encode_alaw(-1), 0x55);
        assert_eq!(g711::encode_alaw(32_767), 0xaa);
        assert_eq!(g711::encode_alaw(-32_768), 0x2a);
        assert_eq!(g711::decode_alaw(0xd5), 8);
        assert_eq!(g711::decode_alaw(0xaa), 32_256);
        assert_eq!(g711::decode_alaw(0x2a), -32_256);
    }

    #[test]
    fn every_byte_comes_back() {
        for byte in 0..=255u8 {
            assert_eq!(
                g711::encode_alaw(g711::decode_alaw(byte)),
                byte,
                "A-law {byte:#x}"
            );
            // u-law has two zeros.
            if byte != 0x7f {
                assert_eq!(
                    g711::encode_ulaw(g711::decode_ulaw(byte)),
                    byte,
                    "u-law {byte:#x}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn samples_come_back_within_a_step_of_their_size(sample: i16) {
            let step = |decoded: i16| (i32::from(sample) - i32::from(decoded)).abs();
            // Half a step, of a 32nd of the size with u-law's offset.
            let allowed = (i32::from(sample).abs() + 132) / 32 + 4;
            // Beyond the last step both laws clip.
            if (-32_000..=32_000).contains(&sample) {
                prop_assert!(step(g711::decode_alaw(g711::encode_alaw(sample))) <= allowed);
                prop_assert!(step(g711::decode_ulaw(g711::encode_ulaw(sample))) <= allowed);
            }
        }
    }
}

mod level {
    use super::*;

    #[test]
    fn a_tone_measures_as_the_standard_says() {
        // EBU Tech 3341: a 1 kHz sine with peaks at -20 dBFS in one channel is -23.0 LUFS.
        let tone: Vec<f32> = (0..48_000 * 5)
            .map(|i| 0.1 * (std::f32::consts::TAU * 1000.0 * i as f32 / 48_000.0).sin())
            .collect();
        let lufs = loudness::measure(&tone, 48_000).unwrap().unwrap();
        assert!((lufs + 23.0).abs() < 0.1, "{lufs}");
    }

    #[test]
    fn speech_is_brought_to_its_target_without_clipping() {
        for name in ["jfk.flac", "austen-0870.flac", "asterisk-demo-thanks.flac"] {
            let mut speech = speech(name);
            let measured = loudness::measure(&speech, 48_000).unwrap().unwrap();
            Normaliser::new(measured, SPEECH_LUFS).apply(&mut speech);
            let lufs = loudness::measure(&speech, 48_000).unwrap().unwrap();
            assert!(
                (lufs - SPEECH_LUFS).abs() < 1.0,
                "{name}: {measured} became {lufs} LUFS"
            );
            let peak = speech.iter().fold(0.0f32, |peak, s| peak.max(s.abs()));
            assert!(
                pcm::dbfs(peak) <= -1.0 + 1e-3,
                "{name}: peak {} dBFS",
                pcm::dbfs(peak)
            );
        }
    }

    #[test]
    fn what_is_too_short_or_silent_has_no_loudness() {
        assert_eq!(loudness::measure(&[0.5; 100], 48_000).unwrap(), None);
        assert_eq!(loudness::measure(&[0.0; 96_000], 48_000).unwrap(), None);
        assert!(loudness::measure(&[], 1).is_err());
    }

    proptest! {
        #[test]
        fn the_limiter_keeps_order_sign_and_ceiling(a in -100.0f32..100.0, b in -100.0f32..100.0) {
            let limiter = SoftLimiter::default();
            let (low, high) = (limiter.limit(a.min(b)), limiter.limit(a.max(b)));
            prop_assert!(low <= high);
            prop_assert!(low.abs() <= 0.8913 && high.abs() <= 0.8913);
            prop_assert!(low * a.min(b) >= 0.0);
        }
    }

    #[test]
    fn the_limiter_leaves_quiet_sound_alone_and_bends_without_a_corner() {
        let limiter = SoftLimiter::default();
        assert_eq!(limiter.limit(0.6), 0.6);
        let slope = (limiter.limit(0.632) - limiter.limit(0.631)) / 0.001;
        assert!((slope - 1.0).abs() < 0.01, "{slope}");
        assert_eq!(limiter.limit(f32::NAN), 0.0);
        assert!(limiter.limit(f32::INFINITY) < 0.9);
    }
}
