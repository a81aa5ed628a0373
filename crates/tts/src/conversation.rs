//! What a voice keeps of a session from one reply to the next.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex};

/// A session's place for what its voice keeps between replies, so that the next goes on from the last.
///
/// Whoever holds the session holds one of these for as long, and gives it to each reply
/// ([`Synthesizer::begin_in`](crate::Synthesizer::begin_in)); what is in it only the voice knows. Clones are one place.
/// A voice finds in it what it put there and nothing else: after a change of voice it is as if it were empty.
#[derive(Clone, Default)]
#[cfg_attr(
    not(feature = "csm"),
    expect(dead_code, reason = "no other voice keeps anything")
)]
pub struct Conversation(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

#[cfg(feature = "csm")]
impl Conversation {
    /// Takes out what was put there, if it is a `T`; else it is dropped.
    pub(crate) fn take<T: Any>(&self) -> Option<T> {
        let kept = self.lock().take()?;
        kept.downcast().ok().map(|kept| *kept)
    }

    /// Puts something there, in place of what was.
    pub(crate) fn put<T: Any + Send>(&self, kept: T) {
        *self.lock() = Some(Box::new(kept));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Conversation")
    }
}
