//! One UDP port, and one TCP port where asked for, that all peers share.
//!
//! A datagram belongs to the peer whose address it comes from; a STUN request names the peer in its user name
//! (RFC 8445, section 7.2.2), and from then on its address is that peer's. So a client whose address changes is
//! known by its next check, and what names nobody is dropped. A peer that does not keep up loses datagrams, as
//! on a network, and keeps nobody else waiting.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use str0m::Candidate;
use str0m::ice::StunMessage;
use str0m::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::peer::{OfferError, Offering, Peer};
use crate::setup::{MAX_DATAGRAM, NoCertificate, Setup, local_addresses, read_datagrams};

/// Datagrams that may wait for a peer; more are dropped. Two seconds of sound.
const INBOX: usize = 128;
/// Datagrams that may wait for a TCP connection; more are dropped.
const TCP_OUTBOX: usize = 256;
/// TCP connections at once.
const MAX_CONNECTIONS: usize = 512;
/// A TCP connection has so long to name its peer, and is closed when it is silent for as long.
const TCP_SILENCE: Duration = Duration::from_secs(30);
/// Addresses that one peer may send from.
const MAX_ADDRESSES: usize = 16;

/// Where to listen, and how clients reach it.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// UDP port; 0 takes any.
    pub udp_port: u16,
    /// TCP port for networks that block UDP (ICE-TCP, RFC 6544); 0 takes any, `None` has none.
    pub tcp_port: Option<u16>,
    /// Listens at this address only; an unspecified one means all of this machine's.
    pub address: IpAddr,
    /// Addresses by which clients reach this machine through a NAT that forwards the same port.
    pub public_addresses: Vec<IpAddr>,
}

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// None of the addresses could be bound.
    #[error("cannot listen for WebRTC on UDP port {port}: {source}; choose another port")]
    Udp {
        /// The port asked for.
        port: u16,
        /// Of the last address tried.
        source: io::Error,
    },
    /// The TCP port could not be bound.
    #[error("cannot listen for WebRTC on TCP port {port}: {source}; choose another port")]
    Tcp {
        /// The port asked for.
        port: u16,
        /// Of the last address tried.
        source: io::Error,
    },
    /// This machine's addresses cannot be listed.
    #[error("cannot list this machine's network addresses: {0}")]
    Addresses(io::Error),
    /// There is no certificate for DTLS.
    #[error(transparent)]
    Certificate(#[from] NoCertificate),
}

/// The port. Its tasks end when it and its last peer are dropped.
#[derive(Clone)]
pub struct Port {
    shared: Arc<Shared>,
    _tasks: Arc<DropGuard>,
}

/// What peers need of the port.
pub(crate) struct Shared {
    sockets: Vec<(SocketAddr, Arc<UdpSocket>)>,
    pub candidates: Vec<Candidate>,
    pub setup: Setup,
    routes: Mutex<Routes>,
}

#[derive(Default)]
struct Routes {
    peers: HashMap<u64, Route>,
    by_fragment: HashMap<String, u64>,
    by_address: HashMap<(Protocol, SocketAddr), u64>,
    connections: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>>,
    next: u64,
}

struct Route {
    inbox: mpsc::Sender<Datagram>,
    addresses: Vec<(Protocol, SocketAddr)>,
    fragments: Vec<String>,
}

/// What came for a peer.
pub(crate) struct Datagram {
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub bytes: Vec<u8>,
    pub at: Instant,
}

impl Port {
    /// Listens.
    ///
    /// # Errors
    /// [`PortError`].
    pub async fn bind(config: &PortConfig) -> Result<Self, PortError> {
        let mut sockets = Vec::new();
        let mut failure = None;
        let mut port = config.udp_port;
        for address in addresses(config.address)? {
            match UdpSocket::bind((address, port)).await {
                Ok(socket) => {
                    // Where any port will do, all addresses have the same one.
                    let local = SocketAddr::new(address, port);
                    let local = socket.local_addr().unwrap_or(local);
                    port = local.port();
                    sockets.push((local, Arc::new(socket)));
                }
                Err(error) => failure = Some(error),
            }
        }
        if sockets.is_empty() {
            let source = failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
            return Err(PortError::Udp { port, source });
        }
        let mut listeners = Vec::new();
        if let Some(wanted) = config.tcp_port {
            let mut port = wanted;
            for (address, _) in &sockets {
                let listener = TcpListener::bind((address.ip(), port))
                    .await
                    .map_err(|source| PortError::Tcp { port, source })?;
                port = listener.local_addr().map_or(port, |address| address.port());
                listeners.push(listener);
            }
        }
        let setup = Setup::new()?;
        let shared = Arc::new(Shared {
            candidates: candidates(&sockets, &listeners, &config.public_addresses),
            sockets,
            setup,
            routes: Mutex::default(),
        });
        let stop = CancellationToken::new();
        for (local, socket) in &shared.sockets {
            let (routing, destination) = (Arc::clone(&shared), *local);
            let reading = read_datagrams(Arc::clone(socket), move |source, bytes, at| {
                routing.route(Datagram {
                    protocol: Protocol::Udp,
                    source,
                    destination,
                    bytes,
                    at,
                });
            });
            tokio::spawn(stop.clone().run_until_cancelled_owned(reading));
        }
        for listener in listeners {
            let accepting = accept_connections(Arc::clone(&shared), listener);
            tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
        }
        Ok(Self {
            shared,
            _tasks: Arc::new(stop.drop_guard()),
        })
    }

    /// A peer for an offer; its answer is [`Peer::answer`].
    ///
    /// # Errors
    /// [`OfferError`]: what is wrong with the offer.
    pub fn accept(&self, offer: &str) -> Result<Peer, OfferError> {
        Peer::answering(self, offer)
    }

    /// A peer that calls: its offer is to be sent, and its answer given to [`Offering::answered`]. Two calls from
    /// here to one and the same port cannot be told apart by their addresses: take a port for each.
    ///
    /// # Errors
    /// [`OfferError::Codec`].
    pub fn call(&self, channel: &str) -> Result<Offering, OfferError> {
        Peer::offering(self, channel)
    }

    /// The candidates that clients are given, for people.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let shown = |candidate: &Candidate| format!("{}/{}", candidate.addr(), candidate.proto());
        self.shared.candidates.iter().map(shown).collect()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Names a new peer, known by this user name fragment.
    pub(crate) fn enter(&self, fragment: &str) -> (Membership, mpsc::Receiver<Datagram>) {
        let (inbox, datagrams) = mpsc::channel(INBOX);
        let mut routes = self.shared.routes();
        routes.next += 1;
        let id = routes.next;
        routes.peers.insert(
            id,
            Route {
                inbox,
                addresses: Vec::new(),
                fragments: Vec::new(),
            },
        );
        drop(routes);
        let membership = Membership {
            port: self.clone(),
            id,
        };
        membership.also_known_as(fragment);
        (membership, datagrams)
    }
}

/// A peer's place at the port, given up when it is dropped.
pub(crate) struct Membership {
    port: Port,
    id: u64,
}

impl Membership {
    pub fn shared(&self) -> &Shared {
        self.port.shared()
    }

    /// Another fragment, of an ICE restart. The old one stays for checks that are under way.
    pub fn also_known_as(&self, fragment: &str) {
        let mut routes = self.shared().routes();
        let routes = &mut *routes;
        if let Some(route) = routes.peers.get_mut(&self.id) {
            if route.fragments.len() >= MAX_ADDRESSES {
                routes.by_fragment.remove(&route.fragments.remove(0));
            }
            route.fragments.push(fragment.to_owned());
            routes.by_fragment.insert(fragment.to_owned(), self.id);
        }
    }

    /// Sends, or drops what the socket does not take at once.
    pub fn send(&self, protocol: Protocol, source: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        match protocol {
            Protocol::Udp => {
                let from = self
                    .shared()
                    .sockets
                    .iter()
                    .find(|(local, _)| *local == source);
                if let Some(Err(error)) = from.map(|(_, socket)| socket.try_send_to(bytes, to)) {
                    tracing::trace!(%error, %to, "a datagram was not sent");
                }
            }
            _ => {
                let routes = self.shared().routes();
                if let Some(connection) = routes.connections.get(&to) {
                    let _ = connection.try_send(framed(bytes));
                }
            }
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut routes = self.shared().routes();
        if let Some(route) = routes.peers.remove(&self.id) {
            for fragment in &route.fragments {
                routes.by_fragment.remove(fragment);
            }
            for address in &route.addresses {
                if routes.by_address.get(address) == Some(&self.id) {
                    routes.by_address.remove(address);
                }
            }
        }
    }
}

impl Shared {
    fn routes(&self) -> MutexGuard<'_, Routes> {
        // Nothing that can panic is done while it is held.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a datagram to its peer. `false`: it is nobody's.
    fn route(&self, datagram: Datagram) -> bool {
        let from = (datagram.protocol, datagram.source);
        let named = named_fragment(&datagram.bytes);
        let mut routes = self.routes();
        let routes = &mut *routes;
        let named = named.and_then(|fragment| routes.by_fragment.get(&fragment).copied());
        let known = routes.by_address.get(&from).copied();
        let Some(id) = named.or(known) else {
            return false;
        };
        let Some(route) = routes.peers.get_mut(&id) else {
            return false;
        };
        if named.is_some() && known != named {
            if route.addresses.len() >= MAX_ADDRESSES {
                routes.by_address.remove(&route.addresses.remove(0));
            }
            route.addresses.push(from);
            routes.by_address.insert(from, id);
        }
        // A full inbox loses datagrams.
        let _ = route.inbox.try_send(datagram);
        true
    }
}

/// Our fragment in a STUN request's user name.
pub(crate) fn named_fragment(bytes: &[u8]) -> Option<String> {
    // RFC 7983: STUN is told by its first byte.
    if bytes.first().is_none_or(|first| *first > 3) {
        return None;
    }
    let message = StunMessage::parse(bytes).ok()?;
    let (ours, _) = message.split_username()?;
    Some(ours.to_owned())
}

async fn accept_connections(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                if shared.routes().connections.len() < MAX_CONNECTIONS {
                    tokio::spawn(serve_connection(Arc::clone(&shared), stream, source));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a WebRTC connection over TCP was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Datagrams in a TCP connection, each preceded by its length (RFC 4571).
async fn serve_connection(shared: Arc<Shared>, mut stream: TcpStream, source: SocketAddr) {
    let Ok(destination) = stream.local_addr() else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let (outbox, mut outgoing) = mpsc::channel::<Vec<u8>>(TCP_OUTBOX);
    shared.routes().connections.insert(source, outbox);
    let (mut reader, mut writer) = stream.split();
    let reading = async {
        loop {
            let next = tokio::time::timeout(TCP_SILENCE, reader.read_u16()).await;
            let Ok(Ok(length)) = next else {
                return;
            };
            let mut bytes = vec![0; usize::from(length)];
            if bytes.len() > MAX_DATAGRAM || reader.read_exact(&mut bytes).await.is_err() {
                return;
            }
            let known = shared.route(Datagram {
                protocol: Protocol::Tcp,
                source,
                destination,
                bytes,
                at: Instant::now(),
            });
            if !known {
                return;
            }
        }
    };
    let writing = async {
        while let Some(bytes) = outgoing.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
    shared.routes().connections.remove(&source);
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(bytes.len() + 2);
    framed.extend((bytes.len() as u16).to_be_bytes());
    framed.extend(bytes);
    framed
}

/// This machine's addresses that clients may reach: those of its interfaces, or the one asked for.
fn addresses(asked: IpAddr) -> Result<Vec<IpAddr>, PortError> {
    if !asked.is_unspecified() {
        return Ok(vec![asked]);
    }
    local_addresses().map_err(PortError::Addresses)
}

fn candidates(
    sockets: &[(SocketAddr, Arc<UdpSocket>)],
    listeners: &[TcpListener],
    public: &[IpAddr],
) -> Vec<Candidate> {
    let udp: Vec<SocketAddr> = sockets.iter().map(|(local, _)| *local).collect();
    let mut candidates = Vec::new();
    for address in public {
        // A NAT forwards to the first address of its kind.
        let base = udp
            .iter()
            .find(|base| base.is_ipv4() == address.is_ipv4() && !base.ip().is_loopback())
            .or_else(|| udp.iter().find(|base| base.is_ipv4() == address.is_ipv4()));
        if let Some(base) = base {
            let outside = SocketAddr::new(*address, base.port());
            candidates.extend(Candidate::server_reflexive(outside, *base, Protocol::Udp).ok());
        }
    }
    candidates.extend(
        udp.iter()
            .filter_map(|address| Candidate::host(*address, Protocol::Udp).ok()),
    );
    for listener in listeners {
        let Ok(address) = listener.local_addr() else {
            continue;
        };
        let passive = |address: SocketAddr| {
            Candidate::builder()
                .tcp()
                .host(address)
                .tcptype(str0m::net::TcpType::Passive)
                .build()
                .ok()
        };
        candidates.extend(passive(address));
    }
    candidates
}
