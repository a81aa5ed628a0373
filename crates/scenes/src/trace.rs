//! What came of a scene, by the client's clock, in seconds since its start.

/// Something that the client saw happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// The server said that somebody speaks.
    Speech,
    /// The server held a turn of the user's for over.
    TurnOver,
    /// A turn of the user's became a message.
    Turn,
    /// What was announced as speech was none.
    Discarded,
    /// A reply became audible at the client for the first time.
    Reply,
    /// The server told the client to hold the sound.
    Held,
    /// The server told the client to go on.
    Resumed,
    /// A reply was cut off because of the user's speech.
    Interruption,
    /// Speech over a reply was found to be no interruption.
    Retraction,
    /// A reply was said to its end.
    Completion,
    /// A reply ended otherwise: cancelled by the client, failed.
    Cancelled,
    /// The user's turn is over and the reply not audible yet.
    Thinking,
    /// The session heard itself.
    HeardItself,
    /// The server reported an error.
    Error,
    /// The session ended.
    Ended,
}

impl Happening {
    /// What scenes call them.
    pub const NAMES: [(&'static str, Happening); 15] = [
        ("speech", Happening::Speech),
        ("turn-over", Happening::TurnOver),
        ("turn", Happening::Turn),
        ("discarded", Happening::Discarded),
        ("reply", Happening::Reply),
        ("held", Happening::Held),
        ("resumed", Happening::Resumed),
        ("interruption", Happening::Interruption),
        ("retraction", Happening::Retraction),
        ("completion", Happening::Completion),
        ("cancelled", Happening::Cancelled),
        ("thinking", Happening::Thinking),
        ("heard-itself", Happening::HeardItself),
        ("error", Happening::Error),
        ("ended", Happening::Ended),
    ];

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, what)| *what)
    }

    /// What scenes call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, what)| *what == self)
            .map_or("", |(name, _)| name)
    }
}

/// One block of sound at the client: levels in dBFS over the block, negative infinity for silence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// The user's speech, as sent.
    pub user: f32,
    /// Other sounds and the background, as sent.
    pub noise: f32,
    /// The echo of what was played, as sent.
    pub echo: f32,
    /// What was played.
    pub played: f32,
    /// Something was taken from what waits to be played, audible or not.
    pub playing: bool,
}

/// From this level on a block can be heard.
pub const AUDIBLE: f32 = -50.0;

impl Block {
    /// Whether what was played can be heard.
    #[must_use]
    pub fn is_audible(&self) -> bool {
        self.playing && self.played > AUDIBLE
    }
}

/// A step that was played.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTrace {
    /// Its name.
    pub name: String,
    /// The clip, or what was typed or done.
    pub label: String,
    /// The user speaks in it.
    pub is_speech: bool,
    /// Seconds of each stretch of sound, without the pauses between them; empty where nothing sounds.
    pub spans: Vec<(f64, f64)>,
    /// When it was due.
    pub at: f64,
}

impl StepTrace {
    /// First sound.
    #[must_use]
    pub fn onset(&self) -> f64 {
        self.spans.first().map_or(self.at, |span| span.0)
    }

    /// Last sound.
    #[must_use]
    pub fn end(&self) -> f64 {
        self.spans.last().map_or(self.at, |span| span.1)
    }
}

/// A word of a reply, as the client was told it.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// Its letters.
    pub text: String,
    /// Its middle lies after this position in the reply's audio, samples at [`crate::RATE`].
    pub after: u64,
    /// And not after this one.
    pub until: u64,
}

/// A reply at the client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplyTrace {
    /// The response.
    pub id: String,
    /// Its message.
    pub item: String,
    /// Its words, as far as they were told.
    pub words: Vec<Word>,
    /// Its last word was told.
    pub all_told: bool,
    /// Samples that came.
    pub received: u64,
    /// The furthest position that was played.
    pub played: u64,
    /// Whether the response is over.
    pub done: bool,
    /// `completed`, `cancelled`, `failed`; empty while it is under way.
    pub status: String,
    /// What the server said was heard, when the response was done.
    pub heard: Option<String>,
    /// What the history says, asked at the scene's end; `None`: the item is not there.
    pub history: Option<String>,
    /// The server went by the client's reports.
    pub reported: bool,
    /// The client said where it stopped, by truncating the message.
    pub truncated: bool,
    /// When it was first audible.
    pub audible_at: Option<f64>,
    /// (When, from, to): stretches of its audio that were played.
    pub stretches: Vec<(f64, u64, u64)>,
}

/// Everything that came of a scene.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// The sound, one after the other, [`crate::BLOCK_SECONDS`] each.
    pub blocks: Vec<Block>,
    /// What happened, in order.
    pub happenings: Vec<(f64, Happening)>,
    /// The server's states.
    pub states: Vec<(f64, String)>,
    /// When the server says that it took speech over a reply for a possible interruption, by the client's clock.
    pub edges: Vec<f64>,
    /// When the server says that it took one back, by the client's clock.
    pub retractions: Vec<f64>,
    /// The steps that were played, in the order of the script; those that never became due are missing.
    pub steps: Vec<StepTrace>,
    /// The replies.
    pub replies: Vec<ReplyTrace>,
    /// The user's messages, as transcribed.
    pub user_messages: Vec<String>,
    /// Why interruptions were committed or retracted, in order.
    pub evidence: Vec<(f64, String)>,
    /// What the server complained of.
    pub errors: Vec<String>,
    /// The conversation came to rest before patience ran out.
    pub came_to_rest: bool,
    /// The most that a block of sound was late, seconds: the machine was too slow.
    pub late: f64,
}

impl Trace {
    /// When something happened for the nth time, from 1.
    #[must_use]
    pub fn nth(&self, what: Happening, number: usize) -> Option<f64> {
        self.happenings
            .iter()
            .filter(|(_, happened)| *happened == what)
            .nth(number.saturating_sub(1))
            .map(|(at, _)| *at)
    }

    /// How often something happened from one time to before another.
    #[must_use]
    pub fn count(&self, what: Happening, from: f64, to: f64) -> usize {
        self.happenings
            .iter()
            .filter(|(at, happened)| *happened == what && *at >= from && *at < to)
            .count()
    }

    /// When something happened first, from a time on.
    #[must_use]
    pub fn first_from(&self, what: Happening, from: f64) -> Option<f64> {
        self.happenings
            .iter()
            .find(|(at, happened)| *happened == what && *at >= from)
            .map(|(at, _)| *at)
    }

    /// A step that was played.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&StepTrace> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// Seconds that it lasted.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.blocks.len() as f64 * crate::BLOCK_SECONDS
    }
}
