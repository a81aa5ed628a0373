//! A certificate and its key, out of files that may be renewed while they are in use.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(30);

/// Why a certificate cannot be served with. Each says which file, and what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("cannot read the {what} {}: {source}", path.display())]
    Read {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{} holds no certificate: --tls-cert takes a PEM file (-----BEGIN CERTIFICATE-----), the server's own certificate first",
        path.display()
    )]
    NoCertificate { path: PathBuf },
    #[error(
        "{} holds no private key: --tls-key takes a PEM file (-----BEGIN PRIVATE KEY-----)",
        path.display()
    )]
    NoKey { path: PathBuf },
    #[error(
        "the private key {} is encrypted; take the passphrase off with `openssl pkey -in {} -out plain.pem`",
        path.display(), path.display()
    )]
    Encrypted { path: PathBuf },
    #[error("{} is not a valid PEM file: {reason}", path.display())]
    Pem { path: PathBuf, reason: String },
    #[error(
        "the key {} does not belong to the certificate {}: give both files of the same certificate",
        key.display(), certificate.display()
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the certificate {} cannot be used: {reason}", certificate.display())]
    Unusable {
        certificate: PathBuf,
        reason: rustls::Error,
    },
}

/// A certificate with its key, and where they come from.
#[derive(Debug)]
pub(super) struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    changed: Option<(SystemTime, SystemTime)>,
    current: Arc<Current>,
}

/// What new connections are served with.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().ok().map(|current| Arc::clone(&current))
    }
}

impl Identity {
    /// Reads both files.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let changed = changed(certificate, key);
        let current = load(certificate, key)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            changed,
            current: Arc::new(Current(RwLock::new(current))),
        })
    }

    /// For connections, of HTTP/1.1.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("the provider has cipher suites for both versions")
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(&self.current) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// SHA-256 of the certificate, as browsers show it.
    pub fn fingerprint(&self) -> String {
        let Ok(current) = self.current.0.read() else {
            return String::new();
        };
        let digest = Sha256::digest(current.cert.first().map_or(&[][..], |own| own));
        let mut text = String::new();
        for (at, byte) in digest.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            let _ = write!(text, "{colon}{byte:02X}");
        }
        text
    }

    /// Takes renewed files for new connections, until `shutdown`.
    pub async fn watch(mut self, look: Arc<Notify>, shutdown: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = look.notified() => {}
                () = shutdown.cancelled() => return,
            }
            let look = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match look.await {
                Ok(identity) => self = identity,
                Err(_) => return,
            }
        }
    }

    fn look(&mut self) {
        let now = changed(&self.certificate, &self.key);
        if now.is_none() || now == self.changed {
            return;
        }
        // The two are not written at once: what does not fit yet is looked at again.
        match load(&self.certificate, &self.key) {
            Ok(renewed) => {
                self.changed = now;
                if let Ok(mut current) = self.current.0.write() {
                    *current = renewed;
                }
                tracing::info!(certificate = %self.certificate.display(), "the renewed certificate is used");
            }
            Err(error) => {
                tracing::error!(%error, "the renewed certificate is not used; the old one stays");
            }
        }
    }
}

fn changed(certificate: &Path, key: &Path) -> Option<(SystemTime, SystemTime)> {
    let of = |path: &Path| std::fs::metadata(path).ok()?.modified().ok();
    Some((of(certificate)?, of(key)?))
}

fn load(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, IdentityError> {
    let read = |what, path: &Path| {
        std::fs::read(path).map_err(|source| IdentityError::Read {
            what,
            path: path.to_owned(),
            source,
        })
    };
    let text = read("certificate", certificate)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| IdentityError::Pem {
            path: certificate.to_owned(),
            reason: error.to_string(),
        })?;
    if chain.is_empty() {
        return Err(IdentityError::NoCertificate {
            path: certificate.to_owned(),
        });
    }
    let text = read("private key", key)?;
    let encrypted = text
        .windows(b"ENCRYPTED".len())
        .any(|window| window == b"ENCRYPTED");
    let path = key.to_owned();
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        _ if encrypted => IdentityError::Encrypted { path },
        rustls::pki_types::pem::Error::NoItemsFound => IdentityError::NoKey { path },
        other => IdentityError::Pem {
            path,
            reason: other.to_string(),
        },
    })?;
    CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider())
        .map(Arc::new)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => IdentityError::Mismatch {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            },
            reason => IdentityError::Unusable {
                certificate: certificate.to_owned(),
                reason,
            },
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn made(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let own = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let paths = (
            folder.join(format!("{name}.pem")),
            folder.join(format!("{name}.key")),
        );
        std::fs::write(&paths.0, own.cert.pem()).unwrap();
        std::fs::write(&paths.1, own.signing_key.serialize_pem()).unwrap();
        paths
    }

    #[test]
    fn files_that_cannot_be_used_are_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = made(folder.path(), "one.example");
        let (_, other) = made(folder.path(), "two.example");
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let locked = folder.path().join("locked.key");
        std::fs::write(
            &locked,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        )
        .unwrap();
        let said = |certificate: &Path, key: &Path| {
            Identity::read(certificate, key).unwrap_err().to_string()
        };
        Identity::read(&certificate, &key).unwrap();
        assert!(said(&folder.path().join("none"), &key).contains("cannot read the certificate"));
        assert!(
            said(&certificate, &folder.path().join("none")).contains("cannot read the private key")
        );
        assert!(said(&empty, &key).contains("holds no certificate"));
        assert!(said(&certificate, &empty).contains("holds no private key"));
        assert!(said(&key, &key).contains("holds no certificate"));
        assert!(said(&certificate, &other).contains("does not belong to"));
        assert!(said(&certificate, &locked).contains("is encrypted"));
    }

    #[test]
    fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = made(folder.path(), "one.example");
        let mut identity = Identity::read(&certificate, &key).unwrap();
        let first = identity.fingerprint();
        assert_eq!(first.len(), 32 * 3 - 1);
        let later = |path: &Path| {
            let file = std::fs::File::options().append(true).open(path).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(60))
                .unwrap();
        };
        let (new, new_key) = made(folder.path(), "two.example");
        std::fs::copy(&new, &certificate).unwrap();
        later(&certificate);
        identity.look();
        assert_eq!(identity.fingerprint(), first, "its key is not there yet");
        std::fs::copy(&new_key, &key).unwrap();
        identity.look();
        assert_ne!(identity.fingerprint(), first);
    }
}
