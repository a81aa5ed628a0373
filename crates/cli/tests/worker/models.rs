//! The voices of a running worker: by gRPC, at random and in numbers, and by `duologue models --worker`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tonic::Code;

use crate::support::*;

const VOICES: usize = 8;
const MB: usize = 1_000_000;

/// One of several clients: opens and ends sessions, loads and unloads, and checks that what its sessions use is
/// there and is not taken away.
async fn use_at_random(client: Client, seed: u64, steps: usize) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let mut sessions: Vec<(String, String)> = Vec::new();
    let mut refused = 0;
    for step in 0..steps {
        let voice = format!("voice-{}", random.random_range(0..VOICES));
        match random.random_range(0..6) {
            0 | 1 if sessions.len() < 2 => {
                let id = format!("{seed}-{step}");
                match open(&client, &id, &voice).await {
                    Ok(()) => sessions.push((id, voice)),
                    Err(status) => {
                        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                        refused += 1;
                    }
                }
            }
            2 | 3 if !sessions.is_empty() => {
                let (id, _) = sessions.swap_remove(random.random_range(0..sessions.len()));
                end(&client, &id).await.unwrap();
            }
            4 => {
                if let Err(status) = load(&client, &voice).await {
                    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                    refused += 1;
                }
            }
            _ => match unload(&client, &voice).await {
                Ok(()) => {
                    let used = sessions.iter().any(|(_, of)| *of == voice);
                    assert!(!used, "{voice} was unloaded in use");
                }
                Err(status) => assert_eq!(status.code(), Code::FailedPrecondition, "{status}"),
            },
        }
        if step % 50 == 0
            && let Some((id, _)) = sessions.first()
        {
            assert!(rest(say(&client, id, "Hi.").await).await > 0);
        }
    }
    for (id, _) in sessions {
        end(&client, &id).await.unwrap();
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_random_calls_take_nothing_from_a_session_and_keep_the_bounds() {
    let store = tempfile::tempdir().unwrap();
    for n in 0..VOICES {
        voicepack(store.path(), &format!("voice-{n}"), (n % 3 + 1) * MB);
    }
    let folder = store.path().to_str().unwrap();
    let options = [
        ["--voicepacks", folder],
        ["--max-resident", "5"],
        ["--memory-limit", "8MB"],
        ["--max-parallel-loads", "2"],
        ["--voice-ttl", "1"],
        ["--min-residency", "0"],
        ["--evict-interval", "1"],
    ];
    let worker = Process::start(&options.concat()).await;
    let client = worker.client().await;
    let over = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn({
        let (client, over) = (client.clone(), Arc::clone(&over));
        async move {
            let mut most = 0;
            while !over.load(Ordering::SeqCst) {
                let models = models(&client).await;
                let resident: Vec<_> = models.iter().filter(|model| model.resident).collect();
                let bytes: u64 = resident.iter().map(|model| model.resident_bytes).sum();
                assert!(resident.len() <= 5 && bytes <= 8_000_000, "{resident:?}");
                assert!(resident.iter().any(|model| model.name == "tone"));
                most = most.max(resident.len());
            }
            most
        }
    });
    let clients = (0..4).map(|seed| tokio::spawn(use_at_random(client.clone(), seed, 2_500)));
    let mut refused = 0;
    for client in clients.collect::<Vec<_>>() {
        refused += client.await.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    assert_eq!(watch.await.unwrap(), 5, "the cap was reached");
    assert!(refused > 0, "and met");
    eventually("all idle voices are evicted", || async {
        let models = models(&client).await;
        models.iter().filter(|model| model.resident).count() == 1
    })
    .await;
    assert_eq!(capabilities(&client).await.free_sessions, 16);
}

/// What `duologue models --worker` prints and whether it succeeded.
async fn run(worker: &Process, arguments: &[&str]) -> (bool, String, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_duologue"))
        .args(["models", "--worker", &worker.url])
        .args(arguments)
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let success = output.status.success();
    (success, text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_voices_are_listed_loaded_and_unloaded_from_the_command_line() {
    let store = tempfile::tempdir().unwrap();
    voicepack(store.path(), "ann", 2 * MB);
    voicepack(store.path(), "bob", 3 * MB);
    let folder = store.path().to_str().unwrap();
    let options = ["--voicepacks", folder, "--max-resident", "2"];
    let worker = Process::start(&options).await;
    let client = worker.client().await;

    let (done, out, _) = run(&worker, &["load", "ann"]).await;
    assert!(done && out.contains("ann: in memory, 2.0 MB"), "{out}");
    let (_, out, _) = run(&worker, &["list"]).await;
    let line = |name: &str| out.lines().find(|line| line.contains(name)).unwrap();
    assert!(line("ann").starts_with("* ann"), "{out}");
    assert!(
        line("bob").starts_with("  bob") && line("bob").contains("~3.0 MB"),
        "{out}"
    );
    assert!(line("* tone").contains("default"), "{out}");

    open(&client, "s", "ann").await.unwrap();
    let (done, _, err) = run(&worker, &["unload", "ann"]).await;
    assert!(!done && err.contains("used by 1 session"), "{err}");
    let (done, _, err) = run(&worker, &["load", "bob"]).await;
    assert!(!done && err.contains("would have to go"), "{err}");
    assert!(err.contains("max-resident"), "{err}");
    let (done, out, _) = run(&worker, &["reload", "ann", "--json"]).await;
    let reloaded: Value = serde_json::from_str(&out).unwrap();
    assert!(done && reloaded[0]["sessions"] == 1 && reloaded[0]["resident"] == true);

    let (_, out, _) = run(&worker, &["capabilities", "--json"]).await;
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&told["free_sessions"], &told["cpu_ok"]),
        (&15.into(), &true.into())
    );
    assert_eq!(told["residency"]["max_voices"], 2);
    let (_, out, _) = run(&worker, &["capabilities"]).await;
    assert!(
        out.contains("15 of 16 free") && out.contains("en-US"),
        "{out}"
    );

    end(&client, "s").await.unwrap();
    let (done, _, _) = run(&worker, &["unload", "ann"]).await;
    assert!(done);
    let (done, _, err) = run(&worker, &["load", "eve"]).await;
    assert!(!done && err.contains("ann, bob, tone"), "{err}");
    let (done, _, err) = run(&worker, &["rm", "ann"]).await;
    assert!(!done && err.contains("its machine's own"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_come_into_use_under_running_sessions_without_a_gap() {
    let store = tempfile::tempdir().unwrap();
    voicepack(store.path(), "ann", 2 * MB);
    let worker = Process::start(&["--voicepacks", store.path().to_str().unwrap()]).await;
    let client = worker.client().await;
    open(&client, "s", "ann").await.unwrap();
    let mut frames = say(
        &client,
        "s",
        "A sentence that goes on while its voice is replaced.",
    )
    .await;
    frames.message().await.unwrap().unwrap();
    voicepack(store.path(), "ann", 5 * MB);
    let (done, out, err) = run(&worker, &["reload", "ann"]).await;
    assert!(
        done && out.contains("ann: read again, 5.0 MB"),
        "{out}{err}"
    );
    assert!(rest(frames).await > 100);
    assert!(rest(say(&client, "s", "With the new one.").await).await > 10);
    // Files that are no voice leave the new one in use.
    std::fs::write(store.path().join("ann/metadata.yaml"), "kind: tts\n").unwrap();
    let (done, _, err) = run(&worker, &["reload", "ann"]).await;
    assert!(!done && err.contains("ann"), "{err}");
    assert!(rest(say(&client, "s", "Still the new one.").await).await > 10);
}
