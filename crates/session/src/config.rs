//! What can be set. Changes take effect at the next turn.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3_600);

/// All settings of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How a reply is made, unless [`ReplyPatch`] says otherwise for one.
    pub reply: ReplyOptions,
    /// When a user's turn begins and ends.
    pub turn_detection: TurnDetection,
    /// What counts as an interruption.
    pub interruption: InterruptionConfig,
    /// Waits, each with an end.
    pub timing: Timing,
    /// When a session ends by itself, and how much it remembers.
    pub limits: Limits,
    /// Whether the model may begin a reply while it is not yet sure that the turn is over.
    pub speculation: Speculation,
}

/// Whether a reply is begun before the turn is known to be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speculation {
    /// As soon as a silence has a transcript. If the user goes on, the work was in vain.
    #[default]
    On,
    /// Never: no token is spent on a turn that is not over.
    Off,
}

impl Config {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), String> {
        let share = |name: &str, value: f32| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(format!("{name} is {value}; it must lie between 0 and 1")),
        };
        let some_time = |name: &str, value: Option<Duration>| match value {
            Some(value) if value.is_zero() || value > LONGEST => Err(format!(
                "{name} must be longer than 0 ms and at most 30 days"
            )),
            _ => Ok(()),
        };
        share("timing.complete", self.timing.complete)?;
        share("timing.finished", self.timing.finished)?;
        share("interruption.echo_share", self.interruption.echo_share)?;
        if let TurnDetection::ServerVad {
            threshold,
            idle_timeout,
            ..
        } = &self.turn_detection
        {
            share("turn_detection.threshold", *threshold)?;
            some_time("turn_detection.idle_timeout", *idle_timeout)?;
        }
        for (name, value) in [
            ("timing.max_turn", Some(self.timing.max_turn)),
            ("timing.partials", self.timing.partials),
            ("timing.transcript", Some(self.timing.transcript)),
            ("timing.first_text", Some(self.timing.first_text)),
            ("timing.next_text", Some(self.timing.next_text)),
            ("timing.voice", Some(self.timing.voice)),
            ("timing.writer", Some(self.timing.writer)),
            ("timing.speaking_gap", Some(self.timing.speaking_gap)),
            ("timing.reconnect", Some(self.timing.reconnect)),
            (
                "interruption.decide_within",
                Some(self.interruption.decide_within),
            ),
            ("limits.max_duration", self.limits.max_duration),
            ("limits.idle_timeout", self.limits.idle_timeout),
        ] {
            some_time(name, value)?;
        }
        if self
            .reply
            .speed
            .is_some_and(|speed| !(0.25..=4.0).contains(&speed))
        {
            return Err("reply.speed must lie between 0.25 and 4".to_owned());
        }
        Ok(())
    }
}

/// A change of settings; `None` leaves what is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigPatch {
    /// How replies are made.
    pub reply: ReplyPatch,
    /// When a user's turn begins and ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_detection: Option<TurnDetection>,
    /// What counts as an interruption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interruption: Option<InterruptionConfig>,
    /// Waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// Ends and memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Beginning a reply early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speculation: Option<Speculation>,
}

impl Config {
    /// These settings with a change.
    #[must_use]
    pub fn patched(&self, patch: &ConfigPatch) -> Self {
        Self {
            reply: self.reply.patched(&patch.reply),
            turn_detection: patch
                .turn_detection
                .clone()
                .unwrap_or_else(|| self.turn_detection.clone()),
            interruption: patch
                .interruption
                .clone()
                .unwrap_or_else(|| self.interruption.clone()),
            timing: patch.timing.clone().unwrap_or_else(|| self.timing.clone()),
            limits: patch.limits.clone().unwrap_or_else(|| self.limits.clone()),
            speculation: patch.speculation.unwrap_or(self.speculation),
        }
    }
}

/// How a reply is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplyOptions {
    /// The system prompt.
    pub instructions: String,
    /// The voice; `None` is the server's default.
    pub voice: Option<String>,
    /// Speaking rate, 0.5 to 2.0; `None` is 1.0.
    pub speed: Option<f32>,
    /// The model; `None` is the server's default.
    pub model: Option<String>,
    /// Spoken, or only written.
    pub modality: Modality,
    /// Functions that the model may call.
    pub tools: Vec<Tool>,
    /// Whether it may, must, or must not.
    pub tool_choice: ToolChoice,
    /// Sampling temperature, 0 to 2; `None` is the model's default.
    pub temperature: Option<f32>,
    /// Bound on what the model writes; `None` is the model's default.
    pub max_output_tokens: Option<u32>,
    /// `false`: the reply reads the conversation but does not join it.
    pub in_conversation: bool,
    /// Instead of the conversation; `None` is the conversation.
    pub input: Option<Vec<crate::Item>>,
    /// Passed through to the client.
    pub metadata: Vec<(String, String)>,
}

impl Default for ReplyOptions {
    fn default() -> Self {
        Self {
            instructions: String::new(),
            voice: None,
            speed: None,
            model: None,
            modality: Modality::Audio,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            temperature: None,
            max_output_tokens: None,
            in_conversation: true,
            input: None,
            metadata: Vec::new(),
        }
    }
}

/// A change of [`ReplyOptions`]; `None` leaves what is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the fields are those of `ReplyOptions`
pub struct ReplyPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voice: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modality: Option<Modality>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Tool>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// `Some(None)` takes the bound away.
    #[serde(
        with = "crate::wire::kept_or_set",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_output_tokens: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_conversation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Vec<crate::Item>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Vec<(String, String)>>,
}

impl ReplyOptions {
    /// These settings with a change.
    #[must_use]
    pub fn patched(&self, patch: &ReplyPatch) -> Self {
        let mut out = self.clone();
        let p = patch.clone();
        if let Some(v) = p.instructions {
            out.instructions = v;
        }
        out.voice = p.voice.or(out.voice);
        out.speed = p.speed.or(out.speed);
        out.model = p.model.or(out.model);
        out.modality = p.modality.unwrap_or(out.modality);
        if let Some(v) = p.tools {
            out.tools = v;
        }
        if let Some(v) = p.tool_choice {
            out.tool_choice = v;
        }
        out.temperature = p.temperature.or(out.temperature);
        out.max_output_tokens = p.max_output_tokens.unwrap_or(out.max_output_tokens);
        out.in_conversation = p.in_conversation.unwrap_or(out.in_conversation);
        out.input = p.input.or(out.input);
        if let Some(v) = p.metadata {
            out.metadata = v;
        }
        out
    }
}

/// What a reply is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// Spoken, with a transcript.
    Audio,
    /// Written.
    Text,
}

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON schema of its arguments.
    pub parameters: String,
}

/// Whether the model may call functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// As it likes.
    Auto,
    /// Never.
    None,
    /// At least one.
    Required,
    /// This one.
    Function(String),
}

/// When a user's turn begins and ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnDetection {
    /// After a fixed silence.
    ServerVad {
        /// Silence that ends a turn.
        #[serde(with = "crate::wire::ms")]
        silence: Duration,
        /// Speech probability that counts as speech, 0 to 1; for the ear, not used in the core.
        threshold: f32,
        /// Audio kept before the onset.
        #[serde(with = "crate::wire::ms")]
        prefix: Duration,
        /// Answer when a turn ends.
        create_response: bool,
        /// Let speech interrupt a reply.
        interrupt_response: bool,
        /// Silence after a reply at which the model is asked to go on; `None`: never.
        #[serde(default, with = "crate::wire::optional_ms")]
        idle_timeout: Option<Duration>,
    },
    /// After a silence as long as the doubt that the sentence is complete.
    SemanticVad {
        /// How soon.
        eagerness: Eagerness,
        /// Answer when a turn ends.
        create_response: bool,
        /// Let speech interrupt a reply.
        interrupt_response: bool,
    },
    /// The client says so (push to talk): [`crate::Event::CommitInput`] and [`crate::Event::CreateReply`].
    Manual,
}

impl Default for TurnDetection {
    fn default() -> Self {
        Self::SemanticVad {
            eagerness: Eagerness::Auto,
            create_response: true,
            interrupt_response: true,
        }
    }
}

/// How soon a semantic end of turn is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Eagerness {
    /// Waits up to 8 s.
    Low,
    /// As [`Eagerness::Auto`].
    Medium,
    /// Waits up to 2 s.
    High,
    /// Waits up to 4 s.
    #[default]
    Auto,
}

/// What counts as an interruption.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InterruptionConfig {
    /// What speech over a reply does to it until it is known what the speech is.
    pub at_onset: AtOnset,
    /// Tell the client of speech at its onset, or only when it is sure to be an interruption. A client that stops
    /// its playback by itself when it hears of speech wants the latter.
    pub announce: Announce,
    /// Words, backchannels apart, that make it one.
    pub min_words: usize,
    /// Speech shorter than this that brings no words is none.
    #[serde(with = "crate::wire::ms")]
    pub min_duration: Duration,
    /// Speech that lasts this long is one where the recognizer has said nothing against it.
    #[serde(with = "crate::wire::ms")]
    pub sure_duration: Duration,
    /// After this much speech without words (music, a crowd), or of silence without a transcript, the reply goes on.
    #[serde(with = "crate::wire::ms")]
    pub decide_within: Duration,
    /// Words of assent that interrupt nothing.
    pub backchannels: Vec<String>,
    /// Words that interrupt at once.
    pub commands: Vec<String>,
    /// Share of the transcript's words that must be the reply's own for it to be an echo, 0 to 1.
    pub echo_share: f32,
    /// How far back a resumed reply may begin, so as to begin with a whole word; the driver keeps this much of
    /// what it sent.
    #[serde(with = "crate::wire::ms")]
    pub max_rewind: Duration,
}

impl Default for InterruptionConfig {
    fn default() -> Self {
        let words = |list: &str| list.split(',').map(str::to_owned).collect();
        Self {
            at_onset: AtOnset::Pause,
            announce: Announce::WhenSure,
            min_words: 1,
            min_duration: Duration::from_millis(250),
            sure_duration: Duration::from_millis(1_000),
            decide_within: Duration::from_millis(2_500),
            backchannels: words(
                "mhm,mm,mmm,mm-hmm,mmhmm,hmm,hm,uh-huh,uhhuh,aha,ah,oh,uh,um,er,right,okay,ok,yeah,yep,yes,yup,\
                 sure,good,great,nice,cool,wow,really,exactly,i see,got it,of course,all right,alright,true",
            ),
            commands: words(
                "stop,wait,no,hold on,hang on,pause,quiet,shut up,enough,excuse me,cancel,hey",
            ),
            echo_share: 0.75,
            max_rewind: Duration::from_millis(800),
        }
    }
}

/// What speech over a reply does to it until it is known what the speech is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtOnset {
    /// Silence.
    Pause,
    /// Softly on.
    Duck,
}

/// When a client is told of speech over a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Announce {
    /// At once.
    AtOnset,
    /// When it is an interruption.
    WhenSure,
}

/// Waits, each with an end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// Silence that ends a turn which the model of turns holds for complete.
    #[serde(with = "crate::wire::ms")]
    pub min_silence: Duration,
    /// How far [`Timing::min_silence`] may grow for a speaker who pauses long.
    #[serde(with = "crate::wire::ms")]
    pub max_learned_silence: Duration,
    /// Probability from which a turn is held for complete, 0 to 1.
    pub complete: f32,
    /// What is left of the longest silence inside a turn where its words are a finished sentence, 0 to 1.
    pub finished: f32,
    /// Audio taken before the onset, so that the first sound is in the transcript.
    #[serde(with = "crate::wire::ms")]
    pub pre_roll: Duration,
    /// Time between two partial transcripts; `None`: only to judge interruptions.
    #[serde(with = "crate::wire::optional_ms")]
    pub partials: Option<Duration>,
    /// A turn is cut into messages of at most this length.
    #[serde(with = "crate::wire::ms")]
    pub max_turn: Duration,
    /// Wait for a final transcript.
    #[serde(with = "crate::wire::ms")]
    pub transcript: Duration,
    /// Wait for the model's first words.
    #[serde(with = "crate::wire::ms")]
    pub first_text: Duration,
    /// Wait for the model's next words.
    #[serde(with = "crate::wire::ms")]
    pub next_text: Duration,
    /// Wait for the voice when it has text to say.
    #[serde(with = "crate::wire::ms")]
    pub voice: Duration,
    /// Wait for the writer when it has audio to send.
    #[serde(with = "crate::wire::ms")]
    pub writer: Duration,
    /// Without a frame for so long a reply is no longer [`crate::State::Speaking`].
    #[serde(with = "crate::wire::ms")]
    pub speaking_gap: Duration,
    /// From the writer to the listener's ear, where the client does not say what it played.
    #[serde(with = "crate::wire::ms")]
    pub output_delay: Duration,
    /// Wait for a lost client.
    #[serde(with = "crate::wire::ms")]
    pub reconnect: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            min_silence: Duration::from_millis(250),
            max_learned_silence: Duration::from_millis(700),
            complete: 0.5,
            finished: 0.5,
            pre_roll: Duration::from_millis(300),
            partials: Some(Duration::from_millis(800)),
            max_turn: Duration::from_secs(28),
            transcript: Duration::from_secs(10),
            first_text: Duration::from_secs(30),
            next_text: Duration::from_secs(15),
            voice: Duration::from_secs(5),
            writer: Duration::from_secs(2),
            speaking_gap: Duration::from_millis(1_000),
            output_delay: Duration::from_millis(100),
            reconnect: Duration::from_secs(30),
        }
    }
}

/// When a session ends by itself, and how much it remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Silence from both sides that ends the session; `None`: never.
    #[serde(with = "crate::wire::optional_ms")]
    pub idle_timeout: Option<Duration>,
    /// How long before that the client is warned.
    #[serde(with = "crate::wire::ms")]
    pub idle_warning: Duration,
    /// Length of the session; `None`: no limit. A reply under way is stopped.
    #[serde(with = "crate::wire::optional_ms")]
    pub max_duration: Option<Duration>,
    /// User turns answered; `None`: no limit. The last reply is said to its end.
    pub max_turns: Option<u32>,
    /// Spoken before a session ends by itself; `None`: it ends silently.
    pub goodbye: Option<String>,
    /// Tokens of history given to the model, at four characters a token. The oldest items are left out, a
    /// function call together with its output; system messages stay.
    pub history_tokens: usize,
    /// Items kept; the oldest is dropped. System messages stay as long as there are others.
    pub max_items: usize,
    /// Bytes of text kept in items, names and the like included; the oldest are dropped likewise. The newest item is
    /// kept even if it alone is larger.
    pub max_item_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(300)),
            idle_warning: Duration::from_secs(30),
            max_duration: None,
            max_turns: None,
            goodbye: None,
            history_tokens: 3_000,
            max_items: 1_000,
            max_item_bytes: 1024 * 1024,
        }
    }
}
