//! A WebSocket to a LiveKit server that carries protobuf messages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::error::ConnectError;

/// Name look-up, TCP, TLS and the server's first answer.
const CONNECT: Duration = Duration::from_secs(10);
/// A server that does not take a message for so long has gone.
const SEND: Duration = Duration::from_secs(5);
/// Messages that may wait in either direction.
const QUEUE: usize = 256;

/// The connection has ended, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Broken(pub String);

pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// A LiveKit server's address as it was given, with a path and query of ours.
///
/// # Errors
/// [`ConnectError::Address`].
pub(crate) fn address(server: &str, path: &str) -> Result<String, ConnectError> {
    let bad = || ConnectError::Address(server.to_owned());
    let (scheme, rest) = server.trim().split_once("://").ok_or_else(bad)?;
    let scheme = match scheme {
        "ws" | "http" => "ws",
        "wss" | "https" => "wss",
        _ => return Err(bad()),
    };
    let rest = rest
        .split(['?', '#'])
        .next()
        .unwrap_or_default()
        .trim_end_matches('/');
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() || host.contains([' ', '@']) {
        return Err(bad());
    }
    Ok(format!("{scheme}://{rest}{path}"))
}

impl Socket {
    /// Connects.
    ///
    /// # Errors
    /// [`ConnectError`]: which of the many reasons it is.
    pub async fn connect(url: &str, token: &str, room: Option<&str>) -> Result<Self, ConnectError> {
        let shown = url.split('?').next().unwrap_or_default().to_owned();
        let mut request = url
            .into_client_request()
            .map_err(|_| ConnectError::Address(shown.clone()))?;
        let bearer = format!("Bearer {token}").parse().map_err(|_| {
            ConnectError::Token("the LiveKit token has characters that no token has".into())
        })?;
        request.headers_mut().insert("authorization", bearer);
        let unreachable = |reason: String| ConnectError::Unreachable {
            address: shown.clone(),
            reason,
        };
        match tokio::time::timeout(CONNECT, tokio_tungstenite::connect_async(request)).await {
            Ok(Ok((stream, _))) => Ok(Self { stream }),
            Ok(Err(WsError::Http(answer))) => {
                let body = answer
                    .body()
                    .as_deref()
                    .map(String::from_utf8_lossy)
                    .unwrap_or_default();
                let skew = skew(answer.headers());
                Err(ConnectError::from_answer(
                    &shown,
                    room,
                    answer.status().as_u16(),
                    &body,
                    skew,
                ))
            }
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable(format!(
                "no answer within {} s",
                CONNECT.as_secs()
            ))),
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn send(&mut self, message: &impl prost::Message) -> Result<(), Broken> {
        let message = Message::Binary(message.encode_to_vec().into());
        match tokio::time::timeout(SEND, self.stream.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Broken(error.to_string())),
            Err(_) => Err(Broken("the server takes nothing".into())),
        }
    }

    /// The next message. Safe to drop.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn receive<M: prost::Message + Default>(&mut self) -> Result<M, Broken> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Binary(bytes))) => match M::decode(bytes) {
                    Ok(message) => return Ok(message),
                    // A newer server may send what we do not know.
                    Err(error) => {
                        tracing::debug!(%error, "a message of the LiveKit server cannot be read")
                    }
                },
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame
                        .map(|frame| frame.reason.to_string())
                        .unwrap_or_default();
                    return Err(Broken(
                        format!("the server closed the connection {reason}")
                            .trim_end()
                            .into(),
                    ));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Broken(error.to_string())),
                None => return Err(Broken("the connection broke".into())),
            }
        }
    }

    /// Hands the connection to a task, so that nobody waits for a slow server.
    pub fn wire<S, R>(mut self) -> Wire<S, R>
    where
        S: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let (to_server, mut outgoing) = mpsc::channel::<S>(QUEUE);
        let (incoming, from_server) = mpsc::channel::<Result<R, Broken>>(QUEUE);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = outgoing.recv() => match message {
                        Some(message) => if let Err(broken) = self.send(&message).await {
                            let _ = incoming.send(Err(broken)).await;
                            return;
                        },
                        // The other side was dropped, and all it said has been sent.
                        None => {
                            let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.close(None)).await;
                            return;
                        }
                    },
                    message = self.receive::<R>() => {
                        let broken = message.is_err();
                        // A closed queue has no reader, but what it said last is still to be sent.
                        let _ = incoming.send(message).await;
                        if broken {
                            return;
                        }
                    }
                }
            }
        });
        Wire {
            to_server,
            from_server,
        }
    }
}

/// A socket in a task of its own. Dropping it closes the connection once all that was sent has left.
pub(crate) struct Wire<S, R> {
    to_server: mpsc::Sender<S>,
    from_server: mpsc::Receiver<Result<R, Broken>>,
}

impl<S, R> Wire<S, R> {
    /// Sends. `false`: the server takes nothing, or has gone.
    pub fn send(&self, message: S) -> bool {
        self.to_server.try_send(message).is_ok()
    }

    /// The next message. Safe to drop.
    pub async fn receive(&mut self) -> Result<R, Broken> {
        let message = self.from_server.recv().await;
        message.unwrap_or_else(|| Err(Broken("the connection has ended".into())))
    }
}

/// The server's clock less ours in seconds, by its `Date` header.
fn skew(headers: &HeaderMap) -> Option<i64> {
    let theirs = unix_time(headers.get("date")?.to_str().ok()?)?;
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(theirs - i64::try_from(ours).ok()?)
}

/// Seconds since 1970 of an IMF-fixdate (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn unix_time(date: &str) -> Option<i64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut words = date.split_once(", ")?.1.split(' ');
    let day: i64 = words.next()?.parse().ok()?;
    let month = MONTHS.find(words.next()?)? as i64 / 3 + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut time = words
        .next()?
        .split(':')
        .map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (time.next()??, time.next()??, time.next()??);
    // Days from civil: years begin in March, so that the day of 29 February is the last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468;
    Some(days * 86_400 + hours * 3_600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_written_in_several_ways() {
        for (given, wanted) in [
            ("wss://a.livekit.cloud", "wss://a.livekit.cloud/rtc?x=1"),
            ("https://a.livekit.cloud/", "wss://a.livekit.cloud/rtc?x=1"),
            ("http://127.0.0.1:7880", "ws://127.0.0.1:7880/rtc?x=1"),
            ("ws://proxy/livekit/", "ws://proxy/livekit/rtc?x=1"),
        ] {
            assert_eq!(address(given, "/rtc?x=1").as_deref(), Ok(wanted));
        }
        for bad in ["", "localhost:7880", "ftp://host", "wss://", "wss:///x"] {
            assert!(address(bad, "/rtc").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_date_header_gives_the_servers_clock() {
        assert_eq!(
            unix_time("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        assert_eq!(
            unix_time("Thu, 29 Feb 2024 00:00:00 GMT"),
            Some(1_709_164_800)
        );
        assert_eq!(unix_time("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(unix_time("tomorrow"), None);
    }
}
