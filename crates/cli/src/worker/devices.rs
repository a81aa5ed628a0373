//! Devices to compute with, and pinning a process to one.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail};

/// Where one worker computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A GPU, by its number or its UUID, as `nvidia-smi -L` lists them.
    Cuda(String),
    /// Cores of the CPU, in order, each once.
    Cores(Vec<usize>),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!(
                "{text:?} is not a device: write a GPU's number, or cores of the CPU as cpu:0-3 or cpu:0+2-3"
            )
        };
        if let Some(cores) = text.strip_prefix("cpu:") {
            return cores_from(cores).map(Device::Cores).ok_or_else(refuse);
        }
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let is_uuid = text.starts_with("GPU-") || text.starts_with("MIG-");
        if is_number || is_uuid {
            return Ok(Device::Cuda(text.to_owned()));
        }
        Err(refuse())
    }
}

/// `0-1+4`: the cores 0, 1 and 4.
fn cores_from(text: &str) -> Option<Vec<usize>> {
    /// More than any machine has.
    const MOST: usize = 4_096;
    let mut cores = Vec::new();
    for range in text.split('+') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        cores.extend(first..=last);
    }
    cores.sort_unstable();
    cores.dedup();
    Some(cores)
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cuda(id) => write!(f, "cuda:{id}"),
            Device::Cores(cores) => {
                f.write_str("cpu:")?;
                let runs = cores.chunk_by(|a, b| a + 1 == *b);
                for (n, run) in runs.enumerate() {
                    let plus = if n > 0 { "+" } else { "" };
                    match run {
                        [first, .., last] => write!(f, "{plus}{first}-{last}")?,
                        [only] => write!(f, "{plus}{only}")?,
                        [] => {}
                    }
                }
                Ok(())
            }
        }
    }
}

impl Device {
    /// What a process is given in its environment to compute with it and no other.
    pub fn environment(&self) -> Option<(&'static str, &str)> {
        match self {
            Device::Cuda(id) => Some(("CUDA_VISIBLE_DEVICES", id)),
            Device::Cores(_) => None,
        }
    }

    /// Checks that the machine has it.
    ///
    /// # Errors
    /// Cores that this process may not use.
    pub fn check(&self) -> anyhow::Result<()> {
        let Device::Cores(cores) = self else {
            return Ok(());
        };
        let allowed = allowed_cores()?;
        if let Some(core) = cores.iter().find(|core| !allowed.contains(core)) {
            bail!(
                "device {self}: this process may not use core {core}; it may use {}",
                Device::Cores(allowed)
            );
        }
        Ok(())
    }

    /// Binds this process to the cores; a GPU is chosen by [`Device::environment`]. Before any thread is started:
    /// only those that are started later are bound too.
    ///
    /// # Errors
    /// Where the system does not do it.
    pub fn pin(&self) -> anyhow::Result<()> {
        match self {
            Device::Cuda(_) => Ok(()),
            Device::Cores(cores) => bind(cores).with_context(|| format!("device {self}")),
        }
    }
}

#[cfg(target_os = "linux")]
fn bind(cores: &[usize]) -> anyhow::Result<()> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    for core in cores.iter().filter(|core| **core < CpuSet::MAX_CPU) {
        set.set(*core);
    }
    sched_setaffinity(None, &set).context("the process cannot be bound to these cores")
}

#[cfg(target_os = "linux")]
fn allowed_cores() -> anyhow::Result<Vec<usize>> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let set = sched_getaffinity(None).context("the system does not tell its cores")?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|core| set.is_set(*core))
        .collect())
}

#[cfg(not(target_os = "linux"))]
fn bind(_: &[usize]) -> anyhow::Result<()> {
    bail!("processes are bound to cores on Linux only")
}

#[cfg(not(target_os = "linux"))]
fn allowed_cores() -> anyhow::Result<Vec<usize>> {
    bail!("processes are bound to cores on Linux only")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for text in ["cuda:0", "cpu:0-1", "cpu:0+2-5+7"] {
            let read: Device = text.strip_prefix("cuda:").unwrap_or(text).parse().unwrap();
            assert_eq!(read.to_string(), text);
        }
        assert_eq!("cpu:3+0-1+1".parse(), Ok(Device::Cores(vec![0, 1, 3])));
        let uuid = "GPU-8f6d1a2b".parse::<Device>().unwrap();
        assert_eq!(
            uuid.environment(),
            Some(("CUDA_VISIBLE_DEVICES", "GPU-8f6d1a2b"))
        );
        for bad in [
            "",
            "gpu",
            "cpu",
            "cpu:",
            "cpu:2-1",
            "cpu:a",
            "-1",
            "cpu:0-99999",
        ] {
            assert!(bad.parse::<Device>().is_err(), "{bad}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_core_that_the_machine_lacks_is_named_with_those_it_has() {
        let error = Device::Cores(vec![0, 1_000])
            .check()
            .unwrap_err()
            .to_string();
        assert!(error.contains("core 1000"), "{error}");
    }
}
