//! One file over HTTP: resumed where it broke off, hashed as it comes, kept only if it is right.
//!
//! Bytes go into a `.part` file; a run that is cut short leaves it, and the next one asks for the
//! rest. The file takes its own name only when size and hash fit.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Client, Response, StatusCode, Url, header};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::disk;
use crate::error::VoicepackError;
use crate::net::{Failure, plain, shown};
use crate::progress::{Event, Progress, Step, Track};
use crate::store::{hash_file, hex};

/// Tries in a row that bring nothing before a source is given up.
const TRIES: u32 = 4;
/// Chunks between the network and the disk; when full, the network waits.
const CHUNKS: usize = 16;

/// What to fetch, and what it must be.
pub(crate) struct Job<'a> {
    pub(crate) model: &'a str,
    pub(crate) label: &'a str,
    pub(crate) url: Url,
    pub(crate) token: Option<&'a str>,
    /// Where it goes when it is right.
    pub(crate) to: PathBuf,
    /// Where it grows.
    pub(crate) part: PathBuf,
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Option<&'a str>,
}

/// The name of the file in which a download from `url` grows: other sources must not append to it.
pub(crate) fn part_name(label: &str, url: &Url) -> String {
    let tag = hex(Sha256::new_with_prefix(shown(url).as_bytes()));
    format!("{}.{}.part", label.replace('/', "_"), &tag[..8])
}

/// Fetches and checks a file; returns its size and sha256.
pub(crate) async fn download(
    client: &Client,
    progress: &Arc<dyn Progress>,
    job: &Job<'_>,
) -> Result<(u64, String), Failure> {
    let mut sink = Sink::open(&job.part, job.size).await?;
    let mut resumed = sink.have > 0;
    let track = Track::start(
        progress,
        job.model,
        job.label,
        Step::Download,
        sink.have,
        job.size,
    );
    let mut failures = 0;
    loop {
        let before = sink.have;
        let failed = if job.size.is_some_and(|size| size == sink.have) {
            None
        } else {
            let (back, outcome) = attempt(client, job, sink, &track).await?;
            sink = back;
            outcome.err()
        };
        let reason = match failed {
            None => match sink.finish(job) {
                Ok((size, sha256)) => {
                    place(job).await?;
                    return Ok((size, sha256));
                }
                Err(reason) => {
                    // The bytes are no use to anybody. If some of them were from an earlier run,
                    // the file may have changed since: once more, from the start.
                    sink = sink.restart().await?;
                    track.set(0);
                    if !std::mem::take(&mut resumed) {
                        drop(sink);
                        remove(&job.part).await?;
                        return Err(Failure::Source(reason));
                    }
                    reason
                }
            },
            Some(Broken::Refused(reason)) => {
                if sink.have == 0 {
                    remove(&job.part).await?;
                }
                return Err(Failure::Source(reason));
            }
            Some(Broken::Again { reason, weight }) => {
                failures = if sink.have > before {
                    1
                } else {
                    failures + weight
                };
                if failures >= TRIES {
                    return Err(Failure::Source(reason));
                }
                reason
            }
        };
        progress.event(&Event::Retrying {
            model: job.model.to_owned(),
            label: job.label.to_owned(),
            reason,
        });
        tokio::time::sleep(Duration::from_millis(250 << failures)).await;
    }
}

/// How one attempt ended short.
enum Broken {
    /// Worth another try; how much of the patience it costs.
    Again { reason: String, weight: u32 },
    /// The answer will not change.
    Refused(String),
}

impl Broken {
    fn again(reason: impl Into<String>) -> Self {
        Self::Again {
            reason: reason.into(),
            weight: 1,
        }
    }

    /// A host that cannot be reached at all seldom can a moment later.
    fn of(error: &reqwest::Error) -> Self {
        Self::Again {
            reason: plain(error),
            weight: if error.is_connect() { TRIES / 2 } else { 1 },
        }
    }
}

/// One request, from where the sink stands to the end or to whatever breaks it.
async fn attempt(
    client: &Client,
    job: &Job<'_>,
    mut sink: Sink,
    track: &Track,
) -> Result<(Sink, Result<(), Broken>), Failure> {
    let mut request = client.get(job.url.clone());
    if let Some(token) = job.token {
        request = request.bearer_auth(token);
    }
    if sink.have > 0 {
        request = request.header(header::RANGE, format!("bytes={}-", sink.have));
    }
    let response = match request.send().await {
        Ok(response) => response,
        Err(e) => return Ok((sink, Err(Broken::of(&e)))),
    };
    match response.status() {
        StatusCode::OK => {
            if sink.have > 0 {
                sink = sink.restart().await?;
                track.set(0);
            }
        }
        StatusCode::PARTIAL_CONTENT => {
            let start = range_of(&response).map(|(start, _)| start);
            if start != Some(sink.have) {
                return Ok((
                    sink.restart().await?,
                    Err(Broken::again("the server sent another range")),
                ));
            }
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let complete = range_of(&response).and_then(|(_, total)| total) == Some(sink.have);
            if complete && job.size.is_none() {
                return Ok((sink, Ok(())));
            }
            let again = Broken::again("the server has fewer bytes than were kept");
            return Ok((sink.restart().await?, Err(again)));
        }
        status => {
            let reason = format!("the server answered {status}");
            let again = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
            let broken = if again {
                Broken::again(reason)
            } else {
                Broken::Refused(reason)
            };
            return Ok((sink, Err(broken)));
        }
    }
    let total = match range_of(&response) {
        Some((_, total)) => total,
        None => response.content_length(),
    };
    if let (Some(total), Some(size)) = (total, job.size)
        && total != size
    {
        let reason = format!("the server has another file: {total} bytes, expected {size}");
        return Ok((sink, Err(Broken::Refused(reason))));
    }
    if let Some(total) = total {
        let folder = job.part.parent().unwrap_or(&job.part);
        disk::ensure_room(folder, total.saturating_sub(sink.have))?;
    }
    sink.receive(response, job.size.or(total), track).await
}

/// First byte and total of a `Content-Range`.
fn range_of(response: &Response) -> Option<(u64, Option<u64>)> {
    let value = response
        .headers()
        .get(header::CONTENT_RANGE)?
        .to_str()
        .ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split('-').next()?.parse().unwrap_or(0);
    Some((start, total.parse().ok()))
}

/// The `.part` file and the running hash of what is in it.
struct Sink {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    have: u64,
}

impl Sink {
    /// Opens what an earlier run left, or starts anew.
    async fn open(path: &Path, size: Option<u64>) -> Result<Self, VoicepackError> {
        let path = path.to_owned();
        blocking(move || {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .append(true)
                .open(&path)
                .map_err(VoicepackError::io("write", &path))?;
            let mut have = file
                .metadata()
                .map_err(VoicepackError::io("read", &path))?
                .len();
            if size.is_some_and(|size| have > size) {
                file.set_len(0)
                    .map_err(VoicepackError::io("write", &path))?;
                have = 0;
            }
            let hasher = hash_file(&path, |_| true)?.unwrap_or_default();
            Ok(Self {
                path,
                file,
                hasher,
                have,
            })
        })
        .await
    }

    /// Throws away what is there.
    async fn restart(self) -> Result<Self, VoicepackError> {
        blocking(move || {
            let mut file = self.file;
            file.set_len(0)
                .and_then(|()| file.seek(SeekFrom::Start(0)))
                .map_err(VoicepackError::io("write", &self.path))?;
            Ok(Self {
                path: self.path,
                file,
                hasher: Sha256::new(),
                have: 0,
            })
        })
        .await
    }

    /// Takes a body in. Disk and hash run on a thread of their own.
    async fn receive(
        self,
        response: Response,
        size: Option<u64>,
        track: &Track,
    ) -> Result<(Self, Result<(), Broken>), Failure> {
        let limit = size.unwrap_or(u64::MAX);
        let mut have = self.have;
        let (sender, mut receiver) = mpsc::channel::<bytes::Bytes>(CHUNKS);
        let writer = spawn_blocking(move || {
            let mut sink = self;
            while let Some(chunk) = receiver.blocking_recv() {
                sink.file.write_all(&chunk).map_err(|e| {
                    disk::write_failed(&sink.path, limit.saturating_sub(sink.have), e)
                })?;
                sink.hasher.update(&chunk);
                sink.have += chunk.len() as u64;
            }
            Ok::<_, VoicepackError>(sink)
        });
        let mut body = response.bytes_stream();
        let mut outcome = Ok(());
        while let Some(chunk) = body.next().await {
            match chunk {
                Ok(chunk) if have + chunk.len() as u64 > limit => {
                    outcome = Err(Broken::Refused(format!(
                        "the server sent more than the {limit} bytes there should be"
                    )));
                    break;
                }
                Ok(chunk) => {
                    let n = chunk.len() as u64;
                    have += n;
                    if sender.send(chunk).await.is_err() {
                        break; // The writer failed; joining it tells why.
                    }
                    track.add(n);
                }
                Err(e) => {
                    outcome = Err(Broken::of(&e));
                    break;
                }
            }
        }
        drop(sender);
        let sink = writer
            .await
            .map_err(|e| VoicepackError::Task(e.to_string()))??;
        if outcome.is_ok() && size.is_some_and(|size| sink.have < size) {
            outcome = Err(Broken::again("the transfer broke off"));
        }
        Ok((sink, outcome))
    }

    /// Size and hash, if they are what they should be; else why not.
    fn finish(&self, job: &Job<'_>) -> Result<(u64, String), String> {
        if let Some(size) = job.size
            && size != self.have
        {
            return Err(format!("{} bytes came, expected {size}", self.have));
        }
        let sha256 = hex(self.hasher.clone());
        match job.sha256 {
            Some(expected) if expected != sha256 => Err(format!(
                "wrong checksum: sha256 {sha256}, expected {expected}"
            )),
            _ => Ok((self.have, sha256)),
        }
    }
}

/// Makes the bytes durable and gives the file its name.
async fn place(job: &Job<'_>) -> Result<(), VoicepackError> {
    let (part, to) = (job.part.clone(), job.to.clone());
    blocking(move || {
        File::open(&part)
            .and_then(|f| f.sync_all())
            .map_err(VoicepackError::io("write", &part))?;
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder).map_err(VoicepackError::io("create", folder))?;
        }
        std::fs::rename(&part, &to).map_err(VoicepackError::io("move", &part))
    })
    .await
}

async fn remove(path: &Path) -> Result<(), VoicepackError> {
    let path = path.to_owned();
    blocking(move || match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(VoicepackError::io("remove", &path)(e))
        }
        _ => Ok(()),
    })
    .await
}

/// Runs file work off the reactor.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VoicepackError> + Send + 'static,
) -> Result<T, VoicepackError> {
    spawn_blocking(work)
        .await
        .map_err(|e| VoicepackError::Task(e.to_string()))?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_sources_never_grow_in_the_same_file_and_passwords_do_not_matter() {
        let a = Url::parse("https://a.test/x.bin").unwrap();
        let with_password = Url::parse("https://me:pw@a.test/x.bin?t=1").unwrap();
        let b = Url::parse("https://b.test/x.bin").unwrap();
        assert_eq!(
            part_name("d/x.bin", &a),
            part_name("d/x.bin", &with_password)
        );
        assert_ne!(part_name("d/x.bin", &a), part_name("d/x.bin", &b));
        assert!(!part_name("d/x.bin", &a).contains('/'));
    }
}
