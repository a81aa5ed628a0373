//! The options of a process as they are in force, and where each comes from.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::file::{self, InForce};
use crate::secret;

/// What stands where a secret does.
const HIDDEN: &str = "***";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// A variable of the environment.
    Environment(String),
    /// A configuration file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => write!(f, "flag"),
            Self::Environment(name) => write!(f, "environment, {name}"),
            Self::File(file) => write!(f, "file, {}", file.display()),
            Self::Default => write!(f, "default"),
        }
    }
}

/// An option of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, which is its key in a file.
    pub name: String,
    /// Its values; none: it is not set.
    pub values: Vec<String>,
    /// Where they come from.
    pub source: Source,
    /// Whether they may hold a password.
    secret: bool,
    /// Whether it takes several.
    list: bool,
}

/// Whether an option's values may hold a password: then the help does not show what the environment has.
pub fn is_secret(argument: &Arg) -> bool {
    argument.is_hide_env_values_set()
}

/// The options of a command that was read.
pub fn settings(
    command: &Command,
    name: &str,
    matches: &ArgMatches,
    in_force: Option<&InForce>,
) -> Vec<Setting> {
    file::options(command, name)
        .map(|argument| {
            let long = argument.get_long().unwrap_or_default();
            let id = argument.get_id().as_str();
            let values = matches.get_raw(id).into_iter().flatten();
            let values: Vec<String> = values
                .map(|value| value.to_string_lossy().into_owned())
                .collect();
            let environment = || {
                let name = argument.get_env().unwrap_or_default();
                Source::Environment(name.to_string_lossy().into_owned())
            };
            let source = match (matches.value_source(id), in_force) {
                (Some(ValueSource::CommandLine), _) => Source::Flag,
                (Some(ValueSource::EnvVariable), _) => environment(),
                (Some(_), _) if secret::variable(argument).is_some() => {
                    Source::Environment(secret::variable(argument).unwrap_or_default())
                }
                (Some(_), Some(in_force)) if in_force.keys.contains(long) => {
                    Source::File(in_force.file.clone())
                }
                _ => Source::Default,
            };
            Setting {
                name: long.to_owned(),
                values,
                source,
                secret: is_secret(argument),
                list: argument.get_value_delimiter().is_some(),
            }
        })
        .collect()
}

impl Setting {
    /// Whether a password stands on the command line, where every user of the machine can read it.
    pub fn is_exposed(&self) -> bool {
        self.secret && self.source == Source::Flag && self.values.iter().any(|v| v.contains('@'))
    }

    /// A line of a configuration file, without the secret in it.
    fn line(&self) -> String {
        let values = self.values.iter().map(|value| match self.secret {
            true => without_secret(value),
            false => value.clone(),
        });
        let mut scalars: Vec<String> = values.map(|value| scalar(&value)).collect();
        match (self.list, scalars.len()) {
            (_, 0) => format!("# {}:", self.name),
            (true, _) => format!("{}: [{}]", self.name, scalars.join(", ")),
            (false, _) => format!("{}: {}", self.name, scalars.pop().unwrap_or_default()),
        }
    }
}

/// Settings as a configuration file, with where each comes from; the defaults too, or only what was set.
pub fn show(settings: &[Setting], defaults: bool) -> String {
    let shown = settings
        .iter()
        .filter(|setting| defaults || setting.source != Source::Default);
    let lines: Vec<(String, &Setting)> = shown.map(|setting| (setting.line(), setting)).collect();
    let width = lines.iter().map(|(line, _)| line.chars().count().min(48));
    let width = width.max().unwrap_or(0);
    let mut page = String::new();
    for (line, setting) in lines {
        let source = match setting.values.is_empty() {
            true => "not set".to_owned(),
            false => setting.source.to_string(),
        };
        // A String takes all that is written to it.
        let _ = writeln!(page, "{line:width$}  # {source}");
    }
    page
}

/// An address without the password in it.
fn without_secret(value: &str) -> String {
    let Some((before, host)) = value.rsplit_once('@') else {
        return value.to_owned();
    };
    let scheme = match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://"),
        None => before
            .split_once(':')
            .map(|(scheme, _)| format!("{scheme}:"))
            .unwrap_or_default(),
    };
    format!("{scheme}{HIDDEN}@{host}")
}

/// A value as YAML has it: plain where that reads as the same.
fn scalar(value: &str) -> String {
    let plain = !value.is_empty()
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:+@".contains(&byte))
        && value.as_bytes()[0].is_ascii_alphanumeric()
        && !value.ends_with(':')
        && !value.contains(": ")
        && !["null", "true", "false"].contains(&value.to_ascii_lowercase().as_str());
    match plain || ["true", "false"].contains(&value) {
        true => value.to_owned(),
        false => serde_json::Value::from(value).to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Vec<Setting> {
        let arguments = std::iter::once("duologue").chain(arguments.iter().copied());
        let read = crate::config::read(arguments.map(Into::into).collect());
        read.ok().unwrap().settings
    }

    fn setting<'s>(settings: &'s [Setting], name: &str) -> &'s Setting {
        settings
            .iter()
            .find(|setting| setting.name == name)
            .unwrap()
    }

    #[test]
    fn each_value_has_the_place_it_comes_from() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("serve.yaml");
        std::fs::write(&file, "voice: tone\nmax-sessions: 8\nlog: debug\n").unwrap();
        let path = file.to_str().unwrap();
        let settings = read(&["serve", "--config", path, "--max-sessions", "3"]);
        assert_eq!(
            setting(&settings, "voice").source,
            Source::File(file.clone())
        );
        assert_eq!(setting(&settings, "voice").values, ["tone"]);
        assert_eq!(setting(&settings, "log").values, ["debug"]);
        assert_eq!(setting(&settings, "max-sessions").source, Source::Flag);
        assert_eq!(setting(&settings, "max-sessions").values, ["3"]);
        assert_eq!(setting(&settings, "asr-threads").source, Source::Default);
        assert!(setting(&settings, "goodbye").values.is_empty());
        let shown = show(&settings, false);
        assert_eq!(shown.lines().count(), 3, "{shown}");
        assert!(shown.contains("max-sessions: 3  # flag"), "{shown}");
    }

    #[test]
    fn without_a_command_it_is_serve() {
        assert_eq!(setting(&read(&[]), "max-sessions").values, ["4"]);
        assert_eq!(setting(&read(&["--log", "debug"]), "log").values, ["debug"]);
    }

    #[test]
    fn what_is_shown_can_be_read_again_and_is_the_same() {
        let given = [
            "serve",
            "--goodbye",
            "I go: now, \"really\" # yes",
            "--public-address",
            "10.0.0.2,::1",
            "--no-webrtc",
            "--speculation",
            "off",
            "--instructions",
            "null",
            "--livekit-room",
            "1",
            "--livekit",
            "wss://host",
            "--language",
            "-",
        ];
        let settings = read(&given);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shown.yaml");
        std::fs::write(&file, show(&settings, true)).unwrap();
        let again = read(&["serve", "--config", file.to_str().unwrap()]);
        for (before, after) in settings.iter().zip(&again) {
            assert_eq!((&before.name, &before.values), (&after.name, &after.values));
        }
    }

    #[test]
    fn passwords_in_addresses_are_not_shown() {
        let given = [
            "serve",
            "--registry",
            "redis://:s3cret@10.0.0.2:6379/1",
            "--journal",
            "redis://me:s3cret@host",
            "--ice-server",
            "stun:stun.example.org:3478,turn:ada:s3cr@et@turn.example.org:3478",
        ];
        let settings = read(&given);
        let exposed = settings.iter().filter(|setting| setting.is_exposed());
        assert_eq!(exposed.count(), 3);
        let shown = show(&settings, true);
        assert!(!shown.contains("s3cr") && !shown.contains("ada"), "{shown}");
        assert!(shown.contains("redis://***@10.0.0.2:6379/1"), "{shown}");
        assert!(shown.contains("turn:***@turn.example.org:3478"), "{shown}");
        assert!(shown.contains("stun:stun.example.org:3478"), "{shown}");
    }
}
