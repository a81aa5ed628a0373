//! Which voices are in memory, who uses them, and what may be done to them.
//!
//! A voice is absent, loading or resident. Sessions pin the voices they use; a pinned voice is never removed.
//! Whoever needs an absent voice is told to load it, whoever comes meanwhile is told to wait for that load.
//!
//! Pure: it loads nothing and knows no time. Rules of eviction (idle time, a cap on residents) belong here
//! when they come: they are further reasons to name a voice that may be removed.

use std::collections::BTreeMap;

/// The table of voices `V`.
#[derive(Debug)]
pub(crate) struct Residency<V> {
    voices: BTreeMap<String, Entry<V>>,
}

#[derive(Debug)]
struct Entry<V> {
    resident: Option<V>,
    loading: bool,
    pins: usize,
}

/// What whoever needs a voice is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Need<V> {
    /// Use it.
    Ready(V),
    /// Load it, and say [`Residency::loaded`] or [`Residency::failed`].
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

impl<V: Clone> Residency<V> {
    pub(crate) fn new() -> Self {
        Residency {
            voices: BTreeMap::new(),
        }
    }

    fn entry(&mut self, name: &str) -> &mut Entry<V> {
        self.voices.entry(name.to_owned()).or_insert(Entry {
            resident: None,
            loading: false,
            pins: 0,
        })
    }

    /// Forgets a voice of which there is nothing to know, so that the table holds no more names than voices.
    fn tidy(&mut self, name: &str) {
        if let Some(entry) = self.voices.get(name)
            && entry.resident.is_none()
            && !entry.loading
            && entry.pins == 0
        {
            self.voices.remove(name);
        }
    }

    /// Keeps a voice from being removed until [`Residency::unpin`], also while it is still absent.
    pub(crate) fn pin(&mut self, name: &str) {
        self.entry(name).pins += 1;
    }

    pub(crate) fn unpin(&mut self, name: &str) {
        if let Some(entry) = self.voices.get_mut(name) {
            entry.pins = entry.pins.saturating_sub(1);
        }
        self.tidy(name);
    }

    /// Asks for a voice.
    pub(crate) fn need(&mut self, name: &str) -> Need<V> {
        let entry = self.entry(name);
        match (&entry.resident, entry.loading) {
            (Some(voice), _) => Need::Ready(voice.clone()),
            (None, true) => Need::Wait,
            (None, false) => {
                entry.loading = true;
                Need::Load
            }
        }
    }

    /// Asks for a voice to be read again, resident or not: [`Need::Load`], or [`Need::Wait`] if that is under
    /// way already. The old one is used until then.
    pub(crate) fn renew(&mut self, name: &str) -> Need<V> {
        let entry = self.entry(name);
        if entry.loading {
            return Need::Wait;
        }
        entry.loading = true;
        Need::Load
    }

    /// The load succeeded: from now on `voice` is the one to use.
    pub(crate) fn loaded(&mut self, name: &str, voice: V) {
        let entry = self.entry(name);
        entry.loading = false;
        entry.resident = Some(voice);
    }

    /// The load failed: what was resident before stays.
    pub(crate) fn failed(&mut self, name: &str) {
        self.entry(name).loading = false;
        self.tidy(name);
    }

    /// Removes a voice nobody uses; `None` if it was absent.
    pub(crate) fn remove(&mut self, name: &str) -> Result<Option<V>, Busy> {
        let Some(entry) = self.voices.get_mut(name) else {
            return Ok(None);
        };
        if entry.pins > 0 {
            return Err(Busy::Pinned(entry.pins));
        }
        if entry.loading {
            return Err(Busy::Loading);
        }
        let voice = entry.resident.take();
        self.tidy(name);
        Ok(voice)
    }

    pub(crate) fn resident(&self, name: &str) -> Option<&V> {
        self.voices.get(name)?.resident.as_ref()
    }

    pub(crate) fn pins(&self, name: &str) -> usize {
        self.voices.get(name).map_or(0, |entry| entry.pins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_load_however_many_ask() {
        let mut table = Residency::new();
        assert_eq!(table.need("a"), Need::Load);
        assert_eq!(table.need("a"), Need::Wait);
        assert_eq!(table.renew("a"), Need::Wait);
        table.loaded("a", 1);
        assert_eq!(table.need("a"), Need::Ready(1));
    }

    #[test]
    fn a_failed_load_may_be_tried_again_and_leaves_what_was_there() {
        let mut table = Residency::new();
        assert_eq!(table.need("a"), Need::Load);
        table.failed("a");
        assert_eq!(table.need("a"), Need::Load);
        table.loaded("a", 1);
        assert_eq!(table.renew("a"), Need::Load);
        assert_eq!(
            table.need("a"),
            Need::Ready(1),
            "the old one serves meanwhile"
        );
        table.failed("a");
        assert_eq!(table.need("a"), Need::Ready(1));
    }

    #[test]
    fn nothing_pinned_or_loading_is_removed() {
        let mut table = Residency::new();
        assert_eq!(table.need("a"), Need::Load);
        assert_eq!(table.remove("a"), Err(Busy::Loading));
        table.loaded("a", 1);
        table.pin("a");
        table.pin("a");
        assert_eq!(table.remove("a"), Err(Busy::Pinned(2)));
        table.unpin("a");
        table.unpin("a");
        assert_eq!(table.remove("a"), Ok(Some(1)));
        assert_eq!(table.remove("a"), Ok(None));
    }

    proptest! {
        /// Random use of a few voices: a model of plain counters agrees, nothing in use ever goes, and there
        /// is never more than one load of a voice.
        #[test]
        fn random_use_never_removes_what_is_in_use(
            steps in prop::collection::vec((0u8..6, 0usize..3), 1..300),
        ) {
            let names = ["a", "b", "c"];
            let mut table = Residency::new();
            let (mut pins, mut loading, mut resident) = ([0usize; 3], [false; 3], [false; 3]);
            for (what, i) in steps {
                let name = names[i];
                match what {
                    0 => {
                        table.pin(name);
                        pins[i] += 1;
                    }
                    1 if pins[i] > 0 => {
                        table.unpin(name);
                        pins[i] -= 1;
                    }
                    2 => {
                        let expected = match (resident[i], loading[i]) {
                            (true, _) => Need::Ready(i),
                            (false, true) => Need::Wait,
                            (false, false) => Need::Load,
                        };
                        prop_assert_eq!(table.need(name), expected);
                        loading[i] |= !resident[i];
                    }
                    3 if loading[i] => {
                        table.loaded(name, i);
                        (loading[i], resident[i]) = (false, true);
                    }
                    4 if loading[i] => {
                        table.failed(name);
                        loading[i] = false;
                    }
                    5 => match table.remove(name) {
                        Ok(gone) => {
                            prop_assert_eq!(pins[i], 0);
                            prop_assert!(!loading[i]);
                            prop_assert_eq!(gone.is_some(), resident[i]);
                            resident[i] = false;
                        }
                        Err(_) => prop_assert!(pins[i] > 0 || loading[i]),
                    },
                    _ => {}
                }
                prop_assert_eq!(table.pins(name), pins[i]);
                prop_assert_eq!(table.resident(name).is_some(), resident[i]);
            }
        }
    }
}
