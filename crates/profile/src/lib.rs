//! Where a running process spends its CPU time: a profile of a few seconds, for pprof, Speedscope and other viewers, or
//! drawn as a flame graph.
//!
//! A timer of the process's CPU time sends SIGPROF about a hundred times a second to a thread that is computing. Its
//! handler only copies registers and the top of the stack into a place that was made before: it takes no lock, asks for
//! no memory and unwinds nothing, so it does no harm in the middle of an allocation, of a C++ exception or of the
//! dynamic linker. A thread of our own unwinds the copies with the tables that exceptions use (`.eh_frame`), which Rust
//! and C++ have both, in release builds too. Names come from the symbol table; what was inlined shows as the function
//! it was inlined into.
//!
//! Linux on x86-64 and aarch64; elsewhere [`record`] says that it cannot.

mod flame_graph;
mod pprof;
mod profile;

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod collector;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod modules;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod sampler;

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub use collector::{Recording, record};
pub use profile::{Profile, Stack};

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// One is being recorded.
    #[error("a profile is being recorded already; wait for its end")]
    Busy,
    /// The system does not let the process look at itself.
    #[error("the system does not let this process be profiled: {doing}")]
    Refused {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The thread that takes samples is gone.
    #[error("the samples were lost: the thread that takes them has panicked")]
    Lost,
    /// Not this system.
    #[error("a profile can be taken on Linux, x86-64 or aarch64, only")]
    Unsupported,
}

/// Not on this system.
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod unsupported {
    use crate::{Profile, ProfileError};

    /// There are none.
    pub struct Recording(std::convert::Infallible);

    /// Says that it cannot.
    ///
    /// # Errors
    /// [`ProfileError::Unsupported`].
    pub fn record() -> Result<Recording, ProfileError> {
        Err(ProfileError::Unsupported)
    }

    impl Recording {
        /// There are none.
        #[must_use]
        pub fn samples(&self) -> u64 {
            match self.0 {}
        }

        /// There is none.
        ///
        /// # Errors
        /// None: it cannot be called.
        pub fn finish(self) -> Result<Profile, ProfileError> {
            match self.0 {}
        }
    }
}
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
pub use unsupported::{Recording, record};
