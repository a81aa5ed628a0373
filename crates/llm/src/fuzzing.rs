//! Private parsers of what strangers send, for the fuzz targets. No part of the interface.

/// A streamed reply of an endpoint, as the network cuts it.
pub fn streamed(reads: &[&[u8]]) {
    crate::endpoint::read_stream(reads);
}
