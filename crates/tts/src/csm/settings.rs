//! `voice.json` of a voicepack: who speaks, and how. Everything in it has a default, and so has the file.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::neural::Sampling;

/// The file.
pub(super) const FILE: &str = "voice.json";
/// Folder of reference recordings.
const REFERENCES: &str = "ref";

/// How a voice speaks.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct VoiceSettings {
    /// Who can speak; empty: one for each recording in `ref/`, else one.
    pub speakers: Vec<SpeakerSettings>,
    /// Above 1 evens the chances of the codes out, below it favours the best.
    pub temperature: f64,
    /// How many codes are in a draw.
    pub top_k: usize,
    /// Letters a second that words are thought to take, before any was heard.
    pub pace: f64,
    /// A sentence is broken off that takes more than this many times what it is thought to.
    pub longest: f64,
    /// How much of what it said before, in this reply and those before it, it hears before it goes on, seconds.
    pub context_seconds: f64,
}

/// Somebody who can speak.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpeakerSettings {
    /// What they are called.
    pub name: String,
    /// Their number in the prompt.
    #[serde(default)]
    pub id: u32,
    /// A recording of theirs, within the voicepack; a text file of the same name says what is said in it.
    #[serde(default)]
    pub reference: Option<String>,
}

impl Default for VoiceSettings {
    fn default() -> Self {
        VoiceSettings {
            speakers: Vec::new(),
            temperature: 0.9,
            top_k: 50,
            pace: 14.5,
            longest: 2.5,
            context_seconds: 30.0,
        }
    }
}

impl VoiceSettings {
    /// Those of a folder.
    ///
    /// # Errors
    /// What is wrong with them, for a person.
    pub(super) fn read(folder: &Path) -> Result<Self, String> {
        let file = folder.join(FILE);
        let mut settings = match std::fs::read_to_string(&file) {
            Ok(json) => Self::parse(&json).map_err(|why| format!("{}: {why}", file.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(e) => return Err(format!("{}: {e}", file.display())),
        };
        if settings.speakers.is_empty() {
            settings.speakers = recorded(&folder.join(REFERENCES))?;
        }
        Ok(settings)
    }

    fn parse(json: &str) -> Result<Self, String> {
        let settings: VoiceSettings = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let ranges = [
            ("temperature", settings.temperature, 0.05..=5.0),
            ("top_k", settings.top_k as f64, 1.0..=1e6),
            ("pace", settings.pace, 2.0..=100.0),
            ("longest", settings.longest, 1.0..=20.0),
            ("context_seconds", settings.context_seconds, 0.0..=120.0),
        ];
        for (name, value, range) in ranges {
            if !range.contains(&value) {
                let (low, high) = range.into_inner();
                return Err(format!("{name} is {value}: give {low} to {high}"));
            }
        }
        for (n, speaker) in settings.speakers.iter().enumerate() {
            if settings.speakers[..n]
                .iter()
                .any(|s| s.name == speaker.name)
            {
                return Err(format!("two speakers are called {:?}", speaker.name));
            }
        }
        Ok(settings)
    }

    pub(super) fn sampling(&self) -> Sampling {
        Sampling::TopK {
            k: self.top_k,
            temperature: self.temperature,
        }
    }
}

/// A speaker for each recording of a folder, in the order of their names.
fn recorded(folder: &Path) -> Result<Vec<SpeakerSettings>, String> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(format!("{}: {e}", folder.display())),
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|file| {
        let end = file
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        matches!(end, "wav" | "flac" | "mp3" | "ogg")
    });
    files.sort();
    let speakers = files.iter().zip(0..).filter_map(|(file, id)| {
        Some(SpeakerSettings {
            name: file.file_stem()?.to_str()?.to_owned(),
            id,
            reference: Some(format!("{REFERENCES}/{}", file.file_name()?.to_str()?)),
        })
    });
    Ok(speakers.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_setting_out_of_range_or_misspelt_is_refused() {
        for (json, told) in [
            (r#"{"temperature": 0}"#, "temperature"),
            (r#"{"top_k": 0}"#, "top_k"),
            (r#"{"longest": 0.5}"#, "longest"),
            (r#"{"tempo": 1}"#, "tempo"),
            (
                r#"{"speakers": [{"name": "a"}, {"name": "a"}]}"#,
                "two speakers",
            ),
        ] {
            let refused = VoiceSettings::parse(json).unwrap_err();
            assert!(refused.contains(told), "{refused}");
        }
    }

    #[test]
    fn recordings_are_speakers_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("ref")).unwrap();
        for name in ["bob.wav", "ann.flac", "ann.txt", "notes.md"] {
            std::fs::write(folder.path().join("ref").join(name), "x").unwrap();
        }
        let settings = VoiceSettings::read(folder.path()).unwrap();
        let found: Vec<_> = settings
            .speakers
            .iter()
            .map(|s| (s.name.as_str(), s.id))
            .collect();
        assert_eq!(found, [("ann", 0), ("bob", 1)]);
        assert_eq!(
            settings.speakers[0].reference.as_deref(),
            Some("ref/ann.flac")
        );
    }
}
