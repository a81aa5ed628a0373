//! A certificate for a machine that nobody knows: made once, kept, and made anew only when it runs out or the
//! machine has an address that is not in it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use serde::{Deserialize, Serialize};

/// Browsers take no certificate that is good for longer than 398 days.
const GOOD_FOR: Duration = Duration::from_secs(397 * 24 * 3_600);
/// It is renewed when it is good for less than this.
const RENEW: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Clocks differ; the certificate is good from before it was made.
const EARLIER: Duration = Duration::from_secs(24 * 3_600);
/// Names of networks that the machine was in once are kept up to here.
const MOST_NAMES: usize = 32;

/// Where a certificate of our own is.
#[derive(Debug)]
pub(super) struct SelfSigned {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What is known of the certificate without reading it.
#[derive(Default, Serialize, Deserialize)]
struct About {
    names: BTreeSet<String>,
    /// Seconds since 1970.
    good_until: u64,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SelfSignedError {
    #[error("cannot write {}: {source}", path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("no certificate could be made: {0}")]
    Make(#[from] rcgen::Error),
}

impl SelfSigned {
    /// The certificate in the folder, made or made anew where it must be.
    pub fn open(folder: &Path, names: &BTreeSet<String>) -> Result<Self, SelfSignedError> {
        Self::open_at(folder, names, SystemTime::now())
    }

    fn open_at(
        folder: &Path,
        names: &BTreeSet<String>,
        now: SystemTime,
    ) -> Result<Self, SelfSignedError> {
        let own = Self {
            certificate: folder.join("certificate.pem"),
            key: folder.join("key.pem"),
        };
        let about = folder.join("about.json");
        let known: Option<About> = std::fs::read(&about)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .filter(|_| own.certificate.is_file() && own.key.is_file());
        let names = match known {
            Some(known) if is_good(&known, names, now) => return Ok(own),
            // Who comes back to a network finds the certificate as it was.
            Some(known) => known.names.union(names).cloned().collect(),
            None => names.clone(),
        };
        let names = if names.len() > MOST_NAMES {
            own_names(&names)
        } else {
            names
        };
        own.make(folder, &about, names, now)?;
        Ok(own)
    }

    fn make(
        &self,
        folder: &Path,
        about: &Path,
        names: BTreeSet<String>,
        now: SystemTime,
    ) -> Result<(), SelfSignedError> {
        let key = KeyPair::generate()?;
        let list: Vec<String> = names.iter().cloned().collect();
        let mut params = CertificateParams::new(list)?;
        params.not_before = (now - EARLIER).into();
        params.not_after = (now + GOOD_FOR).into();
        params
            .distinguished_name
            .push(DnType::CommonName, "Duologue, self-signed");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.self_signed(&key)?;
        let good_until = since_epoch(now + GOOD_FOR);
        std::fs::create_dir_all(folder).map_err(|source| SelfSignedError::Write {
            path: folder.to_owned(),
            source,
        })?;
        write(&self.key, key.serialize_pem().as_bytes())?;
        write(&self.certificate, certificate.pem().as_bytes())?;
        let text = serde_json::json!({ "names": names, "good_until": good_until }).to_string();
        // Written last: without it the other two are made anew.
        write(about, text.as_bytes())
    }
}

fn is_good(known: &About, names: &BTreeSet<String>, now: SystemTime) -> bool {
    names.is_subset(&known.names) && known.good_until > since_epoch(now + RENEW)
}

fn since_epoch(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |passed| passed.as_secs())
}

/// Of too many names, those that are not some network's: they do not change.
fn own_names(names: &BTreeSet<String>) -> BTreeSet<String> {
    names
        .iter()
        .filter(|name| name.parse::<IpAddr>().map_or(true, |ip| ip.is_loopback()))
        .take(MOST_NAMES)
        .cloned()
        .collect()
}

/// Nobody else may read it, not even while it is written.
fn write(path: &Path, content: &[u8]) -> Result<(), SelfSignedError> {
    let failed = |source| SelfSignedError::Write {
        path: path.to_owned(),
        source,
    };
    let half = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&half).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&half, path).map_err(failed)
}

/// What the server is called by: this machine's names, and the addresses it listens on.
pub(super) fn names(listen: IpAddr, public_addresses: &[IpAddr]) -> BTreeSet<String> {
    let own = [
        "localhost".to_owned(),
        Ipv4Addr::LOCALHOST.to_string(),
        Ipv6Addr::LOCALHOST.to_string(),
    ];
    let lan = lan_addresses(listen);
    let host = host_name().filter(|_| !lan.is_empty());
    own.into_iter()
        .chain(lan.iter().chain(public_addresses).map(IpAddr::to_string))
        .chain(
            host.into_iter()
                .flat_map(|host| [format!("{host}.local"), host]),
        )
        .collect()
}

/// The addresses by which others in the network reach a server that listens there.
pub(super) fn lan_addresses(listen: IpAddr) -> Vec<IpAddr> {
    if listen.is_loopback() {
        return Vec::new();
    }
    if !listen.is_unspecified() {
        return vec![listen];
    }
    let link_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let mut all: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|interface| interface.ip())
        .filter(|ip| !ip.is_loopback() && !link_local(ip))
        .filter(|ip| listen.is_ipv6() || ip.is_ipv4())
        .collect();
    all.sort();
    all.dedup();
    all
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())?;
    let name = name.trim().split('.').next()?.to_owned();
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    (plain && !name.is_empty() && name != "localhost").then_some(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_certificate_stays_until_it_runs_out_or_lacks_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tls");
        let day = Duration::from_secs(24 * 3_600);
        let now = SystemTime::now();
        let made = |names: &BTreeSet<String>, at: SystemTime| {
            let own = SelfSigned::open_at(&folder, names, at).unwrap();
            std::fs::read_to_string(own.certificate).unwrap()
        };
        let home = names(&["localhost", "192.168.1.20"]);
        let office = names(&["localhost", "10.0.0.7"]);
        let first = made(&home, now);
        assert_eq!(made(&home, now + day * 300), first);
        let second = made(&office, now + day);
        assert_ne!(second, first, "the new address is not in it");
        assert_eq!(made(&home, now + day * 2), second, "the old one still is");
        assert_ne!(
            made(&home, now + day * 390),
            second,
            "it is about to run out"
        );
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_read_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let own = SelfSigned::open(folder.path(), &names(&["localhost"])).unwrap();
        let mode = std::fs::metadata(own.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }

    #[test]
    fn a_server_of_this_machine_alone_is_called_by_no_address_of_a_network() {
        let here = super::names(Ipv4Addr::LOCALHOST.into(), &[]);
        assert_eq!(here, names(&["127.0.0.1", "::1", "localhost"]));
        let there = super::names(
            "10.0.0.7".parse().unwrap(),
            &["203.0.113.7".parse().unwrap()],
        );
        assert!(there.contains("10.0.0.7") && there.contains("203.0.113.7"));
    }
}
