//! The model hub: where a file is, and what the hub says of it before it is fetched.

use std::time::Duration;

use reqwest::{Client, Url, header::HeaderMap};

use crate::catalogue::HubFile;
use crate::net::plain;

/// The probe's time in all: a proxy may accept a connection and then say nothing.
const PROBE_TIMEOUT: Duration = Duration::from_secs(8);

/// The address of a file.
pub(crate) fn file_url(hub: &str, file: &HubFile) -> Result<Url, String> {
    let address = format!(
        "{}/{}/resolve/{}/{}",
        hub.trim_end_matches('/'),
        file.repo,
        file.revision,
        file.path
    );
    Url::parse(&address).map_err(|e| format!("`{address}` is no address: {e}"))
}

/// Whether anything answers there.
pub(crate) async fn probe(client: &Client, hub: &str) -> Result<(), String> {
    match client.head(hub).timeout(PROBE_TIMEOUT).send().await {
        Ok(_) => Ok(()),
        Err(e) => Err(plain(&e)),
    }
}

/// What the hub announces of a large file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) sha256: Option<String>,
    pub(crate) size: Option<u64>,
}

/// Reads the headers that come with the hub's redirect to its storage. Small files are not in that
/// storage and have none.
pub(crate) fn announced(headers: &HeaderMap) -> Announced {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let sha256 = text("x-linked-etag")
        .map(|v| v.trim_start_matches("W/").trim_matches('"').to_lowercase())
        .filter(|v| v.len() == 64 && v.bytes().all(|b| b.is_ascii_hexdigit()));
    Announced {
        sha256,
        size: text("x-linked-size").and_then(|v| v.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_addressed_by_repository_revision_and_path() {
        let file = HubFile {
            repo: "owner/name".into(),
            path: "a/b.bin".into(),
            revision: "main".into(),
        };
        assert_eq!(
            file_url("https://hub.test/", &file).unwrap().as_str(),
            "https://hub.test/owner/name/resolve/main/a/b.bin"
        );
        assert!(file_url("nonsense", &file).is_err());
    }

    #[test]
    fn only_a_sha256_counts_as_one() {
        let mut headers = HeaderMap::new();
        assert_eq!(announced(&headers), Announced::default());
        headers.insert("x-linked-size", "12".parse().unwrap());
        headers.insert("x-linked-etag", "\"0123\"".parse().unwrap());
        assert_eq!(
            announced(&headers),
            Announced {
                sha256: None,
                size: Some(12)
            }
        );
        let hash = "A".repeat(64);
        headers.insert("x-linked-etag", format!("\"{hash}\"").parse().unwrap());
        assert_eq!(announced(&headers).sha256, Some("a".repeat(64)));
    }
}
