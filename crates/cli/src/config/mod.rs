//! What a process is configured with: flags before the environment, that before files of secrets, those before the
//! configuration file, that before the defaults.

mod check;
mod command;
mod effective;
mod file;
mod reference;

use std::ffi::OsString;

use clap::{ArgMatches, CommandFactory};

use crate::secret;

pub use command::ConfigCommand;
pub use effective::Setting;
pub use file::yaml;

/// Arguments, read with the configuration file that they or the environment name.
pub struct Read {
    /// All that was read.
    pub matches: ArgMatches,
    /// The options of the process, for `serve` and `worker`.
    pub settings: Vec<Setting>,
}

/// Why arguments were not read.
pub enum Unread {
    /// The configuration file, or one with a secret.
    File(anyhow::Error),
    /// The arguments themselves; or they ask for help.
    Arguments(clap::Error),
}

impl From<Unread> for anyhow::Error {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::File(error) => error,
            Unread::Arguments(error) => anyhow::anyhow!("{}", error.to_string().trim_end()),
        }
    }
}

/// Reads arguments, the program's name among them. Without a command they are those of `serve`.
///
/// # Errors
/// [`Unread`].
pub fn read(mut arguments: Vec<OsString>) -> Result<Read, Unread> {
    let command = crate::Cli::command();
    let lenient = command.clone().ignore_errors(true);
    if let Ok(matches) = lenient.try_get_matches_from(&arguments)
        && matches.subcommand().is_none()
    {
        arguments.push("serve".into());
    }
    let (configured, in_force) =
        file::configured(command.clone(), &arguments).map_err(Unread::File)?;
    let configured = secret::with_files(configured, &arguments).map_err(Unread::File)?;
    let matches = configured
        .try_get_matches_from(&arguments)
        .map_err(Unread::Arguments)?;
    let settings = match matches.subcommand() {
        Some((name, of_command)) if file::COMMANDS.contains(&name) => {
            effective::settings(&command, name, of_command, in_force.as_ref())
        }
        _ => Vec::new(),
    };
    Ok(Read { matches, settings })
}
