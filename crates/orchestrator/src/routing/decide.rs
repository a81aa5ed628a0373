//! The decision itself.

use std::cmp::Ordering;
use std::sync::Arc;

use duologue_registry::{VoiceRecord, WorkerRecord, WorkerState};
use serde::Serialize;

use super::policy::Policy;
use super::price::{self, first_audio, load, room};
use crate::fleet::{Mode, Wanted};

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Speak here.
    Speak(Route),
    /// Workers would do, but none has room now.
    Busy {
        /// How many would do.
        suited: usize,
    },
    /// No worker would do.
    Nobody,
}

/// Where to speak.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The worker.
    pub worker: Arc<WorkerRecord>,
    /// Voice to speak with.
    pub voice: String,
    /// Slots of it that may be taken.
    pub room: u32,
    /// Why here.
    pub because: Because,
    /// What is to be loaded in the background.
    pub load: Option<Load>,
}

/// Why a worker was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// It is the best, and has the voice in memory.
    Resident,
    /// It is the best, and loads the voice first.
    Cold,
    /// Another voice stands in until the wanted one is loaded.
    StandsInWhileLoading,
    /// Another voice stands in: no worker with the wanted one has room.
    StandsInWhileBusy,
    /// Another voice stands in: no worker has the wanted one.
    StandsInForGood,
}

/// A voice that is to be loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Where.
    pub worker: Arc<WorkerRecord>,
    /// What.
    pub voice: String,
}

/// Why a worker does not come into question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Out<'a> {
    Avoided,
    Draining,
    NoVoice,
    OtherLanguage,
    /// By what it lacks.
    Lacks(&'a str),
    NotResident,
    NoFallback,
    Full,
}

/// A worker and voice that come into question, and what speaks for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub worker: &'a WorkerState,
    pub voice: &'a str,
    pub room: u32,
    pub resident: bool,
    pub merit: Merit,
}

/// What decides between two that come into question; the smaller is the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Merit {
    /// Place among the fallbacks, and whether it is of another family than the wanted voice.
    pub distance: (usize, bool),
    pub not_resident: bool,
    pub missing_tags: usize,
    pub load: price::Load,
    pub first_audio: u32,
    pub not_last: bool,
}

/// Chooses a worker among `workers`. Depends on nothing else, so the same question has the same answer.
#[must_use]
pub fn route(wanted: &Wanted, workers: &[WorkerState], policy: &Policy) -> Decision {
    let judge = Judge { wanted, policy };
    let mut suited = 0;
    let mut best: Option<Entry<'_>> = None;
    for worker in workers {
        match judge.as_wanted(worker) {
            Ok(entry) => {
                suited += 1;
                judge.keep_better(&mut best, entry);
            }
            Err(Out::Full) => suited += 1,
            Err(_) => {}
        }
    }
    match best {
        Some(best) if best.resident => speak(&best, Because::Resident, None),
        Some(cold) => {
            let stand_in = policy
                .prefer_resident
                .then(|| judge.stand_in(workers))
                .flatten();
            match stand_in {
                Some(entry) => {
                    let load = judge.load_on(&cold);
                    speak(&entry, Because::StandsInWhileLoading, Some(load))
                }
                None => {
                    // Where residency is nothing to the policy, each worker loads for itself.
                    let load = policy.prefer_resident.then(|| judge.load_on(&cold));
                    speak(&cold, Because::Cold, load)
                }
            }
        }
        None => match judge.stand_in(workers) {
            Some(entry) if suited > 0 => speak(&entry, Because::StandsInWhileBusy, None),
            Some(entry) => speak(&entry, Because::StandsInForGood, None),
            None => match suited + judge.full_stand_ins(workers) {
                0 => Decision::Nobody,
                suited => Decision::Busy { suited },
            },
        },
    }
}

fn speak(entry: &Entry<'_>, because: Because, load: Option<Load>) -> Decision {
    Decision::Speak(Route {
        worker: Arc::clone(&entry.worker.record),
        voice: entry.voice.to_owned(),
        room: entry.room,
        because,
        load,
    })
}

/// Judges workers for one question.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub wanted: &'a Wanted,
    pub policy: &'a Policy,
}

impl<'a> Judge<'a> {
    /// Whether a worker can speak with the wanted voice.
    pub(super) fn as_wanted(&self, worker: &'a WorkerState) -> Result<Entry<'a>, Out<'a>> {
        let record = &*worker.record;
        let name: &'a str = &self.wanted.voice.voice;
        self.open(record)?;
        if record.unlisted {
            return self.with_room(worker, name, true, (0, false), &[]);
        }
        // An empty name is the worker's default.
        let voice = record
            .voices
            .iter()
            .find(|voice| {
                if name.is_empty() {
                    voice.default
                } else {
                    voice.name == name
                }
            })
            .ok_or(Out::NoVoice)?;
        if let Some(language) = &self.wanted.language
            && !speaks(voice, language)
        {
            return Err(Out::OtherLanguage);
        }
        self.requirements(record, voice)?;
        self.with_room(worker, &voice.name, voice.resident, (0, false), &voice.tags)
    }

    /// The best of the voices of a worker that may stand in for the wanted one.
    pub(super) fn in_place(
        &self,
        worker: &'a WorkerState,
        of: Option<&VoiceRecord>,
    ) -> Result<Entry<'a>, Out<'a>> {
        let record = &*worker.record;
        if self.wanted.mode == Mode::Text || self.policy.fallbacks.is_empty() {
            return Err(Out::NoFallback);
        }
        self.open(record)?;
        let mut best = Err(Out::NoFallback);
        for voice in &record.voices {
            match self.voice_in_place(worker, voice, of) {
                Ok(entry) => {
                    if best
                        .as_ref()
                        .map_or(true, |best: &Entry<'_>| entry.merit < best.merit)
                    {
                        best = Ok(entry);
                    }
                }
                // That a voice would do, but for room, says more than what others lack.
                Err(out) if best == Err(Out::NoFallback) || (best.is_err() && out == Out::Full) => {
                    best = Err(out);
                }
                Err(_) => {}
            }
        }
        best
    }

    fn voice_in_place(
        &self,
        worker: &'a WorkerState,
        voice: &'a VoiceRecord,
        of: Option<&VoiceRecord>,
    ) -> Result<Entry<'a>, Out<'a>> {
        if voice.name == self.wanted.voice.voice {
            return Err(Out::NoFallback);
        }
        let is_test = voice.tags.iter().any(|tag| tag == "test");
        let rank = self.policy.fallback_rank(&voice.name, is_test);
        let rank = rank.ok_or(Out::NoFallback)?;
        let speaks = match (&self.wanted.language, of) {
            (Some(language), _) => speaks(voice, language),
            (None, Some(of)) => {
                of.languages.is_empty()
                    || of.languages.iter().any(|language| speaks(voice, language))
            }
            (None, None) => true,
        };
        if !speaks {
            return Err(Out::OtherLanguage);
        }
        self.requirements(&worker.record, voice)?;
        if !voice.resident {
            return Err(Out::NotResident);
        }
        let other_family = of.is_none_or(|of| of.family != voice.family);
        self.with_room(worker, &voice.name, true, (rank, other_family), &voice.tags)
    }

    /// The load of the wanted voice where it is on the disk.
    fn load_on(&self, cold: &Entry<'_>) -> Load {
        Load {
            worker: Arc::clone(&cold.worker.record),
            voice: cold.voice.to_owned(),
        }
    }

    fn stand_in(&self, workers: &'a [WorkerState]) -> Option<Entry<'a>> {
        let of = self.described(workers);
        let mut best = None;
        for worker in workers {
            if let Ok(entry) = self.in_place(worker, of) {
                self.keep_better(&mut best, entry);
            }
        }
        best
    }

    /// Workers on which another voice could stand in if only there were room.
    fn full_stand_ins(&self, workers: &'a [WorkerState]) -> usize {
        let of = self.described(workers);
        let full =
            |worker: &&WorkerState| self.in_place(worker, of).is_err_and(|out| out == Out::Full);
        workers.iter().filter(full).count()
    }

    /// What any worker tells of the wanted voice.
    pub(super) fn described(&self, workers: &'a [WorkerState]) -> Option<&'a VoiceRecord> {
        let name = &self.wanted.voice.voice;
        workers.iter().find_map(|worker| worker.record.voice(name))
    }

    /// Keeps the better of two; equals are told apart by session and name.
    pub(super) fn keep_better(&self, best: &mut Option<Entry<'a>>, entry: Entry<'a>) {
        let is_better = best
            .as_ref()
            .is_none_or(|best| self.compare(&entry, best) == Ordering::Less);
        if is_better {
            *best = Some(entry);
        }
    }

    pub(super) fn compare(&self, a: &Entry<'_>, b: &Entry<'_>) -> Ordering {
        let tie = |entry: &Entry<'_>| hash(&self.wanted.session, &entry.worker.record.name);
        a.merit
            .cmp(&b.merit)
            .then_with(|| tie(a).cmp(&tie(b)))
            .then_with(|| a.worker.record.name.cmp(&b.worker.record.name))
    }

    fn open(&self, record: &WorkerRecord) -> Result<(), Out<'a>> {
        if self.wanted.avoid.contains(&record.name) {
            return Err(Out::Avoided);
        }
        if record.draining {
            return Err(Out::Draining);
        }
        Ok(())
    }

    fn requirements(&self, record: &WorkerRecord, voice: &VoiceRecord) -> Result<(), Out<'a>> {
        if self.wanted.mode == Mode::Session && !record.capabilities.streaming {
            return Err(Out::Lacks("streaming"));
        }
        let lacks = |name: &&'a String| {
            !record.capabilities.has(name)
                && !voice.tags.contains(name)
                && !record.tags.contains(name)
        };
        match self.policy.require.iter().find(lacks) {
            Some(lacking) => Err(Out::Lacks(lacking)),
            None => Ok(()),
        }
    }

    fn with_room(
        &self,
        worker: &'a WorkerState,
        voice: &'a str,
        resident: bool,
        distance: (usize, bool),
        tags: &[String],
    ) -> Result<Entry<'a>, Out<'a>> {
        let record = &*worker.record;
        let room = room(&record.live, self.wanted.mode);
        if worker.taken >= room {
            return Err(Out::Full);
        }
        let missing = |tag: &&String| !tags.contains(tag) && !record.tags.contains(tag);
        Ok(Entry {
            worker,
            voice,
            room,
            resident,
            merit: Merit {
                distance,
                not_resident: self.policy.prefer_resident && !resident,
                missing_tags: self.policy.prefer_tags.iter().filter(missing).count(),
                load: load(worker),
                first_audio: first_audio(&record.live),
                not_last: self.wanted.last_worker.as_ref() != Some(&record.name),
            },
        })
    }
}

impl PartialEq for Entry<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.merit == other.merit && std::ptr::eq(self.worker, other.worker)
    }
}

/// Whether a voice speaks a language: one of the two tags begins with the other (`en`, `en-GB`), as a voice for all
/// of English will do for a part of it. A voice that names no language speaks any.
pub(super) fn speaks(voice: &VoiceRecord, language: &str) -> bool {
    let begins = |tag: &str, with: &str| {
        tag.get(..with.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(with))
            && matches!(tag.as_bytes().get(with.len()), None | Some(b'-'))
    };
    voice.languages.is_empty()
        || voice
            .languages
            .iter()
            .any(|tag| begins(tag, language) || begins(language, tag))
}

/// Shares equals out: the smallest for a session is its worker for as long as that is there (rendezvous hashing:
/// Thaler and Ravishankar, 1998). FNV-1a (Fowler, Noll, Vo) over both names, and MurmurHash3's finalizer (Appleby) over
/// that, without which names that differ in their last letter do not share evenly.
fn hash(session: &str, worker: &str) -> u64 {
    let bytes = session.bytes().chain([0]).chain(worker.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}
