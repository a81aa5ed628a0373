//! Checks of what a request says.

use duologue_rpc::VoiceSettings;
use duologue_tts::Settings;

use crate::refusal::Refusal;

const MAX_ID: usize = 128;

/// Checks a session's or an utterance's id.
pub(crate) fn check_id(what: &'static str, id: &str) -> Result<(), Refusal> {
    if (1..=MAX_ID).contains(&id.len()) {
        return Ok(());
    }
    Err(Refusal::BadId {
        what,
        bytes: id.len(),
        limit: MAX_ID,
    })
}

/// What a field left at its default means.
pub(crate) fn settings(from: Option<VoiceSettings>) -> Settings {
    let from = from.unwrap_or_default();
    let given = |s: String| (!s.is_empty()).then_some(s);
    Settings {
        speaker: given(from.speaker),
        speed: (from.speed != 0.0).then_some(from.speed),
        language: given(from.language),
    }
}
