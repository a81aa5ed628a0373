//! One worker process a device, kept alive.
//!
//! A child that ends is started again, after a pause that grows while it keeps ending soon. Each holds the reading
//! end of a pipe whose other end is held here: when that closes, because the supervisor was told to stop or because
//! it died in whatever way, the child finishes what it says and ends. So no child outlives its supervisor, and no
//! port stays taken.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use duologue_registry::Backoff;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::devices::Device;

/// Tells a child which of the devices is its own, counted from 0.
pub const INDEX: &str = "DUOLOGUE_WORKER_INDEX";

/// A child is given this long to end beyond the time it takes to drain.
const GRACE: Duration = Duration::from_secs(10);

/// When a child that ended is started again.
#[derive(Debug)]
struct Restarts {
    backoff: Backoff,
    was_ready: bool,
}

/// What to do about a child that ended.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// Start it again after this time.
    Restart(Duration),
    /// It cannot work: it never has.
    GiveUp,
}

impl Restarts {
    /// The first pause is at most a second, the longest half a minute.
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(30);
    /// Who ran for so long has recovered.
    const SETTLED: Duration = Duration::from_secs(60);

    fn new() -> Self {
        Self {
            backoff: Backoff::new(Self::FIRST, Self::LONGEST),
            was_ready: false,
        }
    }

    /// It ended after `ran_for`, having been ready or not. `draw` is random, 0 to 1.
    fn ended(&mut self, ready: bool, ran_for: Duration, draw: f64) -> Verdict {
        self.was_ready |= ready;
        if !self.was_ready {
            return Verdict::GiveUp;
        }
        if ran_for >= Self::SETTLED {
            self.backoff.reset();
        }
        Verdict::Restart(self.backoff.next(draw))
    }
}

/// Runs this command line once for each device, until `shutdown`; then waits as long as children may take to
/// `drain`.
///
/// # Errors
/// A device that is not there, or a child that ends without ever having been ready.
pub async fn run(
    devices: &[Device],
    drain: Duration,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    for device in devices {
        device.check()?;
    }
    // Found now: later the file may have been replaced by a newer version, which is then the one to start.
    let program = std::env::current_exe().context("this program does not find itself")?;
    let stop = shutdown.child_token();
    let mut slots = JoinSet::new();
    for (index, device) in devices.iter().enumerate() {
        let slot = Slot {
            program: program.clone(),
            index,
            device: device.clone(),
            drain,
            stop: stop.clone(),
        };
        slots.spawn(slot.keep());
    }
    let mut outcome = Ok(());
    while let Some(ended) = slots.join_next().await {
        let ended = ended.context("a supervising task failed")?;
        if outcome.is_ok() && ended.is_err() {
            outcome = ended;
        }
        stop.cancel();
    }
    outcome
}

/// The place of one child.
struct Slot {
    program: PathBuf,
    index: usize,
    device: Device,
    drain: Duration,
    stop: CancellationToken,
}

impl Slot {
    async fn keep(self) -> anyhow::Result<()> {
        let device = &self.device;
        let mut restarts = Restarts::new();
        loop {
            let started = Instant::now();
            let mut child = self.spawn()?;
            let (status, ready) = self.watch(&mut child).await?;
            if self.stop.is_cancelled() {
                return Ok(());
            }
            let ran_for = started.elapsed();
            match restarts.ended(ready, ran_for, rand::random()) {
                Verdict::GiveUp => {
                    bail!("the worker on {device} ended before it was ready ({status}); see above")
                }
                Verdict::Restart(pause) => {
                    tracing::warn!(
                        %device, %status, pause_ms = pause.as_millis(),
                        "a worker ended after {} s and is started again", ran_for.as_secs()
                    );
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.stop.cancelled() => return Ok(()),
                    }
                }
            }
        }
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .args(std::env::args_os().skip(1))
            .env(INDEX, self.index.to_string())
            .envs(self.device.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        command
            .spawn()
            .with_context(|| format!("cannot start a worker on {}", self.device))
    }

    /// Passes on what a child prints until it ends; ends it when told to. Also whether it was ready.
    async fn watch(&self, child: &mut Child) -> anyhow::Result<(ExitStatus, bool)> {
        let mut ready = false;
        let pipe = child.stdin.take();
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        let print = async {
            if let Some(mut lines) = lines {
                while let Ok(Some(line)) = lines.next_line().await {
                    // It prints nothing else.
                    ready = true;
                    super::say(&line);
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = print => {}
            status = child.wait() => return Ok((status?, ready)),
        }
        drop(pipe);
        let status = match tokio::time::timeout(self.drain + GRACE, child.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                tracing::warn!(device = %self.device, "a worker does not end and is killed");
                child.kill().await?;
                child.wait().await?
            }
        };
        Ok((status, ready))
    }
}

/// This process's place among the children of a supervisor, if it is one.
pub fn index() -> Option<usize> {
    std::env::var(INDEX).ok()?.parse().ok()
}

/// In a child: cancels `shutdown` when the supervisor closes the pipe or has died.
pub async fn orphaned(shutdown: CancellationToken) {
    use tokio::io::AsyncReadExt as _;
    let mut nothing = [0u8; 64];
    let mut pipe = tokio::io::stdin();
    // Nothing is ever written to it.
    while matches!(pipe.read(&mut nothing).await, Ok(1..)) {}
    shutdown.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONG: Duration = Duration::from_secs(3_600);
    const SHORT: Duration = Duration::from_millis(10);

    #[test]
    fn what_never_worked_is_given_up_and_what_did_is_not() {
        assert_eq!(Restarts::new().ended(false, LONG, 0.5), Verdict::GiveUp);
        let mut restarts = Restarts::new();
        assert!(matches!(
            restarts.ended(true, SHORT, 0.5),
            Verdict::Restart(_)
        ));
        for _ in 0..100 {
            let again = restarts.ended(false, SHORT, 0.5);
            assert!(matches!(again, Verdict::Restart(_)), "{again:?}");
        }
    }

    #[test]
    fn pauses_grow_while_it_keeps_ending_and_are_short_after_it_ran_well() {
        let mut restarts = Restarts::new();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pauses.push(restarts.ended(true, SHORT, 1.0));
        }
        let seconds = [1, 2, 4, 8, 16, 30, 30, 30];
        let expected = seconds.map(|s| Verdict::Restart(Duration::from_secs(s)));
        assert_eq!(pauses, expected);
        assert_eq!(
            restarts.ended(true, LONG, 1.0),
            Verdict::Restart(Restarts::FIRST)
        );
    }

    proptest! {
        /// A day of crashes at random moments: no pause is longer than the longest, and a child that crashes at
        /// once is not started more than a few thousand times.
        #[test]
        fn a_day_of_crashes_is_no_storm(crashes in prop::collection::vec((0u64..100, 0.0f64..1.0), 5_000)) {
            let mut restarts = Restarts::new();
            let mut now = Duration::ZERO;
            let mut starts = 0;
            for (ran_ms, draw) in crashes {
                let ran_for = Duration::from_millis(ran_ms);
                let Verdict::Restart(pause) = restarts.ended(true, ran_for, draw) else {
                    panic!("it was ready");
                };
                prop_assert!(pause <= Restarts::LONGEST && pause >= Restarts::FIRST / 4);
                now += ran_for + pause;
                starts += 1;
                if now > Duration::from_secs(86_400) {
                    break;
                }
            }
            // 15 s between two in the mean.
            prop_assert!(now.as_secs_f64() / f64::from(starts) > 10.0, "{starts} starts in {now:?}");
        }
    }
}
