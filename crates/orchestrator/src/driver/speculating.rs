//! A reply that the model has begun and that nobody may know of yet.

use duologue_session::Event;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Clauses that are kept back; then the model waits.
pub const KEPT_BACK: usize = 64;

/// Holds back what the model says. Dropping it stops the model.
pub struct Speculating {
    kept: Option<mpsc::Receiver<Event>>,
    cancel: CancellationToken,
}

impl Speculating {
    /// Holds back what comes through `kept`, from a model that `cancel` stops.
    pub fn new(kept: mpsc::Receiver<Event>, cancel: CancellationToken) -> Self {
        Self {
            kept: Some(kept),
            cancel,
        }
    }

    /// Lets go what was kept back and what is still to come; what stops the model.
    pub fn release(mut self, events: mpsc::Sender<Event>) -> CancellationToken {
        let cancel = self.cancel.clone();
        if let Some(mut kept) = self.kept.take() {
            tokio::spawn(async move {
                while let Some(event) = kept.recv().await {
                    if events.send(event).await.is_err() {
                        return; // the session is over
                    }
                }
            });
        }
        cancel
    }
}

impl Drop for Speculating {
    fn drop(&mut self) {
        if self.kept.is_some() {
            self.cancel.cancel();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use duologue_session::{Finish, ReplyId};

    fn ended(reply: u64) -> Event {
        Event::ReplyEnded {
            reply: ReplyId(reply),
            finish: Finish::Stop,
            usage: None,
        }
    }

    #[tokio::test]
    async fn what_was_kept_back_comes_in_order_and_then_the_rest() {
        let (sender, kept) = mpsc::channel(KEPT_BACK);
        let (events, mut told) = mpsc::channel(8);
        sender.send(ended(1)).await.unwrap();
        let cancel = Speculating::new(kept, CancellationToken::new()).release(events);
        sender.send(ended(2)).await.unwrap();
        drop(sender);
        assert_eq!(told.recv().await, Some(ended(1)));
        assert_eq!(told.recv().await, Some(ended(2)));
        assert_eq!(told.recv().await, None);
        assert!(!cancel.is_cancelled());
    }

    #[tokio::test]
    async fn dropping_it_stops_the_model() {
        let (sender, kept) = mpsc::channel::<Event>(KEPT_BACK);
        let cancel = CancellationToken::new();
        drop(Speculating::new(kept, cancel.clone()));
        assert!(cancel.is_cancelled());
        assert!(sender.is_closed());
    }
}
