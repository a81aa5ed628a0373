#![allow(clippy::unwrap_used)]

use super::disk::Medium;
use super::*;
use std::collections::HashMap;
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Instant, SystemTime};

fn about() -> SessionFile {
    SessionFile {
        beginning: Beginning {
            format: duologue_session::RECORDING_FORMAT,
            seed: "s".into(),
            config: duologue_session::Config::default(),
        },
        session: "sess_s".into(),
        version: "0".into(),
        started_unix_ms: 0,
        models: std::collections::BTreeMap::new(),
        lead_ms: 200,
        speaking_threshold_scale: 2.0,
        user_rate: 16_000,
        assistant_rate: 48_000,
        complete: false,
        stopped_because: None,
    }
}

fn read_about(folder: &Path) -> SessionFile {
    serde_json::from_slice(&std::fs::read(folder.join(SESSION_FILE)).unwrap()).unwrap()
}

fn lines(folder: &Path) -> Vec<Entry> {
    std::fs::read_to_string(folder.join(EVENTS_FILE))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Files in memory, with a disk's troubles.
#[derive(Clone, Default)]
struct Memory {
    files: Arc<Mutex<HashMap<String, Cursor<Vec<u8>>>>>,
    /// Bytes that still fit.
    room: Option<Arc<AtomicUsize>>,
    /// A write of lines or sound waits for a word from here.
    stuck: Option<Arc<Mutex<Receiver<()>>>>,
}

struct MemoryFile(Memory, String);

impl MemoryFile {
    fn with<T>(&self, f: impl FnOnce(&mut Cursor<Vec<u8>>) -> T) -> T {
        f(self.0.files.lock().unwrap().get_mut(&self.1).unwrap())
    }
}

impl Write for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(stuck) = &self.0.stuck
            && !bytes.is_empty()
        {
            let _ = stuck.lock().unwrap().recv();
        }
        if let Some(room) = &self.0.room {
            let left = room.load(Ordering::Relaxed);
            if left < bytes.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            room.store(left - bytes.len(), Ordering::Relaxed);
        }
        self.with(|file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for MemoryFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.with(|file| file.seek(to))
    }
}

impl Disk for Memory {
    fn create(&self, name: &str) -> io::Result<Box<dyn Medium>> {
        self.files
            .lock()
            .unwrap()
            .insert(name.into(), Cursor::default());
        Ok(Box::new(MemoryFile(self.clone(), name.into())))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        files.insert(name.into(), Cursor::new(content.to_vec()));
        Ok(())
    }
}

impl Memory {
    fn about(&self) -> SessionFile {
        serde_json::from_slice(self.files.lock().unwrap()[SESSION_FILE].get_ref()).unwrap()
    }
}

/// Waits for what another thread does; gives up after a long time.
fn eventually(mut happened: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(Instant::now() < give_up, "it never happened");
        std::thread::sleep(ms(2));
    }
}

#[tokio::test]
async fn a_session_is_kept_in_files_that_only_the_owner_reads() {
    let folder = tempfile::tempdir().unwrap();
    let config = RecordingConfig {
        folder: folder.path().join("deep/recordings"),
        keep: Retention::default(),
    };
    let mut recorder = Recorder::begin(&config, about());
    let event = Event::SpeechStarted { onset: ms(1_200) };
    recorder.event(ms(1_260), &event);
    recorder.user(160, &[0.5; 320]);
    recorder.assistant(48_000, &[Frame([7; 960]), Frame([8; 960])]);
    // Sent together, so it follows although its time is the same.
    recorder.assistant(48_010, &[Frame([9; 960])]);
    assert_eq!(recorder.newly_stopped(), None);
    recorder.finish().await;

    let session = config.folder.join("sess_s");
    let kept = read_about(&session);
    assert!(kept.complete);
    assert_eq!(kept.stopped_because, None);
    let expected = Entry {
        at: ms(1_260),
        what: Happening::Event(event),
    };
    assert_eq!(lines(&session), [expected]);
    let sound = |name: &str| duologue_audio::decode_file(&session.join(name)).unwrap();
    let user = sound(USER_FILE);
    assert_eq!((user.sample_rate, user.samples.len()), (16_000, 160 + 320));
    assert!(user.samples[..160].iter().all(|s| *s == 0.0));
    assert!((user.samples[160] - 0.5).abs() < 0.001);
    assert_eq!(sound(ASSISTANT_FILE).samples.len(), 48_000 + 3 * 960);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&config.folder), 0o700);
        assert_eq!(mode(&session), 0o700);
        for name in [SESSION_FILE, EVENTS_FILE, USER_FILE, ASSISTANT_FILE] {
            assert_eq!(mode(&session.join(name)), 0o600, "{name}");
        }
    }
}

#[test]
fn what_was_flushed_is_whole_although_the_recording_never_ended() {
    let memory = Memory::default();
    let disk = memory.clone();
    let mut recorder = Recorder::on(move || Ok(disk), about());
    recorder.event(ms(1), &Event::Tick);
    recorder.user(0, &[0.1; 1_600]);
    eventually(|| {
        let files = memory.files.lock().unwrap();
        files
            .get(USER_FILE)
            .is_some_and(|file| file.get_ref().len() == 44 + 3_200)
    });
    // As a process leaves it that is killed now.
    let files = memory.files.lock().unwrap();
    let user = files[USER_FILE].get_ref().clone();
    assert_eq!(
        duologue_audio::decode_bytes(user).unwrap().samples.len(),
        1_600
    );
    assert!(files[EVENTS_FILE].get_ref().ends_with(b"\n"));
    drop(files);
    assert!(!memory.about().complete);
    drop(recorder);
}

#[tokio::test]
async fn a_full_disk_ends_the_recording_and_nothing_else() {
    let memory = Memory {
        room: Some(Arc::new(AtomicUsize::new(2_000))),
        ..Memory::default()
    };
    let disk = memory.clone();
    let mut recorder = Recorder::on(move || Ok(disk), about());
    recorder.user(0, &[0.1; 16_000]);
    eventually(|| {
        recorder
            .newly_stopped()
            .is_some_and(|why| why.contains("cannot write it"))
    });
    assert_eq!(recorder.newly_stopped(), None, "said once");
    for n in 0..20_000 {
        recorder.event(ms(n), &Event::Tick);
        recorder.user(n * 320, &[0.1; 320]);
    }
    recorder.finish().await;
    let about = memory.about();
    assert!(!about.complete);
    assert!(about.stopped_because.unwrap().contains("cannot write it"));
}

#[tokio::test]
async fn a_disk_that_does_not_keep_up_ends_the_recording_and_nobody_waits_for_it() {
    let (go, stuck): (Sender<()>, _) = channel();
    let memory = Memory {
        stuck: Some(Arc::new(Mutex::new(stuck))),
        ..Memory::default()
    };
    let disk = memory.clone();
    let mut recorder = Recorder::on(move || Ok(disk), about());
    // The disk takes nothing at all, and yet none of these calls waits.
    for n in 0..2 * NOTES as u64 {
        recorder.event(ms(n), &Event::Tick);
    }
    assert_eq!(
        recorder.newly_stopped(),
        Some("the disk is slower than the conversation")
    );
    assert_eq!(recorder.newly_stopped(), None, "said once");
    drop(go); // the disk is back
    recorder.finish().await;
    let about = memory.about();
    assert!(!about.complete);
    assert!(about.stopped_because.unwrap().contains("slower"));
    // What was taken is there, from the start and without a gap.
    let files = memory.files.lock().unwrap();
    let written: Vec<Entry> = files[EVENTS_FILE]
        .get_ref()
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert!(written.len() >= NOTES);
    for (n, entry) in written.iter().enumerate() {
        assert_eq!(entry.at, ms(n as u64));
    }
}

#[tokio::test]
async fn too_much_sound_at_once_ends_the_recording() {
    let (go, stuck): (Sender<()>, _) = channel();
    let memory = Memory {
        stuck: Some(Arc::new(Mutex::new(stuck))),
        ..Memory::default()
    };
    let mut recorder = Recorder::on(move || Ok(memory), about());
    for n in 0..40 {
        recorder.user(n * 1_000_000, &vec![0.0; 1_000_000]);
    }
    assert!(recorder.newly_stopped().is_some());
    assert!(recorder.shared.waiting.load(Ordering::Relaxed) <= WAITING + 2_000_000);
    drop(go);
    recorder.finish().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let config = RecordingConfig {
        folder: file,
        keep: Retention::default(),
    };
    let mut recorder = Recorder::begin(&config, about());
    eventually(|| recorder.newly_stopped().is_some());
    recorder.event(ms(1), &Event::Tick);
    recorder.finish().await;
}

#[test]
fn old_recordings_are_deleted_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let day = Duration::from_secs(24 * 3_600);
    let make = |name: &str, file: &str, age: Duration| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        let file = std::fs::File::create(path.join(file)).unwrap();
        file.set_modified(now - age).unwrap();
        path
    };
    let old = make("sess_old", EVENTS_FILE, 8 * day);
    let young = make("sess_young", EVENTS_FILE, 6 * day);
    let strange = make("holiday", EVENTS_FILE, 8 * day);
    let other = make("sess_other", "photo.jpg", 8 * day);
    let week = Retention {
        age: Some(7 * day),
        bytes: None,
    };
    let pruned = prune(folder.path(), week, now).unwrap();
    assert_eq!(
        pruned,
        Pruned {
            deleted: 1,
            failed: 0
        }
    );
    assert!(!old.exists() && young.exists() && strange.exists() && other.exists());
    let nowhere = folder.path().join("nowhere");
    assert_eq!(prune(&nowhere, week, now).unwrap(), Pruned::default());
}
