//! How sound is written in events.

use serde_json::{Value, json};

use super::EventError;
use super::json::Fields;

/// How sound is written in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AudioEncoding {
    /// 24 kHz mono s16le.
    #[default]
    Pcm16,
    /// 8 kHz G.711 µ-law.
    G711Ulaw,
    /// 8 kHz G.711 A-law.
    G711Alaw,
}

impl AudioEncoding {
    /// Samples a second.
    #[must_use]
    pub fn sample_rate(self) -> u32 {
        match self {
            Self::Pcm16 => 24_000,
            Self::G711Ulaw | Self::G711Alaw => 8_000,
        }
    }

    /// Bytes a sample.
    #[must_use]
    pub fn sample_bytes(self) -> usize {
        match self {
            Self::Pcm16 => 2,
            Self::G711Ulaw | Self::G711Alaw => 1,
        }
    }

    pub(super) fn beta_name(self) -> &'static str {
        match self {
            Self::Pcm16 => "pcm16",
            Self::G711Ulaw => "g711_ulaw",
            Self::G711Alaw => "g711_alaw",
        }
    }

    pub(super) fn to_json(self) -> Value {
        match self {
            Self::Pcm16 => json!({"type": "audio/pcm", "rate": 24_000}),
            Self::G711Ulaw => json!({"type": "audio/pcmu"}),
            Self::G711Alaw => json!({"type": "audio/pcma"}),
        }
    }

    pub(super) fn parse(value: &Value, path: &str) -> Result<Self, EventError> {
        let (name, rate) = match value {
            Value::String(name) => (name.as_str(), None),
            _ => {
                let fields = Fields::of(value, path)?;
                (fields.required_text("type")?, fields.get("rate"))
            }
        };
        let encoding = match name {
            "pcm16" | "audio/pcm" => Self::Pcm16,
            "g711_ulaw" | "audio/pcmu" => Self::G711Ulaw,
            "g711_alaw" | "audio/pcma" => Self::G711Alaw,
            other => {
                return Err(EventError::value(
                    path,
                    format!(
                        "{other:?} is not a known audio format: use audio/pcm (24 kHz), audio/pcmu or audio/pcma"
                    ),
                ));
            }
        };
        match rate {
            Some(rate) if rate.as_u64() != Some(u64::from(encoding.sample_rate())) => {
                Err(EventError::value(
                    format!("{path}.rate"),
                    format!(
                        "{rate} Hz is not offered for {name}: use {}",
                        encoding.sample_rate()
                    ),
                ))
            }
            _ => Ok(encoding),
        }
    }
}
