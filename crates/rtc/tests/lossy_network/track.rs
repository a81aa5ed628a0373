//! The voice track, and what a jitter buffer makes of it.

use std::time::Duration;

use duologue_audio::opus::OpusOptions;
use duologue_audio::{FRAME_SAMPLES, Frame};
use duologue_rtc::{MediaPacket, TrackPacket, VoiceTrack};

use crate::ms;
use crate::network::{Weather, speech, through, tone};

/// Says frames, one every 20 ms, `None` where nothing is said; gives what was sent in which 20 ms.
fn sent(track: &mut VoiceTrack, frames: &[Option<Frame>]) -> Vec<(Duration, TrackPacket)> {
    let mut packets = Vec::new();
    for step in 0..frames.len() as u64 * 4 {
        let now = ms(step * 5);
        if step % 4 == 0
            && let Some(frame) = &frames[step as usize / 4]
        {
            packets.push((now, track.say(now, frame).unwrap()));
        }
        packets.extend(track.rest(now).unwrap().map(|packet| (now, packet)));
    }
    packets
}

fn frames(samples: &[i16]) -> Vec<Option<Frame>> {
    samples
        .as_chunks::<FRAME_SAMPLES>()
        .0
        .iter()
        .map(|samples| Some(Frame(*samples)))
        .collect()
}

/// Two utterances with three seconds between.
fn two_utterances() -> Vec<Option<Frame>> {
    let speech = frames(&speech("goforward.flac"));
    let mut all = speech.clone();
    all.resize(speech.len() + 150, None);
    all.extend(speech);
    all.resize(all.len() + 100, None);
    all
}

#[test]
fn timestamps_go_on_through_silence_and_a_pause_is_marked() {
    let mut track = VoiceTrack::new(OpusOptions::default()).unwrap();
    let said = two_utterances();
    let packets = sent(&mut track, &said);
    for (at, packet) in &packets {
        let clock = at.as_millis() as u64 * 48;
        assert!(
            packet.timestamp.abs_diff(clock) <= 48 * 25,
            "{at:?}: {}",
            packet.timestamp
        );
    }
    assert!(
        packets
            .windows(2)
            .all(|pair| pair[0].1.timestamp < pair[1].1.timestamp)
    );
    let marked = packets.iter().filter(|(_, packet)| packet.marker).count();
    assert_eq!(marked, 2);
    // Of the pause of 150 frames, a tail and a packet every 400 ms are sent.
    let spoken = said.iter().flatten().count();
    let others = packets.len() - spoken;
    assert!((20..=35).contains(&others), "{others}");
}

#[test]
fn a_receiver_takes_the_pauses_for_pauses() {
    let mut track = VoiceTrack::new(OpusOptions::default()).unwrap();
    let said = two_utterances();
    let mut packets = vec![None; said.len() + 60];
    for (sequence, (at, packet)) in sent(&mut track, &said).into_iter().enumerate() {
        packets[at.as_millis() as usize / 20] = Some(MediaPacket {
            sequence: sequence as u64,
            timestamp: packet.timestamp,
            payload: packet.payload.into(),
        });
    }
    let end = through(Weather::default(), 1, &packets).end;
    assert_eq!(
        (end.lost, end.concealed, end.late, end.resyncs),
        (0, 0, 0, 0),
        "{end:?}"
    );
    assert!(end.comfort > 3 * 48_000, "{end:?}");
    assert!(end.stalled <= 4_800, "{end:?}");
}

#[test]
fn a_sound_that_is_cut_off_fades_and_leaves_silence() {
    let mut track = VoiceTrack::new(OpusOptions::default()).unwrap();
    let mut said = frames(&tone(220, 1));
    said.resize(75, None);
    let mut decoder = duologue_audio::opus::OpusDecoder::new().unwrap();
    let heard: Vec<i16> = sent(&mut track, &said)
        .iter()
        .flat_map(|(_, packet)| decoder.decode(&packet.payload).unwrap().to_vec())
        .collect();
    let after = &heard[48_000 + 2 * FRAME_SAMPLES..48_000 + 8 * FRAME_SAMPLES];
    assert!(
        after.iter().all(|sample| sample.abs() < 100),
        "{:?}",
        after.iter().max()
    );
}

#[test]
fn reported_loss_buys_error_correction_which_goes_when_it_is_over() {
    let mut track = VoiceTrack::new(OpusOptions::default()).unwrap();
    assert_eq!(track.expected_loss(), 5);
    track.report_loss(0.2).unwrap();
    assert_eq!(track.expected_loss(), 20);
    for _ in 0..3 {
        track.report_loss(0.0).unwrap();
    }
    assert!((1..20).contains(&track.expected_loss()));
    for _ in 0..20 {
        track.report_loss(0.0).unwrap();
    }
    assert_eq!(track.expected_loss(), 0);
    track.report_loss(f32::NAN).unwrap();
    track.report_loss(9.0).unwrap();
    assert_eq!(track.expected_loss(), 30);
}
