//! Which voices are in memory, who uses them, and what may be done to them.
//!
//! A voice is absent, loading or resident. Sessions pin the voices they use; a pinned voice is never removed.
//! Whoever needs an absent voice is told to load it, whoever comes meanwhile is told to wait for that load.
//!
//! The rules of eviction:
//!
//! - What is pinned or loading stays, and so do the voices that are kept: the default and the preload list. They
//!   go only when they are unloaded by name.
//! - A voice that nobody has used for [`Rules::ttl`] goes, but not before [`Rules::min_residency`] has passed
//!   since it was loaded, so that a voice is not loaded and dropped by turns.
//! - [`Rules::max_resident`] and [`Rules::memory_limit`] are never exceeded, loads under way included. A load for
//!   which there is no room lets the least recently used go, those past their minimum residency first; where
//!   that is not enough it is refused, and told what would have to go.
//!
//! Pure: it loads nothing, and times are durations since some origin, given by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What bounds the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// Most voices at once; `None`: any number.
    pub(crate) max_resident: Option<usize>,
    /// Most memory of all voices together, bytes; `None`: no bound.
    pub(crate) memory_limit: Option<u64>,
    /// How long a voice stays that nobody uses; `None`: for good.
    pub(crate) ttl: Option<Duration>,
    /// How long it stays at least, unless its room is needed.
    pub(crate) min_residency: Duration,
    /// Voices that are never evicted.
    pub(crate) kept: BTreeSet<String>,
}

/// The table of voices `V`.
#[derive(Debug)]
pub(crate) struct Residency<V> {
    rules: Rules,
    voices: BTreeMap<String, Entry<V>>,
}

#[derive(Debug)]
struct Entry<V> {
    resident: Option<Resident<V>>,
    load: Option<Load>,
    pins: usize,
    /// When it was last asked for or let go of.
    used_at: Duration,
}

#[derive(Debug)]
struct Resident<V> {
    voice: V,
    bytes: u64,
    since: Duration,
}

/// A load under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// Asked for; it holds no memory yet.
    Asked,
    /// Let in, with the memory it is thought to take.
    Admitted { bytes: u64 },
}

/// What whoever needs a voice is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Need<V> {
    /// Use it.
    Ready(V),
    /// Ask [`Residency::admit`], load it, and say [`Residency::loaded`] or [`Residency::failed`].
    Load,
    /// Wait for the load under way.
    Wait,
}

/// Why a voice may not be removed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    Pinned(usize),
    Loading,
}

/// Why there is no room for a voice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom {
    pub(crate) bound: Bound,
    /// What would have to go for it, easiest first; empty where even that would not be enough.
    pub(crate) must_go: Vec<(String, Hold)>,
}

/// The bound that a load would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// So many voices at once.
    Voices(usize),
    /// So many bytes; the voice needs that many, until a reload is done for both.
    Memory { limit: u64, needed: u64 },
}

/// What holds a voice in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    /// It is the default or on the preload list.
    Kept,
    /// So many sessions use it.
    Used(usize),
    /// It is being loaded.
    Loading,
}

/// Voices that leave memory, by name.
pub(crate) type Gone<V> = Vec<(String, V)>;

impl<V: Clone> Residency<V> {
    pub(crate) fn new(rules: Rules) -> Self {
        Residency {
            rules,
            voices: BTreeMap::new(),
        }
    }

    fn entry(&mut self, name: &str) -> &mut Entry<V> {
        self.voices.entry(name.to_owned()).or_insert(Entry {
            resident: None,
            load: None,
            pins: 0,
            used_at: Duration::ZERO,
        })
    }

    /// Forgets a voice of which there is nothing to know, so that the table holds no more names than voices.
    fn tidy(&mut self, name: &str) {
        if let Some(entry) = self.voices.get(name)
            && entry.resident.is_none()
            && entry.load.is_none()
            && entry.pins == 0
        {
            self.voices.remove(name);
        }
    }

    /// Keeps a voice from being removed until [`Residency::unpin`], also while it is still absent.
    pub(crate) fn pin(&mut self, name: &str) {
        self.entry(name).pins += 1;
    }

    pub(crate) fn unpin(&mut self, name: &str, now: Duration) {
        if let Some(entry) = self.voices.get_mut(name) {
            entry.pins = entry.pins.saturating_sub(1);
            entry.used_at = now;
        }
        self.tidy(name);
    }

    /// Asks for a voice.
    pub(crate) fn need(&mut self, name: &str, now: Duration) -> Need<V> {
        let entry = self.entry(name);
        entry.used_at = now;
        match (&entry.resident, entry.load) {
            (Some(resident), _) => Need::Ready(resident.voice.clone()),
            (None, Some(_)) => Need::Wait,
            (None, None) => {
                entry.load = Some(Load::Asked);
                Need::Load
            }
        }
    }

    /// Asks for a voice to be read again, resident or not: [`Need::Load`], or [`Need::Wait`] if that is under
    /// way already. The old one is used until then.
    pub(crate) fn renew(&mut self, name: &str, now: Duration) -> Need<V> {
        let entry = self.entry(name);
        entry.used_at = now;
        if entry.load.is_some() {
            return Need::Wait;
        }
        entry.load = Some(Load::Asked);
        Need::Load
    }

    /// Lets a load that was asked for begin, if there is room for `bytes` or can be made: drop what is given
    /// back first. A voice that is resident needs room for both until the new one is loaded.
    pub(crate) fn admit(
        &mut self,
        name: &str,
        bytes: u64,
        now: Duration,
    ) -> Result<Gone<V>, NoRoom> {
        let old = self.resident_bytes(name);
        let gone = self.make_room(name, bytes, old, now)?;
        self.entry(name).load = Some(Load::Admitted { bytes });
        Ok(gone)
    }

    /// The load succeeded and took `bytes`: from now on `voice` is the one to use. Gives back what leaves
    /// memory, the one before it included.
    ///
    /// If it took more than there is room for, it is given back with the reason, and what was resident before
    /// stays.
    pub(crate) fn loaded(
        &mut self,
        name: &str,
        voice: V,
        bytes: u64,
        now: Duration,
    ) -> Result<Gone<V>, (V, NoRoom)> {
        let mut gone = match self.make_room(name, bytes, 0, now) {
            Ok(gone) => gone,
            Err(no_room) => {
                self.failed(name);
                return Err((voice, no_room));
            }
        };
        let entry = self.entry(name);
        entry.load = None;
        entry.used_at = now;
        let resident = Resident {
            voice,
            bytes,
            since: now,
        };
        if let Some(old) = entry.resident.replace(resident) {
            gone.push((name.to_owned(), old.voice));
        }
        Ok(gone)
    }

    /// The load failed: what was resident before stays.
    pub(crate) fn failed(&mut self, name: &str) {
        self.entry(name).load = None;
        self.tidy(name);
    }

    /// Removes a voice nobody uses; `None` if it was absent.
    pub(crate) fn remove(&mut self, name: &str) -> Result<Option<V>, Busy> {
        let Some(entry) = self.voices.get(name) else {
            return Ok(None);
        };
        if entry.pins > 0 {
            return Err(Busy::Pinned(entry.pins));
        }
        if entry.load.is_some() {
            return Err(Busy::Loading);
        }
        Ok(self.take(name))
    }

    /// Removes the voices that nobody has used for too long.
    pub(crate) fn expire(&mut self, now: Duration) -> Gone<V> {
        let Some(ttl) = self.rules.ttl else {
            return Vec::new();
        };
        let names = self.evictable("");
        let expired = names.into_iter().filter(|name| {
            let entry = self.voices.get(name);
            entry.is_some_and(|entry| now >= entry.used_at + ttl && !self.is_young(entry, now))
        });
        let expired: Vec<String> = expired.collect();
        self.take_all(expired)
    }

    pub(crate) fn resident(&self, name: &str) -> Option<&V> {
        Some(&self.voices.get(name)?.resident.as_ref()?.voice)
    }

    /// Memory that a voice takes; 0 if it is not resident.
    pub(crate) fn resident_bytes(&self, name: &str) -> u64 {
        let resident = self.voices.get(name).and_then(|e| e.resident.as_ref());
        resident.map_or(0, |resident| resident.bytes)
    }

    /// Memory of all voices that are resident, bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let residents = self.voices.values().filter_map(|e| e.resident.as_ref());
        residents.map(|resident| resident.bytes).sum()
    }

    /// How many are resident.
    pub(crate) fn residents(&self) -> usize {
        self.voices
            .values()
            .filter(|entry| entry.resident.is_some())
            .count()
    }

    pub(crate) fn pins(&self, name: &str) -> usize {
        self.voices.get(name).map_or(0, |entry| entry.pins)
    }

    /// Whether no other voice is used or loaded, so that what happens to the process's memory is this one's.
    pub(crate) fn is_alone(&self, name: &str) -> bool {
        let mut others = self.voices.iter().filter(|(other, _)| *other != name);
        others.all(|(_, entry)| entry.pins == 0 && entry.load.is_none())
    }

    /// Whether it was loaded too recently to go for being idle.
    fn is_young(&self, entry: &Entry<V>, now: Duration) -> bool {
        let resident = entry.resident.as_ref();
        resident.is_some_and(|resident| now < resident.since + self.rules.min_residency)
    }

    /// Voices that may go without being asked for, but `name`.
    fn evictable(&self, name: &str) -> Vec<String> {
        let idle = self.voices.iter().filter(|(other, entry)| {
            *other != name
                && entry.resident.is_some()
                && entry.load.is_none()
                && entry.pins == 0
                && !self.rules.kept.contains(*other)
        });
        idle.map(|(name, _)| name.clone()).collect()
    }

    /// Makes room for `name` with `bytes`, beside `old` bytes of what it replaces: removes as few idle voices as
    /// needed, or none if that is not enough.
    fn make_room(
        &mut self,
        name: &str,
        bytes: u64,
        old: u64,
        now: Duration,
    ) -> Result<Gone<V>, NoRoom> {
        let mut room = self.room(name, bytes.saturating_add(old));
        let mut idle = self.evictable(name);
        idle.sort_by_key(|other| {
            let entry = &self.voices[other];
            (self.is_young(entry, now), entry.used_at)
        });
        let mut going = Vec::new();
        for other in idle {
            if room.fits() {
                break;
            }
            let taken = self.taken(&other);
            if room.gains(taken) {
                room.without(taken);
                going.push(other);
            }
        }
        if room.fits() {
            return Ok(self.take_all(going));
        }
        let bound = room.broken(bytes.saturating_add(old));
        let mut held: Vec<(Hold, &String)> = self
            .voices
            .iter()
            .filter(|(other, _)| *other != name && !going.contains(other))
            .filter_map(|(other, entry)| Some((self.hold(other, entry)?, other)))
            .collect();
        held.sort();
        let mut must_go = Vec::new();
        for (hold, other) in held {
            if room.fits() {
                break;
            }
            let taken = self.taken(other);
            if room.gains(taken) {
                room.without(taken);
                must_go.push((other.clone(), hold));
            }
        }
        if !room.fits() {
            must_go.clear();
        }
        Err(NoRoom { bound, must_go })
    }

    /// What holds a voice that takes room.
    fn hold(&self, name: &str, entry: &Entry<V>) -> Option<Hold> {
        match (&entry.resident, entry.load, entry.pins) {
            (_, Some(Load::Admitted { .. }), _) | (Some(_), Some(Load::Asked), _) => {
                Some(Hold::Loading)
            }
            (Some(_), None, 1..) => Some(Hold::Used(entry.pins)),
            (Some(_), None, 0) if self.rules.kept.contains(name) => Some(Hold::Kept),
            _ => None,
        }
    }

    /// Memory that a voice takes now, its load included; `None` if it takes no room.
    fn taken(&self, name: &str) -> Option<u64> {
        let entry = self.voices.get(name)?;
        let resident = entry.resident.as_ref().map(|resident| resident.bytes);
        let load = match entry.load {
            Some(Load::Admitted { bytes }) => Some(bytes),
            _ => None,
        };
        match (resident, load) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
        }
    }

    /// The room there is with `name` at `bytes`.
    fn room(&self, name: &str, bytes: u64) -> Room {
        let mut room = Room {
            max: self.rules.max_resident,
            limit: self.rules.memory_limit,
            voices: 1,
            bytes: u128::from(bytes),
        };
        let others = self.voices.keys().filter(|other| *other != name);
        for taken in others.filter_map(|other| self.taken(other)) {
            room.voices += 1;
            room.bytes += u128::from(taken);
        }
        room
    }

    fn take_all(&mut self, names: Vec<String>) -> Gone<V> {
        let take = |name: String| self.take(&name).map(|voice| (name, voice));
        names.into_iter().filter_map(take).collect()
    }

    fn take(&mut self, name: &str) -> Option<V> {
        let resident = self.voices.get_mut(name)?.resident.take();
        self.tidy(name);
        resident.map(|resident| resident.voice)
    }
}

/// What the bounds leave.
struct Room {
    max: Option<usize>,
    limit: Option<u64>,
    voices: usize,
    bytes: u128,
}

impl Room {
    fn within_voices(&self) -> bool {
        self.max.is_none_or(|max| self.voices <= max)
    }

    fn fits(&self) -> bool {
        self.within_voices() && self.limit.is_none_or(|limit| self.bytes <= limit.into())
    }

    /// Whether a voice's going would help: one that takes no memory makes no room for it.
    fn gains(&self, taken: Option<u64>) -> bool {
        !self.within_voices() || taken.is_some_and(|bytes| bytes > 0)
    }

    /// One voice fewer.
    fn without(&mut self, taken: Option<u64>) {
        if let Some(bytes) = taken {
            self.voices -= 1;
            self.bytes -= u128::from(bytes);
        }
    }

    /// The bound that is broken by a voice that needs this much: the one that no other voice's going mends, if
    /// there is one.
    fn broken(&self, needed: u64) -> Bound {
        match (self.max, self.limit) {
            (_, Some(limit)) if needed > limit => Bound::Memory { limit, needed },
            (Some(max), _) if !self.within_voices() => Bound::Voices(max),
            (_, limit) => Bound::Memory {
                limit: limit.unwrap_or(u64::MAX),
                needed,
            },
        }
    }
}

#[cfg(test)]
mod tests;
