//! From files to scenes: a matrix makes many of one.
//!
//! `matrix` lists values by name, and every combination becomes a scene; `cases` lists sets of values that go
//! together. `$name` in the file stands for the value: alone it is the value itself, a number where it is one;
//! within a text it is the value's text. The order is that of the names and lists, so the same files always make
//! the same scenes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::Scene;

/// Most scenes of one file.
const MOST: usize = 500;

/// A file of scenes that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no YAML, or not what a scene is.
    #[error("{file}: {reason}")]
    Format {
        /// Its name.
        file: String,
        /// What is wrong and where, for people.
        reason: String,
    },
    /// There are none.
    #[error("there is no scene in {0}; scenes are files that end in .yaml")]
    None(PathBuf),
}

/// All scenes of a folder, by the names of its files; folders in it are left out.
///
/// # Errors
/// The first file that cannot be used, and why.
pub fn load_dir(dir: &Path) -> Result<Vec<Scene>, SceneError> {
    let read = |path: &Path, source| SceneError::Read {
        path: path.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|error| read(dir, error))? {
        let path = entry.map_err(|error| read(dir, error))?.path();
        if path.extension().is_some_and(|end| end == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    let mut scenes = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|error| read(&file, error))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        scenes.extend(parse(&name, &text)?);
    }
    if scenes.is_empty() {
        return Err(SceneError::None(dir.to_owned()));
    }
    Ok(scenes)
}

/// The scenes of one file's text.
///
/// # Errors
/// What is wrong and where.
pub fn parse(name: &str, text: &str) -> Result<Vec<Scene>, SceneError> {
    let wrong = |reason: String| SceneError::Format {
        file: name.to_owned(),
        reason,
    };
    let mut file: Map<String, Value> =
        serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let matrix: BTreeMap<String, Vec<Value>> = taken(&mut file, "matrix").map_err(wrong)?;
    let cases: Vec<BTreeMap<String, Value>> = taken(&mut file, "cases").map_err(wrong)?;
    let mut sets: Vec<Vec<(String, Value)>> = match cases.is_empty() {
        true => vec![Vec::new()],
        false => cases
            .into_iter()
            .map(|case| case.into_iter().collect())
            .collect(),
    };
    for (key, values) in matrix {
        if values.is_empty() {
            return Err(wrong(format!("matrix.{key} has no values")));
        }
        sets = sets
            .into_iter()
            .flat_map(|set| {
                let key = &key;
                values.iter().map(move |value| {
                    let mut set = set.clone();
                    set.push((key.clone(), value.clone()));
                    set
                })
            })
            .collect();
        if sets.len() > MOST {
            return Err(wrong(format!("the matrix makes more than {MOST} scenes")));
        }
    }
    let file = Value::Object(file);
    let mut scenes: Vec<Scene> = Vec::new();
    for set in sets {
        let mut value = file.clone();
        substitute(&mut value, &set).map_err(wrong)?;
        let mut scene: Scene =
            serde_path_to_error::deserialize(value).map_err(|error| wrong(error.to_string()))?;
        let labels: Vec<String> = set.iter().map(|(_, value)| label(value)).collect();
        scene.name = match labels.is_empty() {
            true => name.to_owned(),
            false => format!("{name}/{}", labels.join("+")),
        };
        let named = |reason: String| wrong(format!("{}: {reason}", scene.name));
        scene.check().map_err(named)?;
        if scenes.iter().any(|other| other.name == scene.name) {
            return Err(wrong(format!("two scenes are called {}", scene.name)));
        }
        scenes.push(scene);
    }
    Ok(scenes)
}

/// Takes a list of values out of the file.
fn taken<T: Default + serde::de::DeserializeOwned>(
    file: &mut Map<String, Value>,
    key: &str,
) -> Result<T, String> {
    file.remove(key).map_or_else(
        || Ok(T::default()),
        |value| serde_path_to_error::deserialize(value).map_err(|error| format!("{key}: {error}")),
    )
}

/// Puts the values in the place of their names.
fn substitute(value: &mut Value, set: &[(String, Value)]) -> Result<(), String> {
    match value {
        Value::String(text) => {
            if let Some(whole) = text.strip_prefix('$')
                && let Some((_, given)) = set.iter().find(|(key, _)| key == whole)
            {
                *value = given.clone();
                return Ok(());
            }
            // Longer names first: `$snr_low` is not `$snr`.
            let mut keys: Vec<&(String, Value)> = set.iter().collect();
            keys.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
            for (key, given) in keys {
                let given = match given {
                    Value::String(given) => given.clone(),
                    other => other.to_string(),
                };
                *text = text.replace(&format!("${key}"), &given);
            }
            match text.find('$') {
                Some(at) => Err(format!(
                    "{:?} has no value in `matrix` or `cases`",
                    text[at..].split_whitespace().next().unwrap_or_default()
                )),
                None => Ok(()),
            }
        }
        Value::Array(values) => values
            .iter_mut()
            .try_for_each(|value| substitute(value, set)),
        Value::Object(values) => values
            .values_mut()
            .try_for_each(|value| substitute(value, set)),
        _ => Ok(()),
    }
}

/// A value as a part of a name that a file can have.
fn label(value: &Value) -> String {
    let text = match value {
        Value::String(text) => {
            let file = text.rsplit('/').next().unwrap_or(text);
            match file.rsplit_once('.') {
                Some((stem, end)) if ["flac", "ogg", "wav", "mp3"].contains(&end) => stem,
                _ => text.as_str(),
            }
            .to_owned()
        }
        Value::Array(values) => values.iter().map(label).collect::<Vec<_>>().join("_"),
        other => other.to_string(),
    };
    let mut out = String::new();
    for c in text.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || c == '.' || c == '-' => out.push(c),
            _ if out.ends_with('_') => {}
            _ => out.push('_'),
        }
    }
    out.trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Act, Spoken};

    const FILE: &str = "
about: A test.
kind: sound
replies: [{text: The old harbour opens at seven.}]
script:
  - {at: 0.5, type: Hello.}
  - {at: reply + $after, sound: $clip, level: $level, name: noise}
expect: [{event: completion, since: reply, within_ms: 9000}]
absent: [{event: interruption}]
";

    fn file(more: &str) -> String {
        format!("{FILE}{more}")
    }

    fn error(text: &str) -> String {
        parse("x", text).unwrap_err().to_string()
    }

    #[test]
    fn a_matrix_makes_every_combination_in_a_fixed_order() {
        let text =
            file("matrix: {clip: [noise/door.ogg, noise/burp.ogg], after: [0.5, 2], level: [-20]}");
        let scenes = parse("door", &text).unwrap();
        let names: Vec<&str> = scenes.iter().map(|scene| scene.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "door/0.5+door+-20",
                "door/0.5+burp+-20",
                "door/2+door+-20",
                "door/2+burp+-20"
            ]
        );
        assert_eq!(scenes[1].script[1].level, Some(-20.0));
        assert_eq!(scenes[2].script[1].at, "reply + 2".parse().unwrap());
        let clip = Spoken::Clip("noise/burp.ogg".into());
        assert_eq!(scenes[1].script[1].act(), Act::Sound(vec![clip]));
    }

    #[test]
    fn cases_go_together_and_a_matrix_goes_over_them() {
        let text = file(
            "cases: [{clip: a.ogg, level: -20}, {clip: b.ogg, level: -30}]\nmatrix: {after: [1, 2]}",
        );
        assert_eq!(parse("x", &text).unwrap().len(), 4);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let good = "matrix: {clip: [a.ogg], after: [1], level: [-20]}\n";
        assert!(parse("x", &file(good)).is_ok());
        for (text, said) in [
            (file(""), "$after"),
            (file(&format!("{good}colour: red")), "colour"),
            (file(good).replace("name: noise", "nmae: noise"), "nmae"),
            (file(good).replace("kind: sound", "kind: loud"), "loud"),
            (
                file(good).replace("event: interruption", "event: interuption"),
                "interuption",
            ),
            (
                file(good).replace("since: reply", "since: nobody"),
                "nobody",
            ),
            (
                file(good).replace("at: 0.5", "at: word nine"),
                "does not say that word",
            ),
            (
                file(good).replace("type: Hello.", "level: -3"),
                "one of `say`",
            ),
            (file(good).replace("[a.ogg]", "[]"), "matrix.clip"),
        ] {
            let message = error(&text);
            assert!(message.contains(said), "{said}: {message}");
        }
    }
}
