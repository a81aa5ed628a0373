//! What a voice is, and how it is asked to speak.

use crate::TtsError;

/// What a voice is and can do.
#[derive(Clone, Debug, PartialEq)]
pub struct Voice {
    /// The voicepack's name.
    pub name: String,
    /// `tone`, `piper`, ...
    pub family: String,
    /// BCP 47 tags.
    pub languages: Vec<String>,
    /// Tags of the voicepack, such as `cpu_ok`.
    pub tags: Vec<String>,
    /// Names of the speakers; empty for a voice with one.
    pub speakers: Vec<String>,
    /// Rate of [`Sound::samples`](crate::Sound::samples), Hz.
    pub sample_rate: u32,
    /// Characters that one [`Speech::say`](crate::Speech::say) takes at most.
    pub max_chars: usize,
    /// Memory its weights hold, bytes.
    pub resident_bytes: u64,
}

/// How to speak.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Name or number of a speaker; `None` is the first.
    pub speaker: Option<String>,
    /// Rate of speech, 0.5 to 2.0; `None` is 1.0.
    pub speed: Option<f32>,
    /// BCP 47; `None` is the voice's own.
    pub language: Option<String>,
}

impl Voice {
    /// The number of the speaker that `settings` name: their place in [`Voice::speakers`], 0 in a voice with
    /// one. A name wins over a number.
    ///
    /// # Errors
    /// [`TtsError::UnknownSpeaker`].
    pub fn speaker(&self, settings: &Settings) -> Result<usize, TtsError> {
        let Some(wanted) = settings.speaker.as_deref().filter(|s| !s.is_empty()) else {
            return Ok(0);
        };
        let by_name = self.speakers.iter().position(|s| s == wanted);
        let by_number = || {
            wanted
                .parse()
                .ok()
                .filter(|n| *n < self.speakers.len().max(1))
        };
        by_name
            .or_else(by_number)
            .ok_or_else(|| TtsError::UnknownSpeaker {
                voice: self.name.clone(),
                speaker: wanted.to_owned(),
                known: match self.speakers.len() {
                    0 => "one speaker, number 0".to_owned(),
                    n if n <= 12 => self.speakers.join(", "),
                    n => format!("{}, ... ({n} in all)", self.speakers[..8].join(", ")),
                },
            })
    }

    /// The rate of speech that `settings` ask for.
    ///
    /// # Errors
    /// [`TtsError::BadSetting`] outside 0.5 to 2.0.
    pub fn speed(&self, settings: &Settings) -> Result<f32, TtsError> {
        match settings.speed {
            None => Ok(1.0),
            Some(speed) if (0.5..=2.0).contains(&speed) => Ok(speed),
            Some(speed) => Err(TtsError::BadSetting(format!(
                "speed {speed} is out of range: give 0.5 to 2.0"
            ))),
        }
    }

    /// Checks that a text is not longer than the voice takes at once.
    ///
    /// # Errors
    /// [`TtsError::TextTooLong`].
    pub fn check_length(&self, text: &str) -> Result<(), TtsError> {
        let chars = text.chars().count();
        if chars > self.max_chars {
            return Err(TtsError::TextTooLong {
                chars,
                limit: self.max_chars,
            });
        }
        Ok(())
    }

    /// Checks that the voice speaks the language that `settings` ask for; `en` stands for every English.
    ///
    /// # Errors
    /// [`TtsError::BadSetting`] when it does not.
    pub fn check_language(&self, settings: &Settings) -> Result<(), TtsError> {
        let Some(wanted) = settings.language.as_deref().filter(|l| !l.is_empty()) else {
            return Ok(());
        };
        let primary = |tag: &str| {
            let end = tag.find(['-', '_']).unwrap_or(tag.len());
            tag[..end].to_ascii_lowercase()
        };
        if self.languages.is_empty() || self.languages.iter().any(|l| primary(l) == primary(wanted))
        {
            return Ok(());
        }
        Err(TtsError::BadSetting(format!(
            "voice {} does not speak {wanted:?}; it speaks {}",
            self.name,
            self.languages.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn voice() -> Voice {
        Voice {
            name: "v".into(),
            family: "tone".into(),
            languages: vec!["en-US".into()],
            tags: vec![],
            speakers: vec!["ann".into(), "bob".into(), "0".into()],
            sample_rate: 16_000,
            max_chars: 100,
            resident_bytes: 0,
        }
    }

    fn speaker(name: &str) -> Settings {
        Settings {
            speaker: Some(name.into()),
            ..Settings::default()
        }
    }

    #[test]
    fn a_speaker_is_found_by_name_then_by_number() {
        assert_eq!(voice().speaker(&speaker("bob")).unwrap(), 1);
        assert_eq!(voice().speaker(&speaker("1")).unwrap(), 1);
        assert_eq!(
            voice().speaker(&speaker("0")).unwrap(),
            2,
            "a speaker who is called 0"
        );
        assert_eq!(voice().speaker(&Settings::default()).unwrap(), 0);
        let told = voice().speaker(&speaker("eve")).unwrap_err().to_string();
        assert!(told.contains("ann, bob"), "{told}");
    }

    #[test]
    fn a_speed_out_of_range_or_not_a_number_is_refused() {
        let speed = |s| {
            voice().speed(&Settings {
                speed: Some(s),
                ..Settings::default()
            })
        };
        assert_eq!(speed(0.5).unwrap(), 0.5);
        for bad in [0.0, -1.0, 2.1, f32::NAN, f32::INFINITY] {
            assert!(matches!(speed(bad), Err(TtsError::BadSetting(_))), "{bad}");
        }
    }

    #[test]
    fn a_language_fits_by_its_primary_tag() {
        let check = |l: &str| {
            voice().check_language(&Settings {
                language: Some(l.into()),
                ..Settings::default()
            })
        };
        assert!(check("en").is_ok());
        assert!(check("en-GB").is_ok());
        assert!(matches!(check("de"), Err(TtsError::BadSetting(_))));
    }
}
