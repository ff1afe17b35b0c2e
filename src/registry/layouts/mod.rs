//! How the znodes of a service become endpoints: pure functions from names and bodies, no ZooKeeper.
//!
//! One file for each layout. A layout reads one znode at a time, so that a change costs one znode and a bad one hides no
//! other; [`service`] puts together what they say. [`Layout::Auto`] tells layouts apart by what a znode shows, and so the
//! layouts of a service are those of its endpoints: one, as a rule, two while it moves from one registrar to another.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use self::found::Object;
use super::{Endpoint, Service};
use crate::config::Layout;

mod curator;
pub(crate) mod dubbo;
mod found;
mod nerve;
mod registrator;
mod serverset;

pub use serverset::Rule;

/// A body beyond this is treated as if it were empty: what a registrar writes is a few hundred bytes, and a body
/// becomes labels that stay in memory as long as the endpoint.
const BODY_LIMIT: usize = 64 << 10;

/// Why nothing is known of a znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Neither the name nor the body holds an address and a port.
    NoAddress,
    /// There is an address, but nothing can listen there: port 0, `0.0.0.0`, `::` or multicast.
    NotConnectable,
    /// The body is not what its layout writes.
    Body,
    /// The name is not what its layout writes.
    Name,
}

impl Reason {
    /// The rest of a sentence that starts with the znode's path.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoAddress => "neither its name nor its body holds an address and a port",
            Reason::NotConnectable => "nothing can listen on its address",
            Reason::Body => "its body is not what its layout writes",
            Reason::Name => "its name is not what its layout writes",
        }
    }
}

/// What a znode of a service says.
#[derive(Clone, Debug, PartialEq)]
pub enum Znode {
    /// Where an endpoint is.
    Endpoint(Box<Read>),
    /// Where one is that is not to be used now: disabled, starting, draining, dead.
    Out,
    /// Weights for endpoints of other znodes.
    Vector(Box<[Rule]>),
    /// A znode of the layout that never is an endpoint.
    Other,
}

/// An endpoint as a single znode tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// How it is written; never [`Layout::Auto`].
    pub layout: Layout,
    /// The host to look up, in lower case, where the znode has a name and no IP address.
    pub host: Option<Arc<str>>,
    /// All else. With a [`Self::host`], the IP address is not known yet and so unspecified.
    pub endpoint: Endpoint,
}

/// The weight of an endpoint for which the layout's registrars write none. Weights count within a service only, so
/// that it does not matter where all endpoints have the same layout.
fn ordinary(layout: Layout) -> u16 {
    match layout {
        Layout::Dubbo => dubbo::ORDINARY,
        Layout::Serverset => serverset::SCALE,
        Layout::Auto | Layout::Registrator | Layout::Curator | Layout::Nerve => 1,
    }
}

/// What the znode `child` of a service says, where `body` may be anything, also empty.
///
/// # Errors
/// Nothing that the layout knows.
pub fn read(layout: Layout, child: &str, body: &[u8]) -> Result<Znode, Reason> {
    let body = if body.len() > BODY_LIMIT { &[] } else { body };
    match layout {
        Layout::Auto => by_evidence(child, body),
        Layout::Registrator => registrator::read(child, found::object(body).as_ref()),
        Layout::Curator => curator::read(found::object(body).as_ref()),
        Layout::Serverset => serverset::read(child, found::object(body).as_ref()),
        Layout::Nerve => nerve::read(child, found::object(body).as_ref()),
        Layout::Dubbo => dubbo::read(child),
    }
}

/// The body is believed first, then the name. A name that is an address is always enough, unless the body says that the
/// endpoint is out.
fn by_evidence(child: &str, body: &[u8]) -> Result<Znode, Reason> {
    if dubbo::is_named(child) {
        return dubbo::read(child);
    }
    let body = found::object(body);
    let body = body.as_ref();
    let fits = |fits: fn(&Object<'_>) -> bool| body.is_some_and(fits);
    let read = if fits(serverset::fits) {
        serverset::read(child, body)
    } else if fits(curator::fits) {
        curator::read(body)
    } else if fits(nerve::fits) || nerve::is_encoded(child) {
        nerve::read(child, body)
    } else {
        return match registrator::read(child, body) {
            Err(Reason::NoAddress) if dubbo::is_structure(child) => Ok(Znode::Other),
            Err(Reason::NoAddress) if serverset::is_named(child) => Err(Reason::Body),
            read => read,
        };
    };
    read.or_else(|reason| registrator::read(child, None).map_err(|_| reason))
}

/// A service from its znodes in the order of their names: of two endpoints with the same address the first counts.
/// `lookup` tells the address of a host; an endpoint whose host has none is left out until it has.
pub fn service<'a>(
    znodes: impl Iterator<Item = (&'a str, &'a Znode)> + Clone,
    lookup: impl Fn(&str) -> Option<IpAddr>,
) -> Service {
    let rules = || {
        znodes.clone().filter_map(|(_, znode)| match znode {
            Znode::Vector(rules) => Some(&**rules),
            _ => None,
        })
    };
    let mut out = 0;
    let mut all: Vec<(Layout, Endpoint)> = Vec::new();
    for (child, znode) in znodes.clone() {
        let read = match znode {
            Znode::Endpoint(read) => read,
            Znode::Out => {
                out += 1;
                continue;
            }
            Znode::Vector(_) | Znode::Other => continue,
        };
        let mut endpoint = read.endpoint.clone();
        if let Some(host) = &read.host {
            let Some(ip) = lookup(host).filter(|ip| found::connectable(*ip)) else { continue };
            endpoint.address = SocketAddr::new(ip, endpoint.address.port());
        }
        if read.layout == Layout::Serverset {
            let Some(weight) = serverset::weight(child, read, rules().flatten()) else {
                out += 1;
                continue;
            };
            endpoint.weight = weight;
        }
        all.push((read.layout, endpoint));
    }
    let layouts: BTreeSet<Layout> = all.iter().map(|(layout, _)| *layout).collect();
    // Where layouts meet whose ordinary weights differ, an ordinary endpoint of each gets the same share.
    let most = layouts.iter().map(|layout| ordinary(*layout)).max().unwrap_or(1);
    let scaled = |(layout, mut endpoint): (Layout, Endpoint)| {
        endpoint.weight = endpoint.weight.saturating_mul(most / ordinary(layout));
        endpoint
    };
    let endpoints = in_order(all.into_iter().map(scaled));
    Service { endpoints, layouts: layouts.into_iter().collect(), out, ..Service::default() }
}

/// Endpoints in the order of a [`Service`]: of two with the same address the first counts.
pub fn in_order(endpoints: impl IntoIterator<Item = Endpoint>) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = endpoints.into_iter().collect();
    // Stable, and so the first of each address stays the first.
    endpoints.sort_by_key(|endpoint| endpoint.address);
    endpoints.dedup_by_key(|endpoint| endpoint.address);
    endpoints
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What [`read`] makes of a body that is text.
    pub(super) fn read_of(layout: Layout, child: &str, body: &str) -> Result<Znode, Reason> {
        read(layout, child, body.as_bytes())
    }

    /// The endpoint that a znode tells of, as it is written.
    pub(crate) fn endpoint_of(layout: Layout, child: &str, body: &str) -> Endpoint {
        match read_of(layout, child, body) {
            Ok(Znode::Endpoint(read)) => read.endpoint,
            other => panic!("{child} {body}: {other:?}"),
        }
    }

    pub(super) fn labels(endpoint: &Endpoint) -> Vec<(&str, &str)> {
        endpoint.labels.iter().map(|(name, value)| (&**name, &**value)).collect()
    }

    /// The service that these znodes are, where every host is 10.9.9.9; those that are not understood are left out.
    fn service_of(layout: Layout, znodes: &[(&str, &str)]) -> Service {
        let read: Vec<_> =
            znodes.iter().filter_map(|(name, body)| Some((*name, read_of(layout, name, body).ok()?))).collect();
        service(read.iter().map(|(name, znode)| (*name, znode)), |_| Some([10, 9, 9, 9].into()))
    }

    pub(super) fn weights(layout: Layout, znodes: &[(&str, &str)]) -> Vec<u16> {
        service_of(layout, znodes).endpoints.iter().map(|endpoint| endpoint.weight).collect()
    }

    const REGISTRATOR: (&str, &str) = ("10.0.0.1:80", r#"{"IP":"10.0.0.1","PublicPort":80,"Attrs":{"weight":"3"}}"#);
    const CURATOR: (&str, &str) = ("d18c", r#"{"name":"a","id":"d18c","address":"10.0.0.2","port":80,"payload":null}"#);
    const SERVERSET: (&str, &str) =
        ("member_0000000000", r#"{"serviceEndpoint":{"host":"10.0.0.3","port":80},"status":"ALIVE"}"#);
    const VECTOR: (&str, &str) = ("vector_0000000000", r#"{"vector":[{"select":"inet=10.0.0.3:80","weight":0.5}]}"#);
    const NERVE: (&str, &str) = ("i-1_0000000000", r#"{"host":"10.0.0.4","port":80,"name":"i-1"}"#);
    const DUBBO: (&str, &str) = ("providers/dubbo%3A%2F%2F10.0.0.5%3A80%2Fa%3Fweight%3D200", "");

    #[test]
    fn each_layout_is_known_by_what_it_writes() {
        for (znode, layout) in [
            (REGISTRATOR, Layout::Registrator),
            (("10.0.0.1:80", "anything"), Layout::Registrator),
            (CURATOR, Layout::Curator),
            // As Dubbo 3 names applications.
            (("10.0.0.2:80", CURATOR.1), Layout::Curator),
            (SERVERSET, Layout::Serverset),
            (NERVE, Layout::Nerve),
            (("base64_44_eyJob3N0IjoiMTAuMC4wLjkiLCJwb3J0IjozMDAwfQ==_1", ""), Layout::Nerve),
            (DUBBO, Layout::Dubbo),
        ] {
            let found = service_of(Layout::Auto, &[znode]);
            assert_eq!((found.layouts, found.endpoints.len()), (vec![layout], 1), "{znode:?}");
            assert_eq!(service_of(Layout::Auto, &[znode]), service_of(layout, &[znode]), "{znode:?}");
        }
    }

    #[test]
    fn a_name_that_is_an_address_is_enough_unless_the_body_says_out() {
        for body in
            [r#"{"address":"","port":1}"#, r#"{"host":"a b","port":1}"#, r#"{"address":"10.0.0.1","port":null}"#]
        {
            assert_eq!(endpoint_of(Layout::Auto, "10.0.0.1:80", body).address.port(), 80, "{body}");
        }
        let out = r#"{"address":"10.0.0.1","port":80,"enabled":false}"#;
        assert_eq!(read_of(Layout::Auto, "10.0.0.1:80", out), Ok(Znode::Out));
        for (name, body, reason) in [
            ("x", "", Reason::NoAddress),
            ("x", r#"{"address":"a b","port":1}"#, Reason::NoAddress),
            ("member_0000000000", "{", Reason::Body),
            ("base64_9_x", "", Reason::Body),
            ("tri%3A%2F%2Fx", "", Reason::NoAddress),
        ] {
            assert_eq!(read_of(Layout::Auto, name, body), Err(reason), "{name} {body}");
        }
        for name in ["providers", "consumers", "configurators", "routers"] {
            assert_eq!(read_of(Layout::Auto, name, ""), Ok(Znode::Other));
        }
    }

    #[test]
    fn a_service_between_two_registrars_keeps_the_proportions() {
        assert_eq!(weights(Layout::Auto, &[REGISTRATOR, CURATOR]), [3, 1]);
        let all = service_of(Layout::Auto, &[REGISTRATOR, CURATOR, SERVERSET, VECTOR, NERVE, DUBBO]);
        assert_eq!(all.endpoints.iter().map(|it| it.weight).collect::<Vec<_>>(), [300, 100, 50, 100, 200]);
        let expected = [Layout::Registrator, Layout::Curator, Layout::Serverset, Layout::Nerve, Layout::Dubbo];
        assert_eq!(all.layouts, expected);
    }

    #[test]
    fn hosts_are_looked_up() {
        let named = ("x", r#"{"host":"Web.test","port":81}"#);
        assert_eq!(service_of(Layout::Auto, &[named]).endpoints[0].address, "10.9.9.9:81".parse().unwrap());
        let znode = read_of(Layout::Auto, named.0, named.1).unwrap();
        for nothing in [None, Some([0, 0, 0, 0].into())] {
            let found = service([("x", &znode)].into_iter(), |name| {
                assert_eq!(name, "web.test");
                nothing
            });
            assert_eq!((found.endpoints, found.layouts), (vec![], vec![]));
        }
    }

    #[test]
    fn what_is_out_is_counted() {
        let dead = ("member_1", r#"{"serviceEndpoint":{"host":"10.0.0.3","port":80},"status":"DEAD"}"#);
        let vector = ("vector_0000000000", r#"{"vector":[{"select":"inet=10.0.0.3:80","weight":-1.0}]}"#);
        let found = service_of(Layout::Auto, &[SERVERSET, dead, vector]);
        assert_eq!((found.endpoints.len(), found.out), (0, 2));
    }

    #[test]
    fn of_two_znodes_with_one_address_the_first_name_counts() {
        let first = ("a", r#"{"IP":"10.0.0.2","PublicPort":80,"Attrs":{"weight":"7"}}"#);
        let second = ("b", r#"{"IP":"10.0.0.2","PublicPort":80,"Attrs":{"weight":"9"}}"#);
        assert_eq!(weights(Layout::Auto, &[first, second, ("10.0.0.1:80", "")]), [1, 7]);
        assert_eq!(service_of(Layout::Auto, &[]), Service::default());
    }

    #[test]
    fn addresses_are_ordered_as_numbers() {
        let all = ["10.0.0.10:80", "10.0.0.9:443", "10.0.0.9:80"].map(|name| (name, ""));
        let order: Vec<String> =
            service_of(Layout::Auto, &all).endpoints.iter().map(|e| e.address.to_string()).collect();
        assert_eq!(order, ["10.0.0.9:80", "10.0.0.9:443", "10.0.0.10:80"]);
    }

    #[test]
    fn a_huge_body_is_not_looked_into() {
        let huge = format!(r#"{{"Attrs":{{"weight":"7","x":"{}"}}}}"#, "y".repeat(BODY_LIMIT));
        let read = endpoint_of(Layout::Registrator, "10.0.0.1:80", &huge);
        assert_eq!((read.weight, read.labels.len()), (1, 0));
    }

    /// Whatever strangers write beside it, an endpoint stays what it is.
    #[test]
    fn garbage_hides_no_neighbour() {
        let good = [REGISTRATOR, CURATOR, SERVERSET, NERVE, DUBBO];
        let layouts = [Layout::Registrator, Layout::Curator, Layout::Serverset, Layout::Nerve, Layout::Dubbo];
        let pieces = good.iter().flat_map(|(name, body)| [*name, *body]).collect::<String>() + "\0\u{ffff}{}[]\":,0-9e";
        let pieces: Vec<char> = pieces.chars().collect();
        let mut rng = fastrand::Rng::with_seed(6);
        for round in 0..5000 {
            let mut text =
                |most: usize| (0..rng.usize(..most)).map(|_| pieces[rng.usize(..pieces.len())]).collect::<String>();
            let mut neighbours: Vec<(String, String)> = (0..3).map(|_| (text(20), text(60))).collect();
            let at = rng.usize(..good.len());
            let ((name, body), layout) = (good[at], layouts[at]);
            // What is cut off or has a byte too many is the most usual garbage of all.
            let cut: String = body.chars().take(rng.usize(..=body.len())).collect();
            neighbours.push((format!("~{round}"), cut));
            for layout in [layout, Layout::Auto] {
                let alone = service_of(layout, &[(name, body)]);
                let mut all: Vec<(&str, &str)> = neighbours.iter().map(|(name, body)| (&**name, &**body)).collect();
                all.push((name, body));
                all.sort_by_key(|it| it.0);
                let found = service_of(layout, &all).endpoints;
                let same = |it: &Endpoint| {
                    Endpoint { weight: 0, ..it.clone() } == Endpoint { weight: 0, ..alone.endpoints[0].clone() }
                };
                assert!(found.iter().any(same), "{layout} {all:?}: {found:?}");
            }
        }
    }
}
