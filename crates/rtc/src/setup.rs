//! What every connection is set up with, whoever negotiates it: how str0m is configured, from which addresses it
//! speaks, and how datagrams come in.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::RtcConfig;
use str0m::config::{CryptoProvider, DtlsCert};
use tokio::net::UdpSocket;

/// Largest datagram taken; browsers send none above 1,300 bytes.
pub(crate) const MAX_DATAGRAM: usize = 2_000;
/// Local addresses offered to the other side.
const MAX_ADDRESSES: usize = 8;
/// Largest message taken on a data channel, bytes.
const MAX_MESSAGE: u32 = 256 * 1024;
/// Bytes that wait in a data channel before messages wait outside of it.
const CHANNEL_BUFFER: usize = 256 * 1024;
/// Time between two receiver reports of ours, and between two looks at the other side's.
const REPORTS: Duration = Duration::from_secs(1);

/// The crypto library made no certificate for DTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the crypto library made no certificate for DTLS")]
pub struct NoCertificate;

/// The crypto and the certificate that connections share.
pub struct Setup {
    crypto: Arc<CryptoProvider>,
    certificate: DtlsCert,
}

impl Setup {
    /// With a new certificate.
    ///
    /// # Errors
    /// [`NoCertificate`].
    pub fn new() -> Result<Self, NoCertificate> {
        let crypto = Arc::new(str0m::crypto::from_feature_flags());
        let certificate = crypto
            .dtls_provider
            .generate_certificate()
            .ok_or(NoCertificate)?;
        Ok(Self {
            crypto,
            certificate,
        })
    }

    /// A connection with Opus and data channels, that notices within some seconds when the other side vanishes.
    #[must_use]
    pub fn config(&self) -> RtcConfig {
        let mut config = RtcConfig::new()
            .set_crypto_provider(Arc::clone(&self.crypto))
            .set_dtls_cert(self.certificate.clone())
            .clear_codecs()
            // RED stays off: browsers' jitter buffers grow by it.
            .enable_opus(true, false)
            .set_rtp_mode(true)
            .set_sctp_max_message_size(MAX_MESSAGE)
            .set_sctp_max_buffered_amount(CHANNEL_BUFFER)
            .set_rtcp_report_interval_audio(REPORTS)
            .set_stats_interval(Some(REPORTS));
        config.set_max_stun_rto(Duration::from_millis(1_000));
        config.set_max_stun_retransmits(5);
        config
    }
}

/// The addresses of this machine's interfaces, those first that somebody elsewhere can reach; at most eight.
///
/// # Errors
/// When the system does not tell them.
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()?
        .into_iter()
        .filter(|interface| !interface.is_link_local())
        .map(|interface| interface.ip())
        .collect();
    addresses.sort_by_key(|address| (address.is_loopback(), address.is_ipv6()));
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    Ok(addresses)
}

/// Takes what comes to a socket, for ever: its source, its bytes, and when it came.
pub async fn read_datagrams(
    socket: Arc<UdpSocket>,
    mut take: impl FnMut(SocketAddr, Vec<u8>, Instant),
) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, source)) => take(source, buffer[..length].to_vec(), Instant::now()),
            // An ICMP error of an earlier datagram; the socket goes on.
            Err(error) => {
                tracing::trace!(%error, "a datagram was not received");
                tokio::task::yield_now().await;
            }
        }
    }
}
