//! Room for one session on a worker.

/// Room for one session on a worker. Dropped, it is given back.
#[must_use = "a slot that is dropped is given back at once"]
pub struct Slot(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Slot {
    /// A slot that is given back by `give_back`, which must not block.
    pub fn new(give_back: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(give_back)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(give_back) = self.0.take() {
            give_back();
        }
    }
}
