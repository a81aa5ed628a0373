//! A configuration file: its keys are a command's options by their long names, its values their defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

/// Commands that have one.
pub const COMMANDS: [&str; 2] = ["serve", "worker"];
/// How like an option's name a word must be to be told as what was meant.
const ALIKE: f64 = 0.75;

/// The configuration file of a command, as it is in force.
#[derive(Debug)]
pub struct InForce {
    /// Where it is.
    pub file: PathBuf,
    /// Its keys.
    pub keys: BTreeSet<String>,
}

/// Takes the values of the configuration file that `arguments` or the environment name as the defaults of the command
/// it is for.
///
/// # Errors
/// A file that cannot be read, is not YAML, or has a key that is no option.
pub fn configured(
    command: clap::Command,
    arguments: &[std::ffi::OsString],
) -> anyhow::Result<(clap::Command, Option<InForce>)> {
    // What is wrong with the other arguments is told when they are read with the file's values.
    let lenient = command.clone().ignore_errors(true);
    let Ok(matches) = lenient.try_get_matches_from(arguments) else {
        return Ok((command, None));
    };
    let Some((name, matches)) = matches.subcommand() else {
        return Ok((command, None));
    };
    if !COMMANDS.contains(&name) {
        return Ok((command, None));
    }
    let Some(file) = matches.get_one::<PathBuf>("config") else {
        return Ok((command, None));
    };
    let values = read(file)?;
    let keys = values.keys().cloned().collect();
    let command = with_defaults(command, name, values, file)?;
    let file = file.clone();
    Ok((command, Some(InForce { file, keys })))
}

/// The keys of a file and their values.
///
/// # Errors
/// A file that cannot be read, or is not YAML with keys.
pub fn read(file: &Path) -> anyhow::Result<BTreeMap<String, Value>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the configuration file {}", file.display()))?;
    keys_of(&text).with_context(|| format!("in {}", file.display()))
}

fn keys_of(text: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    Ok(serde_saphyr::from_str_with_options(text, yaml())?)
}

/// `on` and `off` are words here, not truth values. What is wrong is told without quoting the file, which may hold
/// passwords.
pub fn yaml() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true, with_snippet: false }
}

/// The argument of a command that a key means: an option of its own, or one of all commands.
pub fn argument<'c>(command: &'c clap::Command, name: &str, key: &str) -> Option<&'c clap::Arg> {
    let named = |argument: &&clap::Arg| argument.get_long() == Some(key) && key != "config";
    let own = command
        .find_subcommand(name)
        .and_then(|command| command.get_arguments().find(named));
    own.or_else(|| {
        command
            .get_arguments()
            .find(|argument| argument.is_global_set() && named(argument))
    })
}

/// The options of a command that a file can have.
pub fn options<'c>(
    command: &'c clap::Command,
    name: &str,
) -> impl Iterator<Item = &'c clap::Arg> + use<'c> {
    let own = command
        .find_subcommand(name)
        .map(clap::Command::get_arguments);
    let global = command
        .get_arguments()
        .filter(|argument| argument.is_global_set());
    own.into_iter()
        .flatten()
        .filter(|argument| !argument.is_global_set())
        .chain(global)
        .filter(|argument| argument.get_long().is_some_and(|long| long != "config"))
}

/// Keys of a file that are no options of a command.
pub fn unknown<'v>(
    command: &clap::Command,
    name: &str,
    values: &'v BTreeMap<String, Value>,
) -> Vec<&'v String> {
    let is_unknown = |key: &&String| argument(command, name, key).is_none();
    values.keys().filter(is_unknown).collect()
}

/// What is said of a key that is no option, with the option that is most like it.
pub fn not_an_option(command: &clap::Command, name: &str, key: &str) -> String {
    let longs = options(command, name).filter_map(clap::Arg::get_long);
    let nearest = longs
        .map(|long| (strsim::jaro_winkler(long, &key.replace('_', "-")), long))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let help = format!("`duologue {name} --help` lists them");
    match nearest {
        Some((_, long)) => format!("{key:?} is not an option; did you mean {long:?}? {help}"),
        None => format!("{key:?} is not an option; {help}"),
    }
}

fn with_defaults(
    mut command: clap::Command,
    name: &str,
    values: BTreeMap<String, Value>,
    file: &Path,
) -> anyhow::Result<clap::Command> {
    for (key, value) in values {
        let Some(known) = argument(&command, name, &key) else {
            bail!(
                "{}: {}",
                file.display(),
                not_an_option(&command, name, &key)
            );
        };
        let (id, global) = (known.get_id().clone(), known.is_global_set());
        let values = match (value, known.get_value_delimiter()) {
            (Value::Null, _) => continue,
            (Value::Array(values), Some(_)) => values.into_iter().map(single).collect(),
            (value, _) => single(value).map(|value| vec![value]),
        };
        let Some(values) = values else {
            bail!("{}: {key} must be a single value", file.display());
        };
        let set = |argument: clap::Arg| argument.default_values(values);
        command = match global {
            true => command.mut_arg(id, set),
            false => command.mut_subcommand(name, |command| command.mut_arg(id, set)),
        };
    }
    Ok(command)
}

fn single(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        value @ (Value::Bool(_) | Value::Number(_)) => Some(value.to_string()),
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

    const SERVE: &str = include_str!("../../../../configs/serve.yaml");
    const WORKER: &str = include_str!("../../../../configs/worker.yaml");

    fn with_file<C: FromArgMatches>(name: &'static str, yaml: &str) -> Result<C, String> {
        let values = keys_of(yaml).map_err(|error| format!("{error:#}"))?;
        let command = with_defaults(crate::Cli::command(), name, values, Path::new("file.yaml"))
            .map_err(|error| format!("{error:#}"))?;
        let matches = command
            .try_get_matches_from(["duologue", name])
            .map_err(|error| error.to_string())?;
        let (_, matches) = matches.subcommand().unwrap();
        C::from_arg_matches(matches).map_err(|error| error.to_string())
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
            for long in options(&command, name).filter_map(clap::Arg::get_long) {
                let named = example.lines().any(|line| {
                    line.trim_start_matches("# ")
                        .starts_with(&format!("{long}:"))
                });
                assert!(named, "configs/{name}.yaml lacks {long}");
            }
        }
    }

    #[test]
    fn the_files_of_the_deployment_examples_are_accepted() {
        served(include_str!("../../../../deploy/two-hosts/serve.yaml")).unwrap();
        worker(include_str!(
            "../../../../deploy/two-hosts/worker-speak.yaml"
        ))
        .unwrap();
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
        let unknown = served("max_session: 3\n").err().unwrap();
        assert!(
            unknown.contains("did you mean \"max-sessions\"?"),
            "{unknown}"
        );
        let unknown = served("zebra: 3\n").err().unwrap();
        assert!(
            unknown.contains("is not an option; `duologue serve"),
            "{unknown}"
        );
    }

    #[test]
    fn what_is_not_yaml_is_told_without_quoting_a_password() {
        let refused = served("registry: redis://:secret@host\nlisten: [\n")
            .err()
            .unwrap();
        assert!(!refused.contains("secret"), "{refused}");
    }
}
