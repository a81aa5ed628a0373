//! Certificates between orchestrators and workers: who shows which, and whom each believes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use duologue_orchestrator::voice::Reach;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// Longest wait for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How workers elsewhere are reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Workers")]
pub struct ReachOptions {
    /// Authority that has signed the workers' certificates, a PEM file: they are reached over TLS (`https://`) and no
    /// other way
    #[arg(long, env = "DUOLOGUE_WORKER_CA", value_name = "FILE")]
    worker_ca: Option<PathBuf>,

    /// Certificate to show to workers that ask for one, a PEM file
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_CERT",
        value_name = "FILE",
        requires_all = ["worker_ca", "worker_key"]
    )]
    worker_cert: Option<PathBuf>,

    /// That certificate's private key, a PEM file
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_KEY",
        value_name = "FILE",
        requires = "worker_cert"
    )]
    worker_key: Option<PathBuf>,
}

impl ReachOptions {
    /// The way to workers.
    ///
    /// # Errors
    /// Files that cannot be read, or hold no certificates.
    pub fn reach(&self) -> anyhow::Result<Reach> {
        let read = |option, file: &Path| read(option, file);
        let identity = match (&self.worker_cert, &self.worker_key) {
            (Some(certificate), Some(key)) => Some((
                read("--worker-cert", certificate)?,
                read("--worker-key", key)?,
            )),
            (None, None) => None,
            // The command line is held to it by itself, a configuration file is not.
            _ => bail!("--worker-cert and --worker-key belong together: give both, or neither"),
        };
        let Some(authority) = &self.worker_ca else {
            if identity.is_some() {
                bail!(
                    "--worker-cert needs --worker-ca, the authority of the workers' certificates"
                );
            }
            return Ok(Reach::default());
        };
        let authority = read("--worker-ca", authority)?;
        let identity = identity.as_ref();
        let identity = identity.map(|(certificate, key)| (certificate.as_str(), key.as_str()));
        Ok(Reach::over_tls(&authority, identity)?)
    }
}

/// How a worker is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub struct WorkerTlsOptions {
    /// Certificate to serve with, a PEM file with the whole chain; orchestrators then reach the worker at https://
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key, a PEM file
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,

    /// Take only orchestrators that show a certificate which this authority has signed, a PEM file
    #[arg(
        long,
        env = "DUOLOGUE_WORKER_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    client_ca: Option<PathBuf>,
}

impl WorkerTlsOptions {
    /// What the worker's address begins with.
    pub fn scheme(&self) -> &'static str {
        if self.tls_cert.is_some() {
            "https"
        } else {
            "http"
        }
    }

    /// What to serve with; `None`: in plain text.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn config(&self) -> anyhow::Result<Option<ServerTlsConfig>> {
        let (certificate, key) = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) if self.client_ca.is_none() => return Ok(None),
            _ => bail!(
                "--tls-cert, --tls-key and --client-ca belong together: the last needs the others"
            ),
        };
        let certificate = read("--tls-cert", certificate)?;
        let identity = Identity::from_pem(certificate, read("--tls-key", key)?);
        let mut config = ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE);
        if let Some(authority) = &self.client_ca {
            let authority = Certificate::from_pem(read("--client-ca", authority)?);
            config = config.client_ca_root(authority);
        }
        Ok(Some(config))
    }
}

fn read(option: &str, file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file)
        .with_context(|| format!("{option}: cannot read {}", file.display()))
}
