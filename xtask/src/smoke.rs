//! The composed stack, brought up for real: images built from the Dockerfile, `deploy/compose.yaml`, a client that
//! talks through it, and a stop that drains.
//!
//! The program in the images is the one that was built here, so that nothing is compiled a second time, or, where asked
//! for, compiled inside the image. Where images of others cannot be pulled, the base is
//! made with debootstrap, Rust is this machine's, Redis and Prometheus come from Debian's packages, and Caddy and LiveKit
//! are the ones that other tests use; Grafana is left out.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::docker::Engine;
use crate::runner::{Runner, output, status};
use crate::tests::python;
use crate::{Outcome, go};

const STEP: &str = "composed stack";
/// What the Dockerfile stands on.
const BASE: &str = "debian:bookworm-slim";
/// What compiles the program in the images.
const RUST: &str = "rust:1.95-slim-bookworm";
/// The image that has nothing but the program.
const PROGRAM: &str = "duologue-program";
const PROJECT: &str = "duologue-smoke";
const SERVICES: &[&str] = &[
    "redis",
    "livekit",
    "caddy",
    "orchestrator",
    "worker",
    "prometheus",
];
/// Those that drain when they are asked to stop.
const DRAINED: &[&str] = &["orchestrator", "worker"];
/// Needs a shared library for sound cards where it was built for them.
const PROGRAM_PACKAGES: &str = "libasound2";

/// Where the images have their program from.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Program {
    /// It was built here.
    Built,
    /// It is compiled inside the image.
    Compiled,
}

/// Brings the stack up, talks through it, and takes it down. Where there is no engine it is told and left out.
pub(crate) fn run(
    runner: &mut Runner,
    python: &Path,
    others: &[(&str, PathBuf)],
    program: Program,
) -> Outcome {
    let stack = match Stack::new(runner, python, others, program) {
        Ok(stack) => stack,
        Err(reason) => {
            println!("\n==> {STEP}\n    NOT CHECKED: {reason}");
            runner.skipped(STEP);
            return Ok(());
        }
    };
    runner.timed(STEP, |_| stack.try_out())
}

/// The task of its own: what the test needs, then the test.
pub(crate) fn alone(runner: &mut Runner, program: Program) -> Outcome {
    let requirements = runner.root().join("tests/requirements.txt");
    let python = python(runner, &requirements, "tests-venv")?;
    let mut others = Vec::new();
    for tool in [go::LIVEKIT, go::CADDY] {
        runner.timed("servers of others", |runner| {
            others.push((tool.variable, tool.get(runner)?));
            Ok(())
        })?;
    }
    run(runner, &python, &others, program)
}

struct Stack {
    engine: Engine,
    /// The workspace.
    root: PathBuf,
    program: Program,
    /// The program that was built here.
    binary: PathBuf,
    /// One that has the tests' packages.
    python: PathBuf,
    /// What is made for the test.
    folder: PathBuf,
    /// A copy of `deploy` in it, with secrets of its own.
    deploy: PathBuf,
    livekit: Option<PathBuf>,
    caddy: Option<PathBuf>,
    https: u16,
    prometheus: u16,
}

impl Stack {
    fn new(
        runner: &Runner,
        python: &Path,
        others: &[(&str, PathBuf)],
        program: Program,
    ) -> Result<Self, String> {
        let engine = Engine::find(runner)?;
        let of = |variable: &str| {
            let found = others.iter().find(|(name, _)| *name == variable);
            found.map(|(_, path)| path.clone())
        };
        let folder = runner.target().join("smoke");
        Ok(Self {
            engine,
            root: runner.root().to_owned(),
            program,
            binary: runner.binary(),
            python: python.to_owned(),
            deploy: folder.join("deploy"),
            folder,
            livekit: of(go::LIVEKIT.variable),
            caddy: of(go::CADDY.variable),
            https: free_port()?,
            prometheus: free_port()?,
        })
    }

    fn try_out(&self) -> Outcome {
        // One that was interrupted may have left it.
        let _ = std::fs::remove_dir_all(&self.folder);
        copy(&self.root.join("deploy"), &self.deploy)?;
        let made = part("images", || self.images());
        let outcome = made.and_then(|()| {
            let outcome = part("up", || self.up())
                .and_then(|()| part("talk", || self.talk()))
                .and_then(|()| part("drain", || self.drain()));
            if outcome.is_err() {
                let mut logs = self.compose();
                // What went wrong is told already.
                let _ = status(logs.args(["logs", "--no-color", "--tail", "40"]));
            }
            let mut down = self.compose();
            down.args(["down", "--volumes", "--timeout", "20"]);
            outcome.and(part("down", || status(quiet(&mut down))))
        });
        let _ = std::fs::remove_dir_all(&self.folder);
        outcome
    }

    fn images(&self) -> Outcome {
        self.others()?;
        if self.program == Program::Compiled {
            self.rust()?;
        } else {
            let context = self.folder.join("program");
            make(&context, "FROM scratch\nCOPY duologue /duologue\n")?;
            link(&self.binary, &context.join("duologue"))?;
            self.build(&context, PROGRAM)?;
        }
        for target in ["serve", "worker"] {
            let image = format!("duologue-{target}");
            let mut build = self.engine.docker(&["build", "--network=host"]);
            if self.program == Program::Built {
                build.arg("--quiet");
                build.args(["--build-arg", &format!("PROGRAM={PROGRAM}")]);
                build.args(["--build-arg", &format!("PACKAGES={PROGRAM_PACKAGES}")]);
            }
            build.args(["--file", "deploy/docker/Dockerfile"]);
            build.args(["--target", target, "--tag", &image, "."]);
            build.current_dir(&self.root);
            match self.program {
                Program::Built => status(quiet(&mut build))?,
                // It takes long enough to be looked at.
                Program::Compiled => status(build.arg("--progress=plain"))?,
            }
            status(quiet(&mut self.engine.docker(&[
                "run",
                "--rm",
                "--network=none",
                &image,
                "--version",
            ])))
            .map_err(|e| format!("{e}: this machine's program does not run in {BASE}"))?;
        }
        Ok(())
    }

    /// Images of others: pulled, or stood in for.
    fn others(&self) -> Outcome {
        if !self.has(BASE) && !self.pull(BASE) {
            println!(
                "    no image can be pulled: they are made from Debian's packages and what is here"
            );
            self.debootstrap()?;
        }
        let compose = read(&self.deploy.join("compose.yaml"))?;
        for image in images(&compose) {
            if self.has(image) || self.pull(image) {
                continue;
            }
            let name = image.split(':').next().unwrap_or(image);
            match (name, &self.livekit, &self.caddy) {
                ("redis", ..) => self.packaged(image, "redis-server redis-tools", "")?,
                ("prom/prometheus", ..) => {
                    let entry = "RUN mkdir /prometheus && chown nobody /prometheus\nUSER nobody\n\
                                 ENTRYPOINT [\"prometheus\"]\n";
                    self.packaged(image, "prometheus", entry)?;
                }
                ("livekit/livekit-server", Some(program), _) => {
                    self.program(image, program, "ENTRYPOINT [\"/program\"]\n")?;
                }
                ("caddy", _, Some(program)) => {
                    let command = "ENV XDG_DATA_HOME=/data\nCMD [\"/program\", \"run\", \"--config\", \
                                   \"/etc/caddy/Caddyfile\", \"--adapter\", \"caddyfile\"]\n";
                    self.program(image, program, command)?;
                }
                _ => println!("    left out: {image}"),
            }
        }
        Ok(())
    }

    /// What compiles: pulled, or the base with this machine's toolchain.
    fn rust(&self) -> Outcome {
        if self.has(RUST) || self.pull(RUST) {
            return Ok(());
        }
        let found = output(Command::new("rustc").args(["--print", "sysroot"]));
        let sysroot = PathBuf::from(found.ok_or("rustc does not tell where its toolchain is")?);
        let context = self.folder.join("rust");
        // Where this machine is behind a proxy of its own, it trusts that one's certificates, and so must cargo in there.
        let trusted = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        make(
            &context,
            &format!(
                "FROM {BASE}\nCOPY toolchain /usr/local/rust\nCOPY trusted.crt /usr/local/trusted.crt\n\
                 ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/rust/bin:$PATH {}\n",
                match &trusted {
                    Some(_) => "CARGO_HTTP_CAINFO=/usr/local/trusted.crt",
                    None => "",
                }
            ),
        )?;
        let trusted = trusted.map_or(Ok(Vec::new()), std::fs::read);
        trusted
            .and_then(|trusted| std::fs::write(context.join("trusted.crt"), trusted))
            .map_err(|e| format!("cannot copy SSL_CERT_FILE: {e}"))?;
        let toolchain = context.join("toolchain");
        std::fs::create_dir(&toolchain)
            .map_err(|e| format!("cannot create {}: {e}", toolchain.display()))?;
        let mut copy = Command::new("cp");
        copy.arg("-a")
            .args(["bin", "lib"].map(|part| sysroot.join(part)));
        status(copy.arg(&toolchain))?;
        self.build(&context, RUST)?;
        // It is large.
        let _ = std::fs::remove_dir_all(&context);
        Ok(())
    }

    fn has(&self, image: &str) -> bool {
        let mut inspect = self.engine.docker(&["image", "inspect", image]);
        output(inspect.stderr(Stdio::null())).is_some()
    }

    fn pull(&self, image: &str) -> bool {
        let mut pull = self.engine.docker(&["pull", "--quiet", image]);
        output(pull.stderr(Stdio::null())).is_some()
    }

    /// The base, made from Debian's packages.
    fn debootstrap(&self) -> Outcome {
        let root = self.folder.join("root");
        let suite = BASE.trim_start_matches("debian:").trim_end_matches("-slim");
        let mut make = Command::new("debootstrap");
        make.args(["--variant=minbase", suite]).arg(&root);
        status(quiet(&mut make))?;
        // As the slim images do.
        for path in [
            "var/cache/apt",
            "var/lib/apt/lists",
            "usr/share/doc",
            "usr/share/locale",
            "usr/share/man",
        ] {
            let path = root.join(path);
            std::fs::remove_dir_all(&path)
                .map_err(|e| format!("cannot remove {}: {e}", path.display()))?;
        }
        let tar = self.folder.join("root.tar");
        let mut pack = Command::new("tar");
        pack.arg("--numeric-owner").arg("-cf").arg(&tar).arg("-C");
        status(pack.arg(&root).arg("."))?;
        let mut import = self.engine.docker(&["import"]);
        status(quiet(import.arg(&tar).arg(BASE)))?;
        for path in [&root, &tar] {
            let _ = std::fs::remove_dir_all(path).or_else(|_| std::fs::remove_file(path));
        }
        Ok(())
    }

    /// An image of programs that Debian has.
    fn packaged(&self, image: &str, packages: &str, more: &str) -> Outcome {
        let context = self.folder.join("context");
        make(
            &context,
            &format!(
                "FROM {BASE}\nRUN apt-get update && apt-get install -y --no-install-recommends {packages} \
                 && apt-get clean && rm -rf /var/lib/apt/lists/*\n{more}"
            ),
        )?;
        self.build(&context, image)
    }

    /// An image of a program that is here.
    fn program(&self, image: &str, program: &Path, more: &str) -> Outcome {
        let context = self.folder.join("context");
        make(
            &context,
            &format!("FROM {BASE}\nCOPY program /program\n{more}"),
        )?;
        link(program, &context.join("program"))?;
        self.build(&context, image)
    }

    fn build(&self, context: &Path, image: &str) -> Outcome {
        let mut build = self
            .engine
            .docker(&["build", "--quiet", "--network=host", "--tag", image]);
        status(quiet(build.arg(context)))
    }

    /// A command of Docker Compose about the stack.
    fn compose(&self) -> Command {
        let mut plugin = self.engine.docker(&["compose", "version"]);
        let mut command = if output(plugin.stderr(Stdio::null())).is_some() {
            self.engine.docker(&["compose"])
        } else {
            let mut alone = Command::new(self.python.with_file_name("docker-compose"));
            self.engine.tell(&mut alone);
            alone
        };
        command
            .args(["--project-name", PROJECT, "--progress", "quiet"])
            .args(["-f", "compose.yaml", "-f", "compose/smoke.yaml"])
            .current_dir(&self.deploy)
            .env("SMOKE_MODELS", models())
            .env("SMOKE_HTTPS_PORT", self.https.to_string())
            .env("SMOKE_PROMETHEUS_PORT", self.prometheus.to_string());
        command
    }

    fn up(&self) -> Outcome {
        status(quiet(
            Command::new("sh")
                .arg("make-secrets.sh")
                .current_dir(&self.deploy),
        ))?;
        let mut up = self.compose();
        // Compose would need a plugin to build them itself.
        up.args(["up", "--detach", "--quiet-pull", "--wait", "--no-build"]);
        status(up.args(["--wait-timeout", "180"]).args(SERVICES))?;
        // Caddy's own authority, which the client trusts.
        let mut copy = self.compose();
        copy.args(["cp", "caddy:/data/caddy/pki/authorities/local/root.crt"]);
        status(quiet(copy.arg(self.folder.join("root.crt"))))
    }

    fn talk(&self) -> Outcome {
        let mut client = Command::new(&self.python);
        client
            .current_dir(&self.root)
            .args(["-m", "pytest", "-rA", "tests/test_stack.py"])
            .env(
                "DUOLOGUE_STACK",
                format!("https://localhost:{}", self.https),
            )
            .env(
                "DUOLOGUE_STACK_PROMETHEUS",
                format!("http://127.0.0.1:{}", self.prometheus),
            )
            .env("DUOLOGUE_API_KEY", self.secret("api-key")?)
            .env("SSL_CERT_FILE", self.folder.join("root.crt"));
        status(&mut client)
    }

    /// One of the stack's secrets.
    fn secret(&self, name: &str) -> Result<String, String> {
        let text = read(&self.deploy.join("compose/secrets").join(name))?;
        Ok(text.trim().to_owned())
    }

    /// Stops what drains, as an operator would, and looks how it ended.
    fn drain(&self) -> Outcome {
        let mut stop = self.compose();
        status(quiet(stop.arg("stop").args(DRAINED)))?;
        for service in DRAINED {
            let mut list = self.compose();
            let id = output(list.args(["ps", "--all", "--quiet", service]));
            let id = id.filter(|id| !id.is_empty());
            let id = id.ok_or_else(|| format!("{service} has no container"))?;
            let mut inspect =
                self.engine
                    .docker(&["inspect", "--format", "{{.State.ExitCode}}", &id]);
            let code = output(&mut inspect);
            if code.as_deref() != Some("0") {
                return Err(format!(
                    "asked to stop, {service} ended with {code:?}, not 0"
                ));
            }
        }
        Ok(())
    }
}

/// A part of the step, told with its time.
fn part(name: &str, work: impl FnOnce() -> Outcome) -> Outcome {
    let start = Instant::now();
    let outcome = work();
    println!("    {name}: {:.1} s", start.elapsed().as_secs_f64());
    outcome.map_err(|e| format!("{name}: {e}"))
}

/// Its output is of interest only when something is wrong, and then it is told on standard error.
fn quiet(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::null())
}

/// The images of others that a compose file names.
fn images(compose: &str) -> Vec<&str> {
    let named = compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("image: "));
    let mut images: Vec<&str> = named.filter(|i| !i.starts_with("duologue-")).collect();
    images.dedup();
    images
}

/// Where the models are on this machine.
fn models() -> PathBuf {
    let folder = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let data = folder("DUOLOGUE_DATA_DIR")
        .or_else(|| Some(folder("XDG_DATA_HOME")?.join("duologue")))
        .or_else(|| Some(folder("HOME")?.join(".local/share/duologue")));
    data.unwrap_or_default().join("voicepacks")
}

fn free_port() -> Result<u16, String> {
    // Freed again at once: a race with other programs is possible and would be told as one.
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|e| format!("no free port: {e}"))
}

/// A build context with this Dockerfile and nothing else.
fn make(context: &Path, dockerfile: &str) -> Outcome {
    let _ = std::fs::remove_dir_all(context);
    std::fs::create_dir_all(context)
        .and_then(|()| std::fs::write(context.join("Dockerfile"), dockerfile))
        .map_err(|e| format!("cannot write {}: {e}", context.display()))
}

/// The same file at another place.
fn link(file: &Path, to: &Path) -> Outcome {
    std::fs::hard_link(file, to)
        .or_else(|_| std::fs::copy(file, to).map(drop))
        .map_err(|e| format!("cannot copy {} to {}: {e}", file.display(), to.display()))
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))
}

/// A folder, but for secrets.
fn copy(from: &Path, to: &Path) -> Outcome {
    let failed = |e: std::io::Error| format!("cannot copy {}: {e}", from.display());
    std::fs::create_dir_all(to).map_err(failed)?;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            if entry.file_name() != "secrets" {
                copy(&entry.path(), &target)?;
            }
        } else {
            std::fs::copy(entry.path(), &target).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_others_are_found_in_the_compose_file() {
        let images = images(include_str!("../../deploy/compose.yaml"));
        for wanted in [
            "redis:",
            "livekit/livekit-server:",
            "caddy:",
            "prom/prometheus:",
        ] {
            assert!(images.iter().any(|i| i.starts_with(wanted)), "{images:?}");
        }
        assert!(!images.iter().any(|image| image.starts_with("duologue")));
    }

    #[test]
    fn the_images_that_it_stands_on_are_those_that_the_dockerfile_names() {
        let dockerfile = include_str!("../../deploy/docker/Dockerfile");
        assert!(dockerfile.contains(&format!("ARG DEBIAN_IMAGE={BASE}\n")));
        assert!(dockerfile.contains(&format!("ARG RUST_IMAGE={RUST}\n")));
    }
}
