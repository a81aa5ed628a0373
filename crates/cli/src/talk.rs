//! `duologue talk`: a conversation with a server, by file, pipe or sound card.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use duologue_audio::wav::WavWriter;
use duologue_client::{BLOCK, BLOCK_TIME, Listener, Playout, RATE, Speaker, connect, read_sound};
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::secret::{API_KEY, secret};

/// Blocks between two reports of what was played: 100 ms.
const REPORT_EVERY: u64 = 5;

/// Talk to a server, in real time: with microphone and loudspeaker, or a recorded question in and the answer out
///
/// Without `--input` and `--text` it listens to the microphone, until Ctrl-C, where the build has the sound card
/// (`--features sound-card`); without `--output` the answer is played there. The server takes the loudspeaker's sound
/// out of what the microphone hears; headphones are better still. From files, the output has the length of the whole
/// conversation, silences and all, as it was heard. Several inputs are asked one after the other, each when the answer
/// before it has been heard.
#[derive(Args)]
pub struct TalkCommand {
    /// The server
    #[arg(
        long,
        env = "DUOLOGUE_URL",
        default_value = "ws://127.0.0.1:8080/v1/realtime",
        value_name = "URL"
    )]
    url: String,

    /// What to say: a sound file (wav, flac, mp3, ogg); `-` reads one from standard input
    #[arg(long, short, value_name = "FILE")]
    input: Vec<PathBuf>,

    /// Type this instead of speaking
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    text: Option<String>,

    /// Where what is heard goes: a WAV file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The microphone, instead of the system's choice
    #[cfg(feature = "sound-card")]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["input", "text"])]
    microphone: Option<String>,

    /// The loudspeaker, instead of the system's choice
    #[cfg(feature = "sound-card")]
    #[arg(long, value_name = "NAME")]
    loudspeaker: Option<String>,

    /// What the assistant is told to be
    #[arg(long, value_name = "TEXT")]
    instructions: Option<String>,

    /// The voice
    #[arg(long, value_name = "NAME")]
    voice: Option<String>,

    /// Print every event as a line of JSON, sound left out
    #[arg(long)]
    events: bool,

    /// Give up when nothing has been said for this many seconds, and the answer is still due
    #[arg(long, default_value_t = 60, value_name = "S")]
    timeout: u64,
}

impl TalkCommand {
    /// Holds the conversation.
    ///
    /// # Errors
    /// What went wrong with the server or a file.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut voice = self.voice()?;
        let ears = self.ears()?;
        let (mut speaker, listener) = connect(&self.url, secret(API_KEY)?.as_deref()).await?;
        // Loudspeaker and microphone in one room: the server takes the one out of the other.
        let echoes = voice.is_live() && ears.is_live();
        speaker.send(&self.settings(echoes)).await?;
        let mut conversation = Conversation {
            speaker,
            playout: Playout::default(),
            ears,
            show_events: self.events,
            said: String::new(),
        };
        if let Some(text) = &self.text {
            let item = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]});
            conversation
                .speaker
                .send(&json!({"type": "conversation.item.create", "item": item}))
                .await?;
            conversation
                .speaker
                .send(&json!({"type": "response.create"}))
                .await?;
        }
        let timeout = Duration::from_secs(self.timeout);
        let outcome = tokio::select! {
            outcome = conversation.hold(listener, &mut voice, timeout) => outcome,
            // The file is finished, and the server told.
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        conversation.ears.finish().await?;
        conversation.speaker.close().await;
        outcome
    }

    /// What speaks for the person.
    fn voice(&self) -> anyhow::Result<Voice> {
        if self.input.is_empty() && self.text.is_none() {
            #[cfg(feature = "sound-card")]
            return Ok(Voice::Microphone(crate::sound_card::Microphone::open(
                self.microphone.as_deref(),
            )?));
            #[cfg(not(feature = "sound-card"))]
            bail!(
                "say what to say: --input FILE or --text TEXT (this build has no microphone; \
                 `cargo build --release --features sound-card` has)"
            );
        }
        let mut questions = Vec::new();
        for path in &self.input {
            questions.push(self.read(path)?);
        }
        if self.text.is_some() {
            questions.push(Vec::new());
        }
        Ok(Voice::recorded(questions))
    }

    /// What hears for the person.
    fn ears(&self) -> anyhow::Result<Ears> {
        if let Some(path) = &self.output {
            let file = WavWriter::create(path, RATE)
                .with_context(|| format!("cannot write {}", path.display()))?;
            return Ok(Ears::File(file));
        }
        #[cfg(feature = "sound-card")]
        {
            let opened = crate::sound_card::Loudspeaker::open(self.loudspeaker.as_deref(), RATE);
            // What is asked from a file can be read; without a loudspeaker a person at a microphone is deaf.
            let asked =
                self.loudspeaker.is_some() || (self.input.is_empty() && self.text.is_none());
            match opened {
                Ok(loudspeaker) => return Ok(Ears::Loudspeaker(Box::new(loudspeaker))),
                Err(error) if asked => return Err(error),
                Err(error) => tracing::warn!("the answer is not played: {error:#}"),
            }
        }
        Ok(Ears::None)
    }

    fn read(&self, path: &std::path::Path) -> anyhow::Result<Vec<i16>> {
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes)
                .context("cannot read standard input")?;
            let recording = duologue_audio::decode_bytes(bytes)
                .context("on standard input")?
                .at_rate(RATE)?;
            return Ok(duologue_audio::pcm::f32_to_i16(&recording.samples));
        }
        Ok(read_sound(path)?)
    }

    fn settings(&self, echoes: bool) -> Value {
        let mut session = json!({
            "type": "realtime",
            "audio": {
                "input": {"format": {"type": "audio/pcm", "rate": RATE}},
                "output": {"format": {"type": "audio/pcm", "rate": RATE}},
            },
            "duologue": {"events": true, "echo_cancellation": echoes},
        });
        if let Some(instructions) = &self.instructions {
            session["instructions"] = json!(instructions);
        }
        if let Some(voice) = &self.voice {
            session["audio"]["output"]["voice"] = json!(voice);
        }
        json!({"type": "session.update", "session": session})
    }
}

/// What speaks for the person, a block at a time.
enum Voice {
    /// Questions, one after the other.
    Recorded {
        clock: Interval,
        question: std::vec::IntoIter<i16>,
        next: std::vec::IntoIter<Vec<i16>>,
    },
    #[cfg(feature = "sound-card")]
    Microphone(crate::sound_card::Microphone),
}

impl Voice {
    fn recorded(questions: Vec<Vec<i16>>) -> Self {
        let mut clock = interval(BLOCK_TIME);
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut next = questions.into_iter();
        Self::Recorded {
            clock,
            question: next.next().unwrap_or_default().into_iter(),
            next,
        }
    }

    /// The next 20 ms. Safe to drop.
    async fn block(&mut self) -> anyhow::Result<[i16; BLOCK]> {
        match self {
            Self::Recorded {
                clock, question, ..
            } => {
                clock.tick().await;
                // After the question the microphone stays open, and hears silence.
                let mut block = [0; BLOCK];
                block
                    .iter_mut()
                    .zip(question)
                    .for_each(|(place, sample)| *place = sample);
                Ok(block)
            }
            #[cfg(feature = "sound-card")]
            Self::Microphone(microphone) => microphone.next().await,
        }
    }

    /// Whether it is still asking. Nobody knows that of a person.
    fn is_asking(&self) -> bool {
        match self {
            Self::Recorded { question, .. } => question.len() > 0,
            #[cfg(feature = "sound-card")]
            Self::Microphone(_) => true,
        }
    }

    fn is_live(&self) -> bool {
        !matches!(self, Self::Recorded { .. })
    }

    /// Asks the next question; `false`: there is none.
    fn ask_next(&mut self) -> bool {
        match self {
            Self::Recorded { question, next, .. } => next
                .next()
                .map(|sound| *question = sound.into_iter())
                .is_some(),
            #[cfg(feature = "sound-card")]
            Self::Microphone(_) => true,
        }
    }
}

/// What hears for the person.
enum Ears {
    /// Nobody; the words are read.
    None,
    File(WavWriter),
    #[cfg(feature = "sound-card")]
    Loudspeaker(Box<crate::sound_card::Loudspeaker>),
}

impl Ears {
    fn is_live(&self) -> bool {
        !matches!(self, Self::None | Self::File(_))
    }

    fn hear(&mut self, block: &[i16]) -> anyhow::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::File(file) => Ok(file.write(block)?),
            #[cfg(feature = "sound-card")]
            Self::Loudspeaker(loudspeaker) => loudspeaker.play(block),
        }
    }

    async fn finish(&mut self) -> anyhow::Result<()> {
        match std::mem::replace(self, Self::None) {
            Self::None => Ok(()),
            Self::File(file) => Ok(file.finish()?),
            #[cfg(feature = "sound-card")]
            Self::Loudspeaker(loudspeaker) => loudspeaker.played().await,
        }
    }
}

struct Conversation {
    speaker: Speaker,
    playout: Playout,
    ears: Ears,
    show_events: bool,
    said: String,
}

impl Conversation {
    async fn hold(
        &mut self,
        mut listener: Listener,
        voice: &mut Voice,
        timeout: Duration,
    ) -> anyhow::Result<()> {
        let mut asked_at = Instant::now();
        let mut answered = false;
        let mut ticks = 0;
        loop {
            tokio::select! {
                block = voice.block() => {
                    ticks += 1;
                    self.speaker.send_sound(&block?).await?;
                    if voice.is_asking() || !self.playout.is_silent() {
                        asked_at = Instant::now();
                    }
                    let heard = self.playout.block();
                    self.ears.hear(&heard)?;
                    if ticks % REPORT_EVERY == 0 && let Some(report) = self.playout.report() {
                        self.speaker.send(&report).await?;
                    }
                    if !voice.is_asking() && answered && self.playout.is_silent() {
                        answered = false;
                        if !voice.ask_next() {
                            return Ok(());
                        }
                    }
                    if asked_at.elapsed() > timeout {
                        bail!("there was no answer for {} s", timeout.as_secs());
                    }
                }
                event = listener.next() => {
                    let Some(event) = event? else {
                        bail!("the server closed the connection");
                    };
                    self.playout.event(&event)?;
                    answered |= self.tell(&event)?;
                }
            }
        }
    }

    /// Shows an event to the person. Whether it ended an answer.
    fn tell(&mut self, event: &Value) -> anyhow::Result<bool> {
        let kind = event["type"].as_str().unwrap_or_default();
        let mut out = std::io::stdout().lock();
        if self.show_events {
            let mut shown = event.clone();
            if kind == "response.output_audio.delta" {
                let bytes = shown["delta"]
                    .as_str()
                    .map_or(0, |delta| delta.len() / 4 * 3);
                shown["delta"] = json!(format!("<{bytes} bytes>"));
            }
            writeln!(out, "{shown}")?;
        }
        match kind {
            "error" => bail!(
                "the server says: {}",
                event["error"]["message"].as_str().unwrap_or("error")
            ),
            "conversation.item.input_audio_transcription.completed" if !self.show_events => {
                writeln!(
                    out,
                    "you: {}",
                    event["transcript"].as_str().unwrap_or_default().trim()
                )?;
            }
            "response.output_audio_transcript.delta" => {
                self.said
                    .push_str(event["delta"].as_str().unwrap_or_default());
            }
            "response.done" => {
                let status = event["response"]["status"].as_str().unwrap_or_default();
                let said = std::mem::take(&mut self.said);
                if !self.show_events {
                    let cut = if status == "completed" {
                        String::new()
                    } else {
                        format!(" [{status}]")
                    };
                    writeln!(out, "duologue: {}{cut}", said.trim())?;
                }
                if status == "failed" {
                    let why = &event["response"]["status_details"]["error"]["message"];
                    bail!(
                        "the reply failed: {}",
                        why.as_str().unwrap_or("no reason was given")
                    );
                }
                return Ok(status == "completed" || status == "incomplete");
            }
            _ => {}
        }
        Ok(false)
    }
}
