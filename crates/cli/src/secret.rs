//! Secrets: from the environment, or from files that the environment names, as containers and service managers hand
//! them over. A file keeps them out of what shows a process's environment: `DUOLOGUE_REGISTRY_FILE=/run/secrets/registry`.
//!
//! An option is a secret if the values of its environment variable are hidden in `--help`.

use std::ffi::OsString;

use anyhow::{Context, bail};
use clap::{Arg, Command, Id};

/// The key of a server: what it asks its clients for, and what they send.
pub const API_KEY: &str = "DUOLOGUE_API_KEY";
/// What the name of a variable ends in that names a file.
const FILE: &str = "_FILE";

/// The secret of that name: the variable's value, or the content of the file that `NAME_FILE` names.
///
/// # Errors
/// A file that is named and cannot be read, or that is empty.
pub fn secret(name: &str) -> anyhow::Result<Option<String>> {
    secret_from(name, |name| std::env::var_os(name))
}

fn secret_from(
    name: &str,
    environment: impl Fn(&str) -> Option<OsString>,
) -> anyhow::Result<Option<String>> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let Some(value) = set(name) {
        let value = value.into_string().ok();
        return Ok(Some(value.with_context(|| format!("{name} is not UTF-8"))?));
    }
    let variable = format!("{name}{FILE}");
    let Some(file) = set(&variable) else {
        return Ok(None);
    };
    let shown = file.to_string_lossy();
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("{variable}: cannot read {shown}"))?;
    match text.trim() {
        "" => bail!("{variable}: {shown} is empty"),
        text => Ok(Some(text.to_owned())),
    }
}

/// Takes files that the environment names as the defaults of the options that are secrets, of the command that
/// `arguments` call. They count before the configuration file.
///
/// # Errors
/// As [`secret`].
pub fn with_files(command: Command, arguments: &[OsString]) -> anyhow::Result<Command> {
    with_files_from(command, arguments, |name| std::env::var_os(name))
}

fn with_files_from(
    mut command: Command,
    arguments: &[OsString],
    environment: impl Fn(&str) -> Option<OsString>,
) -> anyhow::Result<Command> {
    // What is wrong with the arguments is told when they are read for good.
    let lenient = command.clone().ignore_errors(true);
    let matches = lenient.try_get_matches_from(arguments).ok();
    let called = matches
        .as_ref()
        .and_then(|matches| matches.subcommand_name());
    let Some((name, called)) = called.and_then(|name| Some((name, command.find_subcommand(name)?)))
    else {
        return Ok(command);
    };
    let secrets: Vec<(Id, String)> = called
        .get_arguments()
        .filter_map(|argument| Some((argument.get_id().clone(), secret_of(argument)?)))
        .collect();
    for (id, variable) in secrets {
        // Where the variable itself is set, clap reads it.
        if let Some(value) = secret_from(&variable, &environment)? {
            // Help tells defaults, and must not tell this one.
            let set = |argument: Arg| argument.default_value(value).hide_default_value(true);
            command = command.mut_subcommand(name, |command| command.mut_arg(id, set));
        }
    }
    Ok(command)
}

/// The variable of an option that is a secret.
fn secret_of(argument: &Arg) -> Option<String> {
    let variable = argument
        .get_env()
        .filter(|_| argument.is_hide_env_values_set());
    variable.map(|name| name.to_string_lossy().into_owned())
}

/// The variable that names the file of an option's value, where there is one.
pub fn variable(argument: &Arg) -> Option<String> {
    let variable = format!("{}{FILE}", secret_of(argument)?);
    let named = std::env::var_os(&variable).is_some_and(|file| !file.is_empty());
    named.then_some(variable)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use clap::CommandFactory;

    use super::*;

    fn environment(
        pairs: &[(&str, &std::path::Path)],
    ) -> impl Fn(&str) -> Option<OsString> + use<> {
        let pairs: BTreeMap<String, OsString> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_os_str().to_owned()))
            .collect();
        move |name| pairs.get(name).cloned()
    }

    fn file(content: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_secret_is_the_variable_or_the_file_without_the_line_end() {
        let key = file("from a file\n");
        let both = environment(&[("KEY", "given".as_ref()), ("KEY_FILE", key.path())]);
        assert_eq!(secret_from("KEY", both).unwrap().unwrap(), "given");
        let named = environment(&[("KEY_FILE", key.path())]);
        assert_eq!(secret_from("KEY", named).unwrap().unwrap(), "from a file");
        let empty = environment(&[("KEY", "".as_ref()), ("KEY_FILE", "".as_ref())]);
        assert_eq!(secret_from("KEY", empty).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_named_must_hold_something() {
        let nothing = file("\n");
        for path in [nothing.path(), "/nowhere/key".as_ref()] {
            let named = environment(&[("KEY_FILE", path)]);
            let error = format!("{:#}", secret_from("KEY", named).unwrap_err());
            assert!(error.contains("KEY_FILE"), "{error}");
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
    }

    #[test]
    fn options_that_are_secrets_are_read_from_files_and_others_are_not() {
        let registry = file("redis://:hush@redis:6379\n");
        let voice = file("amy");
        let named = environment(&[
            ("DUOLOGUE_REGISTRY_FILE", registry.path()),
            ("DUOLOGUE_VOICE_FILE", voice.path()),
        ]);
        let parsed = |arguments: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
            let command = crate::Cli::command();
            let command = with_files_from(command, &arguments, &named).unwrap();
            command.try_get_matches_from(arguments)
        };
        let value = |arguments: &[&str], id: &str| {
            let matches = parsed(arguments).unwrap();
            let (_, matches) = matches.subcommand().unwrap();
            matches.get_one::<String>(id).unwrap().clone()
        };
        let plain = ["duologue", "serve"];
        assert_eq!(value(&plain, "registry"), "redis://:hush@redis:6379");
        assert_ne!(value(&plain, "voice"), "amy");
        // The command line counts before it, and its help does not tell.
        let flag = ["duologue", "serve", "--registry", "redis://other:6379"];
        assert_eq!(value(&flag, "registry"), "redis://other:6379");
        let help = parsed(&["duologue", "serve", "--help"]).unwrap_err();
        let help = help.to_string();
        assert!(
            help.contains("--registry") && !help.contains("hush"),
            "{help}"
        );
    }
}
