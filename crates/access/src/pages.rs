//! Which web pages may talk to this server.
//!
//! A browser sends requests of every page it shows, also to servers that only it can reach: on its own machine, or
//! behind a firewall. Where a key is needed that is harmless, for no page has one but from its user; where none is,
//! any site on the web could talk to the server in its visitor's name. Two headers that pages cannot set tell them
//! apart:
//!
//! - `Origin` names the page's site (RFC 6454). It comes with every WebSocket and every POST of a page. A site that is
//!   neither this server's own page nor named by the operator is refused, which ends cross-site WebSocket hijacking
//!   and cross-site requests.
//! - `Host` names what the browser takes this server for. Under DNS rebinding a site's own name leads to this server,
//!   so that its `Origin` and `Host` agree: then `Host` is a name that nobody gave this server. An address in figures,
//!   `localhost`, the machine's own name and the names of sites that the operator has named cannot be rebound. Nor can
//!   a page that came over HTTPS: it would have needed a certificate for the name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Where a page comes from: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    https: bool,
    host: String,
    port: u16,
}

/// Not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a site: write it as https://talk.example.org or http://localhost:3000, without a path"
)]
pub struct OriginError(String);

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let bad = || OriginError(text.to_owned());
        let lower = text.to_ascii_lowercase();
        let (https, authority) = match lower.split_once("://").ok_or_else(bad)? {
            ("https", authority) => (true, authority),
            ("http", authority) => (false, authority),
            _ => return Err(bad()),
        };
        let (host, port) = host_and_port(authority).ok_or_else(bad)?;
        let port = port.unwrap_or(if https { 443 } else { 80 });
        Ok(Self {
            https,
            host: host.to_owned(),
            port,
        })
    }
}

/// A request's relation to web pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// No page of another site sent it, or one that gets to know nothing by it.
    Ours,
    /// A page sent it whose site the operator has named: it may read the answer.
    Listed,
}

/// A page that may not talk to this server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageRefused {
    /// The server was called by a name that is not its own.
    #[error(
        "{0:?} is not a name of this server, which is open to its own machine alone. To let others in by it, give the server API keys (--api-keys), or say --allow-anyone; if it is this machine's, name it with --cors-origin"
    )]
    Host(String),
    /// The page's site is not one that may.
    #[error(
        "pages of {0:?} may not talk to this server, which asks for no key; its operator can allow them with --cors-origin {0}"
    )]
    Origin(String),
}

/// The rules for pages.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// Sites that the operator has named.
    pub listed: Vec<Origin>,
    /// All sites may.
    pub any: bool,
    /// Whether a key is needed to be let in.
    pub key_needed: bool,
    /// Whether only this machine is to reach the server.
    pub loopback: bool,
    /// Names of this machine, in lower case.
    pub own_names: Vec<String>,
}

impl Pages {
    /// Judges a request by its `Host` and `Origin` headers.
    ///
    /// # Errors
    /// [`PageRefused`].
    pub fn visit(&self, host: Option<&str>, origin: Option<&str>) -> Result<Visit, PageRefused> {
        let host = host.map(str::to_ascii_lowercase);
        let host = host.as_deref();
        let own = host.is_none_or(|host| self.is_own(host));
        if !self.key_needed && self.loopback && !own {
            return Err(PageRefused::Host(host.unwrap_or_default().to_owned()));
        }
        let Some(origin) = origin else {
            return Ok(Visit::Ours);
        };
        let site = origin.parse::<Origin>().ok();
        let listed = |site: &Origin| self.listed.contains(site);
        if self.any || site.as_ref().is_some_and(listed) {
            return Ok(Visit::Listed);
        }
        // Who needs a key is let in by it, not by where they come from.
        let same = site
            .is_some_and(|site| host.is_some_and(|host| site.is_at(host)) && (site.https || own));
        if self.key_needed || same {
            return Ok(Visit::Ours);
        }
        Err(PageRefused::Origin(origin.to_owned()))
    }

    /// Whether nobody else can have pages under this name.
    fn is_own(&self, host: &str) -> bool {
        let Some((name, _)) = host_and_port(host) else {
            return false;
        };
        name == "localhost"
            || name.ends_with(".localhost")
            || address(name).is_some()
            || self.own_names.iter().any(|own| own == name)
            || self.listed.iter().any(|site| site.host == name)
    }
}

impl Origin {
    fn is_at(&self, host: &str) -> bool {
        let standard = if self.https { 443 } else { 80 };
        host_and_port(host)
            .is_some_and(|(name, port)| name == self.host && port.unwrap_or(standard) == self.port)
    }
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`; the host as it stands there.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return None,
        Some(port) => Some(port.parse().ok()?),
    };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    (!host.is_empty() && host.bytes().all(valid)).then_some((host, port))
}

fn address(host: &str) -> Option<IpAddr> {
    match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn loopback() -> Pages {
        Pages {
            loopback: true,
            own_names: vec!["box".into(), "box.local".into()],
            ..Pages::default()
        }
    }

    fn for_anyone() -> Pages {
        Pages {
            loopback: false,
            ..loopback()
        }
    }

    fn locked() -> Pages {
        Pages {
            key_needed: true,
            ..for_anyone()
        }
    }

    fn naming(pages: Pages, sites: &[&str]) -> Pages {
        Pages {
            listed: sites.iter().map(|site| site.parse().unwrap()).collect(),
            ..pages
        }
    }

    #[test]
    fn the_page_of_an_open_server_talks_to_it_by_each_of_its_own_names() {
        for host in [
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "talk.localhost:8080",
            "BOX:8080",
        ] {
            let origin = format!("http://{}", host.to_lowercase());
            assert_eq!(
                loopback().visit(Some(host), Some(&origin)),
                Ok(Visit::Ours),
                "{host}"
            );
        }
        // Programs send no origin, and old ones no host.
        assert_eq!(
            loopback().visit(Some("localhost:8080"), None),
            Ok(Visit::Ours)
        );
        assert_eq!(loopback().visit(None, None), Ok(Visit::Ours));
    }

    #[test]
    fn a_page_of_another_site_cannot_talk_to_an_open_server() {
        for pages in [loopback(), for_anyone()] {
            for origin in [
                "https://evil.example",
                "http://localhost:3000",
                "https://localhost:8080.evil.example",
                "http://127.0.0.1:8081",
                "null",
                "file://",
                "",
            ] {
                let visit = pages.visit(Some("localhost:8080"), Some(origin));
                assert_eq!(visit, Err(PageRefused::Origin(origin.into())), "{origin}");
            }
        }
    }

    #[test]
    fn a_site_whose_name_was_rebound_to_this_server_is_refused() {
        let rebound = ("evil.example:8080", "http://evil.example:8080");
        let visit = |pages: &Pages, origin| pages.visit(Some(rebound.0), origin);
        // Of a server for its own machine it gets not even a page.
        let refused = Err(PageRefused::Host(rebound.0.into()));
        assert_eq!(visit(&loopback(), Some(rebound.1)), refused);
        assert_eq!(visit(&loopback(), None), refused);
        let refused = Err(PageRefused::Origin(rebound.1.into()));
        assert_eq!(visit(&for_anyone(), Some(rebound.1)), refused);
        // Figures that are a name.
        let odd = loopback().visit(Some("127.0.0.1.evil.example"), None);
        assert!(odd.is_err());
    }

    #[test]
    fn a_server_for_anyone_is_talked_to_from_its_page_over_https_or_by_address() {
        let visit = |host, origin| for_anyone().visit(Some(host), Some(origin));
        assert_eq!(
            visit("talk.example.org", "https://talk.example.org"),
            Ok(Visit::Ours)
        );
        assert_eq!(
            visit("talk.example.org:8443", "https://talk.example.org:8443"),
            Ok(Visit::Ours)
        );
        assert_eq!(
            visit("10.0.0.2:8080", "http://10.0.0.2:8080"),
            Ok(Visit::Ours)
        );
        assert!(visit("talk.example.org:8443", "https://talk.example.org").is_err());
        // Programs call it whatever they like.
        assert_eq!(
            for_anyone().visit(Some("duologue:8080"), None),
            Ok(Visit::Ours)
        );
    }

    #[test]
    fn named_sites_may_and_their_names_are_this_servers() {
        let pages = naming(
            loopback(),
            &["http://localhost:3000", "https://talk.example.org"],
        );
        let visit = |host, origin| pages.visit(Some(host), Some(origin));
        assert_eq!(
            visit("localhost:8080", "http://localhost:3000"),
            Ok(Visit::Listed)
        );
        assert_eq!(
            visit("talk.example.org", "https://talk.example.org"),
            Ok(Visit::Listed)
        );
        assert!(visit("localhost:8080", "https://localhost:3000").is_err());
        assert!(visit("localhost:8080", "http://localhost:3001").is_err());
    }

    #[test]
    fn with_a_key_pages_are_let_in_by_it_and_only_named_ones_read_answers() {
        let origin = Some("https://app.example");
        assert_eq!(
            locked().visit(Some("talk.example"), origin),
            Ok(Visit::Ours)
        );
        assert_eq!(
            locked().visit(Some("anything"), Some("null")),
            Ok(Visit::Ours)
        );
        let named = naming(locked(), &["https://app.example"]);
        assert_eq!(named.visit(Some("talk.example"), origin), Ok(Visit::Listed));
        let any = Pages {
            any: true,
            ..locked()
        };
        assert_eq!(any.visit(Some("talk.example"), origin), Ok(Visit::Listed));
    }

    #[test]
    fn what_is_no_site_is_told() {
        for bad in [
            "",
            "localhost",
            "ftp://a",
            "https://a/b",
            "https://a:x",
            "https://",
            "https://a b",
        ] {
            let error = bad.parse::<Origin>().unwrap_err();
            assert!(
                error.to_string().contains("https://talk.example.org"),
                "{bad}"
            );
        }
        assert_eq!(
            "HTTPS://A.example:443".parse::<Origin>(),
            "https://a.example".parse()
        );
    }
}
