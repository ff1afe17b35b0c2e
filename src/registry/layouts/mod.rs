//! How the znodes of a service become endpoints: pure functions from names and bodies, no ZooKeeper.
//!
//! One file for each layout. Every layout decides from a single znode, so that [`Layout::Auto`] can tell them apart
//! znode by znode, and a change costs one znode, not its service.

use super::{Endpoint, Service};
use crate::config::Layout;

mod registrator;

/// A body beyond this is treated as if it were empty: what a registrar writes is a few hundred bytes, and a body
/// becomes labels that stay in memory as long as the endpoint.
const BODY_LIMIT: usize = 64 << 10;

/// Why a znode is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Neither the name nor the body holds an IP address and a port.
    NoAddress,
    /// There is an address, but nothing can listen there: port 0, `0.0.0.0`, `::` or multicast.
    NotConnectable,
}

impl Reason {
    /// The rest of a sentence that starts with the znode's path.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoAddress => "neither its name nor its body holds an IP address and a port",
            Reason::NotConnectable => "nothing can listen on its address",
        }
    }
}

/// What the znode `child` of a service says, where `body` may be anything, also empty.
pub fn endpoint(layout: Layout, child: &str, body: &[u8]) -> Result<Endpoint, Reason> {
    let body = if body.len() > BODY_LIMIT { &[] } else { body };
    match layout {
        Layout::Auto | Layout::Registrator => registrator::endpoint(child, body),
    }
}

/// A service from its endpoints in the order of their znodes' names: of two with the same address the first wins.
pub fn service<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Service {
    let mut endpoints: Vec<Endpoint> = endpoints.into_iter().cloned().collect();
    // Stable, and so the first of each address stays the first.
    endpoints.sort_by_key(|endpoint| endpoint.address);
    endpoints.dedup_by_key(|endpoint| endpoint.address);
    Service { endpoints }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_znodes_with_one_address_the_first_name_wins() {
        let read = |name: &str, body: &str| endpoint(Layout::Auto, name, body.as_bytes()).unwrap();
        let first = read("a", r#"{"IP":"10.0.0.2","PublicPort":80,"Attrs":{"weight":"7"}}"#);
        let second = read("b", r#"{"IP":"10.0.0.2","PublicPort":80,"Attrs":{"weight":"9"}}"#);
        let other = read("10.0.0.1:80", "");
        assert_eq!(service([&first, &second, &other]).endpoints, [other, first]);
        assert_eq!(service([]).endpoints, []);
    }

    #[test]
    fn addresses_are_ordered_as_numbers() {
        let all = ["10.0.0.10:80", "10.0.0.9:443", "10.0.0.9:80"].map(|n| endpoint(Layout::Auto, n, b"").unwrap());
        let order: Vec<String> = service(&all).endpoints.iter().map(|e| e.address.to_string()).collect();
        assert_eq!(order, ["10.0.0.9:80", "10.0.0.9:443", "10.0.0.10:80"]);
    }

    #[test]
    fn a_huge_body_is_not_looked_into() {
        let huge = format!(r#"{{"Attrs":{{"weight":"7","x":"{}"}}}}"#, "y".repeat(BODY_LIMIT));
        let read = endpoint(Layout::Registrator, "10.0.0.1:80", huge.as_bytes()).unwrap();
        assert_eq!((read.weight, read.labels.len()), (1, 0));
    }
}
