//! The real LiveKit server, for tests: compiled once from its sources by Go.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::packages::{self, Package};
use crate::runner::{Runner, output, status, which};

/// What is compiled, and its version.
const MODULE: &str = "github.com/livekit/livekit-server/cmd/server";
const VERSION: &str = "v1.13.5";
/// The first Go that fetches a newer one where a module needs it.
const OLDEST_GO: (u32, u32) = (1, 21);

const GO: Package = Package {
    apt: "golang-go",
    dnf: "golang",
    pacman: "go",
    zypper: "go",
    brew: "go",
};

/// The program. Compiled, in some minutes, where the target folder does not have it yet.
pub(crate) fn server(runner: &Runner) -> Outcome<PathBuf> {
    if let Some(own) = std::env::var_os("LIVEKIT_SERVER").map(PathBuf::from) {
        return if own.is_file() {
            Ok(own)
        } else {
            Err(format!("LIVEKIT_SERVER is no file: {}", own.display()))
        };
    }
    let folder = runner.target().join("tools");
    let suffix = std::env::consts::EXE_SUFFIX;
    let wanted = folder.join(format!("livekit-server-{VERSION}{suffix}"));
    if wanted.is_file() {
        return Ok(wanted);
    }
    let go = go()?;
    println!("    compiling it takes some minutes, once");
    let mut install = Command::new(&go);
    install
        .args(["install", &format!("{MODULE}@{VERSION}")])
        .env("GOBIN", &folder)
        .env("GOFLAGS", "");
    status(&mut install)?;
    let made = folder.join(format!("server{suffix}"));
    std::fs::rename(&made, &wanted).map_err(|e| format!("{} was not made: {e}", made.display()))?;
    Ok(wanted)
}

/// Go, installed where it is missing.
fn go() -> Outcome<PathBuf> {
    if find().is_none() {
        packages::install(&[&GO])?;
    }
    let found = find().ok_or("Go is still not found after installing")?;
    let told = version(&found);
    match told.as_deref().and_then(parse) {
        Some(version) if version < OLDEST_GO => Err(format!(
            "{} is Go {}.{}; the LiveKit server needs {}.{} or later. Install it from https://go.dev/dl, or name a \
             livekit-server in LIVEKIT_SERVER",
            found.display(),
            version.0,
            version.1,
            OLDEST_GO.0,
            OLDEST_GO.1
        )),
        _ => Ok(found),
    }
}

fn find() -> Option<PathBuf> {
    let usual = Path::new("/usr/local/go/bin/go");
    which("go").or_else(|| usual.is_file().then(|| usual.to_owned()))
}

fn version(go: &Path) -> Option<String> {
    output(Command::new(go).args(["env", "GOVERSION"]))
}

/// `go1.26.8` as (1, 26).
fn parse(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix("go")?.split(['.', 'r', 'b', '-', ' ']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_compared_by_their_numbers() {
        assert_eq!(parse("go1.26.8"), Some((1, 26)));
        assert_eq!(parse("go1.21rc2"), Some((1, 21)));
        assert!(parse("go1.9.1") < Some(OLDEST_GO));
        assert_eq!(parse("devel"), None);
    }
}
