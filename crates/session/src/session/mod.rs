//! The session: one value that owns all of a conversation's state. This file has what everything shares; each
//! concern has its own: hearing the user, weighing an interruption, making a reply, serving the client, ending,
//! and the timers that see to it that nothing lasts for ever.

mod barging;
mod client;
mod committing;
mod ending;
mod finishing;
mod hearing;
mod reply;
mod replying;
mod sounding;
mod speculating;
mod timers;
mod turn;

use crate::conversation::Conversation;
use crate::ledger::Ledger;
use crate::turns::silence::Patience;
use crate::{
    Action, Config, Content, EndReason, ErrorCode, Event, Item, ItemId, ItemKind, ItemStatus,
    Notice, ReplyId, ReplyPatch, Role, State, Trigger, TurnDetection, TurnId,
};
use ending::Ending;
use reply::Reply;
use serde::{Deserialize, Serialize};
use speculating::Speculated;
use std::collections::VecDeque;
use std::time::Duration;
use turn::{Awaited, Turn};

/// Actions that may lie unpolled. A driver polls until `None` after each event and stays far below; one that does
/// not loses its session ([`crate::EndReason::Overrun`]).
pub const MAX_QUEUED: usize = 4_096;
/// Committed messages whose words may be awaited at once; beyond, the oldest is given up.
const MAX_AWAITED: usize = 16;
/// Replies whose words can still be truncated.
const MAX_LEDGERS: usize = 32;

/// What decided whether speech over a reply was an interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// It lasted.
    Duration,
    /// It was over before it could be anything.
    TooShort,
    /// Its words.
    Words,
    /// A word such as "stop".
    Command,
    /// Nothing but words such as "mhm".
    Backchannel,
    /// The reply's own words came back.
    OwnSpeech,
    /// By its sound it is the reply, come back to the microphone.
    Echo,
    /// No words in it.
    NoWords,
    /// No evidence came in time.
    Deadline,
    /// The client decided it.
    Client,
}

/// What happened in a session, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Events of an old turn revision, an old reply, or an old edge of speech; ignored.
    pub stale_events: u64,
    /// User turns that became messages, and typed ones that were to be answered.
    pub turns: u64,
    /// What was taken for a turn and had no words.
    pub discarded_turns: u64,
    /// Turns that went on after they had been held for over.
    pub cut_offs: u64,
    /// Replies created.
    pub replies: u64,
    /// Replies that failed.
    pub failed_replies: u64,
    /// Interruptions confirmed.
    pub interruptions: u64,
    /// Suspicions retracted.
    pub retractions: u64,
    /// Times that the session heard its own voice for the user's.
    pub echoes: u64,
    /// Replies begun before the turn was over.
    pub speculations: u64,
    /// Of these, the ones that were used.
    pub speculations_kept: u64,
    /// Times that a reply fell silent while it was being spoken.
    pub gaps: u64,
    /// Times that the writer was told to go on because it had stopped.
    pub writer_restarts: u64,
    /// Things that cannot happen and did: a transition that the table lacks, timers without end. Anything but 0 is
    /// a defect of this crate.
    pub defects: u64,
}

/// A conversation.
#[derive(Debug)]
pub struct Session {
    seed: String,
    names: u64,
    now: Duration,
    state: State,
    config: Config,
    /// The settings from the next turn on.
    next_config: Config,
    conversation: Conversation,
    actions: VecDeque<Action>,
    counters: Counters,

    // The user.
    turn: Option<Turn>,
    last_turn: TurnId,
    /// Speech goes on that was found to be no turn.
    ignoring: bool,
    /// A silence that came without its speech; the speech may come late.
    stray_silence: Option<Duration>,
    /// Input before this was used.
    input_used: Duration,
    awaited: VecDeque<Awaited>,
    patience: Patience,

    // The assistant.
    reply: Option<Reply>,
    last_reply: ReplyId,
    /// A reply begun before the turn is over.
    speculated: Option<Speculated>,
    /// A reply to be made as soon as nobody speaks.
    wanted: Option<ReplyPatch>,
    /// The reply had sounded when the user began to speak over it.
    barged_while_audible: bool,
    /// Said so far, for truncation, late reports, and knowing one's own voice.
    ledgers: VecDeque<(ReplyId, ItemId, Ledger)>,
    reply_over_at: Option<Duration>,
    /// After the last reply, silence may ask for another.
    may_prompt_silence: bool,

    // The client.
    client_holds: bool,
    /// See [`Event::PlayerHolds`].
    player_holds: bool,
    lost_at: Option<Duration>,
    active_at: Duration,
    idle_warned: bool,
    ending: Option<Ending>,
    closed: bool,
}

impl Session {
    /// Begins a session. `seed` is a part of its items' names.
    #[must_use]
    pub fn new(seed: &str, config: Config) -> Self {
        Self {
            seed: seed.to_owned(),
            names: 0,
            now: Duration::ZERO,
            state: State::WaitingForInput,
            next_config: config.clone(),
            config,
            conversation: Conversation::default(),
            actions: VecDeque::new(),
            counters: Counters::default(),
            turn: None,
            last_turn: TurnId(0),
            ignoring: false,
            stray_silence: None,
            input_used: Duration::ZERO,
            awaited: VecDeque::new(),
            patience: Patience::default(),
            reply: None,
            last_reply: ReplyId(0),
            speculated: None,
            wanted: None,
            barged_while_audible: false,
            ledgers: VecDeque::new(),
            reply_over_at: None,
            may_prompt_silence: false,
            client_holds: false,
            player_holds: false,
            lost_at: None,
            active_at: Duration::ZERO,
            idle_warned: false,
            ending: None,
            closed: false,
        }
    }

    /// Tells what happened, at audio time `at`. Time does not go back: an earlier `at` counts as the latest so
    /// far. An event that comes together with a deadline goes first. After the end, events are ignored.
    pub fn handle(&mut self, at: Duration, event: Event) {
        if self.state == State::Ended {
            return;
        }
        self.now = self.now.max(at);
        self.dispatch(event);
        self.follow_up();
        self.run_timers();
        if self.actions.len() > MAX_QUEUED {
            self.actions.clear();
            self.end(EndReason::Overrun);
        }
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::SpeechStarted { onset } | Event::SpeechResumed { onset } => self.speech(onset),
            Event::Silence { since } => self.silence(since, false),
            Event::SpeechStopped { end } => self.silence(end, true),
            Event::EchoHeard => self.echo_heard(),
            Event::EndOfTurn {
                turn,
                revision,
                probability,
            } => self.end_of_turn(turn, revision, probability),
            Event::Partial {
                turn,
                revision,
                text,
            } => self.partial(turn, revision, text),
            Event::Transcript {
                turn,
                revision,
                text,
            } => self.transcript(turn, revision, Ok(text)),
            Event::TranscriptFailed {
                turn,
                revision,
                message,
            } => self.transcript(turn, revision, Err(message)),
            Event::ReplyText { reply, clause } => self.reply_text(reply, &clause),
            Event::ReplyToolCall {
                reply,
                call_id,
                name,
                arguments,
            } => {
                self.reply_tool_call(reply, call_id, name, arguments);
            }
            Event::ReplyEnded {
                reply,
                finish,
                usage,
            } => self.reply_ended(reply, finish, usage),
            Event::ReplyFailed { reply, message } => {
                self.reply_failed(reply, ErrorCode::ModelFailed, message)
            }
            Event::Audio {
                reply,
                samples,
                words,
            } => self.audio(reply, samples, &words),
            Event::AudioCut { reply, samples } => self.audio_cut(reply, samples),
            Event::AudioEnded { reply } => self.audio_ended(reply),
            Event::VoiceFailed { reply, message } => {
                self.reply_failed(reply, ErrorCode::VoiceFailed, message)
            }
            Event::Sent { reply, samples } => self.sent(reply, samples),
            Event::Played { reply, samples } => self.played(reply, samples),
            Event::OutputDelay { delay } => self.output_delay(delay),
            Event::PlayerHolds(holds) => self.player_holds = holds,
            Event::Control(control) => self.control(control),
            Event::CommitInput { from, to } => self.commit_input(from, to),
            Event::ClearInput => self.clear_input(),
            Event::CreateItem { item, place } => self.create_item(item, &place),
            Event::DeleteItem(item) => self.delete_item(item),
            Event::RetrieveItem(item) => self.retrieve_item(&item),
            Event::TruncateItem { item, audio_end } => self.truncate_item(item, audio_end),
            Event::CreateReply(patch) => self.create_reply_on_request(patch),
            Event::CancelReply(reply) => self.cancel_reply(reply),
            Event::Configure(patch) => self.configure(&patch),
            Event::Say(text) => self.say(text),
            Event::TransportLost => self.transport_lost(),
            Event::TransportBack => self.transport_back(),
            Event::Close => self.end(EndReason::ClientClosed),
            Event::Shutdown => self.end(EndReason::Shutdown),
            Event::Tick => {}
        }
    }

    /// What follows from what is known now.
    fn follow_up(&mut self) {
        if self.state == State::BargedIn {
            self.weigh_interruption();
        }
        self.close_turn();
        self.finish_if_said();
        self.start_wanted_reply();
        self.prompt_when_ready();
        self.speculate();
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The settings that the current turn runs with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The settings from the next turn on.
    #[must_use]
    pub fn next_config(&self) -> &Config {
        &self.next_config
    }

    /// The conversation, oldest first. A reply under way has no words here before it is over.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        self.conversation.items()
    }

    /// The conversation, oldest first, as it would be if it ended now: of a reply under way, what was heard.
    #[must_use]
    pub fn items_so_far(&self) -> Vec<Item> {
        let mut items = self.conversation.items().to_vec();
        let message = self
            .reply
            .as_ref()
            .and_then(|reply| Some((reply, &reply.items.get(reply.message?)?.id)));
        if let Some((reply, id)) = message {
            let (heard, content) = match reply.is_spoken() {
                true => {
                    let heard = reply.ledger.heard(self.now).to_owned();
                    let transcript = Some(heard.clone());
                    (heard, Content::Audio { transcript })
                }
                false => {
                    let written = reply.ledger.text().to_owned();
                    (written.clone(), Content::Text(written))
                }
            };
            if let Some(item) = items.iter_mut().find(|item| item.id == *id) {
                item.status = ItemStatus::Incomplete;
                item.kind = ItemKind::Message {
                    role: Role::Assistant,
                    content: vec![content],
                };
            }
            items.retain(|item| item.id != *id || !heard.trim().is_empty());
        }
        items
    }

    /// The reply under way.
    #[must_use]
    pub fn reply(&self) -> Option<ReplyId> {
        self.reply.as_ref().map(|reply| reply.id)
    }

    /// What happened so far, counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn act(&mut self, action: Action) {
        // The end may come in the middle of doing something; nothing follows it.
        if self.closed {
            return;
        }
        self.closed = matches!(action, Action::Close { .. });
        self.actions.push_back(action);
    }

    fn tell(&mut self, notice: Notice) {
        self.act(Action::Emit(notice));
    }

    fn complain(&mut self, code: ErrorCode, message: impl Into<String>) {
        self.tell(Notice::Error {
            code,
            message: message.into(),
        });
    }

    /// Changes the state as the table says. Callers ask only for what the table has; the property tests see to it.
    fn go(&mut self, trigger: Trigger) {
        let Some(to) = self.state.after(trigger) else {
            self.counters.defects += 1;
            return;
        };
        if to != self.state {
            let from = std::mem::replace(&mut self.state, to);
            self.tell(Notice::StateChanged { from, to });
        }
    }

    fn name(&mut self) -> ItemId {
        self.names += 1;
        ItemId(format!("item_{}_{}", self.seed, self.names))
    }

    fn new_turn(&mut self) -> TurnId {
        self.last_turn.0 += 1;
        self.last_turn
    }

    /// Puts an item at the end of the conversation and tells of it.
    fn append(&mut self, item: Item) {
        let previous = self.conversation.last_id();
        if self
            .conversation
            .add(item.clone(), &crate::Place::End)
            .is_ok()
        {
            self.tell(Notice::ItemAdded { item, previous });
            self.drop_surplus();
        }
    }

    fn item_done(&mut self, id: &ItemId) {
        if let Some(item) = self.conversation.get(id).cloned() {
            let previous = self.conversation.previous(id);
            self.tell(Notice::ItemDone { item, previous });
        }
    }

    fn drop_surplus(&mut self) {
        let (items, bytes) = {
            let limits = &self.config.limits;
            (limits.max_items, limits.max_item_bytes)
        };
        while let Some(item) = self.conversation.drop_oldest(items, bytes) {
            self.tell(Notice::ItemDeleted { item });
        }
    }

    /// Takes over changed settings; called where a turn begins.
    fn apply_config(&mut self) {
        if self.config != self.next_config {
            self.config = self.next_config.clone();
        }
    }

    fn is_held(&self) -> bool {
        self.client_holds || self.lost_at.is_some()
    }

    fn stale(&mut self) {
        self.counters.stale_events += 1;
    }

    fn active(&mut self) {
        self.active_at = self.now;
        self.idle_warned = false;
    }

    fn creates_replies(&self) -> bool {
        match self.config.turn_detection {
            TurnDetection::ServerVad {
                create_response, ..
            }
            | TurnDetection::SemanticVad {
                create_response, ..
            } => create_response,
            TurnDetection::Manual => false,
        }
    }

    fn interrupts_replies(&self) -> bool {
        match self.config.turn_detection {
            TurnDetection::ServerVad {
                interrupt_response, ..
            }
            | TurnDetection::SemanticVad {
                interrupt_response, ..
            } => interrupt_response,
            TurnDetection::Manual => false,
        }
    }

    /// Sets the words of a message.
    fn set_words(&mut self, id: &ItemId, words: &str) {
        if let Some(Item {
            kind: ItemKind::Message { content, .. },
            ..
        }) = self.conversation.get_mut(id)
        {
            *content = vec![crate::Content::Audio {
                transcript: Some(words.to_owned()),
            }];
        }
    }
}
