//! The jitter buffer and the voice track over networks that are not perfect, in virtual time.
#![allow(clippy::unwrap_used)]

mod network;
mod track;

use std::time::Duration;

use duologue_audio::FRAME_SAMPLES;
use duologue_rtc::{JitterBuffer, JitterConfig, MediaPacket};
use network::{Weather, drifting, encoded, repeated, speech, through, tone};
use proptest::prelude::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The largest difference between two neighbouring samples.
fn steepest(samples: &[i16]) -> i32 {
    samples
        .windows(2)
        .map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs())
        .max()
        .unwrap_or(0)
}

/// Level of every 100 ms, dBFS, none lower than -60.
fn envelope(samples: &[i16]) -> Vec<f32> {
    duologue_audio::pcm::i16_to_f32(samples)
        .chunks(4_800)
        .map(|chunk| duologue_audio::pcm::dbfs(duologue_audio::pcm::rms(chunk)).max(-60.0))
        .collect()
}

#[test]
fn a_punctual_network_adds_next_to_no_delay_and_changes_nothing() {
    let heard = through(
        Weather::default(),
        1,
        &repeated(&encoded(&tone(220, 1)), 30),
    );
    let end = heard.end;
    assert_eq!(
        (end.lost, end.late, end.concealed, end.duplicates),
        (0, 0, 0, 0)
    );
    assert!(end.stalled <= 960, "{end:?}");
    assert!(end.delay <= ms(30), "{end:?}");
    assert_eq!(end.target, ms(10));
    let expected = steepest(&tone(220, 1));
    assert!(steepest(&heard.samples[4_800..]) <= expected * 2, "a click");
}

#[test]
fn packets_that_overtake_each_other_and_come_twice_are_put_in_order() {
    let weather = Weather {
        jitter: ms(50),
        twice: 0.2,
        ..Weather::default()
    };
    let heard = through(weather, 2, &repeated(&encoded(&tone(220, 1)), 60));
    let (early, end) = (heard.seconds[9], heard.end);
    assert!(end.duplicates > 300, "{end:?}");
    let late = end.lost - early.lost;
    assert!(late <= 2_500 / 20, "more than 5% came too late: {end:?}");
    assert!((ms(30)..=ms(110)).contains(&end.delay), "{end:?}");
    let stalled = (end.stalled - early.stalled) as f64 / (50.0 * 48_000.0);
    assert!(stalled < 0.02, "{stalled} of the time stalled");
}

#[test]
fn single_losses_are_recovered_from_the_next_packet() {
    let weather = Weather {
        loss: 0.05,
        burst: 1,
        ..Weather::default()
    };
    let heard = through(weather, 3, &encoded(&speech("jfk.flac").repeat(3)));
    let end = heard.end;
    assert!(end.lost >= 50, "{end:?}");
    assert!(end.recovered * 10 >= end.lost * 8, "{end:?}");
    assert!(end.delay <= ms(80), "{end:?}");
    assert_eq!(end.late, 0);
}

#[test]
fn a_tenth_lost_in_bursts_leaves_the_speech_in_its_place() {
    let speech = speech("jfk.flac");
    let weather = Weather {
        loss: 0.04,
        burst: 3,
        jitter: ms(20),
        ..Weather::default()
    };
    let heard = through(weather, 4, &encoded(&speech));
    let end = heard.end;
    assert!(end.lost >= 30, "{end:?}");
    assert!(end.recovered > 0 && end.concealed > 0, "{end:?}");
    // The envelope of what is heard is that of what was said, as late as the delay says.
    let (said, heard) = (envelope(&speech), envelope(&heard.samples));
    let unlike = (0..3)
        .map(|shift| {
            let pairs = said.iter().zip(&heard[shift.min(heard.len())..]);
            let count = pairs.clone().count() as f32;
            pairs.map(|(a, b)| (a - b).abs()).sum::<f32>() / count
        })
        .fold(f32::MAX, f32::min);
    assert!(unlike < 5.0, "{unlike} dB apart in the mean");
}

#[test]
fn a_stall_of_the_network_delays_the_speech_and_loses_none_of_it() {
    let weather = Weather {
        stall: Some((ms(5_000), ms(5_300))),
        ..Weather::default()
    };
    let heard = through(weather, 5, &encoded(&speech("jfk.flac").repeat(2)));
    let end = heard.end;
    assert_eq!((end.lost, end.late, end.concealed), (0, 0, 0), "{end:?}");
    assert!(
        (ms(250)..=ms(400)).contains(&Duration::from_secs_f64(end.stalled as f64 / 48_000.0)),
        "{end:?}"
    );
    // Made up for, and what the network may do again is not forgotten at once.
    assert!(heard.seconds[4].delay >= ms(150), "{:?}", heard.seconds[4]);
    assert!(end.delay <= ms(60), "{end:?}");
    assert!(end.removed + 4_800 >= end.stalled, "{end:?}");
}

#[test]
fn an_outage_ends_in_silence_and_the_sound_goes_on_after_it() {
    let mut packets = repeated(&encoded(&tone(220, 1)), 20);
    packets[400..650].fill(None);
    let heard = through(Weather::default(), 6, &packets);
    assert_eq!(heard.samples.len() / FRAME_SAMPLES, packets.len() - 2);
    // Two seconds into the outage nothing is heard; two seconds after it the tone is.
    let at = |second: usize| &heard.samples[second * 48_000..][..4_800];
    assert!(steepest(at(10)) < 50);
    assert!(steepest(at(15)) > 100);
    assert!(heard.end.delay < ms(100), "{:?}", heard.end);
}

#[test]
fn clocks_that_drift_apart_are_met_with_small_steps_and_no_clicks() {
    let packets = repeated(&encoded(&tone(220, 1)), 600);
    for drift_ppm in [300.0, -300.0] {
        let heard = drifting(Weather::default(), drift_ppm, 7, &packets);
        // A fast sender is through before the ten minutes are over.
        let seconds = &heard.seconds[20..595];
        let end = seconds[574];
        assert_eq!(
            (end.lost, end.late, end.overflowed),
            (0, 0, 0),
            "{drift_ppm}: {end:?}"
        );
        let slowest = seconds.iter().map(|second| second.delay).max().unwrap();
        assert!(slowest <= ms(60), "{drift_ppm}: {slowest:?}");
        // 300 ppm of ten minutes are 180 ms.
        let moved = if drift_ppm > 0.0 {
            end.removed
        } else {
            end.inserted + end.stalled
        };
        assert!((6_000..=12_000).contains(&moved), "{drift_ppm}: {end:?}");
        assert!(end.stalled < 48_000 / 10, "{drift_ppm}: {end:?}");
        let expected = steepest(&tone(220, 1));
        let step = steepest(&heard.samples[48_000..595 * 48_000]);
        assert!(
            step <= expected * 2,
            "{drift_ppm}: a step of {step} over {expected}"
        );
    }
}

#[test]
fn what_is_not_pulled_is_bounded_and_the_newest_is_kept() {
    let mut buffer = JitterBuffer::new(JitterConfig::default()).unwrap();
    let packets = repeated(&encoded(&tone(220, 1)), 200);
    for (n, packet) in packets.iter().flatten().enumerate() {
        buffer.push(ms(20 * n as u64), packet.clone());
    }
    let now = ms(200_000);
    assert_eq!(buffer.statistics().overflowed, 10_000 - 100);
    for tick in 0..100 {
        assert!(buffer.pull(now + ms(20 * tick)).is_some());
    }
    assert_eq!(buffer.statistics().concealed, 0);
}

#[test]
fn a_sender_that_begins_anew_is_heard_again() {
    let mut buffer = JitterBuffer::new(JitterConfig::default()).unwrap();
    let first = repeated(&encoded(&tone(220, 1)), 4);
    let mut now = Duration::ZERO;
    let mut silent = 0;
    for n in 0..400usize {
        now += ms(20);
        let mut packet = first[n % 200].clone().unwrap();
        if n >= 200 {
            // Other numbers, lower and higher than before.
            packet.sequence = 3 + n as u64;
            packet.timestamp += 1 << 33;
        }
        buffer.push(now, packet);
        silent += u32::from(buffer.pull(now).is_none());
    }
    let end = buffer.statistics();
    assert!(end.resyncs >= 1, "{end:?}");
    assert!(silent <= 8, "{silent} frames without sound");
    assert!(end.delay < ms(60), "{end:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn no_packet_breaks_it(
        packets in prop::collection::vec(
            (0u64..200, any::<u16>(), any::<u64>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)),
            1..120,
        )
    ) {
        let mut buffer = JitterBuffer::new(JitterConfig::default()).unwrap();
        let mut now = Duration::ZERO;
        for (wait, sequence, timestamp, wild, payload) in packets {
            now += ms(wait);
            let timestamp = if wild { timestamp } else { timestamp % 480_000 };
            buffer.push(now, MediaPacket {
                sequence: if wild { timestamp } else { u64::from(sequence) },
                timestamp,
                payload: payload.into(),
            });
            buffer.pull(now);
        }
        let end = buffer.statistics();
        prop_assert!(end.received > 0);
    }
}
