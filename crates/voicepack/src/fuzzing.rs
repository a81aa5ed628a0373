//! Private parsers of what strangers send, for the fuzz targets. No part of the interface.

use crate::net::{pip, wheel_index};

/// A page of an index, in JSON.
pub fn index_json(body: &str) {
    wheel_index::read_page(body, true);
}

/// A page of an index, in HTML.
pub fn index_html(body: &str) {
    wheel_index::read_page(body, false);
}

/// A configuration of pip's.
pub fn pip_configuration(text: &str) {
    let _ = pip::parse_ini(text);
}
