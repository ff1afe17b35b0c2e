//! What gliderlabs/registrator writes: `/services/<service>/<ip>:<port>` with the body
//! `{Name, IP, PublicPort, PrivatePort, ContainerID, Tags, Attrs}`.
//!
//! The name alone is enough, since other registrars write the same names with another body or none. Registrator never
//! changes a body, leaves `Tags` and `Attrs` null when they are empty, and does not bracket IPv6 addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Reason;
use crate::registry::{Endpoint, Scheme};

/// The address is the name's, else the body's; the rest is the body's, as far as it can be understood.
pub(super) fn endpoint(child: &str, body: &[u8]) -> Result<Endpoint, Reason> {
    // Fields are taken one by one: a field of an unexpected type must not cost the others.
    let body = match serde_json::from_slice(body) {
        Ok(Value::Object(body)) => body,
        _ => Map::new(),
    };
    let address = address(child).or_else(|| body_address(&body)).ok_or(Reason::NoAddress)?;
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err(Reason::NotConnectable);
    }
    let mut attrs = attributes(&body);
    let weight = attrs.get("weight").and_then(|weight| weight.trim().parse().ok());
    if weight.is_some() {
        attrs.remove("weight");
    }
    let zone = ["zone", "region"].iter().find(|name| attrs.get(**name).is_some_and(|zone| !zone.is_empty()));
    let zone = zone.and_then(|name| attrs.remove(*name)).unwrap_or_default();
    if attrs.get("scheme").is_some_and(|scheme| scheme == "http") {
        attrs.remove("scheme");
    }
    // An attribute of the same name was set on purpose and stays.
    for (name, value) in [("tags", tags(&body)), ("container", string(&body, "ContainerID").to_owned())] {
        if !value.is_empty() {
            attrs.entry(name.to_owned()).or_insert(value);
        }
    }
    Ok(Endpoint {
        address,
        scheme: Scheme::Http,
        weight: weight.unwrap_or(1),
        zone: zone.into(),
        labels: attrs.into_iter().map(|(name, value)| (Arc::from(name), Arc::from(value))).collect(),
    })
}

/// `1.2.3.4:80`, `[2001:db8::1]:80`, or `2001:db8::1:80`, whose last group is the port.
fn address(name: &str) -> Option<SocketAddr> {
    let (ip, port) = name.rsplit_once(':')?;
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    // `parse` would take a sign.
    let port = port.bytes().all(|digit| digit.is_ascii_digit()).then_some(port)?;
    Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?))
}

fn body_address(body: &Map<String, Value>) -> Option<SocketAddr> {
    let port = body.get("PublicPort")?.as_u64()?;
    Some(SocketAddr::new(string(body, "IP").parse().ok()?, port.try_into().ok()?))
}

fn attributes(body: &Map<String, Value>) -> BTreeMap<String, String> {
    let attrs = body.get("Attrs").and_then(Value::as_object);
    attrs.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// A string as it is, anything else as compact JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn tags(body: &Map<String, Value>) -> String {
    let tags = body.get("Tags").and_then(Value::as_array);
    tags.into_iter().flatten().map(text).collect::<Vec<_>>().join(",")
}

/// Empty if there is no such string.
fn string<'a>(body: &'a Map<String, Value>, field: &str) -> &'a str {
    body.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(child: &str, body: &str) -> Endpoint {
        endpoint(child, body.as_bytes()).unwrap()
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
        assert_eq!((read.weight, &*read.zone), (5, "z1"));
        assert_eq!(
            labels(&read),
            [
                ("container", "9124853ff0d1"),
                ("n", "7"),
                ("o", r#"{"x":[1]}"#),
                ("region", "eu"),
                ("scheme", "https"),
                ("tags", "a,b"),
            ]
        );
    }

    #[test]
    fn the_name_alone_is_enough() {
        for body in ["", "not JSON", "[]", "null", "7", "{", "\u{feff}{}", r#"{"Tags":null,"Attrs":null}"#] {
            let read = read("10.0.0.1:80", body);
            assert_eq!((read.weight, &*read.zone, read.labels.len()), (1, "", 0), "{body}");
        }
        assert!(endpoint("10.0.0.1:80", &[0xff, 0xfe, 0]).is_ok());
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
            assert_eq!(endpoint(name, b""), Err(Reason::NoAddress), "{name}");
            let body = r#"{"IP":"10.0.0.9","PublicPort":81}"#;
            assert_eq!(read(name, body).address, "10.0.0.9:81".parse().unwrap(), "{name}");
        }
        for name in ["10.0.0.1:0", "0.0.0.0:80", ":::80", "224.0.0.1:80"] {
            assert_eq!(endpoint(name, b""), Err(Reason::NotConnectable), "{name}");
        }
        for body in [r#"{"IP":"","PublicPort":81}"#, r#"{"IP":"10.0.0.9"}"#, r#"{"IP":"10.0.0.9","PublicPort":70000}"#]
        {
            assert_eq!(endpoint("x", body.as_bytes()), Err(Reason::NoAddress), "{body}");
        }
    }

    #[test]
    fn a_bad_weight_is_one_and_stays_visible() {
        for (weight, expected) in [(r#""0""#, 0), ("65535", 65535), (r#"" 7 ""#, 7)] {
            let read = read("10.0.0.1:80", &format!(r#"{{"Attrs":{{"weight":{weight}}}}}"#));
            assert_eq!((read.weight, labels(&read)), (expected, vec![]), "{weight}");
        }
        for weight in ["-1", "65536", "1.5", r#""heavy""#, "null", r#""""#] {
            let read = read("10.0.0.1:80", &format!(r#"{{"Attrs":{{"weight":{weight}}}}}"#));
            assert_eq!((read.weight, read.labels.len()), (1, 1), "{weight}");
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
