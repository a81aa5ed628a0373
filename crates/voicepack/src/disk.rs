//! Room on the disk, asked for before bytes are written.

use std::io;
use std::path::Path;

use crate::error::VoicepackError;

/// Left free for everybody else.
const RESERVE: u64 = 64 << 20;

/// Fails when `needed` bytes do not fit where `path` (which exists) is.
pub(crate) fn ensure_room(path: &Path, needed: u64) -> Result<(), VoicepackError> {
    match fs4::available_space(path) {
        Ok(available) => fits(path, needed, available),
        // A file system that will not tell is not one that is full.
        Err(_) => Ok(()),
    }
}

fn fits(path: &Path, needed: u64, available: u64) -> Result<(), VoicepackError> {
    if needed == 0 || needed.saturating_add(RESERVE) <= available {
        return Ok(());
    }
    Err(VoicepackError::DiskFull {
        path: path.to_owned(),
        needed: needed.saturating_add(RESERVE),
        available,
    })
}

/// Tells a write that failed for want of room (or of quota) from other failures.
pub(crate) fn write_failed(path: &Path, remaining: u64, source: io::Error) -> VoicepackError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => VoicepackError::DiskFull {
            path: path.parent().unwrap_or(path).to_owned(),
            needed: remaining,
            available: fs4::available_space(path).unwrap_or(0),
        },
        _ => VoicepackError::io("write", path)(source),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_disk_with_too_little_room_is_told_with_what_to_do() {
        let e = fits(Path::new("/data"), 500_000_000, 100_000_000).unwrap_err();
        let text = e.to_string();
        assert!(
            text.contains("/data") && text.contains("100.0 MB free"),
            "{text}"
        );
        assert!(text.contains("DUOLOGUE_DATA_DIR"), "{text}");
        assert!(fits(Path::new("/data"), 500_000_000, 600_000_000).is_ok());
        assert!(fits(Path::new("/data"), 0, 0).is_ok());
        assert!(fits(Path::new("/data"), u64::MAX, u64::MAX - 1).is_err());
    }

    #[test]
    fn a_write_that_ran_out_of_room_is_told_as_such() {
        let path = Path::new("/data/x.part");
        let full = write_failed(path, 7, io::ErrorKind::StorageFull.into());
        assert!(
            matches!(full, VoicepackError::DiskFull { needed: 7, .. }),
            "{full}"
        );
        let other = write_failed(path, 7, io::ErrorKind::PermissionDenied.into());
        assert!(matches!(other, VoicepackError::Io { .. }), "{other}");
    }
}
