//! Znodes: whatever a registrar writes becomes an endpoint that can be connected to, or a reason why not.

use moongate::config::Layout;
use moongate::registry::layouts;

/// The name of a znode, a line feed, and its body.
pub fn znode(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let Ok(name) = std::str::from_utf8(&data[..at]) else { return };
    let body = data.get(at + 1..).unwrap_or_default();
    let Ok(endpoint) = layouts::endpoint(Layout::Auto, name, body) else {
        // The name alone is enough, so a body cannot make it less.
        assert!(layouts::endpoint(Layout::Auto, name, b"").is_err(), "{name}");
        return;
    };
    let address = endpoint.address;
    assert!(address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast(), "{address}");
    assert!(endpoint.labels.is_sorted_by(|a, b| a.0 < b.0), "{endpoint:?}");
    // A znode that is called what it was understood as says the same.
    assert_eq!(layouts::endpoint(Layout::Auto, &address.to_string(), body).as_ref(), Ok(&endpoint));
    assert_eq!(layouts::service([&endpoint, &endpoint]).endpoints, [endpoint]);
}
