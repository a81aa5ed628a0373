//! Private parsers of what strangers send, for the fuzz targets. No part of the interface.

use std::net::{Ipv4Addr, SocketAddr};

use str0m::net::{Protocol, Receive};

use crate::port::named_fragment;

/// A datagram, up to where a connection would take it.
pub fn datagram(bytes: &[u8]) {
    if let Some(fragment) = named_fragment(bytes) {
        assert!(fragment.len() <= bytes.len());
    }
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let _ = Receive::new(Protocol::Udp, here, here, bytes);
}
