//! Whether a configuration file can be used: by itself, whatever flags and environment would say.

use std::fmt;
use std::path::Path;

use anyhow::{Context, bail};
use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches};
use duologue_orchestrator::routing::Policies;

use super::file;
use crate::serve::ServeCommand;
use crate::worker::WorkerCommand;

/// A file that can be used.
#[derive(Debug)]
pub struct Checked {
    what: String,
    /// What it needs beside itself.
    notes: Vec<String>,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

/// Checks a file, and the files that it names.
///
/// # Errors
/// What is wrong with it.
pub fn file(path: &Path) -> anyhow::Result<Checked> {
    let text = std::fs::read_to_string(path).context("cannot be read")?;
    let values = file::read(path)?;
    if values.contains_key("policies") {
        Policies::read(&text)?;
        return Ok(Checked {
            what: "routing policies, nothing wrong".to_owned(),
            notes: Vec::new(),
        });
    }
    let command = deaf();
    // It is for the process of which it has more options.
    let unknown = |name: &str| file::unknown(&command, name, &values);
    let name = match unknown("worker").len() < unknown("serve").len() {
        true => "worker",
        false => "serve",
    };
    let wrong = unknown(name);
    if !wrong.is_empty() {
        let told = wrong
            .iter()
            .map(|key| file::not_an_option(&command, name, key));
        bail!("{}", told.collect::<Vec<_>>().join("; "));
    }
    let arguments = ["duologue", name, "--config"].map(Into::into);
    let arguments: Vec<std::ffi::OsString> = arguments
        .into_iter()
        .chain([path.as_os_str().to_owned()])
        .collect();
    let (command, _) = file::configured(command, &arguments)?;
    let matches = command
        .try_get_matches_from(arguments)
        .map_err(|error| anyhow::anyhow!("{}", error.to_string().trim_end()))?;
    let notes = match matches.subcommand() {
        Some(("serve", matches)) => ServeCommand::from_arg_matches(matches)?.check()?,
        Some((_, matches)) => WorkerCommand::from_arg_matches(matches)?.check()?,
        None => Vec::new(),
    };
    Ok(Checked {
        what: format!(
            "{} options of `duologue {name}`, nothing wrong",
            values.len()
        ),
        notes,
    })
}

/// The program's arguments, of which none is read from the environment.
fn deaf() -> clap::Command {
    let silent = |argument: clap::Arg| argument.env(Resettable::Reset);
    let mut command = crate::Cli::command().mut_args(silent);
    for name in file::COMMANDS {
        command = command.mut_subcommand(name, |command| command.mut_args(silent));
    }
    command
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.yaml");
        std::fs::write(&path, text.replace("HERE", folder.path().to_str().unwrap())).unwrap();
        std::fs::write(
            folder.path().join("keys.yaml"),
            "ada: ada-0123456789abcdef\n",
        )
        .unwrap();
        std::fs::write(folder.path().join("short.yaml"), "ada: short\n").unwrap();
        let checked = file(&path).map(|checked| checked.to_string());
        checked.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_files_that_are_shipped_are_found_right() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (name, what) in [
            ("configs/serve.yaml", "duologue serve"),
            ("configs/worker.yaml", "duologue worker"),
            ("configs/routing.yaml", "routing policies"),
            ("deploy/two-hosts/serve.yaml", "duologue serve"),
            ("deploy/two-hosts/worker-speak.yaml", "duologue worker"),
            ("deploy/compose/serve.yaml", "duologue serve"),
            ("deploy/compose/worker.yaml", "duologue worker"),
            ("deploy/kubernetes/config/serve.yaml", "duologue serve"),
            ("deploy/kubernetes/config/worker.yaml", "duologue worker"),
        ] {
            let told = file(&root.join(name)).unwrap().to_string();
            assert!(told.contains(what), "{name}: {told}");
        }
    }

    #[test]
    fn a_server_that_others_reach_is_told_that_it_needs_a_key() {
        let told = checked("listen: 0.0.0.0:8080\n").unwrap();
        assert!(told.contains("DUOLOGUE_API_KEY"), "{told}");
        let told = checked("listen: 0.0.0.0:8080\napi-keys: HERE/keys.yaml\n").unwrap();
        assert!(!told.contains("DUOLOGUE_API_KEY"), "{told}");
    }

    #[test]
    fn what_is_wrong_is_told_in_the_file_and_in_those_that_it_names() {
        let cases = [
            ("max-session: 3\nvioce: tone\n", "did you mean \"voice\"?"),
            (
                "default-voise: tone\nmax-resident: 2\n",
                "did you mean \"default-voice\"?",
            ),
            ("max-sessions: many\n", "many"),
            ("api-keys: HERE/none.yaml\n", "none.yaml"),
            ("api-keys: HERE/short.yaml\n", "shorter than 16"),
            (
                "api-keys: HERE/keys.yaml\nallow-anyone: true\n",
                "contradict",
            ),
            (
                "routing: HERE/keys.yaml\n",
                "not a file of routing policies",
            ),
            ("policy: mine\n", "no routing policy \"mine\""),
            (
                "tls-cert: HERE/keys.yaml\ntls-key: HERE/keys.yaml\n",
                "no certificate",
            ),
            ("instructions: '@HERE/none.txt'\n", "none.txt"),
            ("cors-origin: app.example\n", "not a site"),
            ("worker: 'not an address'\n", "not an address"),
            (
                "policies: {mine: {requires: []}}\n",
                "not a file of routing policies",
            ),
            ("- a\n", "file.yaml"),
        ];
        for (text, told) in cases {
            let error = checked(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
