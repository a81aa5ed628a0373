//! Servers of others, for tests: compiled once from their sources by Go, so that nothing is put into the system and
//! no service is started.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::packages::{self, Package};
use crate::runner::{Runner, output, status, which};

/// A program of others.
pub(crate) struct Tool {
    /// What it is called here.
    name: &'static str,
    /// The variable by which tests are told where it is, and by which somebody names one that is there.
    pub(crate) variable: &'static str,
    module: &'static str,
    version: &'static str,
}

pub(crate) const LIVEKIT: Tool = Tool {
    name: "livekit-server",
    variable: "LIVEKIT_SERVER",
    module: "github.com/livekit/livekit-server/cmd/server",
    version: "v1.13.5",
};
pub(crate) const CADDY: Tool = Tool {
    name: "caddy",
    variable: "CADDY",
    module: "github.com/caddyserver/caddy/v2/cmd/caddy",
    version: "v2.10.2",
};
/// A TURN server: the example of the library that LiveKit's own is made with.
pub(crate) const TURN: Tool = Tool {
    name: "turn-server",
    variable: "TURN_SERVER",
    module: "github.com/pion/turn/v4/examples/turn-server/simple",
    version: "v4.1.1",
};

/// The first Go that fetches a newer one where a module needs it.
const OLDEST_GO: (u32, u32) = (1, 21);

const GO: Package = Package {
    apt: "golang-go",
    dnf: "golang",
    pacman: "go",
    zypper: "go",
    brew: "go",
};

impl Tool {
    /// The program. Compiled, in some minutes, where the target folder does not have it yet.
    pub(crate) fn get(&self, runner: &Runner) -> Outcome<PathBuf> {
        if let Some(own) = std::env::var_os(self.variable).map(PathBuf::from) {
            return if own.is_file() {
                Ok(own)
            } else {
                Err(format!("{} is no file: {}", self.variable, own.display()))
            };
        }
        let folder = runner.target().join("tools");
        let suffix = std::env::consts::EXE_SUFFIX;
        let wanted = folder.join(format!("{}-{}{suffix}", self.name, self.version));
        if wanted.is_file() {
            return Ok(wanted);
        }
        let go = go()?;
        println!("    compiling {} takes some minutes, once", self.name);
        let mut install = Command::new(&go);
        install
            .args(["install", &format!("{}@{}", self.module, self.version)])
            .env("GOBIN", &folder)
            .env("GOFLAGS", "");
        status(&mut install)?;
        let last = self.module.rsplit('/').next().unwrap_or(self.name);
        let made = folder.join(format!("{last}{suffix}"));
        std::fs::rename(&made, &wanted)
            .map_err(|e| format!("{} was not made: {e}", made.display()))?;
        Ok(wanted)
    }
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
            "{} is Go {}.{}; the tests' servers need {}.{} or later. Install it from https://go.dev/dl, or name them in \
             LIVEKIT_SERVER, CADDY and TURN_SERVER",
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
