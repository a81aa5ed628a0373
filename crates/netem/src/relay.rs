//! UDP datagrams carried between a client and a server as a [`Link`] each way says.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Link, Weather};

/// Datagrams under way; more are lost.
const UNDER_WAY: usize = 10_000;
/// Larger ones are cut off; WebRTC sends none of more than 1,500 bytes.
const LARGEST: usize = 2_048;

/// A network between one client and one server: the client sends to [`Relay::address`], the server sees the relay.
/// It ends when it is dropped.
pub struct Relay {
    address: SocketAddr,
    orders: mpsc::Sender<Order>,
    _task: DropGuard,
}

enum Order {
    Weather(Weather),
    ChangeAddress,
}

impl Relay {
    /// A relay to a server on this machine.
    ///
    /// # Errors
    /// No socket.
    pub async fn start(server: SocketAddr, weather: Weather, seed: u64) -> io::Result<Self> {
        let front = socket().await?;
        let address = front.local_addr()?;
        let (orders, received) = mpsc::channel(8);
        let wire = Wire {
            front,
            back: socket().await?,
            server,
            client: None,
            to_server: Link::new(weather, seed),
            to_client: Link::new(weather, seed ^ u64::MAX),
            started: Instant::now(),
            under_way: BinaryHeap::new(),
            number: 0,
        };
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(wire.run(received)));
        Ok(Self {
            address,
            orders,
            _task: stop.drop_guard(),
        })
    }

    /// Where the client sends to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The weather changes, both ways. Loss of 1 is an outage.
    pub async fn set(&self, weather: Weather) {
        // It ends only with us.
        let _ = self.orders.send(Order::Weather(weather)).await;
    }

    /// From now on the server sees the client come from another port, and reaches it at the old one no more: a NAT
    /// has forgotten the client, or it is in another network.
    pub async fn change_address(&self) {
        let _ = self.orders.send(Order::ChangeAddress).await;
    }
}

async fn socket() -> io::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// By when it arrives; then by number, so that equals stay in order.
type UnderWay = Reverse<(Duration, u64, bool, Vec<u8>)>;

struct Wire {
    front: UdpSocket,
    back: UdpSocket,
    server: SocketAddr,
    client: Option<SocketAddr>,
    to_server: Link,
    to_client: Link,
    started: Instant,
    under_way: BinaryHeap<UnderWay>,
    number: u64,
}

impl Wire {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let (mut from_client, mut from_server) = ([0; LARGEST], [0; LARGEST]);
        loop {
            let due = self.under_way.peek().map(|Reverse((at, ..))| *at);
            let wake = self.started + due.unwrap_or(Duration::from_secs(3_600));
            tokio::select! {
                came = self.front.recv_from(&mut from_client) => {
                    // An ICMP error of an earlier datagram is none of ours.
                    if let Ok((length, client)) = came {
                        self.client = Some(client);
                        self.take(true, &from_client[..length]);
                    }
                }
                came = self.back.recv_from(&mut from_server) => {
                    if let Ok((length, _)) = came {
                        self.take(false, &from_server[..length]);
                    }
                }
                order = orders.recv() => match order {
                    Some(Order::Weather(weather)) => {
                        self.to_server.set(weather);
                        self.to_client.set(weather);
                    }
                    Some(Order::ChangeAddress) => {
                        if let Ok(other) = socket().await {
                            self.back = other;
                        }
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            self.deliver();
        }
    }

    fn take(&mut self, to_server: bool, bytes: &[u8]) {
        let now = self.started.elapsed();
        let link = if to_server {
            &mut self.to_server
        } else {
            &mut self.to_client
        };
        for at in link.pass(now).into_iter().flatten() {
            if self.under_way.len() < UNDER_WAY {
                self.number += 1;
                let datagram = (at, self.number, to_server, bytes.to_vec());
                self.under_way.push(Reverse(datagram));
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.started.elapsed();
        while let Some(Reverse((at, ..))) = self.under_way.peek()
            && *at <= now
        {
            let Some(Reverse((_, _, to_server, bytes))) = self.under_way.pop() else {
                return;
            };
            // What a socket does not take at once is lost, as it would be on a wire.
            let _ = match (to_server, self.client) {
                (true, _) => self.back.try_send_to(&bytes, self.server),
                (false, Some(client)) => self.front.try_send_to(&bytes, client),
                (false, None) => Ok(0),
            };
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn heard(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
        let mut bytes = [0; LARGEST];
        let waiting = tokio::time::timeout(Duration::from_secs(10), socket.recv_from(&mut bytes));
        let (length, from) = waiting.await.ok()?.unwrap();
        Some((bytes[..length].to_vec(), from))
    }

    #[tokio::test]
    async fn it_carries_both_ways_and_from_another_address_when_told_to() {
        let (server, client) = (socket().await.unwrap(), socket().await.unwrap());
        let relay = Relay::start(server.local_addr().unwrap(), Weather::default(), 1)
            .await
            .unwrap();
        client.send_to(b"one", relay.address()).await.unwrap();
        let (said, from) = heard(&server).await.unwrap();
        assert_eq!(said, b"one");
        server.send_to(b"two", from).await.unwrap();
        let (said, by) = heard(&client).await.unwrap();
        assert_eq!((said.as_slice(), by), (&b"two"[..], relay.address()));
        relay.change_address().await;
        client.send_to(b"three", relay.address()).await.unwrap();
        let (said, other) = heard(&server).await.unwrap();
        assert_eq!(said, b"three");
        assert_ne!(other, from);
    }

    #[tokio::test]
    async fn in_an_outage_nothing_arrives_and_after_it_all_does() {
        let (server, client) = (socket().await.unwrap(), socket().await.unwrap());
        let outage = Weather {
            loss: 1.0,
            ..Weather::default()
        };
        let relay = Relay::start(server.local_addr().unwrap(), outage, 1)
            .await
            .unwrap();
        for _ in 0..10 {
            client.send_to(b"lost", relay.address()).await.unwrap();
        }
        // Orders and datagrams come in no order: the first that arrives was sent after the order was taken.
        tokio::time::sleep(Duration::from_millis(50)).await;
        relay.set(Weather::default()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.send_to(b"kept", relay.address()).await.unwrap();
        assert_eq!(heard(&server).await.unwrap().0, b"kept");
    }
}
