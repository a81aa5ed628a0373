//! A configuration file: its keys are a command's options by their long names, its values their defaults.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Commands that have one.
const COMMANDS: [&str; 2] = ["serve", "worker"];

/// Takes the values of the configuration file that the command line or the environment names as the defaults of
/// the command it is for.
///
/// # Errors
/// A file that cannot be read, is not YAML, or has a key that is no option.
pub fn configured(command: clap::Command) -> anyhow::Result<clap::Command> {
    // What is wrong with the other arguments is told when they are read with the file's values.
    let Ok(matches) = command.clone().ignore_errors(true).try_get_matches() else {
        return Ok(command);
    };
    let Some((name, matches)) = matches.subcommand() else {
        return Ok(command);
    };
    if !COMMANDS.contains(&name) {
        return Ok(command);
    }
    let Some(file) = matches.get_one::<PathBuf>("config") else {
        return Ok(command);
    };
    let text = read(file)?;
    let subcommand = command.find_subcommand(name).cloned();
    let configured = with_defaults(subcommand.unwrap_or_default(), &text, file)?;
    Ok(command.mut_subcommand(name, |_| configured))
}

/// As [`configured`], for a command without arguments: the environment alone can name a file.
///
/// # Errors
/// As [`configured`].
pub fn configured_by_environment(command: clap::Command) -> anyhow::Result<clap::Command> {
    match std::env::var_os("DUOLOGUE_CONFIG").map(PathBuf::from) {
        Some(file) => with_defaults(command, &read(&file)?, &file),
        None => Ok(command),
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the configuration file {}", file.display()))
}

/// `on` and `off` are words here, not truth values.
pub fn yaml() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true }
}

fn with_defaults(
    mut command: clap::Command,
    text: &str,
    file: &Path,
) -> anyhow::Result<clap::Command> {
    let values: std::collections::BTreeMap<String, serde_json::Value> =
        serde_saphyr::from_str_with_options(text, yaml())
            .with_context(|| format!("in {}", file.display()))?;
    for (key, value) in values {
        let known = command
            .get_arguments()
            .find(|argument| argument.get_long() == Some(key.as_str()) && key != "config")
            .map(|argument| (argument.get_id().clone(), argument.get_value_delimiter()));
        let Some((id, delimiter)) = known else {
            bail!(
                "{}: {key:?} is not an option; `duologue {} --help` lists them",
                file.display(),
                command.get_name()
            );
        };
        let values = match (value, delimiter) {
            (serde_json::Value::Null, _) => continue,
            (serde_json::Value::Array(values), Some(_)) => values.into_iter().map(single).collect(),
            (value, _) => single(value).map(|value| vec![value]),
        };
        let Some(values) = values else {
            bail!("{}: {key} must be a single value", file.display());
        };
        command = command.mut_arg(id, |argument| argument.default_values(values));
    }
    Ok(command)
}

fn single(value: serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text),
        value @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_)) => {
            Some(value.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::serve::{ServeCommand, Switch};
    use crate::worker::WorkerCommand;

    const SERVE: &str = include_str!("../../../configs/serve.yaml");
    const WORKER: &str = include_str!("../../../configs/worker.yaml");

    fn with_file<C: FromArgMatches>(name: &'static str, yaml: &str) -> Result<C, String> {
        let command = crate::Cli::command().find_subcommand(name).unwrap().clone();
        let command = with_defaults(command, yaml, Path::new("file.yaml"))
            .map_err(|error| format!("{error:#}"))?;
        let matches = command
            .try_get_matches_from([name])
            .map_err(|error| error.to_string())?;
        C::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    fn served(yaml: &str) -> Result<ServeCommand, String> {
        with_file("serve", yaml)
    }

    fn worker(yaml: &str) -> Result<WorkerCommand, String> {
        with_file("worker", yaml)
    }

    #[test]
    fn the_examples_are_accepted_and_name_every_option() {
        served(SERVE).unwrap();
        worker(WORKER).unwrap();
        let command = crate::Cli::command();
        for (name, example) in [("serve", SERVE), ("worker", WORKER)] {
            let command = command.find_subcommand(name).unwrap();
            for long in command.get_arguments().filter_map(clap::Arg::get_long) {
                let named = example.lines().any(|line| {
                    line.trim_start_matches("# ")
                        .starts_with(&format!("{long}:"))
                });
                assert!(
                    named || long == "config",
                    "configs/{name}.yaml lacks {long}"
                );
            }
        }
    }

    #[test]
    fn the_files_of_the_deployment_examples_are_accepted() {
        served(include_str!("../../../deploy/two-hosts/serve.yaml")).unwrap();
        worker(include_str!("../../../deploy/two-hosts/worker.yaml")).unwrap();
    }

    /// The lines that are commented out because they have no default, in force.
    fn in_full(example: &str) -> String {
        let mut all = String::new();
        for line in example.lines() {
            let bare = line.trim_start_matches("# ");
            let key = bare.split(':').next().unwrap_or_default();
            let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            if is_key && bare.contains(": ") && !bare.starts_with("instructions") {
                all.push_str(bare);
                all.push('\n');
            }
        }
        all
    }

    #[test]
    fn what_the_examples_leave_out_may_be_set_as_they_say() {
        served(&in_full(SERVE)).unwrap();
        worker(&in_full(WORKER)).unwrap();
    }

    #[test]
    fn the_workers_example_spells_out_the_defaults() {
        let config = |yaml| worker(yaml).unwrap().worker_config("w".to_owned());
        assert_eq!(config(WORKER), config("{}"));
        let default = duologue_worker::WorkerConfig {
            name: "w".to_owned(),
            ..duologue_worker::WorkerConfig::default()
        };
        assert_eq!(config("{}"), default);
    }

    #[test]
    fn a_list_is_a_list() {
        let config = |yaml| worker(yaml).unwrap().worker_config("w".to_owned());
        assert_eq!(config("preload: [a, b]").preload, ["a", "b"]);
        assert_eq!(config("preload: a,b").preload, ["a", "b"]);
        let refused = worker("listen: [a, b]").err().unwrap();
        assert!(refused.contains("single value"), "{refused}");
    }

    #[test]
    fn on_and_off_are_words_and_mistakes_are_named() {
        let command = served("speculation: off\nnoise-gate: off\n").unwrap();
        assert_eq!(command.speculation, Switch::Off);
        let refused = served("speculation: maybe\n").err().unwrap();
        assert!(refused.contains("maybe"), "{refused}");
        let unknown = served("max-session: 3\n").err().unwrap();
        assert!(unknown.contains("max-session"), "{unknown}");
    }
}
