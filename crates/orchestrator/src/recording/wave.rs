//! A WAV file that is whole at every flush: its header tells what has been written so far.

use std::io::{self, Seek, SeekFrom, Write};

use duologue_audio::wav;

use super::disk::Medium;

/// Samples that are gathered before they are written.
const GATHERED: usize = 16 * 1024;
/// Silence is written in pieces of so many samples.
const SILENCE: usize = 4_096;

/// 16-bit mono sound placed on a time line; where there was none, silence.
pub(super) struct Wave {
    file: Box<dyn Medium>,
    rate: u32,
    /// Samples in the file or gathered.
    length: u64,
    gathered: Vec<u8>,
}

impl Wave {
    pub fn new(mut file: Box<dyn Medium>, rate: u32) -> io::Result<Self> {
        file.write_all(&wav::header(rate, Some(0)))?;
        Ok(Self {
            file,
            rate,
            length: 0,
            gathered: Vec::new(),
        })
    }

    /// Adds samples that begin at `first`, or after what is there if that is later.
    pub fn place(&mut self, first: u64, samples: &[i16]) -> io::Result<()> {
        while self.length < first {
            let silence = usize::try_from(first - self.length).map_or(SILENCE, |n| n.min(SILENCE));
            self.add(&[0; SILENCE][..silence])?;
        }
        self.add(samples)
    }

    fn add(&mut self, samples: &[i16]) -> io::Result<()> {
        self.gathered
            .extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        self.length += samples.len() as u64;
        if self.gathered.len() >= GATHERED * 2 {
            self.write_out()?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.file.write_all(&self.gathered)?;
        self.gathered.clear();
        Ok(())
    }

    /// Makes the file whole.
    pub fn flush(&mut self) -> io::Result<()> {
        self.write_out()?;
        // Beyond 4 GiB a header cannot tell the length, and says "to the end".
        let bytes = u32::try_from(self.length * 2).ok();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&wav::header(self.rate, bytes))?;
        self.file.seek(SeekFrom::End(0))?;
        self.file.flush()
    }
}
