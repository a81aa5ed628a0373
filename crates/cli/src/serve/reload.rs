//! SIGHUP: the configuration is read again, and what can be changed while sessions run is changed.
//!
//! All that is new is read before any of it is used, so that a mistake in it leaves everything as it was.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use clap::FromArgMatches as _;
use duologue_access::{Key, Limits, Pages};
use duologue_orchestrator::routing::Policy;
use duologue_orchestrator::{AccessControl, Orchestrator};
use tokio::sync::Notify;

use super::ServeCommand;
use crate::config::{self, Setting};
use crate::logging::{self, LogOptions};

/// Options that are used anew when the configuration is reloaded.
pub const RELOADED: [&str; 8] = [
    "api-keys",
    "key-max-sessions",
    "key-requests-per-minute",
    "key-bytes-per-minute",
    "cors-origin",
    "routing",
    "policy",
    "log",
];

/// A running server's parts that can be changed.
pub(super) struct Reloading {
    /// Its options as they are in force.
    pub settings: Vec<Setting>,
    pub listen: IpAddr,
    pub access: Arc<AccessControl>,
    pub orchestrator: Arc<Orchestrator>,
    /// Has the files of the certificate looked at.
    pub certificate: Arc<Notify>,
}

/// What was read anew.
struct Fresh {
    settings: Vec<Setting>,
    keys: Vec<Key>,
    of_addresses: Limits,
    pages: Pages,
    policy: Policy,
    log: LogOptions,
}

impl Reloading {
    /// Reads the configuration again, and uses it.
    pub fn reload(&mut self) {
        match self.read() {
            Ok(fresh) => self.take(fresh),
            Err(error) => {
                tracing::error!(
                    "the configuration is not reloaded, and all stays as it was: {error:#}"
                );
            }
        }
    }

    fn read(&self) -> anyhow::Result<Fresh> {
        let read = config::read(std::env::args_os().collect())?;
        let (_, matches) = read
            .matches
            .subcommand()
            .context("the command line names no command")?;
        let command = ServeCommand::from_arg_matches(matches)?;
        let (keys, pages) = command.access.rules(self.listen)?;
        Ok(Fresh {
            keys,
            of_addresses: command.access.limits(),
            pages,
            policy: command.routing.policy()?,
            log: LogOptions::from_arg_matches(&read.matches)?,
            settings: read.settings,
        })
    }

    fn take(&mut self, fresh: Fresh) {
        let Fresh {
            settings,
            keys,
            of_addresses,
            pages,
            policy,
            log,
        } = fresh;
        if let Err(error) = logging::change(&log) {
            tracing::error!(%error, "the configuration is not reloaded, and all stays as it was");
            return;
        }
        let count = keys.len();
        self.access.replace_keys(keys);
        self.access.limit_addresses(of_addresses);
        self.access.replace_pages(pages);
        self.orchestrator.engines().fleet.follow(policy);
        self.certificate.notify_one();
        let changed = changed(&self.settings, &settings);
        let (used, ignored): (Vec<&str>, Vec<&str>) = changed
            .into_iter()
            .partition(|name| RELOADED.contains(name));
        tracing::info!(
            keys = count,
            changed = used.join(", "),
            "the configuration is reloaded"
        );
        if !ignored.is_empty() {
            tracing::warn!(
                options = ignored.join(", "),
                "these have changed too, and are used only after a new start"
            );
        }
        // Those that are not used stay as they were, so that they are told of again.
        let ignored: Vec<String> = ignored.into_iter().map(str::to_owned).collect();
        let mut kept: BTreeMap<String, Setting> = std::mem::take(&mut self.settings)
            .into_iter()
            .map(|setting| (setting.name.clone(), setting))
            .collect();
        self.settings = settings
            .into_iter()
            .map(|setting| match ignored.contains(&setting.name) {
                true => kept.remove(&setting.name).unwrap_or(setting),
                false => setting,
            })
            .collect();
    }
}

/// Names of the options whose values differ.
fn changed<'s>(before: &[Setting], after: &'s [Setting]) -> Vec<&'s str> {
    after
        .iter()
        .filter(|setting| {
            let old = before.iter().find(|old| old.name == setting.name);
            old.is_none_or(|old| old.values != setting.values)
        })
        .map(|setting| setting.name.as_str())
        .collect()
}
