//! Whose bucket a request takes from.

use crate::Missing;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

#[derive(Debug, PartialEq)]
pub(crate) enum Key {
    /// The bucket of this name.
    Bucket(String),
    /// None: the request passes.
    Allow,
    /// None: it does not.
    Deny,
}

/// The key of a request. `value`: what it has of the header, cookie or parameter that is the key; `by_address`: the
/// client's address is. An empty value is none: else everybody without a name would share a bucket.
pub(crate) fn key(
    value: Option<&str>,
    by_address: bool,
    missing: Missing,
    client_address: impl FnOnce() -> String,
    ipv6_prefix: u32,
) -> Key {
    match (value, missing) {
        (Some(value), _) if !value.is_empty() => Key::Bucket(hashed(value)),
        (_, Missing::Allow) if !by_address => Key::Allow,
        (_, Missing::Deny) if !by_address => Key::Deny,
        _ => Key::Bucket(address(&client_address(), ipv6_prefix)),
    }
}

/// A value as a name of the store: of one length, however long it is, and nothing to be read there if it is a secret. Half
/// of SHA-256, so that nobody can find two values that share a bucket, or one that shares somebody else's.
fn hashed(value: &str) -> String {
    let digest = Sha256::digest(value.as_bytes());
    let mut name = String::from("value ");
    for byte in &digest[..16] {
        let _ = write!(name, "{byte:02x}"); // Writing to a string cannot fail.
    }
    name
}

/// A client by its address: IPv4 in IPv6 is IPv4, and of IPv6 only the first bits count. What is no address is a bucket too.
fn address(text: &str, ipv6_prefix: u32) -> String {
    let address = match text.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - ipv6_prefix).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).to_string()
        }
        Ok(address) => address.to_string(),
        Err(_) => String::new(),
    };
    ["client ", &address].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(name: &str) -> Key {
        Key::Bucket(name.into())
    }

    #[test]
    fn clients_are_told_apart_by_their_address() {
        let of = |text: &str| key(None, true, Missing::Deny, || text.into(), 64);
        assert_eq!(of("192.0.2.1"), bucket("client 192.0.2.1"));
        assert_eq!(of("::ffff:192.0.2.1"), bucket("client 192.0.2.1"));
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), bucket("client 2001:db8:1:2::"));
        assert_eq!(of("odd"), bucket("client "));
        let of = |text: &str, prefix| address(text, prefix);
        assert_eq!(of("2001:db8:1:2:3:4:5:6", 128), "client 2001:db8:1:2:3:4:5:6");
        assert_eq!(of("2001:db8:1:2:3:4:5:6", 48), "client 2001:db8:1::");
        assert_eq!(of("ffff::", 1), "client 8000::");
    }

    #[test]
    fn a_value_is_hashed_and_no_address() {
        let of = |value: &str| key(Some(value), false, Missing::Deny, || unreachable!("the address is not needed"), 64);
        // The first half of SHA-256 of `abc`, FIPS 180-2, appendix B.1.
        assert_eq!(of("abc"), bucket("value ba7816bf8f01cfea414140de5dae2223"));
        assert_ne!(of("192.0.2.1"), bucket("client 192.0.2.1"));
    }

    #[test]
    fn a_request_without_the_value_is_what_missing_says() {
        for value in [None, Some("")] {
            let of = |missing| key(value, false, missing, || "192.0.2.1".into(), 64);
            assert_eq!(of(Missing::ClientAddress), bucket("client 192.0.2.1"));
            assert_eq!(of(Missing::Allow), Key::Allow);
            assert_eq!(of(Missing::Deny), Key::Deny);
        }
    }
}
