//! Where a recording goes: a folder that only its owner can read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

/// A file being written.
pub(super) trait Medium: Write + Seek + Send {}

impl<T: Write + Seek + Send> Medium for T {}

/// Makes a recording's files.
pub(super) trait Disk: Send {
    /// A new file, empty.
    fn create(&self, name: &str) -> io::Result<Box<dyn Medium>>;
    /// Replaces a file as a whole, so that a reader finds the old one or the new one.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()>;
}

/// Makes the folder of recordings and tries whether a recording could be made there.
pub(super) fn check(folder: &Path) -> io::Result<()> {
    private().recursive(true).create(folder)?;
    let probe = folder.join(format!(".probe-{}", std::process::id()));
    private().create(&probe)?;
    std::fs::remove_dir(probe)
}

/// A folder of the file system.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, mode 0700, and what leads to it. One that is there already is an error: it is another
    /// session's.
    pub fn create(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            private().recursive(true).create(parent)?;
        }
        private().create(path)?;
        Ok(Self(path.to_owned()))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(self.0.join(name))
    }
}

fn private() -> DirBuilder {
    #[allow(unused_mut)] // where there are no modes
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

impl Disk for Folder {
    fn create(&self, name: &str) -> io::Result<Box<dyn Medium>> {
        Ok(Box::new(self.open(name)?))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let new = format!("{name}.new");
        let mut file = self.open(&new)?;
        file.write_all(content)?;
        drop(file);
        std::fs::rename(self.0.join(new), self.0.join(name))
    }
}
