//! Who may talk to `duologue serve`: its keys, the sites that may, what each key may take.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use duologue_access::{Authenticator, Key, Limits, Origin, Pages, Signer, read_keys};
use duologue_orchestrator::AccessControl;

use crate::machine;
use crate::secret::{API_KEY, secret};
use crate::size;

/// Where the signing secret is read from.
const SIGNING_SECRET: &str = "DUOLOGUE_SIGNING_SECRET";

/// Who may come in.
#[derive(Args)]
#[command(next_help_heading = "Access")]
pub struct AccessOptions {
    /// File of API keys, a line `name: key` for each (docs/access.md). A single key can also stand in the environment,
    /// as DUOLOGUE_API_KEY. Without any, only this machine may talk to the server
    #[arg(long, env = "DUOLOGUE_API_KEYS", value_name = "FILE")]
    api_keys: Option<PathBuf>,

    /// Listen to other machines without any key: whoever reaches the port may talk
    #[arg(long, env = "DUOLOGUE_ALLOW_ANYONE")]
    allow_anyone: bool,

    /// File with the secret by which servers sign client secrets, for servers that accept each other's; it can also
    /// stand in the environment, as DUOLOGUE_SIGNING_SECRET. Without it, they are good at this server until it stops
    #[arg(long, env = "DUOLOGUE_SIGNING_SECRET_FILE", value_name = "FILE")]
    signing_secret_file: Option<PathBuf>,

    /// Sites whose pages may talk to this server and read its answers, separated by commas: `https://app.example.org`;
    /// `*` is every site, which takes a key
    #[arg(
        long,
        env = "DUOLOGUE_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    cors_origin: Vec<String>,

    /// Sessions at once of one key, where the file of keys says nothing else; where no key is asked for, of one
    /// address; 0: no limit
    #[arg(
        long,
        env = "DUOLOGUE_KEY_MAX_SESSIONS",
        default_value_t = 0,
        value_name = "N"
    )]
    key_max_sessions: u32,

    /// Requests a minute of one key or address, likewise; 0: no limit
    #[arg(
        long,
        env = "DUOLOGUE_KEY_REQUESTS_PER_MINUTE",
        default_value_t = 0,
        value_name = "N"
    )]
    key_requests_per_minute: u64,

    /// What one key or address may send a minute, likewise, such as 20MB: bodies of requests, messages of WebSockets; 0: no limit.
    /// Speech over a WebSocket takes 4MB a minute
    #[arg(long, env = "DUOLOGUE_KEY_BYTES_PER_MINUTE", default_value = "0", value_name = "SIZE", value_parser = size::parse)]
    key_bytes_per_minute: u64,

    /// Show `/metrics` at this address, without a key, and nowhere else; left out, they are at the server's own address,
    /// behind its keys
    #[arg(long, env = "DUOLOGUE_METRICS_LISTEN", value_name = "ADDR")]
    pub(super) metrics_listen: Option<String>,
}

impl AccessOptions {
    /// Access control of a server that listens at `listen`.
    ///
    /// # Errors
    /// As [`AccessOptions::rules`], and a signing secret that cannot be used.
    pub(super) fn control(&self, listen: IpAddr) -> anyhow::Result<AccessControl> {
        let (keys, pages) = self.rules(listen)?;
        if !keys.is_empty() {
            let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
            tracing::info!(keys = names.join(", "), "an API key is asked for");
        } else if self.allow_anyone {
            tracing::warn!("no API key is asked for: whoever reaches this server may talk");
        }
        let access = AccessControl::new(Authenticator::new(keys, self.signer()?), pages);
        access.limit_addresses(self.limits());
        Ok(access)
    }

    /// Its keys, and the rules for pages.
    ///
    /// # Errors
    /// Keys that cannot be used, and a port that would be open to everybody without a word.
    pub(super) fn rules(&self, listen: IpAddr) -> anyhow::Result<(Vec<Key>, Pages)> {
        let mut keys = self.keys_of_file()?;
        keys.extend(self.key_of_environment(&keys)?);
        let loopback = listen.to_canonical().is_loopback();
        self.check(!keys.is_empty(), loopback, listen)?;
        let pages = self.pages(!keys.is_empty(), loopback)?;
        Ok((keys, pages))
    }

    /// Checks what the options alone say, without the environment; what they need beside them.
    ///
    /// # Errors
    /// As [`AccessOptions::rules`].
    pub(super) fn check_alone(&self, listen: IpAddr) -> anyhow::Result<Option<String>> {
        let keys = !self.keys_of_file()?.is_empty();
        let loopback = listen.to_canonical().is_loopback();
        let needs = !keys && !loopback && !self.allow_anyone;
        self.check(keys || needs, loopback, listen)?;
        self.pages(keys || needs, loopback)?;
        if self.signing_secret_file.is_some() {
            self.signer()?;
        }
        Ok(needs.then(|| {
            format!("it listens to other machines, and needs {API_KEY} in its environment")
        }))
    }

    /// Whether such a server may be started.
    fn check(&self, keys: bool, loopback: bool, listen: IpAddr) -> anyhow::Result<()> {
        if keys && self.allow_anyone {
            bail!(
                "--allow-anyone and API keys contradict each other: leave out --allow-anyone, or the keys"
            );
        }
        if !keys && !loopback && !self.allow_anyone {
            bail!(
                "--listen {listen} lets other machines in, and no API key is set. Set one: \
                 `export {API_KEY}=$(openssl rand -hex 32)`, or several in a file with --api-keys (docs/access.md). \
                 To let in whoever reaches the port, say --allow-anyone"
            );
        }
        Ok(())
    }

    fn keys_of_file(&self) -> anyhow::Result<Vec<Key>> {
        let Some(file) = &self.api_keys else {
            return Ok(Vec::new());
        };
        let text = read_secret_file(file).context("--api-keys")?;
        read_keys(&text, self.limits())
            .with_context(|| format!("--api-keys: in {}", file.display()))
    }

    fn key_of_environment(&self, others: &[Key]) -> anyhow::Result<Option<Key>> {
        let Some(key) = secret(API_KEY)? else {
            return Ok(None);
        };
        let key = Key::new("environment", &key, self.limits()).context(API_KEY)?;
        if others.iter().any(|other| other.name == key.name) {
            bail!(
                "the name \"environment\" is that of {API_KEY}: call the key in the file otherwise"
            );
        }
        Ok(Some(key))
    }

    /// What one key may take, or one address where no key is asked for.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            sessions: (self.key_max_sessions > 0).then_some(self.key_max_sessions),
            requests_per_minute: (self.key_requests_per_minute > 0)
                .then_some(self.key_requests_per_minute),
            bytes_per_minute: (self.key_bytes_per_minute > 0).then_some(self.key_bytes_per_minute),
        }
    }

    fn signer(&self) -> anyhow::Result<Signer> {
        let shared = match &self.signing_secret_file {
            Some(file) => {
                let text = read_secret_file(file).context("--signing-secret-file")?;
                Some((format!("in {}", file.display()), text.trim().to_owned()))
            }
            None => from_environment(SIGNING_SECRET).map(|secret| (SIGNING_SECRET.into(), secret)),
        };
        match shared {
            Some((place, secret)) => Signer::shared(&secret).context(place),
            None => Ok(Signer::random(rand::random())),
        }
    }

    /// The rules for pages.
    ///
    /// # Errors
    /// What is no site, and every site without a key.
    fn pages(&self, key_needed: bool, loopback: bool) -> anyhow::Result<Pages> {
        let mut pages = Pages {
            key_needed,
            loopback: loopback && !self.allow_anyone,
            own_names: machine::names(),
            ..Pages::default()
        };
        for site in self.cors_origin.iter().filter(|site| !site.is_empty()) {
            match site.as_str() {
                "*" if !key_needed => bail!(
                    "--cors-origin '*' without an API key would let every page on the web talk to this server in its \
                     visitors' name: name the sites, or set a key (--api-keys)"
                ),
                "*" => pages.any = true,
                site => {
                    let site: Origin = site.parse().context("--cors-origin")?;
                    pages.listed.push(site);
                }
            }
        }
        Ok(pages)
    }
}

/// A variable that is set to something.
fn from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Reads a file of secrets, and warns of one that others can read.
fn read_secret_file(file: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        if std::fs::metadata(file).is_ok_and(|about| about.mode() & 0o004 != 0) {
            tracing::warn!(
                file = %file.display(),
                "every user of this machine can read these secrets: chmod 600"
            );
        }
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Given {
        #[command(flatten)]
        access: AccessOptions,
    }

    fn given(arguments: &[&str]) -> AccessOptions {
        let program = std::iter::once("serve");
        Given::try_parse_from(program.chain(arguments.iter().copied()))
            .unwrap()
            .access
    }

    fn check(arguments: &[&str], keys: bool, listen: &str) -> Result<(), String> {
        let ip: IpAddr = listen.parse().unwrap();
        let access = given(arguments);
        access
            .check(keys, ip.to_canonical().is_loopback(), ip)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn other_machines_are_let_in_with_a_key_or_by_the_operators_word() {
        for listen in ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(check(&[], false, listen), Ok(()), "{listen}");
            assert_eq!(check(&[], true, listen), Ok(()), "{listen}");
        }
        for listen in ["0.0.0.0", "::", "10.0.0.2", "192.168.1.5"] {
            let refused = check(&[], false, listen).unwrap_err();
            assert!(refused.contains("DUOLOGUE_API_KEY") && refused.contains("--allow-anyone"));
            assert_eq!(check(&[], true, listen), Ok(()));
            assert_eq!(check(&["--allow-anyone"], false, listen), Ok(()));
            assert!(check(&["--allow-anyone"], true, listen).is_err());
        }
    }

    #[test]
    fn every_site_may_only_where_a_key_is_needed() {
        let every = given(&["--cors-origin", "https://a.example,*"]);
        assert!(every.pages(true, false).unwrap().any);
        let refused = every.pages(false, true).unwrap_err().to_string();
        assert!(refused.contains("--api-keys"), "{refused}");
        let wrong = given(&["--cors-origin", "a.example"]);
        assert!(wrong.pages(true, false).is_err());
    }

    #[test]
    fn keys_of_the_file_have_the_limits_that_the_options_say() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.yaml");
        std::fs::write(&file, "ada: ada-0123456789abcdef\n").unwrap();
        let path = file.to_str().unwrap();
        let access = given(&[
            "--api-keys",
            path,
            "--key-max-sessions",
            "2",
            "--key-bytes-per-minute",
            "20MB",
        ]);
        let key = access.keys_of_file().unwrap().remove(0);
        let limits = Limits {
            sessions: Some(2),
            requests_per_minute: None,
            bytes_per_minute: Some(20_000_000),
        };
        assert_eq!((key.name.as_str(), key.limits), ("ada", limits));
        std::fs::write(&file, "ada-0123456789abcdef\n").unwrap();
        let error = format!("{:#}", access.keys_of_file().unwrap_err());
        assert!(
            error.contains("keys.yaml") && !error.contains("0123"),
            "{error}"
        );
    }
}
