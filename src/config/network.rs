//! Networks of addresses: whose word is believed.

use std::net::IpAddr;
use std::str::FromStr;

use super::values::{displayed, written_as_string};

/// Addresses that begin alike: `10.0.0.0/8`, `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    /// The first of them; the bits that may differ are zero.
    first: IpAddr,
    /// How many bits all of them have in common: at most 32, or 128 of IPv6.
    bits: u8,
}

impl Network {
    /// Whether it is one of these. An IPv4 address that a socket of both kinds tells as IPv6 (`::ffff:10.0.0.1`) is
    /// the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && (left(address) ^ left(self.first)) & common(self.bits) == 0
    }
}

/// The bits of an address from the left, so that both kinds are cut alike.
fn left(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(it) => u128::from(it.to_bits()) << 96,
        IpAddr::V6(it) => it.to_bits(),
    }
}

/// The first so many bits.
fn common(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a network like \"10.0.0.0/8\" or an address");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            // The parser of numbers would take a sign.
            Some(bits) if !bits.bytes().all(|it| it.is_ascii_digit()) => return Err(wrong()),
            Some(bits) => match bits.parse::<u8>() {
                Ok(bits) if bits <= most => bits,
                _ => return Err(format!("{text:?} has more than {most} bits, which is all there are")),
            },
        };
        if matches!(address, IpAddr::V6(it) if it.to_ipv4_mapped().is_some()) {
            return Err(format!("{text:?} stands for IPv4 addresses; write them as such"));
        }
        if left(address) & !common(bits) != 0 {
            // The length may be what is wrong, and then the network would be another.
            return Err(format!("{text:?} has bits set after the first {bits}"));
        }
        Ok(Network { first: address, bits })
    }
}

displayed! {
    Network: |it, out| write!(out, "{}/{}", it.first, it.bits),
}

written_as_string! {
    Network: "a network like \"10.0.0.0/8\" or an address",
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_contains_what_begins_alike() {
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("10.1.2.3", "10.1.2.3") && !contains("10.1.2.3", "10.1.2.2"));
        assert!(contains("10.1.2.2/31", "10.1.2.3") && !contains("10.1.2.2/31", "10.1.2.4"));
        assert!(contains("0.0.0.0/0", "255.1.2.3") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1") && !contains("2001:db8::/33", "2001:db8:8000::1"));
        assert!(contains("::/0", "ffff::1") && !contains("::/0", "1.2.3.4"));
        assert!(contains("::1", "::1") && !contains("::1", "::2"));
        assert!(contains("10.0.0.0/8", "::ffff:10.0.0.1") && !contains("::/0", "::ffff:10.0.0.1"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in ["", "10.0.0.0/", "10.0.0.0/33", "10.0.0/8", "10.0.0.1/8", "::1/64", "::/129", "1.2.3.4/+8", "a"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        assert!("::ffff:10.0.0.0/104".parse::<Network>().is_err());
    }
}
