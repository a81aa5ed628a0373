//! Where packages come from on this machine, found as pip finds it.
//!
//! pip reads the machine's, the user's and the environment's configuration files, the one named by
//! `PIP_CONFIG_FILE`, and then `PIP_*` variables; later ones win. uv's variables are honoured where
//! pip has none. Passwords kept in keyrings and `.netrc` are not looked up.

use std::collections::BTreeMap;
use std::path::PathBuf;

use etcetera::BaseStrategy;

use crate::error::VoicepackError;

/// What pip falls back to.
const DEFAULT_INDEX: &str = "https://pypi.org/simple";

/// The package indexes of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexSettings {
    /// Simple-API addresses, tried in this order; empty where pip is told to use none.
    pub indexes: Vec<String>,
    /// A certificate file that pip is told to trust.
    pub certificate: Option<PathBuf>,
    /// A proxy that pip is told to use.
    pub proxy: Option<String>,
}

impl IndexSettings {
    /// Reads this machine's files and variables.
    ///
    /// # Errors
    /// A configuration file that is there but cannot be read.
    pub fn from_machine() -> Result<Self, VoicepackError> {
        let env = |name: &str| std::env::var(name).ok();
        let mut files = Vec::new();
        for path in config_files(&env) {
            match std::fs::read_to_string(&path) {
                Ok(text) => files.push(text),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {}
                Err(e) => return Err(VoicepackError::io("read", path)(e)),
            }
        }
        Ok(Self::resolve(&files, env))
    }

    /// Settles the settings from the texts of configuration files, least important first, and the
    /// environment.
    pub(crate) fn resolve(files: &[String], env: impl Fn(&str) -> Option<String>) -> Self {
        let mut settings = BTreeMap::new();
        for text in files {
            let sections = parse_ini(text);
            for section in ["global", "install", "download"] {
                settings.extend(sections.get(section).cloned().unwrap_or_default());
            }
        }
        let get = |key: &str| {
            let name = format!("PIP_{}", key.to_uppercase().replace('-', "_"));
            env(&name)
                .or_else(|| settings.get(key).cloned())
                .filter(|v| !v.trim().is_empty())
        };
        let uv = |name: &str| env(name).filter(|v| !v.trim().is_empty());

        let mut indexes = Vec::new();
        let off = get("no-index")
            .is_some_and(|v| matches!(v.to_lowercase().as_str(), "1" | "true" | "yes" | "on"));
        if !off {
            indexes.push(
                get("index-url")
                    .or_else(|| uv("UV_DEFAULT_INDEX"))
                    .or_else(|| uv("UV_INDEX_URL"))
                    .unwrap_or_else(|| DEFAULT_INDEX.into()),
            );
            let extra = [
                get("extra-index-url"),
                uv("UV_INDEX"),
                uv("UV_EXTRA_INDEX_URL"),
            ];
            for url in extra.iter().flatten().flat_map(|v| v.split_whitespace()) {
                // uv allows `name=address`.
                let url = match url.split_once('=') {
                    Some((name, rest)) if !name.contains([':', '/']) => rest,
                    _ => url,
                };
                indexes.push(url.to_owned());
            }
        }
        let mut seen = Vec::new();
        indexes.retain_mut(|url| {
            *url = url.trim().trim_end_matches('/').to_owned();
            let new = !seen.contains(url);
            seen.push(url.clone());
            new
        });
        Self {
            indexes,
            certificate: get("cert").map(PathBuf::from).filter(|p| p.is_file()),
            proxy: get("proxy").map(|p| {
                if p.contains("://") {
                    p
                } else {
                    format!("http://{p}")
                }
            }),
        }
    }
}

/// Paths of pip's configuration files, least important first.
fn config_files(env: &impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let name = if cfg!(windows) { "pip.ini" } else { "pip.conf" };
    let own = env("PIP_CONFIG_FILE");
    // The null device is pip's way to say: no files at all.
    if own.as_deref() == Some(if cfg!(windows) { "nul" } else { "/dev/null" }) {
        return Vec::new();
    }
    let mut files = Vec::new();
    if cfg!(windows) {
        files.extend(env("PROGRAMDATA").map(|d| PathBuf::from(d).join("pip").join(name)));
    } else {
        let dirs = env("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into());
        let mut dirs: Vec<_> = dirs.split(':').filter(|d| !d.is_empty()).collect();
        dirs.reverse();
        files.extend(dirs.iter().map(|d| PathBuf::from(d).join("pip").join(name)));
        files.push(PathBuf::from("/etc").join(name));
    }
    if let Ok(base) = etcetera::choose_base_strategy() {
        let home = base.home_dir();
        files.push(
            home.join(if cfg!(windows) { "pip" } else { ".pip" })
                .join(name),
        );
        files.push(base.config_dir().join("pip").join(name));
        if cfg!(target_os = "macos") {
            files.push(home.join("Library/Application Support/pip").join(name));
        }
    }
    files.extend(env("VIRTUAL_ENV").map(|d| PathBuf::from(d).join(name)));
    files.extend(own.map(PathBuf::from));
    files
}

/// Sections of `key = value` lines. An indented line goes on with the value before it.
pub(crate) fn parse_ini(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = String::new();
    let mut key = None::<String>;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.trim().to_lowercase();
            key = None;
        } else if let (true, Some(key)) = (line.starts_with([' ', '\t']), &key) {
            let value = sections
                .entry(section.clone())
                .or_default()
                .entry(key.clone())
                .or_default();
            value.push('\n');
            value.push_str(trimmed);
        } else if let Some(at) = trimmed.find(['=', ':']) {
            let name = trimmed[..at].trim().to_lowercase().replace('_', "-");
            let value = trimmed[at + 1..].trim().to_owned();
            sections
                .entry(section.clone())
                .or_default()
                .insert(name.clone(), value);
            key = Some(name);
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(files: &[&str], env: &[(&str, &str)]) -> IndexSettings {
        let files: Vec<String> = files.iter().map(|f| (*f).to_owned()).collect();
        let env: BTreeMap<_, _> = env.iter().copied().collect();
        IndexSettings::resolve(&files, |name| env.get(name).map(|v| (*v).to_owned()))
    }

    #[test]
    fn nothing_set_means_pips_default() {
        assert_eq!(resolve(&[], &[]).indexes, [DEFAULT_INDEX]);
    }

    #[test]
    fn a_later_file_wins_and_the_environment_wins_over_files() {
        let machine = "[global]\nindex-url = https://machine/simple/\n";
        let user = "[global]\nindex_url: https://user/simple\n";
        assert_eq!(
            resolve(&[machine, user], &[]).indexes,
            ["https://user/simple"]
        );
        assert_eq!(
            resolve(&[machine, user], &[("PIP_INDEX_URL", "https://env/simple")]).indexes,
            ["https://env/simple"]
        );
        assert_eq!(
            resolve(&[user], &[("UV_INDEX_URL", "https://uv/simple")]).indexes,
            ["https://user/simple"]
        );
        assert_eq!(
            resolve(&[], &[("UV_INDEX_URL", "https://uv/simple")]).indexes,
            ["https://uv/simple"]
        );
    }

    #[test]
    fn the_download_section_wins_over_the_global_one() {
        let file = "[download]\nindex-url = https://b\n[global]\nindex-url = https://a\n";
        assert_eq!(resolve(&[file], &[]).indexes, ["https://b"]);
    }

    #[test]
    fn extra_indexes_may_span_lines_and_repeat() {
        let file = "# ours\n[global]\nindex-url = https://a/simple\nextra-index-url =\n    https://b/simple\n    https://a/simple/\n\ntimeout = 3\n";
        assert_eq!(
            resolve(&[file], &[("UV_INDEX", "c=https://c/simple")]).indexes,
            ["https://a/simple", "https://b/simple", "https://c/simple"]
        );
    }

    #[test]
    fn no_index_means_none() {
        assert!(
            resolve(&["[global]\nno-index = true\n"], &[])
                .indexes
                .is_empty()
        );
        assert!(resolve(&[], &[("PIP_NO_INDEX", "1")]).indexes.is_empty());
    }

    #[test]
    fn a_proxy_without_a_scheme_is_an_http_one() {
        let settings = resolve(&["[global]\nproxy = me:secret@proxy:3128\n"], &[]);
        assert_eq!(
            settings.proxy.as_deref(),
            Some("http://me:secret@proxy:3128")
        );
    }
}
