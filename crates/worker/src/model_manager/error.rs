//! Why a voice cannot be had or let go, in words.

use super::residency::{Bound, Hold, NoRoom};

/// Why a voice cannot be had or let go.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelError {
    /// No voice of that name.
    #[error("no voice {name:?} on this worker; it has {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The voice is there and does not load.
    #[error("voice {name} cannot be loaded: {reason}")]
    Load {
        /// The voice.
        name: String,
        /// What its adapter said.
        reason: String,
    },
    /// The load takes too long; it goes on.
    #[error("voice {name} is still loading after {seconds} s; try again later")]
    Slow {
        /// The voice.
        name: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Sessions use it.
    #[error("voice {name} is used by {sessions} session(s); end them first")]
    InUse {
        /// The voice.
        name: String,
        /// How many.
        sessions: usize,
    },
    /// It is being loaded.
    #[error("voice {name} is being loaded; unload it when that is done")]
    Loading {
        /// The voice.
        name: String,
    },
    /// There is no room for it within the worker's bounds.
    #[error("there is no room for voice {name}: {bound}; {remedy}")]
    NoRoom {
        /// The voice.
        name: String,
        /// The bound, and what the voice needs of it.
        bound: String,
        /// What would have to go.
        remedy: String,
    },
    /// The list of voices could not be read.
    #[error("the voices cannot be listed: {0}")]
    List(String),
}

impl ModelError {
    pub(super) fn no_room(name: &str, no_room: &NoRoom) -> Self {
        let (bound, raise) = match no_room.bound {
            Bound::Voices(1) => (
                "this worker keeps 1 voice at a time".to_owned(),
                "max-resident",
            ),
            Bound::Voices(max) => (
                format!("this worker keeps {max} voices at a time"),
                "max-resident",
            ),
            Bound::Memory { limit, needed } => (
                format!(
                    "it takes {} MB, and voices may take {} MB in all",
                    megabytes(needed),
                    megabytes(limit)
                ),
                "memory-limit",
            ),
        };
        let held = no_room.must_go.iter().map(|(name, hold)| match hold {
            Hold::Kept => format!("{name} (kept: default or preloaded)"),
            Hold::Used(1) => format!("{name} (used by 1 session)"),
            Hold::Used(n) => format!("{name} (used by {n} sessions)"),
            Hold::Loading => format!("{name} (being loaded)"),
        });
        let held: Vec<String> = held.collect();
        let remedy = match held.as_slice() {
            [] => format!("it never fits: raise {raise}"),
            held => format!("{} would have to go, or raise {raise}", held.join(", ")),
        };
        ModelError::NoRoom {
            name: name.to_owned(),
            bound,
            remedy,
        }
    }
}

/// Rounded up, so that what is refused never looks as if it fitted.
fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}
