//! Several workers under one supervisor: each on its device, started again when it dies, none left behind.
#![cfg(target_os = "linux")]

use std::collections::HashMap;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tonic::Code;

use crate::support::*;

/// A supervisor, and what its workers say.
struct Fleet {
    supervisor: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Fleet {
    fn start(options: &[&str]) -> Fleet {
        let mut supervisor = command(options).spawn().unwrap();
        let lines = BufReader::new(supervisor.stdout.take().unwrap()).lines();
        Fleet { supervisor, lines }
    }

    /// Name and address of the worker that is ready next.
    async fn ready(&mut self) -> (String, String) {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.expect("no worker is ready").unwrap();
        let line = line.expect("the supervisor ended");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..2], ["Duologue", "worker"], "{line}");
        (words[2].to_owned(), words[6].to_owned())
    }

    /// The workers' processes, by their number.
    fn children(&self) -> HashMap<String, u32> {
        let parent = self.supervisor.id().unwrap().to_string();
        let processes = std::fs::read_dir("/proc").unwrap();
        let ours = processes.filter_map(|process| {
            let process: u32 = process.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            // Behind the program's name, which is in brackets: state, parent.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            (fields.nth(1)? == parent).then_some(process)
        });
        let number = |process: u32| Some((environment(process, "DUOLOGUE_WORKER_INDEX")?, process));
        ours.filter_map(number).collect()
    }
}

fn environment(process: u32, name: &str) -> Option<String> {
    let all = std::fs::read(format!("/proc/{process}/environ")).ok()?;
    let all = String::from_utf8_lossy(&all).into_owned();
    let mut variables = all.split('\0').filter_map(|entry| entry.split_once('='));
    variables
        .find(|(variable, _)| *variable == name)
        .map(|(_, value)| value.to_owned())
}

/// Whether it runs; one that has ended and is not waited for does not.
fn runs(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.starts_with(" Z"))
    })
}

/// The first core that this process may use.
fn a_core() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let cores = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    cores
        .unwrap()
        .trim()
        .split([',', '-'])
        .next()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn workers_are_bound_to_their_cores_and_started_again_when_they_are_killed() {
    let core = a_core();
    let devices = format!("cpu:{core},cpu:{core}");
    let mut fleet = Fleet::start(&["--devices", &devices, "--name", "w"]);
    let mut ready: HashMap<_, _> = [fleet.ready().await, fleet.ready().await].into();
    assert!(
        ready.contains_key("w-0") && ready.contains_key("w-1"),
        "{ready:?}"
    );
    let children = fleet.children();
    for process in children.values() {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        assert!(
            status.contains(&format!("Cpus_allowed_list:\t{core}\n")),
            "{status}"
        );
    }
    let client = connect(&ready["w-1"]).await;
    let hardware = capabilities(&client).await.hardware.unwrap();
    assert_eq!(
        (hardware.cores, hardware.device),
        (1, format!("cpu:{core}"))
    );

    let (other, killed) = (children["0"], children["1"]);
    signal(killed, "KILL");
    let (name, address) = fleet.ready().await;
    assert_eq!(name, "w-1");
    ready.insert(name, address);
    assert!(runs(other) && !runs(killed));
    for address in ready.values() {
        let client = connect(address).await;
        open(&client, "s", "").await.unwrap();
        assert!(rest(say(&client, "s", "Hello again.").await).await > 10);
    }

    // All of them end at SIGTERM, when what they say is said.
    let client = connect(&ready["w-0"]).await;
    let mut frames = say(&client, "s", "The last words of this worker.").await;
    frames.message().await.unwrap().unwrap();
    let children = fleet.children();
    signal(fleet.supervisor.id().unwrap(), "TERM");
    assert!(rest(frames).await > 10);
    let ended = tokio::time::timeout(PATIENCE, fleet.supervisor.wait()).await;
    assert!(
        ended
            .expect("the supervisor does not end")
            .unwrap()
            .success()
    );
    assert!(children.values().all(|process| !runs(*process)));
}

#[tokio::test]
async fn workers_of_gpus_see_one_each_and_outlive_their_supervisor_by_no_more_than_they_say() {
    let mut fleet = Fleet::start(&["--devices", "0,GPU-1a2b"]);
    let ready = [fleet.ready().await, fleet.ready().await];
    let children = fleet.children();
    for (number, gpu) in [("0", "0"), ("1", "GPU-1a2b")] {
        let visible = environment(children[number], "CUDA_VISIBLE_DEVICES");
        assert_eq!(visible.as_deref(), Some(gpu));
    }
    let client = connect(&ready[0].1).await;
    open(&client, "s", "").await.unwrap();
    let mut frames = say(&client, "s", "Whoever speaks is heard out.").await;
    frames.message().await.unwrap().unwrap();
    fleet.supervisor.kill().await.unwrap();
    eventually("the orphan takes nothing new", || async {
        let refused = open(&client, "new", "").await;
        end(&client, "new").await.ok();
        refused.is_err_and(|status| status.code() == Code::Unavailable)
    })
    .await;
    assert!(rest(frames).await > 10);
    eventually("no worker is left", || async {
        children.values().all(|process| !runs(*process))
    })
    .await;
}

#[tokio::test]
async fn workers_that_cannot_start_end_the_command_with_their_reason() {
    let core = a_core();
    let devices = format!("cpu:{core}");
    for (options, says) in [
        (["--devices", &devices, "--preload", "nobody"], "nobody"),
        (["--devices", "cpu:0+4000", "--name", "w"], "core 4000"),
        (["--devices", "gpu", "--name", "w"], "cpu:0-3"),
    ] {
        let mut command = command(&[]);
        let ended = command.args(options).stderr(Stdio::piped()).output();
        let ended = tokio::time::timeout(PATIENCE, ended)
            .await
            .unwrap()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && said.contains(says), "{said}");
    }
}
