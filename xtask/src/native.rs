//! What the build needs beside Rust: a C++ compiler, CMake with something to drive, and libclang
//! (for the bindings to llama.cpp and CTranslate2).

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::packages::{self, Package};
use crate::runner::{output, which};

struct Need {
    what: &'static str,
    why: &'static str,
    find: fn() -> Option<String>,
    package: Package,
}

const NEEDS: &[Need] = &[
    Need {
        what: "a C++ compiler",
        why: "compiles llama.cpp and CTranslate2",
        find: compiler,
        package: Package {
            apt: "build-essential",
            dnf: "gcc gcc-c++",
            pacman: "gcc",
            zypper: "gcc gcc-c++",
            brew: "gcc",
        },
    },
    Need {
        what: "CMake",
        why: "configures llama.cpp and CTranslate2",
        find: || version("cmake", &["--version"]),
        package: Package {
            apt: "cmake",
            dnf: "cmake",
            pacman: "cmake",
            zypper: "cmake",
            brew: "cmake",
        },
    },
    Need {
        what: "make or Ninja",
        why: "is driven by CMake",
        find: || version("make", &["--version"]).or_else(|| version("ninja", &["--version"])),
        package: Package {
            apt: "make",
            dnf: "make",
            pacman: "make",
            zypper: "make",
            brew: "make",
        },
    },
    Need {
        what: "libclang",
        why: "reads the C headers of llama.cpp",
        find: || {
            let library = libclang().filter(|l| has_headers(l))?;
            Some(library.display().to_string())
        },
        package: Package {
            apt: "libclang-dev",
            dnf: "clang-devel",
            pacman: "clang",
            zypper: "clang-devel",
            brew: "llvm",
        },
    },
];

/// What a build with microphone and loudspeaker needs beside; on Linux only.
static SOUND_CARD: Need = Need {
    what: "ALSA's headers",
    why: "are for microphone and loudspeaker (`cargo xtask talk`)",
    find: || {
        if !cfg!(target_os = "linux") {
            return Some("not needed here".to_owned());
        }
        let version = output(Command::new("pkg-config").args(["--modversion", "alsa"]))?;
        Some(format!("alsa {}", version.trim()))
    },
    package: Package {
        apt: "libasound2-dev pkg-config",
        dnf: "alsa-lib-devel pkgconf-pkg-config",
        pacman: "alsa-lib pkgconf",
        zypper: "alsa-devel pkg-config",
        brew: "",
    },
};

/// Says what is there and what is missing; installs nothing.
pub(crate) fn doctor() -> Outcome {
    let mut missing = Vec::new();
    for need in NEEDS {
        match (need.find)() {
            Some(found) => println!("ok       {:15} {found}", need.what),
            None => {
                println!("MISSING  {:15} {}", need.what, need.why);
                missing.push(need.what);
            }
        }
    }
    match (SOUND_CARD.find)() {
        Some(found) => println!("ok       {:15} {found}", SOUND_CARD.what),
        None => println!("optional {:15} {}", SOUND_CARD.what, SOUND_CARD.why),
    }
    match cpu_lacks() {
        Some(lacks) => println!("WARNING  {:15} {lacks}", "this CPU"),
        None => println!("ok       {:15} can run what is built", "this CPU"),
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "missing: {}. `cargo xtask run` installs it",
        missing.join(", ")
    ))
}

/// Installs what is missing.
pub(crate) fn set_up() -> Outcome {
    install_missing(NEEDS.iter())?;
    if let Some(lacks) = cpu_lacks() {
        eprintln!("warning: {lacks}");
    }
    Ok(())
}

/// Installs what is missing for a build with microphone and loudspeaker.
pub(crate) fn set_up_sound_card() -> Outcome {
    install_missing(NEEDS.iter().chain([&SOUND_CARD]))
}

fn install_missing(needs: impl Iterator<Item = &'static Need>) -> Outcome {
    let missing: Vec<&Need> = needs.filter(|n| (n.find)().is_none()).collect();
    if !missing.is_empty() {
        for need in &missing {
            println!("Missing: {} ({})", need.what, need.why);
        }
        let packages: Vec<&Package> = missing.iter().map(|n| &n.package).collect();
        packages::install(&packages)?;
        if let Some(need) = missing.iter().find(|n| (n.find)().is_none()) {
            return Err(format!("{} is still not found after installing", need.what));
        }
    }
    Ok(())
}

fn compiler() -> Option<String> {
    let own = std::env::var("CXX").ok().filter(|v| !v.trim().is_empty());
    let names = own
        .iter()
        .map(String::as_str)
        .chain(["c++", "g++", "clang++"]);
    names
        .into_iter()
        .find_map(|name| version(name, &["--version"]))
}

/// The first line that a program says of itself.
fn version(program: &str, arguments: &[&str]) -> Option<String> {
    let found = which(program).unwrap_or_else(|| PathBuf::from(program));
    let text = output(Command::new(found).args(arguments))?;
    Some(text.lines().next().unwrap_or(program).to_owned())
}

/// The library, where bindgen looks for it: LIBCLANG_PATH, llvm-config, the linker's cache, then
/// the folders that distributions use.
fn libclang() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("LIBCLANG_PATH").map(PathBuf::from) {
        return if path.is_file() {
            Some(path)
        } else {
            library_in(&path)
        };
    }
    let config = std::env::var("LLVM_CONFIG_PATH").unwrap_or_else(|_| "llvm-config".into());
    let from_config =
        output(Command::new(config).arg("--libdir")).and_then(|dir| library_in(Path::new(&dir)));
    from_config
        .or_else(from_linker_cache)
        .or_else(|| folders().iter().find_map(|dir| library_in(dir)))
}

fn from_linker_cache() -> Option<PathBuf> {
    let program = which("ldconfig").unwrap_or_else(|| PathBuf::from("/sbin/ldconfig"));
    let text = output(Command::new(program).arg("-p"))?;
    text.lines()
        .filter_map(|line| line.rsplit(" => ").next().map(PathBuf::from))
        .find(|path| is_libclang(path) && path.is_file())
}

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = [
        "/usr/lib64",
        "/usr/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/local/lib",
        "/opt/homebrew/opt/llvm/lib",
        "/usr/local/opt/llvm/lib",
        "/Library/Developer/CommandLineTools/usr/lib",
        "/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib",
    ]
    .iter()
    .map(PathBuf::from)
    .collect();
    // /usr/lib/llvm-19/lib, /usr/lib64/llvm19/lib64
    for parent in ["/usr/lib", "/usr/lib64"] {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("llvm") {
                folders.push(entry.path().join("lib"));
                folders.push(entry.path().join("lib64"));
            }
        }
    }
    folders
}

fn library_in(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|path| is_libclang(path))
        .collect();
    found.sort();
    found.pop()
}

/// libclang.so, libclang-19.so.1, libclang.dylib; not libclang-cpp.so, which is another library.
fn is_libclang(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(rest) = name.strip_prefix("libclang") else {
        return name == "clang.dll" || name == "libclang.dll";
    };
    let versioned = rest
        .strip_prefix('-')
        .is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
    let shared = [".so", ".dylib", ".dll"]
        .iter()
        .any(|end| rest.contains(end));
    shared && (rest.starts_with('.') || versioned)
}

/// Whether clang's own headers (stddef.h and the like) are there. Distributions ship the library
/// without them too, and then bindgen fails at the first `#include`.
fn has_headers(library: &Path) -> bool {
    if !cfg!(target_os = "linux") || which("clang").is_some() {
        return true;
    }
    let real = library
        .canonicalize()
        .unwrap_or_else(|_| library.to_owned());
    let beside = real.parent().map(Path::to_owned);
    folders().into_iter().chain(beside).any(|dir| {
        let versions = std::fs::read_dir(dir.join("clang")).into_iter().flatten();
        versions
            .flatten()
            .any(|v| v.path().join("include/stddef.h").is_file())
    })
}

/// Programs are built for x86-64-v3. Asked of the system and not of the CPU: this program is
/// itself built for it, and the compiler would answer for the CPU.
fn cpu_lacks() -> Option<String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return None;
    }
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let lacking = lacking_features(&text)?;
    Some(format!(
        "lacks {lacking}, which the build uses (x86-64-v3): the program would not start. Build \
         with RUSTFLAGS=\"-C target-cpu=native\", and expect slow speech"
    ))
}

/// Names of the x86-64-v3 features that the flags in a /proc/cpuinfo do not list.
fn lacking_features(cpuinfo: &str) -> Option<String> {
    let flags = cpuinfo.lines().find_map(|l| l.strip_prefix("flags"))?;
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let needed = ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"];
    let lacking: Vec<&str> = needed.into_iter().filter(|f| !flags.contains(f)).collect();
    (!lacking.is_empty()).then(|| lacking.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_libclang_itself_counts() {
        for name in [
            "libclang.so",
            "libclang-14.so.13",
            "libclang.so.19.1",
            "libclang.dylib",
        ] {
            assert!(
                is_libclang(Path::new("/usr/lib").join(name).as_path()),
                "{name}"
            );
        }
        for name in [
            "libclang-cpp.so.14",
            "libclang.a",
            "libclangAST.so",
            "clang",
        ] {
            assert!(
                !is_libclang(Path::new("/usr/lib").join(name).as_path()),
                "{name}"
            );
        }
    }

    #[test]
    fn a_cpu_without_avx2_is_noticed() {
        let new = "processor\t: 0\nflags\t\t: fpu avx avx2 bmi1 bmi2 f16c fma abm movbe\n";
        assert_eq!(lacking_features(new), None);
        let old = new.replace("avx2 ", "").replace(" fma", "");
        assert_eq!(lacking_features(&old).as_deref(), Some("avx2, fma"));
        assert_eq!(lacking_features("no flags here"), None);
    }
}
