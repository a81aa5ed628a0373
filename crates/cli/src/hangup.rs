//! SIGHUP: somebody wants the configuration to be read again, or the terminal was closed.

/// What a SIGHUP means.
pub enum Hangup {
    /// The configuration is to be read again.
    Reload,
    /// The terminal is gone at which the process was started.
    TerminalClosed,
}

/// The SIGHUPs of this process, which do not end it any more.
pub struct Hangups {
    #[cfg(unix)]
    signals: Option<tokio::signal::unix::Signal>,
    #[cfg(unix)]
    at_terminal: bool,
}

#[cfg(unix)]
impl Hangups {
    /// Watches for them from now on.
    pub fn watch() -> Self {
        use std::io::IsTerminal as _;
        use tokio::signal::unix::{SignalKind, signal};
        let signals = signal(SignalKind::hangup());
        let signals = signals
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP cannot be watched"))
            .ok();
        Self {
            signals,
            at_terminal: std::io::stdin().is_terminal(),
        }
    }

    /// The next one.
    pub async fn next(&mut self) -> Hangup {
        use std::io::IsTerminal as _;
        let Some(signals) = &mut self.signals else {
            return std::future::pending().await;
        };
        signals.recv().await;
        // A terminal that was closed is none any more.
        match self.at_terminal && !std::io::stdin().is_terminal() {
            true => Hangup::TerminalClosed,
            false => Hangup::Reload,
        }
    }
}

#[cfg(not(unix))]
impl Hangups {
    /// There are none here.
    pub fn watch() -> Self {
        Self {}
    }

    /// Never comes.
    pub async fn next(&mut self) -> Hangup {
        std::future::pending().await
    }
}
