//! What a parser took out of a znode, and how that becomes an endpoint: the same for all layouts.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

pub(super) use serde_json_borrow::{ObjectAsVec as Object, Value};

use super::{Read, Reason, Znode, ordinary};
use crate::config::Layout;
use crate::registry::{Endpoint, Scheme};

/// Labels by which registrars say where an endpoint runs; the first that is there counts.
const ZONES: [&str; 3] = ["zone", "az", "region"];

/// Labels by which they say what it speaks; the first that can be understood counts.
const SCHEMES: [&str; 2] = ["scheme", "protocol"];

/// The longest name of a host.
const NAME_LIMIT: usize = 253;

/// An endpoint as a layout's parser found it.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) host: Host<'a>,
    /// Checked here.
    pub(super) port: u64,
    /// None: as a label says, else HTTP.
    pub(super) scheme: Option<Scheme>,
    /// All that is said of it, also its weight and its zone.
    pub(super) labels: Labels<'a>,
}

/// Where an endpoint is.
#[derive(Debug)]
pub(super) enum Host<'a> {
    Ip(IpAddr),
    /// An IP address, also in brackets, or the name of a host.
    Written(&'a str),
}

impl Found<'_> {
    /// Takes weight, zone and scheme out of the labels; one that cannot be understood stays there to be seen.
    pub(super) fn read(self, layout: Layout) -> Result<Znode, Reason> {
        let Found { host, port, scheme, mut labels } = self;
        let port = u16::try_from(port).map_err(|_| Reason::NoAddress)?;
        let (ip, host) = match host {
            Host::Ip(ip) => (ip, None),
            Host::Written(host) => {
                let bare = host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(host);
                match bare.parse::<IpAddr>() {
                    Ok(ip) => (ip, None),
                    Err(_) if is_name(host) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), Some(host.to_ascii_lowercase())),
                    Err(_) => return Err(Reason::NoAddress),
                }
            }
        };
        let address = SocketAddr::new(ip, port);
        if port == 0 || (host.is_none() && !connectable(ip)) {
            return Err(Reason::NotConnectable);
        }
        let weight = labels.get("weight").and_then(|weight| weight.trim().parse().ok());
        if weight.is_some() {
            labels.take("weight");
        }
        let zone = ZONES.iter().find(|name| labels.get(name).is_some_and(|zone| !zone.is_empty()));
        let zone = zone.and_then(|name| labels.take(name)).unwrap_or_default();
        let scheme = scheme.unwrap_or_else(|| {
            let said = SCHEMES.iter().find_map(|name| Some((name, scheme_of(labels.get(name)?)?)));
            said.map_or(Scheme::Http, |(name, scheme)| {
                labels.take(name);
                scheme
            })
        });
        let host: Option<Arc<str>> = host.map(Arc::from);
        if let Some(host) = &host {
            labels.add("host", host.to_string());
        }
        // Collected, they would keep the room of what they were made of, which is three times as much.
        let mut exact = Vec::with_capacity(labels.0.len());
        exact.extend(labels.0.into_iter().map(|(name, value)| (Arc::from(name), Arc::from(value))));
        let weight = weight.unwrap_or(ordinary(layout));
        let endpoint = Endpoint { address, scheme, weight, zone: Arc::from(zone), labels: exact };
        Ok(Znode::Endpoint(Box::new(Read { layout, host, endpoint })))
    }
}

/// What is said of an endpoint, in the order of the names. Most of it goes into the endpoint as it is.
#[derive(Debug, Default)]
pub(super) struct Labels<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Labels<'a> {
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(name))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        Some(&*self.0[self.place(name).ok()?].1)
    }

    /// Also if there is one of that name.
    pub(super) fn set(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        let (name, value) = (name.into(), value.into());
        match self.place(&name) {
            Ok(place) => self.0[place].1 = value,
            Err(place) => self.0.insert(place, (name, value)),
        }
    }

    /// Unless there is one of that name.
    pub(super) fn add(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        let name = name.into();
        if let Err(place) = self.place(&name) {
            self.0.insert(place, (name, value.into()));
        }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        Some(self.0.remove(self.place(name).ok()?).1)
    }
}

/// Of several of a name the last counts.
impl<'a> FromIterator<(Cow<'a, str>, Cow<'a, str>)> for Labels<'a> {
    fn from_iter<I: IntoIterator<Item = (Cow<'a, str>, Cow<'a, str>)>>(all: I) -> Labels<'a> {
        let mut all: Vec<_> = all.into_iter().collect();
        // Stable, and so the last of a name stays the last.
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(&mut later.1, &mut earlier.1);
            }
            same
        });
        Labels(all)
    }
}

/// Whether something can listen there that is reached from elsewhere.
pub(super) fn connectable(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast()
}

/// A name that can be looked up. Not one that the system's parser of addresses would take for a short form of an
/// address, as it takes `10.1` or `0x7f`.
fn is_name(text: &str) -> bool {
    let good = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'))
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with("0x") || last.starts_with("0X") || !last.bytes().any(|it| it.is_ascii_alphabetic());
    text.len() <= NAME_LIMIT && text.split('.').all(good) && !numeric
}

fn scheme_of(text: &str) -> Option<Scheme> {
    Some(match text.trim().to_ascii_lowercase().as_str() {
        "http" | "rest" => Scheme::Http,
        "https" => Scheme::Https,
        // Dubbo's Triple and gRPC are HTTP/2.
        "h2c" | "tri" | "grpc" => Scheme::H2c,
        "h2" | "grpcs" => Scheme::H2,
        _ => return None,
    })
}

/// A body that is a JSON object.
pub(super) fn object(body: &[u8]) -> Option<Object<'_>> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// A string as it is, anything else as compact JSON.
pub(super) fn text<'a>(value: &'a Value<'_>) -> Cow<'a, str> {
    value.as_str().map_or_else(|| value.to_string().into(), Cow::from)
}

/// Empty if there is no such string.
pub(super) fn string<'a>(body: &'a Object<'_>, field: &str) -> &'a str {
    body.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The members of the object `field` as texts; none if there is no such object. Nulls say nothing.
pub(super) fn texts<'a>(body: &'a Object<'_>, field: &str) -> Labels<'a> {
    let all = body.get(field).and_then(Value::as_object).into_iter().flat_map(Object::iter);
    all.filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.into(), text(value))).collect()
}

/// A number of a port, also written as a string.
pub(super) fn port(value: Option<&Value<'_>>) -> Option<u64> {
    match value? {
        Value::Str(text) => text.parse().ok(),
        value => value.as_u64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(host: &str, labels: &[(&str, &str)]) -> Result<Read, Reason> {
        let labels = labels.iter().map(|(name, value)| (Cow::from(*name), Cow::from(*value))).collect();
        let found = Found { host: Host::Written(host), port: 80, scheme: None, labels };
        found.read(Layout::Nerve).map(|znode| match znode {
            Znode::Endpoint(read) => *read,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn hosts() {
        for (host, address) in [("10.0.0.1", "10.0.0.1:80"), ("::1", "[::1]:80"), ("[2001:db8::1]", "[2001:db8::1]:80")]
        {
            let read = read(host, &[]).unwrap();
            assert_eq!((read.endpoint.address, read.host), (address.parse().unwrap(), None), "{host}");
        }
        for (host, name) in
            [("Web-1.Example.COM", "web-1.example.com"), ("web", "web"), ("9124853ff0d1", "9124853ff0d1")]
        {
            let read = read(host, &[]).unwrap();
            assert_eq!(read.host.as_deref(), Some(name));
            assert_eq!(read.endpoint.labels, [("host".into(), name.into())]);
        }
        for host in [
            "",
            ".",
            "a..b",
            "10.1",
            "1",
            "0x7f",
            "0x7f.0x1",
            "a b",
            "fe80::1%eth0",
            "a/b",
            "caf\u{e9}",
            &"a.".repeat(200),
        ] {
            assert_eq!(read(host, &[]), Err(Reason::NoAddress), "{host}");
        }
        for host in ["0.0.0.0", "::", "224.0.0.1", "ff02::1"] {
            assert_eq!(read(host, &[]), Err(Reason::NotConnectable), "{host}");
        }
    }

    #[test]
    fn schemes_are_taken_from_labels_that_say_one() {
        for (labels, scheme, left) in [
            (&[("scheme", "HTTPS"), ("protocol", "x")][..], Scheme::Https, 1),
            (&[("scheme", "spdy"), ("protocol", "h2c")], Scheme::H2c, 1),
            (&[("protocol", "grpc")], Scheme::H2c, 0),
            (&[("scheme", "h2")], Scheme::H2, 0),
            (&[("scheme", "")], Scheme::Http, 1),
        ] {
            let read = read("10.0.0.1", labels).unwrap().endpoint;
            assert_eq!((read.scheme, read.labels.len()), (scheme, left), "{labels:?}");
        }
    }

    #[test]
    fn a_bad_weight_is_an_ordinary_one_and_stays_visible() {
        for (weight, expected) in [("0", 0), ("65535", 65535), (" 7 ", 7)] {
            let read = read("10.0.0.1", &[("weight", weight)]).unwrap().endpoint;
            assert_eq!((read.weight, read.labels.len()), (expected, 0), "{weight}");
        }
        for weight in ["-1", "65536", "1.5", "heavy", "null", ""] {
            let read = read("10.0.0.1", &[("weight", weight)]).unwrap().endpoint;
            assert_eq!((read.weight, read.labels.len()), (1, 1), "{weight}");
        }
    }

    #[test]
    fn the_first_zone_that_says_something_counts() {
        let read = read("10.0.0.1", &[("zone", ""), ("az", "b"), ("region", "eu")]).unwrap().endpoint;
        assert_eq!((&*read.zone, read.labels.len()), ("b", 2));
    }

    #[test]
    fn labels_are_in_order_and_the_last_of_a_name_counts() {
        let pair = |name: &'static str, value: &'static str| (Cow::from(name), Cow::from(value));
        let all = [pair("b", "1"), pair("a", "2"), pair("b", "3"), pair("b", "4"), pair("", "5")];
        let mut labels: Labels<'_> = all.into_iter().collect();
        labels.add("a", "not this");
        labels.add("c", "6");
        labels.set("", "7");
        labels.set("aa", "8");
        assert_eq!((labels.take("zz"), labels.take("aa").as_deref()), (None, Some("8")));
        assert_eq!((labels.get("b"), labels.get("aa")), (Some("4"), None));
        let order: Vec<(&str, &str)> = labels.0.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(order, [("", "7"), ("a", "2"), ("b", "4"), ("c", "6")]);
    }
}
