//! What must hold of every session whatever happens.

use duologue_session::{Action, ItemId, Notice, ReplyId, Session, State, TRANSITIONS};
use std::collections::{HashMap, HashSet};

#[derive(Default, Debug)]
struct Reply {
    prompted: bool,
    stopped: bool,
    done: bool,
    clauses: u32,
    end_of_speech: bool,
    open_items: HashSet<ItemId>,
    paused: bool,
}

#[derive(Default)]
pub struct Checker {
    replies: HashMap<ReplyId, Reply>,
    newest: Option<ReplyId>,
    speculated: Option<ReplyId>,
    state: Option<State>,
    speaking: Option<ItemId>,
    items: HashSet<ItemId>,
    closed: bool,
}

impl Checker {
    /// A frame leaves for the client.
    pub fn frame(&mut self, reply: ReplyId) {
        let known = self
            .replies
            .get(&reply)
            .unwrap_or_else(|| panic!("a frame of the unknown reply {reply}"));
        assert!(
            !known.stopped && !known.done,
            "a stale frame of reply {reply} reaches the user"
        );
    }

    pub fn check(&mut self, action: &Action) {
        assert!(!self.closed, "{action:?} after Close");
        match action {
            Action::Speculate { reply, .. } => {
                assert_eq!(self.speculated, None, "two speculations at once");
                assert!(
                    self.newest < Some(*reply),
                    "{action:?} of a reply that is there"
                );
                self.speculated = Some(*reply);
            }
            Action::CancelSpeculation { reply } => {
                assert_eq!(self.speculated.take(), Some(*reply), "{action:?}");
            }
            Action::Prompt {
                reply, speculated, ..
            } => {
                let begun = self.speculated.take();
                assert_eq!(begun, speculated.then_some(*reply), "{action:?}");
                let known = self.live(*reply, action);
                assert!(!known.prompted, "reply {reply} is prompted twice");
                known.prompted = true;
            }
            Action::CancelPrompt { reply } => assert!(self.live(*reply, action).prompted),
            Action::Speak {
                reply,
                clause,
                text,
            } => {
                let known = self.live(*reply, action);
                assert!(!known.end_of_speech, "{action:?} after EndSpeech");
                assert_eq!(*clause, known.clauses, "clauses are numbered without gaps");
                assert!(!text.trim().is_empty(), "nothing to say");
                known.clauses += 1;
            }
            Action::EndSpeech { reply } => {
                let known = self.live(*reply, action);
                assert!(!known.end_of_speech && known.clauses > 0);
                known.end_of_speech = true;
            }
            Action::Pause { reply } => {
                let known = self.live(*reply, action);
                assert!(!known.paused, "paused twice");
                assert!(known.clauses > 0, "nothing to pause");
                known.paused = true;
            }
            Action::Resume { reply, .. } => {
                let known = self.live(*reply, action);
                assert!(known.clauses > 0, "nothing to resume");
                known.paused = false;
            }
            Action::Duck { reply } => assert!(!self.live(*reply, action).paused),
            Action::Stop { reply } => {
                let known = self.live(*reply, action);
                assert!(known.clauses > 0, "nothing to stop");
                known.stopped = true;
            }
            Action::Emit(notice) => self.notice(notice),
            Action::Close { .. } => {
                assert_eq!(self.state, Some(State::Ended));
                self.closed = true;
            }
            Action::Transcribe { from, to, .. } => assert!(from <= to, "{action:?}"),
            Action::JudgeEndOfTurn { .. } | Action::CancelTranscribe { .. } => {}
        }
    }

    fn live(&mut self, reply: ReplyId, why: &dyn std::fmt::Debug) -> &mut Reply {
        let known = self
            .replies
            .get_mut(&reply)
            .unwrap_or_else(|| panic!("{why:?}: unknown reply"));
        assert!(!known.done && !known.stopped, "stale: {why:?}");
        known
    }

    fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::StateChanged { from, to } => {
                assert_eq!(*from, self.state.unwrap_or(State::WaitingForInput));
                assert!(
                    TRANSITIONS.iter().any(|(a, _, b)| (a, b) == (from, to)),
                    "{notice:?} is not in the table"
                );
                self.state = Some(*to);
            }
            Notice::SpeechStarted { item, .. } => {
                assert_eq!(self.speaking, None, "{notice:?} while speech goes on");
                self.speaking = Some(item.clone());
            }
            Notice::SpeechStopped { item, .. } => {
                assert_eq!(
                    self.speaking.take().as_ref(),
                    Some(item),
                    "{notice:?} without its start"
                );
            }
            Notice::ItemAdded { item, .. } => {
                assert!(
                    self.items.insert(item.id.clone()),
                    "{notice:?}: there already"
                );
            }
            Notice::ItemDone { item, .. } | Notice::ItemRetrieved { item } => {
                assert!(self.items.contains(&item.id), "{notice:?}: unknown item");
            }
            Notice::ItemDeleted { item } => {
                assert!(self.items.remove(item), "{notice:?}: unknown item")
            }
            Notice::ReplyCreated { reply, .. } => {
                assert!(self.newest < Some(*reply), "replies are numbered upwards");
                assert!(
                    self.replies.values().all(|reply| reply.done),
                    "two replies at once"
                );
                self.newest = Some(*reply);
                self.replies.insert(*reply, Reply::default());
            }
            Notice::ReplyItemAdded { reply, item, .. } => {
                self.told_in_time(*reply, notice)
                    .open_items
                    .insert(item.id.clone());
            }
            Notice::ReplyItemDone { reply, item, .. } => {
                assert!(
                    self.told_in_time(*reply, notice)
                        .open_items
                        .remove(&item.id),
                    "{notice:?}: not open"
                );
            }
            Notice::ReplyTranscriptDelta { reply, item, .. }
            | Notice::ReplyTextDelta { reply, item, .. }
            | Notice::ReplyAudioDone { reply, item }
            | Notice::ReplyTranscriptDone { reply, item, .. }
            | Notice::ReplyFunctionCall { reply, item, .. } => {
                assert!(
                    self.told_in_time(*reply, notice).open_items.contains(item),
                    "{notice:?}: item is not open"
                );
            }
            Notice::PlaybackStarted { reply }
            | Notice::PlaybackCleared { reply }
            | Notice::InterruptionSuspected { reply, .. }
            | Notice::InterruptionConfirmed { reply, .. }
            | Notice::InterruptionRetracted { reply, .. } => {
                self.told_in_time(*reply, notice);
            }
            Notice::ReplyDone(outcome) => {
                let known = self.told_in_time(outcome.reply, notice);
                assert!(known.open_items.is_empty(), "{notice:?}: items are open");
                known.done = true;
            }
            _ => {}
        }
    }

    fn told_in_time(&mut self, reply: ReplyId, notice: &Notice) -> &mut Reply {
        let known = self
            .replies
            .get_mut(&reply)
            .unwrap_or_else(|| panic!("{notice:?} before ReplyCreated"));
        assert!(!known.done, "{notice:?} after ReplyDone");
        known
    }

    pub fn check_session(&self, session: &Session) {
        assert_eq!(
            session.counters().defects,
            0,
            "a defect in {:?}",
            session.state()
        );
        assert_eq!(
            session.state(),
            self.state.unwrap_or(State::WaitingForInput)
        );
        match session.state() {
            State::Ended => assert!(self.closed, "ended without Close"),
            State::Speaking | State::BargedIn => {
                assert!(
                    session.reply().is_some(),
                    "{:?} without a reply",
                    session.state()
                );
                assert!(
                    session.deadline().is_some(),
                    "nothing would end {:?}",
                    session.state()
                );
            }
            State::Thinking | State::Listening => {
                assert!(
                    session.deadline().is_some(),
                    "nothing would end {:?}",
                    session.state()
                );
            }
            State::WaitingForInput => {}
        }
    }
}
