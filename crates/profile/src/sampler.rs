//! The handler of SIGPROF and the places into which it writes.
//!
//! What it does is what a signal handler may do: system calls, atomics and copies into memory that is there. It stays
//! installed after the first profile, because a signal that comes late would end the process otherwise; without a
//! recording it looks at a flag and returns.

use std::cell::UnsafeCell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use framehop::UnwindRegsNative;

use crate::ProfileError;

/// Bytes of a stack that are copied, from its top. Deeper frames are cut off.
pub const STACK: usize = 64 * 1024;
/// Places for samples that were not looked at yet: at 16 cores and 99 samples a second each, 40 ms.
const PLACES: usize = 64;
/// Most bytes of a thread's name, with the zero at its end: what the kernel keeps.
const NAME: usize = 16;

const FREE: u8 = 0;
const WRITING: u8 = 1;
const FULL: u8 = 2;

static ENABLED: AtomicBool = AtomicBool::new(false);
static PLACES_MADE: OnceLock<Box<[Place]>> = OnceLock::new();
/// The process's memory as a file, through which a stack can be read to its end and not beyond: a read that meets a
/// page that is not there ends, where a load would crash.
static MEMORY: OnceLock<File> = OnceLock::new();
static MEMORY_FD: AtomicI32 = AtomicI32::new(-1);
static NEXT: AtomicUsize = AtomicUsize::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

/// A thread at one moment.
pub struct Sample {
    /// Where it was.
    pub pc: u64,
    /// What unwinding begins with.
    pub registers: Registers,
    name: [u8; NAME],
    stack: [u8; STACK],
    /// Bytes of `stack` that were read.
    copied: usize,
}

/// The registers that unwinding needs.
#[derive(Clone, Copy)]
pub struct Registers {
    sp: u64,
    fp: u64,
    #[cfg(target_arch = "aarch64")]
    lr: u64,
}

struct Place {
    state: AtomicU8,
    sample: UnsafeCell<Sample>,
}

// SAFETY: `sample` is written only by the one who moved `state` from FREE to WRITING, and read only by the one collector
// while it is FULL.
unsafe impl Sync for Place {}

impl Sample {
    const EMPTY: Self = Self {
        pc: 0,
        registers: Registers {
            sp: 0,
            fp: 0,
            #[cfg(target_arch = "aarch64")]
            lr: 0,
        },
        name: [0; NAME],
        stack: [0; STACK],
        copied: 0,
    };

    /// The thread's name, as the kernel has it: at most 15 bytes.
    pub fn thread(&self) -> String {
        let end = self.name.iter().position(|b| *b == 0).unwrap_or(NAME);
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }

    /// Eight bytes of the stack.
    pub fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.registers.sp)?).ok()?;
        let bytes = self.stack[..self.copied].get(at..at.checked_add(8)?)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    }
}

impl Registers {
    /// As the unwinder wants them.
    pub fn for_unwinding(self, pc: u64) -> UnwindRegsNative {
        #[cfg(target_arch = "x86_64")]
        return UnwindRegsNative::new(pc, self.sp, self.fp);
        #[cfg(target_arch = "aarch64")]
        {
            let _ = pc;
            // Pointers may be signed; user space addresses have 48 bits.
            let mask = framehop::aarch64::PtrAuthMask(0x0000_ffff_ffff_ffff);
            UnwindRegsNative::new_with_ptr_auth_mask(mask, self.lr, self.sp, self.fp)
        }
    }
}

/// Begins: makes the places if there are none, installs the handler, starts the timer.
pub fn start(period: Duration) -> Result<(), ProfileError> {
    let refused = |doing| move |source| ProfileError::Refused { doing, source };
    let memory = match MEMORY.get() {
        Some(memory) => memory,
        None => {
            let memory = File::open("/proc/self/mem").map_err(refused("opening /proc/self/mem"))?;
            MEMORY.get_or_init(|| memory)
        }
    };
    MEMORY_FD.store(memory.as_raw_fd(), Ordering::Relaxed);
    let places = PLACES_MADE.get_or_init(|| {
        let place = || Place {
            state: AtomicU8::new(FREE),
            sample: UnsafeCell::new(Sample::EMPTY),
        };
        std::iter::repeat_with(place).take(PLACES).collect()
    });
    // What a late handler left of the recording before.
    for place in places {
        let _ = place
            .state
            .compare_exchange(FULL, FREE, Ordering::AcqRel, Ordering::Relaxed);
    }
    LOST.store(0, Ordering::Relaxed);
    install().map_err(refused("handling SIGPROF"))?;
    ENABLED.store(true, Ordering::Release);
    set_timer(period).map_err(refused("setting the CPU timer (setitimer)"))
}

/// Ends: no more samples are taken. Handlers that run already may still write.
pub fn stop() {
    ENABLED.store(false, Ordering::Release);
    // A timer that was set can be cleared.
    let _ = set_timer(Duration::ZERO);
}

/// Samples that found no place.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Shows each sample that waits, and makes its place free. Only one thread may call it at a time.
pub fn drain(mut each: impl FnMut(&Sample)) {
    for place in PLACES_MADE.get().into_iter().flatten() {
        if place.state.load(Ordering::Acquire) == FULL {
            // SAFETY: nobody writes while it is FULL, and there is one collector.
            each(unsafe { &*place.sample.get() });
            place.state.store(FREE, Ordering::Release);
        }
    }
}

fn install() -> io::Result<()> {
    // SAFETY: all zeroes is a valid `sigaction`; the handler has the signature that SA_SIGINFO asks for, and does only
    // what may be done in one.
    let installed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        // System calls that were interrupted go on.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut())
    };
    match installed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_timer(period: Duration) -> io::Result<()> {
    let every = libc::timeval {
        tv_sec: 0,
        tv_usec: period.subsec_micros().into(),
    };
    let timer = libc::itimerval {
        it_interval: every,
        it_value: every,
    };
    // SAFETY: both pointers are what setitimer expects.
    let set = unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_signal(
    _signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    if !ENABLED.load(Ordering::Acquire) || context.is_null() {
        return;
    }
    // SAFETY: the address of this thread's errno is always good. What was interrupted must find it as it was.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let was = unsafe { *errno };
    // SAFETY: with SA_SIGINFO the third argument is a `ucontext_t`.
    take(unsafe { &*context.cast::<libc::ucontext_t>() });
    // SAFETY: as above.
    unsafe { *errno = was };
}

/// In the handler.
fn take(context: &libc::ucontext_t) {
    let Some(places) = PLACES_MADE.get() else {
        return;
    };
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % PLACES;
    let Some(place) = places.get(number) else {
        return;
    };
    let claimed = place
        .state
        .compare_exchange(FREE, WRITING, Ordering::Acquire, Ordering::Relaxed);
    if claimed.is_err() {
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    }
    // SAFETY: it is ours since the exchange.
    let sample = unsafe { &mut *place.sample.get() };
    (sample.pc, sample.registers) = registers(context);
    // SAFETY: the kernel writes at most 16 bytes there.
    unsafe { libc::prctl(libc::PR_GET_NAME, sample.name.as_mut_ptr()) };
    // SAFETY: the buffer is as long as is said; the file stays open for as long as the process lives.
    let read = unsafe {
        libc::pread64(
            MEMORY_FD.load(Ordering::Relaxed),
            sample.stack.as_mut_ptr().cast(),
            STACK,
            sample.registers.sp as i64,
        )
    };
    sample.copied = usize::try_from(read).unwrap_or(0);
    place.state.store(FULL, Ordering::Release);
}

#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> (u64, Registers) {
    let all = &context.uc_mcontext.gregs;
    let registers = Registers {
        sp: all[libc::REG_RSP as usize] as u64,
        fp: all[libc::REG_RBP as usize] as u64,
    };
    (all[libc::REG_RIP as usize] as u64, registers)
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> (u64, Registers) {
    let all = &context.uc_mcontext;
    let registers = Registers {
        sp: all.sp,
        fp: all.regs[29],
        lr: all.regs[30],
    };
    (all.pc, registers)
}
