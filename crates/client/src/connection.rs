//! The connection: client events out, server events in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::ClientError;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Sends client events.
pub struct Speaker(SplitSink<Socket, Message>);

/// Receives server events.
pub struct Listener(SplitStream<Socket>);

/// Connects to a server, such as `ws://127.0.0.1:8080/v1/realtime`; the address of its page is enough. `key`: what the
/// server asks for, if it does.
///
/// # Errors
/// [`ClientError`]: what is wrong with the address, the key or the server.
pub async fn connect(url: &str, key: Option<&str>) -> Result<(Speaker, Listener), ClientError> {
    let url = realtime_address(url);
    let mut request = match url.as_str().into_client_request() {
        Ok(request) => request,
        Err(error) => {
            return Err(ClientError::Address {
                url,
                source: Box::new(error),
            });
        }
    };
    if let Some(key) = key {
        let bearer = format!("Bearer {key}").parse().map_err(ClientError::Key)?;
        request.headers_mut().insert("authorization", bearer);
    }
    match tokio_tungstenite::connect_async(request).await {
        Ok((socket, _)) => {
            let (sink, stream) = socket.split();
            Ok((Speaker(sink), Listener(stream)))
        }
        Err(WsError::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            Err(ClientError::Refused {
                url,
                status: response.status(),
                message: told(&String::from_utf8_lossy(body)),
            })
        }
        Err(error) => Err(ClientError::Unreachable {
            url,
            source: Box::new(error),
        }),
    }
}

/// What the body of a refusal says.
fn told(body: &str) -> String {
    serde_json::from_str::<Value>(body)
        .ok()
        .and_then(|body| body["error"]["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| body.trim().to_owned())
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
    pub async fn send(&mut self, event: &Value) -> Result<(), ClientError> {
        self.0
            .send(Message::Text(event.to_string().into()))
            .await
            .map_err(broken)
    }

    /// Sends sound.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send_sound(&mut self, samples: &[i16]) -> Result<(), ClientError> {
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
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            return match self.0.next().await {
                Some(Ok(Message::Text(text))) => Ok(Some(
                    serde_json::from_str(&text).map_err(ClientError::NotJson)?,
                )),
                Some(Ok(Message::Close(_))) | None => Ok(None),
                Some(Ok(_)) => continue,
                Some(Err(error)) => Err(broken(error)),
            };
        }
    }
}

fn broken(error: WsError) -> ClientError {
    ClientError::Broken(Box::new(error))
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
    fn a_refusal_is_told_in_the_servers_words_or_as_it_came() {
        assert_eq!(told(r#"{"error": {"message": "full"}}"#), "full");
        assert_eq!(told(r#"{"message": "full"}"#), r#"{"message": "full"}"#);
        assert_eq!(told("Bad Gateway\n"), "Bad Gateway");
    }
}
