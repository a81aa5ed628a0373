//! `duologue config`: what a process is, or would be, configured with.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};

use super::{check, effective, reference};

/// Check configuration files, and show what is in force.
#[derive(Args)]
pub struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Check(Check),
    Show(Show),
    Reference(Reference),
}

/// Say what is wrong with configuration files, and with the files that they name.
#[derive(Args)]
struct Check {
    /// Configuration files of `serve` or `worker`, or files of routing policies
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Show the options that are in force, and where each comes from: flag, environment, file or default. Passwords are
/// not shown.
#[derive(Args)]
struct Show {
    /// Show the defaults too, and not only what was set
    #[arg(long)]
    effective: bool,

    /// Whose options
    #[arg(value_enum)]
    process: Process,

    /// The options that it is started with
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS"
    )]
    options: Vec<OsString>,
}

/// Print the page of all options, docs/configuration.md.
#[derive(Args)]
struct Reference {}

#[derive(Clone, Copy, ValueEnum)]
enum Process {
    /// duologue serve
    Serve,
    /// duologue worker
    Worker,
}

impl ConfigCommand {
    /// Does what is asked.
    ///
    /// # Errors
    /// Configurations that cannot be.
    pub fn run(self) -> anyhow::Result<()> {
        match self.action {
            Action::Check(check) => check.run(),
            Action::Show(show) => show.run(),
            Action::Reference(Reference {}) => {
                print!("{}", reference::page());
                Ok(())
            }
        }
    }
}

impl Check {
    fn run(self) -> anyhow::Result<()> {
        let mut wrong = 0;
        for file in &self.files {
            match check::file(file) {
                Ok(checked) => {
                    println!("{}: {checked}", file.display());
                }
                Err(error) => {
                    wrong += 1;
                    eprintln!("{}: {error:#}", file.display());
                }
            }
        }
        match wrong {
            0 => Ok(()),
            1 => bail!("one file cannot be used"),
            many => bail!("{many} files cannot be used"),
        }
    }
}

impl Show {
    fn run(self) -> anyhow::Result<()> {
        let name = match self.process {
            Process::Serve => "serve",
            Process::Worker => "worker",
        };
        let mut arguments: Vec<OsString> = vec!["duologue".into(), name.into()];
        arguments.extend(self.options);
        let read = super::read(arguments)?;
        print!("{}", effective::show(&read.settings, self.effective));
        if self.effective {
            for variable in reference::SECRETS {
                let set = std::env::var_os(variable.name).is_some_and(|value| !value.is_empty());
                let set = if set { "set, and not shown" } else { "not set" };
                println!("# {}: {set}", variable.name);
            }
        }
        Ok(())
    }
}
