//! Files and records that came from elsewhere.

use std::path::Path;

use duologue_orchestrator::journal::Record;
use duologue_orchestrator::routing::Policies;
use duologue_registry::WorkerRecord;
use duologue_voicepack::{Catalogue, Metadata};

/// A description; what is written of one reads back the same.
pub fn voicepack_metadata(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let file = Path::new("metadata.yaml");
    match Metadata::parse(&text, file) {
        Ok(metadata) => {
            let again = Metadata::parse(&metadata.to_yaml(), file);
            assert_eq!(again.as_ref().ok(), Some(&metadata), "{again:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let mut catalogue = Catalogue::default();
    if catalogue.add(&text, Path::new("catalogue.yaml")).is_ok() {
        for entry in catalogue.entries() {
            let _ = (entry.size(), entry.metadata());
        }
    }
}

/// A file of either.
pub fn policies_and_scenes(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(policies) = Policies::read(&text) {
        assert!(policies.get("default").is_ok());
    }
    if let Ok(scenes) = duologue_scenes::parse("scene", &text) {
        assert!(scenes.len() <= 500);
    }
}

/// The first byte says which.
pub fn model_header(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else {
        return;
    };
    match which % 3 {
        0 => duologue_tts::fuzzing::piper_config(&String::from_utf8_lossy(rest)),
        1 => duologue_tts::fuzzing::piper_graph(rest),
        _ => duologue_asr::fuzzing::vocabulary(rest),
    }
}

/// The first byte says which.
pub fn package_index(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    match which % 3 {
        0 => duologue_voicepack::fuzzing::index_json(&text),
        1 => duologue_voicepack::fuzzing::index_html(&text),
        _ => duologue_voicepack::fuzzing::pip_configuration(&text),
    }
}

/// A record of the journal, or of the registry.
pub fn stored_record(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(record) = Record::from_json(&text)
        && let Ok(written) = record.to_json()
    {
        assert!(Record::from_json(&written).is_ok(), "{written}");
    }
    if let Ok(record) = serde_json::from_str::<WorkerRecord>(&text) {
        let _ = record.voice("tone");
    }
}
