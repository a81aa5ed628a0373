//! Connections over TLS. Handshakes go on beside each other, so that one that hangs keeps nobody out; who speaks plain
//! HTTP is sent to https.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Handshakes at once; further connections wait in the system's queue.
const HANDSHAKES: usize = 256;
/// How long a client may take for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// First byte of a TLS handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;
/// Longest head of a plain request that is read to its end.
const HEAD: usize = 8 * 1024;

type Connection = (TlsStream<TcpStream>, SocketAddr);

/// A TCP port that speaks TLS.
pub(in crate::serve) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<Connection>,
}

impl TlsListener {
    /// Takes connections from now on.
    pub fn new(listener: TcpListener, config: Arc<ServerConfig>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        // As many as may be under way: who has shaken hands never waits for room.
        let (done, ready) = mpsc::channel(HANDSHAKES);
        tokio::spawn(accept(listener, TlsAcceptor::from(config), done));
        Ok(Self { address, ready })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Connection {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept(mut listener: TcpListener, acceptor: TlsAcceptor, done: mpsc::Sender<Connection>) {
    let room = Arc::new(Semaphore::new(HANDSHAKES));
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        // This one logs failures and goes on after them.
        let (stream, from) = tokio::select! {
            taken = Listener::accept(&mut listener) => taken,
            () = done.closed() => return,
        };
        let (acceptor, done) = (acceptor.clone(), done.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match tokio::time::timeout(PATIENCE, shake_hands(stream, &acceptor)).await {
                Ok(Ok(Some(stream))) => {
                    let _ = done.send((stream, from)).await;
                }
                Ok(Ok(None)) => tracing::debug!(%from, "a plain HTTP request was sent to https"),
                Ok(Err(error)) => tracing::debug!(%from, %error, "no TLS connection"),
                Err(_) => tracing::debug!(%from, "a TLS handshake took too long"),
            }
        });
    }
}

/// `None`: it was not TLS, and was answered.
async fn shake_hands(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
) -> io::Result<Option<TlsStream<TcpStream>>> {
    // Small events are not to wait for each other.
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
        send_to_https(stream).await?;
        return Ok(None);
    }
    acceptor.accept(stream).await.map(Some)
}

async fn send_to_https(mut stream: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while head.len() < HEAD && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    stream.write_all(answer(&head).as_bytes()).await?;
    stream.shutdown().await
}

/// The answer to a plain request: where it should have gone.
fn answer(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let target = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .filter(|target| target.starts_with('/'));
    let host = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim())
    });
    let (status, location, text) = match (target, host.filter(|host| !host.is_empty())) {
        (Some(target), Some(host)) => {
            let address = format!("https://{host}{target}");
            let text = format!("This port speaks HTTPS (and wss:// for WebSockets): {address}\n");
            (
                "308 Permanent Redirect",
                format!("Location: {address}\r\n"),
                text,
            )
        }
        _ => (
            "400 Bad Request",
            String::new(),
            "This port speaks HTTPS (and wss:// for WebSockets).\n".to_owned(),
        ),
    };
    format!(
        "HTTP/1.1 {status}\r\n{location}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_request_is_sent_to_the_same_place_under_https() {
        let told = answer(b"GET /v1/models?x=1 HTTP/1.1\r\nhost: box:8080\r\n\r\n");
        assert!(told.starts_with("HTTP/1.1 308 "), "{told}");
        assert!(told.contains("\r\nLocation: https://box:8080/v1/models?x=1\r\n"));
        assert!(told.contains("wss://"));
    }

    #[test]
    fn what_names_no_place_is_told_what_is_spoken_here() {
        for head in [
            "",
            "SSH-2.0-x\r\n",
            "GET http://a/ HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            let told = answer(head.as_bytes());
            assert!(told.starts_with("HTTP/1.1 400 "), "{head}: {told}");
            assert!(told.contains("speaks HTTPS"));
        }
    }
}
