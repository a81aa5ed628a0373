//! Files of others become the sound they hold, or a clear error.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use duologue_audio::{
    DecodeError, Recording, decode_bytes, decode_bytes_within, decode_file, pcm, wav,
};
use proptest::prelude::*;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/files")
        .join(name)
}

/// One second of speech, as it was before it was encoded.
fn original() -> Recording {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/speech/goforward.flac");
    let mut recording = decode_file(&path).unwrap();
    recording.samples.truncate(16_000);
    recording
}

/// Likeness of two sounds where they lie: 1.0 is the same up to a factor.
fn likeness(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter()
            .zip(y)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn wav_with(channels: u16, samples: &[i16], data_bytes: u32) -> Vec<u8> {
    let mut bytes = wav::header(16_000, Some(data_bytes)).to_vec();
    bytes[22..24].copy_from_slice(&channels.to_le_bytes());
    bytes[28..32].copy_from_slice(&(32_000 * u32::from(channels)).to_le_bytes());
    bytes[32..34].copy_from_slice(&(2 * channels).to_le_bytes());
    bytes.extend(pcm::i16_to_le_bytes(samples));
    bytes
}

#[test]
fn every_format_gives_the_same_sound_at_the_same_time() {
    let original = original();
    for (name, rate, alike) in [
        ("speech.mp3", 16_000, 0.95),
        ("speech.ogg", 16_000, 0.95),
        ("speech.opus", 48_000, 0.9),
    ] {
        let recording = decode_file(&file(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(recording.sample_rate, rate, "{name}");
        let recording = recording.at_rate(16_000).unwrap();
        let off = recording.samples.len().abs_diff(16_000);
        assert!(
            off <= 16,
            "{name}: {} samples, not 16000",
            recording.samples.len()
        );
        let alike_by = likeness(&recording.samples[..15_900], &original.samples[..15_900]);
        assert!(alike_by > alike, "{name}: likeness {alike_by:.3}");
    }
}

#[test]
fn stereo_is_mixed_to_the_mean_of_both() {
    // The right channel is silent, so the mean is half of the left.
    let original = original();
    let recording = decode_file(&file("stereo.opus"))
        .unwrap()
        .at_rate(16_000)
        .unwrap();
    let (mixed, left) = (&recording.samples[..15_900], &original.samples[..15_900]);
    assert!(likeness(mixed, left) > 0.9);
    let ratio = pcm::rms(mixed) / pcm::rms(left);
    assert!((0.4..0.6).contains(&ratio), "{ratio}");

    let recording = decode_bytes(wav_with(2, &[100, 300, -100, 300], 8)).unwrap();
    assert_eq!(pcm::f32_to_i16(&recording.samples), [200, 100]);
}

#[test]
fn a_wav_of_unknown_length_is_read_to_its_end() {
    let samples: Vec<i16> = (0..5000).collect();
    let mut bytes = wav::header(24_000, None).to_vec();
    bytes.extend(pcm::i16_to_le_bytes(&samples));
    let recording = decode_bytes(bytes).unwrap();
    assert_eq!(recording.sample_rate, 24_000);
    assert_eq!(pcm::f32_to_i16(&recording.samples), samples);
}

#[test]
fn a_wav_written_while_the_sound_comes_in_is_whole() {
    let folder = std::env::temp_dir().join(format!("duologue-wav-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("growing.wav");
    let mut writer = wav::WavWriter::create(&path, 22_050).unwrap();
    writer.write(&[1, -2, 3]).unwrap();
    writer.write(&[i16::MIN, i16::MAX]).unwrap();
    writer.finish().unwrap();
    let recording = decode_file(&path).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(recording.sample_rate, 22_050);
    assert_eq!(
        pcm::f32_to_i16(&recording.samples),
        [1, -2, 3, i16::MIN, i16::MAX]
    );
}

#[test]
fn what_is_cut_short_says_so() {
    // A gigabyte is promised; four samples are there.
    let error = decode_bytes(wav_with(1, &[1, 2, 3, 4], 1_000_000_000)).unwrap_err();
    assert!(
        matches!(error, DecodeError::Truncated { declared, .. } if declared > 30_000.0),
        "{error}"
    );

    let flac = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/speech/jfk.flac");
    let mut bytes = std::fs::read(flac).unwrap();
    bytes.truncate(bytes.len() / 2);
    let error = decode_bytes(bytes).unwrap_err();
    let DecodeError::Truncated { declared, decoded } = error else {
        panic!("{error}")
    };
    assert!(
        (declared - 11.0).abs() < 0.1 && (4.0..8.0).contains(&decoded),
        "{declared} {decoded}"
    );
}

#[test]
fn what_holds_no_sound_says_so() {
    assert!(matches!(decode_bytes(Vec::new()), Err(DecodeError::Empty)));
    assert!(matches!(
        decode_bytes(wav::encode(&[], 16_000)),
        Err(DecodeError::Empty)
    ));
    let garbage: Vec<u8> = (0..100_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    assert!(matches!(
        decode_bytes(garbage),
        Err(DecodeError::Unrecognised)
    ));
    let text = b"Dear Sir or Madam, this is a letter and not a sound. ".repeat(50);
    assert!(matches!(decode_bytes(text), Err(DecodeError::Unrecognised)));
    assert!(matches!(
        decode_bytes(b"RIFF".to_vec()),
        Err(DecodeError::Unrecognised)
    ));
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let error = decode_file(Path::new("/nowhere/at-all.wav")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at-all.wav"), "{error}");
    assert!(matches!(
        decode_file(Path::new("/")),
        Err(DecodeError::Open { .. })
    ));
}

proptest! {
    #[test]
    fn sixteen_bit_samples_survive_a_wav_file(samples in prop::collection::vec(any::<i16>(), 1..3000)) {
        let recording = decode_bytes(wav::encode(&samples, 8000)).unwrap();
        prop_assert_eq!(recording.sample_rate, 8000);
        prop_assert_eq!(pcm::f32_to_i16(&recording.samples), samples);
    }

    #[test]
    fn damage_never_panics_and_never_grows_the_sound(
        which in 0usize..4,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = match which {
            0 => std::fs::read(file("speech.mp3")).unwrap(),
            1 => std::fs::read(file("speech.ogg")).unwrap(),
            2 => std::fs::read(file("speech.opus")).unwrap(),
            _ => wav::encode(&[1000; 2000], 16_000),
        };
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(length.index(bytes.len()) + 1);
        if let Ok(recording) = decode_bytes(bytes) {
            // A second of sound; repeated or misread headers may not make it minutes.
            prop_assert!(recording.samples.len() < 10 * 48_000);
        }
    }
}

#[test]
fn samples_that_are_no_numbers_are_silence_and_those_out_of_range_are_cut() {
    let samples = [0.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -0.5];
    let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
    let mut file = wav::header(16_000, Some(bytes.len() as u32)).to_vec();
    file[20..22].copy_from_slice(&3u16.to_le_bytes()); // IEEE float
    file[28..32].copy_from_slice(&64_000u32.to_le_bytes());
    file[32..36].copy_from_slice(&[4, 0, 32, 0]);
    file.extend(bytes);
    let recording = decode_bytes(file).unwrap();
    let most = recording
        .samples
        .iter()
        .fold(0.0, |most: f32, s| most.max(s.abs()));
    assert!(recording.samples.iter().all(|s| s.is_finite()) && most <= 16.0);
    assert_eq!((recording.samples[0], recording.samples[5]), (0.5, -0.5));
}

#[test]
fn hours_that_fit_into_a_few_kilobytes_are_refused_where_they_are_not_wanted() {
    let minute = wav_with(1, &vec![0; 16_000 * 61], 2 * 16_000 * 61);
    assert!(matches!(
        decode_bytes_within(minute.clone(), 60),
        Err(DecodeError::TooLong { seconds: 60 })
    ));
    assert!(decode_bytes_within(minute, 62).is_ok());
    // The rate is as large as the header likes.
    let mut fast = wav_with(1, &vec![0; 16_000 * 200], 2 * 16_000 * 200);
    fast[24..28].copy_from_slice(&192_000u32.to_le_bytes());
    let told = decode_bytes_within(fast, 60).unwrap_err().to_string();
    assert!(told.contains("more than 1 minutes"), "{told}");
}

/// Found by fuzzing: a library multiplies the number of channels, which only checked arithmetic notices.
#[test]
fn a_wav_file_of_more_channels_than_there_can_be_is_refused() {
    let mut bytes = wav_with(1, &[1, 2, 3, 4], 8);
    bytes[22..24].copy_from_slice(&u16::MAX.to_le_bytes());
    assert!(decode_bytes(bytes).is_err());
}
