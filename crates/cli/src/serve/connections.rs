//! HTTP connections, so that those who say nothing, or never come to the end of it, take nothing from those who talk.
//!
//! Each connection is a file descriptor, and a process has only so many of them: without any left it could neither
//! reach a model elsewhere nor write a recording. So connections are counted, and a part of what there is stays for
//! the rest of the process; further ones wait in the system's queue. And whoever does not send a request's head in
//! time is closed, so that places become free.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::serve::Listener;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client may take for its first byte, and then for the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(20);
/// File descriptors that are wanted; a system may allow fewer.
const WANTED: u64 = 65_536;
/// File descriptors that stay for models, logs, Redis, ...
const OTHERS: u64 = 96;
/// And for each session: connections to models elsewhere, a recording.
const OTHERS_EACH: u64 = 8;

/// Connections at once, where so many sessions are taken and so many file descriptors allowed. A client needs one,
/// and a page some more while it loads.
#[must_use]
pub(super) fn most(file_descriptors: u64, sessions: u64) -> usize {
    let kept = OTHERS + OTHERS_EACH * sessions;
    let least = 2 * sessions + 16;
    let most = file_descriptors.saturating_sub(kept).max(least);
    usize::try_from(most)
        .unwrap_or(usize::MAX)
        .min(Semaphore::MAX_PERMITS)
}

/// Takes as many file descriptors as the system allows; how many that are.
pub(super) fn raise_limit() -> u64 {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let maximum = limit.maximum.unwrap_or(WANTED).min(WANTED);
        let current = limit.current.unwrap_or(WANTED);
        if current >= maximum {
            return current;
        }
        let raised = Rlimit {
            current: Some(maximum),
            maximum: limit.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => maximum,
            Err(_) => current,
        }
    }
    #[cfg(not(unix))]
    WANTED
}

/// Serves until it is to stop, and then until the last request is answered.
pub(super) async fn serve<L>(listener: L, router: Router, most: usize, stop: CancellationToken)
where
    L: Listener<Addr = SocketAddr>,
{
    let mut listener = listener;
    let room = Arc::new(Semaphore::new(most));
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await.ok()?;
            // This one logs failures and goes on after them.
            let (stream, from) = listener.accept().await;
            Some((Counted::new(stream, place, HEAD_DEADLINE), from))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        let Some((stream, from)) = accepted else {
            break;
        };
        if room.available_permits() == 0 {
            tracing::warn!(
                most,
                "there are as many connections as are taken; further ones wait"
            );
        }
        connections.spawn(answer(
            stream,
            from,
            router.clone(),
            HEAD_DEADLINE,
            stop.clone(),
        ));
    }
    connections.close();
    connections.wait().await;
}

async fn answer<I>(
    stream: I,
    from: SocketAddr,
    router: Router,
    head: Duration,
    stop: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Not told which HTTP it is, it would wait for the first byte without a deadline.
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head);
    // Who has no key counts by where it comes from.
    let router = router.layer(Extension(ConnectInfo(from)));
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%from, %error, "a connection broke");
    }
}

/// A connection and its place, which is free again once the connection is closed, also after an upgrade.
struct Counted<I> {
    stream: I,
    /// When its first byte must have come; `None`: it has. Hyper's own deadline begins with it.
    first: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl<I> Counted<I> {
    fn new(stream: I, place: OwnedSemaphorePermit, deadline: Duration) -> Self {
        Self {
            stream,
            first: Some(Box::pin(tokio::time::sleep(deadline))),
            _place: place,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.first = None;
        } else if let Some(first) = &mut self.first
            && first.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    async fn server(most: usize) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "there" }));
        tokio::spawn(serve(listener, router, most, stop.clone()));
        (address, stop)
    }

    async fn asked(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_request_knows_where_it_comes_from() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = get(async |ConnectInfo(from): ConnectInfo<SocketAddr>| from.ip().to_string());
        let router = Router::new().route("/", told);
        tokio::spawn(serve(listener, router, 2, CancellationToken::new()));
        assert!(asked(address).await.ends_with("127.0.0.1"));
    }

    #[test]
    fn a_part_of_the_file_descriptors_stays_for_the_rest_of_the_process() {
        assert_eq!(most(1_024, 4), 1_024 - 96 - 32);
        assert_eq!(most(256, 4), 128);
        assert_eq!(most(64, 4), 24, "a few there must be");
        assert!(most(u64::MAX, 4) <= Semaphore::MAX_PERMITS);
    }

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_waits_until_one_is_free() {
        let (address, _stop) = server(2).await;
        let held = [
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        ];
        let waiting = tokio::spawn(asked(address));
        // Both are taken before the third is looked at.
        let early = tokio::time::timeout(Duration::from_millis(300), async {
            while !waiting.is_finished() {
                tokio::task::yield_now().await;
            }
        });
        assert!(early.await.is_err(), "there was no place");
        drop(held);
        assert!(waiting.await.unwrap().ends_with("there"));
    }

    #[tokio::test]
    async fn who_says_nothing_or_not_all_of_it_is_closed_at_the_deadline() {
        for said in [&b""[..], b"GET / HTTP/1.1\r\nX-Slow: "] {
            let (near, far) = tokio::io::duplex(1_024);
            let from = SocketAddr::from(([127, 0, 0, 1], 1));
            let stop = CancellationToken::new();
            let deadline = Duration::from_millis(50);
            let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
            let far = Counted::new(far, place, deadline);
            let answering = tokio::spawn(answer(far, from, Router::new(), deadline, stop));
            let (mut reader, mut writer) = tokio::io::split(near);
            writer.write_all(said).await.unwrap();
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).await.unwrap();
            answering.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_server_that_stops_answers_what_it_was_asked_and_takes_no_more() {
        let (address, stop) = server(8).await;
        assert!(asked(address).await.ends_with("there"));
        stop.cancel();
        // The port is closed as soon as the loop has ended.
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
