//! Where a request carries its key.

/// What a WebSocket's subprotocol begins with that carries a key: browsers let a page set no headers.
pub const KEY_PROTOCOL: &str = "openai-insecure-api-key.";

/// The key in an `Authorization` header.
#[must_use]
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, key) = header.trim().split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

/// The key among a WebSocket's subprotocols, as `Sec-WebSocket-Protocol` lists them.
#[must_use]
pub fn in_subprotocols(header: &str) -> Option<&str> {
    let mut protocols = header.split(',').map(str::trim);
    let key = protocols.find_map(|protocol| protocol.strip_prefix(KEY_PROTOCOL))?;
    (!key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_is_read_whatever_the_case_of_its_scheme() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for other in ["", "Bearer", "Bearer ", "abc", "Basic YWJj", "Bearerabc"] {
            assert_eq!(bearer(other), None, "{other}");
        }
    }

    #[test]
    fn a_browsers_key_is_one_of_its_subprotocols() {
        let offered = "realtime, openai-insecure-api-key.abc.def, openai-beta.realtime-v1";
        assert_eq!(in_subprotocols(offered), Some("abc.def"));
        assert_eq!(in_subprotocols("realtime"), None);
        assert_eq!(in_subprotocols("openai-insecure-api-key."), None);
    }
}
