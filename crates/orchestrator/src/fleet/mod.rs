//! The voice workers, as one thing to ask for a voice.
//!
//! Who speaks asks [`Fleet::acquire`] for a worker and is leased one with a slot on it. The slot is a value: dropped,
//! it is free again.

mod slot;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use duologue_rpc::Model;
use futures_util::future::join_all;

pub use slot::Slot;

use crate::voice::{VoiceChoice, VoiceClient, VoiceError, VoiceSession};

/// Workers that [`Fleet::open`] tries before it gives up.
const ATTEMPTS: usize = 3;
/// When to try again, where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What a voice is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A conversation: sound is wanted while it is made, for many utterances.
    Session,
    /// A text of its own: nobody waits for it in real time.
    Text,
}

/// What is asked of the fleet.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Voice to speak with.
    pub voice: VoiceChoice,
    /// What for.
    pub mode: Mode,
    /// Language to be spoken, as a BCP 47 tag; `None`: any.
    pub language: Option<String>,
    /// Session that asks, for logs and tie-breakers.
    pub session: String,
    /// Worker that spoke for this session last; of two that are equal otherwise, it is taken.
    pub last_worker: Option<String>,
    /// Workers that must not be taken, because they have just failed this session.
    pub avoid: Vec<String>,
}

impl Wanted {
    /// A voice for a session, with no history.
    #[must_use]
    pub fn new(session: &str, voice: VoiceChoice, mode: Mode) -> Self {
        Self {
            voice,
            mode,
            language: None,
            session: session.to_owned(),
            last_worker: None,
            avoid: Vec::new(),
        }
    }
}

/// A worker that has room for one more, and the room.
pub struct Leased {
    /// The worker.
    pub client: VoiceClient,
    /// Its name, unique in the fleet.
    pub worker: String,
    /// Voice to speak with: what was wanted, or what stands in for it.
    pub voice: VoiceChoice,
    /// The room; dropped, it is given back.
    pub slot: Slot,
}

impl Leased {
    /// Opens a session in the room that was leased. `lead` is how far frames may run ahead of real time.
    ///
    /// # Errors
    /// As [`VoiceClient::open`].
    pub async fn open(
        self,
        session_id: String,
        lead: Duration,
    ) -> Result<VoiceSession, VoiceError> {
        let session = self.client.open(session_id, self.voice, lead).await?;
        Ok(session.on(self.worker, self.slot))
    }
}

/// The voice workers. Clones are handles on the same fleet.
#[derive(Clone)]
pub struct Fleet {
    workers: Arc<[Member]>,
}

struct Member {
    name: String,
    client: VoiceClient,
    sessions: Arc<AtomicUsize>,
}

impl Fleet {
    /// A fleet of workers that are known beforehand, by their names.
    #[must_use]
    pub fn of(workers: impl IntoIterator<Item = (String, VoiceClient)>) -> Self {
        let member = |(name, client)| Member {
            name,
            client,
            sessions: Arc::default(),
        };
        Self {
            workers: workers.into_iter().map(member).collect(),
        }
    }

    /// Leases a worker that can speak as is wanted.
    ///
    /// # Errors
    /// [`VoiceError::Full`] when there is no room, with when to ask again.
    pub async fn acquire(&self, wanted: &Wanted) -> Result<Leased, VoiceError> {
        let affine = |member: &Member| wanted.last_worker.as_ref() == Some(&member.name);
        let member = self
            .workers
            .iter()
            .filter(|member| !wanted.avoid.contains(&member.name))
            .min_by_key(|member| (member.sessions.load(Ordering::Relaxed), !affine(member)))
            .ok_or_else(|| VoiceError::Full {
                why: "no voice worker is left to ask".into(),
                retry_after: RETRY_AFTER,
            })?;
        member.sessions.fetch_add(1, Ordering::Relaxed);
        let sessions = Arc::clone(&member.sessions);
        Ok(Leased {
            client: member.client.clone(),
            worker: member.name.clone(),
            voice: wanted.voice.clone(),
            slot: Slot::new(move || {
                sessions.fetch_sub(1, Ordering::Relaxed);
            }),
        })
    }

    /// Leases a worker and opens a session on it; one that is full or cannot be reached is passed over for another.
    ///
    /// # Errors
    /// The last worker's, when none takes the session; any [`VoiceError`] but [`VoiceError::BadText`].
    pub async fn open(
        &self,
        mut wanted: Wanted,
        session_id: String,
        lead: Duration,
    ) -> Result<VoiceSession, VoiceError> {
        let mut failed = None;
        for _ in 0..ATTEMPTS {
            let leased = match self.acquire(&wanted).await {
                Ok(leased) => leased,
                Err(error) => return Err(failed.unwrap_or(error)),
            };
            let worker = leased.worker.clone();
            match leased.open(session_id.clone(), lead).await {
                Err(error @ (VoiceError::Busy(_) | VoiceError::Worker(_))) => {
                    tracing::warn!(%worker, %error, session = wanted.session, "a worker is passed over");
                    wanted.avoid.push(worker);
                    failed = Some(error);
                }
                opened => return opened,
            }
        }
        Err(failed.unwrap_or_else(|| VoiceError::Worker("no worker was tried".into())))
    }

    /// The voices of all workers, each once.
    ///
    /// # Errors
    /// [`VoiceError::Worker`] when no worker answers.
    pub async fn models(&self) -> Result<Vec<Model>, VoiceError> {
        let answers = join_all(self.workers.iter().map(|member| member.client.models())).await;
        let mut voices: Vec<Model> = Vec::new();
        let mut failed = None;
        let mut answered = false;
        for answer in answers {
            match answer {
                Ok(models) => {
                    answered = true;
                    models
                        .into_iter()
                        .for_each(|model| merge(&mut voices, model));
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if !answered => Err(error),
            _ => Ok(voices),
        }
    }
}

/// Adds what one worker knows of a voice to what others know.
fn merge(voices: &mut Vec<Model>, model: Model) {
    match voices.iter_mut().find(|voice| voice.name == model.name) {
        None => voices.push(model),
        Some(voice) => {
            voice.resident |= model.resident;
            voice.is_default |= model.is_default;
            voice.sessions += model.sessions;
            voice.resident_bytes += model.resident_bytes;
            if voice.speakers.is_empty() {
                voice.speakers = model.speakers;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tonic::transport::Endpoint;

    use super::*;

    fn fleet(names: &[&str]) -> Fleet {
        let nowhere = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        Fleet::of(
            names
                .iter()
                .map(|name| ((*name).to_owned(), VoiceClient::new(nowhere.clone()))),
        )
    }

    fn wanted() -> Wanted {
        Wanted::new("s", VoiceChoice::parse("tone", 1.0), Mode::Session)
    }

    #[tokio::test]
    async fn sessions_go_where_the_fewest_are_and_a_dropped_slot_counts_no_more() {
        let fleet = fleet(&["a", "b"]);
        let first = fleet.acquire(&wanted()).await.unwrap();
        let second = fleet.acquire(&wanted()).await.unwrap();
        assert_eq!((&*first.worker, &*second.worker), ("a", "b"));
        let third = fleet.acquire(&wanted()).await.unwrap();
        assert_eq!(third.worker, "a");
        drop((first, third));
        assert_eq!(fleet.acquire(&wanted()).await.unwrap().worker, "a");
    }

    #[tokio::test]
    async fn the_last_worker_is_kept_among_equals_and_an_avoided_one_is_never_taken() {
        let fleet = fleet(&["a", "b"]);
        let again = Wanted {
            last_worker: Some("b".into()),
            ..wanted()
        };
        assert_eq!(fleet.acquire(&again).await.unwrap().worker, "b");
        let avoiding = Wanted {
            avoid: vec!["b".into()],
            ..again
        };
        assert_eq!(fleet.acquire(&avoiding).await.unwrap().worker, "a");
        let nobody = Wanted {
            avoid: vec!["a".into(), "b".into()],
            ..wanted()
        };
        let refused = fleet.acquire(&nobody).await.err().unwrap();
        assert!(matches!(refused, VoiceError::Full { .. }), "{refused}");
    }

    #[tokio::test]
    async fn an_open_session_that_no_worker_takes_says_why_and_holds_no_slot() {
        let fleet = fleet(&["a", "b"]);
        let lead = Duration::from_secs(1);
        let failed = fleet.open(wanted(), "s-1".into(), lead).await.err();
        assert!(matches!(failed, Some(VoiceError::Worker(_))), "{failed:?}");
        assert_eq!(fleet.acquire(&wanted()).await.unwrap().worker, "a");
    }
}
