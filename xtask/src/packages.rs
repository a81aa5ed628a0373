//! The system's package manager.

use std::process::Command;

use crate::Outcome;
use crate::runner::{output, shown, status, which};

/// Something the build or the tests need, by its name for each manager. A name may be several
/// packages, separated by spaces; an empty one means the manager does not have it.
pub(crate) struct Package {
    pub(crate) apt: &'static str,
    pub(crate) dnf: &'static str,
    pub(crate) pacman: &'static str,
    pub(crate) zypper: &'static str,
    pub(crate) brew: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manager {
    Apt,
    Dnf,
    Pacman,
    Zypper,
    Brew,
}

impl Manager {
    fn found() -> Option<Self> {
        [
            (Self::Apt, "apt-get"),
            (Self::Dnf, "dnf"),
            (Self::Pacman, "pacman"),
            (Self::Zypper, "zypper"),
            (Self::Brew, "brew"),
        ]
        .into_iter()
        .find(|(_, program)| which(program).is_some())
        .map(|(manager, _)| manager)
    }

    fn name(self, package: &Package) -> &'static str {
        match self {
            Self::Apt => package.apt,
            Self::Dnf => package.dnf,
            Self::Pacman => package.pacman,
            Self::Zypper => package.zypper,
            Self::Brew => package.brew,
        }
    }

    /// What to type before the packages' names.
    fn install(self) -> &'static [&'static str] {
        match self {
            Self::Apt => &["apt-get", "install", "-y", "--no-install-recommends"],
            Self::Dnf => &["dnf", "install", "-y"],
            Self::Pacman => &["pacman", "-S", "--needed", "--noconfirm"],
            Self::Zypper => &["zypper", "--non-interactive", "install"],
            Self::Brew => &["brew", "install"],
        }
    }
}

/// Installs packages, as root or through sudo.
///
/// Fails with what to type where that cannot be done.
pub(crate) fn install(packages: &[&Package]) -> Outcome {
    let Some(manager) = Manager::found() else {
        let names: Vec<_> = packages.iter().map(|p| p.apt).collect();
        return Err(format!(
            "no package manager that is known here (apt, dnf, pacman, zypper, brew). Install what \
             Debian calls: {}",
            names.join(" ")
        ));
    };
    let names = names(manager, packages);
    if names.is_empty() {
        return Err(format!("{manager:?} has no package for it"));
    }
    let words: Vec<&str> = manager.install().iter().copied().chain(names).collect();
    let by_hand = format!("install it by hand:\n    {}", words.join(" "));
    if std::env::var_os("DUOLOGUE_NO_INSTALL").is_some_and(|v| v != "0" && !v.is_empty()) {
        return Err(format!("DUOLOGUE_NO_INSTALL is set; {by_hand}"));
    }
    let prefix: &[&str] = if manager == Manager::Brew || is_root() {
        &[]
    } else if which("sudo").is_some() {
        &["sudo"]
    } else {
        return Err(format!("not root, and there is no sudo; {by_hand}"));
    };
    println!("Installing: {}", words.join(" "));
    if manager == Manager::Apt {
        // Old lists name packages that are gone. Failing here is no reason not to try.
        if let Err(e) = run(prefix, &["apt-get", "update", "-q"]) {
            eprintln!("warning: {e}");
        }
    }
    run(prefix, &words).map_err(|e| format!("{e}; {by_hand}"))
}

fn names<'a>(manager: Manager, packages: &[&'a Package]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for name in packages
        .iter()
        .flat_map(|p| manager.name(p).split_whitespace())
    {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn run(prefix: &[&str], words: &[&str]) -> Outcome {
    let words = [prefix, words].concat();
    let Some((program, arguments)) = words.split_first() else {
        return Ok(());
    };
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    println!("    {}", shown(&command));
    if prefix.is_empty() {
        return status(&mut command);
    }
    // sudo may have to ask for a password.
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{}` ended with {status}", shown(&command))),
        Err(e) => Err(format!("cannot start `{}`: {e}", shown(&command))),
    }
}

pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).as_deref() == Some("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_two_things_need_is_named_once_and_an_absent_one_not_at_all() {
        let one = Package {
            apt: "llvm clang",
            dnf: "",
            pacman: "clang",
            zypper: "",
            brew: "llvm",
        };
        let two = Package {
            apt: "clang cmake",
            dnf: "cmake",
            pacman: "clang",
            zypper: "",
            brew: "llvm",
        };
        assert_eq!(
            names(Manager::Apt, &[&one, &two]),
            ["llvm", "clang", "cmake"]
        );
        assert_eq!(names(Manager::Dnf, &[&one, &two]), ["cmake"]);
        assert_eq!(names(Manager::Brew, &[&one, &two]), ["llvm"]);
    }
}
