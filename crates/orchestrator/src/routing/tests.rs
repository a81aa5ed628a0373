#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use duologue_registry::{Capabilities, LiveFigures, VoiceRecord, WorkerRecord, WorkerState};
use proptest::prelude::*;

use super::*;
use crate::fleet::{Mode, Wanted};
use crate::voice::VoiceChoice;

fn voice(name: &str, resident: bool) -> VoiceRecord {
    VoiceRecord {
        name: name.into(),
        family: name.split('-').next().unwrap_or_default().into(),
        languages: vec!["en-US".into()],
        resident,
        ..VoiceRecord::default()
    }
}

fn worker(name: &str, voices: Vec<VoiceRecord>) -> WorkerState {
    WorkerState {
        record: Arc::new(WorkerRecord {
            name: name.into(),
            capabilities: Capabilities {
                streaming: true,
                ..Capabilities::default()
            },
            voices,
            live: LiveFigures {
                slots: 4,
                ..LiveFigures::default()
            },
            ..WorkerRecord::default()
        }),
        taken: 0,
    }
}

/// `joe` is resident everywhere.
fn three() -> Vec<WorkerState> {
    ["a", "b", "c"]
        .map(|name| worker(name, vec![voice("joe", true)]))
        .into()
}

fn record(state: &mut WorkerState) -> &mut WorkerRecord {
    Arc::get_mut(&mut state.record).unwrap()
}

fn wanted(voice: &str) -> Wanted {
    Wanted::new("s", VoiceChoice::parse(voice, 1.0), Mode::Session)
}

fn chosen(wanted: &Wanted, workers: &[WorkerState], policy: &Policy) -> Route {
    match route(wanted, workers, policy) {
        Decision::Speak(route) => route,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_least_loaded_is_taken_and_what_waits_counts_like_sessions() {
    let mut workers = three();
    workers[0].taken = 1;
    workers[1].taken = 2;
    workers[2].taken = 1;
    for state in &mut workers {
        record(state).live.real_time_factor = 0.25;
    }
    record(&mut workers[2]).live.queue_depth = 2;
    let route = chosen(&wanted("joe"), &workers, &Policy::default());
    assert_eq!(
        (&*route.worker.name, route.because),
        ("a", Because::Resident)
    );
}

/// Routes so many sessions one after the other; how many each worker got.
fn shares(workers: &mut [WorkerState], sessions: usize) -> Vec<u32> {
    for n in 0..sessions {
        let wanted = Wanted {
            session: format!("s{n}"),
            ..wanted("joe")
        };
        let name = chosen(&wanted, workers, &Policy::default())
            .worker
            .name
            .clone();
        let state = workers.iter_mut().find(|state| state.record.name == name);
        state.unwrap().taken += 1;
    }
    workers.iter().map(|state| state.taken).collect()
}

#[test]
fn a_worker_of_half_the_speed_is_given_half_the_sessions() {
    let mut workers = three();
    for (state, factor) in workers.iter_mut().zip([0.05, 0.05, 0.1]) {
        let live = &mut record(state).live;
        live.real_time_factor = factor;
        live.slots = 100;
    }
    assert_eq!(shares(&mut workers, 25), [10, 10, 5]);
}

#[test]
fn speeds_that_were_measured_differently_share_evenly_while_there_is_speed_to_spare() {
    let mut workers = three();
    for (state, factor) in workers.iter_mut().zip([0.08, 0.16, 0.11]) {
        let live = &mut record(state).live;
        live.real_time_factor = factor;
        live.slots = 16;
    }
    assert_eq!(shares(&mut workers, 9), [3, 3, 3]);
}

#[test]
fn one_slower_than_real_time_is_the_last_resort_and_not_a_dead_end() {
    let mut workers = three();
    record(&mut workers[0]).live.real_time_factor = 3.0;
    workers[1].taken = 3;
    workers[2].taken = 3;
    let policy = Policy::default();
    assert_ne!(chosen(&wanted("joe"), &workers, &policy).worker.name, "a");
    workers[1].taken = 4;
    workers[2].taken = 4;
    assert_eq!(chosen(&wanted("joe"), &workers, &policy).worker.name, "a");
    workers[0].taken = 1;
    let full = route(&wanted("joe"), &workers, &policy);
    assert_eq!(full, Decision::Busy { suited: 3 });
}

#[test]
fn of_equals_the_quicker_is_taken_then_the_last_then_each_in_turn() {
    let policy = Policy::default();
    let mut workers = three();
    let again = Wanted {
        last_worker: Some("b".into()),
        ..wanted("joe")
    };
    assert_eq!(chosen(&again, &workers, &policy).worker.name, "b");
    for (state, ms) in workers.iter_mut().zip([80.0, 160.0, 82.0]) {
        record(state).live.first_audio_p50_ms = ms;
    }
    assert_ne!(chosen(&again, &workers, &policy).worker.name, "b");
    record(&mut workers[1]).live.first_audio_p50_ms = 85.0;
    assert_eq!(chosen(&again, &workers, &policy).worker.name, "b");
    let mut sessions = [0; 3];
    for n in 0..300 {
        let wanted = Wanted {
            session: format!("s{n}"),
            ..wanted("joe")
        };
        let name = &chosen(&wanted, &three(), &policy).worker.name;
        sessions[usize::from(name.as_bytes()[0] - b'a')] += 1;
    }
    assert!(
        sessions.iter().all(|n| (70..130).contains(n)),
        "{sessions:?}"
    );
}

#[test]
fn a_voice_in_no_memory_is_loaded_where_it_is_best_while_the_nearest_stands_in() {
    let mut workers = three();
    record(&mut workers[1]).voices.push(voice("amy", false));
    record(&mut workers[2]).voices.push(voice("amy", false));
    workers[1].taken = 2;
    let policy = Policy::default();
    let route = chosen(&wanted("amy"), &workers, &policy);
    assert_eq!(route.because, Because::StandsInWhileLoading);
    assert_eq!(route.voice, "joe");
    let load = route.load.unwrap();
    assert_eq!((&*load.worker.name, &*load.voice), ("c", "amy"));
    // Loaded, it speaks.
    record(&mut workers[1]).voices[1].resident = true;
    let route = chosen(&wanted("amy"), &workers, &policy);
    assert_eq!((&*route.worker.name, &*route.voice), ("b", "amy"));
    assert_eq!(route.load, None);
}

#[test]
fn a_text_of_its_own_and_a_policy_without_fallbacks_wait_for_their_voice() {
    let mut workers = three();
    record(&mut workers[1]).voices.push(voice("amy", false));
    let alone = Policy {
        fallbacks: Vec::new(),
        ..Policy::default()
    };
    let text = Wanted {
        mode: Mode::Text,
        ..wanted("amy")
    };
    let cases = [(&text, &Policy::default()), (&wanted("amy"), &alone)];
    for (wanted, policy) in cases {
        let route = chosen(wanted, &workers, policy);
        let found = (&*route.worker.name, &*route.voice, route.because);
        assert_eq!(found, ("b", "amy", Because::Cold));
    }
    assert_eq!(route(&wanted("eve"), &workers, &alone), Decision::Nobody);
}

#[test]
fn what_stands_in_speaks_the_language_and_is_no_test_voice_unless_named() {
    let german = VoiceRecord {
        languages: vec!["de-DE".into()],
        ..voice("thorsten", true)
    };
    let tone = VoiceRecord {
        tags: vec!["test".into()],
        languages: Vec::new(),
        ..voice("tone", true)
    };
    let workers = [worker("a", vec![german, tone, voice("amy", false)])];
    let route = chosen(&wanted("amy"), &workers, &Policy::default());
    assert_eq!((&*route.voice, route.because), ("amy", Because::Cold));
    let named = Policy {
        fallbacks: vec!["tone".into()],
        ..Policy::default()
    };
    assert_eq!(chosen(&wanted("amy"), &workers, &named).voice, "tone");
}

#[test]
fn the_nearest_fallback_is_the_first_named_then_one_of_the_family() {
    let voices = vec![
        voice("xtts-eve", true),
        voice("piper-amy", false),
        voice("piper-joe", true),
        voice("tiny", true),
    ];
    let workers = [worker("a", voices)];
    let route = chosen(&wanted("piper-amy"), &workers, &Policy::default());
    assert_eq!(route.voice, "piper-joe");
    let named = Policy {
        fallbacks: vec!["tiny".into(), "*".into()],
        ..Policy::default()
    };
    assert_eq!(chosen(&wanted("piper-amy"), &workers, &named).voice, "tiny");
}

#[test]
fn policies_filter_by_capability_and_prefer_by_tag() {
    let mut workers = three();
    record(&mut workers[0]).tags = vec!["edge".into()];
    let nobody = route(&wanted("joe"), &workers, &Policy::edge());
    assert_eq!(nobody, Decision::Nobody);
    for state in &mut workers {
        record(state).capabilities.cpu_ok = true;
    }
    workers[0].taken = 3;
    assert_eq!(
        chosen(&wanted("joe"), &workers, &Policy::edge())
            .worker
            .name,
        "a"
    );
    record(&mut workers[2]).capabilities.lora = true;
    assert_eq!(
        chosen(&wanted("joe"), &workers, &Policy::lora())
            .worker
            .name,
        "c"
    );
    record(&mut workers[2]).capabilities.streaming = false;
    assert_eq!(
        route(&wanted("joe"), &workers, &Policy::lora()),
        Decision::Nobody
    );
}

#[test]
fn an_explanation_names_every_worker_and_what_was_found() {
    let mut workers = three();
    workers[0].taken = 4;
    record(&mut workers[1]).draining = true;
    let explanation = explain(&wanted("joe"), &workers, &Policy::default());
    assert_eq!(explanation.worker.as_deref(), Some("c"));
    let told = explanation.to_string();
    for words in ["c speaks with joe", "4 of 4", "drains", "0 of 4 taken"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["because"], "resident");
    assert_eq!(json["candidates"][0]["worker"], "c");
}

#[test]
fn policies_are_read_from_a_file_and_mistakes_are_named() {
    let example = include_str!("../../../../configs/routing.yaml");
    let policies = Policies::read(example).unwrap();
    assert_eq!(*policies.get("default").unwrap(), Policy::default());
    assert_eq!(*policies.get("edge").unwrap(), Policy::edge());
    assert_eq!(*policies.get("lora").unwrap(), Policy::lora());
    let own = Policies::read("policies:\n  mine:\n    require: [zone-a]\n").unwrap();
    assert_eq!(own.get("mine").unwrap().require, ["zone-a"]);
    assert!(own.get("edge").is_ok());
    let unknown = own.get("yours").unwrap_err().to_string();
    assert!(
        unknown.contains("yours") && unknown.contains("mine"),
        "{unknown}"
    );
    let refused = Policies::read("policies:\n  mine:\n    requires: []\n").unwrap_err();
    assert!(refused.to_string().contains("requires"), "{refused}");
}

const VOICES: [&str; 4] = ["piper-joe", "piper-amy", "xtts-eve", "tone"];
const LANGUAGES: [&str; 3] = ["en-US", "en-GB", "de-DE"];
const CAPABILITIES: [&str; 3] = ["cpu_ok", "lora", "zone-a"];

fn some_voice() -> impl Strategy<Value = VoiceRecord> {
    let languages = prop::sample::subsequence(LANGUAGES.to_vec(), 0..=2);
    (0..VOICES.len(), any::<bool>(), languages).prop_map(|(name, resident, languages)| {
        let mut record = voice(VOICES[name], resident);
        record.languages = languages.into_iter().map(str::to_owned).collect();
        if record.name == "tone" {
            record.tags.push("test".into());
        }
        record
    })
}

fn some_worker() -> impl Strategy<Value = WorkerState> {
    let voices = prop::collection::vec(some_voice(), 0..4);
    let factor = prop::sample::select(vec![0.0, 0.07, 0.4, 0.5, 1.5]);
    let flags = (
        prop::bool::weighted(0.9),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    (
        voices,
        factor,
        flags,
        prop::bool::weighted(0.1),
        0u32..6,
        0u32..5,
        0u32..200,
    )
        .prop_map(
            |(
                mut voices,
                factor,
                (streaming, cpu_ok, lora, zone),
                draining,
                taken,
                slots,
                first,
            )| {
                voices.sort_by(|a, b| a.name.cmp(&b.name));
                voices.dedup_by(|a, b| a.name == b.name);
                let mut state = worker("", voices);
                let record = record(&mut state);
                record.capabilities.streaming = streaming;
                record.capabilities.cpu_ok = cpu_ok;
                record.capabilities.lora = lora;
                record.draining = draining;
                record.tags = if zone {
                    vec!["zone-a".into()]
                } else {
                    Vec::new()
                };
                record.live.real_time_factor = factor;
                record.live.slots = slots;
                record.live.first_audio_p50_ms = first as f32;
                state.taken = taken;
                state
            },
        )
}

fn some_fleet() -> impl Strategy<Value = Vec<WorkerState>> {
    prop::collection::vec(some_worker(), 0..12).prop_map(|mut workers| {
        for (n, state) in workers.iter_mut().enumerate() {
            record(state).name = format!("w{n:02}");
        }
        workers
    })
}

fn some_policy() -> impl Strategy<Value = Policy> {
    let require = prop::sample::subsequence(CAPABILITIES.to_vec(), 0..=1);
    let fallbacks =
        prop::sample::select(vec![vec![], vec!["*"], vec!["xtts-eve"], vec!["tone", "*"]]);
    (require, fallbacks, any::<bool>()).prop_map(|(require, fallbacks, prefer_resident)| Policy {
        require: require.into_iter().map(str::to_owned).collect(),
        fallbacks: fallbacks.into_iter().map(str::to_owned).collect(),
        prefer_resident,
        ..Policy::default()
    })
}

fn some_wanted() -> impl Strategy<Value = Wanted> {
    let language = prop::option::of(prop::sample::select(vec!["en", "en-US", "de"]));
    (
        0..VOICES.len(),
        any::<bool>(),
        language,
        prop::option::of(0usize..12),
    )
        .prop_map(|(voice, text, language, avoid)| Wanted {
            mode: if text { Mode::Text } else { Mode::Session },
            language: language.map(str::to_owned),
            avoid: avoid.map(|n| format!("w{n:02}")).into_iter().collect(),
            ..wanted(VOICES[voice])
        })
}

/// Whether a worker may speak with a voice, said as plainly as can be and not as the router says it.
fn fits(
    wanted: &Wanted,
    workers: &[WorkerState],
    policy: &Policy,
    state: &WorkerState,
    voice: &VoiceRecord,
) -> bool {
    let record = &state.record;
    let language = |tag: &str| tag.split('-').next().map(str::to_owned);
    let is_wanted = voice.name == wanted.voice.voice;
    let spoken: Vec<String> = match &wanted.language {
        Some(language) => vec![language.clone()],
        None if is_wanted => Vec::new(),
        None => workers
            .iter()
            .find_map(|state| state.record.voice(&wanted.voice.voice))
            .map(|voice| voice.languages.clone())
            .unwrap_or_default(),
    };
    // Of these tags, those of one language differ in the region; a tag without one stands for all.
    let speaks = spoken.is_empty()
        || voice.languages.is_empty()
        || voice.languages.iter().any(|has| {
            spoken
                .iter()
                .any(|want| has == want || (!want.contains('-') && language(has) == language(want)))
        });
    let may_stand_in = wanted.mode == Mode::Session
        && voice.resident
        && policy
            .fallbacks
            .iter()
            .any(|name| *name == voice.name || (name == "*" && voice.name != "tone"));
    let capable = policy.require.iter().all(|need| match &**need {
        "cpu_ok" => record.capabilities.cpu_ok,
        "lora" => record.capabilities.lora,
        other => record.tags.iter().any(|tag| tag == other),
    });
    speaks
        && capable
        && (is_wanted || may_stand_in)
        && (wanted.mode == Mode::Text || record.capabilities.streaming)
        && !record.draining
        && !wanted.avoid.contains(&record.name)
}

fn has_room(state: &WorkerState, mode: Mode) -> bool {
    state.taken < room(&state.record.live, mode)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// The misroute rate is 0, and where somebody fits there is no dead end: it speaks, or it is waited for.
    #[test]
    fn no_request_is_misrouted_and_none_is_refused_that_somebody_could_take(
        wanted in some_wanted(),
        workers in some_fleet(),
        policy in some_policy(),
    ) {
        let fitting = |room: bool| workers.iter().any(|state| {
            (!room || has_room(state, wanted.mode))
                && state.record.voices.iter().any(|voice| fits(&wanted, &workers, &policy, state, voice))
        });
        match route(&wanted, &workers, &policy) {
            Decision::Speak(route) => {
                let state = workers.iter().find(|state| state.record == route.worker).unwrap();
                let voice = state.record.voice(&route.voice).unwrap();
                prop_assert!(fits(&wanted, &workers, &policy, state, voice), "{route:?}");
                prop_assert!(has_room(state, wanted.mode));
                prop_assert_eq!(route.room, room(&state.record.live, wanted.mode));
                let is_wanted = route.voice == wanted.voice.voice;
                let stands_in = !matches!(route.because, Because::Resident | Because::Cold);
                prop_assert_eq!(is_wanted, !stands_in);
                if let Some(load) = &route.load {
                    let on_disk = load.worker.voice(&load.voice).unwrap();
                    prop_assert!(!on_disk.resident && load.voice == wanted.voice.voice);
                    prop_assert!(!is_wanted || load.worker == route.worker);
                }
                if is_wanted && !voice.resident && policy.prefer_resident {
                    let resident_with_room = workers.iter().any(|state| {
                        has_room(state, wanted.mode)
                            && state.record.voice(&route.voice).is_some_and(|voice| {
                                voice.resident && fits(&wanted, &workers, &policy, state, voice)
                            })
                    });
                    prop_assert!(!resident_with_room);
                }
            }
            Decision::Busy { suited } => {
                prop_assert!(suited > 0 && !fitting(true) && fitting(false));
            }
            Decision::Nobody => prop_assert!(!fitting(false)),
        }
    }

    /// The order in which workers are named decides nothing, and the explanation is of the same decision.
    #[test]
    fn the_same_question_has_the_same_answer(
        wanted in some_wanted(),
        workers in some_fleet(),
        policy in some_policy(),
    ) {
        // Workers that disagree about what a voice speaks are no fleet's normal state.
        let mut agreed = wanted;
        agreed.language.get_or_insert_with(|| "en".into());
        let decision = route(&agreed, &workers, &policy);
        let mut turned: Vec<WorkerState> = workers.clone();
        turned.reverse();
        prop_assert_eq!(&decision, &route(&agreed, &turned, &policy));
        let explanation = explain(&agreed, &workers, &policy);
        prop_assert_eq!(explanation.candidates.len(), workers.len());
        if let Decision::Speak(route) = &decision {
            prop_assert_eq!(explanation.worker.as_ref(), Some(&route.worker.name));
            prop_assert_eq!(explanation.voice.as_ref(), Some(&route.voice));
        } else {
            prop_assert_eq!(explanation.worker, None);
        }
    }
}
