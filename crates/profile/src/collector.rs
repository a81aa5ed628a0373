//! The thread that unwinds samples and counts equal stacks while a profile is recorded.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use framehop::{Error, Unwinder as _};

use crate::ProfileError;
use crate::modules::Modules;
use crate::profile::{Profile, Stack};
use crate::sampler::{self, Sample};

/// CPU time between two samples: 99 a second, so that nothing that happens a hundred times a second runs in step.
const PERIOD: Duration = Duration::from_micros(10_101);
/// How often the collector looks. There are places for more samples than come meanwhile.
const LOOK: Duration = Duration::from_millis(10);
/// Most frames of one stack; outer ones are cut off.
const DEEPEST: usize = 160;
/// Most different stacks; samples of others are counted as lost. With their frames, 100 MB at the very most.
const MOST_STACKS: usize = 50_000;
/// The frame around a stack that was cut off.
const CUT_OFF: &str = "[deeper frames cut off]";

static RECORDS: AtomicBool = AtomicBool::new(false);

/// A profile that is being recorded; dropped, it is thrown away.
pub struct Recording {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Collected>>,
    began: SystemTime,
    since: Instant,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    samples: AtomicU64,
}

/// Lets the next recording begin, when it is dropped.
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        sampler::stop();
        RECORDS.store(false, Ordering::Release);
    }
}

#[derive(Default)]
struct Collected {
    modules: Modules,
    /// By thread and addresses, innermost first; whether outer frames are missing.
    counts: HashMap<(String, Vec<u64>, bool), u64>,
    lost: u64,
}

/// Begins to record a profile of this process.
///
/// # Errors
/// [`ProfileError::Busy`]; [`ProfileError::Refused`] where the system does not let it.
pub fn record() -> Result<Recording, ProfileError> {
    if RECORDS.swap(true, Ordering::AcqRel) {
        return Err(ProfileError::Busy);
    }
    let turn = Turn;
    sampler::start(PERIOD)?;
    let shared = Arc::new(Shared::default());
    let told = Arc::clone(&shared);
    let thread = std::thread::Builder::new()
        .name("profiler".into())
        .spawn(move || collect(&told, turn))
        .map_err(|source| ProfileError::Refused {
            doing: "starting a thread",
            source,
        })?;
    Ok(Recording {
        shared,
        thread: Some(thread),
        began: SystemTime::now(),
        since: Instant::now(),
    })
}

impl Recording {
    /// Samples so far.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.shared.samples.load(Ordering::Relaxed)
    }

    /// Ends it, and looks up the names. It reads the symbol tables of the program and its libraries, which takes a
    /// while: not for a thread that others wait for.
    ///
    /// # Errors
    /// [`ProfileError::Lost`].
    pub fn finish(mut self) -> Result<Profile, ProfileError> {
        let lasted = self.since.elapsed();
        self.shared.stop.store(true, Ordering::Release);
        let thread = self.thread.take().ok_or(ProfileError::Lost)?;
        let collected = thread.join().map_err(|_| ProfileError::Lost)?;
        let lost = collected.lost;
        Ok(Profile::new(
            collected.named(),
            PERIOD,
            self.began,
            lasted,
            lost,
        ))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

fn collect(shared: &Shared, turn: Turn) -> Collected {
    let mut collected = Collected {
        modules: Modules::of_this_process(),
        ..Collected::default()
    };
    let mut cache = framehop::CacheNative::default();
    let mut last_look = false;
    loop {
        let mut count = 0;
        sampler::drain(|sample| {
            count += 1;
            collected.add(sample, &mut cache);
        });
        shared.samples.fetch_add(count, Ordering::Relaxed);
        if last_look {
            break;
        }
        if shared.stop.load(Ordering::Acquire) {
            // Handlers that run have a moment to end.
            sampler::stop();
            last_look = true;
        }
        std::thread::sleep(LOOK);
    }
    collected.lost += sampler::lost();
    drop(turn);
    collected
}

impl Collected {
    fn add(
        &mut self,
        sample: &Sample,
        cache: &mut framehop::CacheNative<framehop::MayAllocateDuringUnwind>,
    ) {
        let mut word = |address| sample.word(address).ok_or(());
        let registers = sample.registers.for_unwinding(sample.pc);
        let mut frames = self
            .modules
            .unwinder()
            .iter_frames(sample.pc, registers, cache, &mut word);
        let mut addresses = Vec::new();
        let cut_off = loop {
            if addresses.len() == DEEPEST {
                break true;
            }
            match frames.next() {
                Ok(Some(frame)) => addresses.push(frame.address_for_lookup()),
                // A thread's first frame has no table that says so.
                Ok(None) | Err(Error::ReturnAddressIsNull) => break false,
                Err(_) => break true,
            }
        };
        let known = self.counts.len();
        let key = (sample.thread(), addresses, cut_off);
        match self.counts.get_mut(&key) {
            Some(count) => *count += 1,
            None if known < MOST_STACKS => {
                self.counts.insert(key, 1);
            }
            None => self.lost += 1,
        }
    }

    fn named(self) -> Vec<Stack> {
        let addresses = self.counts.keys().flat_map(|(_, stack, _)| stack);
        let names = self.modules.names(addresses.copied().collect());
        let mut stacks: HashMap<Vec<Arc<str>>, u64> = HashMap::new();
        let cut_off_name: Arc<str> = CUT_OFF.into();
        for ((thread, addresses, cut_off), samples) in self.counts {
            let mut frames: Vec<Arc<str>> = vec![format!("[{thread}]").into()];
            if cut_off {
                frames.push(Arc::clone(&cut_off_name));
            }
            let inner = addresses.iter().rev();
            frames.extend(inner.filter_map(|address| names.get(address).cloned()));
            *stacks.entry(frames).or_default() += samples;
        }
        let mut stacks: Vec<Stack> = stacks
            .into_iter()
            .map(|(frames, samples)| Stack { frames, samples })
            .collect();
        stacks.sort_by(|a, b| a.frames.cmp(&b.frames));
        stacks
    }
}
