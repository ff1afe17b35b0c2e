//! Networks of addresses, written as in RFC 4632 and RFC 4291, section 2.3.

use std::net::{IpAddr, Ipv6Addr};

/// Addresses that begin alike. IPv4 is kept as IPv6 has it (`::ffff:a.b.c.d`), so that there is one kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Network {
    first: u128,
    mask: u128,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Network {
    /// An address, or an address, `/` and the length of its prefix in bits. The error names `key` of the options.
    pub(crate) fn new(key: &str, text: &str) -> Result<Self, String> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let no_network = || format!("`{key}` has `{text}`, which is no address and no network such as `10.0.0.0/8`");
        let address: IpAddr = address.parse().map_err(|_| no_network())?;
        let width: u32 = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => width,
            // Not `+8`, which `parse` would take.
            Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().ok().filter(|length| *length <= width).ok_or_else(no_network)?
            }
            Some(_) => return Err(no_network()),
        };
        let mask = u128::MAX.checked_shl(width - length).unwrap_or(0);
        let (first, whole) = (bits(address) & mask, bits(address));
        if first != whole {
            // Somebody meant either the address or the network, and each is a hole in the other's place.
            let network = match address {
                IpAddr::V4(_) => IpAddr::from((first as u32).to_be_bytes()),
                IpAddr::V6(_) => Ipv6Addr::from_bits(first).into(),
            };
            return Err(format!(
                "`{key}` has `{text}`, an address inside of a network: write `{network}/{length}`, or the address alone"
            ));
        }
        Ok(Self { first, mask })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        bits(address) & self.mask == self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        Network::new("allow", network).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_is_what_begins_alike() {
        for (network, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.1/32", "192.0.2.1", "192.0.2.0"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::"),
        ] {
            assert!(contains(network, inside), "{network} {inside}");
            assert!(!contains(network, outside), "{network} {outside}");
        }
    }

    #[test]
    fn every_address_of_a_family_is_in_its_widest_network() {
        assert!(contains("0.0.0.0/0", "255.255.255.255") && !contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1") && contains("::/0", "192.0.2.1"));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_is_the_ipv4_address() {
        assert!(contains("192.0.2.0/24", "::ffff:192.0.2.1") && contains("::ffff:192.0.2.0/120", "192.0.2.1"));
        assert!(!contains("192.0.2.0/24", "::192.0.2.1"), "the deprecated form is another address");
    }

    #[test]
    fn mistakes_are_named() {
        for text in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "::/129",
            "localhost",
            "10.0.0.0 /8",
        ] {
            let error = Network::new("deny", text).unwrap_err();
            assert!(error.starts_with(&format!("`deny` has `{text}`, which is no address")), "{error}");
        }
        let error = |text| Network::new("allow", text).unwrap_err();
        assert!(error("10.1.2.3/8").ends_with("write `10.0.0.0/8`, or the address alone"));
        assert!(error("2001:db8::1/32").ends_with("write `2001:db8::/32`, or the address alone"));
    }
}
