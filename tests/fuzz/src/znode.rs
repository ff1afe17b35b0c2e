//! Znodes: whatever a registrar writes becomes an endpoint that can be connected to, or a reason why not, by every
//! layout alike, and nothing that stands beside an endpoint takes it away.

use std::net::IpAddr;

use moongate::config::Layout;
use moongate::registry::layouts::{self, Znode};
use moongate::registry::{Endpoint, Service};

const LAYOUTS: [Layout; 6] =
    [Layout::Auto, Layout::Registrator, Layout::Curator, Layout::Serverset, Layout::Nerve, Layout::Dubbo];

/// Where all hosts are.
const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 9, 9));

/// The name of a znode, a line feed, and its body.
pub fn znode(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let Ok(name) = std::str::from_utf8(&data[..at]) else { return };
    let body = data.get(at + 1..).unwrap_or_default();
    for layout in LAYOUTS {
        beside(layout, name, body);
        let Ok(znode) = layouts::read(layout, name, body) else { continue };
        let Znode::Endpoint(read) = &znode else { continue };
        assert!(layout == Layout::Auto || layout == read.layout, "{layout} {read:?}");
        assert_eq!(read.host.is_some(), read.endpoint.address.ip().is_unspecified(), "{read:?}");
        let service = service(&[(name, &znode)]);
        assert_eq!((service.layouts.as_slice(), service.out), (&[read.layout][..], 0));
        let [endpoint] = service.endpoints.as_slice() else { panic!("{layout}: {service:?}") };
        let address = endpoint.address;
        assert!(address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast(), "{address}");
        assert!(endpoint.labels.is_sorted_by(|a, b| a.0 < b.0), "{endpoint:?}");
        if layout == Layout::Registrator {
            // A znode that is called what it was understood as says the same.
            assert_eq!(layouts::read(layout, &address.to_string(), body).as_ref(), Ok(&znode));
        }
    }
    named(body);
}

/// The name alone is enough where it is an address, so a body cannot make it less, unless it says so.
fn named(body: &[u8]) {
    assert!(layouts::read(Layout::Registrator, "10.0.0.1:80", body).is_ok());
    let read = layouts::read(Layout::Auto, "10.0.0.1:80", body);
    assert!(matches!(read, Ok(Znode::Endpoint(_) | Znode::Out)), "{read:?}");
}

/// An endpoint that each layout understands is there with this znode beside it as without it.
fn beside(layout: Layout, name: &str, body: &[u8]) {
    let (child, good): (&str, &[u8]) = match layout {
        Layout::Auto | Layout::Registrator => ("10.250.0.1:8", b""),
        Layout::Curator => ("id", br#"{"address":"10.250.0.1","port":8}"#),
        Layout::Serverset => ("member_01", br#"{"serviceEndpoint":{"host":"10.250.0.1","port":8},"status":"ALIVE"}"#),
        Layout::Nerve => ("i_1", br#"{"host":"10.250.0.1","port":8}"#),
        Layout::Dubbo => ("dubbo://10.250.0.1:8/a", b""),
    };
    let good = layouts::read(layout, child, good).expect("the layout's own");
    let other = layouts::read(layout, name, body).ok();
    if matches!(other, Some(Znode::Vector(_))) {
        // It is there to take others out.
        return;
    }
    let alone = service(&[(child, &good)]);
    let mut both = vec![(child, &good)];
    both.extend(other.as_ref().map(|znode| (name, znode)));
    let place =
        |service: &Service| service.endpoints.iter().any(|it: &Endpoint| it.address == alone.endpoints[0].address);
    assert!(place(&alone) && place(&service(&both)), "{layout}: {both:?}");
}

fn service(znodes: &[(&str, &Znode)]) -> Service {
    layouts::service(znodes.iter().copied(), |_| Some(HOST))
}
