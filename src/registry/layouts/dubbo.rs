//! What Dubbo writes where it registers interfaces: `/dubbo/<interface>/providers/<URL>`. The name, percent-encoded, is
//! all there is: `dubbo://10.20.153.10:20880/org.x.Demo?application=demo&weight=200`.
//!
//! Beside `providers` there are `consumers`, `configurators` and `routers`, which hold no endpoints, and beside interfaces
//! there are `metadata`, `config` and `mapping`, which are none. Where Dubbo 3 registers applications, it writes what
//! Curator does.

use super::found::{Found, Host, Labels};
use super::{Reason, Znode};
use crate::config::Layout;
use crate::registry::Scheme;

/// The child of a service whose children are the endpoints.
pub(crate) const PROVIDERS: &str = "providers";

/// What providers are written without a weight, for them to be told from those with one.
pub(super) const ORDINARY: u16 = 100;

const OTHERS: [&str; 3] = ["consumers", "configurators", "routers"];

/// Parameters that are long, or differ at each start of a provider, and say nothing of where to send a request.
const NOISE: [&str; 3] = ["methods", "pid", "timestamp"];

/// Whether it is one of the znodes that every interface has.
pub(super) fn is_structure(child: &str) -> bool {
    child == PROVIDERS || OTHERS.contains(&child)
}

/// Whether a name looks like a URL: `://`, encoded or not.
pub(super) fn is_named(child: &str) -> bool {
    below(child).is_some() || ["%3A%2F%2F", "%3a%2f%2f", "://"].iter().any(|it| child.contains(it))
}

fn below(child: &str) -> Option<&str> {
    child.strip_prefix(PROVIDERS)?.strip_prefix('/')
}

/// Whether a child of this name makes its parent an interface.
pub(crate) fn is_provided(child: &str) -> bool {
    child == PROVIDERS || is_named(child)
}

pub(super) fn read(child: &str) -> Result<Znode, Reason> {
    if !is_named(child) {
        return Ok(Znode::Other);
    }
    let url = decoded(below(child).unwrap_or(child)).ok_or(Reason::Name)?;
    let (protocol, rest) = url.split_once("://").ok_or(Reason::Name)?;
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, interface) = place.split_once('/').unwrap_or((place, ""));
    // A user and a password are of no use here.
    let authority = authority.rsplit_once('@').map_or(authority, |(_, it)| it);
    let (host, port) = authority.rsplit_once(':').ok_or(Reason::NoAddress)?;
    let port = port.parse().map_err(|_| Reason::NoAddress)?;
    let mut labels: Labels<'_> = parameters
        .split('&')
        .filter_map(|it| it.split_once('='))
        .filter(|(name, _)| !name.is_empty() && !NOISE.contains(name))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let is = |name: &str, value: &str| labels.get(name).is_some_and(|it| it == value);
    if is("disabled", "true") || is("enabled", "false") {
        return Ok(Znode::Out);
    }
    let scheme = match protocol {
        "tri" | "grpc" => Scheme::H2c,
        "https" => Scheme::Https,
        _ => Scheme::Http,
    };
    labels.set("protocol", protocol);
    if !interface.is_empty() {
        labels.add("interface", interface);
    }
    Found { host: Host::Written(host), port, scheme: Some(scheme), labels }.read(Layout::Dubbo)
}

/// As Java's decoder has it, which also takes a `+` for a space. None: what is encoded is no UTF-8, or cut off.
fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{endpoint_of, labels, read_of};
    use super::*;

    const DEMO: &str = "dubbo%3A%2F%2F10.20.153.10%3A20880%2Forg.x.Demo%3Fapplication%3Ddemo%26weight%3D200%26pid%3D7\
                        %26methods%3Da%2Cb%26zone%3Dz";

    #[test]
    fn a_name_as_dubbo_writes_it() {
        for name in [DEMO.to_owned(), format!("providers/{DEMO}"), decoded(DEMO).unwrap()] {
            for body in ["", "10.0.0.7", "{}"] {
                let read = endpoint_of(Layout::Dubbo, &name, body);
                assert_eq!(read.address, "10.20.153.10:20880".parse().unwrap());
                assert_eq!((read.weight, &*read.zone, read.scheme), (200, "z", Scheme::Http));
                let expected = [("application", "demo"), ("interface", "org.x.Demo"), ("protocol", "dubbo")];
                assert_eq!(labels(&read), expected);
            }
        }
    }

    #[test]
    fn the_ordinary_weight_and_the_protocols() {
        for (name, scheme) in [
            ("tri://10.0.0.1:1/a", Scheme::H2c),
            ("grpc://10.0.0.1:1", Scheme::H2c),
            ("rest://10.0.0.1:1?", Scheme::Http),
            ("https://u:p@10.0.0.1:1/a?x&=y&z=", Scheme::Https),
            ("dubbo://[::1]:1/a?scheme=https", Scheme::Http),
        ] {
            let read = endpoint_of(Layout::Dubbo, name, "");
            assert_eq!((read.weight, read.scheme), (100, scheme), "{name}");
        }
    }

    #[test]
    fn what_is_disabled_is_no_endpoint_and_the_rest_of_the_tree_neither() {
        for parameter in ["disabled=true", "enabled=false"] {
            let name = format!("dubbo://10.0.0.1:1/a?{parameter}");
            assert_eq!(read_of(Layout::Dubbo, &name, ""), Ok(Znode::Out));
        }
        for name in ["providers", "consumers", "configurators", "routers", "org.x.Demo", "10.0.0.1:80"] {
            assert_eq!(read_of(Layout::Dubbo, name, ""), Ok(Znode::Other));
        }
    }

    #[test]
    fn names_that_are_no_urls() {
        for (name, reason) in [
            ("providers/", Reason::Name),
            ("providers/10.0.0.1:80", Reason::Name),
            ("dubbo%3A%2F%2F10.0.0.1%3A80%", Reason::Name),
            ("dubbo%3A%2F%2F10.0.0.1%3A80%f", Reason::Name),
            ("dubbo%3A%2F%2F10.0.0.1%3A80%ff", Reason::Name),
            ("dubbo://", Reason::NoAddress),
            ("dubbo://10.0.0.1", Reason::NoAddress),
            ("dubbo://10.0.0.1:x", Reason::NoAddress),
            ("dubbo://10.0.0.1:0", Reason::NotConnectable),
        ] {
            assert_eq!(read_of(Layout::Dubbo, name, ""), Err(reason), "{name}");
        }
    }
}
