//! What gliderlabs/registrator writes: `/services/<service>/<ip>:<port>` with the body
//! `{Name, IP, PublicPort, PrivatePort, ContainerID, Tags, Attrs}`.
//!
//! The name alone is enough, since other registrars write the same names with another body or none. Registrator never
//! changes a body, leaves `Tags` and `Attrs` null when they are empty, and does not bracket IPv6 addresses.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use super::found::{Found, Host, Object, Value, string, text, texts};
use super::{Reason, Znode};
use crate::config::Layout;

/// The address is the name's, else the body's; the rest is the body's, as far as it can be understood.
pub(super) fn read(child: &str, body: Option<&Object<'_>>) -> Result<Znode, Reason> {
    // Fields are taken one by one: a field of an unexpected type must not cost the others.
    let nothing = Object::default();
    let body = body.unwrap_or(&nothing);
    let address = address(child).or_else(|| body_address(body)).ok_or(Reason::NoAddress)?;
    let mut labels = texts(body, "Attrs");
    // An attribute of the same name was set on purpose and stays.
    for (name, value) in [("tags", tags(body).into()), ("container", Cow::from(string(body, "ContainerID")))] {
        if !value.is_empty() {
            labels.add(name, value);
        }
    }
    let (host, port) = (Host::Ip(address.ip()), address.port().into());
    Found { host, port, scheme: None, labels }.read(Layout::Registrator)
}

/// `1.2.3.4:80`, `[2001:db8::1]:80`, or `2001:db8::1:80`, whose last group is the port.
pub(super) fn address(name: &str) -> Option<SocketAddr> {
    let (ip, port) = name.rsplit_once(':')?;
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    // `parse` would take a sign.
    let port = port.bytes().all(|digit| digit.is_ascii_digit()).then_some(port)?;
    Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?))
}

fn body_address(body: &Object<'_>) -> Option<SocketAddr> {
    let port = body.get("PublicPort")?.as_u64()?;
    Some(SocketAddr::new(string(body, "IP").parse().ok()?, port.try_into().ok()?))
}

fn tags(body: &Object<'_>) -> String {
    let tags = body.get("Tags").and_then(Value::as_array);
    tags.into_iter().flatten().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::super::tests::endpoint_of;
    use super::*;
    use crate::registry::{Endpoint, Scheme};

    fn read(child: &str, body: &str) -> Endpoint {
        endpoint_of(Layout::Registrator, child, body)
    }

    fn refused(child: &str, body: &str) -> Reason {
        super::super::read(Layout::Registrator, child, body.as_bytes()).unwrap_err()
    }

    fn labels(endpoint: &Endpoint) -> Vec<(&str, &str)> {
        endpoint.labels.iter().map(|(name, value)| (&**name, &**value)).collect()
    }

    #[test]
    fn a_body_as_registrator_writes_it() {
        let read = read(
            "192.168.1.123:49153",
            r#"{"Name":"www","IP":"192.168.1.123","PublicPort":49153,"PrivatePort":80,"ContainerID":"9124853ff0d1",
               "Tags":["a","b"],"Attrs":{"weight":"5","zone":"z1","region":"eu","scheme":"https","n":7,"o":{"x": [1]}}}"#,
        );
        assert_eq!(read.address, "192.168.1.123:49153".parse().unwrap());
        assert_eq!((read.weight, &*read.zone, read.scheme), (5, "z1", Scheme::Https));
        assert_eq!(
            labels(&read),
            [("container", "9124853ff0d1"), ("n", "7"), ("o", r#"{"x":[1]}"#), ("region", "eu"), ("tags", "a,b"),]
        );
    }

    #[test]
    fn the_name_alone_is_enough() {
        for body in ["", "not JSON", "[]", "null", "7", "{", "\u{feff}{}", r#"{"Tags":null,"Attrs":null}"#] {
            let read = read("10.0.0.1:80", body);
            assert_eq!((read.weight, &*read.zone, read.labels.len()), (1, "", 0), "{body}");
        }
        assert!(super::super::read(Layout::Registrator, "10.0.0.1:80", &[0xff, 0xfe, 0]).is_ok());
    }

    #[test]
    fn names_that_are_addresses() {
        for (name, address) in [
            ("10.0.0.1:65535", "10.0.0.1:65535"),
            ("2001:db8::1:8080", "[2001:db8::1]:8080"),
            ("::1:3000", "[::1]:3000"),
            ("[::1]:3000", "[::1]:3000"),
            ("10.0.0.1:00080", "10.0.0.1:80"),
        ] {
            assert_eq!(read(name, "").address, address.parse().unwrap(), "{name}");
        }
    }

    #[test]
    fn names_that_are_not() {
        for name in ["", ":", "x", "web:80", "10.0.0.1", "10.0.0.1:", "10.0.0.1:+80", "10.0.0.1:65536", "10.0.0:80"] {
            assert_eq!(refused(name, ""), Reason::NoAddress, "{name}");
            let body = r#"{"IP":"10.0.0.9","PublicPort":81}"#;
            assert_eq!(read(name, body).address, "10.0.0.9:81".parse().unwrap(), "{name}");
        }
        for name in ["10.0.0.1:0", "0.0.0.0:80", ":::80", "224.0.0.1:80"] {
            assert_eq!(refused(name, ""), Reason::NotConnectable, "{name}");
        }
        for body in [r#"{"IP":"","PublicPort":81}"#, r#"{"IP":"10.0.0.9"}"#, r#"{"IP":"10.0.0.9","PublicPort":70000}"#]
        {
            assert_eq!(refused("x", body), Reason::NoAddress, "{body}");
        }
    }

    #[test]
    fn a_weight_may_be_a_number() {
        for (weight, expected) in [(r#""0""#, 0), ("65535", 65535), ("1.5", 1), ("null", 1)] {
            let read = read("10.0.0.1:80", &format!(r#"{{"Attrs":{{"weight":{weight}}}}}"#));
            assert_eq!(read.weight, expected, "{weight}");
        }
    }

    #[test]
    fn the_zone_may_be_called_region() {
        assert_eq!(&*read("10.0.0.1:80", r#"{"Attrs":{"region":"eu","zone":""}}"#).zone, "eu");
    }

    #[test]
    fn an_attribute_is_not_hidden_by_our_own_labels() {
        let read = read("10.0.0.1:80", r#"{"Tags":["x"],"Attrs":{"tags":"mine","scheme":"http"}}"#);
        assert_eq!(labels(&read), [("tags", "mine")]);
    }
}
