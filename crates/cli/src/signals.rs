//! Signals of a process that serves: SIGINT and SIGTERM end it, SIGHUP has its configuration read again, or says that
//! the terminal was closed.
//!
//! They are watched from the first moment on, before models are loaded: the first process of a container (PID 1)
//! ignores a signal that it does not handle. One that comes before it is asked for waits.

use tokio_util::sync::CancellationToken;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Somebody wants the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT: a person who waits for it.
    Interrupt,
    /// SIGTERM: who sends it has time.
    Terminate,
}

impl Stop {
    /// What a process returns that such a signal has ended at once.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// The SIGINTs and SIGTERMs of this process, which do not end it any more.
pub struct Stops {
    #[cfg(unix)]
    interrupts: Option<Signal>,
    #[cfg(unix)]
    terminations: Option<Signal>,
}

/// The SIGHUPs of this process, which do not end it any more.
pub struct Hangups {
    #[cfg(unix)]
    signals: Option<Signal>,
    #[cfg(unix)]
    at_terminal: bool,
}

/// What a SIGHUP means.
enum Hangup {
    /// The configuration is to be read again.
    Reload,
    /// The terminal is gone at which the process was started.
    TerminalClosed,
}

#[cfg(unix)]
fn watched(kind: SignalKind, name: &str) -> Option<Signal> {
    signal(kind)
        .inspect_err(|error| tracing::warn!(%error, "{name} cannot be watched"))
        .ok()
}

#[cfg(unix)]
async fn next_of(signals: &mut Option<Signal>) {
    match signals {
        Some(signals) => {
            signals.recv().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(unix)]
impl Stops {
    /// Watches for them from now on.
    pub fn watch() -> Self {
        Self {
            interrupts: watched(SignalKind::interrupt(), "SIGINT"),
            terminations: watched(SignalKind::terminate(), "SIGTERM"),
        }
    }

    /// The next one.
    pub async fn next(&mut self) -> Stop {
        tokio::select! {
            () = next_of(&mut self.interrupts) => Stop::Interrupt,
            () = next_of(&mut self.terminations) => Stop::Terminate,
        }
    }
}

#[cfg(unix)]
impl Hangups {
    /// Watches for them from now on.
    pub fn watch() -> Self {
        use std::io::IsTerminal as _;
        Self {
            signals: watched(SignalKind::hangup(), "SIGHUP"),
            at_terminal: std::io::stdin().is_terminal(),
        }
    }

    async fn next(&mut self) -> Hangup {
        use std::io::IsTerminal as _;
        next_of(&mut self.signals).await;
        // A terminal that was closed is none any more.
        match self.at_terminal && !std::io::stdin().is_terminal() {
            true => Hangup::TerminalClosed,
            false => Hangup::Reload,
        }
    }
}

#[cfg(not(unix))]
impl Stops {
    /// Watches for them from now on.
    pub fn watch() -> Self {
        Self {}
    }

    /// The next one.
    pub async fn next(&mut self) -> Stop {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Stop::Interrupt,
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(not(unix))]
impl Hangups {
    /// There are none here.
    pub fn watch() -> Self {
        Self {}
    }

    async fn next(&mut self) -> Hangup {
        std::future::pending().await
    }
}

impl Hangups {
    /// Calls `reload` at every one, where it may read files, until `shutdown`; cancels that where the terminal was
    /// closed.
    pub async fn reload(
        mut self,
        shutdown: CancellationToken,
        mut reload: impl FnMut() + Send + 'static,
    ) {
        loop {
            let hangup = tokio::select! {
                hangup = self.next() => hangup,
                () = shutdown.cancelled() => return,
            };
            match hangup {
                Hangup::Reload => {
                    let reloaded = tokio::task::spawn_blocking(move || {
                        reload();
                        reload
                    });
                    match reloaded.await {
                        Ok(again) => reload = again,
                        Err(error) => {
                            tracing::error!(%error, "nothing is reloaded, now and later");
                            return;
                        }
                    }
                }
                Hangup::TerminalClosed => {
                    tracing::info!("stopping: the terminal was closed");
                    shutdown.cancel();
                }
            }
        }
    }
}
