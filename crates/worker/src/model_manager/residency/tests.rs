#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const MB: u64 = 1_000_000;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn unbounded() -> Residency<u32> {
    Residency::new(Rules::default())
}

/// Loads a voice that is not there.
fn load(table: &mut Residency<u32>, name: &str, bytes: u64, at: u64) -> Result<Gone<u32>, NoRoom> {
    assert_eq!(table.need(name, s(at)), Need::Load);
    match table.admit(name, bytes, s(at)) {
        Ok(mut gone) => {
            gone.extend(table.loaded(name, 0, bytes, s(at)).unwrap());
            Ok(gone)
        }
        Err(no_room) => {
            table.failed(name);
            Err(no_room)
        }
    }
}

fn names(gone: &Gone<u32>) -> Vec<&str> {
    gone.iter().map(|(name, _)| name.as_str()).collect()
}

fn kept(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn one_load_however_many_ask() {
    let mut table = unbounded();
    assert_eq!(table.need("a", s(0)), Need::Load);
    assert_eq!(table.need("a", s(0)), Need::Wait);
    assert_eq!(table.renew("a", s(0)), Need::Wait);
    assert_eq!(table.loaded("a", 1, 0, s(0)), Ok(vec![]));
    assert_eq!(table.need("a", s(0)), Need::Ready(1));
}

#[test]
fn a_failed_load_may_be_tried_again_and_leaves_what_was_there() {
    let mut table = unbounded();
    assert_eq!(table.need("a", s(0)), Need::Load);
    table.failed("a");
    assert_eq!(table.need("a", s(0)), Need::Load);
    table.loaded("a", 1, 0, s(0)).unwrap();
    assert_eq!(table.renew("a", s(0)), Need::Load);
    assert_eq!(
        table.need("a", s(0)),
        Need::Ready(1),
        "the old one serves meanwhile"
    );
    table.failed("a");
    assert_eq!(table.need("a", s(0)), Need::Ready(1));
}

#[test]
fn nothing_pinned_or_loading_is_removed() {
    let mut table = unbounded();
    assert_eq!(table.need("a", s(0)), Need::Load);
    assert_eq!(table.remove("a"), Err(Busy::Loading));
    table.loaded("a", 1, 0, s(0)).unwrap();
    table.pin("a");
    table.pin("a");
    assert_eq!(table.remove("a"), Err(Busy::Pinned(2)));
    table.unpin("a", s(0));
    table.unpin("a", s(0));
    assert_eq!(table.remove("a"), Ok(Some(1)));
    assert_eq!(table.remove("a"), Ok(None));
}

#[test]
fn an_idle_voice_goes_after_its_ttl_and_not_before_its_minimum_residency() {
    let mut table = Residency::new(Rules {
        ttl: Some(s(60)),
        min_residency: s(300),
        kept: kept(&["kept"]),
        ..Rules::default()
    });
    for name in ["kept", "used", "idle"] {
        load(&mut table, name, MB, 0).unwrap();
    }
    table.pin("used");
    assert_eq!(table.expire(s(299)), vec![]);
    assert_eq!(names(&table.expire(s(300))), ["idle"]);
    // Its time is counted from when the last session left.
    table.unpin("used", s(1_000));
    assert_eq!(table.expire(s(1_059)), vec![]);
    assert_eq!(names(&table.expire(s(1_060))), ["used"]);
    assert_eq!(table.expire(s(100_000)), vec![], "kept voices stay");
    assert_eq!(table.remove("kept"), Ok(Some(0)), "unless told to go");
}

#[test]
fn asking_for_a_voice_puts_its_ttl_off() {
    let mut table = Residency::new(Rules {
        ttl: Some(s(60)),
        ..Rules::default()
    });
    load(&mut table, "a", MB, 0).unwrap();
    assert_eq!(table.need("a", s(50)), Need::Ready(0));
    assert_eq!(table.expire(s(60)), vec![]);
    assert_eq!(names(&table.expire(s(110))), ["a"]);
}

#[test]
fn over_the_cap_the_least_recently_used_goes_the_settled_before_the_young() {
    let mut table = Residency::new(Rules {
        max_resident: Some(3),
        min_residency: s(100),
        kept: kept(&["default"]),
        ..Rules::default()
    });
    load(&mut table, "default", MB, 0).unwrap();
    load(&mut table, "a", MB, 0).unwrap();
    load(&mut table, "b", MB, 90).unwrap();
    // `a` was used last, but `b` has not had its time.
    table.need("a", s(110));
    assert_eq!(names(&load(&mut table, "c", MB, 120).unwrap()), ["a"]);
    assert_eq!(names(&load(&mut table, "d", MB, 400).unwrap()), ["b"]);
}

#[test]
fn a_full_table_says_what_would_have_to_go() {
    let mut table = Residency::new(Rules {
        max_resident: Some(3),
        kept: kept(&["default"]),
        ..Rules::default()
    });
    for name in ["a", "b", "default"] {
        load(&mut table, name, MB, 0).unwrap();
    }
    table.pin("a");
    table.pin("a");
    table.pin("b");
    let refused = load(&mut table, "c", MB, 1).unwrap_err();
    assert_eq!(refused.bound, Bound::Voices(3));
    assert_eq!(refused.must_go, [("default".to_owned(), Hold::Kept)]);
    table.pin("default");
    let refused = load(&mut table, "c", MB, 1).unwrap_err();
    assert_eq!(refused.must_go, [("b".to_owned(), Hold::Used(1))]);
    // A load under way takes its place before it is done.
    table.unpin("b", s(2));
    assert_eq!(table.need("c", s(2)), Need::Load);
    assert_eq!(names(&table.admit("c", MB, s(2)).unwrap()), ["b"]);
    let refused = load(&mut table, "d", MB, 3).unwrap_err();
    assert_eq!(refused.must_go, [("default".to_owned(), Hold::Used(1))]);
}

#[test]
fn memory_is_kept_within_its_limit_before_a_load_and_after() {
    let mut table = Residency::new(Rules {
        memory_limit: Some(100 * MB),
        ..Rules::default()
    });
    load(&mut table, "a", 40 * MB, 0).unwrap();
    load(&mut table, "b", 40 * MB, 1).unwrap();
    // One that went is enough for this.
    assert_eq!(names(&load(&mut table, "c", 60 * MB, 2).unwrap()), ["a"]);
    let refused = load(&mut table, "huge", 101 * MB, 3).unwrap_err();
    assert_eq!(refused.must_go, [], "nothing would help");
    assert_eq!(table.bytes(), 100 * MB, "and so nothing went");
    table.pin("b");
    table.pin("c");
    let refused = load(&mut table, "d", 50 * MB, 4).unwrap_err();
    let bound = Bound::Memory {
        limit: 100 * MB,
        needed: 50 * MB,
    };
    assert_eq!(refused.bound, bound);
    let must_go = ["b", "c"].map(|name| (name.to_owned(), Hold::Used(1)));
    assert_eq!(refused.must_go, must_go);

    // It took more than was thought: others go for it, or it does.
    table.unpin("b", s(5));
    assert_eq!(table.need("d", s(5)), Need::Load);
    assert_eq!(table.admit("d", 0, s(5)), Ok(vec![]));
    let gone = table.loaded("d", 7, 20 * MB, s(5)).unwrap();
    assert_eq!(names(&gone), ["b"]);
    table.pin("d");
    assert_eq!(table.need("e", s(6)), Need::Load);
    table.admit("e", MB, s(6)).unwrap();
    let (back, refused) = table.loaded("e", 9, 30 * MB, s(6)).unwrap_err();
    assert_eq!((back, refused.must_go.len()), (9, 1));
    assert_eq!(table.need("e", s(6)), Need::Load, "it may be tried again");
}

#[test]
fn for_memory_only_those_go_that_take_some() {
    let mut table = Residency::new(Rules {
        memory_limit: Some(100 * MB),
        ..Rules::default()
    });
    load(&mut table, "nothing", 0, 0).unwrap();
    load(&mut table, "large", 80 * MB, 1).unwrap();
    table.pin("nothing");
    assert_eq!(
        names(&load(&mut table, "a", 50 * MB, 2).unwrap()),
        ["large"]
    );
    table.unpin("nothing", s(3));
    table.pin("a");
    let refused = load(&mut table, "b", 60 * MB, 4).unwrap_err();
    assert_eq!(refused.must_go, [("a".to_owned(), Hold::Used(1))]);
    assert!(table.resident("nothing").is_some());
}

#[test]
fn a_reload_needs_room_for_both_and_leaves_the_old_one_where_there_is_none() {
    let mut table = Residency::new(Rules {
        memory_limit: Some(100 * MB),
        max_resident: Some(1),
        ..Rules::default()
    });
    load(&mut table, "a", 40 * MB, 0).unwrap();
    assert_eq!(table.renew("a", s(1)), Need::Load);
    assert_eq!(table.admit("a", 50 * MB, s(1)), Ok(vec![]));
    assert_eq!(
        table.loaded("a", 2, 50 * MB, s(1)).unwrap(),
        [("a".to_owned(), 0)]
    );
    assert_eq!(table.bytes(), 50 * MB);
    assert_eq!(table.renew("a", s(2)), Need::Load);
    assert!(table.admit("a", 60 * MB, s(2)).is_err());
    table.failed("a");
    assert_eq!(table.resident("a"), Some(&2));
}

/// A model of the table that knows only what was done, to hold the rules against.
struct Model {
    table: Residency<usize>,
    rules: Rules,
    now: Duration,
    pins: Vec<usize>,
    /// Voices that sessions were told to use; each must be resident for as long as it is pinned.
    in_use: Vec<usize>,
    loading: Vec<Option<bool>>,
    versions: usize,
}

const VOICES: [(&str, u64); 6] = [
    ("default", 30),
    ("a", 10),
    ("b", 20),
    ("c", 30),
    ("d", 40),
    ("e", 500),
];

impl Model {
    fn new(rules: Rules) -> Self {
        Model {
            table: Residency::new(rules.clone()),
            rules,
            now: Duration::ZERO,
            pins: vec![0; VOICES.len()],
            in_use: vec![0; VOICES.len()],
            loading: vec![None; VOICES.len()],
            versions: 0,
        }
    }

    fn check_gone(&self, gone: &Gone<usize>, replaced: Option<usize>) {
        for (name, _) in gone {
            let i = VOICES.iter().position(|(voice, _)| voice == name).unwrap();
            if Some(i) == replaced {
                continue;
            }
            assert_eq!(self.pins[i], 0, "{name} went in use");
            assert_eq!(self.loading[i], None, "{name} went while it was loaded");
            assert!(!self.rules.kept.contains(name), "{name} went though kept");
        }
    }

    fn ask(&mut self, i: usize, again: bool) {
        let name = VOICES[i].0;
        let resident = self.table.resident(name).is_some();
        let need = if again {
            self.table.renew(name, self.now)
        } else {
            self.table.need(name, self.now)
        };
        match need {
            Need::Ready(_) => assert!(resident && !again),
            Need::Wait => assert!(self.loading[i].is_some()),
            Need::Load => {
                assert_eq!(self.loading[i], None, "a second load of {name}");
                self.loading[i] = Some(false);
            }
        }
    }

    fn step(&mut self, what: u8, i: usize, wait: u64) {
        self.now += s(wait);
        let (name, bytes) = VOICES[i];
        match what {
            // A session opens.
            0 | 1 => {
                self.table.pin(name);
                self.pins[i] += 1;
                self.ask(i, false);
            }
            // A session ends.
            2 | 3 if self.pins[i] > 0 => {
                self.table.unpin(name, self.now);
                self.pins[i] -= 1;
                self.in_use[i] = self.in_use[i].min(self.pins[i]);
            }
            4 => self.ask(i, false),
            5 => self.ask(i, true),
            // A load is let in, or refused.
            6 if self.loading[i] == Some(false) => match self.table.admit(name, bytes, self.now) {
                Ok(gone) => {
                    self.check_gone(&gone, None);
                    self.loading[i] = Some(true);
                }
                Err(no_room) => {
                    self.check_refusal(&no_room, bytes);
                    self.table.failed(name);
                    self.loading[i] = None;
                }
            },
            // A load ends, with more or less memory than was thought.
            7 if self.loading[i] == Some(true) => {
                self.versions += 1;
                let took = bytes * 3 / 4 + wait % 20;
                match self.table.loaded(name, self.versions, took, self.now) {
                    Ok(gone) => {
                        self.loading[i] = None;
                        self.check_gone(&gone, Some(i));
                        self.in_use[i] = self.pins[i];
                    }
                    Err((_, no_room)) => {
                        self.loading[i] = None;
                        self.check_refusal(&no_room, took);
                    }
                }
            }
            8 if self.loading[i].is_some() => {
                self.table.failed(name);
                self.loading[i] = None;
            }
            9 => match self.table.remove(name) {
                Ok(_) => assert!(self.pins[i] == 0 && self.loading[i].is_none()),
                Err(Busy::Pinned(n)) => assert_eq!(n, self.pins[i]),
                Err(Busy::Loading) => assert!(self.loading[i].is_some()),
            },
            10 => {
                let gone = self.table.expire(self.now);
                self.check_gone(&gone, None);
            }
            _ => {}
        }
        if self.table.resident(name).is_some() && matches!(what, 0 | 1) {
            self.in_use[i] = self.pins[i];
        }
        self.check();
    }

    /// A refusal is true: nothing that could go is left, or it would not have helped.
    fn check_refusal(&self, no_room: &NoRoom, bytes: u64) {
        for (name, hold) in &no_room.must_go {
            let i = VOICES.iter().position(|(voice, _)| voice == name).unwrap();
            match hold {
                Hold::Used(n) => assert_eq!(*n, self.pins[i]),
                Hold::Kept => assert!(self.rules.kept.contains(name)),
                Hold::Loading => assert!(self.loading[i].is_some()),
            }
        }
        if no_room.must_go.is_empty() {
            let Bound::Memory { limit, needed } = no_room.bound else {
                panic!("{no_room:?}: one voice is within any cap");
            };
            assert!(needed > limit && needed >= bytes, "{no_room:?}");
        }
    }

    fn check(&self) {
        let mut residents = 0;
        for (i, (name, _)) in VOICES.iter().enumerate() {
            let resident = self.table.resident(name).is_some();
            residents += usize::from(resident || self.loading[i] == Some(true));
            assert_eq!(self.table.pins(name), self.pins[i]);
            assert!(
                resident || self.in_use[i] == 0,
                "{name} is used and not there"
            );
        }
        assert!(residents <= self.rules.max_resident.unwrap());
        assert!(self.table.bytes() <= self.rules.memory_limit.unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    /// 10,000 loads, unloads, sessions and evictions, some minutes apart: nothing in use ever goes, both bounds
    /// hold after every step, kept voices stay, and there is never a second load of a voice.
    #[test]
    fn ten_thousand_random_steps_break_no_rule(
        steps in prop::collection::vec((0u8..11, 0usize..VOICES.len(), 0u64..200), 10_000),
        max in 1usize..6,
        limit in 40u64..120,
    ) {
        let mut model = Model::new(Rules {
            max_resident: Some(max),
            memory_limit: Some(limit),
            ttl: Some(s(600)),
            min_residency: s(120),
            kept: kept(&["default"]),
        });
        for (what, voice, wait) in steps {
            model.step(what, voice, wait);
        }
    }
}
