//! The log-mel spectrogram against an independent implementation.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use duologue_audio::decode_file;
use duologue_audio::mel::{HOP, LogMel};

fn jfk() -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/speech/jfk.flac");
    decode_file(&path).unwrap().samples
}

#[test]
fn equals_the_whisper_reference() {
    let speech = &jfk()[..48_000];
    let spectrograms = [80, 128].map(|bins| LogMel::new(bins).compute(speech));
    let mut compared = 0;
    for line in include_str!("mel_reference.tsv")
        .lines()
        .filter(|l| !l.starts_with('#'))
    {
        let fields: Vec<&str> = line.split('\t').collect();
        let [bins, bin, frame] = [0, 1, 2].map(|i| fields[i].parse::<usize>().unwrap());
        let expected: f32 = fields[3].parse().unwrap();
        let mel = spectrograms.iter().find(|m| m.bins == bins).unwrap();
        assert_eq!(mel.frames, 300);
        let value = mel.data[bin * mel.frames + frame];
        assert!(
            (value - expected).abs() < 1e-4,
            "{bins} bins, bin {bin}, frame {frame}: {value}, not {expected}"
        );
        compared += 1;
    }
    assert_eq!(compared, 6 * (80 + 128));
}

#[test]
fn has_one_frame_for_each_hop_however_short_the_sound() {
    let mel = LogMel::new(80);
    for length in [0, 1, 159, 160, 161, 199, 200, 320, 16_000] {
        let spectrum = mel.compute(&vec![0.25; length]);
        assert_eq!(spectrum.frames, length / HOP);
        assert_eq!(spectrum.data.len(), 80 * spectrum.frames);
        assert!(spectrum.data.iter().all(|v| v.is_finite()));
    }
}

#[test]
fn silence_is_flat() {
    let spectrum = LogMel::new(80).compute(&[0.0; 1600]);
    // log10 of the floor, -10, scaled.
    assert!(spectrum.data.iter().all(|&v| v == (-10.0 + 4.0) / 4.0));
}
