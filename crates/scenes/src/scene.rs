//! A scene, as its file says it.

use serde::Deserialize;

use crate::moment::{Anchor, Moment, is_name};
use crate::trace::Happening;

/// Who says what when, over what; and what must come of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scene {
    /// What it is called; the file's name and the values of its matrix.
    #[serde(default)]
    pub name: String,
    /// What it is about, for people.
    pub about: String,
    /// What is measured by it.
    pub kind: Kind,
    /// What the assistant says, reply by reply; the last one again and again.
    pub replies: Vec<Reply>,
    /// What is done, in any order.
    pub script: Vec<Step>,
    /// Noise from the beginning to the end.
    #[serde(default)]
    pub background: Option<Background>,
    /// What the client plays comes back into what it sends.
    #[serde(default)]
    pub echo: Option<Echo>,
    /// How the client behaves.
    #[serde(default)]
    pub client: Client,
    /// What must happen.
    #[serde(default)]
    pub expect: Vec<Expectation>,
    /// What must not.
    #[serde(default)]
    pub absent: Vec<Absence>,
    /// Seconds of rest that end the scene.
    #[serde(default = "tail")]
    pub tail: f64,
}

fn tail() -> f64 {
    1.0
}

/// What a scene's figures count towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Somebody really interrupts.
    Interruption,
    /// "Right", "yes": the reply goes on.
    Backchannel,
    /// A cough, a door.
    Sound,
    /// Music nearby.
    Music,
    /// Typing, dishes: small sounds in a row.
    Clatter,
    /// Other people, far off.
    Babble,
    /// The client hears its own loudspeaker.
    Echo,
    /// The client pauses, resumes, stops.
    Control,
    /// A question with a pause inside.
    HalfAsked,
    /// A turn that is short and over.
    Answer,
    /// An ordinary question.
    Question,
}

impl Kind {
    /// All of them, in the order of reports.
    pub const ALL: [Kind; 11] = [
        Kind::Interruption,
        Kind::Backchannel,
        Kind::Sound,
        Kind::Music,
        Kind::Clatter,
        Kind::Babble,
        Kind::Echo,
        Kind::Control,
        Kind::HalfAsked,
        Kind::Answer,
        Kind::Question,
    ];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interruption => "interruption",
            Self::Backchannel => "backchannel",
            Self::Sound => "sound",
            Self::Music => "music",
            Self::Clatter => "clatter",
            Self::Babble => "babble",
            Self::Echo => "echo",
            Self::Control => "control",
            Self::HalfAsked => "half-asked",
            Self::Answer => "answer",
            Self::Question => "question",
        }
    }

    /// Whether the reply should go on in it, whatever is heard.
    #[must_use]
    pub fn is_harmless(self) -> bool {
        matches!(
            self,
            Self::Backchannel
                | Self::Sound
                | Self::Music
                | Self::Clatter
                | Self::Babble
                | Self::Echo
        )
    }
}

/// What the assistant says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The words.
    pub text: String,
    /// Milliseconds until its first word is written.
    #[serde(default = "think_ms")]
    pub think_ms: u64,
}

fn think_ms() -> u64 {
    150
}

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When. For sound: when its first sample that can be heard is sent.
    pub at: Moment,
    /// What it is called in moments.
    #[serde(default)]
    pub name: Option<String>,
    /// The user says this: a clip, or clips and the seconds of silence between them.
    #[serde(default)]
    say: Option<OneOrMany>,
    /// A sound that is not the user's speech: a clip, or clips and pauses.
    #[serde(default)]
    sound: Option<OneOrMany>,
    /// The user writes this and wants an answer.
    #[serde(default, rename = "type")]
    typed: Option<String>,
    /// The client's hand on the reply.
    #[serde(default, rename = "do")]
    control: Option<Control>,
    /// Loudness of its sound, dBFS, over what of it can be heard.
    #[serde(default)]
    pub level: Option<f32>,
    /// Only these seconds of the clip, counted from its first sound.
    #[serde(default)]
    pub cut: Option<(f64, f64)>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<Spoken>),
}

/// A clip, or a pause.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Spoken {
    /// Seconds of silence.
    Pause(f64),
    /// A file, such as `speech/jfk.flac`.
    Clip(String),
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Act<'a> {
    /// The user speaks.
    Say(Vec<Spoken>),
    /// Something else sounds.
    Sound(Vec<Spoken>),
    /// The user writes.
    Type(&'a str),
    /// The client acts.
    Control(Control),
}

/// A client's hand on the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// `duologue.pause`
    Pause,
    /// `duologue.resume`
    Resume,
    /// `response.cancel`
    Cancel,
    /// `output_audio_buffer.clear`
    Stop,
}

/// Loudness of speech, unless a step says otherwise: dBFS over what of it is speech.
pub const SPEECH_LEVEL: f32 = -26.0;
/// Loudness of other sounds.
pub const SOUND_LEVEL: f32 = -30.0;

impl Step {
    /// What it does. Scenes that were checked have exactly one thing to do in each step.
    #[must_use]
    pub fn act(&self) -> Act<'_> {
        let many = |what: &OneOrMany| match what {
            OneOrMany::One(clip) => vec![Spoken::Clip(clip.clone())],
            OneOrMany::Many(parts) => parts.clone(),
        };
        if let Some(say) = &self.say {
            Act::Say(many(say))
        } else if let Some(sound) = &self.sound {
            Act::Sound(many(sound))
        } else if let Some(text) = &self.typed {
            Act::Type(text)
        } else {
            Act::Control(self.control.unwrap_or(Control::Pause))
        }
    }

    /// Loudness of its sound, dBFS.
    #[must_use]
    pub fn loudness(&self) -> f32 {
        self.level.unwrap_or(if self.say.is_some() {
            SPEECH_LEVEL
        } else {
            SOUND_LEVEL
        })
    }
}

/// Noise under a whole scene.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Background {
    /// A file, which is played over and over.
    pub noise: String,
    /// How much louder speech of the usual loudness is, dB: speech over what of it is speech, noise over all of it.
    pub snr: f32,
}

/// The way from the client's loudspeaker to its microphone.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Echo {
    /// Milliseconds until it comes back.
    pub delay_ms: f64,
    /// How much softer it comes back, dB.
    pub attenuation_db: f32,
    /// Seconds in which the room's answer falls by 60 dB; 0 is no room.
    #[serde(default)]
    pub reverberation: f64,
}

/// How a client behaves.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Client {
    /// Milliseconds of sound that it gathers before it plays.
    pub buffer_ms: u64,
    /// It reports what it has played.
    pub reports: bool,
    /// It asks for Duologue's own events and heeds them.
    pub events: bool,
    /// When it hears of speech it drops what it has and truncates the message, as stock clients do.
    pub truncates: bool,
}

impl Default for Client {
    /// Plays after 40 ms, reports, heeds Duologue's events.
    fn default() -> Self {
        Self {
            buffer_ms: 40,
            reports: true,
            events: true,
            truncates: false,
        }
    }
}

/// Something that must happen.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// What.
    #[serde(deserialize_with = "happening")]
    pub event: Happening,
    /// From when on; the scene's start when left out.
    #[serde(default = "start")]
    pub since: Moment,
    /// How soon after that.
    pub within_ms: u64,
}

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Absence {
    /// What.
    #[serde(deserialize_with = "happening")]
    pub event: Happening,
    /// From when on; the scene's start when left out.
    #[serde(default = "start")]
    pub since: Moment,
    /// Until when; the scene's end when left out.
    #[serde(default)]
    pub until: Option<Moment>,
}

fn start() -> Moment {
    Moment::at(0.0)
}

fn happening<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Happening, D::Error> {
    let name = String::deserialize(deserializer)?;
    Happening::named(&name).ok_or_else(|| {
        let known: Vec<&str> = Happening::NAMES.iter().map(|(name, _)| *name).collect();
        serde::de::Error::custom(format!(
            "{name:?} is nothing that happens; one of {}",
            known.join(", ")
        ))
    })
}

impl Scene {
    /// A step of that name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.script
            .iter()
            .find(|step| step.name.as_deref() == Some(name))
    }

    /// Whether it can be played: what the file's grammar cannot say.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), String> {
        if self.replies.is_empty() {
            return Err("replies is empty: say what the assistant says".to_owned());
        }
        if self.script.is_empty() {
            return Err("script is empty: nothing would happen".to_owned());
        }
        if !(0.0..=60.0).contains(&self.tail) {
            return Err(format!("tail is {}; 0 to 60 seconds", self.tail));
        }
        for (at, step) in self.script.iter().enumerate() {
            let number = at + 1;
            let acts = [
                step.say.is_some(),
                step.sound.is_some(),
                step.typed.is_some(),
                step.control.is_some(),
            ];
            if acts.iter().filter(|is| **is).count() != 1 {
                return Err(format!(
                    "step {number} must have one of `say`, `sound`, `type` and `do`"
                ));
            }
            if let Act::Say(parts) | Act::Sound(parts) = step.act() {
                if !parts.iter().any(|part| matches!(part, Spoken::Clip(_))) {
                    return Err(format!("step {number} names no clip"));
                }
                for part in &parts {
                    if let Spoken::Pause(pause) = part
                        && !(0.0..=30.0).contains(pause)
                    {
                        return Err(format!("step {number} has a pause of {pause} s; 0 to 30"));
                    }
                }
            }
            if step.cut.is_some_and(|(from, to)| from < 0.0 || to <= from) {
                return Err(format!(
                    "step {number} cuts nothing out: write cut: [from, to]"
                ));
            }
            if let Some(name) = &step.name {
                if !is_name(name) {
                    return Err(format!("step {number} cannot be called {name:?}"));
                }
                if self
                    .script
                    .iter()
                    .filter(|other| other.name.as_ref() == Some(name))
                    .count()
                    > 1
                {
                    return Err(format!("two steps are called {name:?}"));
                }
            }
        }
        let moments = self
            .script
            .iter()
            .map(|step| &step.at)
            .chain(self.expect.iter().map(|expected| &expected.since))
            .chain(
                self.absent
                    .iter()
                    .flat_map(|absent| std::iter::once(&absent.since).chain(&absent.until)),
            );
        for moment in moments {
            if let Some(name) = moment.step()
                && self.step(name).is_none()
            {
                return Err(format!("`{moment}`: no step is called {name:?}"));
            }
            let (word, reply) = match &moment.anchor {
                Anchor::Word(word, reply) => (Some(word), *reply),
                Anchor::LastWord(reply) => (None, *reply),
                _ => continue,
            };
            let text = &self.replies[(reply - 1).min(self.replies.len() - 1)].text;
            if word.is_some_and(|word| !words(text).any(|known| known == *word)) {
                return Err(format!("`{moment}`: the reply does not say that word"));
            }
        }
        Ok(())
    }
}

/// What a step without a name is called, by its place in the script.
pub(crate) fn unnamed(at: usize) -> String {
    format!("step-{}", at + 1)
}

/// The words of a text in lower case, without punctuation around them.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().filter_map(|word| {
        let word = word
            .trim_matches(|c: char| !c.is_alphanumeric())
            .to_lowercase();
        (!word.is_empty()).then_some(word)
    })
}
