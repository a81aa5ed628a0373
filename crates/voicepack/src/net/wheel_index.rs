//! Finding a wheel in a Python package index: the simple API, as JSON (PEP 691) or HTML (PEP 503).

use reqwest::{Client, StatusCode, Url, header};
use serde::Deserialize;

use crate::net::{plain, shown};

const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// A wheel that can be downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wheel {
    pub(crate) filename: String,
    pub(crate) url: Url,
    /// What the index says of it.
    pub(crate) sha256: Option<String>,
    pub(crate) size: Option<u64>,
}

/// Asks one index after the other for a wheel of exactly this version.
///
/// The error is why there is none, in words.
pub(crate) async fn find_wheel(
    client: &Client,
    indexes: &[String],
    package: &str,
    version: &str,
) -> Result<Wheel, String> {
    if indexes.is_empty() {
        return Err("pip is told to use no index (no-index)".into());
    }
    let mut reasons = Vec::new();
    for index in indexes {
        match ask(client, index, package, version).await {
            Ok(wheel) => return Ok(wheel),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons.join("; "))
}

async fn ask(client: &Client, index: &str, package: &str, version: &str) -> Result<Wheel, String> {
    let page = format!("{index}/{}/", normalized(package));
    let page = Url::parse(&page).map_err(|e| format!("the index address is wrong: {e}"))?;
    let named = shown(&page);
    let response = client
        .get(page.clone())
        .header(header::ACCEPT, ACCEPT)
        .send()
        .await
        .map_err(|e| format!("{named}: {}", plain(&e)))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err(format!("{named} does not exist")),
        status => return Err(format!("{named} answered {status}")),
    }
    // Where a redirect led is what relative links are relative to.
    let base = response.url().clone();
    let json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.contains("json"));
    let body = response
        .text()
        .await
        .map_err(|e| format!("{named}: {}", plain(&e)))?;
    let files = if json {
        parse_json(&body, &base).map_err(|e| format!("{named}: {e}"))?
    } else {
        parse_html(&body, &base)
    };
    let mut wheel = choose(files, package, version)
        .ok_or_else(|| format!("{named} has no wheel of version {version}"))?;
    // As pip does: an index with a password hands files out with the same one.
    if wheel.url.origin() == page.origin() && wheel.url.username().is_empty() {
        let _ = wheel.url.set_username(page.username());
        let _ = wheel.url.set_password(page.password());
    }
    Ok(wheel)
}

/// The name as it stands in addresses (PEP 503).
fn normalized(package: &str) -> String {
    let mut out = String::new();
    for c in package.to_lowercase().chars() {
        let c = if matches!(c, '.' | '_') { '-' } else { c };
        if !(c == '-' && out.ends_with('-')) {
            out.push(c);
        }
    }
    out
}

fn parse_json(body: &str, base: &Url) -> Result<Vec<Wheel>, String> {
    #[derive(Deserialize)]
    struct Page {
        files: Vec<File>,
    }
    #[derive(Deserialize)]
    struct File {
        filename: String,
        url: String,
        #[serde(default)]
        hashes: std::collections::BTreeMap<String, String>,
        #[serde(default)]
        size: Option<u64>,
    }
    let page: Page =
        serde_json::from_str(body).map_err(|e| format!("the answer is not a package page: {e}"))?;
    Ok(page
        .files
        .into_iter()
        .filter_map(|f| {
            Some(Wheel {
                url: base.join(&f.url).ok()?,
                sha256: f.hashes.get("sha256").map(|h| h.to_lowercase()),
                filename: f.filename,
                size: f.size,
            })
        })
        .collect())
}

/// The links of a page. Only `href` of `<a>` matters: the file's name is its last part, its hash
/// the fragment.
fn parse_html(body: &str, base: &Url) -> Vec<Wheel> {
    // ASCII case folding keeps byte offsets.
    let lower = body.to_ascii_lowercase();
    let mut files = Vec::new();
    let mut at = 0;
    while let Some(start) = lower[at..].find("<a").map(|i| at + i + 2) {
        let Some(end) = lower[start..].find('>').map(|i| start + i) else {
            break;
        };
        at = end;
        if let Some(href) = attribute(&body[start..end], &lower[start..end], "href")
            && let Ok(mut url) = base.join(&unescape(href))
        {
            let sha256 = url
                .fragment()
                .and_then(|f| f.strip_prefix("sha256="))
                .map(str::to_lowercase);
            url.set_fragment(None);
            let filename = url
                .path_segments()
                .and_then(|mut s| s.next_back())
                .map(percent_decoded)
                .unwrap_or_default();
            files.push(Wheel {
                filename,
                url,
                sha256,
                size: None,
            });
        }
    }
    files
}

fn attribute<'a>(tag: &'a str, lower: &str, name: &str) -> Option<&'a str> {
    let mut at = 0;
    loop {
        let found = at + lower[at..].find(name)?;
        at = found + name.len();
        let after = tag[at..].trim_start();
        let whole = tag[..found].ends_with(char::is_whitespace) && after.starts_with('=');
        if whole {
            let value = after[1..].trim_start();
            return match value.chars().next()? {
                quote @ ('"' | '\'') => value[1..].split(quote).next(),
                _ => value.split_whitespace().next(),
            };
        }
    }
}

fn unescape(text: &str) -> String {
    text.replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let hex = text
            .get(i + 1..i + 3)
            .filter(|_| bytes[i] == b'%')
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        out.push(hex.unwrap_or(bytes[i]));
        i += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The wheel of this package and version; one for any platform before others.
fn choose(files: Vec<Wheel>, package: &str, version: &str) -> Option<Wheel> {
    files
        .into_iter()
        .filter(|f| {
            let Some(stem) = f.filename.strip_suffix(".whl") else {
                return false;
            };
            let mut parts = stem.split('-');
            parts
                .next()
                .is_some_and(|n| normalized(n) == normalized(package))
                && parts.next() == Some(version)
        })
        .min_by_key(|f| !f.filename.ends_with("-none-any.whl"))
}

/// Reads a page, and chooses from it.
pub(crate) fn read_page(body: &str, json: bool) {
    let Ok(base) = Url::parse("https://index.invalid/simple/some-voice/") else {
        return;
    };
    let files = match json {
        true => parse_json(body, &base).unwrap_or_default(),
        false => parse_html(body, &base),
    };
    let _ = choose(files, "some-voice", "1.0");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn base() -> Url {
        Url::parse("https://index.test/root/simple/some-pkg/").unwrap()
    }

    #[test]
    fn names_are_normalized_as_the_index_does() {
        assert_eq!(normalized("Some._-Pkg_2.b"), "some-pkg-2-b");
    }

    #[test]
    fn the_json_page_gives_address_hash_and_size() {
        let files = parse_json(
            r#"{"meta":{"api-version":"1.1"},"name":"some-pkg","files":[
                {"filename":"some_pkg-1.0.tar.gz","url":"https://f/some_pkg-1.0.tar.gz","hashes":{}},
                {"filename":"some_pkg-1.0-cp311-cp311-win_amd64.whl","url":"x.whl","hashes":{}},
                {"filename":"some_pkg-1.0-py3-none-any.whl","url":"../../files/w.whl","hashes":{"sha256":"AB"},"size":7,"yanked":false},
                {"filename":"some_pkg-1.0.1-py3-none-any.whl","url":"y.whl","hashes":{}}]}"#,
            &base(),
        )
        .unwrap();
        assert_eq!(
            choose(files, "some-pkg", "1.0").unwrap(),
            Wheel {
                filename: "some_pkg-1.0-py3-none-any.whl".into(),
                url: Url::parse("https://index.test/root/files/w.whl").unwrap(),
                sha256: Some("ab".into()),
                size: Some(7),
            }
        );
    }

    #[test]
    fn the_html_page_gives_address_and_hash() {
        let files = parse_html(
            "<!DOCTYPE html><html><body>\n<A data-x='1' HREF=\"../../p/some_pkg-2.0%2Blocal-py3-none-any.whl?a=1&amp;b=2#sha256=CD\" data-requires-python=\"&gt;=3\">some</A><br/>\n<a href='some.pkg-3.0-py3-none-any.whl'>x</a><abbr>n</abbr>",
            &base(),
        );
        let wheel = choose(files.clone(), "Some_Pkg", "2.0+local").unwrap();
        assert_eq!(
            wheel.url.as_str(),
            "https://index.test/root/p/some_pkg-2.0%2Blocal-py3-none-any.whl?a=1&b=2"
        );
        assert_eq!(wheel.sha256.as_deref(), Some("cd"));
        assert_eq!(
            choose(files, "some-pkg", "3.0").unwrap().url.as_str(),
            "https://index.test/root/simple/some-pkg/some.pkg-3.0-py3-none-any.whl"
        );
    }

    #[test]
    fn another_version_or_only_an_sdist_is_no_wheel() {
        let page = r#"{"files":[{"filename":"some_pkg-1.0.tar.gz","url":"a","hashes":{}}]}"#;
        let files = parse_json(page, &base()).unwrap();
        assert_eq!(choose(files, "some-pkg", "1.0"), None);
    }

    #[test]
    fn broken_pages_are_no_panic() {
        assert!(parse_html("<a href=", &base()).is_empty());
        assert!(parse_html("<a href>\u{e9}<a \u{e9}=1 href='", &base()).len() <= 1);
        assert!(parse_json("<html>", &base()).is_err());
        assert_eq!(percent_decoded("%e9%zz%"), "\u{fffd}%zz%");
    }
}
