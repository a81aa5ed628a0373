//! How workers elsewhere are connected to: plainly, or over TLS in which both sides show a certificate.

use std::time::Duration;

use super::client::innermost;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// Longest wait for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// The way to workers.
#[derive(Clone, Default)]
pub struct Reach {
    tls: Option<ClientTlsConfig>,
}

/// Why a worker cannot be connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReachError {
    /// No address.
    #[error("{0:?} is not an address; write it as http://host:port, or https://host:port")]
    Address(String),
    /// It is to be reached over TLS, and nobody said whom to believe.
    #[error(
        "{0} is reached over TLS: say with --worker-ca which authority has signed its certificate"
    )]
    NoAuthority(String),
    /// It would be talked to in plain text, where TLS is asked for.
    #[error(
        "{0} would be talked to in plain text, and --worker-ca asks for TLS: its address must begin with https://"
    )]
    Plain(String),
    /// The certificates cannot be used.
    #[error(
        "the certificates for workers (--worker-ca, --worker-cert, --worker-key) cannot be used: {0}"
    )]
    Certificates(String),
}

impl Reach {
    /// Over TLS alone, to workers whose certificates an authority has signed. `identity` is our own certificate and its
    /// key. All are PEM.
    ///
    /// # Errors
    /// [`ReachError::Certificates`].
    pub fn over_tls(authority: &str, identity: Option<(&str, &str)>) -> Result<Self, ReachError> {
        // Without any, nobody would be believed, and only be told so at the first worker.
        if !authority.contains("-----BEGIN CERTIFICATE-----") {
            let why = "the authority's file holds no certificate";
            return Err(ReachError::Certificates(why.to_owned()));
        }
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authority))
            .timeout(HANDSHAKE);
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        let reach = Self { tls: Some(tls) };
        // Whether they can be read is found out now, and not at the first worker.
        reach.to("https://worker.example:1").map(|_| reach)
    }

    /// The way to one worker.
    ///
    /// # Errors
    /// [`ReachError`].
    pub fn to(&self, address: &str) -> Result<Endpoint, ReachError> {
        let endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(|_| ReachError::Address(address.to_owned()))?;
        match (&self.tls, endpoint.uri().scheme_str()) {
            (None, Some("http")) => Ok(endpoint),
            (None, Some("https")) => Err(ReachError::NoAuthority(address.to_owned())),
            (Some(tls), Some("https")) => endpoint
                .tls_config(tls.clone())
                .map_err(|error| ReachError::Certificates(innermost(&error))),
            (Some(_), Some("http")) => Err(ReachError::Plain(address.to_owned())),
            _ => Err(ReachError::Address(address.to_owned())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn authority() -> String {
        let own = rcgen::generate_simple_self_signed(vec!["authority".to_owned()]);
        own.unwrap().cert.pem()
    }

    #[test]
    fn plain_and_tls_are_not_taken_for_each_other() {
        let plain = Reach::default();
        assert!(plain.to("http://10.0.0.5:50051").is_ok());
        let refused = plain.to("https://10.0.0.5:50051").unwrap_err();
        assert!(refused.to_string().contains("--worker-ca"), "{refused}");
        let tls = Reach::over_tls(&authority(), None).unwrap();
        assert!(tls.to("https://10.0.0.5:50051").is_ok());
        let refused = tls.to("http://10.0.0.5:50051").unwrap_err();
        assert!(matches!(refused, ReachError::Plain(_)), "{refused}");
    }

    #[test]
    fn what_is_no_address_and_no_certificate_is_told() {
        for bad in ["", "10.0.0.5", "ftp://10.0.0.5", "not an address"] {
            let refused = Reach::default().to(bad).unwrap_err();
            assert!(matches!(refused, ReachError::Address(_)), "{bad}");
        }
        for (authority, identity) in [
            ("nonsense".to_owned(), None),
            (authority(), Some(("nonsense", "nonsense"))),
        ] {
            let refused = Reach::over_tls(&authority, identity).err().unwrap();
            assert!(matches!(refused, ReachError::Certificates(_)), "{refused}");
        }
    }
}
