//! A client that types its questions and listens to the answers in real time, as a loudspeaker does.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use duologue_client::{BLOCK, BLOCK_TIME, Listener, Speaker, connect};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::words::{self, Fate};
use crate::turns::endpoint;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(40);

/// A conversation, over whichever connections.
pub struct Conversation {
    speaker: Speaker,
    listener: Listener,
    token: Option<String>,
}

/// A reply, as it was heard.
#[derive(Debug, Default)]
pub struct Reply {
    /// Silence in the middle of it.
    pub gap: Duration,
    /// What became of its words.
    pub fate: Fate,
    /// How often another worker went on with it.
    pub failovers: usize,
    /// `completed`, if all is well.
    pub status: String,
    /// The words that the server holds for heard.
    pub heard: String,
    /// Lengths of the words that were heard, characters.
    pub tones: Vec<f64>,
}

impl Reply {
    /// Nothing went wrong that a listener or the history would know of.
    pub fn is_whole(&self, text: &str) -> bool {
        self.status == "completed" && self.fate.lost == 0 && self.heard == text
    }
}

/// How listening to a reply ended.
pub enum Heard {
    /// With its end.
    Reply(Box<Reply>),
    /// With the connection's, when so many words had been heard.
    Lost(usize),
}

impl Conversation {
    /// Begins one.
    pub async fn begin(url: &str, script: &str) -> anyhow::Result<Self> {
        let (speaker, listener) = connect(url, None).await?;
        let mut conversation = Self {
            speaker,
            listener,
            token: None,
        };
        let created = conversation.wait_for("session.created").await?;
        conversation.note_token(&created);
        let session = json!({
            "type": "realtime",
            "instructions": endpoint::instructions(script),
            "duologue": {"events": true},
        });
        let update = json!({"type": "session.update", "session": session});
        conversation.speaker.send(&update).await?;
        conversation.wait_for("session.updated").await?;
        Ok(conversation)
    }

    /// Goes on with it at another server, or the same. Gives the texts of its messages.
    pub async fn resume(&mut self, url: &str) -> anyhow::Result<Vec<String>> {
        let token = self.token.as_ref().context("the server gave no token")?;
        let address = format!(
            "{}/v1/realtime?duologue_resume={token}",
            url.trim_end_matches('/')
        );
        (self.speaker, self.listener) = connect(&address, None).await?;
        let created = self.wait_for("session.created").await?;
        self.note_token(&created);
        let duologue = &created["session"]["duologue"];
        if duologue["resumed"] != true {
            bail!("the server does not know the conversation: {duologue}");
        }
        let count = duologue["resumed_items"].as_u64().unwrap_or(0);
        let mut texts = Vec::new();
        while (texts.len() as u64) < count {
            let done = self.wait_for("conversation.item.done").await?;
            texts.push(text_of(&done["item"]));
        }
        Ok(texts)
    }

    /// Asks a question, and listens to the answer. `strike` is called once, when this much of it was heard.
    pub async fn ask(
        &mut self,
        question: &str,
        expected: &str,
        at: Duration,
        strike: impl AsyncFnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Heard> {
        let content = json!([{"type": "input_text", "text": question}]);
        let item = json!({"type": "message", "role": "user", "content": content});
        let create = json!({"type": "conversation.item.create", "item": item});
        let answer = json!({"type": "response.create"});
        for event in [create, answer] {
            if self.speaker.send(&event).await.is_err() {
                return Ok(Heard::Lost(0));
            }
        }
        self.listen(expected, at, strike).await
    }

    /// Listens to the reply that is under way.
    async fn listen(
        &mut self,
        expected: &str,
        at: Duration,
        strike: impl AsyncFnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Heard> {
        let mut strike = Some(strike);
        let mut reply = Reply::default();
        let mut sound: Vec<i16> = Vec::new();
        let mut played = 0;
        let mut all_sent = false;
        let mut clock = tokio::time::interval(BLOCK_TIME);
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let started = Instant::now();
        loop {
            tokio::select! {
                // What has come was there before the block is due.
                biased;
                event = self.listener.next() => {
                    let Ok(Some(event)) = event else {
                        return Ok(Heard::Lost(words::tones(&sound[..played]).len()));
                    };
                    match event["type"].as_str().unwrap_or_default() {
                        "response.output_audio.delta" => {
                            let delta = event["delta"].as_str().unwrap_or_default();
                            let bytes = STANDARD.decode(delta).context("the server sent sound that is not base64")?;
                            sound.extend(duologue_audio::pcm::le_bytes_to_i16(&bytes));
                        }
                        "response.output_audio.done" => all_sent = true,
                        "duologue.voice.failed_over" => reply.failovers += 1,
                        "duologue.ended" if event["reason"] == "shutdown" => {
                            return Ok(Heard::Lost(words::tones(&sound[..played]).len()));
                        }
                        "response.done" => {
                            let response = &event["response"];
                            reply.status = response["status"].as_str().unwrap_or_default().to_owned();
                            if reply.status == "failed" {
                                reply.status = format!("failed: {}", response["status_details"]["error"]["message"]);
                            }
                            reply.heard = response["duologue"]["heard"].as_str().unwrap_or_default().to_owned();
                            reply.tones = words::tones(&sound);
                            reply.fate = words::fate(expected, &reply.tones);
                            return Ok(Heard::Reply(Box::new(reply)));
                        }
                        "error" => bail!("the server says: {}", event["error"]["message"]),
                        _ => {}
                    }
                }
                _ = clock.tick() => {
                    if started.elapsed() > PATIENCE {
                        bail!("a reply did not end within {} s", PATIENCE.as_secs());
                    }
                    let ready = (sound.len() - played).min(BLOCK);
                    played += ready;
                    if played > 0 && ready < BLOCK && !all_sent {
                        reply.gap += BLOCK_TIME.mul_f64((BLOCK - ready) as f64 / BLOCK as f64);
                    }
                    if BLOCK_TIME * (played / BLOCK) as u32 >= at
                        && let Some(strike) = strike.take()
                    {
                        // The loudspeaker goes on meanwhile: the clock makes up for it.
                        strike().await?;
                    }
                }
            }
        }
    }

    /// Hangs up.
    pub async fn close(mut self) {
        self.speaker.close().await;
    }

    fn note_token(&mut self, created: &Value) {
        let token = created["session"]["duologue"]["resume_token"].as_str();
        self.token = token.map(str::to_owned);
    }

    async fn wait_for(&mut self, kind: &str) -> anyhow::Result<Value> {
        let listener = &mut self.listener;
        let waiting = async {
            while let Some(event) = listener.next().await? {
                match event["type"].as_str().unwrap_or_default() {
                    "error" => bail!("the server says: {}", event["error"]["message"]),
                    came if came == kind => return Ok(event),
                    _ => {}
                }
            }
            bail!("the server closed the connection before {kind}")
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .with_context(|| format!("the server sent no {kind}"))?
    }
}

/// The words of an item.
fn text_of(item: &Value) -> String {
    let parts = item["content"].as_array().map(Vec::as_slice);
    let text = |part: &Value| {
        let text = part["text"].as_str().or(part["transcript"].as_str());
        text.unwrap_or_default().to_owned()
    };
    let texts: Vec<String> = parts.unwrap_or_default().iter().map(text).collect();
    texts.join(" ")
}
