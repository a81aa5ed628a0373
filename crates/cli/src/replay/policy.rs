//! Other settings to try on a recording.

use std::path::Path;

use anyhow::{Context, bail};
use duologue_session::{Config, Overridden};
use serde_json::Value;

/// Settings given as `KEY=VALUE` or in YAML files, in order: a later one counts.
pub fn apply(config: &Config, policies: &[String]) -> anyhow::Result<(Config, Overridden)> {
    let mut settings = serde_json::to_value(config)?;
    let mut overridden = Overridden::default();
    for policy in policies {
        let change = match policy.split_once('=') {
            Some((key, value)) => nested(key, value),
            None => read(Path::new(policy))?,
        };
        let Value::Object(sections) = &change else {
            bail!("{policy}: settings are written as `section: {{key: value}}`");
        };
        for section in sections.keys() {
            let flag = match section.as_str() {
                "reply" => &mut overridden.reply,
                "turn_detection" => &mut overridden.turn_detection,
                "interruption" => &mut overridden.interruption,
                "timing" => &mut overridden.timing,
                "limits" => &mut overridden.limits,
                "speculation" => &mut overridden.speculation,
                other => bail!(
                    "{policy}: {other:?} is no section of the settings; there are reply, turn_detection, \
                     interruption, timing, limits and speculation (docs/recording.md)"
                ),
            };
            *flag = true;
        }
        merge(&mut settings, change);
    }
    let config: Config = serde_json::from_value(settings)
        .context("these are no settings (docs/recording.md shows them)")?;
    config.check().map_err(anyhow::Error::msg)?;
    Ok((config, overridden))
}

fn nested(key: &str, value: &str) -> Value {
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    key.rsplit('.').fold(value, |inner, name| {
        Value::Object(std::iter::once((name.to_owned(), inner)).collect())
    })
}

fn read(file: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| {
        format!(
            "cannot read {}; a policy is a YAML file or KEY=VALUE",
            file.display()
        )
    })?;
    serde_saphyr::from_str_with_options(&text, crate::config::yaml())
        .with_context(|| format!("in {}", file.display()))
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        // An enum with content is an object of one entry: another variant replaces it.
        (Value::Object(into), Value::Object(change))
            if into.len() != 1 || change.keys().all(|key| into.contains_key(key)) =>
        {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use duologue_session::{AtOnset, Eagerness, TurnDetection};
    use std::time::Duration;

    fn with(policies: &[&str]) -> anyhow::Result<(Config, Overridden)> {
        let policies: Vec<String> = policies.iter().map(|&policy| policy.to_owned()).collect();
        apply(&Config::default(), &policies)
    }

    #[test]
    fn a_setting_is_changed_by_its_path() {
        let (config, overridden) = with(&[
            "timing.min_silence=400",
            "interruption.at_onset=duck",
            "turn_detection.semantic_vad.eagerness=low",
        ])
        .unwrap();
        assert_eq!(config.timing.min_silence, Duration::from_millis(400));
        assert_eq!(config.interruption.at_onset, AtOnset::Duck);
        assert!(matches!(
            config.turn_detection,
            TurnDetection::SemanticVad {
                eagerness: Eagerness::Low,
                ..
            }
        ));
        assert!(overridden.timing && overridden.interruption && overridden.turn_detection);
        assert!(!overridden.limits && !overridden.reply);
    }

    #[test]
    fn another_variant_replaces_the_one_there_is() {
        let (config, _) = with(&["turn_detection=manual"]).unwrap();
        assert_eq!(config.turn_detection, TurnDetection::Manual);
    }

    #[test]
    fn what_is_no_setting_is_named() {
        for (policy, named) in [
            ("timing.min_silense=400", "min_silense"),
            ("timing.min_silence=soon", "soon"),
            ("ears.big=true", "ears"),
            ("timing.complete=3", "complete"),
            ("no-such-file.yaml", "no-such-file.yaml"),
        ] {
            let error = format!("{:#}", with(&[policy]).unwrap_err());
            assert!(error.contains(named), "{policy}: {error}");
        }
    }

    #[test]
    fn a_file_holds_several() {
        let folder = std::env::temp_dir().join(format!("policy-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("slow.yaml");
        std::fs::write(&file, "timing:\n  min_silence: 700\nspeculation: off\n").unwrap();
        let (config, overridden) = with(&[file.to_str().unwrap()]).unwrap();
        assert_eq!(config.timing.min_silence, Duration::from_millis(700));
        assert!(overridden.speculation);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
