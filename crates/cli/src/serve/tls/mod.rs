//! HTTPS in this process: a certificate that was given, or one of our own that nobody vouches for.

mod identity;
mod listener;
mod self_signed;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use identity::Identity;
use self_signed::SelfSigned;

use listener::TlsListener;

/// How HTTPS is served.
#[derive(Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsOptions {
    /// Certificate for HTTPS and WSS: a PEM file with the whole chain, the server's own first. Renewed files are
    /// noticed
    #[arg(
        long,
        env = "DUOLOGUE_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key: a PEM file
    #[arg(
        long,
        env = "DUOLOGUE_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,

    /// HTTPS with a certificate of its own making, so that a phone in the same network can use its microphone. The
    /// browser warns of it, once
    #[arg(long, env = "DUOLOGUE_TLS_SELF_SIGNED", conflicts_with = "tls_cert")]
    tls_self_signed: bool,
}

/// A certificate to serve with.
pub(super) struct Tls {
    identity: Identity,
    own: Option<SelfSigned>,
}

impl TlsOptions {
    /// Checks the files, if they are named.
    ///
    /// # Errors
    /// As [`TlsOptions::open`].
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.given().map(drop)
    }

    fn given(&self) -> anyhow::Result<Option<Identity>> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Ok(Some(Identity::read(cert, key)?)),
            // The command line is held to it by itself, a configuration file is not.
            (Some(_), None) => bail!("--tls-cert needs --tls-key, the file of its private key"),
            (None, Some(_)) => bail!("--tls-key needs --tls-cert, the file of the certificate"),
            (None, None) => Ok(None),
        }
    }

    /// What to serve with; `None`: plain HTTP.
    ///
    /// # Errors
    /// Files that cannot be read or do not belong together.
    pub(super) fn open(
        &self,
        listen: IpAddr,
        public_addresses: &[IpAddr],
    ) -> anyhow::Result<Option<Tls>> {
        if let Some(identity) = self.given()? {
            return Ok(Some(Tls {
                identity,
                own: None,
            }));
        }
        if !self.tls_self_signed {
            return Ok(None);
        }
        let folder = duologue_voicepack::data_dir()?.join("tls");
        let own = SelfSigned::open(&folder, &self_signed::names(listen, public_addresses))
            .with_context(|| {
                format!("--tls-self-signed keeps its files in {}", folder.display())
            })?;
        let identity = Identity::read(&own.certificate, &own.key)?;
        Ok(Some(Tls {
            identity,
            own: Some(own),
        }))
    }
}

impl Tls {
    /// Takes connections over TLS, and looks for renewed files, now and then and at every `look`, until `shutdown`.
    pub(super) fn listen(
        self,
        listener: TcpListener,
        look: Arc<Notify>,
        shutdown: CancellationToken,
    ) -> std::io::Result<TlsListener> {
        let config = self.identity.server_config();
        tokio::spawn(self.identity.watch(look, shutdown));
        TlsListener::new(listener, config)
    }

    /// What to tell whoever started the server.
    pub(super) fn notice(&self, address: SocketAddr) -> Option<String> {
        let own = self.own.as_ref()?;
        let elsewhere = self_signed::lan_addresses(address.ip());
        let mut text = if elsewhere.is_empty() {
            format!(
                "To talk from a phone, add --listen 0.0.0.0:{}.\n",
                address.port()
            )
        } else {
            let urls: Vec<String> = elsewhere
                .iter()
                .map(|ip| format!("https://{}", SocketAddr::new(*ip, address.port())))
                .collect();
            format!("From a phone in this network: {}\n", urls.join(" or "))
        };
        text.push_str(&format!(
            "The browser warns that nobody vouches for this server. Its certificate's SHA-256 fingerprint is\n{}\n\
             It is kept in {}.\n",
            self.identity.fingerprint(),
            own.certificate.display()
        ));
        Some(text)
    }
}
