//! Workers and registries over TLS: who shows a certificate of the right authority is served, nobody else.

use std::path::{Path, PathBuf};
use std::process::Output;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::process::Command;

use crate::support::*;

/// Certificates in a folder.
struct Folder(tempfile::TempDir);

type Authority = Issuer<'static, KeyPair>;

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn authority(&self, name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        Issuer::new(params, key)
    }

    fn signed(&self, name: &str, by: &Authority) {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, by).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// What the program says with these variables.
async fn program(arguments: &[&str], variables: &[(&str, &Path)]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_duologue"))
        .args(arguments)
        .envs(variables.iter().copied())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(PATIENCE, output)
        .await
        .unwrap()
        .unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A worker that takes whoever shows a certificate of the authority `ours`.
async fn worker_for_our_own(folder: &Folder) -> Process {
    let options = [
        ["--tls-cert", &folder.text("worker.pem")],
        ["--tls-key", &folder.text("worker.key")],
        ["--client-ca", &folder.text("ours.pem")],
    ];
    Process::start(&options.concat()).await
}

#[tokio::test]
async fn a_worker_serves_orchestrators_that_show_a_certificate_of_its_authority_and_no_others() {
    let folder = Folder::new();
    let (ours, theirs) = (folder.authority("ours"), folder.authority("theirs"));
    folder.signed("worker", &ours);
    folder.signed("orchestrator", &ours);
    folder.signed("stranger", &theirs);
    let worker = worker_for_our_own(&folder).await;
    assert!(
        worker.url.starts_with("https://127.0.0.1:"),
        "{}",
        worker.url
    );
    let known = |ca: &str, name: &str| {
        vec![
            ("DUOLOGUE_WORKER_CA", folder.path(ca)),
            ("DUOLOGUE_WORKER_CERT", folder.path(&format!("{name}.pem"))),
            ("DUOLOGUE_WORKER_KEY", folder.path(&format!("{name}.key"))),
        ]
    };
    let capabilities = ["models", "--worker", &worker.url, "capabilities"];
    let asked = async |arguments: &[&str], variables: Vec<(&str, PathBuf)>| {
        let variables: Vec<(&str, &Path)> = variables
            .iter()
            .map(|(name, path)| (*name, path.as_path()))
            .collect();
        program(arguments, &variables).await
    };

    let right = asked(&capabilities, known("ours.pem", "orchestrator")).await;
    assert!(right.status.success(), "{}", told(&right));
    let sound = folder.text("said.wav");
    let say = [
        "say",
        "Hello there.",
        "--voice",
        "tone",
        "--worker",
        &worker.url,
        "-o",
        &sound,
    ];
    let said = asked(&say, known("ours.pem", "orchestrator")).await;
    assert!(said.status.success(), "{}", told(&said));
    assert!(std::fs::metadata(&sound).unwrap().len() > 10_000);

    let refusals = [
        (known("ours.pem", "stranger"), "--worker-cert"),
        (
            vec![("DUOLOGUE_WORKER_CA", folder.path("ours.pem"))],
            "--worker-cert",
        ),
        (known("theirs.pem", "orchestrator"), "UnknownIssuer"),
        (Vec::new(), "--worker-ca"),
    ];
    for (variables, why) in refusals {
        let refused = asked(&capabilities, variables).await;
        assert!(!refused.status.success(), "{why}");
        assert!(told(&refused).contains(why), "{why}: {}", told(&refused));
    }
    let plain = worker.url.replace("https", "http");
    let refused = asked(&["models", "--worker", &plain, "capabilities"], Vec::new()).await;
    assert!(!refused.status.success());
    let refused = asked(
        &["models", "--worker", &plain, "capabilities"],
        known("ours.pem", "orchestrator"),
    )
    .await;
    assert!(told(&refused).contains("plain text"), "{}", told(&refused));
}

#[tokio::test]
async fn a_server_whose_certificate_a_worker_does_not_take_says_so_and_does_not_start() {
    let folder = Folder::new();
    let (ours, theirs) = (folder.authority("ours"), folder.authority("theirs"));
    folder.signed("worker", &ours);
    folder.signed("stranger", &theirs);
    let worker = worker_for_our_own(&folder).await;
    let serve = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--no-webrtc",
        "--worker",
        &worker.url,
        "--voice",
        "tone",
        "--vad",
        "light:0",
        "--no-end-of-turn",
        "--asr-url",
        "http://127.0.0.1:9",
        "--llm-url",
        "http://127.0.0.1:9",
        "--llm-model",
        "none",
    ];
    let (ca, certificate, key) = (
        folder.path("ours.pem"),
        folder.path("stranger.pem"),
        folder.path("stranger.key"),
    );
    let refused = program(
        &serve,
        &[
            ("DUOLOGUE_WORKER_CA", &ca),
            ("DUOLOGUE_WORKER_CERT", &certificate),
            ("DUOLOGUE_WORKER_KEY", &key),
        ],
    )
    .await;
    assert!(!refused.status.success());
    let told = told(&refused);
    assert!(
        told.contains("--worker-cert") && told.contains(&worker.url),
        "{told}"
    );
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_told_before_voices_are_loaded() {
    let folder = Folder::new();
    let ours = folder.authority("ours");
    folder.signed("worker", &ours);
    let (certificate, key) = (folder.text("worker.pem"), folder.text("worker.key"));
    for (options, why) in [
        (vec!["--tls-cert", &certificate], "--tls-key"),
        (
            vec!["--tls-cert", &certificate, "--tls-key", "/none.pem"],
            "/none.pem",
        ),
        (
            vec!["--tls-cert", &key, "--tls-key", &certificate],
            "cannot be used",
        ),
        (vec!["--client-ca", &certificate], "--tls-cert"),
    ] {
        let output = command(&options)
            .stderr(std::process::Stdio::piped())
            .output();
        let output = tokio::time::timeout(PATIENCE, output)
            .await
            .unwrap()
            .unwrap();
        assert!(!output.status.success(), "{why}");
        assert!(told(&output).contains(why), "{why}: {}", told(&output));
    }
}

#[tokio::test]
async fn a_registry_is_reached_over_tls() {
    let folder = Folder::new();
    let ours = folder.authority("ours");
    folder.signed("redis", &ours);
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let _redis = Command::new("redis-server")
        .args([
            "--port",
            "0",
            "--tls-port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
        ])
        .args(["--tls-cert-file", &folder.text("redis.pem")])
        .args(["--tls-key-file", &folder.text("redis.key")])
        .args(["--tls-ca-cert-file", &folder.text("ours.pem")])
        .args([
            "--tls-auth-clients",
            "no",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .current_dir(folder.0.path())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-server is needed: `cargo xtask test` installs it");
    let url = format!("rediss://127.0.0.1:{port}");
    let authority = folder.path("ours.pem");
    let mut worker = command(&["--registry", &url, "--name", "kitchen"]);
    let _worker = worker.env("SSL_CERT_FILE", &authority).spawn().unwrap();
    let explain = ["route", "explain", "--registry", &url, "--voice", "tone"];
    eventually("the worker is found in the registry", || async {
        let found = program(&explain, &[("SSL_CERT_FILE", &authority)]).await;
        String::from_utf8_lossy(&found.stdout).contains("kitchen")
    })
    .await;
    // Whose certificate nobody vouches for is not believed.
    let refused = program(&explain, &[]).await;
    assert!(!refused.status.success());
    assert!(told(&refused).contains("certificate"), "{}", told(&refused));
}
