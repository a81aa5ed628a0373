//! `duologue say`: text to speech, to a file or a pipe, as it is made.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use duologue_audio::{Frame, SAMPLE_RATE, pcm, wav};
use duologue_llm::speakable::{ClauseRules, Speakable};
use duologue_orchestrator::voice::{VoiceChoice, VoiceClient};
use duologue_voicepack::VoicepackStore;
use duologue_worker::{Worker, WorkerConfig};

use crate::models;
use crate::worker_tls::ReachOptions;

/// Speak a text: play it, or write it to a WAV file or a pipe, while it is made
///
/// Without `--output` it is played, where the build has the sound card (`--features sound-card`). Elsewhere
/// `duologue say "Good morning." -o - | aplay` does the same.
#[derive(Args)]
pub struct SayCommand {
    /// The text; without it, standard input
    text: Option<String>,

    /// A WAV file instead of the loudspeaker; `-` is standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The loudspeaker, instead of the system's choice
    #[cfg(feature = "sound-card")]
    #[arg(long, value_name = "NAME", conflicts_with = "output")]
    loudspeaker: Option<String>,

    /// The voice: a voicepack's name, `voicepack:speaker`, or `tone`
    #[arg(
        long,
        short,
        env = "DUOLOGUE_VOICE",
        default_value = "piper-en_US-joe-medium",
        value_name = "NAME"
    )]
    voice: String,

    /// Rate of speech, 0.5 to 2.0
    #[arg(long, default_value_t = 1.0, value_name = "RATE")]
    speed: f32,

    /// A TTS worker elsewhere, such as `http://10.0.0.5:50051`
    #[arg(long, env = "DUOLOGUE_WORKER", value_name = "URL")]
    worker: Option<String>,

    #[command(flatten)]
    reach: ReachOptions,

    /// Print when each word is spoken, as `seconds word`, to standard error
    #[arg(long)]
    words: bool,
}

impl SayCommand {
    /// Speaks.
    ///
    /// # Errors
    /// What is wrong with the voice, the text or the file.
    pub async fn run(self) -> anyhow::Result<()> {
        let text = match &self.text {
            Some(text) => text.clone(),
            None => {
                let mut text = String::new();
                std::io::stdin()
                    .lock()
                    .read_to_string(&mut text)
                    .context("cannot read the text from standard input")?;
                text
            }
        };
        if text.trim().is_empty() {
            bail!("there is no text to speak");
        }
        let mut sink = self.sink()?;
        let choice = VoiceChoice::parse(&self.voice, self.speed);
        let client = self.client(&choice.voice).await?;
        let started = Instant::now();
        let session = client
            .open("say".into(), choice, Duration::from_secs(3_600))
            .await?;
        let mut speakable = Speakable::new("en", ClauseRules::default());
        let mut clauses = speakable.push(&text);
        clauses.extend(speakable.finish());
        let mut utterance = session.speak("say");
        let feed = utterance.text;
        tokio::spawn(async move {
            for clause in clauses
                .into_iter()
                .filter(|clause| !clause.spoken.trim().is_empty())
            {
                if feed.send(clause.spoken).await.is_err() {
                    return;
                }
            }
        });
        let mut first = None;
        let mut frames = 0_u64;
        while let Some(frame) = utterance.frames.recv().await {
            let frame = frame?;
            first.get_or_insert_with(|| started.elapsed());
            frames += 1;
            if self.words {
                for word in &frame.words {
                    eprintln!(
                        "{:8.3} {}",
                        word.start_sample as f64 / f64::from(SAMPLE_RATE),
                        word.word
                    );
                }
            }
            let frame = Frame::from_le_bytes(&frame.pcm)
                .context("the worker sent a frame of the wrong length")?;
            sink.write(&frame.0).await?;
        }
        sink.finish().await?;
        if let Some(first) = first {
            tracing::info!(
                first_audio_ms = first.as_millis() as u64,
                seconds = frames as f64 / 50.0,
                real_time_factor = format!(
                    "{:.3}",
                    started.elapsed().as_secs_f64() / (frames as f64 / 50.0)
                ),
                "spoken"
            );
        }
        Ok(())
    }

    fn sink(&self) -> anyhow::Result<Sink> {
        match self.output.as_deref() {
            Some(path) => Sink::open(path),
            #[cfg(feature = "sound-card")]
            None => Ok(Sink::Loudspeaker(crate::sound_card::Loudspeaker::open(
                self.loudspeaker.as_deref(),
                SAMPLE_RATE,
            )?)),
            #[cfg(not(feature = "sound-card"))]
            None => bail!(
                "say where to: --output FILE, or `-o - | aplay` (this build has no loudspeaker; \
                 `cargo build --release --features sound-card` has)"
            ),
        }
    }

    async fn client(&self, voice: &str) -> anyhow::Result<VoiceClient> {
        if let Some(url) = &self.worker {
            let channel = self
                .reach
                .reach()?
                .to(url)?
                .connect()
                .await
                .with_context(|| format!("cannot reach the TTS worker at {url}"))?;
            return Ok(VoiceClient::new(channel));
        }
        if voice != "tone" {
            models::ensure(&[voice.to_owned()]).await?;
        }
        let config = WorkerConfig {
            default_voice: Some(voice.to_owned()),
            ..WorkerConfig::default()
        };
        let worker = Worker::start(config, VoicepackStore::open_default()?).await?;
        Ok(VoiceClient::new(worker.channel()))
    }
}

/// A WAV file, a stream of one whose length is not known when it begins, or the person's ears.
enum Sink {
    File(wav::WavWriter),
    Pipe,
    #[cfg(feature = "sound-card")]
    Loudspeaker(crate::sound_card::Loudspeaker),
}

impl Sink {
    fn open(path: &std::path::Path) -> anyhow::Result<Self> {
        if path.as_os_str() == "-" {
            std::io::stdout().write_all(&wav::header(SAMPLE_RATE, None))?;
            return Ok(Self::Pipe);
        }
        let writer = wav::WavWriter::create(path, SAMPLE_RATE)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self::File(writer))
    }

    async fn write(&mut self, samples: &[i16]) -> anyhow::Result<()> {
        match self {
            #[cfg(feature = "sound-card")]
            Self::Loudspeaker(loudspeaker) => {
                loudspeaker.has_room().await?;
                loudspeaker.play(samples)
            }
            Self::File(writer) => writer.write(samples).context("cannot write the file"),
            Self::Pipe => {
                let mut out = std::io::stdout().lock();
                out.write_all(&pcm::i16_to_le_bytes(samples))
                    .and_then(|()| out.flush())
                    .context("nobody reads the output")
            }
        }
    }

    async fn finish(self) -> anyhow::Result<()> {
        match self {
            #[cfg(feature = "sound-card")]
            Self::Loudspeaker(loudspeaker) => loudspeaker.played().await,
            Self::File(writer) => writer.finish().context("cannot write the file"),
            Self::Pipe => Ok(()),
        }
    }
}
