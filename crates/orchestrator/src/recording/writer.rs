//! The thread that writes a recording down.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use duologue_session::Entry;

use super::disk::{Disk, Medium};
use super::wave::Wave;
use super::{ASSISTANT_FILE, EVENTS_FILE, Note, SESSION_FILE, SessionFile, Shared, USER_FILE};

/// What is lost at most when the process is killed.
const FLUSH: Duration = Duration::from_secs(1);

/// Writes until the queue's other end is gone, and then the end.
pub(super) fn write(
    disk: &dyn Disk,
    mut about: SessionFile,
    queue: &Receiver<Note>,
    shared: &Shared,
) -> io::Result<()> {
    describe(disk, &about)?;
    let mut files = Files {
        events: disk.create(EVENTS_FILE)?,
        lines: Vec::new(),
        user: Wave::new(disk.create(USER_FILE)?, about.user_rate)?,
        assistant: Wave::new(disk.create(ASSISTANT_FILE)?, about.assistant_rate)?,
    };
    let written = files.take(queue, shared);
    if let Err(error) = &written {
        let _ = shared.fault.set(format!("cannot write it: {error}"));
    }
    // Even on a full disk the description may have room.
    let flushed = files.flush();
    about.stopped_because = shared.fault.get().cloned();
    about.complete = about.stopped_because.is_none() && flushed.is_ok();
    describe(disk, &about)?;
    written.and(flushed)
}

fn describe(disk: &dyn Disk, about: &SessionFile) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(about)?;
    text.push(b'\n');
    disk.replace(SESSION_FILE, &text)
}

struct Files {
    events: Box<dyn Medium>,
    lines: Vec<u8>,
    user: Wave,
    assistant: Wave,
}

impl Files {
    fn take(&mut self, queue: &Receiver<Note>, shared: &Shared) -> io::Result<()> {
        let mut flush_at = Instant::now() + FLUSH;
        loop {
            let note = match queue.recv_timeout(flush_at.saturating_duration_since(Instant::now()))
            {
                Ok(note) => Some(note),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            if let Some(note) = note {
                shared.waiting.fetch_sub(note.bytes(), Ordering::Relaxed);
                self.note(note)?;
            }
            if Instant::now() >= flush_at {
                self.flush()?;
                flush_at = Instant::now() + FLUSH;
            }
        }
    }

    fn note(&mut self, note: Note) -> io::Result<()> {
        match note {
            Note::Entry(entry) => self.line(&entry),
            Note::User(first, samples) => self.user.place(first, &samples),
            Note::Assistant(first, samples) => self.assistant.place(first, &samples),
        }
    }

    fn line(&mut self, entry: &Entry) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, entry)?;
        self.lines.push(b'\n');
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.events.write_all(&self.lines)?;
        self.lines.clear();
        self.events.flush()?;
        self.user.flush()?;
        self.assistant.flush()
    }
}
