//! The loop that speaks: a thread for each base, which owns the batch.
//!
//! A session hands in a sentence and is given a [`Ticket`], from which it takes frames as it wants them. The loop goes on
//! while somebody has room for a frame: it keeps a frame or two ahead of each listener and then sits still, so a session
//! that is paused costs nothing. Sentences come and go between passes. What is asked to stop is answered by the ticket,
//! which waits in short bits; the loop sees it between the codes of a frame and drops what nobody waits for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::batch::{Batch, Made, Sentence};
use super::model::Model;
use crate::{StopFlag, TtsError};

/// Frames that wait for their session, besides one that waits for room there.
const LEAD: usize = 1;
/// How often who waits for a frame looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(10);

/// What comes of a sentence.
type Outcome = Result<Made, String>;

/// The loop of a base. Dropping it ends the loop at its next pass.
pub(super) struct Engine(Arc<Desk>);

/// Where sessions and loop meet.
struct Desk {
    counter: Mutex<Counter>,
    bell: Condvar,
}

#[derive(Default)]
struct Counter {
    /// Sentences that are not in the batch yet: one a session at most, so as many as there are sessions.
    joining: Vec<(Client, StopFlag, Sentence)>,
    /// Something has changed since the loop last looked.
    rung: bool,
    closed: bool,
}

/// The loop's end of a ticket.
struct Client {
    outcomes: SyncSender<Outcome>,
    /// What there was no room for.
    waiting: Option<Outcome>,
    /// Nothing follows what waits.
    over: bool,
}

/// A session's claim to the frames of its sentence. Dropping it takes the sentence out of the batch.
pub(super) struct Ticket {
    outcomes: Receiver<Outcome>,
    gone: StopFlag,
    desk: Arc<Desk>,
}

impl Engine {
    /// Starts the loop, which computes in `pool`.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(super) fn start(
        model: Arc<Model>,
        pool: Arc<rayon::ThreadPool>,
    ) -> Result<Self, std::io::Error> {
        let desk = Arc::new(Desk {
            counter: Mutex::default(),
            bell: Condvar::new(),
        });
        let own = Arc::clone(&desk);
        std::thread::Builder::new()
            .name("csm".to_owned())
            .spawn(move || run(&own, Batch::new(model), &pool))?;
        Ok(Engine(desk))
    }

    /// Hands a sentence in.
    pub(super) fn speak(&self, sentence: Sentence) -> Ticket {
        let (outcomes, taken) = sync_channel(LEAD);
        let gone = StopFlag::default();
        let client = Client {
            outcomes,
            waiting: None,
            over: false,
        };
        self.0.change(|counter| {
            // Where the loop has ended, the ticket finds out.
            if !counter.closed {
                counter.joining.push((client, gone.clone(), sentence));
            }
        });
        Ticket {
            outcomes: taken,
            gone,
            desk: Arc::clone(&self.0),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.0.change(|counter| counter.closed = true);
    }
}

impl Ticket {
    /// What comes next of the sentence; blocks until it is there.
    ///
    /// # Errors
    /// [`TtsError::Stopped`] soon after the stop was asked for, whatever the loop is at.
    pub(super) fn next(&self, stop: &StopFlag) -> Result<Made, TtsError> {
        loop {
            stop.check()?;
            match self.outcomes.recv_timeout(LOOK) {
                Ok(outcome) => {
                    self.desk.change(|_| {});
                    return outcome.map_err(TtsError::Engine);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(TtsError::Engine("it let go of the sentence".to_owned()));
                }
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gone.stop();
        self.desk.change(|_| {});
    }
}

impl Desk {
    /// Changes something and lets the loop know.
    fn change(&self, change: impl FnOnce(&mut Counter)) {
        let mut counter = self.lock();
        change(&mut counter);
        counter.rung = true;
        self.bell.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Counter> {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who join; `None` when the loop is to end. Waits for a change where the loop has `nothing` to do.
    fn look(&self, nothing: bool) -> Option<Vec<(Client, StopFlag, Sentence)>> {
        let mut counter = self.lock();
        while nothing && !counter.rung && !counter.closed {
            counter = self
                .bell
                .wait(counter)
                .unwrap_or_else(PoisonError::into_inner);
        }
        counter.rung = false;
        (!counter.closed).then(|| std::mem::take(&mut counter.joining))
    }
}

impl Client {
    /// Sends on what waits, as far as there is room; false when there is nothing more to be done for it.
    fn settle(&mut self) -> bool {
        let Some(outcome) = self.waiting.take() else {
            return !self.over;
        };
        match self.outcomes.try_send(outcome) {
            Ok(()) => !self.over,
            Err(TrySendError::Full(outcome)) => {
                self.waiting = Some(outcome);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    fn give(&mut self, outcome: Outcome) {
        self.over = outcome.as_ref().map_or(true, |made| made.over.is_some());
        self.waiting = Some(outcome);
    }
}

/// Whoever waits is let go when the loop ends, however it does.
struct Sitting<'a>(&'a Desk);

impl Drop for Sitting<'_> {
    fn drop(&mut self) {
        self.0.change(|counter| {
            counter.closed = true;
            counter.joining.clear();
        });
    }
}

fn run(desk: &Desk, mut batch: Batch<Client>, pool: &rayon::ThreadPool) {
    let _sitting = Sitting(desk);
    // Those who left the batch and have not been told all of it.
    let mut leaving: Vec<Client> = Vec::new();
    let mut nothing = true;
    while let Some(joining) = desk.look(nothing) {
        for (client, gone, sentence) in joining {
            batch.join(client, gone, sentence);
        }
        leaving.retain_mut(Client::settle);
        batch.retain(|row| !row.gone.is_set() && row.whose.settle());
        nothing = !batch.choose(|client| client.waiting.is_none());
        if nothing {
            continue;
        }
        let pass = || pool.install(|| batch.pass(|client, made| client.give(Ok(made))));
        // A crash is that of whoever is in the pass, as it would be if each had a loop of their own.
        let why = match catch_unwind(AssertUnwindSafe(pass)) {
            Ok(Ok(over)) => {
                leaving.extend(over);
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it crashed".to_owned(),
        };
        leaving.extend(batch.fail().into_iter().map(|mut client| {
            client.give(Err(why.clone()));
            client
        }));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::model::Step;
    use super::super::parity::{MODEL, codes, prompt_steps};
    use super::*;
    use crate::neural::Sampling;

    fn engine() -> Engine {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        Engine::start(Arc::clone(&MODEL), Arc::new(pool.unwrap())).unwrap()
    }

    fn sentence(room: usize) -> Sentence {
        Sentence {
            memory: MODEL.memory(room).unwrap(),
            unread: prompt_steps().into(),
            lora: None,
            sampling: Sampling::Greedy,
            random: StdRng::seed_from_u64(7),
            decoder: MODEL.codec().decoder(),
            limit: 12,
        }
    }

    /// All frames of a sentence, and what it left unread.
    fn hear(ticket: &Ticket) -> (Vec<Vec<u32>>, Vec<Step>) {
        let never = StopFlag::default();
        let mut said = Vec::new();
        loop {
            let made = ticket.next(&never).unwrap();
            said.extend(made.frame.map(|frame| frame.codes));
            if let Some(left) = made.over {
                return (said, left.unread);
            }
        }
    }

    #[test]
    fn sessions_take_their_frames_each_at_its_own_pace() {
        let engine = engine();
        let never = StopFlag::default();
        let (quick, slow) = (engine.speak(sentence(100)), engine.speak(sentence(100)));
        let first = slow.next(&never).unwrap().frame.unwrap();
        let (said, unread) = hear(&quick);
        assert_eq!(said, codes("frames"));
        assert_eq!(unread, [Step::Frame(said[11].clone())], "its last frame");
        let (rest, _) = hear(&slow);
        assert_eq!([vec![first.codes], rest].concat(), codes("frames"));
    }

    #[test]
    fn a_sentence_that_fails_is_told_why_and_the_next_is_spoken() {
        let engine = engine();
        let broken = engine.speak(sentence(3));
        let told = broken.next(&StopFlag::default()).err().unwrap();
        assert!(told.to_string().contains("do not fit"), "{told}");
        assert_eq!(hear(&engine.speak(sentence(100))).0, codes("frames"));
    }

    #[test]
    fn a_stop_is_answered_though_the_loop_does_not() {
        // A desk that nobody sits at.
        let desk = Arc::new(Desk {
            counter: Mutex::default(),
            bell: Condvar::new(),
        });
        let engine = Engine(Arc::clone(&desk));
        let ticket = engine.speak(sentence(100));
        let stop = StopFlag::default();
        std::thread::scope(|scope| {
            scope.spawn(|| stop.stop());
            assert!(matches!(ticket.next(&stop), Err(TtsError::Stopped)));
        });
        let gone = desk.lock().joining[0].1.clone();
        assert!(!gone.is_set());
        drop(ticket);
        assert!(gone.is_set(), "nobody waits for it any more");
    }

    #[test]
    fn an_engine_that_is_let_go_lets_go_of_its_sentences() {
        let engine = engine();
        let begun = engine.speak(sentence(100));
        begun.next(&StopFlag::default()).unwrap();
        let waiting = engine.speak(sentence(100));
        drop(engine);
        for ticket in [begun, waiting] {
            let mut told = ticket.next(&StopFlag::default());
            while told.is_ok() {
                told = ticket.next(&StopFlag::default());
            }
            assert!(matches!(told, Err(TtsError::Engine(_))));
        }
    }
}
