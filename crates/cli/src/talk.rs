//! `duologue talk`: a conversation with a server, by file, pipe or sound card.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::realtime::{BLOCK, BLOCK_TIME, Listener, Playout, RATE, Speaker, connect, read_sound};

/// Blocks between two reports of what was played: 100 ms.
const REPORT_EVERY: u64 = 5;

/// Talk to a server: a recorded question in, the spoken answer out, in real time
///
/// The output has the length of the whole conversation, silences and all, as it was heard. Several inputs are asked
/// one after the other, each when the answer before it has been heard.
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
        if self.input.is_empty() && self.text.is_none() {
            bail!("say what to say: --input FILE or --text TEXT (this build has no microphone)");
        }
        let mut questions = Vec::new();
        for path in &self.input {
            questions.push(self.read(path)?);
        }
        let (mut speaker, listener) = connect(&self.url).await?;
        speaker.send(&self.session_update()).await?;
        let mut conversation = Conversation {
            speaker,
            playout: Playout::default(),
            output: self
                .output
                .as_deref()
                .map(|path| {
                    duologue_audio::wav::WavWriter::create(path, RATE)
                        .with_context(|| format!("cannot write {}", path.display()))
                })
                .transpose()?,
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
            questions.push(Vec::new());
        }
        let timeout = Duration::from_secs(self.timeout);
        let outcome = conversation.hold(listener, questions, timeout).await;
        if let Some(output) = conversation.output.take() {
            output.finish()?;
        }
        conversation.speaker.close().await;
        outcome
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
        read_sound(path)
    }

    fn session_update(&self) -> Value {
        let mut session = json!({
            "type": "realtime",
            "audio": {
                "input": {"format": {"type": "audio/pcm", "rate": RATE}},
                "output": {"format": {"type": "audio/pcm", "rate": RATE}},
            },
            "duologue": {"events": true},
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

struct Conversation {
    speaker: Speaker,
    playout: Playout,
    output: Option<duologue_audio::wav::WavWriter>,
    show_events: bool,
    said: String,
}

impl Conversation {
    async fn hold(
        &mut self,
        mut listener: Listener,
        questions: Vec<Vec<i16>>,
        timeout: Duration,
    ) -> anyhow::Result<()> {
        let mut clock = interval(BLOCK_TIME);
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut questions = questions.into_iter();
        let mut question = questions.next().unwrap_or_default().into_iter();
        let mut asked_at = Instant::now();
        let mut answered = false;
        let mut ticks = 0;
        loop {
            tokio::select! {
                _ = clock.tick() => {
                    ticks += 1;
                    // After the question the microphone stays open, and hears silence.
                    let mut block = [0; BLOCK];
                    if question.len() > 0 {
                        block.iter_mut().zip(&mut question).for_each(|(place, sample)| *place = sample);
                        asked_at = Instant::now();
                    }
                    self.speaker.send_sound(&block).await?;
                    if !self.playout.is_silent() {
                        asked_at = Instant::now();
                    }
                    let heard = self.playout.block();
                    if let Some(output) = &mut self.output {
                        output.write(&heard)?;
                    }
                    if ticks % REPORT_EVERY == 0 && let Some(report) = self.playout.report() {
                        self.speaker.send(&report).await?;
                    }
                    if question.len() == 0 && answered && self.playout.is_silent() {
                        answered = false;
                        match questions.next() {
                            Some(next) => question = next.into_iter(),
                            None => return Ok(()),
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
