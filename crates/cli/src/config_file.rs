//! A configuration file: its keys are a command's options by their long names, its values their defaults.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Takes the configuration file's values as the defaults of the command line.
///
/// # Errors
/// A file that cannot be read, is not YAML, or has a key that is no option.
pub fn configured(command: clap::Command) -> anyhow::Result<clap::Command> {
    let named = std::env::args()
        .skip_while(|argument| argument != "--config")
        .nth(1)
        .or_else(|| {
            std::env::args()
                .find_map(|argument| argument.strip_prefix("--config=").map(str::to_owned))
        })
        .or_else(|| std::env::var("DUOLOGUE_CONFIG").ok());
    let is_serve = std::env::args()
        .nth(1)
        .is_none_or(|first| first == "serve" || first.starts_with('-'));
    let Some(file) = named.filter(|_| is_serve).map(PathBuf::from) else {
        return Ok(command);
    };
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read the configuration file {}", file.display()))?;
    with_defaults(command, &text, &file)
}

/// `on` and `off` are words here, not truth values.
pub fn yaml() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true }
}

fn with_defaults(command: clap::Command, text: &str, file: &Path) -> anyhow::Result<clap::Command> {
    let values: std::collections::BTreeMap<String, serde_json::Value> =
        serde_saphyr::from_str_with_options(text, yaml())
            .with_context(|| format!("in {}", file.display()))?;
    let top_level = command.find_subcommand("serve").is_none();
    let mut serve = match command.find_subcommand("serve") {
        Some(serve) => serve.clone(),
        None => command.clone(),
    };
    for (key, value) in values {
        let known = serve
            .get_arguments()
            .find(|argument| argument.get_long() == Some(key.as_str()) && key != "config")
            .map(|argument| argument.get_id().clone());
        let Some(id) = known else {
            bail!(
                "{}: {key:?} is not an option; `duologue serve --help` lists them",
                file.display()
            );
        };
        let value = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => text,
            value @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_)) => {
                value.to_string()
            }
            _ => bail!("{}: {key} must be a single value", file.display()),
        };
        serve = serve.mut_arg(id, |argument| argument.default_value(value));
    }
    Ok(if top_level {
        serve
    } else {
        command.mut_subcommand("serve", |_| serve)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::serve::{ServeCommand, Switch};

    const EXAMPLE: &str = include_str!("../../../configs/serve.yaml");

    fn served(yaml: &str) -> Result<ServeCommand, String> {
        let command = with_defaults(crate::Cli::command(), yaml, Path::new("serve.yaml"))
            .map_err(|error| format!("{error:#}"))?;
        let matches = command
            .try_get_matches_from(["duologue", "serve"])
            .map_err(|error| error.to_string())?;
        let (_, matches) = matches.subcommand().unwrap();
        ServeCommand::from_arg_matches(matches).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_is_accepted_and_names_every_option() {
        served(EXAMPLE).unwrap();
        let command = crate::Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for long in serve.get_arguments().filter_map(clap::Arg::get_long) {
            let named = EXAMPLE.lines().any(|line| {
                line.trim_start_matches("# ")
                    .starts_with(&format!("{long}:"))
            });
            assert!(named || long == "config", "configs/serve.yaml lacks {long}");
        }
    }

    #[test]
    fn what_the_example_leaves_out_may_be_set_as_it_says() {
        let mut all = String::new();
        for line in EXAMPLE.lines() {
            let bare = line.trim_start_matches("# ");
            let key = bare.split(':').next().unwrap_or_default();
            let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            if is_key && bare.contains(": ") && !bare.starts_with("instructions") {
                all.push_str(bare);
                all.push('\n');
            }
        }
        served(&all).unwrap();
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
