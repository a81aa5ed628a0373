//! A session's configuration as clients see it, and `session.update`, which changes all of it or nothing.

use duologue_vad::{CleanerConfig, EchoCancellation, NoiseReduction};
use serde_json::{Map, Value, json};

use super::json::{Fields, wrong};
use super::{AudioEncoding, Dialect, EventError, TurnDetection};
use crate::journal::ResumeToken;

/// Longest instructions, in characters.
const INSTRUCTIONS_LIMIT: usize = 64 * 1024;
/// Most tools a session may have.
const TOOLS_LIMIT: usize = 128;

/// What a reply is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Modality {
    /// Speech with its transcript.
    #[default]
    Audio,
    /// Text alone.
    Text,
}

impl Modality {
    pub(super) fn parse(list: &[Value], path: &str) -> Result<Self, EventError> {
        let mut found = None;
        for value in list {
            match value.as_str() {
                Some("audio") => found = Some(Self::Audio),
                Some("text") => found = found.or(Some(Self::Text)),
                _ => {
                    return Err(EventError::value(
                        path,
                        format!("{value} is not a modality: use \"audio\" or \"text\""),
                    ));
                }
            }
        }
        found.ok_or_else(|| EventError::value(path, "name at least one of \"audio\" and \"text\""))
    }

    /// As `output_modalities`, or beta's `modalities`.
    #[must_use]
    pub fn to_json(self, dialect: Dialect) -> Value {
        match (self, dialect) {
            (Self::Audio, Dialect::Ga) => json!(["audio"]),
            (Self::Audio, Dialect::Beta) => json!(["audio", "text"]),
            (Self::Text, _) => json!(["text"]),
        }
    }
}

/// The voices a client may name.
#[derive(Clone, Debug, Default)]
pub struct VoiceNames {
    /// Voices that exist here; the first is the default.
    pub known: Vec<String>,
}

/// Names that stock clients send without having asked what there is; they mean "your voice".
const STOCK_VOICES: [&str; 12] = [
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage",
    "shimmer",
];

impl VoiceNames {
    /// The voice meant by `name`.
    ///
    /// # Errors
    /// What there is, when it is none of them.
    pub fn resolve(&self, name: &str) -> Result<String, String> {
        if self.known.iter().any(|known| known == name) {
            return Ok(name.to_owned());
        }
        match self.known.first() {
            Some(default)
                if STOCK_VOICES.contains(&name) || name == "verse" || name == "default" =>
            {
                Ok(default.clone())
            }
            _ => Err(format!(
                "there is no voice {name:?} here; there is {}",
                self.known.join(", ")
            )),
        }
    }
}

/// All that `session.update` can set.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSettings {
    /// Model that a client named when it connected; shown back.
    pub model: String,
    /// The system prompt.
    pub instructions: String,
    /// Voicepack of the voice.
    pub voice: String,
    /// Rate of speech, 0.5 to 2.0.
    pub speed: f32,
    /// What replies are made of.
    pub modality: Modality,
    /// How the client's sound is written.
    pub input: AudioEncoding,
    /// How ours is.
    pub output: AudioEncoding,
    /// BCP 47 language of the user; `None` is detected.
    pub language: Option<String>,
    /// Words the recognizer should expect.
    pub transcription_prompt: Option<String>,
    /// `input.transcription` as the client set it.
    pub transcription: Value,
    /// When turns end.
    pub turn_detection: TurnDetection,
    /// Functions the model may call, as given.
    pub tools: Vec<Value>,
    /// `auto`, `none`, `required`, or a function.
    pub tool_choice: Value,
    /// Longest reply, in tokens; `None` is no limit of the client's.
    pub max_output_tokens: Option<u32>,
    /// Sampling temperature; `None` is the model's own.
    pub temperature: Option<f32>,
    /// Whether the client wants the `duologue.*` events.
    pub duologue_events: bool,
    /// Whether the server keeps the session. Not the client's to choose.
    pub recorded: bool,
    /// What is taken out of the client's sound before anybody listens.
    pub cleaner: CleanerConfig,
    /// How the client goes on with the session elsewhere, where it is kept. Not the client's to choose.
    pub resume: Option<Resume>,
}

/// How a client goes on with a session after its connection or its server is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Resume {
    /// What it says to be let in again; `None`: it is known by the room it is in.
    pub token: Option<ResumeToken>,
    /// It has gone on with one: as many items of it were found.
    pub resumed: Option<usize>,
}

impl SessionSettings {
    /// The settings of a new session.
    #[must_use]
    pub fn new(model: &str, instructions: &str, voice: &str) -> Self {
        Self {
            model: model.into(),
            instructions: instructions.into(),
            voice: voice.into(),
            speed: 1.0,
            modality: Modality::Audio,
            input: AudioEncoding::Pcm16,
            output: AudioEncoding::Pcm16,
            language: None,
            transcription_prompt: None,
            transcription: Value::Null,
            turn_detection: TurnDetection::default(),
            tools: Vec::new(),
            tool_choice: json!("auto"),
            max_output_tokens: None,
            temperature: None,
            duologue_events: false,
            recorded: false,
            cleaner: CleanerConfig::default(),
            resume: None,
        }
    }

    /// The session object of `session.created` and `session.updated`.
    #[must_use]
    pub fn to_json(&self, id: &str, dialect: Dialect) -> Value {
        let echo_cancellation = match self.cleaner.echo {
            EchoCancellation::Off => json!(false),
            EchoCancellation::Auto => json!("auto"),
            EchoCancellation::On => json!(true),
        };
        let mut duologue = json!({"events": self.duologue_events, "echo_cancellation": echo_cancellation, "recording": self.recorded});
        if let Some(resume) = &self.resume {
            if let Some(token) = &resume.token {
                duologue["resume_token"] = json!(token.as_str());
            }
            duologue["resumed"] = json!(resume.resumed.is_some());
            duologue["resumed_items"] = json!(resume.resumed.unwrap_or(0));
        }
        let noise_reduction = self.cleaner.noise.map(|reduction| {
            let kind = match reduction {
                NoiseReduction::NearField => "near_field",
                NoiseReduction::FarField => "far_field",
            };
            json!({"type": kind})
        });
        let limit = self
            .max_output_tokens
            .map_or_else(|| json!("inf"), |limit| json!(limit));
        match dialect {
            Dialect::Ga => json!({
                "type": "realtime",
                "object": "realtime.session",
                "id": id,
                "model": self.model,
                "output_modalities": self.modality.to_json(dialect),
                "instructions": self.instructions,
                "tools": self.tools,
                "tool_choice": self.tool_choice,
                "max_output_tokens": limit,
                "tracing": null,
                "truncation": "auto",
                "prompt": null,
                "include": null,
                "duologue": duologue,
                "audio": {
                    "input": {
                        "format": self.input.to_json(),
                        "transcription": self.transcription,
                        "noise_reduction": noise_reduction,
                        "turn_detection": self.turn_detection.to_json(),
                    },
                    "output": {
                        "format": self.output.to_json(),
                        "voice": self.voice,
                        "speed": self.speed,
                    },
                },
            }),
            Dialect::Beta => json!({
                "object": "realtime.session",
                "id": id,
                "model": self.model,
                "modalities": self.modality.to_json(dialect),
                "instructions": self.instructions,
                "voice": self.voice,
                "speed": self.speed,
                "input_audio_format": self.input.beta_name(),
                "output_audio_format": self.output.beta_name(),
                "input_audio_transcription": self.transcription,
                "input_audio_noise_reduction": noise_reduction,
                "turn_detection": self.turn_detection.to_json(),
                "tools": self.tools,
                "tool_choice": self.tool_choice,
                "temperature": self.temperature.unwrap_or(0.8),
                "max_response_output_tokens": limit,
                "duologue": duologue,
            }),
        }
    }
}

/// Reads the `session` of a `session.update` and gives the settings as they would be with it.
///
/// # Errors
/// The first field that is wrong; then nothing of the update is taken.
pub fn apply_update(
    settings: &SessionSettings,
    session: &Value,
    voices: &VoiceNames,
) -> Result<SessionSettings, EventError> {
    let mut next = settings.clone();
    let fields = Fields::of(session, "session")?;
    match fields.text("type")? {
        None | Some("realtime") => {}
        Some(other) => {
            return Err(EventError::value(
                "session.type",
                format!("sessions of type {other:?} are not offered: use \"realtime\""),
            ));
        }
    }
    if let Some(instructions) = fields.text("instructions")? {
        if instructions.chars().count() > INSTRUCTIONS_LIMIT {
            return Err(EventError::value(
                "session.instructions",
                format!("instructions may have at most {INSTRUCTIONS_LIMIT} characters"),
            ));
        }
        next.instructions = instructions.into();
    }
    for name in ["output_modalities", "modalities"] {
        if let Some(list) = fields.list(name)? {
            next.modality = Modality::parse(list, &fields.path(name))?;
        }
    }
    if let Some(list) = fields.list("tools")? {
        next.tools = parse_tools(list)?;
    }
    if let Some(choice) = fields.get("tool_choice") {
        next.tool_choice = parse_tool_choice(choice)?;
    }
    for name in ["max_output_tokens", "max_response_output_tokens"] {
        if let Some(limit) = parse_token_limit(fields, name)? {
            next.max_output_tokens = limit;
        }
    }
    if let Some(temperature) = fields.number("temperature", 0.0..=2.0)? {
        next.temperature = Some(temperature as f32);
    }
    if let Some(ours) = fields.get("duologue") {
        let ours = Fields::of(ours, "session.duologue")?;
        if let Some(events) = ours.flag("events")? {
            next.duologue_events = events;
        }
        if let Some(wanted) = ours.get("echo_cancellation") {
            next.cleaner.echo = match wanted {
                Value::Bool(false) => EchoCancellation::Off,
                Value::Bool(true) => EchoCancellation::On,
                Value::String(word) if word == "auto" => EchoCancellation::Auto,
                other => {
                    let path = ours.path("echo_cancellation");
                    return Err(wrong(&path, "true, false or \"auto\"", other));
                }
            };
        }
    }
    // The beta's flat names.
    update_input(&mut next, fields, Names::BETA_INPUT)?;
    update_output(&mut next, fields, "output_audio_format", voices)?;
    if let Some(audio) = fields.get("audio") {
        let audio = Fields::of(audio, "session.audio")?;
        if let Some(input) = audio.get("input") {
            update_input(
                &mut next,
                Fields::of(input, "session.audio.input")?,
                Names::GA_INPUT,
            )?;
        }
        if let Some(output) = audio.get("output") {
            let output = Fields::of(output, "session.audio.output")?;
            update_output(&mut next, output, "format", voices)?;
        }
    }
    Ok(next)
}

struct Names {
    format: &'static str,
    transcription: &'static str,
    noise_reduction: &'static str,
}

impl Names {
    const BETA_INPUT: Self = Self {
        format: "input_audio_format",
        transcription: "input_audio_transcription",
        noise_reduction: "input_audio_noise_reduction",
    };
    const GA_INPUT: Self = Self {
        format: "format",
        transcription: "transcription",
        noise_reduction: "noise_reduction",
    };
}

fn update_input(
    next: &mut SessionSettings,
    fields: Fields<'_>,
    names: Names,
) -> Result<(), EventError> {
    if let Some(format) = fields.get(names.format) {
        next.input = AudioEncoding::parse(format, &fields.path(names.format))?;
    }
    if let Some(transcription) = fields.raw(names.transcription) {
        next.language = None;
        next.transcription_prompt = None;
        if !transcription.is_null() {
            let path = fields.path(names.transcription);
            let wanted = Fields::of(transcription, &path)?;
            next.language = wanted.text("language")?.map(str::to_owned);
            next.transcription_prompt = wanted.text("prompt")?.map(str::to_owned);
        }
        next.transcription = transcription.clone();
    }
    if let Some(reduction) = fields.raw(names.noise_reduction) {
        let path = fields.path(names.noise_reduction);
        next.cleaner.noise = parse_noise_reduction(reduction, &path)?;
    }
    if let Some(detection) = fields.raw("turn_detection") {
        next.turn_detection = TurnDetection::parse(detection, &fields.path("turn_detection"))?;
    }
    Ok(())
}

fn parse_noise_reduction(value: &Value, path: &str) -> Result<Option<NoiseReduction>, EventError> {
    if value.is_null() {
        return Ok(None);
    }
    let fields = Fields::of(value, path)?;
    match fields.required_text("type")? {
        "near_field" => Ok(Some(NoiseReduction::NearField)),
        "far_field" => Ok(Some(NoiseReduction::FarField)),
        other => Err(EventError::value(
            fields.path("type"),
            format!(
                "{other:?} is not a noise reduction: use near_field, far_field, or null for none"
            ),
        )),
    }
}

fn update_output(
    next: &mut SessionSettings,
    fields: Fields<'_>,
    format: &str,
    voices: &VoiceNames,
) -> Result<(), EventError> {
    if let Some(value) = fields.get(format) {
        next.output = AudioEncoding::parse(value, &fields.path(format))?;
    }
    if let Some(voice) = fields.get("voice") {
        let path = fields.path("voice");
        // A custom voice is an object with an id.
        let name = match voice {
            Value::String(name) => name.as_str(),
            _ => Fields::of(voice, &path)?.required_text("id")?,
        };
        next.voice = voices
            .resolve(name)
            .map_err(|message| EventError::value(path, message))?;
    }
    if let Some(speed) = fields.number("speed", 0.25..=4.0)? {
        next.speed = (speed as f32).clamp(0.5, 2.0);
    }
    Ok(())
}

pub(super) fn parse_tools(list: &[Value]) -> Result<Vec<Value>, EventError> {
    if list.len() > TOOLS_LIMIT {
        return Err(EventError::value(
            "session.tools",
            format!("{} tools are too many: at most {TOOLS_LIMIT}", list.len()),
        ));
    }
    for (index, tool) in list.iter().enumerate() {
        let path = format!("session.tools[{index}]");
        let fields = Fields::of(tool, &path)?;
        match fields.text("type")?.unwrap_or("function") {
            "function" => {
                fields.required_text("name")?;
            }
            other => {
                return Err(EventError::value(
                    fields.path("type"),
                    format!("tools of type {other:?} are not offered: only \"function\""),
                ));
            }
        }
    }
    Ok(list.to_vec())
}

pub(super) fn parse_tool_choice(choice: &Value) -> Result<Value, EventError> {
    match choice {
        Value::String(name) if ["auto", "none", "required"].contains(&name.as_str()) => {
            Ok(choice.clone())
        }
        Value::Object(Map { .. }) => {
            let fields = Fields::of(choice, "session.tool_choice")?;
            fields.required_text("name")?;
            Ok(choice.clone())
        }
        Value::String(name) => Err(EventError::value(
            "session.tool_choice",
            format!("{name:?} is not a tool choice: use auto, none, required, or a function"),
        )),
        other => Err(wrong("session.tool_choice", "a string or an object", other)),
    }
}

/// `Some(None)` is "inf".
pub(super) fn parse_token_limit(
    fields: Fields<'_>,
    name: &str,
) -> Result<Option<Option<u32>>, EventError> {
    if fields.get(name).and_then(Value::as_str) == Some("inf") {
        return Ok(Some(None));
    }
    Ok(fields
        .number(name, 1.0..=1_000_000.0)?
        .map(|limit| Some(limit as u32)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn voices() -> VoiceNames {
        VoiceNames {
            known: vec!["piper-en_US-joe-medium".into(), "tone".into()],
        }
    }

    fn settings() -> SessionSettings {
        SessionSettings::new("duologue", "Be brief.", "piper-en_US-joe-medium")
    }

    #[test]
    fn both_spellings_set_the_same() {
        let ga = json!({
            "type": "realtime",
            "output_modalities": ["text"],
            "audio": {
                "input": {"format": {"type": "audio/pcmu"}, "turn_detection": null,
                          "transcription": {"model": "whisper-1", "language": "en"}},
                "output": {"format": {"type": "audio/pcma"}, "voice": "tone"},
            },
            "max_output_tokens": 100,
        });
        let beta = json!({
            "modalities": ["text"],
            "input_audio_format": "g711_ulaw",
            "output_audio_format": "g711_alaw",
            "voice": "tone",
            "turn_detection": null,
            "input_audio_transcription": {"model": "whisper-1", "language": "en"},
            "max_response_output_tokens": 100,
        });
        let ga = apply_update(&settings(), &ga, &voices()).unwrap();
        assert_eq!(ga, apply_update(&settings(), &beta, &voices()).unwrap());
        assert_eq!(ga.language.as_deref(), Some("en"));
        assert_eq!(ga.turn_detection, TurnDetection::None);
        assert_eq!(ga.max_output_tokens, Some(100));
    }

    #[test]
    fn what_is_not_named_stays() {
        let before = SessionSettings {
            speed: 1.5,
            turn_detection: TurnDetection::None,
            ..settings()
        };
        let after = apply_update(&before, &json!({"instructions": "Be long."}), &voices()).unwrap();
        assert_eq!(
            after,
            SessionSettings {
                instructions: "Be long.".into(),
                ..before
            }
        );
    }

    #[test]
    fn a_stock_voice_name_means_the_default_and_an_unknown_one_lists_what_there_is() {
        let voice = |name: &str| apply_update(&settings(), &json!({"voice": name}), &voices());
        assert_eq!(voice("marin").unwrap().voice, "piper-en_US-joe-medium");
        let error = voice("grandma").unwrap_err();
        assert_eq!(error.param.as_deref(), Some("session.voice"));
        assert!(error.message.contains("tone"), "{error}");
    }

    #[test]
    fn errors_name_the_field() {
        let cases = [
            (json!({"instructions": 3}), "session.instructions"),
            (
                json!({"audio": {"input": {"format": {"type": "audio/ogg"}}}}),
                "session.audio.input.format",
            ),
            (
                json!({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 44100}}}}),
                "session.audio.input.format.rate",
            ),
            (
                json!({"turn_detection": {"type": "psychic"}}),
                "session.turn_detection.type",
            ),
            (
                json!({"turn_detection": {"type": "server_vad", "threshold": 7}}),
                "session.turn_detection.threshold",
            ),
            (
                json!({"tools": [{"type": "function"}]}),
                "session.tools[0].name",
            ),
            (
                json!({"audio": {"input": {"noise_reduction": {"type": "magic"}}}}),
                "session.audio.input.noise_reduction.type",
            ),
            (
                json!({"duologue": {"echo_cancellation": "loud"}}),
                "session.duologue.echo_cancellation",
            ),
            (json!({"tool_choice": "maybe"}), "session.tool_choice"),
            (json!({"modalities": []}), "session.modalities"),
            (json!([]), "session"),
        ];
        for (update, param) in cases {
            let error = apply_update(&settings(), &update, &voices()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{update}: {error}");
        }
    }

    #[test]
    fn the_session_object_can_be_sent_back_as_an_update() {
        for dialect in [Dialect::Ga, Dialect::Beta] {
            let shown = settings().to_json("sess_1", dialect);
            let again = apply_update(&settings(), &shown, &voices()).unwrap();
            assert_eq!(again.to_json("sess_1", dialect), shown);
        }
    }
}
