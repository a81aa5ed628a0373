//! What a process uses, as Linux tells it under `/proc`.

use anyhow::Context;

/// A process.
pub struct Process(String);

impl Process {
    /// This one.
    pub fn own() -> Self {
        Self("self".to_owned())
    }

    /// Another.
    pub fn of(pid: u32) -> Self {
        Self(pid.to_string())
    }

    /// Memory that it holds, bytes.
    ///
    /// # Errors
    /// A system without `/proc`.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    /// The most memory that it ever held, bytes.
    ///
    /// # Errors
    /// A system without `/proc`.
    pub fn peak_bytes(&self) -> anyhow::Result<u64> {
        self.status("VmHWM:")
    }

    /// Processor time of all its threads so far, seconds.
    ///
    /// # Errors
    /// A system without `/proc`.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.cpu_seconds_of(&[""])
    }

    /// Processor time so far of its threads whose names begin so, seconds.
    ///
    /// # Errors
    /// A system without `/proc`.
    pub fn cpu_seconds_of(&self, names: &[&str]) -> anyhow::Result<f64> {
        let mut nanoseconds = 0u64;
        let tasks = format!("/proc/{}/task", self.0);
        for thread in std::fs::read_dir(tasks).context("CPU time is read from /proc")? {
            let thread = thread?.path();
            let name = std::fs::read_to_string(thread.join("comm")).unwrap_or_default();
            if !names.iter().any(|begin| name.starts_with(begin)) {
                continue;
            }
            let stat = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
            nanoseconds += stat
                .split_whitespace()
                .next()
                .and_then(|first| first.parse::<u64>().ok())
                .unwrap_or(0);
        }
        Ok(nanoseconds as f64 / 1e9)
    }

    /// Files, sockets and the like that it has open.
    ///
    /// # Errors
    /// A system without `/proc`.
    pub fn open_files(&self) -> anyhow::Result<usize> {
        self.entries("fd")
    }

    /// Threads that it has.
    ///
    /// # Errors
    /// A system without `/proc`.
    pub fn threads(&self) -> anyhow::Result<usize> {
        self.entries("task")
    }

    fn entries(&self, folder: &str) -> anyhow::Result<usize> {
        let folder = format!("/proc/{}/{folder}", self.0);
        Ok(std::fs::read_dir(folder)
            .context("files and threads are counted in /proc")?
            .count())
    }

    fn status(&self, name: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0))
            .context("memory is read from /proc")?;
        let kib = status
            .lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .with_context(|| format!("/proc/{}/status has no {name}", self.0))?;
        Ok(kib * 1_024)
    }
}
