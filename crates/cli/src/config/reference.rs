//! `docs/configuration.md`: every option of the processes, out of the types that read them.

use std::fmt::Write as _;

use clap::{Arg, CommandFactory};

use super::file;

/// A secret that only the environment has.
pub struct Secret {
    /// The variable.
    pub name: &'static str,
    what: &'static str,
}

/// Secrets that stand in the environment, and nowhere else.
pub const SECRETS: [Secret; 7] = [
    Secret {
        name: "DUOLOGUE_API_KEY",
        what: "API key that `serve` asks for, and that `talk` comes with",
    },
    Secret {
        name: "DUOLOGUE_SIGNING_SECRET",
        what: "secret by which `serve` signs client secrets; or `signing-secret-file`",
    },
    Secret {
        name: "DUOLOGUE_LLM_API_KEY",
        what: "key of the language model at `llm-url`",
    },
    Secret {
        name: "OPENAI_API_KEY",
        what: "the same, where the other is not set",
    },
    Secret {
        name: "DUOLOGUE_ASR_API_KEY",
        what: "key of the speech recognizer at `asr-url`",
    },
    Secret {
        name: "LIVEKIT_API_KEY",
        what: "key of the LiveKit server at `livekit`",
    },
    Secret {
        name: "LIVEKIT_API_SECRET",
        what: "its secret",
    },
];

const BEGINNING: &str = "# Configuration

<!-- Printed by `duologue config reference`. Do not edit: DUOLOGUE_BLESS=1 cargo test -p duologue reference -->

Each option of `duologue serve` and `duologue worker` is a flag (`--max-sessions 8`), a variable of the environment
(`DUOLOGUE_MAX_SESSIONS=8`) and a key of a YAML file (`max-sessions: 8`), which `--config FILE` names. A flag counts
before the environment, that before the file, that before the default. Options that take several values take them
separated by commas, or as a list in the file. [configs/serve.yaml](../configs/serve.yaml) and
[configs/worker.yaml](../configs/worker.yaml) have all of them with comments.

```sh
duologue config check serve.yaml worker.yaml           # what is wrong with them, and with the files they name
duologue config show serve --config serve.yaml         # what was set, and where: flag, environment, file
duologue config show --effective serve                 # the defaults too
```

What is shown can be used as a file again; passwords in addresses are shown as `***`.

## Reloading

`kill -HUP` (`systemctl reload`) has `serve` read its file, and the files that it names, again. These are used from then
on:

- {reloaded}: their values, and what is in the files that they name;
- what is in the files of `tls-cert` and `tls-key`.

What else has changed is named in the log, and takes a new start. If anything is wrong, the log says what, and all stays
as it was. Sessions that run go on, also those of keys that are no more. A `worker` reloads `log`.

A server that was started at a terminal stops when that terminal is closed.

## Secrets

Passwords and keys come from files and from the environment. Those in addresses (`registry`, `journal`, `ice-server`)
are best left off the command line, which every user of the machine can read. Each is also read from a file, which the
variable with `_FILE` behind its name names: `DUOLOGUE_REGISTRY_FILE=/run/secrets/registry`; so are these, which have a
variable and nothing else:

| variable | what |
|---|---|
";

/// The page.
pub fn page() -> String {
    let reloaded: Vec<String> = crate::serve::RELOADED
        .iter()
        .map(|name| format!("`{name}`"))
        .collect();
    let mut page = BEGINNING.replace("{reloaded}", &reloaded.join(", "));
    // A String takes all that is written to it.
    for secret in SECRETS {
        let _ = writeln!(page, "| `{}` | {} |", secret.name, secret.what);
    }
    let command = crate::Cli::command();
    for (name, file) in [
        ("serve", "DUOLOGUE_CONFIG"),
        ("worker", "DUOLOGUE_WORKER_CONFIG"),
    ] {
        let _ = writeln!(
            page,
            "\n## duologue {name}\n\nThe file is named by `--config FILE` or `{file}`."
        );
        let mut options: Vec<(&str, &Arg)> = file::options(&command, name)
            .map(|argument| (argument.get_help_heading().unwrap_or_default(), argument))
            .collect();
        // Those of a heading stand together, in the order of the first of each.
        let mut headings: Vec<&str> = Vec::new();
        for (heading, _) in &options {
            if !headings.contains(heading) {
                headings.push(heading);
            }
        }
        options.sort_by_key(|(heading, _)| headings.iter().position(|other| other == heading));
        let mut current = None;
        for (heading, argument) in options {
            if current != Some(heading) {
                current = Some(heading);
                let title = if heading.is_empty() {
                    "General"
                } else {
                    heading
                };
                let _ = writeln!(
                    page,
                    "\n### {title}\n\n| option | environment | default | what |\n|---|---|---|---|"
                );
            }
            page.push_str(&row(argument));
        }
    }
    page
}

fn row(argument: &Arg) -> String {
    let flag = !argument.get_action().takes_values();
    let value = argument
        .get_value_names()
        .filter(|_| !flag)
        .and_then(|names| names.first())
        .map(|name| format!(" {name}"))
        .unwrap_or_default();
    let default = match argument.get_default_values() {
        _ if flag => "`false`".to_owned(),
        [] => String::new(),
        [empty] if empty.is_empty() => String::new(),
        values => {
            let values: Vec<_> = values.iter().map(|value| value.to_string_lossy()).collect();
            format!("`{}`", values.join(","))
        }
    };
    let help = argument
        .get_long_help()
        .or_else(|| argument.get_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let possible = argument.get_possible_values();
    if !flag && !possible.is_empty() {
        let names: Vec<String> = possible
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        let _ = write!(help, ". One of {}", names.join(", "));
    }
    format!(
        "| `{}{value}` | `{}` | {default} | {} |\n",
        argument.get_long().unwrap_or_default(),
        argument.get_env().unwrap_or_default().to_string_lossy(),
        help.replace('|', "\\|")
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_reference_is_what_the_types_say() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        let page = page();
        if std::env::var_os("DUOLOGUE_BLESS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = written.lines().zip(page.lines()).find(|(a, b)| a != b);
        assert!(
            written == page,
            "docs/configuration.md is not what the options are ({differs:?}); write it anew with \
             DUOLOGUE_BLESS=1 cargo test --release -p duologue reference"
        );
    }

    #[test]
    fn every_option_is_also_a_variable_and_says_what_it_does() {
        let command = crate::Cli::command();
        for name in file::COMMANDS {
            for argument in file::options(&command, name) {
                let long = argument.get_long().unwrap();
                assert!(
                    argument.get_env().is_some(),
                    "{name} --{long} has no variable"
                );
                assert!(argument.get_help().is_some(), "{name} --{long} has no help");
            }
        }
    }
}
