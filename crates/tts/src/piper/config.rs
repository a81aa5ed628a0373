//! The `.onnx.json` beside a Piper voice.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

/// What the adapter needs of it; the rest is skipped.
#[derive(Deserialize)]
pub(super) struct Config {
    pub audio: Audio,
    #[serde(default)]
    pub espeak: Espeak,
    #[serde(default)]
    pub inference: Inference,
    #[serde(default = "espeak")]
    pub phoneme_type: String,
    pub phoneme_id_map: HashMap<String, Vec<i32>>,
    #[serde(default)]
    pub num_speakers: usize,
    /// Numbers of the speakers by name.
    #[serde(default)]
    pub speaker_id_map: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
pub(super) struct Audio {
    pub sample_rate: u32,
}

#[derive(Default, Deserialize)]
pub(super) struct Espeak {
    /// The phonemizer's name for the language, such as `en-us`.
    pub voice: String,
}

#[derive(Deserialize)]
#[serde(default)]
pub(super) struct Inference {
    pub noise_scale: f32,
    pub length_scale: f32,
    pub noise_w: f32,
}

impl Default for Inference {
    fn default() -> Self {
        Inference {
            noise_scale: 0.667,
            length_scale: 1.0,
            noise_w: 0.8,
        }
    }
}

fn espeak() -> String {
    "espeak".to_owned()
}

impl Config {
    /// Reads and checks it.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub(super) fn parse(json: &str) -> Result<Config, String> {
        let config: Config = serde_json::from_str(json).map_err(|e| e.to_string())?;
        if config.phoneme_type != "espeak" {
            let given = &config.phoneme_type;
            return Err(format!(
                "its phonemes are of type {given:?}; only \"espeak\" is supported"
            ));
        }
        for needed in ["_", "^", "$"] {
            if config.phoneme_id_map.get(needed).is_none_or(Vec::is_empty) {
                return Err(format!("phoneme_id_map has no {needed:?}"));
            }
        }
        let scales = &config.inference;
        let positive = |x: f32| x.is_finite() && x > 0.0;
        let not_negative = |x: f32| x.is_finite() && x >= 0.0;
        if !positive(scales.length_scale)
            || !not_negative(scales.noise_scale)
            || !not_negative(scales.noise_w)
        {
            return Err("the scales under inference are out of range".to_owned());
        }
        Ok(config)
    }

    /// Names of the speakers by number; empty for a voice with one.
    pub(super) fn speakers(&self) -> Vec<String> {
        if self.num_speakers < 2 {
            return Vec::new();
        }
        let mut names: Vec<String> = (0..self.num_speakers).map(|n| n.to_string()).collect();
        for (name, number) in &self.speaker_id_map {
            if let Some(place) = names.get_mut(*number) {
                place.clone_from(name);
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SOUND: &str = r#"{"audio": {"sample_rate": 22050, "quality": "medium"}, "espeak": {"voice": "en-us"},
        "phoneme_id_map": {"_": [0], "^": [1], "$": [2]}, "num_speakers": 3, "speaker_id_map": {"b": 2, "a": 0}}"#;

    #[test]
    fn speakers_come_by_number_and_a_nameless_one_is_called_by_it() {
        assert_eq!(Config::parse(SOUND).unwrap().speakers(), ["a", "1", "b"]);
        let single = SOUND.replace("\"num_speakers\": 3", "\"num_speakers\": 1");
        assert!(Config::parse(&single).unwrap().speakers().is_empty());
    }

    #[test]
    fn a_config_that_cannot_work_is_refused() {
        for (from, to) in [
            ("\"^\": [1]", "\"^\": []"),
            (
                "\"num_speakers\"",
                "\"phoneme_type\": \"pinyin\", \"num_speakers\"",
            ),
            (
                "\"num_speakers\"",
                "\"inference\": {\"length_scale\": 0}, \"num_speakers\"",
            ),
            ("22050", "\"high\""),
        ] {
            assert!(Config::parse(&SOUND.replace(from, to)).is_err(), "{to}");
        }
    }
}
