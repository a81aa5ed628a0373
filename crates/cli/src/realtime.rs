//! A client of `/v1/realtime`, for `talk` and `bench`: a microphone that streams in real time, a loudspeaker that
//! plays in real time, and the events in between.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Samples a second in both directions.
pub const RATE: u32 = 24_000;
/// What the microphone sends at a time, and the loudspeaker plays.
pub const BLOCK: usize = RATE as usize / 50;
/// How long a block lasts.
pub const BLOCK_TIME: Duration = Duration::from_millis(20);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Sends client events.
pub struct Speaker(SplitSink<Socket, Message>);

/// Receives server events.
pub struct Listener(SplitStream<Socket>);

/// Connects to a server, such as `ws://127.0.0.1:8080/v1/realtime`.
///
/// # Errors
/// What is wrong with the address or the server.
pub async fn connect(url: &str) -> anyhow::Result<(Speaker, Listener)> {
    let url = &realtime_address(url);
    let mut request = url.as_str().into_client_request().with_context(|| {
        format!("{url:?} is not an address; write it as ws://host:port/v1/realtime")
    })?;
    if let Some(key) = crate::secret::secret("DUOLOGUE_API_KEY")? {
        let bearer = format!("Bearer {key}")
            .parse()
            .context("DUOLOGUE_API_KEY is not a key")?;
        request.headers_mut().insert("authorization", bearer);
    }
    match tokio_tungstenite::connect_async(request).await {
        Ok((socket, _)) => {
            let (sink, stream) = socket.split();
            Ok((Speaker(sink), Listener(stream)))
        }
        Err(WsError::Http(response)) => {
            let body = response
                .body()
                .as_deref()
                .map(String::from_utf8_lossy)
                .unwrap_or_default();
            let told = serde_json::from_str::<Value>(&body)
                .ok()
                .and_then(|body| body["error"]["message"].as_str().map(str::to_owned))
                .unwrap_or_else(|| body.trim().to_owned());
            bail!("{url} answered {}: {told}", response.status())
        }
        Err(error) => Err(error)
            .with_context(|| format!("cannot reach {url}; start the server with `duologue serve`")),
    }
}

/// The address of the conversation on a server whose page's address was given.
fn realtime_address(url: &str) -> String {
    let url = match url.strip_prefix("http") {
        Some(rest) => format!("ws{rest}"),
        None => url.to_owned(),
    };
    let path = url
        .split_once("://")
        .map_or("", |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
    match path {
        "" | "/" => format!("{}/v1/realtime", url.trim_end_matches('/')),
        _ => url,
    }
}

impl Speaker {
    /// Sends an event.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, event: &Value) -> anyhow::Result<()> {
        self.0
            .send(Message::Text(event.to_string().into()))
            .await
            .context("the connection broke")
    }

    /// Sends sound.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send_sound(&mut self, samples: &[i16]) -> anyhow::Result<()> {
        let audio = STANDARD.encode(duologue_audio::pcm::i16_to_le_bytes(samples));
        self.send(&json!({"type": "input_audio_buffer.append", "audio": audio}))
            .await
    }

    /// Says good-bye.
    pub async fn close(&mut self) {
        // The other side may have gone first.
        let _ = self.0.close().await;
    }
}

impl Listener {
    /// The next event; `None` when the server has closed.
    ///
    /// # Errors
    /// When the connection breaks or what comes is not an event.
    pub async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            return match self.0.next().await {
                Some(Ok(Message::Text(text))) => Ok(Some(
                    serde_json::from_str(&text).context("the server sent what is not JSON")?,
                )),
                Some(Ok(Message::Close(_))) | None => Ok(None),
                Some(Ok(_)) => continue,
                Some(Err(error)) => Err(error).context("the connection broke"),
            };
        }
    }
}

/// A loudspeaker: what has come and is not played, and how far each item has been played.
#[derive(Default)]
pub struct Playout {
    queue: VecDeque<i16>,
    item: Option<String>,
    played: u64,
    received: u64,
    held: bool,
}

impl Playout {
    /// Takes an event; the sound in it waits to be played.
    ///
    /// # Errors
    /// Sound that is not base64.
    pub fn event(&mut self, event: &Value) -> anyhow::Result<()> {
        match event["type"].as_str().unwrap_or_default() {
            "response.output_audio.delta" => {
                let item = event["item_id"].as_str().unwrap_or_default();
                if self.item.as_deref() != Some(item) {
                    self.item = Some(item.to_owned());
                    self.played = 0;
                    self.held = false;
                }
                let bytes = STANDARD
                    .decode(event["delta"].as_str().unwrap_or_default())
                    .context("the server sent sound that is not base64")?;
                let samples = duologue_audio::pcm::le_bytes_to_i16(&bytes);
                self.received += samples.len() as u64;
                self.queue.extend(samples);
            }
            "duologue.playout.pause" => self.held = true,
            "duologue.playout.resume" => {
                // What follows starts there; what was held is sent again.
                self.held = false;
                self.queue.clear();
                if let Some(ms) = event["audio_start_ms"].as_u64() {
                    self.played = ms * u64::from(RATE) / 1_000;
                }
            }
            "duologue.playout.clear" => {
                self.held = false;
                self.queue.clear();
            }
            _ => {}
        }
        Ok(())
    }

    /// The next block; silence where there is nothing to play.
    pub fn block(&mut self) -> [i16; BLOCK] {
        let mut block = [0; BLOCK];
        if !self.held {
            let ready = self.queue.len().min(BLOCK);
            for (place, sample) in block.iter_mut().zip(self.queue.drain(..ready)) {
                *place = sample;
            }
            self.played += ready as u64;
        }
        block
    }

    /// Whether there is nothing to play.
    pub fn is_silent(&self) -> bool {
        self.held || self.queue.is_empty()
    }

    /// Samples that have come so far, of all items.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the server has asked for silence.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// A `duologue.playout` report.
    pub fn report(&self) -> Option<Value> {
        let item = self.item.as_ref()?;
        let ms = self.played as f64 * 1_000.0 / f64::from(RATE);
        Some(
            json!({"type": "duologue.playout", "item_id": item, "content_index": 0, "audio_end_ms": ms}),
        )
    }
}

/// Reads a sound file as the microphone's samples.
///
/// # Errors
/// What is wrong with the file.
pub fn read_sound(path: &std::path::Path) -> anyhow::Result<Vec<i16>> {
    let recording = duologue_audio::decode_file(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .at_rate(RATE)?;
    Ok(duologue_audio::pcm::f32_to_i16(&recording.samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_page_is_enough() {
        for given in [
            "http://a:1",
            "http://a:1/",
            "ws://a:1",
            "ws://a:1/v1/realtime",
        ] {
            assert_eq!(realtime_address(given), "ws://a:1/v1/realtime");
        }
        assert_eq!(realtime_address("https://a/x?y=1"), "wss://a/x?y=1");
    }

    #[test]
    fn a_held_loudspeaker_is_silent_and_goes_on_with_what_is_sent_again() -> anyhow::Result<()> {
        let sound = |value: i16, blocks: usize| {
            let samples = vec![value; blocks * BLOCK];
            let delta = STANDARD.encode(duologue_audio::pcm::i16_to_le_bytes(&samples));
            json!({"type": "response.output_audio.delta", "item_id": "i", "delta": delta})
        };
        let mut playout = Playout::default();
        playout.event(&sound(1, 3))?;
        assert_eq!(playout.block(), [1; BLOCK]);
        playout.event(&json!({"type": "duologue.playout.pause"}))?;
        assert_eq!(playout.block(), [0; BLOCK]);
        playout.event(&json!({"type": "duologue.playout.resume", "audio_start_ms": 10}))?;
        playout.event(&sound(2, 1))?;
        assert_eq!(playout.block(), [2; BLOCK]);
        assert_eq!(
            playout
                .report()
                .map(|report| report["audio_end_ms"].clone()),
            Some(json!(30.0))
        );
        playout.event(&sound(3, 1))?;
        playout.event(&json!({"type": "duologue.playout.clear"}))?;
        assert!(playout.is_silent());
        Ok(())
    }
}
