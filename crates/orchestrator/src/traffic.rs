//! What one client's connection carries, counted while it lives: bytes, and gaps in the sound.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use duologue_metrics::table;

/// Counts one connection. What it came to is recorded when the last holder drops it.
#[derive(Debug)]
pub(crate) struct Traffic {
    transport: &'static str,
    received: AtomicU64,
    sent: AtomicU64,
    underruns: AtomicU64,
    /// The client tells of its playout.
    reports: AtomicBool,
}

impl Traffic {
    /// Nothing yet, over this transport.
    pub fn new(transport: &'static str) -> Self {
        // There from the start, so that its growth is seen.
        table::UNDERRUNS.add_for(transport, 0);
        Self {
            transport,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            underruns: AtomicU64::new(0),
            reports: AtomicBool::new(false),
        }
    }

    /// Bytes came.
    pub fn receive(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.received.fetch_add(bytes, Ordering::Relaxed);
        table::RECEIVED.add_for(self.transport, bytes);
    }

    /// Bytes went.
    pub fn send(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        table::SENT.add_for(self.transport, bytes);
    }

    /// The sound of a reply left too late to be heard without a gap. Not counted where the client tells of its gaps.
    pub fn late(&self) {
        if !self.reports.load(Ordering::Relaxed) {
            self.ran_dry();
        }
    }

    /// By what the client has told, it had a gap.
    pub fn ran_dry(&self) {
        self.underruns.fetch_add(1, Ordering::Relaxed);
        table::UNDERRUNS.count_for(self.transport);
    }

    /// The client tells of its playout: it knows better than we do.
    pub fn reports(&self) {
        self.reports.store(true, Ordering::Relaxed);
    }

    /// Gaps so far.
    pub fn underruns(&self) -> u64 {
        self.underruns.load(Ordering::Relaxed)
    }

    /// Bytes that came and that went.
    pub fn so_far(&self) -> (u64, u64) {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (now(&self.received), now(&self.sent))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let (received, sent) = self.so_far();
        table::SESSION_RECEIVED.record_value(received as f64);
        table::SESSION_SENT.record_value(sent as f64);
    }
}
